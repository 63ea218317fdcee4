"""The trials that `status` and `cancel` are asked about, and the queue they are looked up in."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsolbench import claims, shipped, watch, words
from wsolbench.errors import InputError, nearest
from wsolbench.store import Store

HELP = "a sweep's file or name, or a trial's id, or how it begins"


def trials(target: str, pairs: Iterable[str] | None, found: Store) -> dict[str, dict[str, Any]]:
    """The specifications of a sweep's trials, or of the one whose id begins so, where no sweep is called so."""
    if not pairs and not _is_sweep(target) and any(known.startswith(target) for known in found.ids()):
        name = found.whole(target)
        return {name: found.spec(name)}
    with words.asked(pairs, found.folder) as (settings, place):
        path = _sweep(target, found)
        from wsolbench import sweep as sweeps  # noqa: PLC0415  imports torch

        plan = sweeps.read(path, settings, place.weights)
    return {trial.id: trial.spec() for trial in plan.trials}


def _is_sweep(target: str) -> bool:
    return Path(target).is_file() or target in shipped.names("sweeps")


def _sweep(target: str, found: Store) -> Path:
    """A sweep's file; `InputError` has both what sweeps and what trials there are."""
    if _is_sweep(target):
        return shipped.find("sweeps", target)
    ids, sweeps = found.ids(), shipped.names("sweeps")
    if any(known.startswith(target) for known in ids):
        raise InputError(f"{target!r} is a trial, which has all settings already: leave the KEY=VALUE words out")
    near = nearest(Path(target).stem, [*sweeps, *ids]) or "."
    there = "; `wsolbench status` lists the trials" if ids else ""
    where = f"no sweep, and no trial in {str(found.folder)!r}, is called {target!r}{near}"
    raise InputError(f"{where} The sweeps are: {', '.join(sweeps)}{there}")


def queue(found: Store, ids: Iterable[str]) -> watch.Cluster:
    """The queue is asked only where something was submitted."""
    if any(claims.newest(found, name) for name in ids):
        return watch.ask(found)
    return watch.Cluster(None, "", time.time())
