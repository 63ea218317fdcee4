"""Attempts at a trial: who runs it, how far it is, how it ended; and what state that leaves the trial in."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from wsolbench import files
from wsolbench.trial import canonical

Kind = Literal["done", "failed", "diverged", "oom", "disk_full", "preempted", "superseded", "interrupted"]
"""How an attempt ends. One that was killed does not say; that it is lost is concluded."""

State = Literal["done", "running", "preempted", "interrupted", "lost", "failed", "broken", "unreadable", "new"]
"""Of a trial: `preempted` and `interrupted` attempts ended in order, a `lost` one was killed; a `broken` record is not
what its writer wrote, an `unreadable` one may be."""

RESERVED = 4096
"""Bytes kept for the word on how an attempt ended, so that a full disk cannot prevent it."""

MOST_FRUITLESS = 5
"""Attempts in a row that may be stopped without having got anywhere."""

SILENT_AFTER = 600.0
"""Seconds after which an attempt, a job or a launcher that gives no sign of life, on another host, is taken for silent.

Such an attempt no longer counts as running, nor the claim of such a launcher as being submitted.
"""


@dataclass(frozen=True)
class Order:
    """What a launcher hands to the job that runs a trial, beside the trial and the place.

    Args:
        submission: the number of the claim under which it was submitted; 0 for none.
        code: `source.digest()` when it was submitted; empty if nobody looked.
        commit: `source.commit()` then.
    """

    submission: int = 0
    code: str = ""
    commit: str | None = None


class SupersededError(RuntimeError):
    """A newer attempt at the trial has begun: this one may not write any more."""


class StalledError(RuntimeError):
    """The attempts at a trial are stopped again and again before they have got anywhere."""


@dataclass(frozen=True)
class Attempt:
    """One run of a trial: who runs it, how far it is, how it ended. Its number is its lease: the highest holds it."""

    folder: Path

    @property
    def name(self) -> str:
        """Its number, as files are named by it."""
        return self.folder.name

    def begin(self, meta: Mapping[str, Any]) -> None:
        """Say who runs it, and reserve the room that saying how it ended will take."""
        files.write(self.folder / "meta.json", files.text({**here(), "started": now(), **meta}))
        files.write(self.folder / "reserve", os.urandom(RESERVED))
        self.beat(0, 0)

    def hold(self) -> None:
        """Make sure, before anything of the trial is written, that no newer attempt has begun.

        Raises:
            SupersededError: one has, or the attempts were set aside.
        """
        newest = files.in_order(self.folder.parent)[
            -1:
        ]  # opening a folder asks an NFS server, looking up a name may not
        if newest != [self.folder]:
            by = f"attempt {newest[0].name} has begun" if newest else "the attempts were set aside"
            raise SupersededError(f"attempt {self.name} writes nothing more: {by}")

    def beat(self, epoch: int, step: int) -> None:
        """A sign of life, after so many whole epochs and steps of the next."""
        beat = {"attempt": self.name, "epoch": epoch, "step": step}
        files.write(self.folder / "heartbeat", canonical(beat) + b"\n")

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add a line to the attempt's metrics."""
        files.append(self.folder / "metrics.jsonl", canonical(row) + b"\n")
        self.beat(row["epoch"], 0)

    def end(self, kind: Kind, message: str = "", detail: str = "", **facts: Any) -> None:
        """Say how it ended; the detail goes to the log."""
        (self.folder / "reserve").unlink(missing_ok=True)
        files.write(self.folder / "exit.json", files.text({"kind": kind, "message": message, "ended": now(), **facts}))
        if detail:
            with suppress(OSError):  # of a full disk: what counts is said
                files.append(self.folder / "log.txt", detail.encode())

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of its metrics; a torn last line is left out."""
        path = self.folder / "metrics.jsonl"
        return list(_lines(files.read(path) or b""))

    def meta(self) -> dict[str, Any]:
        """Who runs it; empty when it died before saying so."""
        return files.plain(self.folder / "meta.json")

    def exit(self) -> dict[str, Any]:
        """How it ended; empty when it has not, or was killed."""
        return files.plain(self.folder / "exit.json")

    def heartbeat(self) -> dict[str, Any]:
        """The last sign of life: `attempt`, `epoch`, `step`; when it was is the file's own time."""
        return files.plain(self.folder / "heartbeat")

    def alive(self) -> bool:
        """Whether it may still be running: its process exists, or on another host it gave a recent sign of life."""
        meta = self.meta()
        if meta.get("host") == socket.gethostname():
            return running_here(meta)
        heartbeat = self.folder / "heartbeat"
        return heartbeat.exists() and files.clock(self.folder) - heartbeat.stat().st_mtime < SILENT_AFTER


@dataclass
class Pulse:
    """How far an attempt is, for its signs of life.

    Args:
        attempt: whose.
        epoch: whole epochs behind.
        step: steps of the next behind.
        moved: whether this attempt has left a checkpoint.
    """

    attempt: Attempt
    epoch: int = 0
    step: int = 0
    moved: bool = False

    @contextmanager
    def beating(self, every: float = 20.0) -> Iterator[None]:
        """Meanwhile a sign of life every so many seconds, whatever the process is at."""
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(ended, every), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self, ended: threading.Event, every: float) -> None:
        while not ended.wait(every):
            with suppress(OSError):  # a full disk or a slow one does not end a trial for this
                self.attempt.beat(self.epoch, self.step)


def stalled(attempts: Sequence[Attempt]) -> bool:
    """Whether the last `MOST_FRUITLESS` attempts were all stopped by the cluster before they had left a checkpoint."""
    last = [attempt.exit() for attempt in attempts[-MOST_FRUITLESS:]]
    return len(last) == MOST_FRUITLESS and all(e.get("kind") == "preempted" and not e.get("moved") for e in last)


def standing(attempts: Sequence[Attempt]) -> State:
    """What state the attempts at a trial leave it in, while it has no record: the newest decides."""
    if not attempts:
        return "new"
    kind = attempts[-1].exit().get("kind")
    if kind is None:
        return "running" if attempts[-1].alive() else "lost"
    ended: dict[str, State] = {"done": "new", "superseded": "new"}  # their record was set aside
    ended |= {"preempted": "preempted", "interrupted": "interrupted"}
    return ended.get(kind, "failed")


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    found = (files.json_object(line) for line in content.splitlines())
    return (row for row in found if row is not None and type(row.get("epoch")) is int)


def here() -> dict[str, Any]:
    """What tells this process from all others."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "process_start": _process_start(os.getpid())}


def running_here(process: Mapping[str, Any]) -> bool:
    """Whether a process of this host, as `here` described it, is still there."""
    start = process.get("process_start")
    return start is not None and _process_start(int(process["pid"])) == start


def cluster_job() -> str | None:
    """The SLURM job that this process belongs to, named as squeue does: `12` or `12_3`; None outside one."""
    array, element = (os.environ.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID"))
    return f"{array}_{element}" if array and element else os.environ.get("SLURM_JOB_ID")


def now() -> str:
    """The time in UTC, for people: no two hosts' are compared."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _process_start(pid: int) -> str | None:
    """What tells a process from a later one of the same number; None when it is gone."""
    if not Path("/proc/self/stat").exists():  # macOS
        return _listed_start(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _listed_start(pid: int) -> str | None:
    """The same where there is no /proc."""
    words = ("ps", "-o", "stat=,lstart=", "-p", str(pid))
    listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()  # noqa: S603  our words
    return None if not listed or listed[0].startswith("Z") else " ".join(listed[1:])
