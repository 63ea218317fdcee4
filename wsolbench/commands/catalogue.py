"""`list`: what there is."""

import json
from typing import Annotated, Literal

import typer

from wsolbench.console import Json, app


@app.command("list")
def list_(
    kind: Annotated[
        Literal["all", "methods", "backbones", "datasets", "sweeps", "reports", "figures"], typer.Argument()
    ] = "all",
    as_json: Json = False,
) -> None:
    """What there is: methods, backbones and data sets with their options, sweeps, reports, figures."""
    from wsolbench import catalogue  # noqa: PLC0415  imports torch

    found = catalogue.everything() if kind == "all" else {kind: catalogue.everything()[kind]}
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for heading, entries in found.items():
        print(heading)
        for name, line in entries.items():
            print(f"  {name:16} {line}".rstrip())
