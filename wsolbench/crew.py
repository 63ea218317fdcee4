"""The process that runs local trials, as its launcher sees it; torch is imported there, not here."""

import os
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import submitit

from wsolbench import workers
from wsolbench.attempts import here
from wsolbench.errors import InputError
from wsolbench.stop import held_back
from wsolbench.submission import jobs_folder
from wsolbench.trial import Trial
from wsolbench.workers import POLL, Handover

Cluster = Literal["local", "debug"]

_FOR_EVER = 60 * 24 * 365  # minutes; submitit gives a local job two unless told


class Crew:
    """The process that runs local trials: started while its launcher still plans, and again if it has died.

    Args:
        results: folder of the store.
        cluster: of the executor; on `debug` no process is started.

    Raises:
        InputError: others may write to the folder of jobs.
    """

    def __init__(self, results: Path, cluster: Cluster = "local") -> None:
        # a folder of its own: submitit takes an old result of the same process number for the new one
        self.folder = jobs_folder(results) / uuid.uuid4().hex[:12]
        self.folder.mkdir(mode=0o700)
        self.executor = submitit.AutoExecutor(self.folder, cluster=cluster)
        self.executor.update_parameters(timeout_min=_FOR_EVER, name="wsolbench")
        self.handover = Handover(self.folder / "handover")
        self.handover.open()
        self.job: submitit.Job[Any] | None = None
        self.count = 0  # of trials that were handed over

    @property
    def over(self) -> bool:
        """Whether there is no such process."""
        return self.job is None or self.job.done()

    @property
    def unused(self) -> bool:
        """Whether nothing was handed over, and no process has failed, whose log says why."""
        return not self.count and not self._failure()

    def begin(self) -> submitit.Job[Any]:
        """Have the process, which imports what trials need and waits for its terms."""
        if self.job is None or self.job.done():
            with self._quiet():
                self.job = self.executor.submit(workers.serve, self.handover, here())
        return self.job

    def hand(self, trial: Trial) -> "Handed":
        """Hand a trial over."""
        self.count += 1
        handed = Handed(self.handover, f"{self.count:06d}-{trial.id}", self.begin())
        self.handover.hand(handed.name, trial.spec())
        return handed

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """What starts meanwhile hears no Control-C, of which submitit says much, and complains to a file."""
        saved = os.dup(2)
        try:
            with (self.folder / "stderr.txt").open("ab") as file:
                os.dup2(file.fileno(), 2)
            with held_back(signal.SIGINT):
                yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)

    def check(self) -> None:
        """Raise an `InputError` if the last process was not killed but could not work: the next could not either."""
        if why := self._failure():
            raise InputError(f"local workers cannot work here: {why}")

    def _failure(self) -> str:
        """What the last process failed of, and where that is written; empty if it did not fail."""
        if self.job is None or not self.job.paths.result_pickle.exists():
            return ""
        outcome, said = submitit.core.utils.pickle_load(self.job.paths.result_pickle)
        if outcome != "error":
            return ""
        return f"{str(said).strip().splitlines()[-1]}; what they said: {self.job.paths.stderr}"

    def close(self) -> None:
        """Let the process end: there is nothing more to run."""
        if self.job is not None:
            self.handover.close()
            while not self.job.done():
                time.sleep(POLL)

    def tell(self, number: signal.Signals) -> None:
        """SIGTERM has all trials stop between two steps; SIGKILL ends the process. Nothing where it has ended."""
        if self.job is not None and not self.job.done():
            with suppress(ProcessLookupError):
                os.kill(int(self.job.job_id), number)  # submitit's `cancel` would kill within a second


@contextmanager
def ahead(results: Path) -> Iterator[Crew | None]:
    """Meanwhile workers import what trials need, though nobody knows yet whether there is one.

    They leave no trace if there is none. It is None where they cannot start, which whoever runs a trial is told.
    """
    absent = [folder for folder in (results / ".jobs", results, *results.parents) if not folder.exists()]
    crew = None
    try:
        with suppress(OSError, InputError):
            crew = Crew(results)
            crew.begin()
        yield crew
    finally:
        if crew is not None and crew.unused:
            crew.tell(signal.SIGTERM)
            crew.close()
            shutil.rmtree(crew.folder, ignore_errors=True)
            with suppress(OSError):
                for folder in absent:
                    folder.rmdir()


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
