"""What the records say, gathered in one file beside them: derived, disposable, believed only while none has changed.

A line of JSON a table, of columns: a reader parses what it asks for, and ten thousand records cost one file.
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from wsolbench import files
from wsolbench.memory import collecting_nothing

NAME = ".index.jsonl"
RACY = 2.0
"""Seconds: the coarsest clock of a file system. What was written so shortly before the index may have changed since."""

_PARTS = 4  # of a stamp for each file
_WORTH = 100  # a hundredth of the records must have changed for the index to be written anew

Row = dict[str, Any] | None
Stamp = tuple[int, ...]
Read = Callable[[str], dict[str, Any] | None]


@dataclass
class Index:
    """Records by the ids of their trials.

    Args:
        ids: of the trials whose record can be read, in order.
        tables: a line of JSON each, parsed when it is asked for: `facts`, `trial`, and each protocol's metrics.
        stamps: what tells a changed record, by id.
        broken: why a record is not what its writer wrote, by id.
        unreadable: why a record cannot be read now, by id.
        without: ids of the trials that have no record, in order.
    """

    ids: list[str] = field(default_factory=list)
    tables: dict[str, str | list[Row]] = field(default_factory=dict)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)

    def table(self, name: str) -> list[Row]:
        """A row for each id; None where a record has nothing of the kind."""
        found = self.tables.get(name) or [None] * len(self.ids)
        if isinstance(found, str):
            found = self.tables[name] = _rows(from_json(found), len(self.ids))
        return found

    @collecting_nothing()
    def records(self) -> list[dict[str, Any]]:
        """The records, of their epochs only `last_epoch`; `results` is parsed when it is looked at."""
        tables = zip(self.table("facts"), self.table("trial"), strict=True)
        return [
            {**(facts or {}), "trial": trial, "results": Results(self, number)}
            for number, (facts, trial) in enumerate(tables)
        ]


@dataclass(frozen=True)
class Results(Mapping[str, dict[str, float]]):
    """The metrics of one record by protocol."""

    index: Index
    number: int

    def __getitem__(self, protocol: str) -> dict[str, float]:
        row = self.index.table(f"results/{protocol}")[self.number]
        if row is None:
            raise KeyError(protocol)
        return row

    def __iter__(self) -> Iterator[str]:
        names = (name.removeprefix("results/") for name in self.index.tables if name.startswith("results/"))
        return (name for name in names if self.index.table(f"results/{name}")[self.number] is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@collecting_nothing()
def of(folder: Path, ids: Sequence[str], read: Read) -> Index:
    """The records of these trials, the unchanged ones from the index, which is brought up to date.

    Args:
        folder: of the results.
        ids: of trials, in order.
        read: a trial's record, None if it is gone; `ValueError` if it is broken, `OSError` if it is unreadable now.
    """
    stamps = {name: found for name in ids if (found := stamp(f"{folder}/{name}")) is not None}
    without = [name for name in ids if name not in stamps]
    return replace(_of(folder, stamps, read), without=without)


def _of(folder: Path, stamps: Mapping[str, Stamp], read: Read) -> Index:
    known = _load(folder / NAME)
    changed = [name for name, found in stamps.items() if known.stamps.get(name) != found]
    gone = len({*known.ids, *known.broken} - stamps.keys())
    if not changed and not gone:
        return known
    made = _updated(known, stamps, dict.fromkeys(changed), read)
    if (len(changed) + gone) * _WORTH < len(stamps):
        return made
    packed = replace(made, tables={name: _dumped(_columns(made.table(name))) for name in made.tables})
    _save(folder / NAME, packed)
    return packed  # whose equal values are one object, as those of an index that was read


def _updated(known: Index, stamps: Mapping[str, Stamp], changed: Collection[str], read: Read) -> Index:
    records = {name: record for name, record in zip(known.ids, known.records(), strict=True) if name not in changed}
    broken = {name: why for name, why in known.broken.items() if name in stamps and name not in changed}
    unreadable: dict[str, str] = {}
    for name in changed:
        try:
            if (record := read(name)) is not None:
                records[name] = record
        except ValueError as error:
            broken[name] = str(error)
        except OSError as error:
            unreadable[name] = files.reason(error)
    found = {name: records[name] for name in stamps if name in records}
    seen = {name: seen for name, seen in stamps.items() if name in found or name in broken}
    return Index(list(found), _tables(list(found.values())), seen, broken, unreadable)


def stamp(folder: str) -> Stamp | None:
    """What changes when a trial's record, or what a protocol said of it since, does; None where there is no record."""
    try:
        found = [os.stat(f"{folder}/record.json")]  # noqa: PTH116  ten thousand times
    except (FileNotFoundError, NotADirectoryError):
        return None
    if os.access(scores := f"{folder}/scores", os.F_OK):  # no exception for each of those without
        with suppress(FileNotFoundError, NotADirectoryError):
            found += [entry.stat() for entry in sorted(os.scandir(scores), key=lambda entry: entry.name)]
    return tuple(part for s in found for part in (s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_ino))


