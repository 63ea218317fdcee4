"""One table in every format: the same numbers, each format's own marks, and no markup out of names."""

import csv
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from wsolbench import formats, plugins
from wsolbench.formats import html, tex
from wsolbench.table import Cell, Heading, Missing, Report, Row, Table

HEADINGS = (Heading("Loc", "birds"), Heading("Clas", "birds"), Heading("Change", "flowers", decimals=1, signed=True))


def example(name: str = "birds & co", label: str = "75") -> Table:
    """Ties, a row without layer, missing, quoted and diverged numbers, a difference of nearly nothing."""
    tied = Cell(50.0, 2.0, 3, ("a1", "a2", "a3"), ("bold",))
    return Table(
        name=name,
        caption="In %.",
        labels=("Rate (%)",),
        headings=HEADINGS,
        blocks=(
            (
                Row(
                    (label,),
                    (0, 1, 2),
                    (tied, Cell(61.004, 1.0, 3, ("a1", "a2", "a3")), Cell(1.25, n=3, significant=True)),
                ),
                Row(("0",), (0, 1, 2), (tied, Cell(text="N/A"), Cell(-0.01, n=3))),
                Row(("-1",), (0, 1), (Cell(4.0, 1.0, 2, diverged=1), Cell(text="div.", diverged=3), Cell(0.5, n=2))),
            ),
            (Row(("N/A",), (), (Cell(52.36, marks=("bold", "underline"), quoted=True), Cell(text="-"), Cell())),),
        ),
        marks={"bold": "best of a block", "italic": "nobody", "underline": "best of all"},
        notes=("N/A: no layer.",),
        missing=(Missing("Rate (%) N/A", "no trial (seed 0)", "make sweep-masks ARGS='--seeds 0'"),),
    )


def rendered(ending: str, *tables: Table, title: str = "Masks") -> str:
    return plugins.load(formats, ending).render(Report(title, tables or (example(),)))


GOLDEN_HTML = """\
<table class="results">
<caption>
<strong class="name">birds &amp; co</strong>
<span class="told">In %.</span> <span class="legend">Marked: <span class="bold">best of a block</span>, \
<span class="underline">best of all</span>.</span>
</caption>
<thead>
<tr><td></td><th scope="colgroup" colspan="2">birds</th><th scope="colgroup" colspan="1">flowers</th><td></td></tr>
<tr><th scope="col">Rate (%)</th><th scope="col" class="number">Loc</th><th scope="col" class="number">Clas</th>\
<th scope="col" class="number">Change</th><th scope="col" class="number">n</th></tr>
</thead>
<tbody>
<tr><th scope="row">75</th><td class="number" data-v="50.0"><span class="bold">50.00\
<span class="sd"> ± 2.00</span></span></td><td class="number" data-v="61.004">61.00<span class="sd"> ± 1.00</span></td>\
<td class="number" data-v="1.25">+1.2<sup>†</sup></td><td class="number" data-v="3">3</td></tr>
<tr><th scope="row">0</th><td class="number" data-v="50.0"><span class="bold">50.00\
<span class="sd"> ± 2.00</span></span></td><td class="number">N/A</td>\
<td class="number" data-v="-0.01">+0.0</td><td class="number" data-v="3">3</td></tr>
<tr><th scope="row">-1</th><td class="number" data-v="4.0">4.00<span class="sd"> ± 1.00</span><sup>‡</sup></td>\
<td class="number">div.</td><td class="number" data-v="0.5">+0.5</td><td class="number" data-v="2">2</td></tr>
</tbody>
<tbody>
<tr><th scope="row">N/A</th><td class="number" data-v="52.36"><span class="bold underline">52.36\
<sup>*</sup></span></td><td class="number">-</td><td class="number">—</td><td class="number" data-v="0">0</td></tr>
</tbody>
</table>
<p class="note">N/A: no layer.</p>
<details class="missing" open>
<summary>Missing: 1</summary>
<ul>
<li>Rate (%) N/A: no trial (seed 0)</li>
</ul>
<pre><code>make sweep-masks ARGS=&#39;--seeds 0&#39;</code></pre>
</details>
"""


def test_html_fragment() -> None:
    assert html.fragment(example()) == GOLDEN_HTML


def test_html_fragment_links_the_trials_that_have_a_page() -> None:
    text = html.fragment(example(), lambda trial: None if trial == "a2" else f"trials/{trial}.html?a&b")

    links = '<a href="trials/a1.html?a&amp;b" title="trial a1">1</a><a href="trials/a3.html?a&amp;b" title="trial a3">'
    assert links in re.sub(r"\s*(?=<a|</span)", "", text)


