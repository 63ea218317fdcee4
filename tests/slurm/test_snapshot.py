"""Code that is changed while its jobs wait."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import wsolbench
from tests.slurm.cluster import await_
from tests.slurm.sweeping import PATIENCE, Sweeping, digests
from wsolbench import methods

pytestmark = pytest.mark.slurm

Sweep = Callable[..., Sweeping]


def copied(folder: Path) -> Path:
    """A copy of the package and of its methods; its folder goes into PYTHONPATH."""
    package = Path(wsolbench.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, folder / "wsolbench", ignore=ignored)
    shutil.copytree(list(methods.__path__)[-1], folder / "methods", ignore=ignored)
    return folder


@pytest.mark.parametrize("words", [["--snapshot"], []], ids=["snapshot", "as it is"])
def test_jobs_run_the_code_as_it_was_only_from_a_snapshot(sweeping: Sweep, tmp_path: Path, words: list[str]) -> None:
    made = sweeping(epochs=1)
    made.held.unlink()
    code, before = copied(tmp_path / "code"), made.jobs()

    submitted = made.run("-y", *words, "--sbatch", "hold=true", PYTHONPATH=str(code))
    assert submitted.code == 0, submitted.err
    (job,) = set(made.jobs()) - set(before)
    with (code / "wsolbench" / "loop.py").open("a", encoding="utf-8") as file:
        file.write("\nCHANGED = True\n")
    made.cluster.slurm("scontrol", "release", job)
    await_(made.records, PATIENCE, "the record")

    (record,) = made.records().values()
    (attempt,) = made.attempts()
    ran = record["environment"]
    assert (attempt["slurm_job"], ran["code_changed"]) == (job, not words)
    assert (made.store.folder / ".jobs" / "code" / ran["code"][:12]).exists() is bool(words)
    assert digests(made.store) == made.expected()
