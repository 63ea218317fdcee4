"""How a table is laid out: rows of trials in blocks, columns side by side, what stands beside each, and marks."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter

from wsolbench.asked import Asked
from wsolbench.beside import Beside, Differences, Filled, Place, Published
from wsolbench.selection import Part, Record, by_seed, diverged, metric
from wsolbench.store import COUNTED
from wsolbench.table import ALL_DIVERGED, Cell, Heading, Mark, Row, best, shown, ties, unique
from wsolbench.table_file import Column, Line, TableFile


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
class Sheet:
    """The trials of one table, laid out."""

    table: TableFile
    parts: Sequence[Part]
    asked: Asked

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Those of the file, less the optional ones that no record fills, and further ones that are not asked for."""
        records = [record for part in self.parts for record in part.records]
        return tuple(
            column
            for column in self.table.columns
            if (self.asked.more or not column.more)
            and (not column.optional or any(metric(record, column.metric) is not None for record in records))
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
        return {self.key(part): part for part in self.parts}

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
            to, bca = self.table.compare_to, self.asked.more
            found.append({below: Differences(column, to, self.filled[key], bca) for below, key in there.items()})
        return found

    def _over(self, side: _Side, column: Column) -> tuple[Heading, ...]:
        """The headings of a column and of what stands beside it."""
        below = next(below for below, value in self.at if value == side.value)
        others = self.others[below, side.value, column.header]
        own = Heading(column.heading, side.group)
        return (own, *(heading for other in others for heading in other.headings(side.group)))

    @property
    def headings(self) -> tuple[Heading, ...]:
        """Those of all columns."""
        return tuple(heading for side in self.sides for column in side.columns for heading in self._over(side, column))

    def blocks(self) -> tuple[tuple[Row, ...], ...]:
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
        return Row(line.labels, tuple(seed for seed, record in seeds.items() if not diverged(record)), tuple(cells))

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

    def key(self, part: Part) -> tuple[str, str]:
        """What stands below and beside."""
        return part.at(self.table.below), part.at(self.table.beside)


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


def _cell(records: Collection[Record], column: Column) -> Cell:
    found = [value for record in records if (value := metric(record, column.metric)) is not None]
    lost = [] if column.metric in COUNTED else [record for record in records if diverged(record)]
    behind = (record for record in records if diverged(record) or metric(record, column.metric) is not None)
    ids = tuple(str(record["id"]) for record in behind)
    if not found:
        return Cell(ids=ids, diverged=len(lost), text=ALL_DIVERGED) if lost else Cell()
    return replace(Cell.of(found, ids, spreads=column.metric not in COUNTED), diverged=len(lost))


def _stage_named(label: str, stages: Sequence[str]) -> str:
    """The label with the name of a stage in place of `stages[-2]`."""
    names = {f"stages[{index}]": stages[index] for index in range(-len(stages), len(stages))}
    return re.sub(r"stages\[-?[0-9]+\]", lambda found: names.get(found[0], found[0]), label)
