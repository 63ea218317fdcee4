"""`fsck` and `gc`: whether the results are whole, and what they no longer need."""

import json
from pathlib import Path
from typing import Annotated

import typer

from wsolbench import fsck as checks
from wsolbench.console import INCOMPLETE, Json, Results, app, confirm, say
from wsolbench.store import Store

Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]


@app.command()
def fsck(
    results: Results = Path("results"),
    repair: Annotated[bool, typer.Option("--repair", help="rename broken files to <name>.corrupt-<n>")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Check every file of the results against its digest; nothing is changed without --repair, nothing deleted."""
    found = list(checks.findings(Store(results)))
    broken = [finding for finding in found if finding.kind == "broken"]
    if as_json:
        print(json.dumps([{**vars(finding), "path": str(finding.path)} for finding in found]))
    else:
        for finding in found:
            print(f"{finding.kind:10} {finding.path} {finding.problem}")
    wrong = sum(finding.kind != "note" for finding in found)
    say(f"{len(Store(results).ids())} trials: {wrong} files wrong, {len(found) - wrong} notes")
    if repair and broken:
        confirm(f"rename {len(broken)} broken files?", yes=yes)
        for finding in broken:
            say(f"{finding.path} is now {checks.repair(finding).name}")
    elif broken:
        say(
            "`wsolbench fsck --repair` renames broken files; trials without a record then run again, from what is whole"
        )
    raise typer.Exit(INCOMPLETE if wrong else 0)


@app.command()
def gc(
    results: Results = Path("results"),
    aside: Annotated[bool, typer.Option("--aside", help="also what --fresh and fsck have put by")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="also decoded images that no trial has used since")] = False,
    grace: Annotated[float, typer.Option(min=0, help="hours that everything is left alone after it was written")] = 24,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="only list what can go")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """List what the results no longer need and, when told to, delete it; never anything of a trial that is running."""
    from wsolbench import garbage  # noqa: PLC0415  imports torch

    items = garbage.items(Store(results), grace, aside=aside, cache=cache)
    if as_json:
        print(json.dumps([{**vars(item), "path": str(item.path)} for item in items]))
    else:
        for item in items:
            print(f"{item.size / 2**20:10.1f} MiB  {item.path}  {item.why}")
    say(f"{len(items)} items, {sum(item.size for item in items) / 2**20:.1f} MiB")
    if items and not dry_run:
        confirm(f"delete {len(items)} items?", yes=yes)
        for item in items:
            item.remove()
        say("deleted")
