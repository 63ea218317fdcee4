"""What figures hold, and that they are the same bytes every time."""

import hashlib
import io
import random
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from tests.conftest import Command
from wsolbench import documents, drawing, figures, shipped, store, sweep
from wsolbench.errors import InputError
from wsolbench.figures import FigureFile, Sheet
from wsolbench.looks import looks
from wsolbench.metrics import threshold_grid
from wsolbench.store import Store

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "figures").glob("*.yaml"))
STAGES = ["early", "middle", "late"]

RATES = """\
title: Rates
x: {field: rate, label: Rate (%), scale: 100, values: [0, 0.5, 1.0]}
y:
  - {field: gt_known_loc, label: GT-known Loc (%)}
  - {field: top1_clas, label: Top-1 Clas (%)}
where: {method: masked}
baseline: {method: bare}
per: [dataset]
sweep: rates
"""
TRADE = """\
title: Trade-off
x: {field: top1_clas, label: Top-1 Clas (%)}
y: [{field: gt_known_loc, label: GT-known Loc (%)}]
per: [dataset]
"""
PLACES = """\
title: Places
x: {field: points, label: Placement, values: ["stages[-1:]", "stages[-2:]", "stages[-3:]", "stages[-4:]"]}
y: [{field: gt_known_loc, label: GT-known Loc (%)}]
per: [dataset]
"""
THRESHOLDS = """\
title: Thresholds
x: {field: every_threshold, label: Threshold (%)}
y: [{field: gt_known_loc, label: GT-known Loc (%)}]
per: [dataset]
"""


def plan(text: str) -> FigureFile:
    return figures.figure_file(documents.parse(text, Path("figures/small.yaml")))


def record(method: str, seed: int, loc: float, clas: float, **others: Any) -> dict[str, Any]:
    said = {"gt_known_loc": loc, "top1_clas": clas, "threshold": 30.0, "stages": STAGES, "dataset": "birds"}
    name = hashlib.sha256(repr((method, seed, sorted(others.items(), key=str))).encode()).hexdigest()[:12]
    return {"id": name, "method": method, "seed": seed, **said, **others}


LOCS = {0.0: [40.0, 42.0, 47.0], 0.5: [50.0, 50.0, 56.0], 1.0: [30.0, 31.0, 32.0]}
"""GT-known Loc of each seed at each rate."""

MASKED = [record("masked", s, loc, loc + 20, rate=rate) for rate, locs in LOCS.items() for s, loc in enumerate(locs)]
BARE = [record("bare", seed, loc, 90.0) for seed, loc in enumerate([35.0, 36.0, 40.0])]


def only(text: str, records: list[dict[str, Any]]) -> Sheet:
    (sheet,) = figures.sheets(plan(text), records, {})
    return sheet


def panels(text: str, records: list[dict[str, Any]], curves: drawing.Curves | None = None) -> list[Axes]:
    return drawing.draw(only(text, records), curves).axes


def dots(axes: Axes) -> list[tuple[float, float]]:
    """The small dots of a panel, those of a baseline at the right edge included."""
    found = [c for c in axes.collections if isinstance(c, PathCollection)]
    return [(float(x), float(y)) for c in found for x, y in np.asarray(c.get_offsets())]


# What a figure over a field holds


def test_the_line_goes_through_the_means() -> None:
    loc, clas = panels(RATES, MASKED + BARE)

    means = [statistics.fmean(locs) for locs in LOCS.values()]
    for axes, shift in ((loc, 0), (clas, 20)):
        x, y = axes.lines[0].get_data()
        assert list(x) == [0, 50, 100]
        assert list(y) == pytest.approx([mean + shift for mean in means])


def test_the_band_is_one_standard_deviation_of_a_sample() -> None:
    axes, _ = panels(RATES, MASKED)

    (band,) = [c for c in axes.collections if not isinstance(c, PathCollection)]
    corners = {(round(x), round(y, 6)) for x, y in band.get_paths()[0].vertices}
    for rate, locs in LOCS.items():
        mean, spread = statistics.fmean(locs), statistics.stdev(locs)
        assert {(100 * rate, round(mean - spread, 6)), (100 * rate, round(mean + spread, 6))} <= corners


def test_every_trial_is_a_dot() -> None:
    axes, _ = panels(RATES, MASKED + BARE)

    expected = [(100 * rate, loc) for rate, locs in LOCS.items() for loc in locs]
    assert sorted(dots(axes)) == sorted([*expected, (1, 35), (1, 36), (1, 40)])  # the baseline's at the right edge


