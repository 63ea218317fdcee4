"""The one model of a table: what every format shows of it, and nothing that belongs to one format."""

import math
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Mark = Literal["bold", "italic", "underline"]

MISSING = "\N{EM DASH}"
NOT_REPORTED = "-"
QUOTED = "*"
SIGNIFICANT = "\N{DAGGER}"
DIVERGED = "\N{DOUBLE DAGGER}"
ALL_DIVERGED = "div."
SPREAD = "\N{PLUS-MINUS SIGN}"


def shown(value: Any) -> str:
    """A field's value as a table shows it; two values are the same if they are shown the same."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.12g}"
        case list() | tuple():
            return f"[{', '.join(shown(item) for item in value)}]"
        case other:
            return str(other)


def legible(text: str) -> str:
    """Without characters that move a cursor, break a line or turn the direction of what follows."""
    if text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"} else c for c in text
    )


@dataclass(frozen=True)
class Heading:
    """What stands above a column of cells, and how its numbers are printed."""

    text: str
    group: str = ""  # columns side by side of one group have this above them
    decimals: int = 2
    signed: bool = False  # a difference: with its sign
    p: bool = False  # a probability: never printed as 0

    @property
    def whole(self) -> str:
        """The heading with its group, for formats of one line of headings."""
        return f"{self.group}: {self.text}" if self.group else self.text

    def number(self, value: float) -> str:
        """A mean as it is printed; never -0.00."""
        if self.p and round(value, self.decimals) == 0:
            return f"<{10**-self.decimals:.{self.decimals}f}"
        return f"{value:{'+' if self.signed else ''}z.{self.decimals}f}"

    def spread(self, value: float) -> str:
        """A standard deviation as it is printed."""
        return f"{value:.{self.decimals}f}"


@dataclass(frozen=True)
class Cell:
    """A number, as it is and not as it is printed, or a text in its place."""

    mean: float | None = None
    sd: float | None = None  # ddof 1
    n: int = 0  # numbers behind the mean
    ids: tuple[str, ...] = ()  # of the trials behind it, by seed; of those that diverged too
    marks: tuple[Mark, ...] = ()
    quoted: bool = False  # the number is another paper's
    significant: bool = False  # a difference that may be called so
    diverged: int = 0  # trials that have no number, as they diverged
    text: str = MISSING  # where there is no number

    @classmethod
    def of(cls, values: Collection[float], ids: tuple[str, ...], *, spreads: bool = True) -> "Cell":
        """Mean and standard deviation of values, of which there must be one; of a single one there is no spread."""
        n = len(values)
        mean = math.fsum(values) / n
        spreads = spreads and n > 1
        return cls(mean, math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n - 1)) if spreads else None, n, ids)

    @property
    def sign(self) -> str:
        """What stands behind the number."""
        return QUOTED * self.quoted + SIGNIFICANT * self.significant + DIVERGED * bool(self.diverged and self.n)


@dataclass(frozen=True)
class Row:
    """Labels, then a cell per column."""

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Missing:
    """What a row lacks."""

    row: str
    lack: str
    command: str | None  # that fills it


@dataclass(frozen=True)
class Table:
    """One table: what it is of, what it shows, and what it lacks."""

    name: str
    caption: str
    labels: tuple[str, ...]  # headings of the label columns
    headings: tuple[Heading, ...]
    blocks: tuple[tuple[Row, ...], ...]
    marks: Mapping[Mark, str]  # what each means
    notes: tuple[str, ...]
    missing: tuple[Missing, ...]

    @property
    def headers(self) -> tuple[str, ...]:
        """The headings, each in one line."""
        return tuple(heading.whole for heading in self.headings)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Those of all blocks."""
        return tuple(row for block in self.blocks for row in block)

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that fill what is missing."""
        return unique(item.command for item in self.missing if item.command)

    @property
    def used_marks(self) -> tuple[Mark, ...]:
        """The marks that some cell bears."""
        borne = {mark for row in self.rows for cell in row.cells for mark in cell.marks}
        return tuple(mark for mark in self.marks if mark in borne)

    @property
    def one_n(self) -> bool:
        """Whether all values are over as many seeds."""
        return len(counts(self.rows)) <= 1


@dataclass(frozen=True)
class Report:
    """The tables of a file; none if no finished trial fits, as `note` then says."""

    title: str
    tables: tuple[Table, ...]
    note: str = ""
    commands: tuple[str, ...] = ()  # that fill an empty report

    @property
    def complete(self) -> bool:
        """Whether every row of every table has every seed."""
        return bool(self.tables) and not any(table.missing for table in self.tables)


def counts(rows: Iterable[Row]) -> list[int]:
    """The numbers of seeds that cells are over, ascending."""
    return sorted({cell.n for row in rows for cell in row.cells if cell.n})


def seeds_of(row: Row) -> str:
    """Over how many seeds a row is: `3`, or `1-3` where its cells differ."""
    return "-".join(str(count) for count in counts([row])) or "0"


def named_seeds(seeds: Collection[int]) -> str:
    """`seed 1` or `seeds 1, 2`."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def spelled(name: str) -> str:
    """A field's name as a sentence has it."""
    return name.replace("_", " ")


def best(values: Iterable[float | None]) -> float | None:
    """The highest of those that are there."""
    return max((value for value in values if value is not None), default=None)


def ties(value: float | None, other: float | None) -> bool:
    """Whether both are there and the same but for a sum's last digit."""
    return value is not None and other is not None and math.isclose(value, other, rel_tol=1e-12)


def unique(items: Iterable[str]) -> tuple[str, ...]:
    """Each once, in the order in which they come."""
    return tuple(dict.fromkeys(items))


def sentences(*parts: str) -> str:
    """Each part with a capital and a full stop."""
    return " ".join(f"{part[:1].upper()}{part[1:]}." for part in parts if part)
