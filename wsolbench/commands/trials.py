"""`run`: one trial."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from wsolbench import files, words
from wsolbench.console import FAILED, Json, Pairs, Results, app, print_metrics, say
from wsolbench.stop import Stop, Stopped, by_signals
from wsolbench.store import Store


@app.command()
def run(
    pairs: Pairs = None,
    results: Results = Path("results"),
    fresh: Annotated[bool, typer.Option(help="set a stored result aside and train again")] = False,
    as_json: Json = False,
) -> None:
    """Run one trial here and print its metrics; a stored result is printed at once."""
    from wsolbench import job, loop, recipe  # noqa: PLC0415  imports torch

    with words.asked(pairs, results) as (settings, place):
        trial = recipe.complete(settings, place.weights)
    kept = Store(results)
    cached = not fresh and kept.record(trial.id) is not None
    known: dict[bytes, Any] = {}
    if not cached:
        job.check(trial, place, known)  # a mistake must leave no trace, nor cost the stored result
    if fresh:
        kept.set_aside(trial.id)
    say(f"trial {trial.id}" + (": the stored result" if cached else f", {trial.epochs} epochs"))
    try:
        with by_signals(Stop()) as stop:
            record = job.run(trial, place, lambda row: say(_epoch_line(row, trial.epochs)), stop, known=known)
    except Stopped as stopped:
        say(f"{stopped} after a whole step; run the same command again to go on from there")
        raise
    except loop.DivergedError as error:
        say(f"failed: {error}")
        raise typer.Exit(FAILED) from None
    except OSError as error:
        if error.errno not in files.FULL:
            raise
        say(f"failed: {files.reason(error)}; then run the same command again to go on")
        raise typer.Exit(FAILED) from None
    protocol = place.protocol or record["protocol"]
    heading = {"id": trial.id, "state": "done", "cached": cached, "protocol": protocol}
    print_metrics(heading, record["results"][protocol], as_json)


def _epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    return f"epoch {row['epoch']}/{epochs}  loss {row['loss']:.4f}  {row['seconds']:.1f} s"
