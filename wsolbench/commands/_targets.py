"""The trials that `status` and `cancel` are asked about, and the queue they are looked up in."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsolbench import claims, shipped, watch, words
from wsolbench.store import Store

HELP = "a sweep's file or name, or a trial's id, or how it begins"


def trials(target: str, pairs: Iterable[str] | None, found: Store) -> dict[str, dict[str, Any]]:
    """The specifications of a sweep's trials, or of the one whose id begins so, where no sweep is called so."""
    is_sweep = Path(target).is_file() or target in shipped.names("sweeps")
    if not (pairs or is_sweep) and any(known.startswith(target) for known in found.ids()):
        name = found.whole(target)
        return {name: found.spec(name)}
    from wsolbench import sweep as sweeps  # noqa: PLC0415  imports torch

    with words.asked(pairs, found.folder) as (settings, place):
        plan = sweeps.read(shipped.find("sweeps", target), settings, place.weights)
    return {trial.id: trial.spec() for trial in plan.trials}


def queue(found: Store, ids: Iterable[str]) -> watch.Cluster:
    """The queue is asked only where something was submitted."""
    if any(claims.newest(found, name) for name in ids):
        return watch.ask(found)
    return watch.Cluster(None, "", time.time())
