"""Comma-separated values: a line for each cell, its number as it is and not as it is printed."""

import csv
import io
from collections.abc import Iterator

from wsolbench.table import Report, Table, legible

_COLUMNS = ("column", "mean", "sd", "n", "text", "diverged", "quoted", "significant", "marks", "trials")


def render(report: Report) -> str:
    """The report as CSV (RFC 4180, but lines end with a line feed); `block` counts from 1, `trials` are by seed."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    labels = report.tables[0].labels if report.tables else ()
    writer.writerow([legible(text) for text in ("table", "block", *labels, *_COLUMNS)])
    for table in report.tables:
        writer.writerows([legible(text) for text in line] for line in _lines(table))
    return file.getvalue()


def _lines(table: Table) -> Iterator[list[str]]:
    for number, block in enumerate(table.blocks, 1):
        for row in block:
            for heading, cell in zip(table.headings, row.cells, strict=True):
                numbers = [_or_empty(cell.mean), _or_empty(cell.sd), str(cell.n or "")]
                value = [*numbers, cell.text if cell.mean is None else ""]
                marks = [
                    str(cell.diverged or ""),
                    *(str(found).lower() for found in (cell.quoted, cell.significant)),
                    " ".join(cell.marks),
                    " ".join(cell.ids),
                ]
                yield [table.name, str(number), *row.labels, heading.whole, *value, *marks]


def _or_empty(value: float | None) -> str:
    return "" if value is None else repr(value)
