"""What SLURM is asked, each question one command that has ten seconds: squeue, scontrol, sacct, scancel."""

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 10.0
"""Seconds that a question may take."""

MARK = "wsolbench:"
"""What the comment of our jobs begins with; the batch follows."""

_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
ALIVE = frozenset({*_WAITING, *_RUNNING})
"""States of a job that SLURM is not done with: a failed node's jobs are among them as soon as they are requeued."""

_FIELDS = ("id", "state", "node", "comment", "reason")
_STATES = re.compile(r"[A-Z_]+")
_ONCE_AN_ARRAY = 200  # ids in one command line


class NoAnswerError(Exception):
    """SLURM did not say; the text says why, and holds nothing that may not be shown."""


class RefusedError(Exception):
    """sbatch did not take a job; the text is its own."""

    @property
    def full(self) -> bool:
        """Whether it is for the number of jobs, so that fewer may be taken, and these later."""
        return any(word in str(self) for word in _FULL)


_FULL = (
    "AssocMaxSubmitJobLimit",
    "AssocGrpSubmitJobsLimit",
    "QOSMaxSubmitJobPerUserLimit",
    "QOSMaxSubmitJobPerAccountLimit",
    "QOSGrpSubmitJobsLimit",
    "MaxSubmitJob",
    "MaxJobCount",
    "Slurm temporarily unable to accept job",
    "Resource temporarily unavailable",
)


@dataclass(frozen=True)
class Job:
    """What SLURM says of a job, an element of an array counting as one.

    Args:
        id: `12`, or `12_3` for an element of an array.
        state: SLURM's word, such as `PENDING`.
        node: where it runs or ran; empty if nowhere.
        reason: why it waits or ended.
        comment: what it was submitted with.
        exit_code: `status:signal`; empty where it is not known.
    """

    id: str
    state: str
    node: str = ""
    reason: str = ""
    comment: str = ""
    exit_code: str = ""

    @property
    def alive(self) -> bool:
        """Whether it waits, runs, or is about to run again."""
        return self.state in ALIVE

    @property
    def on_node(self) -> bool:
        """Whether it has a node at work."""
        return self.state in _RUNNING

    @property
    def batch(self) -> str | None:
        """The batch of ours that it belongs to; None for somebody else's job."""
        return self.comment.removeprefix(MARK) if self.comment.startswith(MARK) else None


Queue = Mapping[str, Job]
"""Our jobs by id."""


def there() -> bool:
    """Whether this machine has SLURM's commands."""
    return shutil.which("squeue") is not None


def queue() -> Queue:
    """The jobs of this user that were submitted here, those too that ended a short while ago."""
    form = "%i|%T|%N|%k|%r"
    words = ("squeue", "--array", "--noheader", "--states=all", f"--user={getpass.getuser()}", f"--format={form}")
    return read_queue(answer(words))


def read_queue(text: str) -> Queue:
    """The jobs of ours in what `squeue` printed.

    Raises:
        NoAnswerError: it is nothing that squeue prints.
    """
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        values = line.split("|", len(_FIELDS) - 1)
        if len(values) != len(_FIELDS) or not _STATES.fullmatch(values[1]):
            raise NoAnswerError(f"squeue printed {line[:60]!r}, which says nothing of a job")
        said = dict(zip(_FIELDS, values, strict=True))
        job = Job(said["id"], said["state"], _nothing(said["node"]), _nothing(said["reason"]), said["comment"])
        if job.batch is not None:
            found[job.id] = job
    return found


def ended(ids: Iterable[str]) -> dict[str, Job]:
    """What accounting says of jobs that have left the queue; where there is none, what the controller still knows."""
    wanted = list(ids)
    found: dict[str, Job] = {}
    with suppress(NoAnswerError):
        found |= _accounted(wanted)
    for job_id in [job_id for job_id in wanted if job_id not in found][:_ONCE_AN_ARRAY]:
        try:
            found |= read_job(answer(("scontrol", "--oneliner", "show", "job", job_id)), job_id)
        except NoAnswerError as error:
            if "nvalid job id" not in str(error):
                break  # it does not answer at all: it would not for the others either
    return {job_id: job for job_id, job in found.items() if not job.alive}


