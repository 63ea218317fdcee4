"""Which finished trials a row of a table takes, and which of them belong into one table."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

from wsolbench import recommended
from wsolbench.errors import InputError, nearest
from wsolbench.known import NO_SETTINGS
from wsolbench.table import shown, unique
from wsolbench.table_file import Line, TableFile
from wsolbench.trial import FIELDS, expand_stages

Record = Mapping[str, Any]
"""One finished trial: its fields and options side by side, `id`, `protocol`, `stages`, what is counted, and metrics.

One that diverged has `diverged` and no metrics.
"""

NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Part:
    """The records of each row that belong together, and the values that set them apart from the others."""

    fixed: Mapping[str, str]
    cells: Sequence[Sequence[Record]]

    @cached_property
    def records(self) -> list[Record]:
        """Those of all rows."""
        return [record for cell in self.cells for record in cell]

    @cached_property
    def stages(self) -> Sequence[str]:
        """Those of its backbone; none where records differ or none says."""
        said = different(self.records, "stages")
        found = {tuple(stages) for stages in said if stages and stages is not NOT_GIVEN}
        return found.pop() if len(found) == 1 else ()

    def at(self, name: str | None) -> str:
        """The value of a field that sets parts apart."""
        return self.fixed.get(name, "") if name else ""

    def values(self, name: str) -> set[str]:
        """What its records have in a field."""
        if name in self.fixed:
            return {self.fixed[name]}
        return {shown(value) for value in different(self.records, name) if value is not NOT_GIVEN}

    def settings(self) -> set[str]:
        """The settings that all of its records have."""
        return set.intersection(*map(set, set(map(tuple, self.records)))) - NO_SETTINGS

    def asks(self, line: Line) -> Line:
        """The row with the part's own stages in place of `stages` and its slices."""
        if not self.stages:
            return line
        where = {name: expand_stages(value, self.stages) for name, value in line.where.items()}
        return replace(line, where=where)


def select(table: TableFile, records: Iterable[Record], filters: Mapping[str, Any]) -> list[list[Record]]:
    """For each row of the table its records that the filters fit, in one order however they came."""
    chosen = _Kinds(list(_in_order(fitting(records, filters))))
    return [chosen.fitting(line.where) for block in table.lines() for line in block]


def as_recommended(records: Sequence[Record]) -> list[Record]:
    """The records, but of a method that was run with several options only those with the recipe's.

    Among the trials that are equal in all other fields but the seed.
    """
    apart = [name for name in FIELDS if name != "seed" and not _alike(different(records, name))]
    alike: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        alike.setdefault(tuple(shown(record.get(name)) for name in apart), []).append(record)
    left_out: set[int] = set()
    for group in alike.values():
        options = set().union(*group) - NO_SETTINGS - set(FIELDS)
        if not all(_alike(different(group, name)) for name in options):
            left_out |= set(map(id, group)) - set(map(id, fitting(group, _recipe_options(group[0]))))
    return [record for record in records if id(record) not in left_out]


def _recipe_options(record: Record) -> dict[str, Any]:
    """What the recipe gives the method of a trial; nothing for a method that is not here, of which nobody knows."""
    names = (str(record.get(kind)) for kind in ("dataset", "backbone", "method"))
    try:
        return recommended.options(*names, stages=record.get("stages", ()))
    except InputError:
        return {}


def check_filters(filters: Mapping[str, Any], records: Sequence[Record]) -> None:
    """Raise the `InputError` that names every filter on a field that no record has."""
    known = set().union(*records)
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


def fitting(records: Iterable[Record], where: Mapping[str, Any]) -> list[Record]:
    """The records that have these values, in their order."""
    return _Kinds(list(records)).fitting(where)


