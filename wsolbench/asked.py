"""What a user asked of a report, and the command that fills what it lacks."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsolbench.known import NO_SETTINGS
from wsolbench.selection import NOT_GIVEN
from wsolbench.store import DATA
from wsolbench.table import shown

_VARIABLES = {"dataset": "DATASET", "data": "DATA", "backbone": "BACKBONE", "weights": "WEIGHTS"}  # of the Makefile
_RESULTS = "results"  # where the commands look unless they are told


@dataclass(frozen=True)
class Asked:
    """What a user asked of a report.

    Args:
        results: what the user calls the place the records come from.
        filters: a field or option and its value; feature points may be `stages` or a slice such as `stages[-3:]`.
        place: `data` and `weights` as the user gave them; they are repeated in the commands that fill a table.
        paper: show the published numbers beside ours.
        quote: show the published numbers of the same protocol where there is none of ours.
        more: show the further columns of a table.
    """

    results: str = _RESULTS
    filters: Mapping[str, Any] = field(default_factory=dict)
    place: Mapping[str, str] = field(default_factory=dict)
    paper: bool = False
    quote: bool = False
    more: bool = False

    def command(self, sweep: str | None, settings: Mapping[str, Any], seeds: Iterable[int] = ()) -> str | None:
        """The call of make that runs the sweep with these settings and seeds; None where no sweep does."""
        if sweep is None:
            return None
        said = {**settings, **self.filters, **self.place}
        wanted = {name: value for name, value in said.items() if name not in {*NO_SETTINGS, DATA}}
        given = {name: shown(value) for name, value in wanted.items() if value != NOT_GIVEN}
        words = [f"sweep-{sweep}"]
        words += [
            f"{variable}={shlex.quote(given.pop(name))}" for name, variable in _VARIABLES.items() if name in given
        ]
        options = ["--results", self.results] if self.results != _RESULTS else []
        options += ["--seeds", _numbers(sorted(set(seeds)))] if seeds else []
        args = " ".join(map(shlex.quote, [*options, *(f"{name}={value}" for name, value in given.items())]))
        return " ".join(["make", *words, *([f"ARGS={shlex.quote(args)}"] if args else [])]).replace("$", "$$")


def _numbers(seeds: Sequence[int]) -> str:
    """`0-2` or `0,2`, as `sweep --seeds` reads them."""
    whole = 1 < len(seeds) == seeds[-1] - seeds[0] + 1
    return f"{seeds[0]}-{seeds[-1]}" if whole else ",".join(map(str, seeds))
