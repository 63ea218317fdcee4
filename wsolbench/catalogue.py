"""What there is: plug-ins with their options, sweeps, reports and figures."""

from dataclasses import MISSING, fields
from inspect import getdoc
from pathlib import Path
from types import ModuleType
from typing import Any

from wsolbench import plugins, recipe, shipped
from wsolbench.errors import InputError


def everything() -> dict[str, dict[str, str]]:
    """By heading: name -> one line about it."""
    kinds = recipe.KINDS.items()
    found = {f"{kind}s": {name: _plugin(package, name) for name in plugins.names(package)} for kind, package in kinds}
    for kind in shipped.KINDS:
        found[kind] = {name: _first_line(shipped.find(kind, name)) for name in shipped.names(kind)}
    return found


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
    summary = (getdoc(plugins.load(package, name)) or "").partition("\n")[0]
    return f"{summary} [{line}]"


def _option(field: Any) -> str:
    return field.name if field.default is MISSING else f"{field.name}={field.default}"


def _first_line(path: Path) -> str:
    """The comment that a file begins with."""
    text = path.read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("# ") if text.startswith("#") else ""
