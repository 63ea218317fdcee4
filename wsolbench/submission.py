"""Submits trials to SLURM: claims first, then arrays of jobs that need nothing but what is on the disk by then."""

import os
import shlex
import stat
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from wsolbench import claims, files, slurm, source
from wsolbench.claims import Claim
from wsolbench.errors import InputError
from wsolbench.place import Place
from wsolbench.resources import Resources
from wsolbench.slurm import RefusedError
from wsolbench.store import JOBS, Store

ENTRY = "wsolbench.entry"
"""The module that a job runs, with the folder of its batch."""

_BATCH = "batch.json"
_ARRAY = 1001  # SLURM's default of MaxArraySize


@dataclass(frozen=True)
class Wanted:
    """A trial to submit, with what its job asks for and the claim to it that was the last when somebody looked."""

    trial_id: str
    resources: Resources
    after: Claim | None


@dataclass
class Outcome:
    """What came of a submission."""

    jobs: dict[str, str] = field(default_factory=dict)  # trial -> job
    elsewhere: dict[str, str] = field(default_factory=dict)  # trial -> who submits it
    left: list[Wanted] = field(default_factory=list)  # the cluster takes no more now
    limit: str = ""  # what it said

    def told(self) -> str:
        """What came of it, in words."""
        arrays = sorted({job.partition("_")[0] for job in self.jobs.values()})
        said = [f"{len(self.jobs)} submitted" + (f" as job {', '.join(arrays)}" if arrays else "")]
        said += [f"{count} {how}" for how, count in Counter(self.elsewhere.values()).items()]
        if self.left:
            said.append(f"{len(self.left)} remain" + (f": {self.limit}" if self.limit else ""))
        return "; ".join(said)


@dataclass(frozen=True)
class Batch:
    """What the jobs of one array need: it is written down before they are submitted."""

    place: Place
    trials: tuple[str, ...]  # by index in the array
    code: str = ""  # of `source`, as it was when they were submitted
    commit: str | None = None

    def write(self, folder: Path) -> None:
        """Put it where its jobs find it, by whole paths: they start elsewhere."""
        told = replace(self, place=self.place.absolute())
        files.write(folder / _BATCH, TypeAdapter(Batch).dump_json(told, indent=1))

    @classmethod
    def read(cls, folder: Path) -> "Batch":
        """What `write` put there."""
        return TypeAdapter(cls).validate_json((folder / _BATCH).read_bytes())


def jobs_folder(results: Path) -> Path:
    """Where the jobs' scripts and logs are: nobody else may write there, for what is there is run.

    Raises:
        InputError: it is somebody else's, or others may write to it.
    """
    folder = results / JOBS
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    said = folder.lstat()
    if not stat.S_ISDIR(said.st_mode) or said.st_uid != os.getuid():
        raise InputError(f"{folder} is not a folder of yours, and what is in it is run; choose another --results")
    if said.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(f"others may write to {folder}, and what is in it is run; chmod 700 {folder}")
    return folder


def submit(
    store: Store, wanted: Sequence[Wanted], place: Place, most: int | None, stop: Callable[[], bool] = lambda: False
) -> Outcome:
    """Submit trials, each exactly once however many launchers there are, as arrays of equal resources.

    Args:
        store: where they are.
        wanted: trials, none of which is at work.
        place: where they run.
        most: how many of these may run at a time.
        stop: whether to submit no further array.

    Raises:
        InputError: sbatch refuses what is asked for; its words are in the text.
        NoAnswerError: there is no sbatch, or it does not say what job it made.
    """
    outcome = Outcome()
    chunks = list(_chunks(wanted, int(slurm.settings().get("MaxArraySize", _ARRAY))))
    lanes = _lanes(len(chunks), most)
    last: dict[int, str] = {}  # lane -> its last array
    for number, chunk in enumerate(chunks):
        lane, left = number % len(lanes), chunk
        while left and not outcome.limit and not stop():
            throttle = (lanes[lane], last.get(lane) if most is not None else None)
            array, left = _submit_some(store, left, place, throttle, outcome)
            last |= {lane: array} if array else {}
        outcome.left += left
    return outcome


