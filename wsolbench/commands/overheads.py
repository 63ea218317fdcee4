"""`overhead`: what methods cost over plain CAM."""

from typing import Annotated, Any, Literal

import typer

from wsolbench import shipped
from wsolbench.console import app, say
from wsolbench.errors import InputError


@app.command()
def overhead(
    file: Annotated[str, typer.Argument(help="which networks, by file or name")] = "overhead",
    only: Annotated[
        list[str] | None, typer.Option(help="rows labelled BACKBONE, METHOD or BACKBONE/METHOD; may be repeated")
    ] = None,
    form: Annotated[Literal["md", "csv", "json"], typer.Option("--format", help="of the table")] = "md",
    measure: Annotated[bool, typer.Option("--measure", help="run the networks too: time and memory as ratios")] = False,
    pairs: Annotated[int | None, typer.Option(min=1, help="turns of both networks, measured; 5 by default")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="images, measured; 8 by default")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="pixels, measured; the table's by default")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="where it is measured")] = None,
) -> None:
    """Parameters, multiplications and operations of methods over plain CAM; on demand, measured time and memory."""
    given = {"pairs": pairs, "batch_size": batch_size, "image_size": image_size, "device": device}
    asked: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if asked and not measure:
        options = ", ".join(f"--{key.replace('_', '-')}" for key in asked)
        raise InputError(f"{options} is for what is measured; say --measure too")
    path = shipped.find("reports", file)
    from wsolbench import overhead as counting  # noqa: PLC0415  imports torch
    from wsolbench.measure import Plan  # noqa: PLC0415

    found = counting.overheads(path, only or (), Plan(**asked) if measure else None, say)
    print(counting.FORMATS[form](found), end="")
