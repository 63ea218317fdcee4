"""Whether this machine, its disks and its cluster are fit for trials; a finding of each check, with its fix."""

import importlib.metadata
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsolbench import methods, plugins, slurm
from wsolbench.errors import InputError
from wsolbench.store import JOBS

Verdict = Literal["ok", "note", "wrong"]
"""A note is worth knowing; what is wrong stops trials or endangers their results."""

LEAST_FREE = 2**30
"""Bytes on a disk; a trial's checkpoints, score maps and logs take some hundred MiB."""

LEAST_SHARED = 2**28
"""Bytes of /dev/shm; processes that decode images pass them on through it, and die of a bus error when it is full."""

MOST_SKEW = 5.0
"""Seconds between this machine's clock and that of the disk's server."""

SHORTEST_END = 10
"""Seconds from SIGTERM to SIGKILL below which a large checkpoint may not be written in time."""

OVER_NETWORK = re.compile("nfs4?|lustre|gpfs|beegfs|(fuse.)?ceph|cifs|smb3|fuse.sshfs|afs|9p|wekafs|panfs")
"""File systems that other machines see too."""

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "sinfo")
_SUBMITIT = (1, 5, 2)  # the oldest that pyproject.toml allows


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: its name.
        verdict: how it stands.
        found: what there is.
        fix: what to do; empty where nothing needs to be done.
    """

    check: str
    verdict: Verdict
    found: str
    fix: str = ""


def findings(results: Path) -> Iterator[Finding]:
    """All of them; nothing is left behind on the disk.

    Args:
        results: the folder of the results; it need not exist yet.
    """
    folder = _existing(results)
    yield from (python(), torch(), submitit(), method_folders())
    yield from (disk("results disk", folder), disk("home disk", _existing(Path.home())), shared_memory())
    yield filesystem(folder, _mounts(), cluster=slurm.there())
    can_write = writable(folder)
    yield can_write
    if can_write.verdict == "ok":
        yield from (links(folder), clock(folder))
    yield private(results / JOBS)
    yield from cluster()


def python() -> Finding:
    """Which Python runs this; jobs run the same one."""
    return Finding("python", "ok", f"{platform.python_version()}, {sys.executable}")


def torch(driver: Path = Path("/proc/driver/nvidia/version")) -> Finding:
    """Whether torch works, and finds the GPUs that are here."""
    try:
        import torch as library  # noqa: PLC0415  the other checks do without
    except (ImportError, OSError) as error:
        return Finding("torch", "wrong", f"cannot be imported: {error}", "make setup, or pip install torch torchvision")
    built = f"for CUDA {library.version.cuda}" if library.version.cuda else "without CUDA"
    known = f"{library.__version__}, built {built}"
    if cards := library.cuda.device_count():
        names = ", ".join(library.cuda.get_device_name(index) for index in range(cards))
        return Finding("torch", "ok", f"{known}; {cards} GPU(s): {names}")
    if driver.exists():
        fix = "install the torch that fits the driver (pytorch.org/get-started), or look at CUDA_VISIBLE_DEVICES"
        return Finding("torch", "wrong", f"{known}, finds no GPU though NVIDIA's driver is loaded", fix)
    return Finding("torch", "ok", f"{known}; no GPU here: trials run on the CPU")


def submitit() -> Finding:
    """Whether the library that starts local jobs is new enough."""
    try:
        found = importlib.metadata.version("submitit")
    except importlib.metadata.PackageNotFoundError:
        return Finding("submitit", "wrong", "is not installed", "pip install submitit")
    least = ".".join(map(str, _SUBMITIT))
    if tuple(map(int, re.findall(r"\d+", found)[:3])) < _SUBMITIT:
        return Finding("submitit", "wrong", f"{found}, older than {least}", f"pip install 'submitit>={least}'")
    return Finding("submitit", "ok", found)


def method_folders() -> Finding:
    """Whether the folders are there that methods are looked for in."""
    try:
        found = plugins.names(methods)
    except InputError as error:
        return Finding("methods", "wrong", "; ".join(error.problems), "mend the variable, or unset it")
    return Finding("methods", "ok", f"{len(found)} in {', '.join(methods.__path__)}")


def disk(name: str, folder: Path) -> Finding:
    """Whether there is room where a folder lies, in bytes and in files."""
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free at {folder}"
    if free < LEAST_FREE:
        return Finding(name, "wrong", found, f"free at least {LEAST_FREE // 2**30} GiB")
    files = os.statvfs(folder)
    if files.f_files and files.f_favail < files.f_files // 1000:
        return Finding(name, "wrong", f"{found}, but no room for more files", "delete small files: no inode is free")
    return Finding(name, "ok", found)


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:  # noqa: S108  where torch puts it
    """Whether processes that decode images have memory in common."""
    if not folder.is_dir():
        return Finding("shared memory", "ok", "no /dev/shm here")
    size = shutil.disk_usage(folder).total
    found = f"{size / 2**20:.0f} MiB at {folder}"
    if size < LEAST_SHARED:
        fix = "start the container with --shm-size=1g or --ipc=host, or run with workers=0"
        return Finding("shared memory", "wrong", f"{found}: too little for workers that decode images", fix)
    return Finding("shared memory", "ok", found)


def filesystem(folder: Path, mounts: str, *, cluster: bool) -> Finding:
    """What kind of disk holds the results.

    Args:
        folder: that exists.
        mounts: the content of /proc/self/mountinfo.
        cluster: whether jobs run on other machines.
    """
    kind = _kind(folder.resolve(), mounts)
    if kind is None:
        return Finding("file system", "ok", "not known here")
    if kind.startswith("nfs"):
        return Finding("file system", "note", f"{kind}: what one node writes, another may see a minute later")
    if cluster and not OVER_NETWORK.fullmatch(kind):
        fix = "if nodes are other machines, choose a folder that all of them see: --results"
        return Finding("file system", "note", f"{kind}, a disk of this machine alone", fix)
    return Finding("file system", "ok", kind)


def writable(folder: Path) -> Finding:
    """Whether a file can be made in a folder."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor.") as file:
            file.write(b"written")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        fix = "choose another with --results or WSOLBENCH_RESULTS, or make it yours"
        return Finding("results folder", "wrong", f"cannot write to {folder}: {error.strerror}", fix)
    return Finding("results folder", "ok", f"{folder} can be written")


