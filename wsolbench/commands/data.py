"""`data`: look after data sets."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsolbench import words
from wsolbench.console import FAILED, Json, app, say
from wsolbench.errors import InputError

if TYPE_CHECKING:
    from wsolbench.verify import Report

data_app = typer.Typer(help="Look after data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


@data_app.command()
def verify(
    dataset: Annotated[str, typer.Argument(help="which data set")],
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="data=FOLDER [KEY=VALUE...]", help="its folder and its options")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a data set on disk: counts, sizes, boxes, splits, and that every image can be decoded."""
    from wsolbench import datasets, plugins  # noqa: PLC0415  they are not free
    from wsolbench import verify as checks  # noqa: PLC0415

    options = words.values(pairs or ())
    data = options.pop("data", None)
    found = checks.verify(plugins.make(datasets, dataset, options), None if data is None else Path(str(data)))
    if data is None and not found.splits:  # nothing was looked at
        raise InputError(*found.problems)
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        for line in _verified(found):
            print(line)
    for problem in found.problems:
        say(f"problem: {problem}")
    raise typer.Exit(FAILED if found.problems else 0)


def _verified(found: "Report") -> Iterator[str]:
    """What a data set holds, a line for each split."""
    for split in found.splits:
        of = "" if split.official is None else f" of {split.official}"
        truth = f"{split.boxes} boxes, {split.masks} masks"
        yield f"{split.name}: {split.images}{of} images, {split.classes} classes, {truth}"
        smallest, largest = (f"{width} x {height}" for width, height in (split.smallest, split.largest))
        yield f"  {smallest} to {largest} pixels, sha256 {split.digest}"
        yield from (f"  {note}" for note in split.notes)
    for name, why in found.absent.items():
        yield f"{name}: {why}"
