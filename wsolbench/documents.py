"""Strict YAML: what a file says, each value's line, and nothing read by surprise."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from wsolbench.errors import InputError, nearest
from wsolbench.plugins import is_unknown, sentence

# A person writes these files: what is larger is a slip or an attack, and is refused within a second.
DEEPEST = 32
MOST_NODES = 50_000
LONGEST_SCALAR = 100_000  # characters
LARGEST_FILE = 1_000_000  # bytes

Checked = TypeVar("Checked")
Keys = tuple[str | int, ...]

# The core schema of YAML 1.2 (section 10.3.2): 1e-4 is a number, `no` and 12:00:00 are text.
_CONSTANTS: Mapping[str, bool | None] = MappingProxyType(
    dict.fromkeys(("", "~", "null", "Null", "NULL"))
    | dict.fromkeys(("true", "True", "TRUE"), True)
    | dict.fromkeys(("false", "False", "FALSE"), False),
)
_INT = re.compile(r"[-+]?[0-9]+")
_BASED_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """What a YAML file says, as plain data, and where it says it."""

    path: Path
    data: Any
    lines: Mapping[Keys, int] = field(default_factory=dict, repr=False, compare=False)  # by the keys that lead there

    def where(self, *keys: str | int) -> str:
        """`file:line` of the value that these keys lead to, of the nearest one around it if there is none."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return f"{self.path}:{self.lines.get(keys, 1)}"


def read(path: Path) -> Document:
    """The document in the file `path`; raises `InputError` with every problem and its line."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)  # a device or a pipe does not say how much it has
        if len(content) > LARGEST_FILE:
            raise InputError(f"{path} has more than {LARGEST_FILE} bytes; it must be settings, not data: split it")
        text = content.decode()
    except FileNotFoundError:
        raise InputError(_missing(path)) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: byte {error.start}, {error.reason}") from None
    return parse(text, path)


def checked(document: Document, cls: type[Checked]) -> Checked:
    """The document as an object of `cls`, a dataclass of pydantic.

    Raises:
        InputError: every value that it does not take, each with file, line, key and what is allowed.
    """
    try:
        return TypeAdapter(cls).validate_python(document.data)
    except ValidationError as error:
        raise InputError(*(_refusal(document, cls, detail) for detail in error.errors())) from None


def _refusal(document: Document, cls: type[Any], detail: Mapping[str, Any]) -> str:
    keys = tuple(key for key in detail["loc"] if key != "[key]")  # a wrong key is where it stands
    where = document.where(*keys)
    if not is_unknown(detail):
        return f"{where}: {sentence({**detail, 'loc': keys})}"
    known = [each.name for each in fields(_class_at(cls, keys[:-1]))]
    return f"{where}: unknown key {keys[-1]!r}{nearest(str(keys[-1]), known) or '.'} There are: {', '.join(known)}"


def _class_at(cls: Any, keys: Keys) -> Any:
    """The class of what stands under these keys; that around it where it has none of its own."""
    for key in keys:
        inside = get_type_hints(cls).get(str(key)) if isinstance(key, str) else None
        cls = next((kind for kind in (inside, *get_args(inside)) if is_dataclass(kind)), cls)
    return cls


def parse(text: str, path: Path) -> Document:
    """The document in `text`; `path` is what messages call it."""
    data, lines = _Composer(text, lambda line: f"{path}:{line}").document()
    return Document(path, data, lines)


def scalar(text: str) -> Any:
    """The value of `key=value` on a command line: a number, true, false, null, [a, list], "quoted", else text."""
    if text.lstrip()[:1] in tuple("[{\"'!&*"):
        data, _ = _Composer(text, lambda _: repr(text)).document()
        return data
    try:
        return _plain(text.strip())
    except ValueError as error:
        raise InputError(f"{text!r}: {error}") from None


def _missing(path: Path) -> str:
    known = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    return f"no file {str(path)!r}{nearest(path.name, known)}"


def _plain(text: str) -> str | int | float | bool | None:
    """The value of a scalar that is not quoted."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return _decimal(text)
    if _BASED_INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return _finite(text)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is no finite number")
    return text


