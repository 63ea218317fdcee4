"""Claims: who submitted a trial, as what job, and how that went; a claim comes before its job, so that none is lost."""

import getpass
import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsolbench import files
from wsolbench.attempts import SILENT_AFTER, here, now, running_here
from wsolbench.store import Store


@dataclass(frozen=True)
class Claim:
    """The right to run a trial, held by one launcher, then by its job."""

    folder: Path

    @property
    def number(self) -> int:
        """Its place among the claims to its trial, from 1."""
        return int(self.folder.name)

    def said(self) -> dict[str, Any]:
        """The launcher: `host`, `pid`, `user`, `time`; and the `batch` and the `index` in it that the trial has."""
        return files.plain(self.folder / "claim.json")

    def job(self) -> dict[str, Any]:
        """The `job`'s id and the path of its `log` without its ending; empty until there is one."""
        return files.plain(self.folder / "job.json")

    def end(self) -> dict[str, Any]:
        """The `state` that its job ended in, and what is known of why; empty while nobody has seen that."""
        return files.plain(self.folder / "end.json")

    def register(self, job: str, log: str) -> None:
        """Say what job it has; the job and its launcher both do, and the first is right."""
        files.commit(self.folder / "job.json", files.text({"job": job, "log": log}))

    def close(self, state: str, **facts: Any) -> None:
        """Say how its job ended, or that it never got one."""
        files.commit(self.folder / "end.json", files.text({"state": state, "time": now(), **facts}))

    def withdraw(self) -> None:
        """Give it back: it never had a job, or its process has ended."""
        files.withdraw_folder(self.folder)

    def launcher(self) -> str:
        """`host:pid` of who claimed it."""
        said = self.said()
        return f"{said.get('host')}:{said.get('pid')}"

    def held(self, clock: float) -> bool:
        """Whether its launcher may still be at work.

        Args:
            clock: what time it is by the clock of the claim's file system; no two machines' clocks are compared.
        """
        said = self.said()
        if said.get("host") == socket.gethostname():
            return running_here(said) or _submitting(str(said.get("batch")))
        return self.age(clock) < SILENT_AFTER

    def age(self, clock: float) -> float:
        """Seconds since it was made; by the same clock."""
        return max(0.0, clock - (self.folder / "claim.json").stat().st_mtime)


def newest(store: Store, trial_id: str) -> Claim | None:
    """The claim that counts: the last; None if a trial was never submitted."""
    found = files.in_order(store.path(trial_id, "submitted"))
    return Claim(found[-1]) if found else None


def everyone(store: Store, trial_id: str) -> list[Claim]:
    """All claims to a trial, the oldest first."""
    return [Claim(folder) for folder in files.in_order(store.path(trial_id, "submitted"))]


def take(store: Store, trial_id: str, after: Claim | None, facts: Mapping[str, Any]) -> Claim | None:
    """The next claim to a trial after the one that was last when that was looked at; None if somebody was faster.

    Whoever sees it knows whose it is, also if its owner dies at once.
    """
    folder = store.path(trial_id, "submitted")
    folder.mkdir(exist_ok=True)
    target = folder / f"{(after.number if after else 0) + 1:04d}"
    said = {**here(), "user": getpass.getuser(), "time": now(), **facts, "token": uuid.uuid4().hex}
    return Claim(target) if files.commit_folder(target, "claim.json", files.text(said)) else None


def _submitting(batch: str) -> bool:
    """Whether an sbatch of a batch outlives its launcher here: its job may yet come."""
    wanted = re.compile(rb"/\.jobs/%s/" % re.escape(batch.encode()))
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if words[0].endswith(b"sbatch") and any(map(wanted.search, words)):
            return True
    return False
