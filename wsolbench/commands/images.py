"""`predict`, `inspect` and `export`: a trained network on anybody's images, here and elsewhere."""

import json
from pathlib import Path
from typing import Annotated

import typer

from wsolbench import files, words
from wsolbench.console import FAILED, Json, Results, app, refuse_others, say
from wsolbench.errors import InputError
from wsolbench.place import Place

_KEYS = ("data", "weights", "device", "protocol")
_Place = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help=", ".join(_KEYS), show_default=False)]
_Trial = Annotated[str, typer.Option(help="a finished trial's id, or how it begins")]


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="file of the image")],
    trial: _Trial,
    pairs: _Place = None,
    label: Annotated[
        str | None, typer.Option("--class", help="to locate, by name or number; else the likeliest")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the picture; by default TRIAL_IMAGE.png")] = None,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Classify an image and locate the object, by the box of every protocol; draws score map and box over the image."""
    place = _place(pairs, results, out, ".png")
    from wsolbench import prediction  # noqa: PLC0415  imports torch

    found = prediction.predict(trial, image, place, label)
    target = _drawn(out or Path(f"{found.trial.id}_{image.stem}.png"), prediction.picture(found))
    if as_json:
        print(json.dumps({"image": str(image), "picture": str(target), **found.data()}))
    else:
        print(prediction.table(found))


@app.command()
def inspect(
    trial: Annotated[str, typer.Argument(help="a finished trial's id, or how it begins")],
    image: Annotated[Path, typer.Option(help="file of the image")],
    pairs: _Place = None,
    out: Annotated[Path | None, typer.Option(help="the picture; by default TRIAL_IMAGE_inspect.png")] = None,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Draw what the method's layers make of an image: attention, importance map and drop mask at each point."""
    place = _place(pairs, results, out, ".png")
    from wsolbench import inspection  # noqa: PLC0415  imports torch

    found = inspection.inspect(trial, image, place)
    target = _drawn(out or Path(f"{found.trial.id}_{image.stem}_inspect.png"), inspection.picture(found))
    if as_json:
        print(json.dumps({"id": found.trial.id, "image": str(image), "picture": str(target), "maps": [*found.rows()]}))
    else:
        print(inspection.table(found))


@app.command()
def export(
    trial: _Trial,
    out: Annotated[Path, typer.Option(help="where the network goes, an .onnx")],
    pairs: _Place = None,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Write a trained network as ONNX: images and labels in, logits and score maps out; checked with onnxruntime."""
    place = _place(pairs, results, out, ".onnx")
    from wsolbench import export as exporting  # noqa: PLC0415  imports torch

    try:
        found = exporting.export(trial, place)
    except exporting.MismatchError as error:
        say(f"failed: {error}")
        raise typer.Exit(FAILED) from None
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write(out, found.content)
    told = {"id": found.trial.id, "file": str(out), "bytes": len(found.content), "differences": found.differences}
    if as_json:
        print(json.dumps(told))
    else:
        print(f"{out}: {len(found.content) / 2**20:.1f} MiB")
        for name, difference in found.differences.items():
            print(f"{name:12} differs from torch by {difference:.1e} of its largest value")


def _drawn(target: Path, picture: bytes) -> Path:
    """Where the picture has been written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write(target, picture)
    say(f"written: {target}")
    return target


def _place(pairs: list[str] | None, results: Path, out: Path | None, suffix: str) -> Place:
    """Where a trial's network is to run, once nothing else is asked for and the file to write is of its kind."""
    with words.asked(pairs, results) as (_, place):
        refuse_others(pairs, _KEYS)
        if out is not None and (out.suffix != suffix or out.is_dir()):
            raise InputError(f"--out must be a {suffix} file, not {str(out)!r}")
    return place