def _chunks(wanted: Sequence[Wanted], largest: int) -> Iterator[list[Wanted]]:
    """Trials that may be one array: of equal resources, not too many."""
    groups: dict[Resources, list[Wanted]] = {}
    for one in wanted:
        groups.setdefault(one.resources, []).append(one)
    size = max(largest, 1)
    for group in groups.values():
        yield from (group[start : start + size] for start in range(0, len(group), size))


def _lanes(arrays: int, most: int | None) -> list[int]:
    """How many jobs run at a time in each of the rows that arrays form, one after the other in a row: `most` in all."""
    if most is None:
        return [_ARRAY * 100] * max(arrays, 1)
    lanes = max(1, min(arrays, most))
    return [most // lanes + (lane < most % lanes) for lane in range(lanes)]


def job_script(folder: Path, batch: str, asked: Resources, elements: int, throttle: tuple[int, str | None]) -> str:
    """The job script of an array.

    Args:
        folder: of the batch.
        batch: its name, which is in that of the jobs and in their comment, where they are found by it.
        asked: what each job gets.
        elements: jobs; a single one makes no array.
        throttle: how many run at a time, and the id of the job whose end it waits for.
    """
    from wsolbench.executor import Executor  # noqa: PLC0415  imports submitit, for those who submit only

    names = {"job_name": f"wsolbench-{batch}", "comment": f"{slurm.MARK}{batch}"}
    limits = {"array_parallelism": throttle[0], "dependency": throttle[1] and f"afterany:{throttle[1]}"}
    command = shlex.join((sys.executable, "-u", "-m", ENTRY, str(folder)))
    return Executor(folder).script(command, {**names, **asked.parameters(), **limits}, elements)


def _submit_some(
    store: Store, chunk: list[Wanted], place: Place, throttle: tuple[int, str | None], outcome: Outcome
) -> tuple[str | None, list[Wanted]]:
    """Submit as many of a chunk as the cluster takes at once; returns the array's id and what is left of the chunk."""
    batch = uuid.uuid4().hex[:12]
    held = _claimed(store, chunk, batch, outcome)
    if not held:
        return None, []
    folder = jobs_folder(store.folder) / batch
    folder.mkdir(mode=0o700)
    gpus = chunk[0].resources.gpus_per_node
    ids = tuple(one.trial_id for one, _ in held)
    Batch(replace(place, gpus=gpus), ids, source.digest(), source.commit()).write(folder)
    count = len(held)
    while count:
        script = folder / f"{count}.sh"
        files.write(script, job_script(folder, batch, chunk[0].resources, count, throttle).encode())
        try:
            array = slurm.submit(script)
            break
        except RefusedError as error:
            if not error.full:
                _withdraw(held)
                raise InputError(f"sbatch refuses the job: {error}", f"its script: {script}") from None
            outcome.limit = str(error).splitlines()[-1]
            count //= 2
    if not count:
        _withdraw(held)
        return None, [one for one, _ in held]
    for index, (one, claim) in enumerate(held[:count]):
        job = f"{array}_{index}" if count > 1 else array
        claim.register(job, log(batch, job))
        outcome.jobs[one.trial_id] = job
    _withdraw(held[count:])
    if count < len(held):
        outcome.limit = ""  # what is left is tried in smaller numbers, to the last one that fits
    return array, [one for one, _ in held[count:]]


def _claimed(store: Store, chunk: Sequence[Wanted], batch: str, outcome: Outcome) -> list[tuple[Wanted, Claim]]:
    """Those of a chunk that nobody else has claimed meanwhile."""
    held: list[tuple[Wanted, Claim]] = []
    for one in chunk:
        facts = {"cluster": "slurm", "batch": batch, "index": len(held), "resources": asdict(one.resources)}
        if (claim := claims.take(store, one.trial_id, one.after, facts)) is not None:
            held.append((one, claim))
        elif (other := claims.newest(store, one.trial_id)) is not None:
            age = f"{other.age(files.clock(other.folder)):.0f} s ago"
            outcome.elsewhere[one.trial_id] = f"being submitted by {other.launcher()} {age}"
    return held


def _withdraw(held: Sequence[tuple[Wanted, Claim]]) -> None:
    for _, claim in held:
        claim.withdraw()


def log(batch: str, job: str) -> str:
    """Where a job's output goes, without `.out` and `.err`, from the results folder."""
    return f"{JOBS}/{batch}/{job}_0_log"