def test_the_baseline_is_a_dashed_line_across_at_its_mean() -> None:
    axes, _ = panels(RATES, MASKED + BARE)

    (line,) = [line for line in axes.lines if line.get_label() == "bare"]
    assert list(line.get_ydata()) == [37, 37]
    assert list(line.get_xdata()) == [0, 1]  # of the panel's width
    assert line.is_dashed()


def test_one_seed_has_a_line_and_no_band() -> None:
    figure = drawing.draw(only(RATES, [r for r in MASKED if r["seed"] == 0]))

    assert list(figure.axes[0].lines[0].get_ydata()) == [40, 50, 30]
    assert "of one seed" in only(RATES, MASKED[::3]).caption


def test_axes_say_what_they_are_in_percent() -> None:
    axes = panels(RATES, MASKED)

    assert [(a.get_xlabel(), a.get_ylabel()) for a in axes] == [
        ("Rate (%)", "GT-known Loc (%)"),
        ("Rate (%)", "Top-1 Clas (%)"),
    ]
    assert [text.get_text() for text in axes[0].get_xticklabels()] == ["0", "50", "100"]


def test_points_are_told_by_what_each_adds_and_stages_that_a_backbone_lacks_are_left_out() -> None:
    placed = [record("masked", 0, 40.0 + n, 50.0, points=STAGES[-n:]) for n in (3, 1, 2)]

    (axes,) = panels(PLACES, placed)

    assert [text.get_text() for text in axes.get_xticklabels()] == ["late", "+ middle", "+ early"]
    assert list(axes.lines[0].get_ydata()) == [41, 42, 43]


def test_settings_that_differ_are_lines_of_their_own_and_never_averaged() -> None:
    sheet = only(
        RATES, [*(dict(r, gamma=0.8) for r in MASKED), *(dict(r, gamma=0.9, id=r["id"][::-1]) for r in MASKED)]
    )

    assert [line.label for line in sheet.lines] == ["masked, gamma 0.8", "masked, gamma 0.9"]
    assert [len(line.records) for line in sheet.lines] == [9, 9]
    first, second = drawing.draw(sheet).axes[0].lines[:2]
    assert first.get_color() == second.get_color()
    assert first._dash_pattern != second._dash_pattern  # type: ignore[attr-defined]


def test_the_last_stages_are_told_as_they_are_asked_for_and_other_points_by_name() -> None:
    points = (STAGES, STAGES[-2:], STAGES[:1])
    records = [record("masked", 0, 40, 60, rate=0.5, points=each) for each in points]

    labels = [line.label for line in only(RATES, records).lines]

    assert labels == ["masked, points [early]", "masked, points stages", "masked, points stages[-2:]"]


def test_of_a_method_with_several_options_only_the_recipes_are_shown_where_the_file_says_so() -> None:
    own = {"points": STAGES, "drop_rate": 0.75, "gamma": 0.8, "drop_mask": True, "importance_map": True}
    records = [record("adl", 0, 40, 60, **own), record("adl", 0, 30, 60, **{**own, "gamma": 0.6})]
    text = TRADE.replace("per:", "options: recommended\nper:")

    assert [len(only(each, records).lines) for each in (TRADE, text)] == [2, 1]


def test_a_seed_that_is_there_twice_counts_once() -> None:
    axes, _ = panels(RATES, [*MASKED, dict(MASKED[0], id="f" * 12, gt_known_loc=99.0)])

    assert len(dots(axes)) == len(MASKED)


def test_fields_of_per_never_share_a_figure() -> None:
    two = [*MASKED, *(dict(r, dataset="cars") for r in MASKED), *BARE]

    found = figures.sheets(plan(RATES), two, {})

    assert [sheet.title for sheet in found] == ["Rates, dataset birds", "Rates, dataset cars"]
    assert [sheet.missing for sheet in found] == [(), ("baseline",)]


def test_filters_choose_trials_and_values_without_a_trial_are_missing() -> None:
    (sheet,) = figures.sheets(plan(RATES), [*MASKED[:6], *BARE], {"seed": 1})

    assert [r["seed"] for line in sheet.lines for r in line.records] == [1, 1, 1]
    assert sheet.missing == ("rate 1",)
    assert figures.sheets(plan(RATES), BARE, {}) == []