def _decimal(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python refuses thousands of digits
        raise ValueError(f"{text[:20]}... has {len(text)} digits, which is too many") from None


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


class _Composer:
    """Build plain data out of the parser's events and note what is refused, to be told all at once."""

    def __init__(self, text: str, place: Callable[[int], str]) -> None:
        self.text, self.place = text, place
        self.lines: dict[Keys, int] = {}
        self.problems: list[str] = []
        self.nodes = 0

    def document(self) -> tuple[Any, dict[Keys, int]]:
        """The data and the lines; raises `InputError`."""
        try:
            data = self._root()
        except InputError:
            raise
        except (ValueError, OverflowError, yaml.YAMLError) as error:  # chr() of an escape raises the first two
            raise InputError(*self.problems, self._syntax(error)) from None
        if self.problems:
            raise InputError(*self.problems)
        return data, self.lines

    def _root(self) -> Any:
        self.events = yaml.SafeLoader(self.text)  # the pure Python one, whose events carry lines
        self.events.get_event()
        if self.events.check_event(yaml.StreamEndEvent):
            return None
        self.events.get_event()
        data = self._value(())
        self.events.get_event()
        if not self.events.check_event(yaml.StreamEndEvent):
            self._refuse(self.events.peek_event(), "a second document begins; there must be one")
        return data

    def _value(self, keys: Keys) -> Any:
        self.lines.setdefault(
            keys, self._line(self.events.peek_event())
        )  # a mapping's value has its key's line already
        return self._node(keys)

    def _node(self, keys: Keys) -> Any:
        event = self.events.get_event()
        self._limits(event, keys)
        self._features(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(keys)
        return self._mapping(keys) if isinstance(event, yaml.MappingStartEvent) else None

    def _sequence(self, keys: Keys) -> list[Any]:
        items: list[Any] = []
        while not self.events.check_event(yaml.SequenceEndEvent):
            items.append(self._value((*keys, len(items))))
        self.events.get_event()
        return items

    def _mapping(self, keys: Keys) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not self.events.check_event(yaml.MappingEndEvent):
            event = self.events.peek_event()
            key = self._key(keys)
            place = (*keys, key)
            if key in items:
                self._refuse(event, f"repeated key {key!r}, first on line {self.lines[place]}")
            self.lines.setdefault(place, self._line(event))
            items[key] = self._value(place)
        self.events.get_event()
        return items

    def _key(self, keys: Keys) -> str:
        event = self.events.peek_event()
        key = self._node((*keys, "?"))
        if not isinstance(key, str):
            self._refuse(event, f"key {key!r} must be text; write it in quotes")
        return str(key)

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        try:
            # JSON writes what is beyond 16 bits as two escapes; one alone is no character.
            text = event.value.encode("utf-16", "surrogatepass").decode("utf-16")
            return text if event.style else _plain(text)
        except UnicodeDecodeError:
            self._refuse(event, "half of a surrogate pair is no character")
        except ValueError as error:
            self._refuse(event, str(error))
        return event.value

    def _features(self, event: yaml.NodeEvent) -> None:
        """Refuse what makes a file mean something other than it shows."""
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"alias *{event.anchor} is refused; write the value out")
        elif event.anchor is not None:
            self._refuse(event, f"anchor &{event.anchor} is refused; write the value out where it is needed")
        if (tag := getattr(event, "tag", None)) is not None:  # an alias has none
            self._refuse(event, f"tag {tag} is refused; write the plain value")

    def _limits(self, event: yaml.NodeEvent, keys: Keys) -> None:
        """Stop at once where going on costs time or memory."""
        self.nodes += 1
        too = {
            f"nested more than {DEEPEST} deep": isinstance(event, yaml.CollectionStartEvent) and len(keys) >= DEEPEST,
            f"more than {MOST_NODES} values; split the file": self.nodes > MOST_NODES,
            f"a text of more than {LONGEST_SCALAR} characters": len(getattr(event, "value", "")) > LONGEST_SCALAR,
        }
        for problem, holds in too.items():
            if holds:
                self._refuse(event, problem)
                raise InputError(*self.problems)

    def _refuse(self, event: yaml.Event, problem: str) -> None:
        self.problems.append(f"{self.place(self._line(event))}: {problem}")

    @staticmethod
    def _line(event: yaml.Event) -> int:
        return event.start_mark.line + 1 if event.start_mark else 1

    def _syntax(self, error: Exception) -> str:
        mark = getattr(error, "problem_mark", None)
        if mark is not None:
            return f"{self.place(mark.line + 1)}: {getattr(error, 'problem', error)}"
        line = self.text.count("\n", 0, getattr(error, "position", 0)) + 1
        return f"{self.place(line)}: {getattr(error, 'reason', error)}"
