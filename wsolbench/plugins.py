"""One file is one thing: methods, backbones and data sets are found by their file's name."""

import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, ValidationError

from wsolbench.errors import InputError, Problem, nearest

OPTIONS = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""Options are strict: of the declared type, in range, and none unknown."""

Share = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Gt(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]

_ASKS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}
_LENGTHS = {"too_short": "at least", "too_long": "at most"}
_KINDS = {
    "bool": "true or false",
    "dataclass": "a mapping",
    "dict": "a mapping",
    "finite_number": "a finite number",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "string": "text",
    "tuple": "a list",
}


def names(package: ModuleType) -> list[str]:
    """What the package holds, found without importing it.

    Raises:
        InputError: a folder that its variable names, such as `WSOLBENCH_METHODS`, is not there.
    """
    if missing := [folder for folder in package.__path__ if not Path(folder).is_dir()]:
        variable = f"WSOLBENCH_{package.__name__.rpartition('.')[2].upper()}"
        raise InputError(*(f"{variable} names {folder!r}, which is no folder" for folder in missing))
    return sorted({m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")})


def family(name: str) -> str:
    """What of a name is that of a file: what stands before a colon, if there is one."""
    return name.partition(":")[0]


def load(package: ModuleType, name: str) -> ModuleType:
    """The module of `name`; an unknown name is an `InputError` that lists the known ones."""
    name = family(name)
    module = f"{package.__name__}.{name}"
    if (loaded := sys.modules.get(module)) is not None:
        return loaded
    if name not in (known := names(package)):
        hint = nearest(name, known) or "."
        there = ", ".join(known) or "none"
        raise InputError(Problem(f"no {kind(package)} {name!r}{hint} There are: {there}", kind(package)))
    try:
        return import_module(module)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{kind(package)} {name} cannot be imported: {type(error).__name__}: {error}") from error


@cache
def kind(package: ModuleType) -> str:
    """What one thing of the package is called: `method`, `backbone` or `dataset`."""
    return package.__name__.rpartition(".")[2].removesuffix("s")


def option_class(package: ModuleType, name: str) -> type[Any]:
    """The class that a plug-in's file declares, such as `METHOD = ADL`; its fields are the options.

    A class with a class variable `variant` stands for many: a name has a colon and the variant after the file's name.
    """
    cls = _declared(package, family(name))
    found = _of_variant(cls, name)
    if found is None:
        there = example(package, family(name))
        raise InputError(Problem(f"no {kind(package)} {name!r}, did you mean one such as {there!r}?", kind(package)))
    return found


def example(package: ModuleType, name: str) -> str:
    """A whole name of what the file `name` has: its own, or that of one variant."""
    return _example(_declared(package, name), name)


def _example(cls: type[Any], name: str) -> str:
    many = hasattr(cls, "variant") and all(field.name != "variant" for field in fields(cls))
    return f"{name}:{cls.variant}" if many else name


@cache
def _of_variant(cls: type[Any], name: str) -> type[Any] | None:
    """The class of a whole name; None if the name is too long or too short."""
    base, _, variant = name.partition(":")
    whole = _example(cls, base)
    if variant and whole != base:
        return type(cls.__name__, (cls,), {"variant": variant})
    return cls if name == whole else None


def _declared(package: ModuleType, name: str) -> Any:
    module = load(package, name)
    try:
        found = getattr(module, kind(package).upper())
    except AttributeError:
        raise InputError(f"{module.__file__} declares no {kind(package).upper()}, such as METHOD = ADL") from None
    if not (isinstance(found, type) and is_dataclass(found)):
        raise InputError(f"{module.__file__}: {kind(package).upper()} must be a dataclass, not {found!r}")
    return found


def option_names(package: ModuleType, name: str) -> list[str]:
    """The options of a plug-in, in the order they are declared."""
    return list(declared_names(option_class(package, name)))


def declared_names(cls: type[Any]) -> tuple[str, ...]:
    """The options that a class of `option_class` declares, in order."""
    return tuple(field.name for field in fields(cls))


def make(package: ModuleType, name: str, options: Mapping[str, Any]) -> Any:
    """The plug-in `name` with these options, its own defaults for the others.

    Raises `InputError` with every unknown, mistyped or out-of-range option.
    """
    cls = option_class(package, name)
    try:
        return cls(**{key: frozen(value) for key, value in options.items()})
    except ValidationError as error:
        known = ", ".join(option_names(package, name)) or "none"
        raise InputError(*explain(error, f"{name} has no option {{}}; it has: {known}")) from None


def frozen(value: Any) -> Any:
    """Lists as tuples, all the way down, and no -0.0: equal options are written alike."""
    if isinstance(value, (list, tuple)):
        return tuple(map(frozen, value))
    return value + 0.0 if isinstance(value, float) else value  # -0.0 + 0.0 is 0.0


def explain(error: ValidationError, unknown: str) -> list[Problem]:
    """A sentence for each thing pydantic refused; `unknown` is the sentence for a name that does not exist."""
    return [
        Problem(unknown.format(_path(detail["loc"])) if is_unknown(detail) else sentence(detail), str(detail["loc"][0]))
        for detail in error.errors()
    ]


def is_unknown(detail: Mapping[str, Any]) -> bool:
    """Whether pydantic refused a name, not a value."""
    return detail["type"] in {"unexpected_keyword_argument", "extra_forbidden"}


def sentence(detail: Mapping[str, Any]) -> str:
    """What is wrong with a value that pydantic refused, or that it lacks one."""
    key = _path(detail["loc"])
    match detail["type"]:
        case "missing" | "missing_argument":
            return f"{key} is missing"
        case "value_error":
            return str(detail["ctx"]["error"])
    return f"{key} must {_wanted(detail['type'], detail.get('ctx', {}))}, not {detail['input']!r}"


def _path(keys: Sequence[str | int]) -> str:
    """Where a value stands, such as `rows[0].method`."""
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return "".join(parts).removeprefix(".") or "the file"


def _wanted(refused: str, limits: Mapping[str, Any]) -> str:
    """What a value must be or have, by what pydantic calls its refusal."""
    match refused:
        case "literal_error":
            return f"be {limits['expected']}"
        case _ if refused in _ASKS:
            return f"be {_ASKS[refused]} {next(iter(limits.values())):g}"
        case _ if refused in _LENGTHS:
            count = limits.get("min_length", limits.get("max_length"))
            return f"have {_LENGTHS[refused]} {count} value{'s' * (count != 1)}"
    name = refused.removesuffix("_type").removesuffix("_parsing")
    return f"be {_KINDS.get(name, name.replace('_', ' '))}"
