"""What the words KEY=VALUE of a command line ask for."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsolbench import documents, files, protocols
from wsolbench.errors import InputError
from wsolbench.place import Place

PLACE = ("data", "weights", "device", "workers", "protocol", "tensorboard")
"""Keys that say where a trial runs and what is asked of it, not what it is."""

_OF_RECORDS = ("weights", "protocol")  # keys of a place that records are chosen by too

MOST_SEEDS = 10_000
"""Of a sweep; more are a slip."""


def asked(pairs: Iterable[str] | None, results: Path) -> tuple[dict[str, Any], Place]:
    """The settings of trials, and the place where they run, that KEY=VALUE words ask for."""
    settings = values(pairs or ())
    place = {key: settings.pop(key) for key in PLACE if key in settings}
    if (weights := place.get("weights")) is not None and not _is_file(weights):
        settings["weights"] = place.pop("weights")
    for key in ("data", "weights", "tensorboard"):
        if key in place:
            place[key] = Path(str(place[key]))
    if "protocol" in place:
        protocols.protocol(str(place["protocol"]))
    workers = place.get("workers", 0)
    if type(workers) is not int or workers < 0:
        raise InputError(f"workers must be a number of processes, 0 or more, not {workers!r}")
    return settings, Place(results, **place)


def trial_filters(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that records must have, of the values of KEY=VALUE words; a weights file stands for its digest."""
    filters = {key: value for key, value in given.items() if key not in PLACE or key in _OF_RECORDS}
    if "protocol" in filters:
        protocols.protocol(str(filters["protocol"]))
    if Path(str(filters.get("weights"))).is_file():
        filters["weights"] = files.sha256(Path(str(filters["weights"])))
    return filters


def to_repeat(given: Mapping[str, Any]) -> dict[str, str]:
    """What of the place the commands repeat that fill a table."""
    return {key: str(given[key]) for key in ("data", "weights") if key in given}


def _is_file(weights: Any) -> bool:
    """Whether `weights` names a file, which must exist, and not `none`, `imagenet` or a digest."""
    text = str(weights)
    if Path(text).is_file():
        return True
    if Path(text).suffix or "/" in text:
        raise InputError(f"no weights file {text!r}; weights is none, imagenet, or a .safetensors, .pt or .pth file")
    return False


def split(text: str) -> list[str]:
    """The words of a text, as a shell splits it."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"{text!r} is not KEY=VALUE words: {str(error).lower()}") from None


def values(pairs: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE words; a value is read as in YAML, an empty one counts as not given."""
    problems = []
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            problems.append(f"{pair!r} is no KEY=VALUE, such as epochs=2")
        elif key in found:
            problems.append(f"{key} is given twice")
        elif value:
            found[key] = documents.scalar(value)
    if problems:
        raise InputError(*problems)
    return found


def seeds(text: str | None) -> Sequence[int] | None:
    """The seeds that `0-4` or `0,1,2` means; None for none given."""
    if text is None:
        return None
    try:
        first, dash, last = text.partition("-")
        found: Sequence[int] = [int(seed) for seed in text.split(",")] if not dash else range(int(first), int(last) + 1)
    except ValueError:
        found = ()
    if isinstance(found, range) and found.stop - found.start > MOST_SEEDS:
        raise InputError(f"--seeds {text} are more than {MOST_SEEDS:,} seeds")
    if not found:
        raise InputError(f"--seeds must be like 0-4 or 0,1,2, not {text!r}")
    return found
