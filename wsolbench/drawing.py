"""Draws what a figure shows, the same bytes every time: means, one standard deviation around them, each trial a dot."""

import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from wsolbench.figures import Across, Line, Sheet, tick
from wsolbench.known import EVERY_THRESHOLD
from wsolbench.metrics import threshold_grid
from wsolbench.protocols import METRICS
from wsolbench.store import COUNTED, Store

Format = Literal["svg", "png", "pdf"]
Curves = Mapping[str, NDArray[np.float64]]
"""By trial, the accuracy in percent at each threshold of `threshold_grid`."""

_WIDTH, _HEIGHT = 3.3, 3.0  # of a panel, inches
_EVERY = 5  # of the stored thresholds one is drawn: all would be a file five times the size
_DPI = 150
_ROWS = 2  # of a legend above the panels
_LEAST = 0.01  # where a logarithmic axis that has a 0 begins
_FITTING = 30  # letters below a panel; longer names are set aslant
_FAINT = 0.15  # opacity of a band
_MARKERS = "osD^v<>PXph"
_DASHES: tuple[tuple[float, ...], ...] = ((5, 2), (1, 1), (4, 1, 1, 1), (8, 2), (2, 2))
"""For more settings of the same method."""
_SETTINGS: Any = {
    "text.parse_math": False,  # names of users' own are text
    "svg.hashsalt": "wsolbench",
    "svg.fonttype": "none",  # text that can be searched and read aloud
    "pdf.fonttype": 42,  # what publishers accept
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "legend.frameon": False,
    "figure.dpi": 100,
}
_METADATA: Mapping[str, Mapping[str, None]] = {
    "svg": {"Date": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
}


@contextmanager
def style() -> Iterator[None]:
    """How all figures look, whatever a user's own settings of matplotlib."""
    with mpl.rc_context():
        mpl.rcdefaults()
        sns.set_style("ticks")
        mpl.rcParams.update(_SETTINGS)
        yield


def curves_of(known: Store, sheet: Sheet) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """The stored accuracies over every threshold, by trial, and the ids of the trials that have none."""
    records = [record for line in sheet.lines for record in line.records]
    stored = {record["id"]: known.curve(record["id"], record["protocol"]) for record in records}
    there = {trial_id: curve for trial_id, curve in stored.items() if curve is not None}
    return there, [trial_id for trial_id in stored if trial_id not in there]


def draw(sheet: Sheet, curves: Curves | None = None, *, caption: bool = True) -> Figure:
    """The figure of a sheet, with its caption below; `curves` are needed where every threshold is on x."""
    with style():
        panels = len(sheet.file.y)
        figure = Figure(figsize=(_WIDTH * max(panels, 1.4), _HEIGHT + 0.6), layout=ConstrainedLayoutEngine(wspace=0.06))
        grid = figure.subplots(1, panels, squeeze=False)[0]
        for axes, up in zip(grid, sheet.file.y, strict=True):
            _panel(sheet, curves or {})(axes, up.field)
            axes.set(xlabel=sheet.file.x.label, ylabel=up.label)
            axes.grid(axis="y", color="0.9", linewidth=0.6)
        wrapped = textwrap.fill(sheet.caption, int(figure.get_figwidth() * 19))
        _legend(figure, grid[0])
        if caption:
            figure.supxlabel(wrapped, fontsize=6.5, color="0.4", x=0.01, ha="left")
    return figure


def rendered(figure: Figure, form: Format, title: str = "", dpi: float = _DPI) -> bytes:
    """The figure as a file, the same bytes in every process."""
    file = io.BytesIO()
    with style():
        figure.savefig(file, format=form, dpi=dpi, metadata={**_METADATA[form], **({"Title": title} if title else {})})
    return file.getvalue()


def _panel(sheet: Sheet, curves: Curves) -> Callable[[Axes, str], None]:
    x = sheet.file.x.field
    if x == EVERY_THRESHOLD:
        return lambda axes, _: _thresholds(axes, sheet.lines, curves)
    if x in METRICS or x in COUNTED:
        return lambda axes, y: _scatter(axes, sheet, y)
    return lambda axes, y: _against(axes, sheet, y)


def _against(axes: Axes, sheet: Sheet, y: str) -> None:
    """Lines over the values of a field; the baseline, which has none, across them all."""
    values = sheet.places
    where = _positions(sheet.file.x, values)
    for line, nth in _numbered([line for line in sheet.lines if not line.baseline]):
        dots = pd.DataFrame(
            [(where[repr(record[sheet.file.x.field])], record[y]) for record in line.records], columns=["x", "y"]
        )
        _mean_and_band(axes, dots, line, nth)
        axes.scatter(dots.x, dots.y, s=9, color=line.look.colour, alpha=0.55, linewidths=0, zorder=3)
    before = [None, *values]
    ticks = [tick(value, last, sheet.file.x.scale) for value, last in zip(values, before, strict=False)]
    axes.set_xticks(list(where.values()), ticks)
    if sum(map(len, ticks)) > _FITTING:
        axes.tick_params(axis="x", labelrotation=25)
        for name in axes.get_xticklabels():
            name.set(ha="right", rotation_mode="anchor")
    for line, nth in _numbered([line for line in sheet.lines if line.baseline]):
        _across(axes, line, nth, [float(record[y]) for record in line.records])


def _positions(x: Across, values: Sequence[Any]) -> dict[str, float]:
    """Where each value stands: numbers to scale, others side by side."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return {repr(value): value * x.scale if numbers else float(index) for index, value in enumerate(values)}


def _mean_and_band(axes: Axes, dots: pd.DataFrame, line: Line, nth: int) -> None:
    """The mean at each x and one standard deviation (ddof 1) around it; without colour, marker and dash tell."""
    sns.lineplot(
        dots, x="x", y="y", ax=axes, errorbar=("sd", 1), err_kws={"alpha": _FAINT, "linewidth": 0}, label=line.label,
        legend=False, linewidth=1.6, markersize=6, zorder=4, color=line.look.colour, linestyle=_dash(line, nth),
        **_mark(line, nth),
    )  # fmt: skip


def _across(axes: Axes, line: Line, nth: int, values: Sequence[float]) -> None:
    """A baseline: its mean as a dashed line, its spread as a band, its trials as dots at the right edge."""
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    axes.axhspan(mean - spread, mean + spread, color=line.look.colour, alpha=_FAINT / 2, linewidth=0, zorder=1)
    dash = (0, [(4, 2), *_DASHES][nth % (1 + len(_DASHES))])
    axes.axhline(mean, color=line.look.colour, linestyle=dash, linewidth=1.2, label=line.label, zorder=2)
    axes.scatter(
        np.ones(len(values)), values, s=9, color=line.look.colour, alpha=0.55, linewidths=0, clip_on=False,
        transform=axes.get_yaxis_transform(), zorder=3,
    )  # fmt: skip


def _scatter(axes: Axes, sheet: Sheet, y: str) -> None:
    """A mark with one standard deviation both ways at the mean of each line, and its trials as dots."""
    x = sheet.file.x.field
    for line, nth in _numbered(sheet.lines):
        dots = np.array([(record[x], record[y]) for record in line.records], float)
        mean, spread = dots.mean(0), dots.std(0, ddof=1) if len(dots) > 1 else np.zeros(2)
        axes.scatter(dots[:, 0], dots[:, 1], s=9, color=line.look.colour, alpha=0.55, linewidths=0, zorder=3)
        axes.errorbar(
            mean[0], mean[1], xerr=spread[0], yerr=spread[1], color=line.look.colour, markersize=7, linewidth=0,
            elinewidth=1, label=line.label, zorder=4, **_mark(line, nth),
        )  # fmt: skip
    axes.margins(0.12)
    if sheet.file.x.logarithmic:
        _logarithmic(axes)


def _logarithmic(axes: Axes) -> None:
    """Powers of ten across, and a place for 0 at the left."""
    axes.set_xscale("symlog", linthresh=_LEAST, linscale=0.8)
    axes.set_xlim(left=-_LEAST / 2)
    ticks = [0.0, *(_LEAST * 10**power for power in range(8) if _LEAST * 10**power <= axes.get_xlim()[1])]
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
    axes.minorticks_off()


def _thresholds(axes: Axes, lines: Sequence[Line], curves: Curves) -> None:
    """Each trial's accuracy as a thin line, the mean as a thick one, a mark where the protocol cuts."""
    grid = 100 * threshold_grid()[::_EVERY]
    for line, nth in _numbered(lines):
        own = [record for record in line.records if record["id"] in curves]
        if not own:
            continue
        known = np.array([curves[record["id"]][::_EVERY] for record in own])
        mean, colour = known.mean(0), line.look.colour
        axes.plot(grid, known.T, color=colour, linewidth=0.5, alpha=0.5)
        if len(own) > 1:
            spread = known.std(0, ddof=1)
            axes.fill_between(grid, mean - spread, mean + spread, color=colour, alpha=_FAINT, linewidth=0)
        dash = _dash(line, nth)
        mark = {**_mark(line, nth), "markerfacecolor": "white", "markeredgecolor": colour, "markersize": 5}
        taken = np.array([(record["threshold"], record["gt_known_loc"]) for record in own], float)
        axes.plot(grid, mean, color=colour, linewidth=1.8, linestyle=dash)
        axes.plot(taken[:, 0], taken[:, 1], linewidth=0, zorder=4, **mark)
        axes.plot([], [], color=colour, linewidth=1.8, linestyle=dash, label=line.label, **mark)  # for the legend
    axes.set(xlim=(0, 100), ylim=(0, None))


def _numbered(lines: Sequence[Line]) -> Iterator[tuple[Line, int]]:
    """Each line with how many of the same method are before it."""
    for number, line in enumerate(lines):
        yield line, sum(other.look == line.look for other in lines[:number])


def _mark(line: Line, nth: int) -> dict[str, Any]:
    """The method's marker, then hollow, then other markers, for more settings of the same method."""
    markers = [line.look.marker, *(other for other in _MARKERS if other != line.look.marker)]
    inside, edge = ("white", line.look.colour) if nth % 2 else (line.look.colour, "white")
    return {"marker": markers[nth // 2 % len(markers)], "markerfacecolor": inside, "markeredgecolor": edge}


def _dash(line: Line, nth: int) -> Any:
    dashes = [line.look.dash, *_DASHES]
    return (0, dashes[nth % len(dashes)]) if dashes[nth % len(dashes)] else "-"


def _legend(figure: Figure, axes: Axes) -> None:
    """Above the panels, where it hides nothing; beside them, where room is made for it, if it is long."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    longest = max(map(len, labels))
    columns = int(figure.get_figwidth() / (0.7 + 0.075 * longest))  # inches: of line and gaps, and of a letter
    if columns * _ROWS < len(labels):
        figure.set_figwidth(figure.get_figwidth() + 0.7 + 0.075 * longest)
        figure.legend(handles, labels, loc="outside right upper", handlelength=2.6, fontsize=8)
    else:
        rows = -(-len(labels) // columns)
        figure.legend(handles, labels, loc="outside upper left", ncols=-(-len(labels) // rows), handlelength=2.6)
