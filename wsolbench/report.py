"""Tables out of finished trials: a table file says which, records fill them."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from wsolbench.asked import Asked
from wsolbench.beside import Place, Published
from wsolbench.memory import collecting_nothing
from wsolbench.selection import (
    Part,
    Record,
    as_recommended,
    by_seed,
    check_filters,
    diverged,
    metric,
    natural,
    parts,
    select,
    sheets,
    told,
)
from wsolbench.sheet import Sheet
from wsolbench.statistics import standard_error
from wsolbench.table import (
    ALL_DIVERGED,
    DIVERGED,
    NOT_REPORTED,
    QUOTED,
    Missing,
    Report,
    Row,
    Table,
    counts,
    named_seeds,
    sentences,
    shown,
    spelled,
    unique,
)
from wsolbench.table_file import Line, TableFile

_OTHERS_LEFT_OUT = (
    "Of a method that was run with several options, those of the recipe count here; name others to see them."
)
_OF_DIVERGED = f"{ALL_DIVERGED}, {DIVERGED}: loss or scores were no numbers any more; no mean counts such a seed."


@collecting_nothing()
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
    fitting = select(table, records, asked.filters)
    cells = [as_recommended(cell) for cell in fitting] if table.options == "recommended" else fitting
    if not any(cells):
        return _nothing(table, asked)
    fewer = [_OTHERS_LEFT_OUT] if list(map(len, cells)) != list(map(len, fitting)) else []
    found = _begun(sheets(table, parts(table, Part({}, cells))))
    return Report(table.title, tuple(_table(Sheet(table, sheet, asked), fewer) for sheet in found))


def _begun(found: Sequence[Sequence[Part]]) -> list[Sequence[Part]]:
    """The sheets, but where one has several rows none that has a single one: a baseline is of other tables too.

    One that diverged is shown all the same.
    """
    filled = [sum(any(part.cells[row] for part in sheet) for row in range(len(sheet[0].cells))) for sheet in found]
    lost = [any(diverged(record) for part in sheet for record in part.records) for sheet in found]
    return [
        sheet for sheet, count, gone in zip(found, filled, lost, strict=True) if count > 1 or max(filled) == 1 or gone
    ]


def _nothing(table: TableFile, asked: Asked) -> Report:
    filters = "".join(f" {name}={shown(value)}" for name, value in asked.filters.items())
    note = f"no finished trial in {asked.results!r} fits a row of this table{' with' if filters else ''}{filters}"
    commands = (asked.command(line.sweep, {}) for block in table.lines() for line in block)
    return Report(table.title, (), note, unique(command for command in commands if command))


def _table(sheet: Sheet, notes: Sequence[str] = ()) -> Table:
    """The table of a sheet, with more notes than its own."""
    blocks = sheet.blocks()
    rows = [row for block in blocks for row in block]
    said = told(sheet.table, sheet.parts)
    return Table(
        name=", ".join(f"{spelled(name)} {said[name][0]}" for name in sheet.parts[0].fixed if name in said),
        caption=sentences(_settings(said), f"in % after the last epoch, {_spread(rows)}"),
        labels=sheet.table.headers,
        headings=sheet.headings,
        blocks=blocks,
        marks=sheet.table.marks,
        notes=(*notes, *_notes(sheet, rows)),
        missing=tuple(dict.fromkeys(item for part in sheet.parts for item in _missing(sheet, part))),
    )


def _settings(said: Mapping[str, Sequence[str]]) -> str:
    """The caption's fields; those in which rows differ, as recipes of methods may, are said to."""
    return ", ".join(f"{spelled(name)} {_several(list(map(_short, values)))}" for name, values in said.items())


def _notes(sheet: Sheet, rows: Sequence[Row]) -> tuple[str, ...]:
    repeats = [note for part in sheet.parts for note in (*_repeats(sheet, part), *_diverged(sheet, part))]
    if any(cell.diverged for row in rows for cell in row.cells):
        repeats.append(_OF_DIVERGED)
    own = [note for note in (sheet.table.note, *(column.note for column in sheet.columns)) if note]
    beside = [note for others in sheet.others.values() for other in others for note in other.notes()]
    said = unique(note for part in sheet.parts for record in part.records for note in record.get("notes", ()))
    data = [f"Data: {'; '.join(said)}."] if said else []
    alone = sheet.asked.paper and not any("published" in heading.text for heading in sheet.headings)
    none = ["No published number is of these trials."] if alone else []
    return unique(
        [*repeats, *own, *beside, *none, *_quoting(sheet, rows), *data, *_precision(sheet.table, sheet.parts)]
    )


