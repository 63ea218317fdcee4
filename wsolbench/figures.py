"""What figures show: a YAML file says what is on each axis, finished trials fill it; `drawing` draws it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, StrictBool, StrictStr
from pydantic.dataclasses import dataclass as checked

from wsolbench import documents, known
from wsolbench.documents import Document
from wsolbench.errors import InputError
from wsolbench.known import EVERY_THRESHOLD, NO_SETTINGS
from wsolbench.looks import Look, looks
from wsolbench.plugins import Positive
from wsolbench.protocols import Metric
from wsolbench.selection import (
    NOT_GIVEN,
    Record,
    as_recommended,
    check_filters,
    diverged,
    fits,
    meant,
    natural,
)
from wsolbench.store import Counted
from wsolbench.table import shown, spelled

_FILE = ConfigDict(extra="forbid")
_NO_SETTINGS = {*NO_SETTINGS, "protocol"}
_DIGEST = 64  # hexadecimal digits


@checked(frozen=True, config=_FILE)
class Across:
    """What is on x: a field or option of trials, a metric, what is counted of networks, or every threshold."""

    field: StrictStr
    label: StrictStr
    scale: Positive = 1.0  # of a field's value, such as 100 for a share
    logarithmic: StrictBool = False  # of a metric or what is counted, with a place for 0
    values: tuple[Any, ...] = ()  # of a field: those shown, from left to right; all of them where there is none


@checked(frozen=True, config=_FILE)
class Up:
    """What is on y, in a panel of its own."""

    field: Literal[Metric, Counted]
    label: StrictStr


@checked(frozen=True, config=_FILE, kw_only=True)
class FigureFile:
    """A figure as `figures/*.yaml` describes it."""

    title: StrictStr
    x: Across
    y: tuple[Up, ...]
    per: tuple[StrictStr, ...]  # fields that never share a figure; its caption tells them
    where: dict[StrictStr, Any] = field(default_factory=dict)  # the trials that it shows
    baseline: dict[StrictStr, Any] | None = None  # the trials of the dashed line
    options: Literal["any", "recommended"] = "any"  # which are shown of a method that was run with several
    sweep: StrictStr | None = None  # the sweep that runs them


@dataclass(frozen=True)
class Line:
    """Trials that agree in all but the seed and what is on x; a group of dots where that is a metric."""

    label: str
    look: Look
    records: tuple[Record, ...]
    baseline: bool = False


@dataclass(frozen=True)
class Sheet:
    """What one figure shows.

    Args:
        file: what is on the axes.
        name: what tells it from others of the same file; empty where there is one.
        caption: the settings that all trials share, and what dots and bands are.
        lines: in the order of the legend.
        missing: the values on x that no trial has.
    """

    file: FigureFile
    name: str
    caption: str
    lines: tuple[Line, ...]
    missing: tuple[str, ...]

    @property
    def places(self) -> list[Any]:
        """What stands on x from left to right, where that is a field."""
        records = [record for line in self.lines if not line.baseline for record in line.records]
        return _in_order(self.file.x, records)

    @property
    def title(self) -> str:
        """What it is called, on its own."""
        return f"{self.file.title}, {self.name}" if self.name else self.file.title


def read(path: Path, records: Iterable[Record] = ()) -> FigureFile:
    """The figure that the file describes, by fields that the records or other trials may have.

    Raises:
        InputError: every problem, each with file and line.
    """
    return figure_file(documents.read(path), records)


def figure_file(document: Document, records: Iterable[Record] | None = None) -> FigureFile:
    """The figure that the document describes, by any fields where there are no records; raises `InputError`."""
    found = documents.checked(document, FigureFile)
    problems = [] if records is None else known.unknown(document, records)
    if not found.y:
        problems.append(f"{document.where('y')}: y must not be empty")
    elif found.x.field == EVERY_THRESHOLD and [up.field for up in found.y] != ["gt_known_loc"]:
        problems.append(f"{document.where('y')}: over every threshold only gt_known_loc is stored")
    if problems:
        raise InputError(*problems)
    return found


def sheets(file: FigureFile, records: Sequence[Record], filters: Mapping[str, Any]) -> list[Sheet]:
    """One for each set of values of the fields `per`; none where no finished trial fits.

    Args:
        file: from `read`.
        records: one per finished trial, in any order.
        filters: a field or option and its value, which every trial shown must have.

    Raises:
        InputError: a filter names a field that no record has.
    """
    check_filters(filters, records)
    styles = looks({str(record["method"]) for record in records})
    chosen = sorted((r for r in records if fits(r, filters)), key=lambda r: (r["seed"], str(r["id"])))
    shows, baseline = [r for r in chosen if _on_sheet(file, r)], _those(chosen, file.baseline)
    shows = as_recommended(shows) if file.options == "recommended" else shows
    apart = {tuple(_value(r, name) for name in file.per): None for r in shows if not diverged(r)}
    told = [name for index, name in enumerate(file.per) if len({values[index] for values in apart}) > 1]
    found = []
    for values in sorted(apart, key=lambda values: [natural(value) for value in values]):
        fixed = dict(zip(file.per, values, strict=True))
        (own, lost), (dashed, gone) = (_by_end([r for r in group if _has(r, fixed)]) for group in (shows, baseline))
        name = ", ".join(f"{spelled(key)} {fixed[key]}" for key in told)
        lines = (*_lines(own, file.x.field, styles), *_lines(dashed, file.x.field, styles, baseline=True))
        caption = _caption(file, fixed, lines, [*lost, *gone])
        missing = _missing(file, [*own, *lost], [*dashed, *gone])
        found.append(Sheet(file, name, caption, lines, missing))
    return found


def _by_end(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Those that have metrics, and those that diverged."""
    return [r for r in records if not diverged(r)], [r for r in records if diverged(r)]


