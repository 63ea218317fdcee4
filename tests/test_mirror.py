import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK, Command, words
from wsolbench import job, mirror, recipe
from wsolbench.place import Place

RAISING = "raise RuntimeError('broken')\n"
HANGING = "import time\ntime.sleep(600)\n"
NO_SPACE = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
"""
"""As a writer finds a disk without room: no byte can be added to a file."""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a module of this name and source before all others that the writer's process imports."""

    def plant(name: str, source: str) -> None:
        path = tmp_path / "planted" / f"{name}.py"
        path.parent.mkdir()
        path.write_text(source, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(path.parent))

    return plant


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """By tag, step and value of all that TensorBoard finds in a run's folder."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader  # noqa: PLC0415  slow

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                number = value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value
                found.setdefault(value.tag, []).append((event.step, number))
    return found


def test_tensorboard_shows_each_epoch_and_the_metrics(place: Place, tmp_path: Path) -> None:
    trial = recipe.complete(QUICK)
    told: list[Any] = []

    record = job.run(trial, replace(place, tensorboard=tmp_path / "runs"), told.append)

    found = shown(tmp_path / "runs" / mirror.run_name(trial))
    assert [row["epoch"] for row in told] == [1, 2]
    assert found["loss"] == [(row["epoch"], pytest.approx(row["loss"])) for row in record["epochs"]]
    metrics = record["results"]["wsolbench"]
    assert found["wsolbench/gt_known_loc"] == [(2, pytest.approx(metrics["gt_known_loc"]))]
    assert {f"wsolbench/{name}" for name in metrics} <= set(found)


def test_nothing_is_written_unless_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_Writer", None)

    job.run(recipe.complete({**QUICK, "epochs": 1}), place)

    assert place.tensorboard is None


@pytest.mark.parametrize(
    "fault",
    [
        ("tensorboard", RAISING, "RuntimeError: broken"),
        ("tensorboard", "import os\nos.kill(os.getpid(), 11)\n", ""),
        ("tensorboard", "raise ModuleNotFoundError(name='tensorboard')\n", "pip install 'wsolbench[tensorboard]'"),
        ("sitecustomize", NO_SPACE, "File too large"),
        ("tensorboard", HANGING, "the writer did not finish within 0.5 s"),
    ],
    ids=["raising", "crashing", "missing", "full disk", "hanging"],
)
def test_a_broken_mirror_never_stops_a_trial(
    planted: Callable[[str, str], None],
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fault: tuple[str, str, str],
) -> None:
    name, source, told = fault
    trial = recipe.complete(QUICK)
    whole = job.run(trial, place)
    planted(name, source)
    monkeypatch.setattr(mirror, "WRITER_PATIENCE", 0.5 if source == HANGING else 60.0)

    record = job.run(trial, replace(place, results=place.results / "again", tensorboard=place.results / "runs"))

    assert record["weights_digest"] == whole["weights_digest"]
    assert record["results"] == whole["results"]
    said = capfd.readouterr().err
    assert told in said


def test_a_folder_that_cannot_be_made_never_stops_a_trial(
    place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").write_text("a file", encoding="utf-8")

    job.run(recipe.complete({**QUICK, "epochs": 1}), replace(place, tensorboard=tmp_path / "runs"))

    assert "in part or not at all: " in capfd.readouterr().err


def test_a_writer_that_takes_nothing_is_not_waited_for(
    planted: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted("tensorboard", HANGING)
    monkeypatch.setattr(mirror, "WRITER_PATIENCE", 0.2)
    writer = mirror._Writer(tmp_path / "runs")

    for step in range(3_000):  # many times what a pipe holds
        writer.tell(step, {f"metric {number}": 1.0 for number in range(40)})
    writer.close()

    assert writer.process is not None
    assert writer.process.returncode == -9


def test_a_process_that_cannot_be_started_never_stops_a_trial(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))

    record = job.run(recipe.complete({**QUICK, "epochs": 1}), replace(place, tensorboard=tmp_path / "runs"))

    assert record["results"]


def test_the_writer_writes_while_the_trial_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "wsolbench.mirror", str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"time": 1.0, "step": 7, "values": {"loss": 0.25}}).encode() + b"\n")
        process.stdin.flush()

        deadline = time.monotonic() + 60
        while not (found := _shown_if_there(tmp_path / "run")) and time.monotonic() < deadline:
            time.sleep(0.1)

        assert found == {"loss": [(7, 0.25)]}
        process.stdin.close()
        assert process.wait(60) == 0


def _shown_if_there(folder: Path) -> dict[str, list[tuple[int, float]]]:
    return shown(folder) if folder.is_dir() else {}


def test_the_mirror_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys, io, wsolbench.mirror as m; m.write(__import__('pathlib').Path(sys.argv[1]), io.BytesIO()); "
    code += "sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_run_mirrors_where_it_is_told(wsolbench: Command, place: Place, tmp_path: Path) -> None:
    keys = words(epochs=1, lr_steps="[1]", data=place.data, tensorboard=tmp_path / "runs")

    ended = wsolbench("run", *keys, "--results", place.results)

    (run,) = (tmp_path / "runs").iterdir()
    assert ended.code == 0
    assert run.name.startswith("cub_tiny_adl_seed0_")
    assert [step for step, _ in shown(run)["loss"]] == [1]
