"""What all commands share: the application, the options they have in common, how they speak, what they exit with."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from wsolbench import words
from wsolbench.errors import InputError
from wsolbench.trial import unknown_keys

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

_SETTINGS = f"fields of a trial and options of its data set, backbone and method; and {', '.join(words.PLACE)}"
Pairs = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help=_SETTINGS, show_default=False)]
Results = Annotated[Path, typer.Option(envvar="WSOLBENCH_RESULTS", help="folder of the results")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]

MOST_PROBLEMS = 50
FAILED, USAGE, INCOMPLETE, ENVIRONMENT, INTERRUPTED = 1, 2, 3, 4, 130


def say(*lines: str) -> None:
    """Tell the user, on stderr."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def say_problems(problems: Sequence[str]) -> None:
    """Tell what is wrong, on stderr: all of it, as far as anybody reads."""
    more = len(problems) - MOST_PROBLEMS
    say(*(f"error: {problem}" for problem in problems[:MOST_PROBLEMS]), *([f"and {more:,} more"] if more > 0 else []))


def print_metrics(heading: Mapping[str, Any], metrics: Mapping[str, float], as_json: bool) -> None:
    """What was measured, after what it was measured of; as a line each or as JSON."""
    if as_json:
        print(json.dumps({**heading, "metrics": metrics}))
        return
    for name, value in heading.items():
        print(f"{name:20} {value}")
    for name, value in metrics.items():
        print(f"{name:20} {value:6.2f}")


def refuse_others(pairs: Iterable[str] | None, known: Iterable[str]) -> None:
    """Refuse KEY=VALUE words that a command has no use for."""
    if unknown := unknown_keys(words.values(pairs or ()), known):
        raise InputError(*unknown)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is submitted or deleted; anything but yes ends the command.

    Raises:
        InputError: nobody is there to answer.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError(f"{question} nobody is there to answer: say it with --yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(INCOMPLETE)
