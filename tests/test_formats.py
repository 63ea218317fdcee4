"""One table in every format: the same numbers, each format's own marks, and no markup out of names."""

import re

from wsolbench import formats, plugins
from wsolbench.formats import html
from wsolbench.table import Cell, Heading, Missing, Report, Row, Table

HEADINGS = (Heading("Loc", "birds"), Heading("Clas", "birds"), Heading("Change", "flowers", decimals=1, signed=True))


def example(name: str = "birds & co", label: str = "75") -> Table:
    """Ties, a row without layer, missing and quoted numbers, a difference of nearly nothing."""
    tied = Cell(50.0, 2.0, 3, ("a1", "a2", "a3"), ("bold",))
    return Table(
        name=name,
        caption="In %.",
        labels=("Rate (%)",),
        headings=HEADINGS,
        blocks=(
            (
                Row((label,), (0, 1, 2), (tied, Cell(61.004, 1.0, 3, ("a1", "a2", "a3")), Cell(1.25, n=3))),
                Row(("0",), (0, 1, 2), (tied, Cell(text="N/A"), Cell(-0.01, n=3))),
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
<tr><td></td><th scope="colgroup" colspan="2">birds</th><th scope="colgroup" colspan="1">flowers</th></tr>
<tr><th scope="col">Rate (%)</th><th scope="col" class="number">Loc</th><th scope="col" class="number">Clas</th>\
<th scope="col" class="number">Change</th></tr>
</thead>
<tbody>
<tr><th scope="row">75</th><td class="number" data-v="50.0"><span class="bold">50.00\
<span class="sd"> ± 2.00</span></span></td><td class="number" data-v="61.004">61.00<span class="sd"> ± 1.00</span></td>\
<td class="number" data-v="1.25">+1.2</td></tr>
<tr><th scope="row">0</th><td class="number" data-v="50.0"><span class="bold">50.00\
<span class="sd"> ± 2.00</span></span></td><td class="number">N/A</td><td class="number" data-v="-0.01">+0.0</td></tr>
</tbody>
<tbody>
<tr><th scope="row">N/A</th><td class="number" data-v="52.36"><span class="bold underline">52.36\
<sup class="quoted">*</sup></span></td><td class="number">-</td><td class="number">—</td></tr>
</tbody>
</table>
<p class="note">N/A: no layer.</p>
<details class="missing" open>
<summary>Missing</summary>
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
