"""The options of a plug-in with their defaults, read in its file: importing what it imports may take a second."""

import ast
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from wsolbench import plugins


def defaults(package: ModuleType, name: str) -> Mapping[str, Any]:
    """The options of a plug-in and their defaults; `MISSING` for one that must be given.

    A class that is built on others of its kind, or with defaults that are no plain values, is imported all the same.

    Raises:
        InputError: there is no such plug-in, or it cannot be imported.
    """
    family = plugins.family(name)
    if family in plugins.names(package):
        with suppress(ValueError, SyntaxError, OSError):
            return _written(package, family)
    return {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(plugins.option_class(package, name))
    }


def _written(package: ModuleType, name: str) -> dict[str, Any]:
    """The options in the words of the file; `ValueError` where they do not say all."""
    spec = find_spec(f"{package.__name__}.{name}")
    if spec is None or spec.origin is None:
        raise ValueError
    tree = ast.parse(Path(spec.origin).read_bytes())
    kind = plugins.kind(package)
    wanted, base = _assigned(tree, kind.upper()), _imported(tree, f"wsolbench.{kind}", kind.capitalize())
    if base and wanted == base:
        return {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == wanted and [ast.unparse(b) for b in node.bases] == [base]:
            return dict(map(_option, (line for line in node.body if isinstance(line, ast.AnnAssign))))
    raise ValueError


def _assigned(tree: ast.Module, name: str) -> str | None:
    """What a file assigns to a name, as it is written."""
    found = (node for node in tree.body if isinstance(node, ast.Assign))
    return next((ast.unparse(node.value) for node in found if ast.unparse(node.targets[0]) == name), None)


def _imported(tree: ast.Module, module: str, name: str) -> str | None:
    """What a file calls a name of a module."""
    found = (node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == module)
    return next((alias.asname or name for node in found for alias in node.names if alias.name == name), None)


def _option(line: ast.AnnAssign) -> tuple[str, Any]:
    if "ClassVar" in ast.unparse(line.annotation):
        raise ValueError
    return ast.unparse(line.target), MISSING if line.value is None else ast.literal_eval(line.value)
