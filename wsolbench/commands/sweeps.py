"""`sweep`: the trials of a file, here or on a cluster."""

import json
import shlex
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from wsolbench import resources, shipped, store, words
from wsolbench.asked import Asked
from wsolbench.cluster import RETRIES, Wish
from wsolbench.commands import _clusters
from wsolbench.commands.reports import print_report
from wsolbench.console import FAILED, INCOMPLETE, Pairs, Results, app, say
from wsolbench.errors import Collecting, InputError
from wsolbench.memory import lasting
from wsolbench.place import Place
from wsolbench.slurm import NoAnswerError
from wsolbench.stop import held_back
from wsolbench.store import Store

if TYPE_CHECKING:
    from wsolbench.crew import Crew
    from wsolbench.launch import Progress
    from wsolbench.sweep import Sweep

_MORE = "one more parameter of sbatch; may be repeated"
_FLAGS = {"additional_parameters": "sbatch"}
Number = int | None
Text = str | None
Texts = list[str] | None


@app.command()
def sweep(
    file: Annotated[str, typer.Argument(help="a sweep's file or its name")],
    pairs: Pairs = None,
    results: Results = Path("results"),
    where: Annotated[
        Literal["local", "debug", "slurm"], typer.Option("--cluster", help="where; debug is this process")
    ] = "local",
    seeds: Annotated[Text, typer.Option(help="instead of the file's: 0-4 or 0,1,2")] = None,
    max_parallel: Annotated[Number, typer.Option(min=1, help="trials at a time; here by default all cores")] = None,
    retry: Annotated[Text, typer.Option(help=f"run again: {', '.join(RETRIES)}; on a cluster by default lost")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="show what would run")] = False,
    wait: Annotated[bool, typer.Option(help="stay until all is done, then print the table; only with slurm")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask before submitting")] = False,
    snapshot: Annotated[bool, typer.Option(help="jobs run a copy of the code as it is now; only with slurm")] = False,
    partition: Annotated[Text, typer.Option(help="of the cluster, as all below")] = None,
    account: Annotated[Text, typer.Option(help="that pays")] = None,
    qos: Annotated[Text, typer.Option(help="quality of service")] = None,
    constraint: Annotated[Text, typer.Option(help="what the nodes must have")] = None,
    exclude: Annotated[Text, typer.Option(help="nodes to keep away from")] = None,
    timeout_min: Annotated[Number, typer.Option(help="minutes; a job goes on in another")] = None,
    mem_gb: Annotated[float | None, typer.Option(help="memory of a job")] = None,
    gpus_per_node: Annotated[Number, typer.Option(help="GPUs of a job")] = None,
    cpus_per_task: Annotated[Number, typer.Option(help="CPUs of a job; by default its threads and workers")] = None,
    signal_delay_s: Annotated[Number, typer.Option(help="seconds before its end at which a job is warned")] = None,
    setup: Annotated[Texts, typer.Option(help="shell line before the job; may be repeated")] = None,
    sbatch: Annotated[Texts, typer.Option(metavar="KEY=VALUE", help=_MORE)] = None,
) -> None:
    """Run the trials of a sweep that have no result yet, and print the table they fill.

    On a SLURM cluster they are submitted, and the command returns.
    """
    asked = _asked(locals(), words.values(sbatch or ()))
    with _workers(results, here=where == "local" and not dry_run) as crew:
        with words.asked(pairs, results) as (settings, place):
            retried, plan = _planned(file, retry, seeds, settings, place.weights)
        limits = retried, max_parallel
        if where == "slurm":
            _on_cluster(plan, place, Wish(asked, *limits, wait, yes, snapshot), dry_run)
        flags = [*asked, *(["wait"] * wait), *(["snapshot"] * snapshot)]
        if flags:
            names = ", ".join(f"--{_FLAGS.get(name, name).replace('_', '-')}" for name in flags)
            raise InputError(f"{names}: of a SLURM cluster; the {where} cluster has none: leave it out")
        say(_counts(plan, Store(results)))
        if not dry_run:
            _here(plan, place, where, limits, crew)
    for trial in plan.trials:
        print(trial.id, Store(results).state(trial.id), json.dumps(trial.row()))


def _planned(
    file: str, retry: str | None, seeds: str | None, settings: Mapping[str, Any], weights: Path | None
) -> tuple[list[str] | None, "Sweep"]:
    """What to run again, and the sweep; `InputError` has all that is wrong with either."""
    problems: list[str] = []
    only = None
    with Collecting(problems):
        retried = _retried(retry)
    with Collecting(problems):
        only = words.seeds(seeds)
    with Collecting(problems):
        plan = _read(shipped.find("sweeps", file), settings, weights, only)
    if problems:
        raise InputError(*problems)
    return retried, plan


