"""The options of a plug-in with their defaults, read in its file: importing what it imports may take a second."""

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from wsolbench import plugins

_NO_OPTION = {"ClassVar", "InitVar", "KW_ONLY"}
"""What dataclasses take for something else than a field."""


def defaults(package: ModuleType, name: str) -> Mapping[str, Any]:
    """The options of a plug-in and their defaults; `MISSING` for one that must be given.

    A file that does not say all, such as one whose class is built on another of its kind, is imported all the same.

    Raises:
        InputError: there is no such plug-in, or it had to be imported and cannot be.
    """
    if name in plugins.names(package):
        with suppress(ValueError, SyntaxError, OSError):
            return _written(package, name)
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
    [wanted] = [ast.unparse(line.value) for line in tree.body if _assigns(line, kind.upper())]
    [base] = _imported(tree, f"wsolbench.{kind}", kind.capitalize())
    if wanted == base:
        return {}
    [found] = [line for line in tree.body if isinstance(line, ast.ClassDef) and line.name == wanted]
    if [ast.unparse(each) for each in found.bases] != [base]:
        raise ValueError
    return dict(option for line in found.body for option in _options(line))


def _assigns(line: ast.stmt, name: str) -> TypeGuard[ast.Assign]:
    return isinstance(line, ast.Assign) and [ast.unparse(target) for target in line.targets] == [name]


def _imported(tree: ast.Module, module: str, name: str) -> list[str]:
    """What a file calls a name of a module."""
    found = (line for line in tree.body if isinstance(line, ast.ImportFrom) and line.module == module)
    return [alias.asname or name for line in found for alias in line.names if alias.name == name]


def _options(line: ast.stmt) -> Iterator[tuple[str, Any]]:
    """The option that a line of a class declares; `ValueError` if it may do anything else."""
    match line:
        case ast.AnnAssign(ast.Name(name), kind, value) if _NO_OPTION.isdisjoint(re.findall(r"\w+", ast.unparse(kind))):
            yield name, MISSING if value is None else ast.literal_eval(value)
        case ast.FunctionDef() | ast.Expr(ast.Constant()):
            pass
        case _:
            raise ValueError
