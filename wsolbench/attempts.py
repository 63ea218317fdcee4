"""Attempts at a trial: who runs it, how far it is, how it ended; and what state that leaves the trial in."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from wsolbench import files
from wsolbench.trial import canonical

State = Literal["done", "running", "preempted", "interrupted", "lost", "failed", "broken", "unreadable", "new"]
"""Of a trial: `preempted` and `interrupted` attempts ended in order, a `lost` one was killed; a `broken` record is not
what its writer wrote, an `unreadable` one may be."""

SILENT_AFTER = 600.0
"""Seconds without a sign of life after which an attempt on another host no longer counts as running."""


@dataclass(frozen=True)
class Attempt:
    """One run of a trial: who runs it, how far it is, how it ended."""

    folder: Path

    def begin(self, meta: Mapping[str, Any]) -> None:
        """Say who runs it."""
        files.write(self.folder / "meta.json", files.text({**here(), "started": now(), **meta}))
        self.beat()

    def beat(self) -> None:
        """A sign of life."""
        (self.folder / "heartbeat").touch()

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add a line to the attempt's metrics."""
        files.append(self.folder / "metrics.jsonl", canonical(row) + b"\n")
        self.beat()

    def end(self, kind: str, message: str = "", detail: str = "") -> None:
        """Say how it ended: `done`, `failed`, `diverged`, `oom`, `interrupted`; the detail goes to the log."""
        if detail:
            with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
                log.write(detail)
        files.write(self.folder / "exit.json", files.text({"kind": kind, "message": message, "ended": now()}))

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

    def alive(self) -> bool:
        """Whether it may still be running: its process exists, or on another host it gave a recent sign of life."""
        meta = self.meta()
        if meta.get("host") == socket.gethostname():
            return running_here(meta)
        heartbeat = self.folder / "heartbeat"
        return heartbeat.exists() and time.time() - heartbeat.stat().st_mtime < SILENT_AFTER


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
