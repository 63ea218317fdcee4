"""The results: plain files, one folder a trial; what state a trial is in is read off them, never stored."""

import hashlib
import io
import os
import shutil
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from wsolbench import files, index
from wsolbench.attempts import Attempt, State, standing
from wsolbench.errors import InputError
from wsolbench.index import Index
from wsolbench.memory import collecting_nothing
from wsolbench.protocols import DEFAULT
from wsolbench.trial import Trial, canonical, flat

Counted = Literal["params_mib", "param_overhead_pct", "compute_overhead_pct"]
"""What a record says of its network, beside what protocols say of its score maps; `overhead.Overhead` defines each."""

COUNTED: tuple[str, ...] = get_args(Counted)
SCHEMA = 1
LARGEST = 64_000_000
"""Bytes of a record; what stands there and is larger is no record, and is not read whole."""
JOBS = ".jobs"
"""Where in a folder of results the scripts and logs of jobs are."""
DATA = "data_digest"
"""What a record says of its images; a field of `rows` only where there are several data sets of one name."""
_DIGEST = "digest"
_SEAL = b',\n "digest": "'


class BrokenRecordError(InputError):
    """A record that is not what its writer wrote; the text names the file."""


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
        with self._writable():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.commit(path, files.text(trial.spec()))

    def attempt(self, trial_id: str) -> Attempt:
        """A new attempt at a trial."""
        with self._writable():
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
        return files.commit(self.path(trial.id, "record.json"), sealed(body))

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
        files.commit(folder / f"{protocol}.json", sealed(body))

    def records(self) -> list[dict[str, Any]]:
        """The records of all finished trials, in the order of their ids, without the epochs before the last.

        Broken ones are left out; `index` names them.
        """
        return self.index().records()

    def outcomes(self, known: Index | None = None) -> list[dict[str, Any]]:
        """The records of all finished trials, and what is known of those that diverged, which have none."""
        known = known or self.index()
        records = known.records()
        return [*records, *self._diverged(known.without, records)]

    def _diverged(self, without: Iterable[str], records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        lost: dict[str, dict[str, Any]] = {}
        for trial_id in without:
            attempts = self.attempts(trial_id)
            end = attempts[-1].exit() if attempts else {}
            if end.get("kind") == "diverged":
                lost[trial_id] = end
        protocols = {_split_of(record["trial"]): record["protocol"] for record in records} if lost else {}
        for trial_id, end in lost.items():
            if spec := self.spec(trial_id):
                protocol = protocols.get(_split_of(spec), DEFAULT)  # as that of its like
                facts = {"stages": end.get("stages", []), "protocol": protocol, "results": {}, "diverged": True}
                yield {"id": trial_id, "trial": spec, **facts}

    def index(self) -> Index:
        """What all records say, read anew only where they have changed."""
        return index.of(self.folder, self.ids(), self.record)

    def ids(self) -> list[str]:
        """The trials that have a folder here."""
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self.folder) if _is_id(entry.name))

    def whole(self, beginning: str) -> str:
        """The id of the one trial whose id begins so.

        Raises:
            InputError: there is none, or there are several.
        """
        known = self.ids()
        found = [trial_id for trial_id in known if trial_id.startswith(beginning)]
        if len(found) != 1:
            problem = f"{len(found)} trials begin with" if found else "no trial"
            there = ", ".join((found or known)[:5]) or "none"
            raise InputError(
                f"{problem} {beginning!r} in {str(self.folder)!r}; there are: {there} (`wsolbench status`)"
            )
        return found[0]

    def spec(self, trial_id: str) -> dict[str, Any]:
        """A trial's specification; empty if it was never written down."""
        return files.plain(self.path(trial_id, "trial.json"))

    def state(self, trial_id: str) -> State:
        """What the files say: a record is done, else the newest attempt decides."""
        try:
            if self.record(trial_id) is not None:
                return "done"
        except BrokenRecordError:
            return "broken"
        except files.UnreadableError:
            return "unreadable"
        return standing(self.attempts(trial_id))

    def put_arrays(self, trial_id: str, name: str, arrays: Mapping[str, Any], attempt: str | None = None) -> None:
        """Write arrays of plain types, and their digest, beside what an attempt, else the record's, has written."""
        import numpy as np  # noqa: PLC0415  status and reports do without

        content = io.BytesIO()
        sealed = {**arrays, _DIGEST: np.array(_digest_of({key: np.asarray(value) for key, value in arrays.items()}))}
        np.savez_compressed(content, allow_pickle=False, **sealed)
        files.write(self.arrays_folder(trial_id, attempt) / name, content.getvalue())

    def arrays(self, trial_id: str, name: str, attempt: str | None = None) -> dict[str, Any]:
        """The arrays of a file of `put_arrays`; empty if there is none.

        Raises:
            BrokenRecordError: they are not what was put.
        """
        return read_arrays(self.arrays_folder(trial_id, attempt) / name)

    def curve(self, trial_id: str, protocol: str) -> Any:
        """The accuracy in percent at each threshold, as (T,) floats; None if it is not stored."""
        return self.arrays(trial_id, "predictions.npz").get(f"{protocol}/curve")

    def arrays_folder(self, trial_id: str, attempt: str | None = None) -> Path:
        """The folder of an attempt, else of the one that made the record: two that end at once share no file."""
        name = attempt or (self.record(trial_id) or {}).get("attempt")
        return self.path(trial_id, "attempts", name) if name else self.path(trial_id)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """Say before anything is trained that nothing can be written."""
        try:
            yield
        except OSError as error:
            hint = f"cannot write to the results folder {str(self.folder)!r}: {error.strerror}"
            raise InputError(f"{hint}; choose another with --results") from None

    def set_aside(self, trial_id: str) -> None:
        """Move a trial's results and checkpoints out of the way, so that it trains anew; nothing is lost."""
        names = ("record.json", "predictions.npz", "scoremaps.npz", "scores", "checkpoint", "attempts")
        found = [path for path in (self.path(trial_id, name) for name in names) if path.exists()]
        if found:
            aside = files.numbered(self.path(trial_id, "aside"))
            for path in found:
                shutil.move(path, aside / path.name)


