"""Which finished trials a row of a table takes, and which of them belong into one table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsolbench.errors import InputError, nearest
from wsolbench.protocols import METRICS
from wsolbench.store import COUNTED
from wsolbench.table import shown, unique
from wsolbench.table_file import Line, TableFile
from wsolbench.trial import expand_stages

Record = Mapping[str, Any]
"""One finished trial: its fields and options side by side, `id`, `protocol`, `stages`, what is counted, and metrics.

One that diverged has `diverged` and no metrics.
"""

NO_SETTINGS = {*METRICS, *COUNTED, "seed", "id", "stages", "test_images", "notes", "diverged"}
"""What a record says beside its settings: two records that differ in nothing else are of one cell."""

NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Part:
    """The records of each row that belong together, and the values that set them apart from the others."""

    fixed: Mapping[str, str]
    cells: Sequence[Sequence[Record]]

    @property
    def records(self) -> list[Record]:
        """Those of all rows."""
        return [record for cell in self.cells for record in cell]

    @property
    def stages(self) -> Sequence[str]:
        """Those of its backbone; none where records differ or none says."""
        found = {tuple(record["stages"]) for record in self.records if record.get("stages")}
        return found.pop() if len(found) == 1 else ()

    def at(self, name: str | None) -> str:
        """The value of a field that sets parts apart."""
        return self.fixed.get(name, "") if name else ""

    def values(self, name: str) -> set[str]:
        """What its records have in a field."""
        return {self.fixed[name]} if name in self.fixed else {shown(r[name]) for r in self.records if name in r}

    def asks(self, line: Line) -> Line:
        """The row with the part's own stages in place of `stages` and its slices."""
        if not self.stages:
            return line
        where = {name: expand_stages(value, self.stages) for name, value in line.where.items()}
        return replace(line, where=where)


def select(table: TableFile, records: Iterable[Record], filters: Mapping[str, Any]) -> list[list[Record]]:
    """For each row of the table its records that the filters fit, in one order however they came."""
    chosen = sorted((record for record in records if fits(record, filters)), key=_order)
    lines = [line for block in table.lines() for line in block]
    return [[record for record in chosen if fits(record, line.where)] for line in lines]


def check_filters(filters: Mapping[str, Any], records: Sequence[Record]) -> None:
    """Raise the `InputError` that names every filter on a field that no record has."""
    known = {name for record in records for name in record}
    problems = [
        f"no record has a field or option {name!r}{nearest(name, known) or '.'} There are: {', '.join(sorted(known))}"
        for name in filters
        if known and name not in known
    ]
    if problems:
        raise InputError(*problems)


def fits(record: Record, where: Mapping[str, Any]) -> bool:
    """Whether the record has these values; `stages` and its slices are those of its own backbone."""
    return all(name in record and shown(record[name]) == shown(meant(value, record)) for name, value in where.items())


def parts(table: TableFile, part: Part) -> list[Part]:
    """The part itself if the records of each row agree on all but the seed, else its parts by a field that differs."""
    present = [name for name in table.apart if any(name in record for cell in part.cells for record in cell)]
    apart = [name for name in (*present, *_varying(table, part.cells)) if name not in part.fixed]
    if not apart:
        return [part]
    name = apart[0]
    by_value = [_by_value(cell, name) for cell in part.cells]
    found = {value for values in by_value if values is not None for value in values}
    return [
        smaller
        for value in sorted(found, key=natural)
        for smaller in parts(table, Part({**part.fixed, name: value}, _having(part.cells, by_value, value)))
    ]


def sheets(table: TableFile, found: Iterable[Part]) -> list[list[Part]]:
    """The parts of each table: those that differ in nothing but what stands below or beside."""
    together: dict[tuple[tuple[str, str], ...], list[Part]] = {}
    for part in found:
        apart = tuple(item for item in part.fixed.items() if item[0] not in {table.below, table.beside})
        together.setdefault(apart, []).append(part)
    return list(together.values())


def told(table: TableFile, found: Sequence[Part]) -> dict[str, list[str]]:
    """The values of the caption's fields; of fields with headers or labels of their own only where there is one."""
    values: dict[str, list[str]] = {}
    for name in unique([*table.caption, *found[0].fixed]):
        there = {value for part in found for value in part.values(name)}
        if there and (len(there) == 1 or name not in {table.below, table.beside}):
            values[name] = sorted(there, key=natural)
    return values


def by_seed(records: Iterable[Record]) -> dict[int, Record]:
    """The first record of each seed: one that is there twice counts once."""
    found: dict[int, Record] = {}
    for record in records:
        found.setdefault(record["seed"], record)
    return found


def metric(record: Record, name: str) -> float | None:
    """What a record has of a metric; None where it has nothing or no finite number."""
    value = record.get(name)
    return float(value) if value is not None and math.isfinite(value) else None


def diverged(record: Record) -> bool:
    """Whether the trial has no metrics because its loss or its scores were no numbers any more."""
    return "diverged" in record


def natural(text: str) -> tuple[bool, float, str]:
    """Sorts numbers by size, before words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _order(record: Record) -> tuple[int, str, str]:
    return record["seed"], str(record["id"]), repr(sorted(record.items()))


def meant(value: Any, record: Record) -> Any:
    """The points that `stages` or a slice of it stands for on the record's backbone; any other value as it is."""
    return expand_stages(value, record["stages"]) if record.get("stages") else value


def _varying(table: TableFile, cells: Sequence[Sequence[Record]]) -> list[str]:
    """Settings in which records of one row differ: those of the caption first, since others follow from them."""
    names = {name for cell in cells for record in cell for name in record} - NO_SETTINGS
    varying = (name for name in names if not all(_alike(cell, name) for cell in cells))
    return sorted(varying, key=lambda name: (name not in table.caption, name))


def _alike(cell: Sequence[Record], name: str) -> bool:
    """Whether the records of a row are shown with one value of a field; most have the very same object."""
    first = cell[0].get(name, NOT_GIVEN) if cell else None
    others = (record for record in cell if record.get(name, NOT_GIVEN) is not first)
    return all(_value(record, name) == _value(cell[0], name) for record in others)


def _by_value(cell: Sequence[Record], name: str) -> dict[str, list[Record]] | None:
    """The records of a row by their value; None where none knows the field, such as an option of other methods."""
    if not any(name in record for record in cell):
        return None
    found: dict[str, list[Record]] = {}
    for record in cell:
        found.setdefault(_value(record, name), []).append(record)
    return found


def _having(
    cells: Sequence[Sequence[Record]], by_value: Sequence[Mapping[str, list[Record]] | None], value: str
) -> list[Sequence[Record]]:
    """The records with that value in each row; all of a row that does not know the field."""
    return [cell if found is None else found.get(value, []) for cell, found in zip(cells, by_value, strict=True)]


def _value(record: Record, name: str) -> str:
    return shown(record[name]) if name in record else NOT_GIVEN
