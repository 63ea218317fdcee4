"""Run trials while they, and the launchers that start them, are killed; say what is left of them. A process of its own.

    python -m tests.kills SPECS DATA FOLDER --kills 500

This process imports torch and never computes with it, so that workers forked from it start in a fraction of a second.
Two launchers take the trials in different orders; a worker dies after a step of putting a file where it belongs, or
at any time. A launcher is killed too, and leaves its worker behind. Rounds follow, each in a folder of its own, until
there were as many kills as asked and one after each step. What is printed is JSON, for `test_faults.py`.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from numba.core.registry import cpu_target

from wsolbench import datasets, files, job, methods, plugins, recipe, source, worker, workers
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial, from_spec

WRITTEN = ("meta.json", "*.safetensors", "*.sha256", "predictions.npz", "scoremaps.npz", "exit.json")
COMMITTED = ("trial.json", "record.json")
POINTS = [
    *(f"{step}:{name}" for name in WRITTEN for step in ("open", "write", "fsync", "rename", "sync")),
    *(f"{step}:{name}" for name in COMMITTED for step in ("open", "write", "fsync", "link", "sync")),
    "append:metrics.jsonl",
    "mkdir:attempts",
]
"""Steps after which a worker is killed, and the files they are of."""

AT_ONCE = 2


def forked(work: Callable[[], object]) -> int:
    """The process number of a child that does `work` and nothing else."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        code = 0 if work() is not False else 3
    finally:
        sys.stderr.flush()
        os._exit(code)


def waited(pid: int, kill_after: float = float("inf")) -> bool:
    """Wait for a child, and kill it after so many seconds; whether it was killed, by itself or here."""
    deadline = time.monotonic() + kill_after
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.003)


def undisturbed(trials: list[Trial], place: Place) -> None:
    """Run all trials and kill nothing."""
    for some in (trials[start : start + AT_ONCE] for start in range(0, len(trials), AT_ONCE)):
        for pid in [forked(partial(job.run, trial, place)) for trial in some]:
            waited(pid)


class Launcher:
    """Starts workers until every trial is done, one after another, and kills most of them."""

    def __init__(self, trials: list[Trial], place: Place, log: Path, longest: float, seed: int) -> None:
        self.longest = longest
        self.random = random.Random(seed)
        self.trials = self.random.sample(trials, len(trials))
        self.place, self.log = place, log

    def run(self) -> None:
        store = Store(self.place.results)
        while left := {trial: state for trial in self.trials if (state := store.state(trial.id)) != "done"}:
            if failed := [t.id for t, state in left.items() if state in {"failed", "broken", "unreadable"}]:
                raise SystemExit(f"failed without a kill: {failed}")
            self.trials = list(left)  # what is done stays done: nobody looks again
            free = [trial for trial, state in left.items() if state != "running"]
            if not free:
                time.sleep(0.02)
                continue
            self.work(free[0], new=not store.path(free[0].id, "trial.json").exists())
            self.trials.append(self.trials.pop(self.trials.index(free[0])))

    def work(self, trial: Trial, *, new: bool) -> None:
        """One worker's life; that of a new trial writes trial.json too."""
        by_time = self.random.random() < 0.4
        point = self.point(new=new)
        kill_after = self.random.uniform(0, self.longest) if by_time else float("inf")
        pid = forked(partial(_worker, trial, self.place, None if by_time else f"1:{point}"))
        if waited(pid, kill_after):
            _note(self.log, "time" if by_time else point)

    def point(self, *, new: bool) -> str:
        """The step after which the fewest were killed so far; chance decides between equals."""
        so_far = Counter(noted(self.log))
        points = [point for point in POINTS if new or not point.endswith("trial.json")]
        return min(self.random.sample(points, len(points)), key=so_far.__getitem__)


def _worker(trial: Trial, place: Place, fault: str | None) -> None:
    if fault is not None:
        os.environ[files.FAULT] = fault
    worker.work(trial.spec(), place, job.NO_ORDER)


