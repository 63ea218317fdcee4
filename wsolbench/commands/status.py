"""`status`: what the files say of each trial."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from wsolbench import shipped, words
from wsolbench.console import INCOMPLETE, Json, Pairs, Results, app, say
from wsolbench.store import Store

_STATUS = {"id": 12, "state": 11, "epoch": 5, "epochs": 6, "loss": 8, "trial": 1, "note": 1}


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
    lines = _lines(found, ids)
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
    say(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no trial")
    raise typer.Exit(INCOMPLETE if counts["broken"] + counts["unreadable"] else 0)


def _targets(target: str | None, pairs: Iterable[str] | None, found: Store) -> list[str]:
    if target is None or (target in found.ids() and not pairs):
        return found.ids() if target is None else [target]
    settings, place = words.asked(pairs, found.folder)
    from wsolbench import sweep as sweeps  # noqa: PLC0415  imports torch

    plan = sweeps.read(shipped.find("sweeps", target), settings, place.weights)
    return [trial.id for trial in plan.trials]


def _lines(found: Store, ids: Iterable[str]) -> list[dict[str, Any]]:
    """A line for each trial; finished ones are taken from the index of the records."""
    known = found.index()
    finished = dict(zip(known.ids, known.records(), strict=True))
    why = known.broken | known.unreadable
    lines = [_finished(finished[name]) if name in finished else _status(found, name) for name in ids]
    return [{**line, "note": why.get(line["id"], line["note"])} for line in lines]


def _finished(record: Mapping[str, Any]) -> dict[str, Any]:
    return _line(record["id"], "done", record["trial"], record.get("last_epoch", {}), "")


def _status(found: Store, trial_id: str) -> dict[str, Any]:
    attempts = found.attempts(trial_id)
    last = (found.epochs(trial_id) or [{}])[-1]
    note = attempts[-1].exit().get("message", "") if attempts else ""
    return _line(trial_id, found.state(trial_id), found.spec(trial_id), last, note)


def _line(trial_id: str, state: str, spec: Mapping[str, Any], last: Mapping[str, Any], note: str) -> dict[str, Any]:
    words = [str(spec.get(key, "?")) for key in ("dataset", "backbone", "method")]
    options = [f"{key}={value}" for key, value in spec.get("method_options", {}).items() if key != "points"]
    return {
        "id": trial_id,
        "state": state,
        "epoch": last.get("epoch", 0),
        "epochs": spec.get("epochs", "?"),
        "loss": round(last["loss"], 4) if last else "",
        "trial": " ".join([*words, *options, f"seed={spec.get('seed', '?')}"]),
        "note": note,
    }
