"""Draws trials side by side on chosen images (Figures 3 and 4): image, score map, overlay with true and found box."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from wsolbench.drawing import style
from wsolbench.gallery import CARD, COLOURS, PREDICTED, TRUE, Box, Item, Seen

_CELL = 1.25  # of the picture, inches


def mosaic(trials: Sequence[Seen], groups: Mapping[str, Sequence[int]]) -> Figure:
    """A row for each image of each group; in it the image, then score map and overlay of each trial.

    Args:
        trials: tested on the same images; the last is the one that the groups are of.
        groups: by name, the indices of its images.
    """
    rows = [(group, index, not number) for group, found in groups.items() for number, index in enumerate(found)]
    columns = 1 + 2 * len(trials)
    with style():
        close = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        figure = Figure(figsize=(_CELL * columns + 0.4, (_CELL + 0.2) * len(rows) + 0.5), layout=close)
        grid = figure.subplots(max(len(rows), 1), columns, squeeze=False)
        titles = ["image", *(text for trial in trials for text in (f"{trial.name}: score map", f"{trial.name}: box"))]
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=8)
        for line, (group, index, begins) in zip(grid, rows, strict=False):
            _row(line, trials, index)
            if begins:
                line[0].set_ylabel(f"{trials[-1].name}: {group}", fontsize=9, fontweight="bold")
        figure.supxlabel(_caption(trials), fontsize=6, color="0.4", x=0.01, ha="left")
    return figure


def _row(line: Sequence[Axes], trials: Sequence[Seen], index: int) -> None:
    for axes in line:
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
    truth = trials[0].item(index)
    line[0].imshow(trials[0].image(index))
    line[0].set_xlabel(_short(truth.label), fontsize=7, labelpad=2)
    for number, trial in enumerate(trials):
        score_map, overlay = line[1 + 2 * number : 3 + 2 * number]
        item = trial.item(index)
        score_map.imshow(trial.score_map(index), cmap=COLOURS, vmin=0, vmax=1)
        overlay.imshow(trial.overlay(index))
        _boxes(overlay, item)
        overlay.set_xlabel(f"IoU {item.iou:.2f}, {'hit' if item.hit else 'miss'}", fontsize=7, labelpad=2)


def _boxes(axes: Axes, item: Item) -> None:
    for truth in item.truths:
        _frame(axes, truth, TRUE, (0, (3, 2)))
    _frame(axes, item.box, PREDICTED, "-")


def _frame(axes: Axes, box: Box, colour: str, dash: Any) -> None:
    """A half-open box on the pixels of a card, over a paler line that lifts it off the colours beneath."""
    x0, y0, x1, y1 = (min(max(corner, 1.0), CARD - 1.0) - 0.5 for corner in box)
    for drawn in ({"edgecolor": "white", "linewidth": 2.6}, {"edgecolor": colour, "linestyle": dash, "linewidth": 1.5}):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, **drawn))


def _short(text: str) -> str:
    return text if len(text) <= 26 else text[:25] + "\N{HORIZONTAL ELLIPSIS}"  # noqa: PLR2004


def _caption(trials: Sequence[Seen]) -> str:
    named = ", ".join(f"{trial.name} {trial.id} seed {trial.record['trial']['seed']}" for trial in trials)
    spec = trials[0].record["trial"]
    settings = f"{spec['dataset']}, {spec['backbone']}, protocol {trials[0].protocol}"
    return f"{settings}. {named}. Dashed: true box; solid: predicted box."