def links(folder: Path) -> Finding:
    """Whether a file can have two names: that is how the first of two writers of a record wins."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor.") as inside:
        one = Path(inside, "one")
        one.touch()
        try:
            Path(inside, "two").hardlink_to(one)
        except OSError as error:
            fix = "choose a folder on another file system: --results"
            return Finding("hard links", "wrong", f"{folder} has none: {error.strerror}", fix)
    return Finding("hard links", "ok", "work")


def clock(folder: Path) -> Finding:
    """Whether the clock of the disk's server agrees with this machine's."""
    before = time.time()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor.") as file:
        file.write(b"now")
        file.flush()
        written, after = os.fstat(file.fileno()).st_mtime, time.time()
    skew = max(before - written, written - after, 0.0)
    if skew > MOST_SKEW:
        fix = "set both by NTP (chronyc tracking); signs of life from other nodes are misjudged until then"
        return Finding("clock", "wrong", f"differs from the disk's by {skew:.0f} s", fix)
    return Finding("clock", "ok", f"agrees with the disk's within {max(skew, 0.1):.1f} s")


def private(folder: Path) -> Finding:
    """Whether nobody else can put a pickle where jobs read theirs: reading one runs what is in it."""
    if not folder.is_dir():
        return Finding("jobs folder", "ok", f"{folder} is not there yet")
    found = folder.stat()
    if found.st_uid != os.geteuid():
        fix = f"move it away: mv {folder} {folder}.old"
        return Finding("jobs folder", "wrong", f"{folder} belongs to user {found.st_uid}", fix)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Finding("jobs folder", "wrong", f"others may write to {folder}", f"chmod 700 {folder}")
    return Finding("jobs folder", "ok", f"{folder} is yours alone to write")


def cluster() -> Iterator[Finding]:
    """What there is to say of SLURM."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if len(missing) == len(COMMANDS):
        yield Finding("slurm", "ok", "none here: sweeps run with --cluster local")
        return
    if missing:
        yield Finding("slurm", "wrong", f"no {', '.join(missing)} in PATH", "module load slurm, or mend PATH")
        return
    try:
        settings = slurm.settings()
    except slurm.NoAnswerError as error:
        fix = "look at SLURM_CONF, and whether this is a login node; scontrol ping says which controller is asked"
        yield Finding("slurm", "wrong", f"slurmctld does not answer: {error}", fix)
        return
    yield Finding("slurm", "ok", f"{settings.get('SLURM_VERSION', '?')}, slurmctld answers")
    yield from (queue(), accounting(settings), partitions())
    yield from (arrays(settings), requeue(settings), grace(settings), preemption(settings))