def test_a_value_that_lacks_a_seed_is_missing_and_the_caption_says_how_many_there_are() -> None:
    sheet = only(RATES, [*MASKED[:4], *MASKED[6:], *BARE[1:]])

    assert sheet.missing == ("rate 0.5 of seed 1, 2", "baseline of seed 0")
    assert "over 1 to 3 seeds" in sheet.caption
    assert "over 3 seeds" in only(RATES, MASKED + BARE).caption


def test_a_trial_that_diverged_is_named_and_neither_drawn_nor_missing() -> None:
    lost = {key: value for key, value in record("masked", 0, 0, 0, rate=1.0).items() if key in {"id", "rate", "method"}}
    gone = {**lost, "seed": 2, "dataset": "birds", "stages": STAGES, "diverged": True}

    sheet = only(RATES, [*MASKED[:8], gone, *BARE])

    assert sheet.missing == ()
    assert sheet.caption.endswith(f"Not shown, as diverged: {gone['id']}.")
    assert len(sheet.lines[0].records) == 8
    assert only(RATES, [*MASKED[:8], *BARE]).missing == ("rate 1 of seed 2",)


# Two metrics, and thresholds


def test_the_trade_off_has_a_mark_at_the_means_and_a_dot_for_each_trial() -> None:
    (axes,) = panels(TRADE, MASKED + BARE)

    marks = {str(bars.get_label()): bars.lines[0].get_data() for bars in axes.containers}
    found = [(label, float(x[0]), float(y[0])) for label, (x, y) in marks.items()]
    means = [statistics.fmean(locs) for locs in LOCS.values()]
    assert found == [
        ("bare", 90, 37),
        *((f"masked, rate {rate:g}", mean + 20, mean) for rate, mean in zip(LOCS, means, strict=True)),
    ]
    assert len(dots(axes)) == len(MASKED) + len(BARE)


def test_switches_are_told_only_where_they_are_off() -> None:
    off = [dict(r, mask=False, id=r["id"][::-1]) for r in MASKED[:3]]
    sheet = only(TRADE, [*off, *(dict(r, mask=True) for r in MASKED[:3])])

    assert [line.label for line in sheet.lines] == ["masked, no mask", "masked"]


