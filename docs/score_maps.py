"""Draw score maps of two trials side by side: image, and each trial's map with its box over it.

    python docs/score_maps.py RESULTS ID ID --images 6 --out docs/score_maps.png

The images are the first ones of different classes, in the order of the test split; none is picked by hand.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from wsolbench import job, scoremaps
from wsolbench.geometry import Geometry, window
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import from_spec

GEOMETRY: Geometry = "resize224"
TRUE, PREDICTED = "#0072B2", "#D55E00"


def frame(axes: Axes, box: NDArray[Any], colour: str, style: str) -> None:
    """A half-open box (4,) on the pixels of an image."""
    x0, y0, x1, y1 = box - 0.5
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linestyle=style, linewidth=2))


def main() -> None:
    """Draw the picture that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("ids", nargs=2)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("docs/score_maps.png"))
    asked = parser.parse_args()
    store = Store(asked.results)
    trials = [from_spec(store.spec(name)) for name in asked.ids]
    split = job.splits(trials[0], Place(asked.results, asked.data)).test
    chosen = [int(np.flatnonzero(split.labels == label)[0]) for label in np.unique(split.labels)[: asked.images]]
    figure, rows = plt.subplots(3, len(chosen), figsize=(1.9 * len(chosen), 6), squeeze=False)
    for column, index in enumerate(chosen):
        side = trials[0].image_size
        view = window(GEOMETRY, split.sizes[index], side)
        image, truths = view.pixels(split.read(index)), view.boxes(split.boxes[index], split.sizes[index])
        rows[0][column].imshow(image)
        for row, name in enumerate(asked.ids, start=1):
            record, arrays = store.record(name), store.arrays(name, "predictions.npz")
            assert record is not None  # noqa: S101  the user named a finished trial
            raw = store.arrays(name, "scoremaps.npz")[f"{GEOMETRY}/test"][index : index + 1]
            score_map = scoremaps.min_max(scoremaps.resized(raw, side, side, "linear"))[0]
            rows[row][column].imshow(image)
            rows[row][column].imshow(score_map, cmap="viridis", alpha=0.55, vmin=0, vmax=1)
            protocol = record["protocol"]
            frame(rows[row][column], arrays[f"{protocol}/box"][index], PREDICTED, "-")
            rows[row][column].set_xlabel(f"IoU {arrays[f'{protocol}/iou'][index]:.2f}")
            rows[row][0].set_ylabel(trials[row - 1].method.upper())
        for row in rows:
            row[column].set_xticks([])
            row[column].set_yticks([])
            for truth in truths:
                frame(row[column], truth, TRUE, "--")
    rows[0][0].set_ylabel("image")
    figure.tight_layout()
    figure.savefig(asked.out, dpi=56)


if __name__ == "__main__":
    main()
