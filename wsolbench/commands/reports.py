"""`report` and `compare`: tables out of finished trials."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from wsolbench import documents, formats, plugins, protocols, shipped, store, words
from wsolbench.asked import Asked
from wsolbench.console import INCOMPLETE, Json, Pairs, Results, app, say
from wsolbench.errors import Collecting, InputError, each
from wsolbench.store import Store
from wsolbench.table import Report


@app.command()
def report(
    file: Annotated[list[str], typer.Argument(metavar="FILE... [KEY=VALUE...]", help="tables, and which trials")],
    results: Results = Path("results"),
    formats_: Annotated[
        str, typer.Option("--format", help="of the files, with commas: md,tex,csv,html,txt,json")
    ] = "md",
    out: Annotated[Path, typer.Option(help="folder for the files", file_okay=False)] = Path("reports/out"),
    paper: Annotated[bool, typer.Option("--paper", help="published numbers beside ours, and ours less those")] = False,
    quote: Annotated[
        bool, typer.Option("--quote", help="published numbers of the same protocol, with a *, where there is no trial")
    ] = False,
    more: Annotated[bool, typer.Option("--more", help="further columns, such as accuracy at other thresholds")] = False,
    as_json: Json = False,
) -> None:
    """The tables of reports/*.yaml from the finished trials: as text here, and as files."""
    names = [word for word in file if "=" not in word]
    if not names:
        raise InputError(f"name a report; there are: {', '.join(shipped.names('reports'))}")
    wanted = [word.strip() for word in formats_.split(",")]
    problems: list[str] = []
    with Collecting(problems):
        given = words.values(word for word in file if "=" in word)
        asked = Asked(str(results), words.trial_filters(given), words.to_repeat(given), paper, quote, more)
    with Collecting(problems):
        paths = each(partial(shipped.find, "reports"), names).values()
    with Collecting(problems):
        each(partial(plugins.load, formats), wanted)
    if problems:
        raise InputError(*problems)
    known = Store(results)
    index = known.index()
    left_out = {**index.broken, **index.unreadable}
    records = store.rows(known.outcomes(index), asked.filters.get("protocol"))
    made = each(lambda path: _made(path, records, asked), paths)
    if as_json:
        print(json.dumps([asdict(tables) for tables in made.values()], ensure_ascii=False, allow_nan=False))
    for path, tables in made.items():
        if not as_json:
            print(plugins.load(formats, "txt").render(tables))
        _write(tables, out / path.stem, wanted)
    say(*(f"left out: {why}" for why in left_out.values()))
    complete = all(tables.complete for tables in made.values()) and not left_out
    raise typer.Exit(0 if complete else INCOMPLETE)


@app.command()
def compare(
    ours: Annotated[str, typer.Argument(metavar="'KEY=VALUE...'", help="which trials", show_default=False)],
    theirs: Annotated[str, typer.Argument(metavar="'KEY=VALUE...'", help="against which", show_default=False)],
    pairs: Pairs = None,
    results: Results = Path("results"),
    metric: Annotated[str, typer.Option(help="names, with commas")] = "top1_loc,gt_known_loc,top1_clas",
    form: Annotated[str, typer.Option("--format", help="of what is printed: txt, md, csv, tex, html or json")] = "txt",
    as_json: Json = False,
) -> None:
    """Compare two sets of finished trials, paired by seed and image by image, all other settings equal."""
    from wsolbench import compare as comparing  # noqa: PLC0415  imports numpy
    from wsolbench.pairing import Side  # noqa: PLC0415

    both = words.trial_filters(words.values(pairs or ()))
    sides = [Side(text, {**words.trial_filters(words.values(words.split(text))), **both}) for text in (ours, theirs)]
    names = [name.strip() for name in metric.split(",")]
    if unknown := [name for name in names if name not in protocols.METRICS]:
        raise InputError(f"no metric {', '.join(unknown)}; there are: {', '.join(protocols.METRICS)}")
    render = plugins.load(formats, "json" if as_json else form).render
    found = Store(results)
    index = found.index()
    records = store.rows(found.outcomes(index), both.get("protocol"))
    made, alone = comparing.compare(
        records, (sides[0], sides[1]), names, lambda id_: found.arrays(id_, "predictions.npz")
    )
    print(render(made), end="")
    say(*(f"not paired: {sentence}" for sentence in alone))
    left_out = {**index.broken, **index.unreadable}
    say(*(f"left out: {why}" for why in left_out.values()))
    raise typer.Exit(INCOMPLETE if alone or left_out else 0)


def print_report(name: str, records: list[dict[str, Any]], asked: Asked, out: Path) -> bool:
    """Print a table of these records and write its markdown to a folder; whether it is complete."""
    path = shipped.find("reports", name)
    made = _made(path, records, asked)
    print(plugins.load(formats, "txt").render(made))
    _write(made, out / path.stem, ["md"])
    return made.complete


def _made(path: Path, records: list[dict[str, Any]], asked: Asked) -> Report:
    from wsolbench import report as reports  # noqa: PLC0415  `--help` does without
    from wsolbench import table_file  # noqa: PLC0415

    if "rows" in documents.read(path).data:
        raise InputError(f"{path} lists networks, not finished trials; `wsolbench overhead {path}` prints it")
    return reports.report(table_file.read(path, records), records, asked)


def _write(made: Report, stem: Path, wanted: Sequence[str]) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    for ending in wanted:
        target = stem.with_name(f"{stem.name}.{ending}")
        target.write_text(plugins.load(formats, ending).render(made), encoding="utf-8")
        say(f"written: {target}")