def _note(log: Path, what: str) -> None:
    with log.open("ab", buffering=0) as file:
        file.write(what.encode() + b"\n")


def noted(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def disturbed(trials: list[Trial], place: Place, log: Path, longest: float, dice: random.Random) -> None:
    """Two launchers at once; now and then one is killed, which leaves its worker behind, and started anew.

    Args:
        trials: to run.
        place: where; the folder of the results does not exist yet.
        log: gets a line for each kill.
        longest: seconds after which a worker is killed at the latest, where time decides.
        dice: decide.
    """
    place.results.mkdir()

    def started() -> int:
        return forked(Launcher(trials, place, log, longest, dice.randrange(2**32)).run)

    def deadline() -> float:
        return time.monotonic() + longest * dice.uniform(5, 15)

    running = {started(): deadline() for _ in range(2)}
    while running:
        pid, due = min(running.items(), key=lambda item: item[1])
        found, status = os.waitpid(-1, os.WNOHANG)
        if found:
            running.pop(found, None)
            if os.WEXITSTATUS(status):
                raise SystemExit("a launcher failed")
        elif time.monotonic() > due:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            _note(log, "launcher")
            del running[pid]
            running[started()] = deadline()
        time.sleep(0.01)


def found_in(folder: Path, trials: list[Trial], expected: dict[str, Any]) -> Counter[str]:
    """What is wrong with the results of a round, counted."""
    store, wrong = Store(folder), Counter[str]()
    for trial in trials:
        records = [path for path in store.path(trial.id).rglob("record.json*") if not path.name.endswith(".tmp")]
        finished = [attempt for attempt in store.attempts(trial.id) if attempt.exit().get("kind") == "done"]
        wrong["doubled"] += len(records) > 1 or len(finished) > 1
        try:
            record = store.record(trial.id)
        except ValueError:
            wrong["corrupt"] += 1
            continue
        wrong["lost"] += record is None
        compared = ("weights_digest", "results")
        wrong["different"] += record is not None and any(record[key] != expected[trial.id][key] for key in compared)
    return wrong


def _warm(trials: list[Trial]) -> None:
    """Load what each worker would load; nothing of it computes with torch."""
    workers.warm()
    for trial in trials:
        plugins.load(methods, trial.method)
        plugins.load(datasets, trial.dataset)
        recipe.blueprint(trial.backbone, trial.backbone_options)  # imports torchvision's and timm's networks
    cpu_target.typing_context.refresh()  # the compiler's tables
    cpu_target.target_context.refresh()
    commit = source.commit()
    source.commit = lambda: commit


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser()
    for name in ("specs", "data", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--kills", type=int, required=True)
    asked = parser.parse_args()
    trials = [from_spec(spec) for spec in json.loads(asked.specs.read_text(encoding="utf-8"))]
    _warm(trials)
    place, log = Place(asked.folder / "undisturbed", data=asked.data), asked.folder / "kills.txt"
    started = time.monotonic()
    undisturbed(trials, place)
    took = time.monotonic() - started
    expected = {trial.id: Store(place.results).record(trial.id) for trial in trials}
    wrong, attempts, dice = Counter[str](), 0, random.Random(0)
    rounds = 0
    kills: list[str] = []
    while len(kills := noted(log)) < asked.kills or not set(POINTS) <= set(kills):
        rounds += 1
        there = Place(asked.folder / f"round_{rounds}", data=asked.data)
        disturbed(trials, there, log, took / len(trials) * AT_ONCE, dice)
        wrong += found_in(there.results, trials, expected)
        attempts += sum(len(Store(there.results).attempts(trial.id)) for trial in trials)
        if not wrong.total():  # else somebody wants to see it
            shutil.rmtree(there.results)
    said = {"trials": len(trials), "rounds": rounds, "attempts": attempts, "kills": Counter(kills), "wrong": wrong}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = {"undisturbed": took, "all": time.monotonic() - started, "processor": used.ru_utime + used.ru_stime}
    print(json.dumps({**said, "seconds": seconds}))


if __name__ == "__main__":
    main()