def _those(records: Iterable[Record], where: Mapping[str, Any] | None) -> list[Record]:
    return [] if where is None else [record for record in records if fits(record, where)]


def _on_sheet(file: FigureFile, record: Record) -> bool:
    """Whether a trial has what stands on x and y, unless it diverged, and the values that are asked for."""
    x = file.x
    needed = [up.field for up in file.y] + ([] if x.field == EVERY_THRESHOLD else [x.field])
    lacks = any(record.get(name) is None for name in needed) and not diverged(record)
    if not fits(record, file.where) or lacks:
        return False
    return not x.values or shown(record[x.field]) in {shown(meant(value, record)) for value in x.values}


def _has(record: Record, fixed: Mapping[str, str]) -> bool:
    return all(_value(record, name) == value for name, value in fixed.items())


def _value(record: Record, name: str) -> str:
    """As a figure shows it; a digest by how it begins, the last stages as they are asked for."""
    value = record.get(name, NOT_GIVEN)
    if isinstance(value, list | tuple) and value and list(value) == list(record.get("stages", ())[-len(value) :]):
        return "stages" if len(value) == len(record["stages"]) else f"stages[-{len(value)}:]"
    text = shown(value)
    return text[:8] if len(text) == _DIGEST and not set(text) - set("0123456789abcdef") else text


def _lines(
    records: Sequence[Record], x: str, styles: Mapping[str, Look], *, baseline: bool = False
) -> tuple[Line, ...]:
    """The trials by method, and of each method by the settings in which they differ."""
    found: list[Line] = []
    for method in sorted({str(record["method"]) for record in records}, key=lambda name: list(styles).index(name)):
        own = [record for record in records if record["method"] == method]
        names = sorted({name for record in own for name in record} - _NO_SETTINGS - {x})
        told = [name for name in names if len({_value(record, name) for record in own}) > 1]
        by: dict[tuple[str, ...], list[Record]] = {}
        for record in own:
            by.setdefault(tuple(_value(record, name) for name in told), []).append(record)
        for values in sorted(by, key=lambda values: [natural(value) for value in values]):
            label = ", ".join([styles[method].label, *_settings(dict(zip(told, values, strict=True)))])
            found.append(Line(label, styles[method], _once(by[values], x), baseline))
    return tuple(found)


