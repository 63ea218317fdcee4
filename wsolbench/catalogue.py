"""What there is: plug-ins with their options, how score maps are made and judged, sweeps, reports and figures."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from wsolbench import documents, extract, plugins, protocols, recipe, shipped
from wsolbench.errors import InputError, nearest
from wsolbench.trial import FIELDS, Trial

GLOSSARY = Path(__file__).with_name("glossary.yaml")
_COMMENTED = re.compile(r"^    (\w+): .*  # (.*)$", re.MULTILINE)


def everything() -> dict[str, dict[str, str]]:
    """By heading: name -> one line about it."""
    plugged = recipe.KINDS.items()
    found = {f"{kind}s": {name: _plugin(package, name) for name in plugins.names(package)} for kind, package in plugged}
    found["fields"] = {name: line for name, line in _fields(Trial) if name in FIELDS}
    found["extract"] = {
        name: f"by torchcam's {cls}" if cls else "the method's own" for name, cls in extract.choices().items()
    }
    found["protocols"] = {name: _said(asdict(protocols.protocol(name))) for name in protocols.names()}
    found["metrics"] = dict(documents.read(GLOSSARY).data)
    for kind in shipped.KINDS:
        found[kind] = {name: _first_line(shipped.find(kind, name)) for name in shipped.names(kind)}
    return found


def about(kind: str, name: str) -> str:
    """All that is said of one thing of a heading; of a plug-in, what its class says and its options, a line each.

    Raises:
        InputError: there is no such thing.
    """
    package = recipe.KINDS.get(kind.removesuffix("s"))
    if package is None:
        known = everything()[kind]
        if name not in known:
            raise InputError(f"no {name!r} in {kind}{nearest(name, known) or '.'} There are: {', '.join(known)}")
        return known[name]
    cls = plugins.option_class(package, name if ":" in name else plugins.example(package, name))
    summary, said = inspect.getdoc(plugins.load(package, name)) or "", inspect.getdoc(cls) or ""
    options = [f"  {option:16} {line}".rstrip() for option, line in _fields(cls)]
    return "\n\n".join(filter(None, (summary, said, "\n".join(options))))


def _plugin(package: ModuleType, name: str) -> str:
    """Options with their defaults; for a backbone its feature points too."""
    try:
        whole = plugins.example(package, name)
    except InputError as error:
        return str(error)
    options = [_option(field) for field in fields(plugins.option_class(package, whole))]
    line = (f"such as {whole}; " if whole != name else "") + (", ".join(options) or "no options")
    if package is recipe.KINDS["backbone"]:
        line += f"; points: {' '.join(recipe.blueprint(whole, {}).points)}"
    summary = (inspect.getdoc(plugins.load(package, name)) or "").partition("\n")[0]
    return f"{summary} [{line}]"


def _option(field: Any) -> str:
    return field.name if field.default is MISSING else f"{field.name}={field.default}"


def _fields(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """A class's fields, with default and the comment beside each, which is where it is documented."""
    comments = _comments(cls)
    for field in fields(cls):
        default = "" if field.default is MISSING else f"by default {field.default}"
        yield field.name, "; ".join(filter(None, (default, comments.get(field.name, ""))))


def _comments(cls: type[Any]) -> Mapping[str, str]:
    """Of the fields that a class and those it is made from declare in a file."""
    found: dict[str, str] = {}
    for own in cls.__mro__:
        try:
            found = {**dict(_COMMENTED.findall(inspect.getsource(own))), **found}
        except (OSError, TypeError):  # made while running, or built in
            continue
    return found


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _first_line(path: Path) -> str:
    """The comment that a file begins with."""
    text = path.read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("# ") if text.startswith("#") else ""
