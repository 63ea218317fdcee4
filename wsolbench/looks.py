"""How methods look: the label, colour, marker and dash that each keeps in all figures."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Annotated

from annotated_types import Gt
from pydantic import StringConstraints, TypeAdapter
from pydantic.dataclasses import dataclass

from wsolbench import documents, methods, plugins


@dataclass(frozen=True)
class Look:
    """Told apart by colour, and without it by marker and dash."""

    colour: Annotated[str, StringConstraints(pattern="^#[0-9A-F]{6}$")]
    marker: str  # as matplotlib names it
    dash: tuple[Annotated[float, Gt(0)], ...]  # lengths of dashes and gaps in line widths; empty: solid
    label: str = ""  # what figures call the method


def looks(names: Iterable[str] = ()) -> dict[str, Look]:
    """The look of every method that there is here, and of `names`; no two share one as long as there are enough.

    Args:
        names: of methods that finished trials have, which may not be here any more.
    """
    named, others = _file()
    unnamed = sorted({*plugins.names(methods), *names} - named.keys())
    return {**named, **{name: replace(look, label=name) for name, look in zip(unnamed, cycle(others), strict=False)}}


def label(method: str) -> str:
    """What figures call a method."""
    named, _ = _file()
    return named[method].label if method in named else method


@cache
def _file() -> tuple[Mapping[str, Look], tuple[Look, ...]]:
    data = documents.read(Path(__file__).with_name("looks.yaml")).data
    named = TypeAdapter(dict[str, Look]).validate_python(data["methods"])
    return named, TypeAdapter(tuple[Look, ...]).validate_python(data["others"])
