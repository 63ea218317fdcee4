"""Runs the trials of a sweep that have no result yet, through submitit."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import submitit
import torch

from wsolbench import claims, files, packing, source, watch, worker, workers
from wsolbench.attempts import Order, here, running_here
from wsolbench.claims import Claim
from wsolbench.crew import Cluster, Crew, Handed
from wsolbench.place import Place
from wsolbench.stop import held_back, terminable
from wsolbench.store import BrokenRecordError, Store
from wsolbench.trial import Trial
from wsolbench.workers import Terms

POLL = 0.1
"""Seconds between two looks at the jobs."""
LOOK = 10.0
"""Seconds between two looks at a cluster's queue."""
STOP_PATIENCE = 20.0
"""Seconds that a job has to stop in order."""


@dataclass
class Progress:
    """How far the trials of a sweep are."""

    total: int
    cached: int
    epochs: int  # of all trials
    epochs_done: int = 0
    ended: dict[Trial, str] = field(default_factory=dict)  # those that ran: `done` or why not
    left: dict[Trial, str] = field(default_factory=dict)  # to the jobs of a cluster, and what these do


Show = Callable[[Progress], None]


def done(store: Store, trial: Trial, place: Place) -> bool:
    """Whether a trial has a result under the protocol that is asked for."""
    if store.state(trial.id) != "done":
        return False
    record = store.record(trial.id)
    return record is not None and place.protocol in {None, *record["results"]}


