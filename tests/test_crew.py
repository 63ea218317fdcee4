"""Workers that start while their launcher still plans."""

import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from submitit.local.local import start_controller

from tests.conftest import QUICK, method_folder, until
from wsolbench import claims, crew, launch, recipe
from wsolbench.errors import InputError
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.workers import Handover

SLOW = "import time\ntime.sleep(60)\n"
"""A method that takes a minute to import: as long a launcher plans."""

Start = Callable[..., Any]


def processes(results: Path) -> list[str]:
    """The command lines of the processes that work for a store, but for its launchers'."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:  # it has ended
            continue
        found += [" ".join(words)] if any(word.startswith(f"{results}/.jobs") for word in words) else []
    return found


@pytest.fixture
def slow_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep whose planning takes a minute."""
    monkeypatch.setenv("WSOLBENCH_METHODS", str(method_folder(tmp_path / "methods", slow=SLOW)))
    path = tmp_path / "slow.yaml"
    path.write_text("base: {dataset: shapes, backbone: tiny, method: slow}\ngrid: {seed: [0]}\n", encoding="utf-8")
    return path


def test_trials_run_on_the_workers_that_were_started(place: Place) -> None:
    trials = [recipe.complete({**QUICK, "seed": seed}) for seed in (0, 1)]

    with crew.ahead(place.results) as started:
        launch.launch(trials, place, "local", 2, lambda _: None, crew=started)

    assert [Store(place.results).state(trial.id) for trial in trials] == ["done", "done"]
    assert len(list(place.results.glob(".jobs/*/*_submitted.pkl"))) == 1
    assert processes(place.results) == []


def test_workers_that_nobody_used_leave_nothing(tmp_path: Path) -> None:
    results = tmp_path / "deep" / "results"

    with crew.ahead(results) as started:
        at_work = not started.over

    assert at_work
    assert (list(tmp_path.iterdir()), processes(results)) == ([], [])


@pytest.mark.parametrize("results", ["~/results", "x" * 300, "here", "file/results"])
def test_workers_leave_nothing_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    with crew.ahead(Path(results)):
        pass

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "home"]


def test_workers_that_have_no_place_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Handover, "open", full)

    with crew.ahead(tmp_path / "results") as started:
        pass

    assert (started.job, list(tmp_path.iterdir())) == (None, [])


def test_workers_that_do_not_end_are_not_waited_for(tmp_path: Path) -> None:
    with crew.ahead(tmp_path / "results") as started:
        until(lambda: len(processes(tmp_path / "results")) == 2)
        (task,) = Path(f"/proc/{started.job.job_id}/task/{started.job.job_id}/children").read_text().split()
        os.kill(int(task), signal.SIGSTOP)
        begun = time.monotonic()
    waited = time.monotonic() - begun
    with suppress(ProcessLookupError):  # submitit may have killed it
        os.kill(int(task), signal.SIGCONT)

    assert waited < 20
    until(lambda: not processes(tmp_path / "results"))
    assert list(tmp_path.iterdir()) == []


def test_workers_that_nobody_used_leave_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()

    with crew.ahead(tmp_path):
        pass

    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_that_workers_cannot_start_is_told_to_who_runs_a_trial(place: Place) -> None:
    trial = recipe.complete(QUICK)
    (place.results / ".jobs").mkdir(parents=True)
    (place.results / ".jobs").chmod(0o777)

    with crew.ahead(place.results) as started, pytest.raises(InputError, match="others may write to"):
        launch.launch([trial], place, "local", 1, lambda _: None, crew=started)

    assert started.job is None
    assert claims.newest(Store(place.results), trial.id) is None


@pytest.mark.faults
def test_log_of_workers_that_failed_is_there_when_it_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cv2.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file")')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with crew.ahead(place.results) as started:
        until(lambda: started.over)
        with pytest.raises(InputError, match="cannot work here: ImportError") as told:
            launch.launch([recipe.complete(QUICK)], place, "local", 1, lambda _: None, crew=started)

    assert "libGL.so.1" in Path(str(told.value).partition("what they said: ")[2]).read_text()


def test_sweep_that_cannot_be_planned_leaves_nothing(start: Start, tmp_path: Path) -> None:
    file, results = tmp_path / "mine.yaml", tmp_path / "results"
    file.write_text("base: {dataset: shapes, backbone: tiny, method: cam, epochs: -1}\ngrid: {seed: [0]}\n")

    launcher = start("sweep", file, "--results", results)

    assert launcher.wait(60) == 2
    assert "mine.yaml:1: epochs" in launcher.stderr.read()
    assert (results.exists(), processes(results)) == (False, [])


@pytest.mark.faults
@pytest.mark.parametrize(
    ("kill", "number", "times"),
    [
        (os.killpg, signal.SIGINT, 1),
        (os.killpg, signal.SIGINT, 3),
        (os.killpg, signal.SIGINT, 30),  # until it has ended
        (os.kill, signal.SIGTERM, 1),
    ],
)
def test_a_signal_while_a_sweep_is_planned_leaves_nothing(
    start: Start, slow_sweep: Path, kill: Callable[[int, int], None], number: signal.Signals, times: int
) -> None:
    results = slow_sweep.parent / "results"
    launcher = start("sweep", slow_sweep, "--results", results)
    until(lambda: processes(results))

    for _ in range(times):
        if launcher.poll() is None:
            kill(launcher.pid, number)
            time.sleep(0.05)

    assert launcher.wait(20) == 130
    assert "Traceback" not in launcher.stderr.read()
    assert (results.exists(), processes(results)) == (False, [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_workers_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def interrupted(**settings: Any) -> Any:
        process = start_controller(**settings)
        signal.raise_signal(number)
        return process

    monkeypatch.setattr("submitit.local.local.start_controller", interrupted)

    with pytest.raises(KeyboardInterrupt), crew.ahead(tmp_path / "results"):
        pytest.fail("a signal was lost")

    assert (list(tmp_path.iterdir()), processes(tmp_path / "results")) == ([], [])


@pytest.mark.faults
def test_workers_end_with_a_launcher_that_is_killed_while_it_plans(start: Start, slow_sweep: Path) -> None:
    results = slow_sweep.parent / "results"
    launcher = start("sweep", slow_sweep, "--results", results)
    until(lambda: processes(results))

    os.kill(launcher.pid, signal.SIGKILL)

    until(lambda: not processes(results), 120)  # submitit waits a minute for a file that it may not have named
