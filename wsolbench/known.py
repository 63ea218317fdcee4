"""Whether what a table's or a figure's file names is there: fields of trials, here or of any that could be; sweeps."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

from wsolbench import backbones, datasets, methods, plugins, shipped
from wsolbench.defaults import defaults
from wsolbench.documents import Document, Keys
from wsolbench.errors import Collecting, InputError, nearest
from wsolbench.protocols import METRICS
from wsolbench.store import COUNTED, DATA
from wsolbench.trial import FIELDS

NO_SETTINGS = {*METRICS, *COUNTED, "seed", "id", "stages", "test_images", "notes", "diverged"}
"""What a record says beside its settings: two records that differ in nothing else are of one cell."""

EVERY_THRESHOLD = "every_threshold"
"""As the field on a figure's x: the thresholds from 0 to 100 % at which accuracy is stored."""

_FACTS = {*FIELDS, *NO_SETTINGS, "protocol", DATA, EVERY_THRESHOLD}


def unknown(document: Document, records: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence with file and line for each field that no trial has and each sweep that is not here.

    Args:
        document: of a table or a figure, whose values are of the right kinds.
        records: one per finished trial; a trial may also have the options of any method, backbone and data set.
    """
    named = list(_named(document.data))
    there = _FACTS.union(*records)
    there |= _options({name for key, _, name in named if key != "sweep"} - there)
    found: list[str] = []
    for key, keys, name in named:
        problems: list[str] = []
        with Collecting(problems):
            if key == "sweep":
                shipped.find("sweeps", name)
            elif name not in there:
                hint = nearest(name, there) or "; there are those of `wsolbench list fields` and `list methods NAME`"
                raise InputError(f"no trial has a field or option {name!r}{hint}")
        found += [f"{document.where(*keys)}: {problem}" for problem in problems]
    return found


def _named(data: Any, keys: Keys = ()) -> Iterator[tuple[str, Keys, str]]:
    """The names of fields and sweeps in a file: the key that each stands under, all keys that lead to it, itself."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        place = (*keys, key)
        if key in {"where", "compare_to", "baseline"}:
            yield from ((key, (*place, name), name) for name in value or ())
        elif key in {"per", "caption"}:
            yield from ((key, (*place, number), name) for number, name in enumerate(value))
        elif key in {"below", "beside", "field", "sweep"}:
            yield from [(key, place, value)] if value else []
        else:
            yield from _named(value, place)


def _options(wanted: set[str]) -> set[str]:
    """The options of plug-ins, until all that are wanted are among them; all wanted where one cannot be read."""
    found: set[str] = set()
    for package, name in ((kind, name) for kind in (methods, datasets, backbones) for name in plugins.names(kind)):
        if wanted <= found:  # to read all may import torch
            break
        try:
            found.update(_options_of(package, name))
        except InputError:
            return wanted
    return found


def _options_of(package: ModuleType, name: str) -> Iterable[str]:
    with suppress(InputError):
        return defaults(package, name)
    return plugins.option_names(package, plugins.example(package, name))  # a file of many variants