def test_html_fragment_has_buttons_only_for_a_script_that_sorts() -> None:
    assert '<th scope="col" class="number"><button type="button">Loc</button></th>' in html.fragment(
        example(), sortable=True
    )
    assert "<button" not in html.fragment(example())


def test_html_page_needs_nothing_else() -> None:
    text = rendered("html")

    assert text.startswith("<!doctype html>\n")
    assert '<meta charset="utf-8">' in text
    assert "default-src 'none'" in text
    assert not re.search(r"\b(src|href|url)\s*[=(]", text)


GOLDEN_MARKDOWN = """\
# Masks

## birds &amp; co

In %. Marked: **best of a block**, <ins>best of all</ins>.

|   Rate (%) |          birds: Loc |   birds: Clas |   flowers: Change |   n |
|-----------:|--------------------:|--------------:|------------------:|----:|
|         75 |    **50.00 ± 2.00** |  61.00 ± 1.00 |             +1.2† |   3 |
|          0 |    **50.00 ± 2.00** |           N/A |              +0.0 |   3 |
|         -1 |        4.00 ± 1.00‡ |          div. |              +0.5 |   2 |
|            |                     |               |                   |     |
|        N/A | <ins>**52.36\\***</ins> |             - |                 — |   0 |

N/A: no layer.

Missing:

- Rate (%) N/A: no trial (seed 0)

To fill:

- `make sweep-masks ARGS='--seeds 0'`
"""


def test_markdown() -> None:
    assert without_padding(rendered("md")) == without_padding(GOLDEN_MARKDOWN)


def without_padding(text: str) -> str:
    return re.sub(r" +\| *|-+:", "|", text)


GOLDEN_TEX = r"""% needs \usepackage{booktabs,siunitx}
% Masks

\begin{table}[t]
\centering
\caption{Masks. In \%. Marked: \textbf{best of a block}, \underline{best of all}.}
\sisetup{separate-uncertainty=true,retain-explicit-plus=true,group-digits=none,detect-all,mode=text}
\begin{tabular}{@{}l S[table-format=2.2(3),table-space-text-post={\textsuperscript{\ddag}}] S[table-format=2.2(3)] """
GOLDEN_TEX += r"""S[table-format=+1.1,table-space-text-post={\textsuperscript{\dag}}] r@{}}
\toprule
 & \multicolumn{2}{c}{birds} & \multicolumn{1}{c}{flowers} &  \\
\cmidrule(lr){2-3}
\cmidrule(lr){4-4}
Rate (\%) & {Loc} & {Clas} & {Change} & {$n$} \\
\midrule
75 & \bfseries 50.00 +- 2.00 & 61.00 +- 1.00 & +1.2{\textsuperscript{\dag}} & 3 \\
0 & \bfseries 50.00 +- 2.00 & {N/A} & +0.0 & 3 \\
-{}1 & 4.00 +- 1.00{\textsuperscript{\ddag}} & {div.} & +0.5 & 2 \\
\midrule
N/A & {\bfseries \underline{\num{52.36}}{\textsuperscript{*}}} & {-{}} & {\textemdash{}} & 0 \\
\bottomrule
\end{tabular}
\par\smallskip{\footnotesize N/A: no layer.\par}
\end{table}
% Missing:
%   Rate (%) N/A: no trial (seed 0)
% To fill:
%   make sweep-masks ARGS='--seeds 0'
"""


def test_tex() -> None:
    assert rendered("tex") == GOLDEN_TEX


def test_tex_has_no_vertical_rule() -> None:
    (columns,) = re.findall(r"\\begin\{tabular\}\{(.*)\}", rendered("tex"))

    assert "|" not in columns


def test_tex_leaves_the_number_of_a_table_to_latex() -> None:
    assert r"\caption{Drop rate. In \%." in rendered("tex", title="Table 1. Drop rate")