def _accounted(ids: Sequence[str]) -> dict[str, Job]:
    found: dict[str, Job] = {}
    for start in range(0, len(ids), _ONCE_AN_ARRAY):
        some = ",".join(ids[start : start + _ONCE_AN_ARRAY])
        form = "--format=JobID,State,ExitCode,NodeList"
        found |= read_accounts(answer(("sacct", "--allocations", "--noheader", "--parsable2", form, f"--jobs={some}")))
    return {job_id: job for job_id, job in found.items() if job_id in ids}


def read_accounts(text: str) -> dict[str, Job]:
    """The jobs in what `sacct` printed; lines that say nothing of a job are left out."""
    found = {}
    for line in text.splitlines():
        values = line.split("|")
        state = _STATES.match(values[1]) if len(values) == 4 else None  # noqa: PLR2004  those asked for
        if state:  # `CANCELLED by 1000`
            found[values[0]] = Job(values[0], state[0], _nothing(values[3]), values[1], exit_code=values[2])
    return found


def read_job(text: str, job_id: str) -> dict[str, Job]:
    """The job in what `scontrol --oneliner show job` printed."""
    said = dict(word.split("=", 1) for word in text.split() if "=" in word)
    if "JobState" not in said:
        return {}
    node, reason = _nothing(said.get("NodeList", "")), _nothing(said.get("Reason", ""))
    return {job_id: Job(job_id, said["JobState"], node, reason, exit_code=said.get("ExitCode", ""))}


def settings() -> dict[str, str]:
    """The cluster's configuration, such as `MaxArraySize`, by SLURM's names."""
    return dict(read_settings(answer(("scontrol", "show", "config"))))


def read_settings(text: str) -> Iterator[tuple[str, str]]:
    """Names and values in what `scontrol show config` printed."""
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            yield name.strip(), value.strip()


def cancel(ids: Iterable[str]) -> None:
    """Cancel jobs."""
    answer(("scancel", *ids))


def submit(script: Path) -> str:
    """Submit a script; returns the job's id. Control-C does not reach sbatch: it ends as it would have.

    Raises:
        RefusedError: sbatch does not take it.
        NoAnswerError: there is no sbatch, or what it printed names no job.
    """
    try:
        said = subprocess.run(  # noqa: S603  our own words
            ["sbatch", "--parsable", str(script)],  # noqa: S607  the user's cluster
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            env=environment(os.environ),
        )
    except FileNotFoundError:
        raise NoAnswerError("there is no sbatch here: a cluster's jobs are submitted on its login node") from None
    if said.returncode:
        raise RefusedError(said.stderr.strip() or f"sbatch ended with {said.returncode}")
    job_id = said.stdout.strip().partition(";")[0]  # the cluster's name may follow
    if not job_id.isdecimal():
        raise NoAnswerError(f"sbatch printed {said.stdout[:60]!r}, which is no job's id")
    return job_id


_NOT_FOR_JOBS = re.compile(
    r"(SLURM|SBATCH|SRUN|SUBMITIT|PMIX?|OMPI)_.*|CUDA_VISIBLE_DEVICES|(OMP|MKL|OPENBLAS|NUMEXPR|NUMBA)_NUM_THREADS"
    r"|.*(TOKEN|SECRET|PASSW(OR)?D|CREDENTIAL|API_?KEY|ACCESS_?KEY).*",
    re.IGNORECASE,
)


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The part of the environment that a job may have: no secret, and nothing of where it is submitted from."""
    return {name: value for name, value in ours.items() if name == "SLURM_CONF" or not _NOT_FOR_JOBS.fullmatch(name)}


def answer(words: Sequence[str]) -> str:
    """What a command printed.

    Raises:
        NoAnswerError: it is not there, fails, or takes too long.
    """
    try:
        said = subprocess.run(  # noqa: S603  our own words
            words, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise NoAnswerError(f"there is no {words[0]} here") from None
    except subprocess.TimeoutExpired:
        raise NoAnswerError(f"{words[0]} did not answer in {TIMEOUT:g} s") from None
    if said.returncode:
        message = (said.stderr.strip() or f"it ended with {said.returncode}").splitlines()[0]
        raise NoAnswerError(f"{words[0]}: {message.removeprefix(f'{words[0]}: ')}")
    return said.stdout


def _nothing(value: str) -> str:
    return "" if value in {"None", "(null)", "None assigned", "N/A"} else value.strip()
