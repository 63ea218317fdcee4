"""What stands beside a column of a table: the published numbers, and the differences to the baseline row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from wsolbench import published, statistics
from wsolbench.errors import InputError
from wsolbench.published import Number
from wsolbench.selection import Part, Record, by_seed, fits, metric
from wsolbench.table import NOT_REPORTED, QUOTED, SIGNIFICANT, Cell, Heading, shown, unique
from wsolbench.table_file import DELTA, Column, Line

Place = tuple[int, int]
"""Number of a block and of a row in it."""

Filled = Mapping[Place, tuple[Line, Sequence[Record]]]
"""The rows of a part with their records."""


class Beside(Protocol):
    """Columns that follow a column."""

    def headings(self, group: str) -> tuple[Heading, ...]:
        """Theirs."""

    def cells(self, place: Place, cell: Cell) -> tuple[Cell, ...]:
        """What stands beside the cell in this row."""

    def notes(self) -> tuple[str, ...]:
        """What is to be said of them."""


@dataclass(frozen=True)
class Published:
    """The published number of each row, and ours less that."""

    column: Column
    part: Part
    rows: Filled

    def headings(self, group: str) -> tuple[Heading, ...]:
        """The number's and the difference's."""
        name = self.column.header
        return Heading(f"{name}, published", group), Heading(f"{DELTA} published {name}", group, signed=True)

    def cells(self, place: Place, cell: Cell) -> tuple[Cell, ...]:
        """The number, and how much more ours is."""
        number = self.number(place)
        if number is None:
            return Cell(text=NOT_REPORTED), Cell()
        more = Cell() if cell.mean is None or cell.quoted else Cell(mean=cell.mean - number.value)
        return Cell(mean=number.value, quoted=number.second_hand), more

    def notes(self) -> tuple[str, ...]:
        """The sources, and where their protocol is another."""
        ours = self.part.values("protocol")
        found = [number for place in self.rows if (number := self.number(place)) is not None]
        others = [n for n in found if ours and n.names["protocol"] not in ours]
        said = [f"Published: {number.told}." for number in found]
        if others:
            said.append(f"Ours is by protocol {' or '.join(sorted(ours))}: not all of a difference is the method's.")
        if any(number.second_hand for number in found):
            said.append(f"{QUOTED} in a published column: the source itself has the number from another paper.")
        return unique(said)

    def number(self, place: Place) -> Number | None:
        """The one that the row's fields ask for; `InputError` where they ask for several that differ."""
        line, _ = self.rows[place]
        names = {name: "/".join(sorted(self.part.values(name))) for name in ("dataset", "backbone")}
        names = {name: value for name, value in names.items() if value}
        if "method" in line.where:
            names["method"] = str(line.where["method"])
        names |= {"metric": self.column.metric} | {
            str(k): v for k, v in (line.published | self.column.published).items()
        }
        found = [number for number in published.numbers() if number.fits(names, line.where)]
        if len({number.value for number in found}) > 1:
            asked = ", ".join(f"{key} {value}" for key, value in names.items())
            values = ", ".join(str(number.value) for number in found)
            raise InputError(f"several published numbers are of {asked}: {values}; say more under `published`")
        return found[0] if found and line.published else None

    def quotable(self, place: Place) -> Number | None:
        """The published number, if it is by the same protocol as ours."""
        number = self.number(place)
        return number if number and number.names["protocol"] in self.part.values("protocol") else None

    def quoted(self, place: Place, cell: Cell) -> Cell:
        """The published number in place of one of ours that is not there."""
        if cell.mean is not None or cell.diverged:
            return cell
        number = self.quotable(place)
        return Cell(mean=number.value, quoted=True) if number else replace(cell, text=NOT_REPORTED)


@dataclass(frozen=True)
class Differences:
    """How far each row is from the baseline row, over the seeds that both have."""

    column: Column
    baseline: Mapping[str, Any]
    rows: Filled
    bca: bool = False  # show the BCa interval too

    def headings(self, group: str) -> tuple[Heading, ...]:
        """Those of the difference, its interval, and the p corrected for so many rows."""
        name = f"{DELTA} {self.column.header}"
        kinds = ("95 %", "BCa 95 %") if self.bca else ("95 %",)
        limits = (Heading(f"{name}, {kind} {end}", group, signed=True) for kind in kinds for end in ("from", "to"))
        return (
            Heading(self.column.difference_heading, group, signed=True),
            *limits,
            Heading(f"{name}, p (Holm)", group, decimals=4, p=True),
        )

    def cells(self, place: Place, cell: Cell) -> tuple[Cell, ...]:  # noqa: ARG002  the records say more
        """The difference, its interval, and its p; dashes in the baseline's own row."""
        if place not in self._found:
            return (Cell(),) * len(self.headings(""))
        found, p = self._found[place]
        more = Cell(found.mean, found.sd, found.n, significant=found.significant(p))
        return more, *ends(found.interval), *(ends(found.bca) if self.bca else ()), Cell(p)

    def notes(self) -> tuple[str, ...]:
        """How it is tested."""
        if not self._found:
            return ()
        found = self._found.values()
        said = [
            f"{DELTA}: less {_baseline(self.baseline)}, paired by seed, with its 95 % interval by Student's t.",
            *([bca_note(paired for paired, _ in found)] if self.bca else []),
            "p is of the exact two-sided sign-flip test, corrected by Holm over the rows.",
        ]
        if any(paired.n < statistics.LEAST_SEEDS for paired, _ in found):
            said.append(f"With fewer than {statistics.LEAST_SEEDS} pairs no difference is called significant.")
        if any(paired.significant(p) for paired, p in found):
            said.append(f"{SIGNIFICANT}: significant at 5 %.")
        return tuple(said)

    @cached_property
    def _found(self) -> dict[Place, tuple[statistics.Paired, float]]:
        base = next((self._values(cell) for line, cell in self.rows.values() if self._is_baseline(line)), {})
        pairs: dict[str, statistics.Paired] = {}  # a row may stand in two blocks
        keys = {place: shown(sorted(line.where.items())) for place, (line, _) in self.rows.items()}
        for place, (line, cell) in self.rows.items():
            own = self._values(cell)
            seeds = sorted(base.keys() & own.keys())
            if seeds and not self._is_baseline(line) and keys[place] not in pairs:
                pairs[keys[place]] = statistics.paired([own[s] for s in seeds], [base[s] for s in seeds])
        corrected = dict(zip(pairs, statistics.holm([found.p for found in pairs.values()]), strict=True))
        return {place: (pairs[key], corrected[key]) for place, key in keys.items() if key in pairs}

    def _is_baseline(self, line: Line) -> bool:
        return fits(line.where, self.baseline)

    def _values(self, cell: Sequence[Record]) -> dict[int, float]:
        found = {seed: metric(record, self.column.metric) for seed, record in by_seed(cell).items()}
        return {seed: value for seed, value in found.items() if value is not None}


def ends(interval: statistics.Interval | None) -> tuple[Cell, Cell]:
    """The cells of an interval: dashes where there is none."""
    return (Cell(), Cell()) if interval is None else (Cell(interval[0]), Cell(interval[1]))


def bca_note(found: Iterable[statistics.Paired]) -> str:
    """How far BCa intervals are to be believed, of the fewest pairs that there are."""
    n = min(paired.n for paired in found)
    covers = statistics.bca_covers(n)
    return f"The BCa interval is too narrow over few pairs: over {n} it holds the mean about {covers} % of the time."


def _baseline(where: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in where.items())
