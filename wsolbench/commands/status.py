"""`status`, `logs`, `cancel`: what trials do, and how to end it."""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from wsolbench import claims, cluster, shipped, trial, watch, words
from wsolbench.attempts import here, running_here
from wsolbench.console import INCOMPLETE, Json, Pairs, Results, app, confirm, say
from wsolbench.errors import InputError
from wsolbench.store import Store
from wsolbench.watch import AT_WORK, Standing

_STATUS = {"id": 12, "state": 11, "epoch": 5, "epochs": 6, "loss": 8, "left": 6, "job": 1, "trial": 1, "note": 1}
Target = Annotated[str | None, typer.Argument(help="a sweep's file or name, or a trial's id")]


@app.command()
def status(
    target: Target = None,
    pairs: Pairs = None,
    results: Results = Path("results"),
    keep_on: Annotated[bool, typer.Option("--watch", help="look again every 10 s, until nothing is at work")] = False,
    as_json: Json = False,
) -> None:
    """What the files and the cluster's queue say of each trial: state, epochs, time left, job, note."""
    found = Store(results)
    ids = _targets(target, pairs, found)
    while True:
        lines = _lines(found, ids)
        if ids == [target]:
            lines[0]["parameter_groups"] = (found.record(ids[0]) or {}).get("parameter_groups", [])
        if keep_on and sys.stdout.isatty():
            print("\033[H\033[2J", end="")
        _print(lines, as_json)
        counts = Counter(line["state"] for line in lines)
        say(_summary(counts, lines))
        if not keep_on or not AT_WORK & counts.keys():
            raise typer.Exit(INCOMPLETE if counts["broken"] + counts["unreadable"] else 0)
        time.sleep(cluster.POLL)


def _print(lines: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(lines), flush=True)
        return
    for line in lines:
        shown = {**line, "left": "" if line["left"] is None else watch.span(line["left"])}
        print("  ".join(f"{shown[key]!s:{width}}" for key, width in _STATUS.items()).rstrip())
        for group in line.get("parameter_groups", ()):
            print(f"  {group['group']:10} {group['parameters']:>11,} parameters at learning rate {group['lr']:g}")
    sys.stdout.flush()


def _summary(counts: Counter[str], lines: Sequence[Mapping[str, Any]]) -> str:
    """How many are in which state, and how long all that are at work will take, as many at a time as run now."""
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no trial"
    left = [line["left"] for line in lines if line["left"] is not None and line["state"] in AT_WORK]
    at_once = counts["running"]
    return f"{said}; about {watch.span(max(sum(left) / at_once, *left))} left" if left and at_once else said


def _targets(target: str | None, pairs: Iterable[str] | None, found: Store) -> list[str]:
    if target is None or (target in found.ids() and not pairs):
        return found.ids() if target is None else [target]
    settings, place = words.asked(pairs, found.folder)
    from wsolbench import sweep as sweeps  # noqa: PLC0415  imports torch

    plan = sweeps.read(shipped.find("sweeps", target), settings, place.weights)
    return [trial.id for trial in plan.trials]


def _lines(found: Store, ids: Iterable[str]) -> list[dict[str, Any]]:
    """A line for each trial; finished ones are taken from the index of the records, others joined with the queue."""
    known = found.index()
    finished = dict(zip(known.ids, known.records(), strict=True))
    others = [name for name in ids if name not in finished]
    standings = watch.standings(found, others, _asked(found, others))
    measured: dict[str, list[float]] = {}
    for record in finished.values():
        if seconds := record.get("last_epoch", {}).get("seconds"):
            measured.setdefault(_like(record["trial"]), []).append(seconds)
    why = known.broken | known.unreadable
    lines = []
    for name in ids:
        if name in finished:
            lines.append(_finished(finished[name]))
        else:
            lines.append(_unfinished(found, name, standings[name], measured))
    return [{**line, "note": why.get(line["id"], line["note"])} for line in lines]


def _asked(found: Store, ids: Iterable[str]) -> watch.Cluster:
    """The queue is asked only where something was submitted."""
    if any(claims.newest(found, name) for name in ids):
        return watch.ask(found)
    return watch.Cluster(None, "", time.time())


def _like(spec: Mapping[str, Any]) -> str:
    """Trials of which this is equal take about the same time for an epoch."""
    return " ".join(str(spec.get(key)) for key in ("dataset", "backbone", "method", "image_size"))


def _finished(record: Mapping[str, Any]) -> dict[str, Any]:
    return _line(record["id"], Standing("done"), record["trial"], record.get("last_epoch", {}), None)


