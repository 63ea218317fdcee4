"""Launchers that die; the cluster here has no accounting."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cluster import await_
from tests.slurm.sweeping import PATIENCE, Sweeping, digests, doubled

pytestmark = pytest.mark.slurm

Sweep = Callable[..., Sweeping]

DEATHS = {
    "before": "kill -9 $PPID; exit 1",
    "between": 'kill -9 $PPID; exec {sbatch} "$@"',
    "after": '(sleep 0.3; kill -9 $PPID) >/dev/null 2>&1 & exec {sbatch} "$@"',
}
"""What an sbatch does to the launcher that calls it: before it submits, before it has told the job's id, and then."""


def deadly(folder: Path, death: str) -> str:
    """A PATH whose sbatch kills its caller."""
    folder.mkdir()
    path = folder / "sbatch"
    path.write_text(f"#!/bin/bash\n{DEATHS[death].format(sbatch=shutil.which('sbatch'))}\n", encoding="utf-8")
    path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("death", DEATHS)
def test_launcher_killed_at_sbatch_loses_and_doubles_nothing(sweeping: Sweep, tmp_path: Path, death: str) -> None:
    made = sweeping(trials=3, epochs=1)
    before = made.jobs()

    killed = made.run("-y", PATH=deadly(tmp_path / "bin", death))
    assert killed.code == -signal.SIGKILL
    again = made.run("-y")
    made.held.unlink()
    await_(lambda: len(made.records()) == 3, PATIENCE, "3 records")

    assert again.code in {0, 3}, again.err
    assert len(set(made.jobs()) - set(before)) == 3
    assert doubled(made.jobs()) == []
    assert {len(made.attempts(trial)) for trial in made.records()} == {1}
    assert digests(made.store) == made.expected()


def test_another_launcher_waits_for_the_jobs_of_a_dead_one(sweeping: Sweep) -> None:
    made = sweeping(trials=2, epochs=20)
    before = made.jobs()
    first = made.start("-y", "--wait")
    await_(lambda: len(set(made.jobs()) - set(before)) == 2, PATIENCE, "the jobs")
    first.kill()
    first.communicate()

    second = made.start("-y", "--wait")
    await_(lambda: len(made.running()) == 2, PATIENCE, "the trials")
    made.held.unlink()
    _, err = second.communicate(timeout=PATIENCE)

    assert second.returncode == 0, err
    assert len(set(made.jobs()) - set(before)) == 2
    assert {len(made.attempts(trial)) for trial in made.records()} == {1}


def test_interrupted_launcher_leaves_its_jobs(sweeping: Sweep) -> None:
    made = sweeping(trials=2, epochs=20)
    before = made.jobs()
    launcher = made.start("-y", "--wait")
    await_(lambda: len(made.store.ids()) == 2 and len(made.running()) == 2, PATIENCE, "the trials")

    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=PATIENCE)
    made.done()

    assert launcher.returncode == 130
    assert len(set(made.jobs()) - set(before)) == 2
    assert {len(made.attempts(trial)) for trial in made.records()} == {1}
