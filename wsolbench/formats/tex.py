r"""LaTeX with booktabs and siunitx, to be read with `\input`: no vertical rule, numbers aligned at the point."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from wsolbench.table import (
    DIVERGED,
    MISSING,
    QUOTED,
    SIGNIFICANT,
    SPREAD,
    Cell,
    Heading,
    Mark,
    Report,
    Row,
    Table,
    legible,
    seeds_of,
    sentences,
)

_NEEDS = r"% needs \usepackage{booktabs,siunitx}"
_SETUP = r"\sisetup{separate-uncertainty=true,retain-explicit-plus=true,group-digits=none,detect-all,mode=text}"
_FONTS: Mapping[Mark, str] = {"bold": r"\bfseries ", "italic": r"\itshape "}
_LEGEND: Mapping[Mark, str] = {"bold": r"\textbf{%s}", "italic": r"\textit{%s}", "underline": r"\underline{%s}"}

_SPECIAL = {
    **{character: f"\\{character}" for character in "{}$&#_%"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "'": r"\char39{}",
    "`": r"\char96{}",
    "-": "-{}",  # two of them are no dash
    "[": "{[}",  # no option of the command before it
    "]": "{]}",
    QUOTED: "{*}",  # nor its star
    SIGNIFICANT: r"\dag{}",
    DIVERGED: r"\ddag{}",
    SPREAD: r"$\pm$",
    MISSING: r"\textemdash{}",
    "\N{EN DASH}": r"\textendash{}",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{GREEK CAPITAL LETTER DELTA}": r"$\Delta$",
    "\N{UPWARDS ARROW}": r"$\uparrow$",
    "\N{DOWNWARDS ARROW}": r"$\downarrow$",
    "\N{REPLACEMENT CHARACTER}": "?",
}
_LAST_LATIN = 0x17F
_NOT_IN_FONTS = (  # of the oldest encoding of fonts, OT1, which is what a document has that asks for none
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    "\u00d0\u00de\u00f0\u00fe\u0104\u0105\u0110\u0111\u0118\u0119\u0126\u0127\u012e\u012f"
    "\u0138\u013f\u0140\u0149\u014a\u014b\u0166\u0167\u0172\u0173\u017f"
)


def render(report: Report) -> str:
    """The report as a `table` for each of its tables."""
    lines = [_NEEDS, f"% {legible(report.title)}"]
    lines += [f"% {sentences(legible(report.note))}", *_comments("To fill", report.commands)] if report.note else []
    return "\n".join([*lines, *(line for table in report.tables for line in _table(table, report.title))]) + "\n"


def escaped(text: str) -> str:
    """The text with nothing in it that TeX reads as a command, a column or a comment."""
    return "".join(_SPECIAL.get(c) or (c if _is_in_fonts(c) else f"U+{ord(c):04X}") for c in legible(text))


def _is_in_fonts(character: str) -> bool:
    """Whether every LaTeX prints it: ASCII and Latin letters, whatever the encoding of the fonts."""
    return ord(character) <= _LAST_LATIN and character not in _NOT_IN_FONTS


def _table(table: Table, title: str) -> Iterator[str]:
    legend = ", ".join(_LEGEND[mark] % escaped(table.marks[mark]) for mark in table.used_marks)
    own = re.sub(r"Table [0-9]+\. ", "", title)  # LaTeX counts itself
    caption = [escaped(sentences(own)), escaped(table.caption), f"Marked: {legend}." if legend else ""]
    columns = ["l" * len(table.labels), *map(_column, *_by_column(table)), *([] if table.one_n else ["r"])]
    yield "\n" + r"\begin{table}[t]" + "\n" + r"\centering"
    yield rf"\caption{{{' '.join(filter(None, caption))}}}"
    yield _SETUP
    yield rf"\begin{{tabular}}{{@{{}}{' '.join(columns)}@{{}}}}"
    yield r"\toprule"
    yield from _head(table)
    for block in table.blocks:
        yield r"\midrule"
        yield from (_row(row, table) for row in block)
    yield r"\bottomrule" + "\n" + r"\end{tabular}"
    yield from (rf"\par\smallskip{{\footnotesize {escaped(note)}\par}}" for note in table.notes)
    yield r"\end{table}"
    yield from _comments("Missing", [f"{item.row}: {item.lack}" for item in table.missing])
    yield from _comments("To fill", table.commands)


def _head(table: Table) -> Iterator[str]:
    first = len(table.labels) + 1
    groups = [(group, len(list(found))) for group, found in groupby(table.headings, key=lambda heading: heading.group)]
    if any(group for group, _ in groups):
        cells = [rf"\multicolumn{{{count}}}{{c}}{{{escaped(group)}}}" for group, count in groups]
        yield " & ".join([*[""] * len(table.labels), *cells, *([] if table.one_n else [""])]) + r" \\"
        for _, count in groups:
            yield rf"\cmidrule(lr){{{first}-{first + count - 1}}}"
            first += count
    headings = [*map(escaped, table.labels), *(f"{{{escaped(heading.text)}}}" for heading in table.headings)]
    yield " & ".join([*headings, *([] if table.one_n else ["{$n$}"])]) + r" \\"


def _row(row: Row, table: Table) -> str:
    cells = (_cell(cell, heading) for cell, heading in zip(row.cells, table.headings, strict=True))
    return " & ".join([*map(escaped, row.labels), *cells, *([] if table.one_n else [seeds_of(row)])]) + r" \\"


def _cell(cell: Cell, heading: Heading) -> str:
    if cell.mean is None:
        return f"{{{escaped(cell.text)}}}"  # braces: no number to align
    number = heading.number(cell.mean) + ("" if cell.sd is None else f" +- {heading.spread(cell.sd)}")
    sign = _sign(cell)
    fonts = "".join(_FONTS[mark] for mark in cell.marks if mark in _FONTS)
    if "underline" in cell.marks:  # a column of numbers has no rule beneath one of them
        return rf"{{{fonts}\underline{{\num{{{number}}}}}{sign}}}"
    return f"{fonts}{number}{sign}"


def _sign(cell: Cell) -> str:
    sign = cell.sign.replace(SIGNIFICANT, r"\dag").replace(DIVERGED, r"\ddag")
    return rf"{{\textsuperscript{{{sign}}}}}" if sign else ""


def _by_column(table: Table) -> tuple[tuple[Heading, ...], list[list[Cell]]]:
    return table.headings, [[row.cells[c] for row in table.rows] for c in range(len(table.headings))]


def _column(heading: Heading, cells: list[Cell]) -> str:
    """A column as wide before and behind the point as its widest number; of text where it has no number."""
    means = [heading.number(cell.mean) for cell in cells if cell.mean is not None]
    if not means:
        return "c"
    spreads = [heading.spread(cell.sd) for cell in cells if cell.sd is not None]
    sign = "+" if any(mean[0] in "+-" for mean in means) else ""
    digits = max(len(mean.lstrip("+-<").partition(".")[0]) for mean in means)
    spread = f"({max(len(text.replace('.', '').lstrip('0')) for text in spreads) or 1})" if spreads else ""
    widest = max((_sign(cell) for cell in cells), key=len)
    post = f",table-space-text-post={widest}" if widest else ""
    return f"S[table-format={sign}{digits}.{heading.decimals}{spread}{post}]"


def _comments(title: str, lines: Sequence[str]) -> list[str]:
    return [f"% {title}:", *(f"%   {legible(line)}" for line in lines)] if lines else []
