"""The command line: data on stdout, messages on stderr.

Exit codes: 0 done, 1 failed, 2 usage, 3 incomplete, 4 environment, 130 interrupted.
"""

import errno
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from wsolbench import documents, files, protocols, shipped, store, words
from wsolbench.errors import InputError
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import unknown_keys

if TYPE_CHECKING:
    from wsolbench.launch import Progress
    from wsolbench.sweep import Sweep
    from wsolbench.verify import Report

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

_SETTINGS = (
    "fields of a trial and options of its data set, backbone and method; and data, weights, device, workers, protocol"
)
Pairs = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help=_SETTINGS, show_default=False)]
Results = Annotated[Path, typer.Option(envvar="WSOLBENCH_RESULTS", help="folder of the results")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]

_OF_INSPECTION = ("data", "weights", "device", "protocol")
_NOT_OF_TRIALS = ("data", "device", "workers")
FAILED, INCOMPLETE, ENVIRONMENT, INTERRUPTED = 1, 3, 4, 130
_NO_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.ENOENT}
"""What the system says where a file cannot be written there."""


def main() -> NoReturn:
    """Run the command line; mistakes of the user are told without a traceback."""
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns a KeyboardInterrupt into this
            _interrupted()
        raise
    except InputError as error:
        _say(*(f"error: {problem}" for problem in error.problems))
        sys.exit(2)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        _say(f"error: {error.filename or 'the disk'}: {error.strerror}")
        sys.exit(ENVIRONMENT)
    except KeyboardInterrupt:
        _interrupted()
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _interrupted() -> None:
    _say("interrupted; run the same command again to go on from the last checkpoints")


@app.command("list")
def list_(
    kind: Annotated[Literal["all", "methods", "backbones", "datasets", "sweeps", "reports"], typer.Argument()] = "all",
    as_json: Json = False,
) -> None:
    """What there is: methods, backbones and data sets with their options, sweeps, reports."""
    from wsolbench import catalogue  # noqa: PLC0415  imports torch

    found = catalogue.everything() if kind == "all" else {kind: catalogue.everything()[kind]}
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for heading, entries in found.items():
        print(heading)
        for name, line in entries.items():
            print(f"  {name:16} {line}".rstrip())


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
    _say(f"trial {trial.id}" + (": the stored result" if cached else f", {trial.epochs} epochs"))
    try:
        record = job.run(trial, place, lambda row: _say(_epoch_line(row, trial.epochs)))
    except loop.DivergedError as error:
        _say(f"failed: {error}")
        raise typer.Exit(FAILED) from None
    protocol = place.protocol or record["protocol"]
    heading = {"id": trial.id, "state": "done", "cached": cached, "protocol": protocol}
    _print_metrics(heading, record["results"][protocol], as_json)


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
    _say(_counts(plan, Store(results)))
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
        _say(f"failed: {trial.id}: {how}", f"  log: {Store(results).path(trial.id, 'attempts')}")
    complete = _table(plan, place)
    if complete and not failed:
        _say(_next(plan, place))
    raise typer.Exit(FAILED if failed else 0 if complete else INCOMPLETE)


@app.command()
def status(
    target: Annotated[str | None, typer.Argument(help="a sweep's file or name, or a trial's id")] = None,
    pairs: Pairs = None,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """What the files say of each trial: state, epochs, last loss, note."""
    found = Store(results)
    ids = _targets(target, pairs, found)
    lines = [_status(found, trial_id) for trial_id in ids]
    if ids == [target]:
        lines[0]["parameter_groups"] = (found.record(ids[0]) or {}).get("parameter_groups", [])
    if as_json:
        print(json.dumps(lines))
        return
    for line in lines:
        print("  ".join(f"{line[key]!s:{width}}" for key, width in _STATUS.items()).rstrip())
        for group in line.get("parameter_groups", ()):
            print(f"  {group['group']:10} {group['parameters']:>11,} parameters at learning rate {group['lr']:g}")
    counts = Counter(line["state"] for line in lines)
    _say(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no trial")


@app.command()
def report(
    file: Annotated[list[str], typer.Argument(metavar="FILE... [KEY=VALUE...]", help="tables, and which trials")],
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="folder for the markdown")] = Path("reports/out"),
) -> None:
    """The tables of reports/*.yaml from the finished trials, as markdown."""
    names = [word for word in file if "=" not in word]
    given = [word for word in file if "=" in word]
    filters = {key: value for key, value in words.values(given).items() if key not in _NOT_OF_TRIALS}
    if "protocol" in filters:
        protocols.protocol(str(filters["protocol"]))
    if Path(str(filters.get("weights"))).is_file():
        filters["weights"] = files.sha256(Path(str(filters["weights"])))
    if not names:
        raise InputError(f"name a report; there are: {', '.join(shipped.names('reports'))}")
    records = store.rows(Store(results).records(), filters.get("protocol"))
    complete = [_print_report(name, records, filters, (results, out)) for name in names]
    raise typer.Exit(0 if all(complete) else INCOMPLETE)


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
    _refuse_others(pairs, _OF_INSPECTION)
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
    _say(f"written: {target}")


