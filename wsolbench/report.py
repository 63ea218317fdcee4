"""Tables out of finished trials: a YAML file names rows and columns, records fill them, markdown or text shows them."""

import math
import re
import shlex
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, StrictBool, StrictStr, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from wsolbench import documents
from wsolbench.documents import Document, Keys
from wsolbench.errors import InputError, nearest
from wsolbench.protocols import METRICS, Metric
from wsolbench.store import COUNTED, Counted
from wsolbench.trial import expand_stages

Mark = Literal["bold", "italic"]
Record = Mapping[str, Any]
"""One finished trial: its fields and options side by side, `id`, `protocol`, `stages`, what is counted, and metrics."""

_NO_SETTINGS = {*METRICS, *COUNTED, "seed", "id", "stages"}
_VARIABLES = {"dataset": "DATASET", "backbone": "BACKBONE", "weights": "WEIGHTS"}  # of the Makefile
_DASH = "\N{EM DASH}"
_NOT_GIVEN = "not given"
_Place = tuple[int, int]
"""Number of a block and of a row in it."""


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


_Label = Annotated[StrictStr, BeforeValidator(lambda value: shown(value) if type(value) in (int, float) else value)]
_Where = dict[StrictStr, Any]
_FILE = ConfigDict(extra="forbid")


@checked(frozen=True, config=_FILE)
class Column:
    """A metric, or what is counted of the network, under its header."""

    header: StrictStr
    metric: Literal[Metric, Counted]
    mark: Mark | None = None  # of the best value of the column
    optional: StrictBool = False  # shown only when some record has the metric


@checked(frozen=True, config=_FILE)
class Line:
    """A row: its label in each label column, and the trials that it takes."""

    labels: tuple[_Label, ...]  # `stages[-2]` in one is the name of that stage of the backbone
    where: _Where = field(default_factory=dict)
    sweep: StrictStr | None = None  # the sweep that runs its trials


@checked(frozen=True, config=_FILE)
class Block:
    """Rows between two rules; `where` and `sweep` hold for all of them."""

    name: StrictStr
    rows: tuple[Line, ...]
    where: _Where = field(default_factory=dict)
    sweep: StrictStr | None = None


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
    note: StrictStr | None = None

    @property
    def headers(self) -> tuple[str, ...]:
        """Of the label columns."""
        return (_words(self.below).capitalize(), *self.labels) if self.below else self.labels

    @property
    def apart(self) -> tuple[str, ...]:
        """The fields that set tables, or parts of one table, apart."""
        return tuple(name for name in (self.beside, self.below, *self.per) if name)

    def lines(self) -> list[list[Line]]:
        """The rows of each block, with all that holds for them; the particular wins over the general."""
        return [
            [
                Line(row.labels, {**self.where, **block.where, **row.where}, row.sweep or block.sweep or self.sweep)
                for row in block.rows
            ]
            for block in self.blocks
        ]


_LEVELS: Mapping[tuple[str, ...], type[Any]] = {
    (): TableFile,
    ("columns",): Column,
    ("blocks",): Block,
    ("blocks", "rows"): Line,
}
_WORDS = {"dataclass": "a mapping", "dict": "a mapping", "tuple": "a list", "string": "text", "bool": "true or false"}


def read(path: Path) -> TableFile:
    """The table that the file describes; `InputError` has every problem, each with file, line and what is allowed."""
    return table_file(documents.read(path))


def table_file(document: Document) -> TableFile:
    """The table that the document describes; raises `InputError`."""
    try:
        table = TypeAdapter(TableFile).validate_python(document.data)
    except ValidationError as error:
        raise InputError(*(_problem(document, detail) for detail in error.errors())) from None
    if problems := _inconsistencies(table, document):
        raise InputError(*problems)
    return table


def _problem(document: Document, detail: Mapping[str, Any]) -> str:
    keys = tuple(part for part in detail["loc"] if part != "[key]")  # a wrong key is where it stands
    return f"{document.where(*keys)}: {_sentence(keys, detail)}"


