"""What the words KEY=VALUE of a command line ask for."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from wsolbench import documents, files, protocols
from wsolbench.errors import Collecting, InputError, Problem
from wsolbench.place import Device, Place

DEVICES: tuple[str, ...] = get_args(Device)

PLACE: Mapping[str, str] = {
    "data": "FOLDER",
    "weights": "FILE",
    "device": "|".join(DEVICES),
    "workers": "N",
    "protocol": "NAME",
    "tensorboard": "FOLDER",
}
"""Keys that say where a trial runs and what is asked of it, not what it is; each with what it is given."""

_OF_RECORDS = ("weights", "protocol")  # keys of a place that records are chosen by too

MOST_SEEDS = 10_000
"""Of a sweep; more are a slip."""


@contextmanager
def asked(pairs: Iterable[str] | None, results: Path) -> Iterator[tuple[dict[str, Any], Place]]:
    """The settings of trials, and the place where they run, that KEY=VALUE words ask for.

    What is wrong with the words is told after the block, with what the block finds wrong with the settings.
    """
    problems: list[str] = []
    settings = _read(pairs or (), problems)
    place = _place(settings, problems)
    told = {problem.key for problem in problems if isinstance(problem, Problem)}
    found: list[str] = []
    with Collecting(found):
        yield settings, Place(results, **place)
    problems += [each for each in found if not (isinstance(each, Problem) and each.key in told)]
    if problems:
        raise InputError(*dict.fromkeys(problems))


def _place(settings: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """The fields of a place, taken out of the settings; one that cannot be is left out, and a problem more."""
    place = {key: settings.pop(key) for key in PLACE if key in settings}
    if "weights" in place and not _is_path(place["weights"]):
        settings["weights"] = place.pop("weights")
    for key in ("data", "weights", "tensorboard"):
        if key in place:
            place[key] = Path(str(place[key]))
    wrong = dict(_wrong(place))
    problems += [Problem(sentence, key) for key, sentence in wrong.items()]
    return {key: value for key, value in place.items() if key not in wrong}


def _wrong(place: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys of a place whose value cannot be, each with why."""
    if "data" in place and not place["data"].is_dir():
        yield "data", f"no folder {str(place['data'])!r}; data is the folder of the data set"
    if "weights" in place and not place["weights"].is_file():
        kinds = "none, imagenet, or a .safetensors, .pt or .pth file"
        yield "weights", f"no weights file {str(place['weights'])!r}; weights is {kinds}"
    if (device := place.get("device", "auto")) not in DEVICES:
        yield "device", f"device must be auto, cpu or cuda, not {device!r}"
    workers = place.get("workers", 0)
    if type(workers) is not int or workers < 0:
        yield "workers", f"workers must be a number of processes, 0 or more, not {workers!r}"
    try:
        protocols.protocol(str(place.get("protocol", protocols.DEFAULT)))
    except InputError as error:
        yield "protocol", str(error)


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


def _is_path(weights: Any) -> bool:
    """Whether `weights` names a file, there or not, and not `none`, `imagenet` or a digest."""
    path = Path(str(weights))
    return weights is None or path.is_file() or bool(path.suffix) or "/" in str(weights)


def split(text: str) -> list[str]:
    """The words of a text, as a shell splits it."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"{text!r} is not KEY=VALUE words: {str(error).lower()}") from None


def values(pairs: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE words; a value is read as in YAML, an empty one counts as not given."""
    problems: list[str] = []
    found = _read(pairs, problems)
    if problems:
        raise InputError(*problems)
    return found


def _read(pairs: Iterable[str], problems: list[str]) -> dict[str, Any]:
    """As `values`; what is wrong is added to the problems, and a setting that cannot be read counts as given."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            problems.append(f"{pair!r} is no KEY=VALUE, such as epochs=2")
        elif key in found:
            problems.append(f"{key} is given twice")
        elif value:
            try:
                found[key] = documents.scalar(value)
            except InputError as error:
                found |= {} if key in PLACE else {key: value}
                problems += [Problem(f"{key}: {problem}", key) for problem in error.problems]
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