@collecting_nothing()
def rows(records: list[dict[str, Any]], protocol: str | None = None) -> list[dict[str, Any]]:
    """Records side by side: a trial's fields and options, its stages, what is counted, its metrics under one protocol.

    Args:
        records: of `Store.records` or `Store.outcomes`.
        protocol: whose metrics; None is each record's own first.
    """
    found, versions = [], _versions(records)
    for record in records:
        name = protocol or record["protocol"]
        metrics = record["results"].get(name)
        if metrics is not None or "diverged" in record:
            facts = {"id": record["id"], "stages": record["stages"], "protocol": name, **_data(record)}
            facts |= versions.get(record["id"], {})
            found.append({**flat(record["trial"]), **facts, **record.get("overhead", {}), **(metrics or {})})
    return found


def _versions(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """By trial, how the digest of its data begins, where others had other images under the name of its data set."""
    alike: dict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        if digest := record.get(DATA):
            alike[_split_of(record["trial"])][record["id"]] = digest
    apart = (known for known in alike.values() if len(set(known.values())) > 1)
    return {trial: {DATA: digest[:12]} for known in apart for trial, digest in known.items()}


def _data(record: Mapping[str, Any]) -> dict[str, Any]:
    if "diverged" in record:
        return {"diverged": True}
    return {"test_images": record["images"]["test"], "notes": record["notes"]} if "images" in record else {}


def _split_of(spec: Mapping[str, Any]) -> str:
    """What decides by which protocol a trial is scored unless another is asked for."""
    return canonical({name: spec.get(name) for name in ("dataset", "dataset_options", "held_out")}).decode()


def sealed(body: Mapping[str, Any]) -> bytes:
    """A record as a JSON text whose last key is the digest of all that stands before it."""
    text = files.text(body).removesuffix(b"\n}\n")
    return text + _SEAL + hashlib.sha256(text).hexdigest().encode() + b'"\n}\n'


def _sealed(path: Path, trial_id: str) -> dict[str, Any] | None:
    """What a file says whose digest and id are right; None if there is no file."""
    body, why = told(path, trial_id)
    if why is not None:
        raise BrokenRecordError(f"{path} {why}; run the trial again with --fresh, which sets it aside")
    return body


def told(path: Path, trial_id: str) -> tuple[dict[str, Any] | None, str | None]:
    """What a file of `sealed` says, None if there is none; and why it is not to be believed, None if it is."""
    content = files.read(path, LARGEST + 1)
    if content is None:
        return None, None
    if len(content) > LARGEST:
        return None, f"has more than {LARGEST} bytes"
    body = files.json_object(content) or {}
    digest = body.pop("digest", None)
    whole = digest == hashlib.sha256(content.rpartition(_SEAL)[0]).hexdigest()
    # the first records were sealed by their data instead of their text, which takes longer to tell
    if not (whole or digest == hashlib.sha256(canonical(body)).hexdigest()) or body.get("id") != trial_id:
        return None, "is torn, altered or another trial's"
    if body.get("schema") != SCHEMA:
        return None, f"has schema {body.get('schema')}, not {SCHEMA}: another wsolbench wrote it"
    return body, None


_FRESH = "and `wsolbench run --fresh` makes it again; tables and `status` do without"


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a file of `Store.put_arrays`; empty if there is none; raises `BrokenRecordError`."""
    import numpy as np  # noqa: PLC0415  status and reports do without

    if (content := files.read(path)) is None:
        return {}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            arrays = dict(found)
        whole = str(arrays.pop(_DIGEST, "")) in {_digest_of(arrays), ""}  # none: an old file
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        whole = False
    if not whole:
        raise BrokenRecordError(f"{path} is damaged; `wsolbench fsck --repair` puts it by, {_FRESH}")
    return arrays


def _digest_of(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _is_id(name: str) -> bool:
    return len(name) == 12 and all(letter in "0123456789abcdef" for letter in name)  # noqa: PLR2004