def _unfinished(found: Store, name: str, standing: Standing, measured: Mapping[str, list[float]]) -> dict[str, Any]:
    spec, last = found.spec(name), (found.epochs(name) or [{}])[-1]
    left = watch.remaining(found, name, measured.get(_like(spec), ()))
    if not standing.note and (attempts := found.attempts(name)):
        standing = Standing(standing.state, attempts[-1].exit().get("message", ""), standing.job, standing.node)
    return _line(name, standing, spec, last, left)


def _line(
    trial_id: str, standing: Standing, spec: Mapping[str, Any], last: Mapping[str, Any], left: float | None
) -> dict[str, Any]:
    return {
        "id": trial_id,
        "state": standing.state,
        "epoch": last.get("epoch", 0),
        "epochs": spec.get("epochs", "?"),
        "loss": round(last["loss"], 4) if last else "",
        "left": left,
        "job": standing.job,
        "node": standing.node,
        "trial": trial.words(spec),
        "note": standing.note,
    }


# Logs


@app.command()
def logs(
    trial_id: Annotated[str, typer.Argument(metavar="TRIAL", help="a trial's id, or how it begins")],
    results: Results = Path("results"),
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="go on as it grows, until the trial has ended")
    ] = False,
) -> None:
    """Print what the last job and attempt of a trial wrote."""
    found = Store(results)
    name = _one(found, trial_id)
    shown: dict[Path, int] = {}
    while True:
        over = found.state(name) not in {"new", "running", "preempted"}  # before the last look: nothing is missed
        for path in _logs(found, name):
            _print_new(path, shown)
        if not follow or over:
            break
        time.sleep(1)
    if not any(shown.values()):
        say(f"trial {name} has written nothing yet: `wsolbench status {name}` says why")
        raise typer.Exit(INCOMPLETE)


def _one(found: Store, beginning: str) -> str:
    fitting = [name for name in found.ids() if name.startswith(beginning)]
    if len(fitting) != 1:
        count = f"{len(fitting)} trials" if fitting else "no trial"
        raise InputError(f"{count} in {found.folder} begin with {beginning!r}; `wsolbench status` lists them")
    return fitting[0]


def _logs(found: Store, name: str) -> Iterator[Path]:
    claim = claims.newest(found, name)
    if claim is not None and (stem := claim.job().get("log")):
        yield from (found.folder / f"{stem}{ending}" for ending in (".out", ".err"))
    for attempt in found.attempts(name)[-1:]:
        yield attempt.folder / "log.txt"


def _print_new(path: Path, shown: dict[Path, int]) -> None:
    """Print what a file has got since the last look, under its name where it is not the one shown last."""
    if not path.exists() or path.stat().st_size <= shown.get(path, 0):
        return
    with path.open("rb") as file:
        file.seek(shown.get(path, 0))
        content = file.read()
    if path not in shown or list(shown)[-1] != path:
        print(f"==> {path} <==")
    shown[path] = shown.pop(path, 0) + len(content)
    print(content.decode(errors="replace"), end="", flush=True)


# Cancelling


@app.command()
def cancel(
    target: Annotated[str, typer.Argument(help="a sweep's file or name, or a trial's id")],
    pairs: Pairs = None,
    results: Results = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="only list them")] = False,
) -> None:
    """End the jobs of a sweep or a trial, in the queue and on this machine; checkpoints stay."""
    found = Store(results)
    ids = _targets(target, pairs, found)
    standings = watch.standings(found, ids, _asked(found, ids))
    jobs = {name: s for name, s in standings.items() if s.state in AT_WORK and s.job}
    processes = _processes(found, [name for name in ids if name not in jobs])
    for name in ids:
        if name in jobs or name in processes:
            what = jobs[name].job if name in jobs else f"process {processes[name]}"
            print(f"{name}  {standings[name].state:10}  {what}  {trial.words(found.spec(name))}")
    if not jobs and not processes:
        say("nothing of it is at work")
        return
    if dry_run:
        return
    confirm(f"cancel {len(jobs) + len(processes)} trials?", yes=yes)
    cluster.cancel(jobs)
    for process in set(processes.values()):
        os.kill(process, signal.SIGTERM)
    say(f"cancelled {len(jobs) + len(processes)}; `wsolbench sweep --retry cancelled` submits cancelled jobs again")


def _processes(found: Store, ids: Iterable[str]) -> dict[str, int]:
    """The processes of this machine that run trials, by trial."""
    running = {}
    for name in ids:
        for attempt in found.attempts(name)[-1:]:
            meta = attempt.meta()
            if not attempt.exit() and meta.get("host") == here()["host"] and running_here(meta):
                running[name] = int(meta["pid"])
    return running