@lasting()
def _read(path: Path, settings: Mapping[str, Any], weights: Path | None, seeds: Sequence[int] | None) -> "Sweep":
    """As `sweep.read`, which takes a second to import; a Control-C would leave libraries half imported."""
    with held_back(signal.SIGINT, signal.SIGTERM):
        from wsolbench import sweep as sweeps  # noqa: PLC0415  imports torch

    return sweeps.read(path, settings, weights, seeds)


def _asked(given: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """What the flags say of a job's resources."""
    asked = {name: given[name] for name in resources.NAMES if given.get(name) is not None}
    return {**asked, **({"additional_parameters": dict(more)} if more else {})}


def _retried(text: str | None) -> list[str] | None:
    if text is None:
        return None
    wanted = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := [word for word in wanted if word not in RETRIES]:
        raise InputError(f"--retry knows {', '.join(RETRIES)}, not {', '.join(map(repr, unknown))}")
    return wanted


def _counts(plan: "Sweep", found: Store) -> str:
    counts = Counter(found.state(trial.id) for trial in plan.trials)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{plan.name}: {len(plan.trials)} trials: {states}"


def _on_cluster(plan: "Sweep", place: Place, wish: Wish, dry_run: bool) -> NoReturn:
    """Submit, or show what would be; ends the command."""
    planned = _clusters.planned(plan, place, wish)
    seen = planned.look()
    say(f"{plan.name}: {len(planned.trials)} trials: {planned.counts()}, {len(planned.wanted())} to submit")
    if dry_run:
        say(_clusters.cost(planned), *filter(None, (seen.silent,)))
        _clusters.show(planned, wish.most)
        raise typer.Exit(0)
    if seen.queue is None:
        raise NoAnswerError(f"cannot submit: {seen.silent}")
    code, over = _clusters.run(planned, wish, lambda: _check_data(plan, place))
    if over and not _table(plan, place) and not code:
        code = INCOMPLETE
    raise typer.Exit(code)


def _workers(results: Path, *, here: bool) -> AbstractContextManager["Crew | None"]:
    """Those that run trials here, if any are run: they start while this process plans."""
    if not here:
        return nullcontext()
    from wsolbench import crew  # noqa: PLC0415  imports submitit

    return crew.ahead(results)


def _here(
    plan: "Sweep",
    place: Place,
    where: Literal["local", "debug"],
    limits: tuple[list[str] | None, int | None],
    crew: "Crew | None",
) -> NoReturn:
    """Run what is missing; ends the command."""
    from wsolbench import launch  # noqa: PLC0415  imports torch

    retry, most = limits
    skipped = {state for word in RETRIES.keys() - set(RETRIES if retry is None else retry) for state in RETRIES[word]}
    trials = [trial for trial in plan.trials if Store(place.results).state(trial.id) not in skipped]
    _check_data(plan, place)
    with _progress() as show:
        progress = launch.launch(trials, place, where, most or launch.at_once(plan.trials, place), show, crew=crew)
    failed = {trial: how for trial, how in progress.ended.items() if how != "done"}
    for trial, how in failed.items():
        say(f"failed: {trial.id}: {how}", f"  log: {Store(place.results).path(trial.id, 'attempts')}")
    for trial, how in progress.left.items():
        say(f"left to the cluster: {trial.id}: {how}")
    complete = _table(plan, place) and not progress.left
    if complete and not failed:
        say(_next(plan, place))
    raise typer.Exit(FAILED if failed else 0 if complete else INCOMPLETE)


def _check_data(plan: "Sweep", place: Place) -> None:
    """Read each data set once before the first job: a wrong folder or protocol is told now, not by every job.

    Nor are results of other images taken for what the folder holds that the user names.
    """
    from wsolbench import images, job  # noqa: PLC0415  imports torch

    known, shared = Store(place.results), job.Shared({})
    records = {record["id"]: record for record in known.records()}
    scored = {name for name, record in records.items() if place.protocol in {None, *record["results"]}}
    notes: dict[str, None] = {}  # each once
    for trial in plan.trials:
        if trial.id not in scored:
            splits = shared.splits(trial, place)
            images.refuse_unheld(place, splits)
            notes |= dict.fromkeys(f"{trial.dataset}: {note}" for note in splits.test.notes)
    say(*notes)
    if place.data is not None:
        done = (trial for trial in plan.trials if trial.id in records)
        images.refuse_other_data(((records[trial.id], shared.splits(trial, place)) for trial in done), place)


def _next(plan: "Sweep", place: Place) -> str:
    """What to try after a sweep."""
    others = [name for name in shipped.names("sweeps") if name != plan.name]
    results = "" if place.results == Path("results") else f" --results {shlex.quote(str(place.results))}"
    return f"next: wsolbench sweep {others[0]}{results}" if others else f"next: wsolbench status{results}"


def _table(plan: "Sweep", place: Place) -> bool:
    """Print the table that a sweep fills, of its own trials only."""
    if plan.report is None:
        return True
    ids = {trial.id for trial in plan.trials}
    records = [row for row in store.rows(Store(place.results).outcomes(), place.protocol) if row["id"] in ids]
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
