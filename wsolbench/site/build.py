"""Builds the site: reads the store, renders pages, writes cards and figures, and puts the folder in place at once."""

import base64
import hashlib
import json
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolbench import documents, figures, gallery, report, shipped, store, table_file
from wsolbench.asked import Asked
from wsolbench.dataset import Split
from wsolbench.errors import InputError
from wsolbench.formats import html
from wsolbench.known import EVERY_THRESHOLD
from wsolbench.place import Place
from wsolbench.protocols import METRICS
from wsolbench.selection import check_filters, diverged, fits
from wsolbench.site.curve import HEIGHT, WIDTH
from wsolbench.site.trials import TrialPage, in_order, trial_page
from wsolbench.store import Store
from wsolbench.table import MISSING, Report, unique
from wsolbench.trial import flat

if TYPE_CHECKING:
    from jinja2 import Environment

MARKER = "site.json"
"""A folder with this file is a site, which the next one may replace."""

_HERE = Path(__file__).parent
_SHOWN = {"top1_clas": "Top-1 Clas", "gt_known_loc": "GT-known Loc", "top1_loc": "Top-1 Loc", "mean_iou": "Mean IoU"}
_BAD = ("failed", "lost", "preempted", "interrupted")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tables:
    """A report with tables, and where it stands on the page."""

    anchor: str
    report: Report


@dataclass(frozen=True)
class Picture:
    """A figure in a file, its size in units of its own."""

    file: str
    title: str
    caption: str
    width: int
    height: int
    content: bytes


@dataclass(frozen=True)
class Site:
    """All that the pages share.

    Args:
        results: what the user calls the store.
        pages: one for each trial.
        reports: those with a table.
        empty: those without any, as nothing fits them.
        figures: those with a line.
        cards: of all trials, in their order.
        no_cards: by trial, why it has none.
        per_trial: cards of each.
    """

    results: str
    pages: tuple[TrialPage, ...]
    reports: tuple[Tables, ...]
    empty: tuple[Report, ...]
    figures: tuple[Picture, ...]
    cards: tuple[gallery.Item, ...]
    no_cards: Mapping[str, str]
    per_trial: int

    title = "Weakly supervised object localization"
    shown = _SHOWN

    @property
    def version(self) -> str:
        """Of this program."""
        return version("wsolbench")

    @property
    def states(self) -> tuple[str, ...]:
        """Those that some trial is in."""
        return unique(sorted(page.state for page in self.pages))

    @property
    def counts(self) -> str:
        """How many trials are in each state, in words."""
        counted = Counter(page.state for page in self.pages)
        words = ", ".join(f"{count} {state}" for state, count in counted.most_common())
        return f"{len(self.pages)} trial{'s' * (len(self.pages) != 1)}: {words}" if words else "No trial yet"

    @property
    def failed(self) -> list[TrialPage]:
        """Trials that did not end well."""
        return [page for page in self.pages if page.state in _BAD]

    @property
    def broken(self) -> list[TrialPage]:
        """Trials whose record cannot be read."""
        return [page for page in self.pages if page.state in {"broken", "unreadable"}]

    @property
    def missing(self) -> dict[str, str]:
        """By report, what its tables lack."""
        lacks = {one.report.title: sum(len(table.missing) for table in one.report.tables) for one in self.reports}
        found = {
            title: f"{count} row{'s lack' if count > 1 else ' lacks'} trials" for title, count in lacks.items() if count
        }
        return {**found, **{made.title: made.note for made in self.empty}}

    @property
    def commands(self) -> tuple[str, ...]:
        """That fill what is missing, each once."""
        of_tables = [command for one in self.reports for table in one.report.tables for command in table.commands]
        return unique([*of_tables, *(command for made in self.empty for command in made.commands)])

    @cached_property
    def places(self) -> dict[str, dict[str, str]]:
        """By trial, the reports that it stands in: anchor -> title."""
        found: dict[str, dict[str, str]] = {}
        for one in self.reports:
            for trial_id in (i for t in one.report.tables for row in t.rows for cell in row.cells for i in cell.ids):
                found.setdefault(trial_id, {})[one.anchor] = one.report.title
        return found