GOLDEN_CSV = """\
table,block,Rate (%),column,mean,sd,n,text,diverged,quoted,significant,marks,trials
birds & co,1,75,birds: Loc,50.0,2.0,3,,,false,false,bold,a1 a2 a3
birds & co,1,75,birds: Clas,61.004,1.0,3,,,false,false,,a1 a2 a3
birds & co,1,75,flowers: Change,1.25,,3,,,false,true,,
birds & co,1,0,birds: Loc,50.0,2.0,3,,,false,false,bold,a1 a2 a3
birds & co,1,0,birds: Clas,,,,N/A,,false,false,,
birds & co,1,0,flowers: Change,-0.01,,3,,,false,false,,
birds & co,1,-1,birds: Loc,4.0,1.0,2,,1,false,false,,
birds & co,1,-1,birds: Clas,,,,div.,3,false,false,,
birds & co,1,-1,flowers: Change,0.5,,2,,,false,false,,
birds & co,2,N/A,birds: Loc,52.36,,,,,true,false,bold underline,
birds & co,2,N/A,birds: Clas,,,,-,,false,false,,
birds & co,2,N/A,flowers: Change,,,,—,,false,false,,
"""


def test_csv_has_the_numbers_as_they_are() -> None:
    assert rendered("csv") == GOLDEN_CSV


# The same numbers in each format, read back


Value = tuple[float | str, float | None]
"""Mean, or the text in its place, and standard deviation; as they are printed."""


def value(text: str) -> Value:
    text = re.sub(r"[*_=†‡\\]", "", text).strip()
    mean, _, sd = text.partition(" ± ")
    try:
        return float(mean), float(sd) if sd else None
    except ValueError:
        return text, None


def pipes(text: str) -> list[Value]:
    lines = [line.strip("|").split(" |") for line in text.splitlines() if line.startswith("|")]
    rows = [line for line in lines[2:] if any(cell.strip() for cell in line)]
    return [value(re.sub("<.*?>", "", cell)) for row in rows for cell in row[1:-1]]


def columns(text: str) -> list[Value]:
    lines = text.splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("---")]
    rows = [line for line in lines[rules[0] + 1 : rules[-1] + 2] if not line.startswith("---")]
    return [value(cell) for row in rows for cell in re.split(r" {2,}", row.strip())[1:-1]]


def tabular(text: str) -> list[Value]:
    rows = re.findall(r"^(.*) \\\\$", text.partition(r"\midrule")[2], re.MULTILINE)
    plain = {
        r"\textsuperscript{*}": "",
        r"\textsuperscript{\dag}": "",
        r"\textsuperscript{\ddag}": "",
        r"\textemdash{}": "—",
        "-{}": "-",
        "+-": "±",
        r"\num": "",
        r"\underline": "",
    }
    found = []
    for row in rows:
        for cell in row.split(" & ")[1:-1]:
            for command, usual in plain.items():
                cell = cell.replace(command, usual)  # noqa: PLW2901
            found.append(value(re.sub(r"\\bfseries |[{}]", "", cell)))
    return found