def _settings(told: Mapping[str, str]) -> Iterator[str]:
    """What tells the settings of a method apart; of a switch only that it is off."""
    for name, value in told.items():
        if value != "true":
            yield f"no {spelled(name)}" if value == "false" else f"{spelled(name)} {value}"


def _once(records: Iterable[Record], x: str) -> tuple[Record, ...]:
    """The first record of each seed at each place on x: one that is there twice counts once."""
    place = None if x in _NO_SETTINGS else x
    found: dict[tuple[int, str], Record] = {}
    for record in records:
        found.setdefault((record["seed"], shown(record.get(place)) if place else ""), record)
    return tuple(found.values())


def _in_order(x: Across, records: Collection[Record]) -> list[Any]:
    """The values that trials have, as the file orders them, else by size; lists of points from the shortest."""
    found = {shown(record[x.field]): record[x.field] for record in records}
    if not x.values:
        return sorted(found.values(), key=lambda value: (_size(value), natural(shown(value))))
    asked = dict.fromkeys(shown(meant(value, record)) for value in x.values for record in records)
    return [found[value] for value in asked if value in found]


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple) else 0


def tick(value: Any, before: Any, scale: float) -> str:
    """A value on x; of a list that adds to the one before it, what it adds."""
    if isinstance(value, list | tuple):
        added = [str(item) for item in value if before is None or item not in before]
        return ("+ " if before is not None and len(added) + len(before) == len(value) else "") + ", ".join(added)
    return shown(value * scale) if isinstance(value, int | float) and not isinstance(value, bool) else shown(value)


def _missing(file: FigureFile, own: Sequence[Record], dashed: Sequence[Record]) -> tuple[str, ...]:
    """Of the values that are asked for, and of the baseline, those that lack a seed that others have."""
    there, every = _seeds(own, file.x.field), {record["seed"] for record in own}
    asked = dict.fromkeys(shown(meant(value, own[0])) for value in file.x.values)
    needed = {f"{spelled(file.x.field)} {value}": there.get(value, set()) for value in asked}
    if file.baseline is not None:
        needed["baseline"] = {record["seed"] for record in dashed}
    return tuple(
        f"{name} of seed {', '.join(map(str, sorted(every - seeds)))}" if seeds else name
        for name, seeds in needed.items()
        if every - seeds
    )


def _seeds(records: Iterable[Record], x: str) -> dict[str, set[int]]:
    """By place on x, the seeds of its trials; one place where x is no field."""
    found: dict[str, set[int]] = {}
    for record in records:
        found.setdefault(shown(record[x]) if x in record and x not in _NO_SETTINGS else "", set()).add(record["seed"])
    return found


def _caption(file: FigureFile, fixed: Mapping[str, str], lines: Iterable[Line], lost: Sequence[Record]) -> str:
    settings = ", ".join(f"{spelled(name)} {value}" for name, value in fixed.items() if value != NOT_GIVEN)
    counts = sorted({len(seeds) for line in lines for seeds in _seeds(line.records, file.x.field).values()})
    few, most = counts[0], counts[-1]
    one = "thin lines" if file.x.field == EVERY_THRESHOLD else "small dots"
    over = f"{most} seeds" if few == most else f"{few} to {most} seeds"
    spread = f"mean ± SD (ddof 1) over {over}, {one} are trials" if most > 1 else "values of one seed"
    gone = f" Not shown, as diverged: {', '.join(str(record['id']) for record in lost)}." if lost else ""
    return f"{settings[:1].upper()}{settings[1:]}. In %, {spread}.{gone}"