@dataclass(frozen=True)
class _Kinds:
    """Records by the objects that they have in a field: most share theirs, and one of each kind is looked at."""

    records: Sequence[Record]
    _known: dict[tuple[str, ...], Collection[Sequence[int]]] = field(default_factory=dict)

    def fitting(self, where: Mapping[str, Any]) -> list[Record]:
        """Those that have these values, in their order."""
        found = set(range(len(self.records)))
        for name, value in where.items():
            alike = self._of(name) if expand_stages(value, ()) is value else self._of(name, "stages")
            right = (numbers for numbers in alike if fits(self.records[numbers[0]], {name: value}))
            found &= {number for numbers in right for number in numbers}
        return [self.records[number] for number in sorted(found)]

    def _of(self, *names: str) -> Collection[Sequence[int]]:
        """The places of the records of each kind."""
        if names not in self._known:
            found = defaultdict(list)
            columns = [[id(record.get(name, NOT_GIVEN)) for record in self.records] for name in names]
            for number, key in enumerate(zip(*columns, strict=True)):
                found[key].append(number)
            self._known[names] = found.values()
        return self._known[names]


def parts(table: TableFile, part: Part) -> list[Part]:
    """The part itself if the records of each row agree on all but the seed, else its parts by a field that differs."""
    if (name := _apart(table, part)) is None:
        return [part]
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


def different(records: Sequence[Record], name: str) -> list[Any]:
    """The objects that records have in a field, each once; most share theirs. `NOT_GIVEN` where one has none."""
    try:
        column = list(map(itemgetter(name), records))
    except KeyError:
        column = [record.get(name, NOT_GIVEN) for record in records]
    return list(dict(zip(map(id, column), column, strict=True)).values())


_ORDER = itemgetter("seed", "id")


def _in_order(records: Iterable[Record]) -> Iterator[Record]:
    """By seed and id; those that are equal in both, by all they say."""
    for _, same in groupby(sorted(records, key=_ORDER), key=_ORDER):
        first, *others = same
        yield from sorted((first, *others), key=lambda r: repr(sorted(r.items()))) if others else (first,)


def meant(value: Any, record: Record) -> Any:
    """The points that `stages` or a slice of it stands for on the record's backbone; any other value as it is."""
    return expand_stages(value, record["stages"]) if record.get("stages") else value


def _apart(table: TableFile, part: Part) -> str | None:
    """The next field by which the part falls into parts: one that the table names, else one that differs in a row."""
    present = (name for name in table.apart if any(name in record for cell in part.cells for record in cell))
    found = next((name for name in present if name not in part.fixed), None)
    return found or next((name for name in _varying(table, part.cells) if name not in part.fixed), None)


def _varying(table: TableFile, cells: Sequence[Sequence[Record]]) -> list[str]:
    """Settings in which records of one row differ: those of the caption first, since others follow from them."""
    fields = ((cell, name) for cell in cells for name in set().union(*cell) - NO_SETTINGS)
    varying = {name for cell, name in fields if not _alike(different(cell, name))}
    return sorted(varying, key=lambda name: (name not in table.caption, name))


def _alike(values: Sequence[Any]) -> bool:
    """Whether all of these are shown as one."""
    return len(values) <= 1 or len({shown(value) for value in values}) == 1


def _by_value(cell: Sequence[Record], name: str) -> dict[str, list[Record]] | None:
    """The records of a row by their value; None where none knows the field, such as an option of other methods."""
    values = different(cell, name)
    if all(value is NOT_GIVEN for value in values):
        return None
    texts = {id(value): shown(value) for value in values}
    found: dict[str, list[Record]] = {}
    for record in cell:
        found.setdefault(texts[id(record.get(name, NOT_GIVEN))], []).append(record)
    return found


def _having(
    cells: Sequence[Sequence[Record]], by_value: Sequence[Mapping[str, list[Record]] | None], value: str
) -> list[Sequence[Record]]:
    """The records with that value in each row; all of a row that does not know the field."""
    return [cell if found is None else found.get(value, []) for cell, found in zip(cells, by_value, strict=True)]
