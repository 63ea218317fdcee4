"""`run` and `inspect`: one trial."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from wsolbench import files, words
from wsolbench.console import FAILED, Json, Pairs, Results, app, print_metrics, refuse_others, say
from wsolbench.errors import InputError
from wsolbench.stop import Stop, Stopped, by_signals
from wsolbench.store import Store

_OF_INSPECTION = ("data", "weights", "device", "protocol")


@app.command()
def run(
    pairs: Pairs = None,
    results: Results = Path("results"),
    fresh: Annotated[bool, typer.Option(help="set a stored result aside and train again")] = False,
    as_json: Json = False,
) -> None:
    """Run one trial here and print its metrics; a stored result is printed at once."""
    settings, place = words.asked(pairs, results)
    from wsolbench import job, loop, recipe  # noqa: PLC0415  imports torch

    trial = recipe.complete(settings, place.weights)
    kept = Store(results)
    cached = not fresh and kept.record(trial.id) is not None
    if fresh:
        job.check(trial, place)  # a mistake must not cost the stored result
        kept.set_aside(trial.id)
    say(f"trial {trial.id}" + (": the stored result" if cached else f", {trial.epochs} epochs"))
    try:
        with by_signals(Stop()) as stop:
            record = job.run(trial, place, lambda row: say(_epoch_line(row, trial.epochs)), stop)
    except Stopped as stopped:
        say(f"{stopped} after a whole step; run the same command again to go on from there")
        raise
    except loop.DivergedError as error:
        say(f"failed: {error}")
        raise typer.Exit(FAILED) from None
    protocol = place.protocol or record["protocol"]
    heading = {"id": trial.id, "state": "done", "cached": cached, "protocol": protocol}
    print_metrics(heading, record["results"][protocol], as_json)


@app.command()
def inspect(
    trial: Annotated[str, typer.Argument(help="a finished trial's id, or how it begins")],
    image: Annotated[Path, typer.Option(help="file of the image")],
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help=", ".join(_OF_INSPECTION), show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="where the picture goes, a .png; by default here")] = None,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Draw what the method's layers make of an image: attention, importance map and drop mask at each point."""
    refuse_others(pairs, _OF_INSPECTION)
    if out is not None and (out.suffix != ".png" or out.is_dir()):
        raise InputError(f"--out must be a .png file, not {str(out)!r}")
    _, place = words.asked(pairs, results)
    from wsolbench import inspection  # noqa: PLC0415  imports torch

    found = inspection.inspect(trial, image, place)
    target = out or Path(f"{found.trial.id}_{image.stem}.png")
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write(target, inspection.picture(found))
    if as_json:
        print(json.dumps({"id": found.trial.id, "image": str(image), "picture": str(target), "maps": [*found.rows()]}))
    else:
        print(inspection.table(found))
    say(f"written: {target}")


def _epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    return f"epoch {row['epoch']}/{epochs}  loss {row['loss']:.4f}  {row['seconds']:.1f} s"