def _sentence(keys: tuple[str | int, ...], detail: Mapping[str, Any]) -> str:
    key = _name(keys)
    match detail["type"]:
        case "unexpected_keyword_argument":
            level = tuple(part for part in keys[:-1] if isinstance(part, str))
            known = [f.name for f in fields(_LEVELS[level])]
            return f"unknown key {key!r}{nearest(key, known) or '.'} There are: {', '.join(known)}"
        case "missing":
            return f"{key} is missing"
        case "literal_error":
            return f"{key} must be {detail['ctx']['expected']}, not {detail['input']!r}"
        case other:
            wanted = other.removesuffix("_type")
            return f"{key} must be {_WORDS.get(wanted, wanted)}, not {detail['input']!r}"


def _name(keys: tuple[str | int, ...]) -> str:
    match keys:
        case (*_, str(parent), int(number)):
            return f"{parent}[{number}]"
        case (*_, last):
            return str(last)
        case _:
            return "the file"


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
        (("columns", c, "mark"), f"mark {column.mark!r} has no meaning; say it under marks")
        for c, column in enumerate(table.columns)
        if column.mark and column.mark not in table.marks
    ]
    return [f"{document.where(*keys)}: {problem}" for keys, problem in found]


@dataclass(frozen=True)
class Cell:
    """A metric over the seeds of a row; no mean where there is no value, no spread where there is one."""

    mean: float | None
    sd: float | None  # ddof 1
    n: int
    ids: tuple[str, ...]  # of the trials, by seed
    mark: Mark | None = None


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
    labels: tuple[str, ...]
    headers: tuple[str, ...]
    blocks: tuple[tuple[Row, ...], ...]
    marks: Mapping[Mark, str]
    notes: tuple[str, ...]
    missing: tuple[Missing, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that fill what is missing."""
        return _unique(item.command for item in self.missing if item.command)

    @property
    def one_n(self) -> bool:
        """Whether all values are over as many seeds."""
        return len(_counts(row for block in self.blocks for row in block)) <= 1


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


def report(table: TableFile, records: Sequence[Record], filters: Mapping[str, Any], store: str) -> Report:
    """The tables of those records that every field=value of `filters` fits.

    Args:
        table: from `read`.
        records: one per finished trial, in any order.
        filters: a field or option and its value; feature points may be `stages` or a slice such as `stages[-3:]`.
        store: what the user calls the place the records come from.

    Raises:
        InputError: a filter names a field that no record has.
    """
    _check_filters(filters, records)
    chosen = sorted((r for r in records if _fits(r, filters)), key=_order)
    lines = [line for block in table.lines() for line in block]
    cells = [[record for record in chosen if _fits(record, line.where)] for line in lines]
    if not any(cells):
        return _nothing(table, lines, filters, store)
    sheets = _sheets(table, _parts(table, _Part({}, cells)))
    return Report(table.title, tuple(_table(table, sheet, filters) for sheet in sheets))


def _check_filters(filters: Mapping[str, Any], records: Sequence[Record]) -> None:
    known = {name for record in records for name in record}
    problems = [
        f"no record has a field or option {name!r}{nearest(name, known) or '.'} There are: {', '.join(sorted(known))}"
        for name in filters
        if known and name not in known
    ]
    if problems:
        raise InputError(*problems)


def _order(record: Record) -> tuple[int, str, str]:
    return record["seed"], str(record["id"]), repr(sorted(record.items()))


def _fits(record: Record, where: Mapping[str, Any]) -> bool:
    return all(name in record and shown(record[name]) == shown(_meant(value, record)) for name, value in where.items())


def _meant(value: Any, record: Record) -> Any:
    """The points that `stages` or a slice of it stands for on the record's backbone; any other value as it is."""
    return expand_stages(value, record["stages"]) if "stages" in record else value


def _nothing(table: TableFile, lines: Iterable[Line], filters: Mapping[str, Any], store: str) -> Report:
    asked = "".join(f" {name}={shown(value)}" for name, value in filters.items())
    note = f"no finished trial in {store!r} fits a row of this table{' with' if asked else ''}{asked}"
    commands = (_command(line.sweep, filters) for line in lines)
    return Report(table.title, (), note, _unique(command for command in commands if command))


@dataclass(frozen=True)
class _Part:
    """The records of each row that belong together, and the values that set them apart from the others."""

    fixed: Mapping[str, str]
    cells: Sequence[Sequence[Record]]

    @property
    def records(self) -> list[Record]:
        return [record for cell in self.cells for record in cell]

    @property
    def stages(self) -> Sequence[str]:
        """Those of its backbone; none where records differ or do not say."""
        found = {tuple(record.get("stages", ())) for record in self.records}
        return found.pop() if len(found) == 1 else ()

    def at(self, name: str | None) -> str:
        """The value of a field that sets parts apart."""
        return self.fixed.get(name, "") if name else ""


def _parts(table: TableFile, part: _Part) -> list[_Part]:
    """The part itself if the records of each row agree on all but the seed, else its parts by a field that differs."""
    present = [name for name in table.apart if any(name in record for cell in part.cells for record in cell)]
    apart = [name for name in (*present, *_varying(table, part.cells)) if name not in part.fixed]
    if not apart:
        return [part]
    name = apart[0]
    found = {_value(record, name) for cell in part.cells if _has(cell, name) for record in cell}
    return [
        smaller
        for value in sorted(found, key=_natural)
        for smaller in _parts(table, _Part({**part.fixed, name: value}, [_having(c, name, value) for c in part.cells]))
    ]


def _varying(table: TableFile, cells: Sequence[Sequence[Record]]) -> list[str]:
    """Settings in which records of one row differ: those of the caption first, since others follow from them."""
    names = {name for cell in cells for record in cell for name in record} - _NO_SETTINGS
    varying = (name for name in names if any(len({_value(record, name) for record in cell}) > 1 for cell in cells))
    return sorted(varying, key=lambda name: (name not in table.caption, name))


def _has(cell: Sequence[Record], name: str) -> bool:
    return any(name in record for record in cell)


def _having(cell: Sequence[Record], name: str, value: str) -> Sequence[Record]:
    """The records with that value; all of a row that does not know the field, such as an option of other methods."""
    return [record for record in cell if _value(record, name) == value] if _has(cell, name) else cell


def _value(record: Record, name: str) -> str:
    return shown(record[name]) if name in record else _NOT_GIVEN


def _natural(text: str) -> tuple[bool, float, str]:
    """Numbers by size, before words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _sheets(table: TableFile, parts: Iterable[_Part]) -> list[list[_Part]]:
    """The parts of each table: those that differ in nothing but what stands below or beside."""
    found: dict[tuple[tuple[str, str], ...], list[_Part]] = {}
    for part in parts:
        apart = tuple(item for item in part.fixed.items() if item[0] not in {table.below, table.beside})
        found.setdefault(apart, []).append(part)
    return list(found.values())


def _table(table: TableFile, parts: Sequence[_Part], filters: Mapping[str, Any]) -> Table:
    """The one table of these parts."""
    records = [record for part in parts for record in part.records]
    columns = [c for c in table.columns if not c.optional or any(_metric(r, c) is not None for r in records)]
    across = _unique(part.at(table.beside) for part in parts)
    blocks = _blocks(table, parts, across, columns)
    told = _told(table, parts)
    notes = _unique(note for part in parts for note in _repeats(table, part))
    return Table(
        name=", ".join(f"{_words(name)} {told[name][0]}" for name in parts[0].fixed if name in told),
        caption=_sentences(_settings(told), f"in %, {_spread(row for block in blocks for row in block)}"),
        labels=table.headers,
        headers=tuple(f"{value}: {c.header}" if len(across) > 1 else c.header for value in across for c in columns),
        blocks=blocks,
        marks=table.marks,
        notes=(*notes, *([table.note] if table.note else [])),
        missing=tuple(dict.fromkeys(item for part in parts for item in _missing(table, part, columns, filters))),
    )


def _blocks(
    table: TableFile, parts: Sequence[_Part], across: Sequence[str], columns: Sequence[Column]
) -> tuple[tuple[Row, ...], ...]:
    """The rows of each block: parts one below the other, and within them side by side."""
    rows = {(part.at(table.below), part.at(table.beside)): _rows(table, part, columns) for part in parts}
    blocks: list[tuple[Row, ...]] = []
    for value in dict.fromkeys(below for below, _ in rows):
        sides = [rows.get((value, beside), {}) for beside in across]
        places = sorted({place for side in sides for place in side})
        for _, group in groupby(places, key=itemgetter(0)):
            blocks.append(tuple(_joined([side.get(place) for side in sides], len(columns)) for place in group))
    return tuple(blocks)


def _joined(sides: Sequence[Row | None], columns: int) -> Row:
    """A row of the cells of all sides, empty ones where a side has no such row."""
    empty = (Cell(None, None, 0, ()),) * columns
    found = [row for row in sides if row is not None]
    seeds = sorted({seed for row in found for seed in row.seeds})
    return Row(found[0].labels, tuple(seeds), tuple(cell for row in sides for cell in (row.cells if row else empty)))


def _rows(table: TableFile, part: _Part, columns: Sequence[Column]) -> dict[_Place, Row]:
    filled = _filled(table, part)
    rows = [_row(line, _by_seed(cell), columns) for line, cell in filled.values()]
    return dict(zip(filled, _marked(rows, columns), strict=True))


def _filled(table: TableFile, part: _Part) -> dict[_Place, tuple[Line, Sequence[Record]]]:
    """The rows with their records, in the words of the part's backbone.

    A row that then asks for the same as one above it in its block is left out: of three stages there are no last four.
    """
    cells = iter(part.cells)
    found: dict[_Place, tuple[Line, Sequence[Record]]] = {}
    for number, block in enumerate(table.lines()):
        asked = set()
        for index, (line, cell) in enumerate(zip(block, cells, strict=False)):
            where = (
                {name: expand_stages(value, part.stages) for name, value in line.where.items()}
                if part.stages
                else line.where
            )
            key = tuple(sorted((name, shown(value)) for name, value in where.items()))
            if key not in asked:
                labels = [_stage_named(label, part.stages) for label in line.labels]
                found[number, index] = (
                    Line((*([part.at(table.below)] if table.below else []), *labels), where, line.sweep),
                    cell,
                )
            asked.add(key)
    return found


def _stage_named(label: str, stages: Sequence[str]) -> str:
    """The label with the name of a stage in place of `stages[-2]`."""
    names = {f"stages[{index}]": stages[index] for index in range(-len(stages), len(stages))}
    return re.sub(r"stages\[-?[0-9]+\]", lambda found: names.get(found[0], found[0]), label)


def _by_seed(records: Iterable[Record]) -> dict[int, Record]:
    """The first record of each seed: one that is there twice counts once."""
    found: dict[int, Record] = {}
    for record in records:
        found.setdefault(record["seed"], record)
    return found


def _row(line: Line, records: Mapping[int, Record], columns: Iterable[Column]) -> Row:
    return Row(line.labels, tuple(records), tuple(_cell(records.values(), column) for column in columns))


def _cell(records: Iterable[Record], column: Column) -> Cell:
    found = [(value, str(record["id"])) for record in records if (value := _metric(record, column)) is not None]
    n = len(found)
    mean = math.fsum(value for value, _ in found) / n if n else None
    sd = (
        math.sqrt(math.fsum((value - mean) ** 2 for value, _ in found) / (n - 1))
        if mean is not None and n > 1 and column.metric not in COUNTED
        else None
    )
    return Cell(mean, sd, n, tuple(trial for _, trial in found))


def _metric(record: Record, column: Column) -> float | None:
    value = record.get(column.metric)
    return float(value) if value is not None and math.isfinite(value) else None


def _marked(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """The rows with the best of each column marked; ties, of means as they are and not as rounded, share the mark."""
    best = [max((m for row in rows if (m := row.cells[c].mean) is not None), default=None) for c in range(len(columns))]
    return [Row(row.labels, row.seeds, tuple(map(_with_mark, row.cells, columns, best))) for row in rows]


def _with_mark(cell: Cell, column: Column, best: float | None) -> Cell:
    wins = (
        cell.mean is not None and best is not None and math.isclose(cell.mean, best, rel_tol=1e-12)
    )  # a sum's last digit
    return Cell(cell.mean, cell.sd, cell.n, cell.ids, column.mark if wins else None)


def _told(table: TableFile, parts: Sequence[_Part]) -> dict[str, list[str]]:
    """The values of the caption's fields; of fields with headers or labels of their own only where there is one."""
    told: dict[str, list[str]] = {}
    for name in _unique([*table.caption, *parts[0].fixed]):
        found = {value for part in parts for value in _values(part, name)}
        if found and (len(found) == 1 or name not in {table.below, table.beside}):
            told[name] = sorted(found, key=_natural)
    return told


def _values(part: _Part, name: str) -> set[str]:
    return {part.fixed[name]} if name in part.fixed else {shown(r[name]) for r in part.records if name in r}


def _settings(told: Mapping[str, Sequence[str]]) -> str:
    """The caption's fields; those in which rows differ, as recipes of methods may, are said to."""
    return ", ".join(f"{_words(name)} {_several(values)}" for name, values in told.items())


def _several(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{' or '.join(values)} (differs between rows)"


def _counts(rows: Iterable[Row]) -> list[int]:
    return sorted({cell.n for row in rows for cell in row.cells if cell.n})


def _spread(rows: Iterable[Row]) -> str:
    match _counts(rows):
        case [1] | []:
            return "one seed, no spread"
        case [n]:
            return f"mean ± SD (ddof 1) over {n} seeds"
        case [1, *_]:
            return "mean ± SD (ddof 1) over n seeds, no SD where n is 1"
        case _:
            return "mean ± SD (ddof 1) over n seeds"


def _sentences(*parts: str) -> str:
    return " ".join(f"{part[:1].upper()}{part[1:]}." for part in parts if part)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _repeats(table: TableFile, part: _Part) -> tuple[str, ...]:
    """A note for each seed of a row that has records of different content, since only one can count."""
    notes = []
    for line, cell in _filled(table, part).values():
        for seed, first in _by_seed(cell).items():
            ids = _unique(str(record["id"]) for record in cell if record["seed"] == seed)
            if any(record != first for record in cell if record["seed"] == seed):
                label = _label(table, part, line)
                notes.append(f"{label}: seed {seed} has several records ({', '.join(ids)}); {ids[0]} counts")
    return _unique(notes)


def _label(table: TableFile, part: _Part, line: Line) -> str:
    row = ", ".join(f"{header} {label}" for header, label in zip(table.headers, line.labels, strict=True))
    return f"{part.at(table.beside)}: {row}" if table.beside else row


def _missing(
    table: TableFile, part: _Part, columns: Sequence[Column], filters: Mapping[str, Any]
) -> tuple[Missing, ...]:
    """Rows without a record, rows without a seed that another row has, and seeds without a metric."""
    filled = _filled(table, part).values()
    every = sorted({seed for _, cell in filled for seed in _by_seed(cell)})
    found = [
        Missing(_label(table, part, line), lack, _command(line.sweep, {**filters, **part.fixed}))
        for line, cell in filled
        for lack in (*_lacking_seeds(_by_seed(cell), every), *_lacking_metrics(cell, columns))
    ]
    return tuple(dict.fromkeys(found))  # a row may stand in two blocks


def _lacking_seeds(there: Collection[int], every: Sequence[int]) -> list[str]:
    lacking = [str(seed) for seed in every if seed not in there]
    if not lacking:
        return []
    seeds = f"seed{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}"
    return [seeds if there else f"no trial ({seeds})"]


def _lacking_metrics(cell: Iterable[Record], columns: Iterable[Column]) -> list[str]:
    return [
        f"seed {seed} has no {column.metric}"
        for seed, record in _by_seed(cell).items()
        for column in columns
        if not column.optional and _metric(record, column) is None
    ]


def _command(sweep: str | None, settings: Mapping[str, Any]) -> str | None:
    """The call of make that runs the sweep with these settings."""
    if sweep is None:
        return None
    given = {name: shown(value) for name, value in settings.items() if name not in _NO_SETTINGS and value != _NOT_GIVEN}
    words = [f"sweep-{sweep}"]
    words += [f"{variable}={shlex.quote(given.pop(name))}" for name, variable in _VARIABLES.items() if name in given]
    args = " ".join(shlex.quote(f"{name}={value}") for name, value in given.items())
    return " ".join(["make", *words, *([f"ARGS={shlex.quote(args)}"] if args else [])]).replace("$", "$$")


@dataclass(frozen=True)
class _Format:
    """How one format writes text, commands, marks and headings, and what it lays a table out with."""

    text: Callable[[str], str]
    command: Callable[[str], str]
    marks: Mapping[Mark | None, str]  # on both sides of what is marked
    title: str
    name: str
    grid: Callable[[list[str], list[list[list[str]]]], str]


def markdown(report: Report) -> str:
    """The report as GitHub's markdown; names out of records are text there, never markup."""
    return _document(report, _Format(_escaped, _code, {"bold": "**", "italic": "*", None: ""}, "# {}", "## {}", _pipes))


def plain(report: Report) -> str:
    """The report for a terminal: best values between stars, or underscores where markdown has italics."""
    return _document(report, _Format(_clean, _clean, {"bold": "*", "italic": "_", None: ""}, "{}", "{}", _aligned))


def _document(report: Report, form: _Format) -> str:
    paragraphs = [form.title.format(form.text(report.title))]
    paragraphs += [_sentences(form.text(report.note)), _to_fill(report.commands, form)] if report.note else []
    for table in report.tables:
        paragraphs += _paragraphs(table, form)
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def _paragraphs(table: Table, form: _Format) -> list[str]:
    used = [
        m for m in table.marks if any(cell.mark == m for block in table.blocks for row in block for cell in row.cells)
    ]
    legend = ", ".join(_between(form.marks[mark], form.text(table.marks[mark])) for mark in used)
    headers = [*table.labels, *table.headers, *([] if table.one_n else ["n"])]
    blocks = [[_texts(row, form, with_n=not table.one_n) for row in block] for block in table.blocks]
    lacks = [f"- {form.text(f'{item.row}: {item.lack}')}" for item in table.missing]
    return [
        form.name.format(form.text(table.name)),
        " ".join(filter(None, [form.text(table.caption), f"Marked: {legend}." if legend else ""])),
        form.grid([form.text(header) for header in headers], blocks),
        "\n".join(form.text(note) for note in table.notes),
        "\n".join(["Missing:", "", *lacks]) if lacks else "",
        _to_fill(table.commands, form),
    ]


def _to_fill(commands: Sequence[str], form: _Format) -> str:
    return "\n".join(["To fill:", "", *(f"- {form.command(command)}" for command in commands)]) if commands else ""


def _texts(row: Row, form: _Format, *, with_n: bool) -> list[str]:
    n = "-".join(str(count) for count in _counts([row])) or "0"
    values = [_between(form.marks[cell.mark], _number(cell)) for cell in row.cells]
    return [*(form.text(label) for label in row.labels), *values, *([n] if with_n else [])]


def _number(cell: Cell) -> str:
    if cell.mean is None:
        return _DASH
    return f"{cell.mean:.2f}" if cell.sd is None else f"{cell.mean:.2f} ± {cell.sd:.2f}"


def _between(mark: str, text: str) -> str:
    return f"{mark}{text}{mark}"


def _clean(text: str) -> str:
    """Without characters that move a cursor, break a line or turn the direction of what follows."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"} else c for c in text
    )


def _escaped(text: str) -> str:
    # An underscore within a word, as in a field's name, is no emphasis.
    marked = re.sub(r"([\\`*~\[\]|]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", _clean(text))
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    return f"`{text}`" if _escaped(text) == text else _escaped(text)  # nothing is escaped between backticks


def _pipes(headers: list[str], blocks: list[list[list[str]]]) -> str:
    from tabulate import tabulate  # noqa: PLC0415 - it costs every command 50 ms

    empty = [[""] * len(headers)]  # markdown has no rule between rows
    rows = [row for number, block in enumerate(blocks) for row in (empty * bool(number) + block)]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=["right"] * len(headers))


def _aligned(headers: list[str], blocks: list[list[list[str]]]) -> str:
    from tabulate import SEPARATING_LINE, tabulate  # noqa: PLC0415

    rows = [row for number, block in enumerate(blocks) for row in ([SEPARATING_LINE] * bool(number) + block)]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=["right"] * len(headers))
