"""`sweep`: the trials of a file."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wsolbench import shipped, store, words
from wsolbench.commands.reports import print_report
from wsolbench.console import FAILED, INCOMPLETE, Pairs, Results, app, say
from wsolbench.errors import InputError
from wsolbench.filling import Asked
from wsolbench.place import Place
from wsolbench.store import Store

if TYPE_CHECKING:
    from wsolbench.launch import Progress
    from wsolbench.sweep import Sweep


@app.command()
def sweep(
    file: Annotated[str, typer.Argument(help="a sweep's file or its name")],
    pairs: Pairs = None,
    results: Results = Path("results"),
    cluster: Annotated[Literal["local", "debug"], typer.Option(help="where; debug is this process")] = "local",
    partition: Annotated[str | None, typer.Option(help="of a SLURM cluster")] = None,
    seeds: Annotated[str | None, typer.Option(help="instead of the file's: 0-4 or 0,1,2")] = None,
    max_parallel: Annotated[int | None, typer.Option(min=1, help="trials at a time; by default all cores")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="show what would run")] = False,
) -> None:
    """Run the trials of a sweep that have no result yet, and print the table they fill."""
    if partition is not None:
        raise InputError(f"partition {partition!r} is of a SLURM cluster; the {cluster} cluster has none: leave it out")
    settings, place = words.asked(pairs, results)
    from wsolbench import launch  # noqa: PLC0415  imports torch
    from wsolbench import sweep as sweeps  # noqa: PLC0415

    plan = sweeps.read(shipped.find("sweeps", file), settings, place.weights, words.seeds(seeds))
    say(_counts(plan, Store(results)))
    if dry_run:
        for trial in plan.trials:
            print(trial.id, Store(results).state(trial.id), json.dumps(trial.row()))
        return
    _check_data(plan, place)
    jobs = max_parallel or launch.at_once(plan.trials, place)
    with _progress() as show:
        progress = launch.launch(plan.trials, place, cluster, jobs, show)
    failed = {trial: how for trial, how in progress.ended.items() if how != "done"}
    for trial, how in failed.items():
        say(f"failed: {trial.id}: {how}", f"  log: {Store(results).path(trial.id, 'attempts')}")
    complete = _table(plan, place)
    if complete and not failed:
        say(_next(plan, place))
    raise typer.Exit(FAILED if failed else 0 if complete else INCOMPLETE)


def _counts(plan: "Sweep", found: Store) -> str:
    counts = Counter(found.state(trial.id) for trial in plan.trials)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{plan.name}: {len(plan.trials)} trials: {states}"


def _check_data(plan: "Sweep", place: Place) -> None:
    """Read each data set once before the first job: a wrong folder is told now, not by every job."""
    from wsolbench import job  # noqa: PLC0415  imports torch

    found = Store(place.results)
    todo = {trial.dataset: trial for trial in plan.trials if found.state(trial.id) != "done"}
    for trial in todo.values():
        for note in job.splits(trial, place).test.notes:
            say(f"{trial.dataset}: {note}")


def _next(plan: "Sweep", place: Place) -> str:
    """What to try after a sweep."""
    others = [name for name in shipped.names("sweeps") if name != plan.name]
    results = "" if place.results == Path("results") else f" --results {place.results}"
    return f"next: wsolbench sweep {others[0]}{results}" if others else f"next: wsolbench status{results}"


def _table(plan: "Sweep", place: Place) -> bool:
    """Print the table that a sweep fills, of its own trials only."""
    if plan.report is None:
        return True
    ids = {trial.id for trial in plan.trials}
    records = [row for row in store.rows(Store(place.results).records(), place.protocol) if row["id"] in ids]
    given = {name: str(path) for name, path in (("data", place.data), ("weights", place.weights)) if path}
    return print_report(plan.report, records, Asked(str(place.results), {}, given), Path("reports/out"))


@contextmanager
def _progress() -> Iterator["Callable[[Progress], None]"]:
    """Shows how far a sweep is: a bar on a terminal, else a line for each trial that ends."""
    from rich import progress as rich  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415  only sweeps show a bar

    console = Console(stderr=True)
    percent = rich.TextColumn("{task.percentage:3.0f} %")
    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), percent, rich.TimeElapsedColumn())
    told: set[Any] = set()
    with rich.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(progress: "Progress") -> None:
            ended = progress.cached + len(progress.ended)
            words = f"{ended}/{progress.total} trials"
            bar.update(task, description=words, total=progress.epochs, completed=progress.epochs_done)
            for trial in progress.ended.keys() - told:
                told.add(trial)
                if not console.is_terminal:
                    say(f"{words} {trial.id} {trial.method} seed={trial.seed}: {progress.ended[trial]}")

        yield show
