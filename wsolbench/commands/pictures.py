"""`figure` and `gallery`: pictures of finished trials."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from wsolbench import files, shipped, store, words
from wsolbench.console import INCOMPLETE, Json, Results, app, say
from wsolbench.errors import Collecting, InputError, each, nearest
from wsolbench.known import EVERY_THRESHOLD
from wsolbench.store import Store

if TYPE_CHECKING:
    from wsolbench.figures import Sheet
    from wsolbench.gallery import Seen

_DEFAULT = "best,worst,random,fixes,breaks"


@app.command()
def figure(
    name: Annotated[list[str], typer.Argument(metavar="NAME... [KEY=VALUE...]", help="figures, and which trials")],
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="folder for the figures", file_okay=False)] = Path("figures/out"),
    forms: Annotated[str, typer.Option("--format", help="of svg, png and pdf one or several: svg,png")] = "svg,png",
) -> None:
    """Draw the figures of figures/*.yaml from the finished trials: means, their spread, and every trial as a dot."""
    names = [word for word in name if "=" not in word]
    if not names:
        raise InputError(f"name a figure; there are: {', '.join(shipped.names('figures'))}")
    from wsolbench import drawing, figures  # noqa: PLC0415  `--help` does without matplotlib

    problems: list[str] = []
    with Collecting(problems):
        filters = words.trial_filters(words.values(word for word in name if "=" in word))
    with Collecting(problems):
        asked = _listed(forms, get_args(drawing.Format), "format")
    with Collecting(problems):
        paths = each(partial(shipped.find, "figures"), names).values()
    if problems:
        raise InputError(*problems)
    known = Store(results)
    rows = store.rows(known.outcomes(), filters.get("protocol"))
    plans = {path.stem: plan for path, plan in each(lambda path: figures.read(path, rows), paths).items()}
    out.mkdir(parents=True, exist_ok=True)
    complete = []
    for stem, plan in plans.items():
        found = figures.sheets(plan, rows, filters)
        complete.append(_told(stem, plan.sweep, found, results))
        for number, sheet in enumerate(found, start=1):
            curves, lost = drawing.curves_of(known, sheet) if plan.x.field == EVERY_THRESHOLD else ({}, [])
            if lost:
                say(f"left out, as their predictions.npz is not among the results: {', '.join(lost)}")
            drawn = drawing.draw(sheet, curves)
            for form in asked:
                target = out / f"{stem}{f'-{number}' if len(found) > 1 else ''}.{form}"
                files.write(target, drawing.rendered(drawn, form, sheet.title))
                print(target)
    raise typer.Exit(0 if all(complete) else INCOMPLETE)


def _listed(text: str, known: Sequence[str], what: str) -> list[Any]:
    """The words of a list with commas, each of which must be known."""
    found = list(dict.fromkeys(text.split(",")))
    unknown = [word for word in found if word not in known]
    if unknown:
        raise InputError(
            *(f"no {what} {word!r}{nearest(word, known) or '.'} There are: {', '.join(known)}" for word in unknown)
        )
    return found


def _told(stem: str, sweep: str | None, sheets: Sequence["Sheet"], results: Path) -> bool:
    """Say what a figure lacks; whether it lacks nothing."""
    hint = f"; `wsolbench sweep {sweep}` runs them" if sweep else ""
    if not sheets:
        say(f"{stem}: no finished trial in {str(results)!r} fits this figure{hint}")
    for sheet in sheets:
        say(f"{stem}: {sheet.caption}")
        if sheet.missing:
            say(f"{stem}: no finished trial of {', '.join(sheet.missing)}{hint}")
    return bool(sheets) and not any(sheet.missing for sheet in sheets)


@app.command()
def gallery(
    trials: Annotated[
        list[str],
        typer.Argument(
            metavar="TRIAL [BASELINE] [KEY=VALUE...]", help="ids or how they begin, or fields: 'method=x seed=0'"
        ),
    ],
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="folder for gallery.png, gallery.json and cards/", file_okay=False)] = Path(
        "gallery"
    ),
    choose: Annotated[str, typer.Option(help="groups of images, with commas; and first")] = _DEFAULT,
    count: Annotated[int, typer.Option(min=1, help="images of a group")] = 3,
    seed: Annotated[int, typer.Option(help="of the random group")] = 0,
    dpi: Annotated[int, typer.Option(min=30, max=600, help="of gallery.png")] = 150,
    as_json: Json = False,
) -> None:
    """Show what a trial and its baseline of the same seed make of test images, from stored score maps (Figures 3, 4).

    The folder of the data set is named as data=FOLDER. Groups: best and worst IoU, random, first of each class, and
    what the trial hits and the baseline does not (fixes), or the other way round (breaks).
    """
    names, pairs = _names(trials)
    from wsolbench import drawing, mosaic  # noqa: PLC0415  `--help` does without numpy
    from wsolbench import gallery as galleries  # noqa: PLC0415

    with words.asked(pairs, results) as (settings, place):
        groups = _listed(choose, list(galleries.GROUPS), "group")
    if len(names) == 1:
        groups = [group for group in groups if choose != _DEFAULT or group not in galleries.PAIRED]
    found = Store(results)
    names = [name if "=" in name else found.whole(name) for name in names]
    rows = store.rows(found.index().records(), place.protocol)
    ids = galleries.pair(rows, names[0], names[1] if len(names) > 1 else None, settings)
    ours, theirs = (None if trial_id is None else galleries.of_trial(trial_id, place) for trial_id in ids)
    assert ours is not None  # noqa: S101  the first always is one
    chosen = galleries.chosen(ours, theirs, groups, count, seed)
    if not any(chosen.values()):
        raise InputError(f"no image belongs to {' or '.join(groups)}")
    data = _cards(out, [ours] if theirs is None else [theirs, ours], chosen)
    files.write(out / "gallery.json", json.dumps(data, indent=1, ensure_ascii=False).encode())
    picture = mosaic.mosaic([ours] if theirs is None else [theirs, ours], chosen)
    files.write(out / "gallery.png", drawing.rendered(picture, "png", dpi=dpi))
    print(json.dumps(data) if as_json else out / "gallery.png")
    say(f"written: {out / 'gallery.png'}, {out / 'gallery.json'} and {len({item['card'] for item in data})} cards")


def _names(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that name trials, two at most, and the KEY=VALUE words for both."""
    of_place = [word for word in given if word.partition("=")[0] in words.PLACE]
    others = [word for word in given if word not in of_place]
    if not others:
        raise InputError("name a trial, by its id or by fields such as 'method=x seed=0'")
    return others[:2], [*of_place, *others[2:]]


def _cards(out: Path, trials: Sequence["Seen"], found: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """Write the card of each chosen image and trial; what is on them, as data."""
    (out / "cards").mkdir(parents=True, exist_ok=True)
    data = []
    for group, indices in found.items():
        for index in indices:
            for trial in trials:
                target = Path("cards") / f"{trial.id}_{index:05d}.jpg"
                files.write(out / target, trial.card(index))
                data.append({"group": group, "card": str(target), **trial.item(index).data()})
    return data
