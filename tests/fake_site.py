"""A store with all that can stand on a site: finished, failed and broken trials, and names that would be markup."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsolbench import gallery
from wsolbench.asked import Asked
from wsolbench.dataset import Split
from wsolbench.place import Place
from wsolbench.site import build
from wsolbench.store import Store
from wsolbench.trial import Trial

HOSTILE = (
    "</td></table><script>window.PWNED = 1</script>",
    "<img src=x onerror='window.PWNED = 2'>",
    '" onmouseover="window.PWNED = 3" x="',
)
"""Names of three classes."""

METHOD = "<svg onload='window.PWNED = 4'>\N{RIGHT-TO-LEFT OVERRIDE}{{ 7 * 7 }}"
BACKBONE = "a|b & <b>tiny</b>"


def store(folder: Path, trained: tuple[Trial, Place, Mapping[str, Any]]) -> Store:
    """The finished trial, the same as one of hostile names, one that failed, and one whose record is torn."""
    trial, place, record = trained
    shutil.copytree(place.results, folder)
    found = Store(folder)
    results = {key: value for key, value in record.items() if key not in {"schema", "id", "trial", "digest"}}
    for seed, changes in enumerate([{"method": METHOD}, {"backbone": BACKBONE, "method": METHOD}], start=1):
        other = replace(trial, seed=seed, **changes)
        _finished(found, trial, other, results)
    failed = replace(trial, seed=7)
    found.add(failed)
    attempt = found.attempt(failed.id)
    attempt.begin({"commit": None})
    attempt.epoch({"epoch": 1, "loss": 2.5, "seconds": 1.0})
    attempt.end("failed", f"RuntimeError: {HOSTILE[0]}")
    torn = replace(trial, seed=8)
    found.add(torn)
    found.path(torn.id, "record.json").write_text('{"torn', encoding="utf-8")
    return found


def _finished(found: Store, trial: Trial, other: Trial, results: Mapping[str, Any]) -> None:
    found.add(other)
    attempt = found.attempt(other.id)
    attempt.begin({"commit": "abc"})
    for name, changes in {"predictions.npz": {"classes": np.array(HOSTILE)}, "scoremaps.npz": {}}.items():
        found.put_arrays(other.id, name, {**found.arrays(trial.id, name), **changes}, attempt.folder.name)
    metrics = {
        name: {key: value / (1 + other.seed) for key, value in of_one.items()} if name == "wsolbench" else of_one
        for name, of_one in results["results"].items()
    }
    found.put(other, {**results, "results": metrics, "notes": [HOSTILE[1]], "attempt": attempt.folder.name})


def site(out: Path, found: Store, data: Path | None, cards: int = 6, named: tuple[str, ...] = HOSTILE) -> build.Site:
    """Build it, with these names of classes."""
    read = gallery.test_split

    def renamed(trial: Mapping[str, Any], place: Place) -> Split:
        return replace(read(trial, place), classes=named)

    gallery.test_split, kept = renamed, read
    try:
        return build.build(out, Place(found.folder, data=data), Asked(str(found.folder)), cards, lambda _: None)
    finally:
        gallery.test_split = kept


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def said(page: Path) -> str:
    """The text of a file."""
    return page.read_text(encoding="utf-8")


def marker(folder: Path) -> dict[str, Any]:
    """What a site says of itself."""
    return json.loads((folder / build.MARKER).read_text(encoding="utf-8"))
