"""`list`: what there is."""

import json
from typing import Annotated

import typer

from wsolbench import shipped
from wsolbench.console import Json, app
from wsolbench.errors import InputError, nearest

_HEADINGS = ("methods", "backbones", "datasets", "fields", "extract", "protocols", "metrics", *shipped.KINDS)


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help=f"all, or one of: {', '.join(_HEADINGS)}")] = "all",
    name: Annotated[
        str | None, typer.Argument(help="all that is said of one thing, such as the layout of a data set's folder")
    ] = None,
    as_json: Json = False,
) -> None:
    """What there is: methods, backbones, data sets, a trial's fields, protocols, metrics, sweeps, reports, figures."""
    if kind not in ("all", *_HEADINGS):
        raise InputError(f"no list of {kind!r}{nearest(kind, _HEADINGS) or '.'} There are: {', '.join(_HEADINGS)}")
    if name is not None and kind == "all":
        raise InputError(f"in which list is {name!r}? Such as `wsolbench list datasets {name}`")
    from wsolbench import catalogue  # noqa: PLC0415  imports torch

    if name is not None:
        said = catalogue.about(kind, name)
        print(json.dumps({kind: {name: said}}) if as_json else said)
        return
    everything = catalogue.everything()
    found = everything if kind == "all" else {kind: everything[kind]}
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for heading, entries in found.items():
        print(heading)
        for entry, line in entries.items():
            print(f"  {entry:16} {line}".rstrip())
