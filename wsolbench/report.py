"""Tables out of finished trials: a table file says which, records fill them."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter

from wsolbench.beside import Beside, Differences, Filled, Place, Published
from wsolbench.filling import Asked, lacking_seeds
from wsolbench.selection import (
    NO_SETTINGS,
    Part,
    Record,
    by_seed,
    check_filters,
    metric,
    natural,
    parts,
    select,
    sheets,
    told,
)
from wsolbench.statistics import standard_error
from wsolbench.store import COUNTED
from wsolbench.table import (
    NOT_REPORTED,
    QUOTED,
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
    group: str  # what stands above them; nothing where nothing stands beside them


@dataclass(frozen=True)
class _Line:
    """A row of one side in the making: its cells, and what stands beside each."""

    row: Row
    beside: tuple[tuple[Cell, ...], ...]

    def whole(self) -> tuple[Cell, ...]:
        """The cells as they stand in the table."""
        return tuple(cell for own, others in zip(self.row.cells, self.beside, strict=True) for cell in (own, *others))


@dataclass(frozen=True)
class _Sheet:
    """One table in the making."""

    table: TableFile
    parts: Sequence[Part]
    asked: Asked

    def made(self) -> Table:
        """The table."""
        blocks = self._blocks()
        rows = [row for block in blocks for row in block]
        return Table(
            name=", ".join(f"{_words(name)} {self.told[name][0]}" for name in self.parts[0].fixed if name in self.told),
            caption=sentences(self._settings(), f"in %, {_spread(rows)}"),
            labels=self.table.headers,
            headings=tuple(
                heading for side in self.sides for column in side.columns for heading in self._over(side, column)
            ),
            blocks=blocks,
            marks=self.table.marks,
            notes=self._notes(rows),
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
        return tuple(
            c for c in self.table.columns if not c.optional or any(metric(r, c.metric) is not None for r in records)
        )

    @cached_property
    def sides(self) -> list[_Side]:
        """The columns side by side; what is shown once stands before the others."""
        values = unique(part.at(self.table.beside) for part in self.parts)
        if len(values) == 1:
            return [_Side(values[0], self.columns, "")]
        once = [column for column in self.columns if column.once]
        rest = tuple(column for column in self.columns if not column.once)
        first = [_Side(value, tuple(found), value) for value, found in self._owners(values, once).items()]
        return [*first, *(_Side(value, rest, value) for value in values)]

    def _owners(self, values: Sequence[str], once: Iterable[Column]) -> dict[str, list[Column]]:
        """For each value of `beside` the columns that are shown once, for it: the last that has them."""
        owners: dict[str, list[Column]] = {}
        for column in once:
            having = [
                part.at(self.table.beside)
                for part in self.parts
                if any(metric(record, column.metric) is not None for record in part.records)
            ]
            owners.setdefault(max(having, key=values.index), []).append(column)
        return owners

    @cached_property
    def at(self) -> dict[tuple[str, str], Part]:
        """The parts by what stands below and beside."""
        return {self._key(part): part for part in self.parts}

    @cached_property
    def filled(self) -> dict[tuple[str, str], Filled]:
        """The rows of each part with their records."""
        return {key: self._filled(part) for key, part in self.at.items()}

    @cached_property
    def others(self) -> dict[tuple[str, str, str], list[Beside]]:
        """What stands beside each column of each side, below and beside as in `at`; the same kinds in all parts."""
        kinds = {
            (side.value, column.header): self._kinds(side.value, column)
            for side in self.sides
            for column in side.columns
        }
        return {
            (below, beside, header): [found[below] for found in kind if below in found]
            for (beside, header), kind in kinds.items()
            for below in unique(below for below, value in self.at if value == beside)
        }

    def _kinds(self, value: str, column: Column) -> list[dict[str, Beside]]:
        """For each kind of column beside this one, what it is in each part below."""
        there = {below: key for key in self.at for below in [key[0]] if key[1] == value}
        found: list[dict[str, Beside]] = []
        if self.asked.paper:
            papers = {below: Published(column, self.at[key], self.filled[key]) for below, key in there.items()}
            if any(paper.number(place) for paper in papers.values() for place in paper.rows):
                found.append(dict(papers))
        if column.difference:
            to = self.table.compare_to
            found.append({below: Differences(column, to, self.filled[key]) for below, key in there.items()})
        return found

    def _over(self, side: _Side, column: Column) -> tuple[Heading, ...]:
        """The headings of a column and of what stands beside it."""
        below = next(below for below, value in self.at if value == side.value)
        others = self.others[below, side.value, column.header]
        own = Heading(column.header, side.group)
        return (own, *(heading for other in others for heading in other.headings(side.group)))

    def _blocks(self) -> tuple[tuple[Row, ...], ...]:
        """The rows of each block: parts one below the other, and within them side by side."""
        blocks: list[list[list[_Line | None]]] = []
        for below in unique(part.at(self.table.below) for part in self.parts):
            sides = [self._lines(below, side) for side in self.sides]
            places = sorted({place for side in sides for place in side})
            for _, group in groupby(places, key=itemgetter(0)):
                blocks.append([[side.get(place) for side in sides] for place in group])
        for index, side in enumerate(self.sides):
            self._mark_overall(blocks, index, side)
        return tuple(tuple(self._joined(lines) for lines in block) for block in blocks)

    def _joined(self, lines: Sequence[_Line | None]) -> Row:
        """A row of the cells of all sides, empty ones where a side has no such row."""
        there = [line.row for line in lines if line is not None]
        seeds = sorted({seed for row in there for seed in row.seeds})
        cells: list[Cell] = []
        for line, side in zip(lines, self.sides, strict=True):
            width = sum(len(self._over(side, column)) for column in side.columns)
            cells += line.whole() if line else (Cell(),) * width
        return Row(there[0].labels, tuple(seeds), tuple(cells))

    def _lines(self, below: str, side: _Side) -> dict[Place, _Line]:
        """The rows of one part, in these columns."""
        if (below, side.value) not in self.at:
            return {}
        filled = self.filled[below, side.value]
        rows = [self._row(place, below, side) for place in filled]
        best_marked = marked(rows, [(column.mark, column.better) for column in side.columns])
        return {
            place: _Line(
                row,
                tuple(
                    self._beside(place, below, side, column, cell)
                    for column, cell in zip(side.columns, row.cells, strict=True)
                ),
            )
            for place, row in zip(filled, best_marked, strict=True)
        }

    def _row(self, place: Place, below: str, side: _Side) -> Row:
        key = below, side.value
        line, records = self.filled[key][place]
        seeds = by_seed(records)
        cells = [_cell(seeds.values(), column) for column in side.columns]
        if self.asked.quote and line.published:
            papers = (Published(column, self.at[key], self.filled[key]) for column in side.columns)
            cells = [paper.quoted(place, cell) for paper, cell in zip(papers, cells, strict=True)]
        return Row(line.labels, tuple(seeds), tuple(cells))

    def _beside(self, place: Place, below: str, side: _Side, column: Column, cell: Cell) -> tuple[Cell, ...]:
        others = self.others[below, side.value, column.header]
        return tuple(more for other in others for more in other.cells(place, cell))

    def _mark_overall(self, blocks: list[list[list[_Line | None]]], index: int, side: _Side) -> None:
        """Mark the best of each whole column of a side, in place."""
        there = [(lines, line) for block in blocks for lines in block if (line := lines[index]) is not None]
        marks = [(column.overall, column.better) for column in side.columns]
        for (lines, line), row in zip(there, marked([line.row for _, line in there], marks), strict=True):
            lines[index] = replace(line, row=row)

    def _filled(self, part: Part) -> Filled:
        """The rows with their records, in the words of the part's backbone.

        A row that then asks for the same as one above it in its block is left out: of three stages there are no last
        four.
        """
        cells = iter(part.cells)
        found: dict[Place, tuple[Line, Sequence[Record]]] = {}
        for number, block in enumerate(self.table.lines()):
            asked = set()
            for index, (line, cell) in enumerate(zip(block, cells, strict=False)):
                own = part.asks(line)
                key = tuple(sorted((name, shown(value)) for name, value in own.where.items()))
                if key not in asked:
                    labels = [_stage_named(label, part.stages) for label in line.labels]
                    below = [part.at(self.table.below)] if self.table.below else []
                    found[number, index] = (replace(own, labels=(*below, *labels)), cell)
                asked.add(key)
        return found

    def _settings(self) -> str:
        """The caption's fields; those in which rows differ, as recipes of methods may, are said to."""
        return ", ".join(f"{_words(name)} {_several(list(map(_short, values)))}" for name, values in self.told.items())

    def _notes(self, rows: Sequence[Row]) -> tuple[str, ...]:
        repeats = [note for part in self.parts for note in self._repeats(part)]
        own = [self.table.note] if self.table.note else []
        beside = [note for others in self.others.values() for other in others for note in other.notes()]
        said = unique(note for part in self.parts for record in part.records for note in record.get("notes", ()))
        data = [f"Data: {'; '.join(said)}."] if said else []
        return unique([*repeats, *own, *beside, *self._quoting(rows), *data, *_precision(self.table, self.parts)])

    def _quoting(self, rows: Sequence[Row]) -> list[str]:
        """What the star on a number of another paper means."""
        quoted = any(cell.quoted and not cell.n for row in rows for cell in row.cells)
        if not self.asked.quote:
            return []
        none = "No number is quoted: none of the same protocol is published for a row without a trial."
        return [f"{QUOTED}: quoted from the paper, not run here; {NOT_REPORTED}: not reported." if quoted else none]

    def _repeats(self, part: Part) -> Iterable[str]:
        """A note for each seed of a row that has records of different content, since only one can count."""
        for line, cell in self.filled[self._key(part)].values():
            for seed, first in by_seed(cell).items():
                ids = unique(str(record["id"]) for record in cell if record["seed"] == seed)
                if any(record != first for record in cell if record["seed"] == seed):
                    label = self._label(part, line)
                    yield f"{label}: seed {seed} has several records ({', '.join(ids)}); {ids[0]} counts"

    def _key(self, part: Part) -> tuple[str, str]:
        return part.at(self.table.below), part.at(self.table.beside)

    def _label(self, part: Part, line: Line) -> str:
        row = ", ".join(f"{header} {label}" for header, label in zip(self.table.headers, line.labels, strict=True))
        return f"{part.at(self.table.beside)}: {row}" if self.table.beside else row

    def _missing(self, part: Part) -> Iterable[Missing]:
        """Rows without a record, rows without a seed that another row has, and seeds without a metric."""
        filled = self.filled[self._key(part)]
        every = sorted({seed for _, cell in filled.values() for seed in by_seed(cell)})
        for place, (line, cell) in filled.items():
            if not cell and self._is_quoted(self._key(part), place):
                continue
            for lack in (*lacking_seeds(by_seed(cell), every), *self._lacking_metrics(cell)):
                command = self.asked.command(line.sweep, self._same(part), every)
                yield Missing(self._label(part, line), lack, command)

    def _is_quoted(self, key: tuple[str, str], place: Place) -> bool:
        papers = (Published(column, self.at[key], self.filled[key]) for column in self.columns)
        return self.asked.quote and any(paper.quotable(place) for paper in papers)

    def _lacking_metrics(self, cell: Iterable[Record]) -> list[str]:
        return [
            f"seed {seed} has no {column.metric}"
            for seed, record in by_seed(cell).items()
            for column in self.columns
            if not column.optional and metric(record, column.metric) is None
        ]

    def _same(self, part: Part) -> dict[str, str]:
        """Settings in which all trials of the part agree: those of the budget, for one that is to stand beside them."""
        own = {name for block in self.table.lines() for line in block for name in line.where}
        common = set.intersection(*(set(record) for record in part.records)) - NO_SETTINGS - own
        values = {name: part.values(name) for name in sorted(common)}
        return {**part.fixed, **{name: found.pop() for name, found in values.items() if len(found) == 1}}


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


def _cell(records: Iterable[Record], column: Column) -> Cell:
    found = [(value, str(record["id"])) for record in records if (value := metric(record, column.metric)) is not None]
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
        f"{f'{value}: ' if value else ''}{standard_error(50, int(count)):.2f} points ({int(count):,} test images)"
        for value, numbers in images.items()
        for count in sorted(numbers, key=natural)
    ]
    return (f"Standard error of one evaluation where it says 50 %: {', '.join(said)}.",) if said else ()


def _words(name: str) -> str:
    return name.replace("_", " ")