def at_once(trials: Sequence[Trial], place: Place) -> int:
    """How many local jobs keep this machine busy: as many as have their threads, and on GPUs their memory too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
    by_cores = max(1, cores // max((trial.threads + place.workers for trial in trials), default=1))
    if place.device != "cpu" and (free := packing.free_bytes()):
        return packing.at_once(trials, free, by_cores)
    return by_cores


def visible_cards() -> list[str]:
    """The GPUs that this process may use, as CUDA names them; submitit would give out the first ones of the machine."""
    count = torch.cuda.device_count()
    named = [name for name in os.environ.get(workers.CARDS, "").split(",") if name]
    return named[:count] or [str(number) for number in range(count)]


@terminable()
def launch(
    trials: Sequence[Trial], place: Place, cluster: Cluster, jobs: int, show: Show, *, crew: Crew | None = None
) -> Progress:
    """Run what has no result, at most `jobs` at a time; a failed trial never stops the others.

    A trial that another process is running is waited for, and run if that process dies. One that has a job in a
    cluster's queue is left to that. `crew` are local workers that have been started already.
    """
    store = Store(place.results)
    for trial in trials:
        store.add(trial)
    todo = [trial for trial in trials if not done(store, trial, place)]
    progress = Progress(len(trials), len(trials) - len(todo), sum(trial.epochs for trial in todo))
    if not todo:
        return progress
    running = _Jobs(store, place, cluster, jobs, crew or Crew(place.results, cluster))
    waiting, epochs = list(todo), {trial: len(store.epochs(trial.id)) for trial in todo}
    try:
        while waiting or running.jobs:
            ended = running.ended()
            progress.ended |= {trial: how for trial, how in ended.items() if how is not None}
            waiting += [trial for trial, how in ended.items() if how is None]
            before, waiting = waiting, _start(waiting, running, progress)
            moved = set(before).symmetric_difference(waiting if not running.room else ())  # or run by somebody else
            epochs |= {trial: len(store.epochs(trial.id)) for trial in {*ended, *running.jobs, *moved}}
            progress.epochs_done = sum(epochs.values())
            show(progress)
            time.sleep(POLL if running.jobs or waiting else 0)
    except BaseException:
        running.cancel()
        raise
    running.crew.close()
    return progress


def _start(waiting: list[Trial], running: "_Jobs", progress: Progress) -> list[Trial]:
    """Start what there is room for; returns what still waits. Without room nothing is looked at."""
    left = []
    for trial in waiting:
        if not running.room:
            left.append(trial)
        elif done(running.store, trial, running.place):
            progress.ended[trial] = "done"
        elif job := running.queued(trial):
            progress.left[trial] = job
        elif running.store.state(trial.id) == "running" or not running.start(trial):
            left.append(trial)
    return left


class _Job(Protocol):
    """A trial that has been started, or will be."""

    def done(self) -> bool:
        """Whether its process has ended, or it never gets one."""
        ...


@dataclass
class _Jobs:
    """The jobs under way."""

    store: Store
    place: Place
    cluster: Cluster
    most: int
    crew: Crew
    jobs: dict[Trial, _Job] = field(default_factory=dict)
    held: dict[Trial, Claim] = field(default_factory=dict)
    seen: watch.Cluster | None = None
    seen_at: float = 0.0  # of the monotonic clock

    def __post_init__(self) -> None:
        cards = visible_cards() if self.place.device != "cpu" else []
        self.place = replace(self.place, gpus=min(len(cards), 1))
        slots = [cards[slot % len(cards)] if cards else "" for slot in range(self.most)]
        self.terms = Terms(self.place, Order(code=source.digest(), commit=source.commit()), slots)

    @property
    def room(self) -> int:
        """How many more trials to start; workers have as many again at hand, not to wait for the launcher."""
        return self.most * (2 if self.cluster == "local" else 1) - len(self.jobs)

    def queued(self, trial: Trial) -> str:
        """What the job of a cluster does that stands for a trial, and how to take it back; empty where none does."""
        last = claims.newest(self.store, trial.id)
        if last is None or last.end() or last.said().get("cluster") != "slurm":
            return ""
        if self.seen is None or time.monotonic() - self.seen_at > LOOK:
            self.seen, self.seen_at = watch.ask(self.store), time.monotonic()
        standing = watch.standings(self.store, [trial.id], self.seen)[trial.id]
        if standing.state not in watch.AT_WORK:
            return ""
        job = f" as job {standing.job}" if standing.job else ""
        do = f"`wsolbench cancel {trial.id}`" if self.seen.queue is not None else f"if it is gone, remove {last.folder}"
        return f"{standing.state}{job}{f' ({standing.note})' if standing.note else ''}; to run it here {do}"

    def start(self, trial: Trial) -> bool:
        """Start a trial, unless another launcher has it; the debug cluster runs it here and now."""
        last = claims.newest(self.store, trial.id)
        if last is not None and self._taken(trial, last):
            return False
        self.crew.begin()
        claim = claims.take(self.store, trial.id, last, {"cluster": self.cluster})
        if claim is None:
            return False
        self.held[trial] = claim
        with held_back(signal.SIGINT, signal.SIGTERM):
            if self.cluster == "local":
                self.jobs[trial] = self.crew.hand(trial, self.terms)
            else:
                told = (trial.spec(), self.place, self.terms.order)
                self.jobs[trial] = _Debugged(self.crew.executor.submit(worker.work, *told))
        return True

    def _taken(self, trial: Trial, last: Claim) -> bool:
        """Whether a claim is somebody's at work; that of a cluster is its job's, whoever submitted it."""
        if last.end():
            return False
        of_a_cluster = last.said().get("cluster") == "slurm"
        return bool(self.queued(trial)) if of_a_cluster else last.held(files.clock(last.folder.parent))

    def ended(self) -> dict[Trial, str | None]:
        """The trials whose jobs have ended since the last look, and how; None where another process goes on with it."""
        gone = {trial: running for trial, running in self.jobs.items() if running.done()}
        for trial in gone:
            del self.jobs[trial]
            self.held.pop(trial).withdraw()
        return {trial: self._how(trial, running) for trial, running in gone.items()}

    def cancel(self) -> None:
        """Stop all jobs and wait for them; what they have trained is in their checkpoints. Kill who remains."""
        if self.cluster == "debug":  # the one that ran in this process has stopped, and a look would run the others
            for claim in self.held.values():
                claim.withdraw()
            return
        self.crew.tell(signal.SIGTERM)
        self._await()
        for trial in self.jobs:
            self._kill(trial)
        self.crew.tell(signal.SIGKILL)
        self._await()

    def _kill(self, trial: Trial) -> None:
        """End the process that runs a trial here and does not stop."""
        for attempt in self.store.attempts(trial.id)[-1:]:
            meta = attempt.meta()
            if meta.get("host") == here()["host"] and running_here(meta) and meta["pid"] != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(int(meta["pid"]), signal.SIGKILL)

    def _await(self) -> None:
        deadline = time.monotonic() + STOP_PATIENCE
        while (self.jobs or not self.crew.over) and time.monotonic() < deadline:
            self.ended()
            time.sleep(POLL)

    def _how(self, trial: Trial, ended: _Job) -> str | None:
        if done(self.store, trial, self.place):
            return "done"
        if self.store.state(trial.id) == "running" or (isinstance(ended, Handed) and ended.withdrawn):
            return None
        try:
            if self.store.record(trial.id) is not None:
                return f"it has a result, but none by protocol {self.place.protocol}; `wsolbench run` of it says why"
        except BrokenRecordError as error:
            return str(error)
        attempts = self.store.attempts(trial.id)
        said = attempts[-1].exit() if attempts else {}
        return said.get("message") or said.get("kind") or "its process was killed"


@dataclass(frozen=True)
class _Debugged:
    """A trial that runs in this process, when it is asked for its result."""

    job: submitit.Job[Any]

    def done(self) -> bool:
        """Run it, unless that has been done."""
        self.job.exception()
        return True