@app.command()
def score(
    folder: Annotated[
        Path | None, typer.Argument(help="of .npy or .npz files named like the images, or an .npz of all")
    ] = None,
    dataset: Annotated[str, typer.Option(help="the data set the maps belong to")] = "",
    pairs: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE", help="of the data set")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="folder of the data set")] = None,
    split: Annotated[Literal["train", "held_out", "test"], typer.Option(help="which images")] = "test",
    protocol: Annotated[str, typer.Option(help="how a score map becomes a box, and a box a hit")] = protocols.UNHELD,
    space: Annotated[
        Literal["original", "input"], typer.Option(help="maps have the size of their image, or of a network's input")
    ] = "original",
    held_out: Annotated[
        Path | None, typer.Option(help="maps of the held-out images, if they are not in the same folder")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="of each class's training images is held out, unless others are")
    ] = 0.1,
    baseline: Annotated[Literal["whole", "centre", "random"] | None, typer.Option(help="instead of a folder")] = None,
    out: Annotated[Path | None, typer.Option(help="also write what is known of each image and class, as .npz")] = None,
    as_json: Json = False,
) -> None:
    """Score anybody's score maps against a data set's boxes and masks; they are never resized."""
    from wsolbench import datasets, plugins  # noqa: PLC0415  as below
    from wsolbench import score as scoring  # noqa: PLC0415  imports torch

    if folder is None and baseline is None:
        raise InputError("name a folder of score maps, or a --baseline")
    rule = protocols.protocol(protocol)
    found = plugins.make(datasets, dataset, words.values(pairs or ()))
    images = found.split(split, data)
    heading: dict[str, Any] = {"protocol": protocol, "images": len(images)}
    chosen_on = None
    if rule.threshold == "held_out":
        name, chosen_on = scoring.choosing(found, data, share)
        if name == split:
            raise InputError(f"{protocol} would choose its threshold on the images of {split}; score another --split")
        heading |= {"threshold_from": f"{len(chosen_on)} images of {name}"}
    if baseline is not None:
        scores = scoring.baseline(baseline, images, 224, rule, chosen_on)
    else:
        assert folder is not None  # noqa: S101  checked above
        maps_of = None if chosen_on is None else (held_out or folder, chosen_on)
        scores = scoring.score(folder, images, rule, space, maps_of)
    if out is not None:
        scoring.save(out, images, scores)
    _print_metrics(heading, scores.metrics, as_json)


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

    found = counting.overheads(path, only or (), Plan(**asked) if measure else None, _say)
    print(counting.FORMATS[form](found), end="")


data_app = typer.Typer(help="Look after data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


@data_app.command()
def verify(
    dataset: Annotated[str, typer.Argument(help="which data set")],
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="data=FOLDER, and its options")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a data set on disk: counts, sizes, boxes, splits, and that every image can be decoded."""
    from wsolbench import datasets, plugins  # noqa: PLC0415  they are not free
    from wsolbench import verify as checks  # noqa: PLC0415

    options = words.values(pairs or ())
    data = options.pop("data", None)
    found = checks.verify(plugins.make(datasets, dataset, options), None if data is None else Path(str(data)))
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        for line in _verified(found):
            print(line)
    for problem in found.problems:
        _say(f"problem: {problem}")
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


def _refuse_others(pairs: Iterable[str] | None, known: Iterable[str]) -> None:
    """Refuse KEY=VALUE words that a command has no use for."""
    if unknown := unknown_keys(words.values(pairs or ()), known):
        raise InputError(*unknown)


def _print_metrics(heading: Mapping[str, Any], metrics: Mapping[str, float], as_json: bool) -> None:
    if as_json:
        print(json.dumps({**heading, "metrics": metrics}))
        return
    for name, value in heading.items():
        print(f"{name:20} {value}")
    for name, value in metrics.items():
        print(f"{name:20} {value:6.2f}")


_STATUS = {"id": 12, "state": 11, "epoch": 5, "epochs": 6, "loss": 8, "trial": 1, "note": 1}


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
            _say(f"{trial.dataset}: {note}")


def _targets(target: str | None, pairs: Iterable[str] | None, found: Store) -> list[str]:
    if target is None or (target in found.ids() and not pairs):
        return found.ids() if target is None else [target]
    settings, place = words.asked(pairs, found.folder)
    from wsolbench import sweep as sweeps  # noqa: PLC0415  imports torch

    plan = sweeps.read(shipped.find("sweeps", target), settings, place.weights)
    return [trial.id for trial in plan.trials]


def _status(found: Store, trial_id: str) -> dict[str, Any]:
    attempts = found.attempts(trial_id)
    last = (found.epochs(trial_id) or [{}])[-1]
    spec = found.spec(trial_id)
    words = [str(spec.get(key, "?")) for key in ("dataset", "backbone", "method")]
    options = [f"{key}={value}" for key, value in spec.get("method_options", {}).items() if key != "points"]
    return {
        "id": trial_id,
        "state": found.state(trial_id),
        "epoch": last.get("epoch", 0),
        "epochs": spec.get("epochs", "?"),
        "loss": round(last["loss"], 4) if last else "",
        "trial": " ".join([*words, *options, f"seed={spec.get('seed', '?')}"]),
        "note": attempts[-1].exit().get("message", "") if attempts else "",
    }


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
    return _print_report(plan.report, records, {}, (place.results, Path("reports/out")))


def _print_report(
    name: str, records: list[dict[str, Any]], filters: Mapping[str, Any], folders: tuple[Path, Path]
) -> bool:
    """Print a table of the results in one folder and write its markdown to another; whether it is complete."""
    from wsolbench import report as reports  # noqa: PLC0415  `--help` does without

    results, out = folders
    path = shipped.find("reports", name)
    if "rows" in documents.read(path).data:
        raise InputError(f"{path} lists networks, not finished trials; `wsolbench overhead {path}` prints it")
    made = reports.report(reports.read(path), records, filters, str(results))
    print(reports.plain(made))
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{path.stem}.md"
    target.write_text(reports.markdown(made), encoding="utf-8")
    _say(f"written: {target}")
    return made.complete


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
                    _say(f"{words} {trial.id} {trial.method} seed={trial.seed}: {progress.ended[trial]}")

        yield show


def _epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    return f"epoch {row['epoch']}/{epochs}  loss {row['loss']:.4f}  {row['seconds']:.1f} s"


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)
