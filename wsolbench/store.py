"""The results: plain files, one folder a trial; what state a trial is in is read off them, never stored."""

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from wsolbench import files
from wsolbench.errors import InputError
from wsolbench.trial import Trial, canonical, flat

State = Literal["done", "running", "failed", "interrupted", "broken", "new"]
Counted = Literal["params_mib", "param_overhead_pct", "compute_overhead_pct"]
"""What a record says of its network, beside what protocols say of its score maps; `overhead.Overhead` defines each."""

COUNTED: tuple[str, ...] = get_args(Counted)
SCHEMA = 1
SILENT_AFTER = 600.0
"""Seconds without a sign of life after which an attempt on another host no longer counts as running."""


class BrokenRecordError(InputError):
    """A record that is not what its writer wrote; the text names the file."""


@dataclass(frozen=True)
class Attempt:
    """One run of a trial: who runs it, how far it is, how it ended."""

    folder: Path

    def begin(self, meta: Mapping[str, Any]) -> None:
        """Say who runs it."""
        here = {"host": socket.gethostname(), "pid": os.getpid(), "process_start": _process_start(os.getpid())}
        files.write(self.folder / "meta.json", _text({**here, "started": _now(), **meta}))
        self.beat()

    def beat(self) -> None:
        """A sign of life."""
        (self.folder / "heartbeat").touch()

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add a line to the attempt's metrics."""
        with (self.folder / "metrics.jsonl").open("ab") as file:
            file.write(canonical(row) + b"\n")
        self.beat()

    def end(self, kind: str, message: str = "", detail: str = "") -> None:
        """Say how it ended: `done`, `failed`, `diverged`, `oom`, `interrupted`; the detail goes to the log."""
        if detail:
            with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
                log.write(detail)
        files.write(self.folder / "exit.json", _text({"kind": kind, "message": message, "ended": _now()}))

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of its metrics; a torn last line is left out."""
        path = self.folder / "metrics.jsonl"
        return list(_lines(path.read_bytes())) if path.exists() else []

    def meta(self) -> dict[str, Any]:
        """Who runs it; empty when it died before saying so."""
        return _json(self.folder / "meta.json")

    def exit(self) -> dict[str, Any]:
        """How it ended; empty when it has not, or was killed."""
        return _json(self.folder / "exit.json")

    def alive(self) -> bool:
        """Whether it may still be running: its process exists, or on another host it gave a recent sign of life."""
        meta = self.meta()
        if meta.get("host") == socket.gethostname():
            return _process_start(meta["pid"]) == meta["process_start"]
        heartbeat = self.folder / "heartbeat"
        return heartbeat.exists() and time.time() - heartbeat.stat().st_mtime < SILENT_AFTER


@dataclass(frozen=True)
class Store:
    """Any number of jobs may write at once, also over NFS: each writes only its own trial's folder."""

    folder: Path

    def path(self, trial_id: str, *names: str) -> Path:
        """A place in a trial's folder."""
        return self.folder.joinpath(trial_id, *names)

    def add(self, trial: Trial) -> None:
        """Write down a trial's specification, once."""
        path = self.path(trial.id, "trial.json")
        if path.exists():
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.commit(path, _text(trial.spec()))
        except OSError as error:
            hint = f"cannot write to the results folder {str(self.folder)!r}: {error.strerror}"
            raise InputError(f"{hint}; choose another with --results") from None

    def attempt(self, trial_id: str) -> Attempt:
        """A new attempt at a trial."""
        return Attempt(files.numbered(self.path(trial_id, "attempts")))

    def attempts(self, trial_id: str) -> list[Attempt]:
        """The attempts at a trial, the oldest first."""
        folder = self.path(trial_id, "attempts")
        return [Attempt(path) for path in files.in_order(folder)]

    def epochs(self, trial_id: str) -> list[dict[str, Any]]:
        """The metrics of every epoch, over all attempts; the newest attempt's where several have seen one."""
        rows = {row["epoch"]: row for attempt in self.attempts(trial_id) for row in attempt.epochs()}
        return [rows[epoch] for epoch in sorted(rows)]

    def put(self, trial: Trial, results: Mapping[str, Any]) -> bool:
        """Record a finished trial, all at once or not at all; False if a record is there already."""
        body = {"schema": SCHEMA, "id": trial.id, "trial": trial.spec(), **results}
        return files.commit(self.path(trial.id, "record.json"), _text({**body, "digest": _digest(body)}))

    def record(self, trial_id: str) -> dict[str, Any] | None:
        """A finished trial's record, with what protocols said of it since; None if there is none.

        Raises:
            BrokenRecordError: the file is torn, altered, or another trial's.
        """
        record = _sealed(self.path(trial_id, "record.json"), trial_id)
        if record is not None:
            folder = self.path(trial_id, "scores")
            for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
                record["results"].setdefault(path.stem, (_sealed(path, trial_id) or {})["metrics"])
        return record

    def put_scores(self, trial_id: str, protocol: str, metrics: Mapping[str, float]) -> None:
        """Add what one more protocol says of a finished trial."""
        folder = self.path(trial_id, "scores")
        folder.mkdir(exist_ok=True)
        body = {"schema": SCHEMA, "id": trial_id, "protocol": protocol, "metrics": metrics}
        files.commit(folder / f"{protocol}.json", _text({**body, "digest": _digest(body)}))

    def records(self) -> list[dict[str, Any]]:
        """The records of all finished trials, in the order of their ids; broken ones are left out."""
        return [record for trial_id in self.ids() if (record := self._readable(trial_id)) is not None]

    def ids(self) -> list[str]:
        """The trials that have a folder here."""
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self.folder) if _is_id(entry.name))

    def spec(self, trial_id: str) -> dict[str, Any]:
        """A trial's specification; empty if it was never written down."""
        return _json(self.path(trial_id, "trial.json"))

    def state(self, trial_id: str) -> State:
        """What the files say: a record is done, else the newest attempt decides."""
        try:
            if self.record(trial_id) is not None:
                return "done"
        except BrokenRecordError:
            return "broken"
        attempts = self.attempts(trial_id)
        if not attempts:
            return "new"
        kind = attempts[-1].exit().get("kind")
        if kind is None:
            return "running" if attempts[-1].alive() else "interrupted"
        ended: dict[str, State] = {"interrupted": "interrupted", "done": "new"}  # done: its record was set aside
        return ended.get(kind, "failed")

    def put_arrays(self, trial_id: str, name: str, arrays: Mapping[str, Any]) -> None:
        """Write arrays of plain types into the trial's folder, as an .npz."""
        import numpy as np  # noqa: PLC0415  status and reports do without

        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **arrays)
        files.write(self.path(trial_id, name), content.getvalue())

    def arrays(self, trial_id: str, name: str) -> dict[str, Any]:
        """The arrays of a file of `put_arrays`; empty if there is none."""
        import numpy as np  # noqa: PLC0415  status and reports do without

        path = self.path(trial_id, name)
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as found:
            return dict(found)

    def set_aside(self, trial_id: str) -> None:
        """Move a trial's results and checkpoints out of the way, so that it trains anew; nothing is lost."""
        names = ("record.json", "predictions.npz", "scoremaps.npz", "scores", "checkpoint", "attempts")
        found = [path for path in (self.path(trial_id, name) for name in names) if path.exists()]
        if found:
            aside = files.numbered(self.path(trial_id, "aside"))
            for path in found:
                shutil.move(path, aside / path.name)

    def _readable(self, trial_id: str) -> dict[str, Any] | None:
        try:
            return self.record(trial_id)
        except BrokenRecordError:
            return None


def rows(records: list[dict[str, Any]], protocol: str | None = None) -> list[dict[str, Any]]:
    """Records side by side: a trial's fields and options, its stages, what is counted, its metrics under one protocol.

    Args:
        records: of `Store.records`.
        protocol: whose metrics; None is each record's own first.
    """
    found = []
    for record in records:
        name = protocol or record["protocol"]
        if name in record["results"]:
            facts = {"id": record["id"], "stages": record["stages"], "protocol": name}
            found.append({**flat(record["trial"]), **facts, **record.get("overhead", {}), **record["results"][name]})
    return found


def _sealed(path: Path, trial_id: str) -> dict[str, Any] | None:
    """What a file says whose digest and id are right; None if there is no file."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        body = json.loads(content)
        digest = body.pop("digest")
        if body["id"] == trial_id and body["schema"] == SCHEMA and digest == _digest(body):
            return body
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise BrokenRecordError(
        f"{path} is torn, altered or another trial's; run the trial again with --fresh, which sets it aside"
    )


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(body)).hexdigest()


def _text(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n"


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _is_id(name: str) -> bool:
    return len(name) == 12 and all(letter in "0123456789abcdef" for letter in name)  # noqa: PLR2004


def _now() -> str:
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