def extent(artist: Any, figure: Figure) -> Any:
    """Where something stands, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return artist.get_window_extent(canvas.get_renderer())


@pytest.mark.parametrize("methods", [2, 6, 12])
def test_a_legend_stays_within_its_figure(methods: int) -> None:
    figure = drawing.draw(only(TRADE, [record(f"method_{number}", 0, 40, 60) for number in range(methods)]))

    (legend,) = figure.legends

    box = extent(legend, figure)
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_long_names_of_places_do_not_overlap() -> None:
    stages = [f"stage_of_a_long_name_{number}" for number in range(4)]
    points = [stages[-count:] for count in range(1, 5)]
    records = [{**record("masked", 0, 40, 60, points=each), "stages": stages} for each in points]
    figure = drawing.draw(only(PLACES, records))
    (axes,) = figure.axes

    FigureCanvasAgg(figure).draw()
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {25.0}
    assert {label.get_ha() for label in axes.get_xticklabels()} == {"right"}


def test_a_logarithmic_axis_has_a_place_for_nothing() -> None:
    text = TRADE.replace("label: Top-1 Clas (%)", "label: Cost (%), logarithmic: true").replace(
        "top1_clas", "compute_overhead_pct"
    )
    costs = {"bare": 0.0, "masked": 0.06, "wide": 900.0}

    (axes,) = panels(text, [record(m, 0, 40, 60, compute_overhead_pct=cost) for m, cost in costs.items()])

    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.01", "0.1", "1", "10", "100", "1000"]
    assert axes.get_xlim()[0] < 0


def test_two_baselines_are_told_apart_without_colour() -> None:
    (axes, _) = panels(RATES, [*MASKED, *BARE, *({**r, "id": r["id"][::-1], "lr": 0.5} for r in BARE)])

    dashes = [line._unscaled_dash_pattern[1] for line in axes.lines if str(line.get_label()).startswith("bare")]

    assert len(dashes) == len(set(map(str, dashes))) == 2


def test_curves_over_the_threshold_are_the_stored_ones_with_their_mean() -> None:
    grid = threshold_grid()
    drawn_at = slice(None, None, 5)
    curves = {r["id"]: 50 + r["seed"] - 40 * grid for r in BARE[:2]}

    (axes,) = panels(THRESHOLDS, BARE, curves)

    each, mean, marks = axes.lines[:2], axes.lines[2], axes.lines[3]
    assert [list(line.get_ydata()) for line in each] == [list(curves[r["id"]][drawn_at]) for r in BARE[:2]]
    assert list(mean.get_ydata()) == pytest.approx(list((50.5 - 40 * grid)[drawn_at]))
    assert list(mean.get_xdata()) == pytest.approx(list(100 * grid[drawn_at]))
    assert list(marks.get_ydata()) == [35, 36]  # where the protocol cut
    assert axes.get_ylim()[0] == 0


# How methods look


def drawn(figure: Figure) -> list[tuple[str, str]]:
    """The colour of each line and mark that has a label."""
    lines = [(str(line.get_label()), line) for axes in figure.axes for line in axes.lines]
    marks = [(str(bars.get_label()), bars.lines[0]) for axes in figure.axes for bars in axes.containers]
    return [(name, to_hex(line.get_color())) for name, line in lines + marks if not name.startswith("_")]


def test_methods_are_told_apart_by_colour_and_without_it() -> None:
    found = looks(["mine", "yours"])

    assert len({look.colour for look in found.values()}) == len(found)
    assert len({look.marker for look in found.values()}) == len(found)
    assert len({look.dash for look in found.values()}) == len(found)
    assert found["mine"].label == "mine"


def test_a_method_has_one_colour_in_all_figures() -> None:
    known = {folder.name: published(folder.name) for folder in (ROOT / "results" / "published").iterdir()}
    colours: dict[str, set[str]] = {}
    for path in FILES:
        for records in known.values():
            for sheet in figures.sheets(figures.read(path), records, {}):
                methods = {line.label: line.records[0]["method"] for line in sheet.lines}
                for label, colour in drawn(drawing.draw(sheet)):
                    colours.setdefault(methods[label], set()).add(colour)

    assert len(colours) > 5
    assert all(len(found) == 1 for found in colours.values())
    assert len({min(found) for found in colours.values()}) == len(colours)


# Files


def published(name: str) -> list[dict[str, Any]]:
    return store.rows(Store(ROOT / "results" / "published" / name).records())


def test_bytes_do_not_depend_on_the_order_of_records() -> None:
    shuffled = [*MASKED, *BARE]
    random.Random(0).shuffle(shuffled)

    for text in (RATES, TRADE):
        made = [drawing.rendered(drawing.draw(only(text, records)), "svg") for records in (MASKED + BARE, shuffled)]
        assert made[0] == made[1]


PROGRAM = """\
import hashlib, sys
from pathlib import Path
from wsolbench import drawing, figures, store
rows = store.rows(store.Store(Path("results/published/shapes")).records())
(sheet,) = figures.sheets(figures.read(Path("figures/drop-rate.yaml")), rows, {})
drawn = drawing.draw(sheet)
for form in ("svg", "png", "pdf"):
    print(form, hashlib.sha256(drawing.rendered(drawn, form, sheet.title)).hexdigest())
