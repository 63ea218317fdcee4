"""`status`: what trials do."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from wsolbench import cluster, trial, watch
from wsolbench.commands import _targets
from wsolbench.console import INCOMPLETE, Json, Pairs, Results, app, say
from wsolbench.store import Store
from wsolbench.watch import AT_WORK, Standing

_STATUS = {"id": 12, "state": 11, "epoch": 5, "epochs": 6, "loss": 8, "left": 6, "job": 1, "trial": 1, "note": 1}


@app.command()
def status(
    target: Annotated[str | None, typer.Argument(help=_targets.HELP)] = None,
    pairs: Pairs = None,
    results: Results = Path("results"),
    keep_on: Annotated[bool, typer.Option("--watch", help="look again every 10 s, until nothing is at work")] = False,
    as_json: Json = False,
) -> None:
    """What the files and the cluster's queue say of each trial: state, epochs, time left, job, note.

    Of a sweep, with the words that began it, also the trials that have not begun; without a name, of all in the folder.
    """
    found = Store(results)
    named = {} if target is None else _targets.trials(target, pairs, found)
    ids = found.ids() if target is None else list(named)
    while True:
        lines = _lines(found, ids, named)
        if target and len(ids) == 1:
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
    """How many are in which state, and how long those at work and the new ones will take, so many at a time as now."""
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no trial"
    busy = [line["left"] for line in lines if line["left"] is not None and line["state"] in AT_WORK]
    new = [line["left"] for line in lines if line["state"] == "new"]
    at_once = counts["running"]
    if not busy or not at_once:
        return said

    def span(left: Sequence[float]) -> str:
        return watch.span(max(sum(left) / at_once, *left))

    more = f", {span([*busy, *new])} with the new ones" if new and None not in new else ""
    return f"{said}; about {span(busy)} left{more}"


def _lines(found: Store, ids: Iterable[str], named: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each trial; finished ones are taken from the index of the records, others joined with the queue.

    Args:
        found: the results.
        ids: of the trials.
        named: specifications that the user's words say, also of trials that the results do not know yet.
    """
    known = found.index()
    finished = dict(zip(known.ids, known.records(), strict=True))
    others = [name for name in ids if name not in finished]
    standings = watch.standings(found, others, _targets.queue(found, others))
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
            spec = named.get(name) or found.spec(name)
            lines.append(_unfinished(found, name, spec, standings[name], measured))
    return [{**line, "note": why.get(line["id"], line["note"])} for line in lines]


def _like(spec: Mapping[str, Any]) -> str:
    """Trials of which this is equal take about the same time for an epoch."""
    return " ".join(str(spec.get(key)) for key in ("dataset", "backbone", "method", "image_size"))


def _finished(record: Mapping[str, Any]) -> dict[str, Any]:
    return _line(record["id"], Standing("done"), record["trial"], record.get("last_epoch", {}), None)


def _unfinished(
    found: Store, name: str, spec: Mapping[str, Any], standing: Standing, measured: Mapping[str, list[float]]
) -> dict[str, Any]:
    last = (found.epochs(name) or [{}])[-1]
    left = watch.remaining(found, name, spec.get("epochs", 0), measured.get(_like(spec), ()))
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