def queue() -> Finding:
    """Whether squeue tells of this user's jobs."""
    try:
        return Finding("squeue", "ok", f"answers: {len(slurm.queue())} job(s) of wsolbench")
    except slurm.NoAnswerError as error:
        return Finding("squeue", "wrong", str(error), "without it no state of a job is known; ask the administrators")


def accounting(settings: Mapping[str, str]) -> Finding:
    """Whether sacct explains jobs that have left the queue; sweeps do without."""
    if settings.get("AccountingStorageType", "").endswith("none"):
        age = settings.get("MinJobAge", "a while")
        return Finding("sacct", "note", f"no accounting: why a job ended is known for {age} only, then by its files")
    try:
        slurm.answer(("sacct", "--noheader", "--allocations", "--starttime=now"))
    except slurm.NoAnswerError as error:
        return Finding("sacct", "wrong", str(error), "slurmdbd may be down; sweeps cannot say why a job ended")
    return Finding("sacct", "ok", "answers")


def partitions() -> Finding:
    """Where jobs may go."""
    try:
        lines = slurm.answer(("sinfo", "--noheader", "--format=%R|%a|%F|%l")).split()
    except slurm.NoAnswerError as error:
        return Finding("partitions", "wrong", str(error), "ask the administrators")
    up = []
    for name, state, nodes, limit in (line.split("|") for line in lines):
        allocated, idle, _, total = nodes.split("/")
        if state == "up" and (allocated, idle) != ("0", "0"):
            up.append(f"{name} ({total} nodes, at most {limit})")
    if not up:
        return Finding("partitions", "wrong", "none has a node that is up", "sinfo says why; ask the administrators")
    return Finding("partitions", "ok", ", ".join(up))


def arrays(settings: Mapping[str, str]) -> Finding:
    """How many trials fit into one job array."""
    most = int(settings.get("MaxArraySize", "0"))
    if most <= 1:
        return Finding("arrays", "wrong", f"MaxArraySize is {most}: no job arrays", "ask the administrators for more")
    return Finding("arrays", "ok", f"up to {most} trials each; a larger sweep is several")


def requeue(settings: Mapping[str, str]) -> Finding:
    """Whether a job comes back after preemption, the loss of its node, or its time limit."""
    if settings.get("JobRequeue") == "0":
        return Finding("requeue", "note", "JobRequeue=0: only jobs that ask for it come back, as sweeps' jobs do")
    return Finding("requeue", "ok", "jobs come back after preemption and lost nodes")


def grace(settings: Mapping[str, str]) -> Finding:
    """How long a job has to write its checkpoint once SLURM ends it."""
    seconds = int((re.findall(r"\d+", settings.get("KillWait", "")) or ["0"])[0])
    found = f"{seconds} s from SIGTERM to SIGKILL (KillWait)"
    if seconds < SHORTEST_END:
        return Finding("end of a job", "note", f"{found}: a cancelled or preempted epoch may be lost")
    return Finding("end of a job", "ok", found)


def preemption(settings: Mapping[str, str]) -> Finding:
    """What happens to a job that has to make room."""
    kind, mode = settings.get("PreemptType", ""), settings.get("PreemptMode", "")
    if kind.endswith("none") or not kind or mode == "OFF":
        return Finding("preemption", "ok", "off")
    if "CANCEL" in mode:
        return Finding("preemption", "note", f"{mode}: a preempted job does not come back by itself")
    if "preempt_send_user_signal" not in settings.get("SlurmctldParameters", ""):
        return Finding("preemption", "note", f"{mode}, told by SIGTERM, and not at all where GraceTime is 0")
    return Finding("preemption", "ok", f"{mode}, told by the job's own signal")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


def _mounts() -> str:
    path = Path("/proc/self/mountinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""  # not on macOS


def _kind(folder: Path, mounts: str) -> str | None:
    """The type of the file system that is mounted nearest above a folder; None if there is none."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4]))
        if folder.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = (len(point.parts), after.split()[0])  # a later mount hides an earlier one
    return None if found is None else found[1]
