"""`list`: what there is."""

import json
from typing import Annotated

import typer

from wsolbench import shipped
from wsolbench.console import Json, app
from wsolbench.errors import InputError, nearest

_HEADINGS = ("methods", "backbones", "datasets", *shipped.KINDS)


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help=f"all, or one of: {', '.join(_HEADINGS)}")] = "all",
    as_json: Json = False,
) -> None:
    """What there is: methods, backbones and data sets with their options, sweeps, reports, figures."""
    if kind not in ("all", *_HEADINGS):
        raise InputError(f"no list of {kind!r}{nearest(kind, _HEADINGS) or '.'} There are: {', '.join(_HEADINGS)}")
    from wsolbench import catalogue  # noqa: PLC0415  imports torch

    everything = catalogue.everything()
    found = everything if kind == "all" else {kind: everything[kind]}
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for heading, entries in found.items():
        print(heading)
        for name, line in entries.items():
            print(f"  {name:16} {line}".rstrip())
