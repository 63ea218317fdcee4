"""Runs the trials of a sweep that have no result yet, through submitit."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import submitit
import torch

from wsolbench import source, worker
from wsolbench.attempts import Order
from wsolbench.place import Place
from wsolbench.store import BrokenRecordError, Store
from wsolbench.trial import Trial

Cluster = Literal["local", "debug"]
POLL = 0.3
"""Seconds between two looks at the jobs."""
_FOR_EVER = 60 * 24 * 365  # minutes; submitit gives a local job two unless told


@dataclass
class Progress:
    """How far the trials of a sweep are."""

    total: int
    cached: int
    epochs: int  # of all trials
    epochs_done: int = 0
    ended: dict[Trial, str] = field(default_factory=dict)  # those that ran: `done` or why not


Show = Callable[[Progress], None]


def done(store: Store, trial: Trial, place: Place) -> bool:
    """Whether a trial has a result under the protocol that is asked for."""
    if store.state(trial.id) != "done":
        return False
    record = store.record(trial.id)
    return record is not None and place.protocol in {None, *record["results"]}


def at_once(trials: Sequence[Trial], place: Place) -> int:
    """How many local jobs keep this machine busy: one a GPU, else as many as have their threads."""
    if place.device != "cpu" and (cards := torch.cuda.device_count()):
        return cards
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
    return max(1, cores // max((trial.threads for trial in trials), default=1))


def launch(trials: Sequence[Trial], place: Place, cluster: Cluster, jobs: int, show: Show) -> Progress:
    """Run what has no result, at most `jobs` at a time; a failed trial never stops the others.

    A trial that another process is running is waited for, and run if that process dies.
    """
    store = Store(place.results)
    for trial in trials:
        store.add(trial)
    todo = [trial for trial in trials if not done(store, trial, place)]
    progress = Progress(len(trials), len(trials) - len(todo), sum(trial.epochs for trial in todo))
    if not todo:
        return progress
    running = _Jobs(store, place, cluster)
    waiting = list(todo)
    try:
        while waiting or running.jobs:
            ended = running.ended()
            progress.ended |= {trial: how for trial, how in ended.items() if how is not None}
            waiting += [trial for trial, how in ended.items() if how is None]
            waiting = _start(waiting, running, jobs, progress)
            progress.epochs_done = sum(len(store.epochs(trial.id)) for trial in todo)
            show(progress)
            time.sleep(POLL if running.jobs or waiting else 0)
    except BaseException:
        running.cancel()
        raise
    return progress


def _start(waiting: list[Trial], running: "_Jobs", jobs: int, progress: Progress) -> list[Trial]:
    """Start what there is room for; returns what still waits."""
    left = []
    for trial in waiting:
        if done(running.store, trial, running.place):
            progress.ended[trial] = "done"
        elif running.store.state(trial.id) == "running" or len(running.jobs) >= jobs:
            left.append(trial)
        else:
            running.start(trial)
    return left


@dataclass
class _Jobs:
    """The jobs under way."""

    store: Store
    place: Place
    cluster: Cluster
    jobs: dict[Trial, submitit.Job[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # a folder of its own: submitit takes an old result of the same process number for the new one
        folder = self.store.folder / ".jobs" / uuid.uuid4().hex[:12]
        folder.mkdir(parents=True, mode=0o700)
        self.executor = submitit.AutoExecutor(folder, cluster=self.cluster)
        cards = torch.cuda.device_count() if self.place.device != "cpu" else 0
        self.place = replace(self.place, gpus=min(cards, 1))
        self.order = Order(code=source.digest(), commit=source.commit())
        self.executor.update_parameters(timeout_min=_FOR_EVER, gpus_per_node=self.place.gpus, name="wsolbench")

    def start(self, trial: Trial) -> None:
        """Submit a trial; the debug cluster runs it here and now."""
        with _errors_to(self.executor.folder / "stderr.txt"):
            run = worker.work if self.cluster == "debug" else worker.work_and_exit
            with _unheard(signal.SIGINT):
                self.jobs[trial] = self.executor.submit(run, trial.spec(), self.place, self.order)

    def ended(self) -> dict[Trial, str | None]:
        """The trials whose jobs have ended since the last look, and how; None where another process goes on with it."""
        gone = [trial for trial, running in self.jobs.items() if _over(running)]
        for trial in gone:
            del self.jobs[trial]
        return {trial: self._how(trial) for trial in gone}

    def cancel(self) -> None:
        """Stop all jobs and wait for them; what they have trained is in their checkpoints."""
        for running in self.jobs.values():
            if isinstance(running, submitit.LocalJob):
                os.kill(int(running.job_id), signal.SIGTERM)  # is passed on; `cancel` would kill within a second
        deadline = time.monotonic() + 20
        while self.jobs and time.monotonic() < deadline:
            self.ended()
            time.sleep(POLL)

    def _how(self, trial: Trial) -> str | None:
        if done(self.store, trial, self.place):
            return "done"
        if self.store.state(trial.id) == "running":
            return None
        try:
            self.store.record(trial.id)
        except BrokenRecordError as error:
            return str(error)
        attempts = self.store.attempts(trial.id)
        ended = attempts[-1].exit() if attempts else {}
        return ended.get("message") or ended.get("kind") or "its process was killed"


@contextmanager
def _unheard(number: signal.Signals) -> Iterator[None]:
    """Processes that start meanwhile, and those that they start, do not hear a signal until they ask for it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _errors_to(path: Path) -> Iterator[None]:
    """Processes that start meanwhile write their errors to a file: submitit's say much about an interrupt."""
    saved = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _over(running: submitit.Job[Any]) -> bool:
    if isinstance(running, submitit.DebugJob):
        if running.cancelled:
            return True
        running.exception()  # the debug cluster runs a job when it is asked for its result
    return running.done()
