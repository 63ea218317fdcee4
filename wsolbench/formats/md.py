"""GitHub's markdown; names out of records are text there, never markup."""

import re
from collections.abc import Mapping

from tabulate import tabulate

from wsolbench.formats._document import Style
from wsolbench.table import Mark, Report, legible

_MARKS: Mapping[Mark, tuple[str, str]] = {
    "bold": ("**", "**"),
    "italic": ("*", "*"),
    "underline": ("<ins>", "</ins>"),  # GitHub shows it
}


def render(report: Report) -> str:
    """The report as markdown."""
    return Style(escaped, _code, _MARKS, "# {}", "## {}", _grid).document(report)


def escaped(text: str) -> str:
    """The text with nothing in it that markdown or HTML reads as markup."""
    # An underscore within a word, as in a field's name, is no emphasis.
    marked = re.sub(r"([\\`*~\[\]|]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", legible(text))
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    return f"`{text}`" if escaped(text) == text else escaped(text)  # nothing is escaped between backticks


def _grid(headers: list[str], blocks: list[list[list[str]]]) -> str:
    empty = [[""] * len(headers)]  # markdown has no rule between rows
    rows = [row for number, block in enumerate(blocks) for row in (empty * bool(number) + block)]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=["right"] * len(headers))
