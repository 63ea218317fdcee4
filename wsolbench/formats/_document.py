"""What markdown and plain text have in common: headings, paragraphs, a grid of texts, lists."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from wsolbench.table import SPREAD, Cell, Heading, Mark, Report, Row, Table, seeds_of, sentences


@dataclass(frozen=True)
class Style:
    """How a format writes text, commands, marks and titles, and what it lays a table out with.

    Args:
        text: escapes a text.
        command: shows a command.
        marks: what stands before and behind what is marked.
        title: with `{}` for the title of the report.
        name: with `{}` for the name of a table.
        grid: of headings and of the texts in the rows of each block.
    """

    text: Callable[[str], str]
    command: Callable[[str], str]
    marks: Mapping[Mark, tuple[str, str]]
    title: str
    name: str
    grid: Callable[[list[str], list[list[list[str]]]], str]

    def document(self, report: Report) -> str:
        """The whole report."""
        paragraphs = [self.title.format(self.text(report.title))]
        paragraphs += [sentences(self.text(report.note)), self._to_fill(report.commands)] if report.note else []
        for table in report.tables:
            paragraphs += self._paragraphs(table)
        return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"

    def _paragraphs(self, table: Table) -> list[str]:
        legend = ", ".join(self._marked(self.text(table.marks[mark]), [mark]) for mark in table.used_marks)
        headers = [*table.labels, *table.headers, *([] if table.one_n else ["n"])]
        blocks = [[self._texts(row, table) for row in block] for block in table.blocks]
        lacks = [f"- {self.text(f'{item.row}: {item.lack}')}" for item in table.missing]
        return [
            self.name.format(self.text(table.name)) if table.name else "",
            " ".join(filter(None, [self.text(table.caption), f"Marked: {legend}." if legend else ""])),
            self.grid([self.text(header) for header in headers], blocks),
            "\n".join(self.text(note) for note in table.notes),
            "\n".join(["Missing:", "", *lacks]) if lacks else "",
            self._to_fill(table.commands),
        ]

    def _to_fill(self, commands: Sequence[str]) -> str:
        lines = (f"- {self.command(command)}" for command in commands)
        return "\n".join(["To fill:", "", *lines]) if commands else ""

    def _texts(self, row: Row, table: Table) -> list[str]:
        values = [
            self._marked(self.text(number(cell, heading)), cell.marks)
            for cell, heading in zip(row.cells, table.headings, strict=True)
        ]
        return [*(self.text(label) for label in row.labels), *values, *([] if table.one_n else [seeds_of(row)])]

    def _marked(self, text: str, marks: Sequence[Mark]) -> str:
        return reduce(lambda inner, mark: inner.join(self.marks[mark]), marks, text)


def number(cell: Cell, heading: Heading) -> str:
    """A cell in one line: `50.00 ± 2.00`, `50.00*` of another paper, or what stands in the place of a number."""
    if cell.mean is None:
        return cell.text
    spread = "" if cell.sd is None else f" {SPREAD} {heading.spread(cell.sd)}"
    return f"{heading.number(cell.mean)}{spread}{cell.sign}"
