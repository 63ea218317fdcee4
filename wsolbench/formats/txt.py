"""Plain text for a terminal: best values between stars, or underscores where markdown has italics."""

from collections.abc import Mapping

from tabulate import SEPARATING_LINE, tabulate

from wsolbench.formats._document import Style
from wsolbench.table import Mark, Report, legible

_MARKS: Mapping[Mark, tuple[str, str]] = {"bold": ("*", "*"), "italic": ("_", "_"), "underline": ("=", "=")}


def render(report: Report) -> str:
    """The report as plain text."""
    return Style(legible, legible, _MARKS, "{}", "{}", _grid).document(report)


def _grid(headers: list[str], blocks: list[list[list[str]]]) -> str:
    rows = [row for number, block in enumerate(blocks) for row in ([SEPARATING_LINE] * bool(number) + block)]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=["right"] * len(headers))
