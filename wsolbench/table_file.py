"""A table as a file of reports/ describes it: its rows by the fields of trials, its columns by what is measured."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, StrictBool, StrictStr
from pydantic.dataclasses import dataclass as checked

from wsolbench import documents, known
from wsolbench.documents import Document, Keys
from wsolbench.errors import InputError
from wsolbench.protocols import Metric
from wsolbench.published import Key
from wsolbench.store import Counted
from wsolbench.table import Mark, shown

_Label = Annotated[StrictStr, BeforeValidator(lambda value: shown(value) if type(value) in (int, float) else value)]
_Where = dict[StrictStr, Any]
_Published = dict[Key, StrictStr]
_FILE = ConfigDict(extra="forbid")
_ARROWS = {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}"}

DELTA = "\N{GREEK CAPITAL LETTER DELTA}"


@checked(frozen=True, config=_FILE)
class Column:
    """A metric, or what is counted of the network, under its header."""

    header: StrictStr
    metric: Literal[Metric, Counted]
    unit: StrictStr | None = None  # stands in the heading, and an arrow that says what is better
    better: Literal["higher", "lower"] = "higher"
    mark: Mark | None = None  # of the best value among the rows that stand together
    overall: Mark | None = None  # of the best value of the whole column
    optional: StrictBool = False  # shown only when some record has the metric
    more: StrictBool = False  # shown only when more is asked for
    once: StrictBool = False  # not for each value of `beside`: shown for the last that has it
    difference: StrictBool = False  # followed by the difference to the row `compare_to`
    published: _Published = field(default_factory=dict)  # as that of a row, for this column
    note: StrictStr | None = None  # stands below a table that shows it

    @property
    def heading(self) -> str:
        """The header with unit and arrow."""
        return f"{self.header}{self._words(self.unit)}"

    @property
    def difference_heading(self) -> str:
        """The same for the difference of two of its values."""
        return f"{DELTA} {self.header}{self._words('points' if self.unit == '%' else self.unit)}"

    def _words(self, unit: str | None) -> str:
        return f" ({unit}) {_ARROWS[self.better]}" if unit else ""


@checked(frozen=True, config=_FILE)
class Line:
    """A row: its label in each label column, and the trials that it takes."""

    labels: tuple[_Label, ...]  # `stages[-2]` in one is the name of that stage of the backbone
    where: _Where = field(default_factory=dict)
    sweep: StrictStr | None = None  # the sweep that runs its trials
    published: _Published = field(default_factory=dict)  # what the published number beside it is asked for by


@checked(frozen=True, config=_FILE)
class Block:
    """Rows between two rules; `where` and `sweep` hold for all of them."""

    name: StrictStr
    rows: tuple[Line, ...]
    where: _Where = field(default_factory=dict)
    sweep: StrictStr | None = None
    published: _Published = field(default_factory=dict)


@checked(frozen=True, config=_FILE, kw_only=True)
class TableFile:
    """A table as `reports/*.yaml` describes it; `where` and `sweep` hold for all rows."""

    title: StrictStr
    labels: tuple[_Label, ...]  # headers of the label columns
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    per: tuple[StrictStr, ...]  # fields that never share a table
    caption: tuple[StrictStr, ...]  # fields that the caption tells
    below: StrictStr | None = None  # the field whose values have blocks of their own
    beside: StrictStr | None = None  # the field whose values have columns of their own
    marks: dict[Mark, StrictStr] = field(default_factory=dict)  # what each mark means
    where: _Where = field(default_factory=dict)
    sweep: StrictStr | None = None
    published: _Published = field(default_factory=dict)
    options: Literal["any", "recommended"] = "any"  # which count of a method that was run with several
    compare_to: _Where = field(default_factory=dict)  # fields of the baseline row, for columns with a difference
    note: StrictStr | None = None

    @property
    def headers(self) -> tuple[str, ...]:
        """Of the label columns."""
        return (self.below.replace("_", " ").capitalize(), *self.labels) if self.below else self.labels

    @property
    def apart(self) -> tuple[str, ...]:
        """The fields that set tables, or parts of one table, apart."""
        return tuple(name for name in (self.beside, self.below, *self.per) if name)

    def lines(self) -> list[list[Line]]:
        """The rows of each block, with all that holds for them; the particular wins over the general."""
        return [
            [
                Line(
                    row.labels,
                    {**self.where, **block.where, **row.where},
                    row.sweep or block.sweep or self.sweep,
                    {**self.published, **block.published, **row.published},
                )
                for row in block.rows
            ]
            for block in self.blocks
        ]


def read(path: Path, records: Iterable[Mapping[str, Any]] = ()) -> TableFile:
    """The table that the file describes, by fields that the records or other trials may have.

    Raises:
        InputError: every problem, each with file, line and what is allowed.
    """
    return table_file(documents.read(path), records)


def table_file(document: Document, records: Iterable[Mapping[str, Any]] | None = None) -> TableFile:
    """The table that the document describes, by any fields where there are no records; raises `InputError`."""
    table = documents.checked(document, TableFile)
    unknown = [] if records is None else known.unknown(document, records)
    if problems := [*_inconsistencies(table, document), *unknown]:
        raise InputError(*problems)
    return table


def _inconsistencies(table: TableFile, document: Document) -> list[str]:
    """What is wrong although each value alone is right."""
    lists: dict[Keys, Sequence[Any]] = {
        ("labels",): table.labels,
        ("columns",): table.columns,
        ("blocks",): table.blocks,
    }
    lists |= {("blocks", b, "rows"): block.rows for b, block in enumerate(table.blocks)}
    rows: dict[Keys, Line] = {
        ("blocks", b, "rows", r): row for b, block in enumerate(table.blocks) for r, row in enumerate(block.rows)
    }
    found: list[tuple[Keys, str]] = [
        (keys, f"{keys[-1]} must not be empty") for keys, items in lists.items() if not items
    ]
    found += [
        ((*keys, "labels"), f"as many labels as label columns, {len(table.labels)}, not {len(row.labels)}")
        for keys, row in rows.items()
        if len(row.labels) != len(table.labels)
    ]
    found += [
        (("columns", c, key), f"mark {mark!r} has no meaning; say it under marks")
        for c, column in enumerate(table.columns)
        for key, mark in (("mark", column.mark), ("overall", column.overall))
        if mark and mark not in table.marks
    ]
    headers = [column.header for column in table.columns]
    found += [
        (("columns", c, "header"), f"two columns have the header {header!r}")
        for c, header in enumerate(headers)
        if header in headers[:c]
    ]
    found += [
        (("columns", c, "difference"), "a difference to what? Say it under compare_to")
        for c, column in enumerate(table.columns)
        if column.difference and not table.compare_to
    ]
    return [f"{document.where(*keys)}: {problem}" for keys, problem in found]