def _tables(records: Sequence[Mapping[str, Any]]) -> dict[str, str | list[Row]]:
    tables: dict[str, str | list[Row]] = {
        "facts": [_facts(record) for record in records],
        "trial": [record["trial"] for record in records],
    }
    results = [record.get("results", {}) for record in records]
    for name in dict.fromkeys(name for found in results for name in found):
        tables[f"results/{name}"] = [found.get(name) for found in results]
    return tables


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of a record: of its epochs only the last."""
    found = {key: value for key, value in record.items() if key not in {"trial", "results", "epochs"}}
    return {**found, "last_epoch": record["epochs"][-1]} if record.get("epochs") else found


def _load(path: Path) -> Index:
    """What was saved; nothing where there is none, or it is damaged, or other code wrote it."""
    try:
        content = path.read_bytes()
        written = path.stat().st_mtime_ns
        head, _, body = content.partition(b"\n")
        if head.decode() != _head(body):
            return Index()
    except (OSError, UnicodeDecodeError):
        return Index()
    first, *lines = body.decode().splitlines()
    ids, names, stamps, broken = json.loads(first)  # of paths too, that may be no text, which from_json refuses
    latest = written - RACY * 1e9
    trusted = {name: tuple(seen) for name, seen in stamps.items() if max(seen[1::_PARTS]) < latest}
    return Index(ids, dict(zip(names, lines, strict=True)), trusted, broken)


def _save(path: Path, packed: Index) -> None:
    """Keep it for the next time; where nothing can be written there is none."""
    first = _dumped([packed.ids, list(packed.tables), packed.stamps, packed.broken])
    body = "\n".join([first, *map(str, packed.tables.values())]).encode()
    with suppress(OSError):
        files.write(path, _head(body).encode() + b"\n" + body)


def _head(body: bytes) -> str:
    return f"{_code()} {hashlib.sha256(body).hexdigest()}"


@cache
def _code() -> str:
    """What tells this code from any that gathers otherwise."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


def _columns(rows: Sequence[Row]) -> list[Any]:
    """Rows as columns, those with the same keys together: keys, the numbers of the rows, and a column for each key."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        if row is not None:
            alike.setdefault(tuple(row), []).append(number)
    return [
        [keys, numbers, [_column([(rows[number] or {})[key] for number in numbers]) for key in keys]]
        for keys, numbers in alike.items()
    ]


def _column(values: list[Any]) -> list[Any]:
    """Either all values, or, where many are equal, the different ones and which of them stands where."""
    keys = _keys(values)
    different = dict(zip(keys, values, strict=True))
    if len(different) * 2 > len(values):
        return [values]
    places = {key: place for place, key in enumerate(different)}
    return [list(different.values()), [places[key] for key in keys]]


def _keys(values: list[Any]) -> Sequence[Hashable]:
    """What is equal where two values are written alike: 1, 1.0 and True are equal, and so are 0.0 and -0.0."""
    kinds = list(map(type, values))
    if {float, list, dict}.isdisjoint(kinds) or (set(kinds) == {float} and 0 not in values):
        return list(zip(kinds, values, strict=True))
    return list(map(repr, values))


def _rows(columns: list[Any], count: int) -> list[Row]:
    """What `_columns` was given."""
    rows: list[Row] = [None] * count
    for keys, numbers, packed in columns:
        unpacked = [[column[0][place] for place in column[1]] if len(column) > 1 else column[0] for column in packed]
        for number, *values in zip(numbers, *unpacked, strict=True):
            rows[number] = dict(zip(keys, values, strict=True))
    return rows


_dumped = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
