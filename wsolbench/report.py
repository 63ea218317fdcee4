"""Tables out of finished trials: a table file says which, records fill them."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter

from wsolbench.filling import Asked, lacking_seeds
from wsolbench.selection import Part, Record, by_seed, check_filters, natural, parts, select, sheets, told
from wsolbench.store import COUNTED
from wsolbench.table import (
    Cell,
    Heading,
    Mark,
    Missing,
    Report,
    Row,
    Table,
    best,
    counts,
    sentences,
    shown,
    ties,
    unique,
)
from wsolbench.table_file import Column, Line, TableFile

_Place = tuple[int, int]
"""Number of a block and of a row in it."""


def report(table: TableFile, records: Sequence[Record], asked: Asked) -> Report:
    """The tables of those records that fit what is asked.

    Args:
        table: from `table_file.read`.
        records: one per finished trial, in any order.
        asked: of them.

    Raises:
        InputError: a filter names a field that no record has.
    """
    check_filters(asked.filters, records)
    cells = select(table, records, asked.filters)
    if not any(cells):
        return _nothing(table, asked)
    found = sheets(table, parts(table, Part({}, cells)))
    return Report(table.title, tuple(_Sheet(table, sheet, asked).made() for sheet in found))


def _nothing(table: TableFile, asked: Asked) -> Report:
    filters = "".join(f" {name}={shown(value)}" for name, value in asked.filters.items())
    note = f"no finished trial in {asked.results!r} fits a row of this table{' with' if filters else ''}{filters}"
    commands = (asked.command(line.sweep, {}) for block in table.lines() for line in block)
    return Report(table.title, (), note, unique(command for command in commands if command))


@dataclass(frozen=True)
class _Side:
    """Columns that stand together under one value of the field `beside`."""

    value: str
    columns: tuple[Column, ...]
    alone: bool  # nothing stands beside it

    def headings(self) -> tuple[Heading, ...]:
        return tuple(Heading(column.header, "" if self.alone else self.value) for column in self.columns)


@dataclass(frozen=True)
class _Sheet:
    """One table in the making."""

    table: TableFile
    parts: Sequence[Part]
    asked: Asked

    def made(self) -> Table:
        """The table."""
        rows = self._overall(self._blocks())
        return Table(
            name=", ".join(f"{_words(name)} {self.told[name][0]}" for name in self.parts[0].fixed if name in self.told),
            caption=sentences(self._settings(), f"in %, {_spread(row for block in rows for row in block)}"),
            labels=self.table.headers,
            headings=tuple(heading for side in self.sides for heading in side.headings()),
            blocks=rows,
            marks=self.table.marks,
            notes=self._notes(),
            missing=tuple(dict.fromkeys(item for part in self.parts for item in self._missing(part))),
        )

    @cached_property
    def told(self) -> dict[str, list[str]]:
        """The values of the caption's fields."""
        return told(self.table, self.parts)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Those of the file, less the optional ones that no record fills."""
        records = [record for part in self.parts for record in part.records]
        return tuple(c for c in self.table.columns if not c.optional or any(metric(r, c) is not None for r in records))

    @cached_property
    def sides(self) -> list[_Side]:
        """The columns side by side; what is shown once stands before the others."""
        values = unique(part.at(self.table.beside) for part in self.parts)
        if len(values) == 1:
            return [_Side(values[0], self.columns, alone=True)]
        once = [column for column in self.columns if column.once]
        rest = tuple(column for column in self.columns if not column.once)
        first = [_Side(value, tuple(found), alone=False) for value, found in self._owners(values, once).items()]
        return [*first, *(_Side(value, rest, alone=False) for value in values)]

    def _owners(self, values: Sequence[str], once: Iterable[Column]) -> dict[str, list[Column]]:
        """For each value of `beside` the columns that are shown once, for it: the last that has them."""
        owners: dict[str, list[Column]] = {}
        for column in once:
            having = [
                part.at(self.table.beside)
                for part in self.parts
                if any(metric(record, column) is not None for record in part.records)
            ]
            owners.setdefault(max(having, key=values.index), []).append(column)
        return owners

    def _blocks(self) -> list[tuple[Row, ...]]:
        """The rows of each block: parts one below the other, and within them side by side."""
        table, blocks = self.table, []
        found = {(part.at(table.below), part.at(table.beside)): part for part in self.parts}
        for below in unique(part.at(table.below) for part in self.parts):
            sides = [
                self._rows(found[below, side.value], side) if (below, side.value) in found else {}
                for side in self.sides
            ]
            places = sorted({place for side in sides for place in side})
            for _, group in groupby(places, key=itemgetter(0)):
                blocks.append(tuple(self._joined([side.get(place) for side in sides]) for place in group))
        return blocks

    def _joined(self, rows: Sequence[Row | None]) -> Row:
        """A row of the cells of all sides, empty ones where a side has no such row."""
        there = [row for row in rows if row is not None]
        seeds = sorted({seed for row in there for seed in row.seeds})
        cells = [
            row.cells if row else (Cell(),) * len(side.columns) for row, side in zip(rows, self.sides, strict=True)
        ]
        return Row(there[0].labels, tuple(seeds), tuple(cell for side in cells for cell in side))

    def _rows(self, part: Part, side: _Side) -> dict[_Place, Row]:
        filled = self._filled(part)
        rows = [_row(line, by_seed(cell), side.columns) for line, cell in filled.values()]
        return dict(zip(filled, marked(rows, [(column.mark, column.better) for column in side.columns]), strict=True))

    def _overall(self, blocks: Sequence[tuple[Row, ...]]) -> tuple[tuple[Row, ...], ...]:
        """The blocks with the best of each whole column marked."""
        marks = [(column.overall, column.better) for side in self.sides for column in side.columns]
        rows = iter(marked([row for block in blocks for row in block], marks))
        return tuple(tuple(next(rows) for _ in block) for block in blocks)

    def _filled(self, part: Part) -> dict[_Place, tuple[Line, Sequence[Record]]]:
        """The rows with their records, in the words of the part's backbone.

        A row that then asks for the same as one above it in its block is left out: of three stages there are no last
        four.
        """
        cells = iter(part.cells)
        found: dict[_Place, tuple[Line, Sequence[Record]]] = {}
        for number, block in enumerate(self.table.lines()):
            asked = set()
            for index, (line, cell) in enumerate(zip(block, cells, strict=False)):
                own = part.asks(line)
                key = tuple(sorted((name, shown(value)) for name, value in own.where.items()))
                if key not in asked:
                    labels = [_stage_named(label, part.stages) for label in line.labels]
                    below = [part.at(self.table.below)] if self.table.below else []
                    found[number, index] = (Line((*below, *labels), own.where, line.sweep), cell)
                asked.add(key)
        return found

    def _settings(self) -> str:
        """The caption's fields; those in which rows differ, as recipes of methods may, are said to."""
        return ", ".join(f"{_words(name)} {_several(list(map(_short, values)))}" for name, values in self.told.items())

    def _notes(self) -> tuple[str, ...]:
        repeats = unique(note for part in self.parts for note in self._repeats(part))
        return (*repeats, *([self.table.note] if self.table.note else []), *_precision(self.table, self.parts))

    def _repeats(self, part: Part) -> Iterable[str]:
        """A note for each seed of a row that has records of different content, since only one can count."""
        for line, cell in self._filled(part).values():
            for seed, first in by_seed(cell).items():
                ids = unique(str(record["id"]) for record in cell if record["seed"] == seed)
                if any(record != first for record in cell if record["seed"] == seed):
                    label = self._label(part, line)
                    yield f"{label}: seed {seed} has several records ({', '.join(ids)}); {ids[0]} counts"

    def _label(self, part: Part, line: Line) -> str:
        row = ", ".join(f"{header} {label}" for header, label in zip(self.table.headers, line.labels, strict=True))
        return f"{part.at(self.table.beside)}: {row}" if self.table.beside else row

    def _missing(self, part: Part) -> Iterable[Missing]:
        """Rows without a record, rows without a seed that another row has, and seeds without a metric."""
        filled = self._filled(part).values()
        every = sorted({seed for _, cell in filled for seed in by_seed(cell)})
        for line, cell in filled:
            for lack in (*lacking_seeds(by_seed(cell), every), *self._lacking_metrics(cell)):
                command = self.asked.command(line.sweep, self._same(part), every)
                yield Missing(self._label(part, line), lack, command)

    def _lacking_metrics(self, cell: Iterable[Record]) -> list[str]:
        return [
            f"seed {seed} has no {column.metric}"
            for seed, record in by_seed(cell).items()
            for column in self.columns
            if not column.optional and metric(record, column) is None
        ]

    def _same(self, part: Part) -> dict[str, str]:
        """Settings that a trial must have to stand in the part: those that the caption tells of all its rows."""
        own = {name for block in self.table.lines() for line in block for name in line.where}
        values = {name: part.values(name) for name in self.table.caption if name not in own}
        return {**part.fixed, **{name: found.pop() for name, found in values.items() if len(found) == 1}}