def build(out: Path, place: Place, asked: Asked, cards: int, say: Say) -> Site:
    """Write the site of the store's trials into a new folder, and put it in the place of `out` when it is whole.

    Args:
        out: the folder; `refuse_other` says whether it may be replaced.
        place: the store, and the folder of the data set for the cards.
        asked: a field or option and its value that trials must have, and what commands repeat.
        cards: of each trial, at most.
        say: is told what was left out.

    Raises:
        InputError: no trial has a field or option of that name.
    """
    known = Store(place.results)
    every = {trial_id: known.spec(trial_id) for trial_id in known.ids()}
    where = {key: value for key, value in asked.filters.items() if key != "protocol"}
    check_filters(where, [flat(spec) for spec in every.values()])
    specs = {trial_id: spec for trial_id, spec in every.items() if not where or fits(flat(spec), where)}
    records = [row for row in store.rows(known.outcomes(), place.protocol) if row["id"] in specs]
    ids, finished = in_order(specs), {row["id"] for row in records if not diverged(row)}
    with _whole(out) as folder:
        shots = _cards(folder, [trial_id for trial_id in ids if trial_id in finished], place, cards)
        pages = [trial_page(known, trial_id, place.protocol, shots.classes.get(trial_id)) for trial_id in ids]
        for why, count in Counter(shots.lacking.values()).items():
            say(f"no cards of {count} trial{'s' * (count != 1)}: {why}")
        made = _reports(records, asked)
        site = Site(
            results=str(place.results),
            pages=tuple(pages),
            reports=tuple(Tables(name, one) for name, one in made.items() if one.tables),
            empty=tuple(one for one in made.values() if not one.tables),
            figures=tuple(_figures(known, records, asked.filters)),
            cards=tuple(shots.items),
            no_cards=shots.lacking,
            per_trial=cards,
        )
        _write(folder, site)
    return site


