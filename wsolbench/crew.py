"""The process that runs local trials, as its launcher sees it; torch is imported there, not here."""

import os
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import submitit

from wsolbench import workers
from wsolbench.attempts import here
from wsolbench.errors import InputError
from wsolbench.stop import held_back, put_off, terminable
from wsolbench.store import JOBS
from wsolbench.submission import jobs_folder
from wsolbench.trial import Trial
from wsolbench.workers import POLL, Handover, Terms

Cluster = Literal["local", "debug"]

_FOR_EVER = 60 * 24 * 365  # minutes; submitit gives a local job two unless told
_IDLE_PATIENCE = 2.0  # seconds that a process has to end that has nothing to do


class Crew:
    """The process that runs local trials: started while its launcher still plans, and again if it has died.

    Args:
        results: folder of the store.
        cluster: of the executor; on `debug` no process is started.
    """

    def __init__(self, results: Path, cluster: Cluster = "local") -> None:
        # a folder of its own: submitit takes an old result of the same process number for the new one
        self.folder = results.absolute() / JOBS / uuid.uuid4().hex[:12]
        self.handover = Handover(self.folder / "handover")
        self.cluster = cluster
        self.job: submitit.Job[Any] | None = None
        self.count = 0  # of trials that were handed over
        self.told = False  # of the log of a process that failed

    @cached_property
    def executor(self) -> submitit.Executor:
        """submitit's, with its folder; errors as of `begin`."""
        jobs_folder(self.folder.parents[1])
        self.folder.mkdir(mode=0o700, exist_ok=True)
        made = submitit.AutoExecutor(self.folder, cluster=self.cluster)
        made.update_parameters(timeout_min=_FOR_EVER, name="wsolbench")
        return made

    @property
    def over(self) -> bool:
        """Whether there is no such process."""
        return self.job is None or self.job.done()

    def begin(self) -> None:
        """Have the process, unless there is one: it imports what trials need and waits for its terms.

        Raises:
            InputError: others may write to the folder of jobs; or the last process was not killed but could not work,
                as the next could not either.
            OSError: the folder cannot be made.
        """
        executor = self.executor
        if self.cluster == "debug" or not self.over:
            return
        self._check()
        with held_back(signal.SIGINT), put_off(), _errors_to(self.folder / "stderr.txt"):
            self.handover.open()
            self.job = executor.submit(workers.serve, self.handover, here())

    def _check(self) -> None:
        if self.job is None or not self.job.paths.result_pickle.exists():
            return
        outcome, said = submitit.core.utils.pickle_load(self.job.paths.result_pickle)
        if outcome == "error":
            self.told = True
            why = str(said).strip().splitlines()[-1]
            raise InputError(f"local workers cannot work here: {why}; what they said: {self.job.paths.stderr}")

    def hand(self, trial: Trial, terms: Terms) -> "Handed":
        """Hand a trial over to the process that has begun; the first with the terms of all."""
        if not self.count:
            self.handover.agree(terms)
        self.count += 1
        assert self.job is not None  # noqa: S101  begun
        handed = Handed(self.handover, f"{self.count:06d}-{trial.id}", self.job)
        self.handover.hand(handed.name, trial.spec())
        return handed

    def close(self) -> None:
        """Let the process end: there is nothing more to run."""
        if self.job is not None:
            self.handover.close()
            while not self.over:
                time.sleep(POLL)

    def tell(self, number: signal.Signals) -> None:
        """SIGTERM has all trials stop between two steps; SIGKILL ends the process. Nothing where it has ended."""
        if self.job is not None and not self.job.done():
            with suppress(ProcessLookupError):
                os.kill(int(self.job.job_id), number)  # submitit's `cancel` would kill within a second

    def vanish(self) -> None:
        """End the process, which has taken nothing, and remove its folder; what does not end soon ends by itself."""
        deadline = time.monotonic() + _IDLE_PATIENCE
        while not self.over:
            # again and again: submitit passes on no signal before it has started the process
            self.tell(signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(POLL)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def ahead(results: Path) -> Iterator[Crew]:
    """Meanwhile workers import what trials need, though nobody knows yet whether there is one.

    They leave no trace if there is none, nor if a signal ends the planning. That they cannot start is told to whoever
    hands them a trial.
    """
    folders = (results / JOBS, results, *results.parents)
    absent = [folder for folder in folders if not os.path.exists(folder)]  # noqa: PTH110  pathlib raises at what is hidden
    crew = Crew(results)
    with terminable():
        try:
            with suppress(OSError, InputError):
                crew.begin()
            yield crew
        finally:
            if not crew.count and not crew.told:
                with held_back(signal.SIGINT, signal.SIGTERM), suppress(OSError):
                    crew.vanish()
                    for folder in absent:
                        folder.rmdir()


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


@dataclass
class Handed:
    """A trial that workers have, or will have."""

    handover: Handover
    name: str
    job: submitit.Job[Any]
    withdrawn: bool = False

    def done(self) -> bool:
        """Whether its process has ended; or that of all workers, who then have not begun with what can be withdrawn."""
        if self.handover.ended(self.name):
            return True
        if not self.job.done():
            return False
        self.withdrawn = self.handover.withdraw(self.name)
        return True