def metric(record: Record, column: Column) -> float | None:
    """What a record has in a column; None where it has nothing or no finite number."""
    value = record.get(column.metric)
    return float(value) if value is not None and math.isfinite(value) else None


def marked(rows: Sequence[Row], marks: Sequence[tuple[Mark | None, str]]) -> list[Row]:
    """The rows with a mark on the best of each column; ties, of means as they are and not as rounded, share it.

    Args:
        rows: among which the best is looked for.
        marks: for each column its mark, None for no mark, and whether `higher` or `lower` is better.
    """
    signs = [1 if better == "higher" else -1 for _, better in marks]
    tops = [best(_times(row.cells[c].mean, sign) for row in rows) for c, sign in enumerate(signs)]
    return [
        replace(
            row,
            cells=tuple(
                replace(cell, marks=(*cell.marks, mark)) if mark and ties(_times(cell.mean, sign), top) else cell
                for cell, (mark, _), sign, top in zip(row.cells, marks, signs, tops, strict=True)
            ),
        )
        for row in rows
    ]


def _times(value: float | None, sign: int) -> float | None:
    return None if value is None else sign * value


def _row(line: Line, records: Mapping[int, Record], columns: Iterable[Column]) -> Row:
    return Row(line.labels, tuple(records), tuple(_cell(records.values(), column) for column in columns))