class Cells(HTMLParser):
    """The texts of a table's cells, and what they are sorted by."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.sorted_by: list[str | None] = []
        self.within = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "td" and ("class", "number") in attrs:
            self.within = True
            self.texts.append("")
            self.sorted_by.append(dict(attrs).get("data-v"))

    def handle_endtag(self, tag: str) -> None:
        self.within = self.within and tag != "td"

    def handle_data(self, data: str) -> None:
        if self.within:
            self.texts[-1] += data


def markup(text: str) -> list[Value]:
    cells = Cells()
    cells.feed(text)
    return [value(text) for number, text in enumerate(cells.texts, 1) if number % 4]  # the fourth is n


def commas(text: str) -> list[Value]:
    def printed(number: str, line: dict[str, str]) -> float:
        (heading,) = (heading for heading in HEADINGS if heading.whole == line["column"])
        return round(float(number), heading.decimals) + 0.0

    return [
        (printed(line["mean"], line), printed(line["sd"], line) if line["sd"] else None)
        if line["mean"]
        else (line["text"], None)
        for line in csv.DictReader(io.StringIO(text))
    ]


EXPECTED: list[Value] = [
    *[(50.0, 2.0), (61.0, 1.0), (1.2, None)],
    *[(50.0, 2.0), ("N/A", None), (0.0, None)],
    *[(4.0, 1.0), ("div.", None), (0.5, None)],
    *[(52.36, None), ("-", None), ("—", None)],
]


@pytest.mark.parametrize(
    ("ending", "parse"), [("md", pipes), ("txt", columns), ("tex", tabular), ("html", markup), ("csv", commas)]
)
def test_each_format_has_the_same_numbers(ending: str, parse: Callable[[str], list[Value]]) -> None:
    assert parse(rendered(ending)) == EXPECTED


def test_html_sorts_by_numbers_as_they_are() -> None:
    cells = Cells()
    cells.feed(html.fragment(example()))

    numbers = [found for number, found in enumerate(cells.sorted_by, 1) if number % 4]
    assert numbers == ["50.0", "61.004", "1.25", "50.0", None, "-0.01", "4.0", None, "0.5", "52.36", None, None]


# Names that are markup


NAMES = [
    "</td><script>window.PWNED=1</script>",
    "a|b",
    r"\input{/etc/passwd}",
    "100 % a_b & c",
    "a\u202eb",
    "*x* `y` ~z^",
]
NAMES += [
    "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve \N{LATIN CAPITAL LETTER L WITH STROKE}",
    "\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED}",
]
NAMES += ["\N{BIRD}", "\N{CJK UNIFIED IDEOGRAPH-9CE5} \N{ARABIC LETTER TEH}", "\N{GREEK SMALL LETTER ALPHA}"]
NAMES += ["&lt;", '" onload="x', "'", "--", "[1]", "a\nb", "$x$", "#1", "{", "}"]


class Tags(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(name: str) -> str:
    return name.replace("\u202e", "\N{REPLACEMENT CHARACTER}").replace("\n", "\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_in_html(name: str) -> None:
    usual, found = Tags(), Tags()
    usual.feed(rendered("html"))

    found.feed(rendered("html", example(name, name), title=name))

    assert (found.tags, found.attributes) == (usual.tags, usual.attributes)
    assert found.text.count(seen(name)) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_in_csv(name: str) -> None:
    lines = list(csv.DictReader(io.StringIO(rendered("csv", example(name, name)))))

    assert len(lines) == 12
    assert {line["table"] for line in lines} == {seen(name)}
    assert lines[0]["Rate (%)"] == seen(name)


def commands(text: str) -> set[str]:
    """The commands of TeX in a text without its comments."""
    return set(re.findall(r"\\([a-zA-Z]+|.)", re.sub(r"(?<!\\)%.*", "", text)))


OF_SPECIAL = {"textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar", "char"}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_in_tex(name: str) -> None:
    text = rendered("tex", example(name, name), title=name)

    assert commands(text) <= commands(rendered("tex")) | OF_SPECIAL | set("{}$&#_%")
    balanced = re.sub(r"\\[{}]|(?<!\\)%.*", "", text)
    assert balanced.count("{") == balanced.count("}")
    rows = re.findall(r"^.* \\\\$", text, re.MULTILINE)
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [3, 4, 4, 4, 4, 4]


def test_tex_names_what_fonts_may_lack_by_its_number() -> None:
    text = tex.escaped("na\u00efve \u0141 \u0105 \N{BIRD}")

    assert text == "na\u00efve \u0141 U+0105 U+1F426"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not here")
def test_tex_compiles(tmp_path: Path) -> None:
    letters = "".join(chr(number) for number in range(0xA0, 0x250))
    tables = [example(name, name) for name in [*NAMES, letters]]
    (tmp_path / "tables.tex").write_text(rendered("tex", *tables, title="".join(NAMES)), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,siunitx}\begin{document}\input{tables}\end{document}",
        encoding="utf-8",
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)

    if b"siunitx.sty' not found" in ended.stdout:
        pytest.skip("siunitx is not here")
    assert ended.returncode == 0, ended.stdout.decode(errors="replace")[-2000:]


@pytest.mark.parametrize(("p", "printed"), [(0.00004, "<0.0001"), (0.00006, "0.0001"), (0.25, "0.2500")])
def test_a_probability_is_never_printed_as_nothing(p: float, printed: str) -> None:
    assert Heading("p", decimals=4, p=True).number(p) == printed


def test_every_format_is_text_that_ends_in_a_line() -> None:
    endings = plugins.names(formats)

    assert endings == ["csv", "html", "json", "md", "tex", "txt"]
    assert all(rendered(ending).endswith("\n") for ending in endings)


def test_an_empty_report_says_what_fills_it() -> None:
    empty = Report("Masks", (), "no finished trial in 'a<b' fits", ("make sweep-masks",))

    texts = {ending: plugins.load(formats, ending).render(empty) for ending in plugins.names(formats)}

    assert all("make sweep-masks" in text for ending, text in texts.items() if ending != "csv")
    assert "a&lt;b" in texts["html"]
    assert texts["csv"] == "table,block,column,mean,sd,n,text,diverged,quoted,significant,marks,trials\n"