"""


def test_two_processes_write_the_same_bytes() -> None:
    env = {"PYTHONHASHSEED": "1", "PATH": "", "MPLBACKEND": "svg", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-c", PROGRAM]
    other = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout

    (sheet,) = figures.sheets(figures.read(ROOT / "figures" / "drop-rate.yaml"), published("shapes"), {})
    figure = drawing.draw(sheet)
    forms: tuple[drawing.Format, ...] = ("svg", "png", "pdf")
    own = [hashlib.sha256(drawing.rendered(figure, form, sheet.title)).hexdigest() for form in forms]
    assert other.split() == [word for pair in zip(forms, own, strict=True) for word in pair]


def test_hostile_names_are_text() -> None:
    hostile = "$x^2$ <script>alert(1)</script> & \\input{a}"

    content = drawing.rendered(drawing.draw(only(TRADE, [dict(r, method=hostile) for r in BARE])), "svg", hostile)

    root = ET.fromstring(content)  # noqa: S314  our own
    assert hostile in [element.text for element in root.iter() if element.text]
    assert not [element for element in root.iter() if element.tag.endswith("script")]


def test_forms_are_what_they_are_called() -> None:
    drawn = drawing.draw(only(RATES, MASKED))

    png = Image.open(io.BytesIO(drawing.rendered(drawn, "png")))
    pdf = drawing.rendered(drawn, "pdf")
    assert png.size[0] > 900
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf
    assert b"/CIDFontType2" in pdf  # font type 42, as publishers ask


def test_names_that_no_trial_has_are_told_with_their_lines() -> None:
    text = TRADE.replace("field: top1_clas", "field: drop_rte").replace("per: [dataset]", "per: [datset]")
    text += "where: {metod: adl, drop_rate: 0.5}\nbaseline: {method: cam}\nsweep: gama\n"

    with pytest.raises(InputError) as refused:
        figures.figure_file(documents.parse(text, Path("f.yaml")), [])

    assert [problem.partition(" The sweeps")[0] for problem in refused.value.problems] == [
        "f.yaml:2: no trial has a field or option 'drop_rte', did you mean 'drop_rate'?",
        "f.yaml:4: no trial has a field or option 'datset', did you mean 'dataset'?",
        "f.yaml:5: no trial has a field or option 'metod', did you mean 'method'?",
        "f.yaml:7: no file 'gama', did you mean 'gamma'?",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_figure_names_a_sweep_that_there_is(path: Path) -> None:
    found = figures.read(path)

    assert found.sweep in shipped.names("sweeps")


@pytest.mark.parametrize("name", ["drop-rate", "gamma", "placement"])
def test_a_shipped_figure_is_filled_by_its_sweep(name: str) -> None:
    found = figures.read(shipped.find("figures", name))
    assert found.sweep is not None
    trials = sweep.read(shipped.find("sweeps", found.sweep), {}, None).trials
    said = {up.field: 50.0 for up in found.y}
    stages = ["pool1", "pool2", "conv4"]

    (sheet,) = figures.sheets(found, [{**t.row(), **said, "id": t.id, "stages": stages} for t in trials], {})

    assert sheet.missing == ()
    assert [line.baseline for line in sheet.lines] == [False, True]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (RATES.replace("sweep:", "sweeps:"), r"small.yaml:\d+: unknown key 'sweeps', did you mean 'sweep'"),
        (RATES.replace("gt_known_loc,", "gt_known,"), r"small.yaml:\d+: y\[0\].field must be .*gt_known"),
        (RATES.replace("title: Rates\n", ""), "title is missing"),
        (RATES.replace("scale: 100", "scale: -1"), "x.scale must be more than 0, not -1"),
        (THRESHOLDS.replace("gt_known_loc", "top1_loc"), "only gt_known_loc"),
        (TRADE.replace("[{field: gt_known_loc, label: GT-known Loc (%)}]", "[]"), "y must not be empty"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        plan(text)


# The command


def test_the_command_draws_figures_of_finished_trials(wsolbench: Command, tmp_path: Path) -> None:
    folder = ROOT / "results" / "published" / "shapes"

    ended = wsolbench("figure", "drop-rate", "trade-off", "--results", folder, "--out", tmp_path, "--format", "svg,pdf")

    assert ended.code == 0
    assert [Path(line).name for line in ended.out.split()] == [
        "drop-rate.svg", "drop-rate.pdf", "trade-off.svg", "trade-off.pdf",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(Path(line).name for line in ended.out.split())
    assert "over 3 seeds" in ended.err


def test_the_command_says_what_is_missing_and_how_to_fill_it(wsolbench: Command, tmp_path: Path) -> None:
    folder = ROOT / "results" / "published" / "shapes"

    ended = wsolbench("figure", "gamma", "--results", folder, "--out", tmp_path, "--format", "svg")
    empty = wsolbench("figure", "gamma", "--results", tmp_path / "none", "--out", tmp_path)

    assert (ended.code, empty.code) == (3, 3)
    assert "gamma 0.6, gamma 0.7, gamma 0.9, gamma 0.95; `wsolbench sweep gamma`" in ended.err
    assert "no finished trial" in empty.err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "name a figure; there are: .*drop-rate"),
        (("droprate",), "did you mean 'drop-rate'"),
        (("gamma", "--format", "svgg"), "no format 'svgg', did you mean 'svg'"),
        (("gamma", "protocol=mine"), "no protocol 'mine'"),
    ],
)
def test_the_command_refuses_what_there_is_not(wsolbench: Command, words: tuple[str, ...], problem: str) -> None:
    ended = wsolbench("figure", *(words or ("seed=0",)))

    assert ended.code == 2
    assert re.search(problem, ended.err)


@pytest.mark.parametrize("words", [("figure", "gamma"), ("report", "table1"), ("gallery", "seed=0")])
def test_a_file_in_the_place_of_the_folder_is_refused(
    wsolbench: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")

    ended = wsolbench(*words, "--results", ROOT / "results" / "published" / "shapes", "--out", tmp_path / "file")

    assert ended.code == 2
    assert re.search("--out.*is a file", ended.err)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