def _cell(records: Iterable[Record], column: Column) -> Cell:
    found = [(value, str(record["id"])) for record in records if (value := metric(record, column)) is not None]
    n = len(found)
    if not n:
        return Cell()
    mean = math.fsum(value for value, _ in found) / n
    spreads = n > 1 and column.metric not in COUNTED
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value, _ in found) / (n - 1)) if spreads else None
    return Cell(mean, sd, n, tuple(trial for _, trial in found))


def _stage_named(label: str, stages: Sequence[str]) -> str:
    """The label with the name of a stage in place of `stages[-2]`."""
    names = {f"stages[{index}]": stages[index] for index in range(-len(stages), len(stages))}
    return re.sub(r"stages\[-?[0-9]+\]", lambda found: names.get(found[0], found[0]), label)


def _short(value: str) -> str:
    """A digest by how it begins, any other value as it is."""
    return f"{value[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", value) else value


def _several(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{' or '.join(values)} (differs between rows)"


def _spread(rows: Iterable[Row]) -> str:
    match counts(rows):
        case [1] | []:
            return "one seed, no spread"
        case [n]:
            return f"mean ± SD (ddof 1) over {n} seeds"
        case [1, *_]:
            return "mean ± SD (ddof 1) over n seeds, no SD where n is 1"
        case _:
            return "mean ± SD (ddof 1) over n seeds"


def _precision(table: TableFile, found: Iterable[Part]) -> tuple[str, ...]:
    """How far a share of so many test images is from that of all possible ones, whatever the seed."""
    images: dict[str, set[str]] = {}
    for part in found:
        images.setdefault(part.at(table.beside), set()).update(part.values("test_images"))
    said = [
        f"{f'{value}: ' if value else ''}{50 / math.sqrt(int(count)):.2f} points ({int(count):,} test images)"
        for value, numbers in images.items()
        for count in sorted(numbers, key=natural)
    ]
    return (f"Standard error of one evaluation where it says 50 %: {', '.join(said)}.",) if said else ()


def _words(name: str) -> str:
    return name.replace("_", " ")
