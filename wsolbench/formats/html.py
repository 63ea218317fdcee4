"""HTML: a page of its own, or a fragment of a larger one."""

from collections.abc import Callable
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

from wsolbench.table import SPREAD, Heading, Report, Table, legible, seeds_of, sentences

if TYPE_CHECKING:
    from jinja2 import Environment

Link = Callable[[str], str | None]
"""The address of the trial with an id; None where it has no page."""


def render(report: Report) -> str:
    """The report as a page that needs nothing else and runs no script."""
    return _environment().get_template("page.html").render(report=report, table=fragment, sentences=sentences)


def fragment(table: Table, link: Link = lambda _: None, *, sortable: bool = False) -> str:
    """A table as `<table>` with its caption and notes, for a page of one's own.

    Cells of numbers have the number as it is in `data-v`, those without one have none; columns are of class `number`.

    Args:
        table: what is shown.
        link: where each trial is.
        sortable: put the headings into buttons, for a script that sorts by `data-v`.
    """
    return _environment().get_template("table.html").render(table=table, link=link, sortable=sortable)


@cache
def _environment() -> "Environment":
    made = environment("wsolbench.formats")
    made.globals |= {"groups": _groups, "seeds_of": seeds_of, "SPREAD": SPREAD}
    return made


def environment(package: str) -> "Environment":
    """What renders the templates of a package: every text is escaped, and an unknown name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  it costs every command 50 ms

    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        finalize=lambda value: legible(value) if type(value) is str else value,
    )


def _groups(headings: tuple[Heading, ...]) -> list[tuple[str, int]]:
    """The groups of the headings, each with its number of columns; none where no heading is in one."""
    found = [(group, len(list(members))) for group, members in groupby(headings, key=lambda heading: heading.group)]
    return found if any(group for group, _ in found) else []
