"""What a user can put right."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Self, TypeVar

Given = TypeVar("Given")
Found = TypeVar("Found")


class Problem(str):
    """A sentence about one key of what a user gave."""

    __slots__ = ("key",)

    key: str

    def __new__(cls, sentence: str, key: str = "") -> Self:
        """The sentence, and the key it is about; empty if it is about none or many."""
        problem = super().__new__(cls, sentence)
        problem.key = key
        return problem


class InputError(ValueError):
    """A mistake in what a user gave; its text says what was given, what there is, and what to do.

    Args:
        problems: one sentence each, all of them at once.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that offers the known name most like `name`; empty if none is near."""
    close = get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Collecting:
    """Add the problems of an `InputError` to the list and go on after the block."""

    problems: list[str]

    def __enter__(self) -> None:
        """Nothing: a generator would take thrice as long, a dozen times for each of ten thousand trials."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        """Go on only where the error is the user's."""
        if not isinstance(error, InputError):
            return False
        self.problems.extend(error.problems)
        return True


def each(find: Callable[[Given], Found], given: Iterable[Given]) -> dict[Given, Found]:
    """What `find` makes of each of those given; one `InputError` has the problems of all."""
    found: dict[Given, Found] = {}
    problems: list[str] = []
    for one in given:
        with Collecting(problems):
            found[one] = find(one)
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return found