def _quoting(sheet: Sheet, rows: Sequence[Row]) -> list[str]:
    """What the star on a number of another paper means."""
    quoted = any(cell.quoted and not cell.n for row in rows for cell in row.cells)
    if not sheet.asked.quote:
        return []
    none = "No number is quoted: none of the same protocol is published for a row without a trial."
    return [f"{QUOTED}: quoted from the paper, not run here; {NOT_REPORTED}: not reported." if quoted else none]


def _repeats(sheet: Sheet, part: Part) -> Iterable[str]:
    """A note for each seed of a row that has records of different content, since only one can count."""
    for line, cell in sheet.filled[sheet.key(part)].values():
        if len(by_seed(cell)) == len(cell):
            continue
        together: dict[int, list[Record]] = {}
        for record in cell:
            together.setdefault(record["seed"], []).append(record)
        for seed, (first, *others) in together.items():
            if any(record != first for record in others):
                ids = unique(str(record["id"]) for record in together[seed])
                label = _label(sheet, part, line)
                yield f"{label}: seed {seed} has several records ({', '.join(ids)}); {ids[0]} counts"


def _diverged(sheet: Sheet, part: Part) -> Iterable[str]:
    """A note for each row of which seeds diverged."""
    for line, cell in sheet.filled[sheet.key(part)].values():
        seeds = by_seed(cell)
        if lost := [seed for seed, record in seeds.items() if diverged(record)]:
            label = _label(sheet, part, line)
            yield f"{label}: {len(lost)} of {len(seeds)} trials diverged ({named_seeds(lost)})."


def _label(sheet: Sheet, part: Part, line: Line) -> str:
    row = ", ".join(f"{header} {label}" for header, label in zip(sheet.table.headers, line.labels, strict=True))
    return f"{part.at(sheet.table.beside)}: {row}" if sheet.table.beside else row


def _missing(sheet: Sheet, part: Part) -> Iterable[Missing]:
    """Rows without a record, rows without a seed that another row has, and seeds without a metric."""
    filled = sheet.filled[sheet.key(part)]
    every = sorted({seed for _, cell in filled.values() for seed in by_seed(cell)})
    same = _same(sheet, part)
    for place, (line, cell) in filled.items():
        if not cell and _is_quoted(sheet, sheet.key(part), place):
            continue
        for lack in (*_lacking_seeds(by_seed(cell), every), *_lacking_metrics(sheet, cell)):
            command = sheet.asked.command(line.sweep, same, every)
            yield Missing(_label(sheet, part, line), lack, command)


def _lacking_seeds(there: Collection[int], every: Sequence[int]) -> list[str]:
    """The seeds that a row has not, in words."""
    lacking = [seed for seed in every if seed not in there]
    if not lacking:
        return []
    return [named_seeds(lacking) if there else f"no trial ({named_seeds(lacking)})"]


def _is_quoted(sheet: Sheet, key: tuple[str, str], place: Place) -> bool:
    papers = (Published(column, sheet.at[key], sheet.filled[key]) for column in sheet.columns)
    return sheet.asked.quote and any(paper.quotable(place) for paper in papers)


def _lacking_metrics(sheet: Sheet, cell: Iterable[Record]) -> list[str]:
    return [
        f"seed {seed} has no {column.metric}"
        for seed, record in by_seed(cell).items()
        for column in sheet.columns
        if not column.optional and not diverged(record) and metric(record, column.metric) is None
    ]


def _same(sheet: Sheet, part: Part) -> dict[str, str]:
    """Settings in which all trials of the part agree: those of the budget, for one that is to stand beside them."""
    own = {name for block in sheet.table.lines() for line in block for name in line.where}
    values = {name: part.values(name) for name in sorted(part.settings() - own)}
    return {**part.fixed, **{name: found.pop() for name, found in values.items() if len(found) == 1}}


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