def refuse_other(out: Path) -> None:
    """Raise the `InputError` that names a folder or file which is there and no site."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file()):
        raise InputError(
            f"{str(out)!r} is there and no site of wsolbench; name another folder, or say -y to replace it"
        )


def _reports(records: Sequence[Mapping[str, Any]], asked: Asked) -> dict[str, Report]:
    """By name, every report of finished trials."""
    paths = {name: shipped.find("reports", name) for name in shipped.names("reports")}
    of_trials = {name: path for name, path in paths.items() if "rows" not in documents.read(path).data}
    plans = {name: table_file.read(path, records) for name, path in of_trials.items()}
    numbered_first = sorted(plans, key=lambda name: (not plans[name].title.startswith("Table"), plans[name].title))
    return {name: report.report(plans[name], records, asked) for name in numbered_first}


def _figures(known: Store, records: Sequence[Mapping[str, Any]], filters: Mapping[str, Any]) -> Iterator[Picture]:
    """Every figure that has something to show."""
    from wsolbench import drawing  # noqa: PLC0415  matplotlib is not free

    for name in shipped.names("figures"):
        plan = figures.read(shipped.find("figures", name), records)
        curved = plan.x.field == EVERY_THRESHOLD
        for number, sheet in enumerate(figures.sheets(plan, records, filters), start=1):
            curves = drawing.curves_of(known, sheet)[0] if curved else {}
            if sheet.lines and (curves or not curved):
                drawn = drawing.draw(sheet, curves, caption=False)  # the page has it
                width, height = (round(96 * inches) for inches in drawn.get_size_inches())
                content = drawing.rendered(drawn, "svg", sheet.title)
                yield Picture(f"{name}-{number}.svg", sheet.title, sheet.caption, width, height, content)


@dataclass(frozen=True)
class _Shots:
    """The cards of all trials, in their order; by trial the names of its classes, or why it has no cards."""

    items: list[gallery.Item] = field(default_factory=list)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)


def _cards(folder: Path, ids: Collection[str], place: Place, count: int) -> _Shots:
    """The cards of finished trials, written as pictures."""
    shots, read = _Shots(), _reader()
    for trial_id in ids if count else ():
        try:
            seen = gallery.of_trial(trial_id, place, read)
            target = folder / "cards" / trial_id
            target.mkdir(parents=True)
            shots.classes[trial_id] = seen.split.classes
            for index in gallery.random(seen, None, 0)[:count].tolist():
                (target / f"{index}.jpg").write_bytes(seen.card(index))
                shots.items.append(seen.item(index))
        except InputError as error:
            shots.lacking[trial_id] = error.problems[0].replace(trial_id, "of this page")
    return shots


def _reader() -> Callable[[Mapping[str, Any], Place], Split]:
    """Reads the test split of each data set once."""
    kept: dict[str, Split | InputError] = {}

    def read(trial: Mapping[str, Any], place: Place) -> Split:
        key = json.dumps([trial["dataset"], trial["dataset_options"]], sort_keys=True)
        if key not in kept:
            try:
                kept[key] = gallery.test_split(trial, place)
            except InputError as error:
                kept[key] = error
        found = kept[key]
        if isinstance(found, InputError):
            raise found
        return found

    return read


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A new folder that takes the place of `out` after the block; it is gone if the block fails."""
    out = out.resolve()
    if Path.cwd().is_relative_to(out):
        raise InputError(f"{str(out)!r} is the folder you are in, or holds it; name another one for the site")
    out.parent.mkdir(parents=True, exist_ok=True)
    made, old = (out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.{end}") for end in ("tmp", "old"))
    made.mkdir()
    try:
        yield made
        if out.exists():
            out.rename(old)
        made.rename(out)
    finally:
        for left in (made, old):
            shutil.rmtree(left, ignore_errors=True)
            left.unlink(missing_ok=True)


def _write(folder: Path, site: Site) -> None:
    """The pages and figures."""
    (folder / "trials").mkdir()
    (folder / "figures").mkdir()
    for picture in site.figures:
        (folder / "figures" / picture.file).write_bytes(picture.content)
    own = {page.id for page in site.pages}
    made = {"index.html": _page("index", site, link=lambda i: f"trials/{i}.html" if i in own else None)}
    if site.cards:
        made["gallery.html"] = _page("gallery", site, title="Gallery")
    for page in site.pages:
        cards = [card for card in site.cards if card.trial == page.id]
        told = {"title": page.title, "page": page, "cards": cards, "places": site.places.get(page.id, {})}
        why = site.no_cards.get(page.id, "No cards: none were asked for, or the trial is not finished.")
        made[f"trials/{page.id}.html"] = _page("trial", site, **told, root="../", no_cards=why, metrics=METRICS)
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    facts = {"made_by": f"wsolbench {site.version}", "trials": len(site.pages), "cards": len(site.cards)}
    (folder / MARKER).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def _page(name: str, site: Site, **known: Any) -> str:
    return (
        _environment()
        .get_template(f"{name}.html.j2")
        .render(**{"site": site, "root": "", "title": site.title, **known})
    )


@cache
def _environment() -> "Environment":
    made = html.environment("wsolbench.site")
    script, style = ((_HERE / name).read_text(encoding="utf-8") for name in ("script.js", "style.css"))
    hashes = {"script_hash": _hash(script), "style_hash": _hash(style)}
    sizes = {"width": WIDTH, "height": HEIGHT, "size": gallery.CARD}
    made.globals |= {"script": script, "style": style, **hashes, **sizes, "missing": MISSING, "fragment": html.fragment}
    return made


def _hash(text: str) -> str:
    """What a content security policy calls an inline text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
