"""`status`: what the files say of each trial."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from wsolbench import shipped, words
from wsolbench.console import Json, Pairs, Results, app, say
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
    say(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no trial")


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
