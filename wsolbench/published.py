"""Numbers that others have published, each with its source and its protocol; only those read at a source."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from wsolbench import documents
from wsolbench.table import shown

Key = Literal["paper", "table", "dataset", "split", "backbone", "method", "config", "metric", "protocol"]
"""What a published number is asked for by."""

KEYS: tuple[str, ...] = get_args(Key)


@dataclass(frozen=True)
class Number:
    """A published number.

    Args:
        source: author and title, or repository and file.
        names: what it is of, by `KEYS`; an empty name stands for all.
        settings: fields and options of the trial, as far as the source says them.
        value: in the unit of its metric.
        second_hand: the source itself has it from elsewhere.
    """

    source: str
    names: Mapping[str, str]
    value: float
    second_hand: bool
    settings: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, names: Mapping[str, str], settings: Mapping[str, Any]) -> bool:
        """Whether it is of this: each name the same, each of its own settings too."""
        return all(self.names[key] in {"", name} for key, name in names.items()) and all(
            key in settings and shown(settings[key]) == shown(value) for key, value in self.settings.items()
        )

    @property
    def told(self) -> str:
        """Where it stands and how it was measured, for a note."""
        return f"{self.source}, {self.names['table']} (protocol {self.names['protocol']})"


@cache
def numbers() -> tuple[Number, ...]:
    """All there are, in the order of the file."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(_number(line) for line in csv.DictReader(file))


def _number(line: Mapping[str, str]) -> Number:
    return Number(
        source=line["source"],
        names={key: line[key] for key in KEYS},
        value=float(line["value"]),
        second_hand=line["status"] == "second-hand",
        settings=documents.scalar(line["settings"]) if line["settings"] else {},
    )
