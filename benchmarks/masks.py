"""Compare PxAP, masks and all, with the recipe of clovaai/wsolevaluation: same value, and how many times faster.

    python benchmarks/masks.py --images 64 --pairs 5

Masks are PNG files of --width pixels, three quarters as high, of --bits 1 or 8, in the layout of OpenImages30k: one or
two objects an image and a region to ignore. Score maps are float32. The recipe reads, scales and joins the files of
each image whenever it evaluates. Ours decodes them once in a trial: "first" is the evaluation that does, "again" any
further one. One thread scores on both sides; ours decodes on several.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from evaluation import SIDE, class_map, seconds
from numpy.typing import NDArray
from PIL import Image

from wsolbench.dataset import Split
from wsolbench.datasets.openimages import OpenImages
from wsolbench.metrics import PixelAveragePrecision
from wsolbench.truth import Truth, of_network


def write(folder: Path, count: int, width: int, mode: str, random: torch.Generator) -> None:
    """Images, masks and their lists; every other image has two objects."""
    images, metadata = folder / "dataset" / "OpenImages", folder / "metadata" / "OpenImages" / "test"
    images.mkdir(parents=True)
    metadata.mkdir(parents=True)
    lines: dict[str, list[str]] = {"image_ids": [], "class_labels": [], "image_sizes": [], "localization": []}
    for index in range(count):
        name = f"{index}.jpg"
        Image.new("RGB", (8, 6)).save(images / name)
        planes = [f"{index}_{kind}.png" for kind in ("ignore", "one", "two")[: 2 + index % 2]]
        for plane in planes:
            Image.fromarray(class_map(random, width * 3 // 4, width) > 0.5).convert(mode).save(images / plane)
        lines["image_ids"].append(name)
        lines["class_labels"].append(f"{name},0")
        lines["image_sizes"].append(f"{name},8,6")
        objects = zip(planes[1:], (planes[0], ""), strict=False)
        lines["localization"] += [f"{name},{plane},{ignore}" for plane, ignore in objects]
    for file, rows in lines.items():
        (metadata / f"{file}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


def recipe_mask(folder: Path, index: int) -> NDArray[np.uint8]:
    """The files of an image, each read and scaled to the score map: 1 object, 0 background, 255 ignored."""

    def plane(kind: str) -> NDArray[np.bool_]:
        read = cv2.imread(str(folder / "dataset" / "OpenImages" / f"{index}_{kind}.png"), cv2.IMREAD_GRAYSCALE)
        return cv2.resize(read, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) > 0.5

    mask = np.any([plane(kind) for kind in ("one", "two")[: 1 + index % 2]], axis=0).astype(np.uint8)
    mask[plane("ignore") & (mask == 0)] = 255
    return mask


def recipe(folder: Path, maps: NDArray[np.float32]) -> float:
    """PxAP of all images: two histograms each, then the area under the curve."""
    edges = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])
    counts = np.zeros((2, len(edges) - 1))
    for index, score_map in enumerate(maps):
        mask = recipe_mask(folder, index)
        counts += [np.histogram(score_map[mask == value], edges)[0] for value in (0, 1)]
    false, true = counts[:, ::-1].cumsum(1)
    above = true + false > 0
    precision, recall = true[above] / (true + false)[above], true[above] / true[-1]
    return float(100 * (precision * np.diff(recall, prepend=0)).sum())


def ours(truth: Truth, maps: NDArray[np.float32]) -> float:
    """PxAP of all images."""
    precision = PixelAveragePrecision()
    for start in range(0, len(maps), 64):
        indices = range(start, min(start + 64, len(maps)))
        masks = truth.masks(indices)
        assert masks is not None  # noqa: S101  they were written
        precision.update(maps[indices.start : indices.stop], masks)
    return precision.compute()


def truth_of(split: Split) -> Truth:
    """The truth at the size of the maps, nothing decoded yet."""
    return of_network(split, "resize224", SIDE)


def main() -> None:
    """Measure and print; exit 1 if the values differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--bits", type=int, choices=(1, 8), default=1)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    random = torch.Generator().manual_seed(0)
    maps = np.stack([class_map(random, SIDE, SIDE) for _ in range(asked.images)]).astype(np.float32)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, asked.images, asked.width, {1: "1", 8: "L"}[asked.bits], random)
        split = OpenImages().split("test", folder)
        kept = truth_of(split)
        theirs, found = recipe(folder, maps), ours(kept, maps)
        print(f"PxAP: recipe {theirs:.9f}, ours {found:.9f}")
        ratios: dict[str, list[float]] = {"first": [], "again": []}
        for _ in range(asked.pairs):
            slow = seconds(lambda: recipe(folder, maps))
            ratios["first"].append(slow / seconds(lambda: ours(truth_of(split), maps)))
            ratios["again"].append(slow / seconds(lambda: ours(kept, maps)))
    for when, found_ratios in ratios.items():
        spread = f"{min(found_ratios):.1f} to {max(found_ratios):.1f}"
        print(f"{when}: {median(found_ratios):.1f}x (median of {asked.pairs} pairs; {spread})")
    sys.exit(abs(theirs - found) > 1e-9)


if __name__ == "__main__":
    main()
