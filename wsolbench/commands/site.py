"""`site`: the whole report as pages."""

from pathlib import Path
from typing import Annotated

import typer

from wsolbench import words
from wsolbench.console import INCOMPLETE, Results, app, say


@app.command()
def site(
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="data=FOLDER, and which trials", show_default=False),
    ] = None,
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="folder of the site; one that is there is replaced")] = Path("site"),
    cards: Annotated[int, typer.Option(min=0, help="test images of each trial in the gallery")] = 24,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="replace a folder that is no site too")] = False,
) -> None:
    """Write tables, figures, a gallery and a page for each trial, as a folder that a browser opens without a server."""
    from wsolbench.asked import Asked  # noqa: PLC0415  `--help` does without numpy
    from wsolbench.place import Place  # noqa: PLC0415
    from wsolbench.site import build  # noqa: PLC0415

    given = words.values(pairs or ())
    filters = words.trial_filters(given)
    if not yes:
        build.refuse_other(out)
    asked = Asked(str(results), filters, words.to_repeat(given))
    data = Path(str(given["data"])) if "data" in given else None
    place = Place(results, data=data, protocol=str(filters["protocol"]) if "protocol" in filters else None)
    made = build.build(out, place, asked, cards, say)
    say(f"{made.counts}; {len(made.reports)} tables, {len(made.figures)} figures, {len(made.cards)} cards")
    say(*(f"missing: {title}: {lack}" for title, lack in made.missing.items()))
    say(*(f"left out: {page.note}" for page in made.broken))
    print(out / "index.html")
    raise typer.Exit(INCOMPLETE if made.broken else 0)
