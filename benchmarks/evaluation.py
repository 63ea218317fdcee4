"""Compare box and pixel metrics with the recipe of clovaai/wsolevaluation: same output, and how many times faster.

    python benchmarks/evaluation.py --maps 10000 --batches 4

First come all boxes of random and adversarial maps, map by map, then times: both sides in turn on the same maps, and
the median of the ratios. The recipe runs on one thread, as it does there.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from statistics import median
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from wsolbench.boxes import Boxes, box_iou, boxes_at_thresholds
from wsolbench.metrics import BoxAccuracy, PixelAveragePrecision, threshold_grid

Map: TypeAlias = NDArray[np.float64]

SIDE = 224
BATCH = 64  # as many as an evaluation has at once
REPEATS = 5
IOUS = {False: (0.5,), True: (0.3, 0.5, 0.7)}  # of MaxBoxAcc with the largest contour, of MaxBoxAccV2 with all


def recipe_boxes(score_map: Map, thresholds: Map, *, every: bool) -> list[Boxes]:
    """The boxes at each threshold: binarise, follow the contours and box them, each time anew."""
    height, width = score_map.shape
    image = (score_map * 255).astype(np.uint8)
    found = []
    for threshold in thresholds:
        _, binary = cv2.threshold(image, int(threshold * np.max(image)), 255, cv2.THRESH_BINARY)
        contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
        if contours and not every:
            contours = [max(contours, key=cv2.contourArea)]
        corners = []
        for x, y, w, h in map(cv2.boundingRect, contours):
            corners.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
        found.append(np.array(corners or [[0, 0, 0, 0]]))
    return found


def recipe_hits(score_map: Map, truths: Boxes, thresholds: Map, *, every: bool) -> NDArray[np.bool_]:
    """Whether the best box at each threshold reaches each IoU: (D, T)."""
    found = recipe_boxes(score_map, thresholds, every=every)
    ious = box_iou(np.concatenate(found), truths, "inclusive")
    best, start = [], 0
    for boxes in found:
        best.append(max(ious.max(1)[start : start + len(boxes)]))  # of all boxes, at each threshold: so the recipe
        start += len(boxes)
    return np.array([np.array(best) >= iou for iou in IOUS[every]])


def recipe_counts(score_map: Map, mask: NDArray[np.uint8], edges: Map) -> NDArray[np.int64]:
    """Scores of the background and of the foreground in each bin: (2, B)."""
    if np.isnan(score_map).any() or (score_map > 1).any() or (score_map < 0).any():
        raise ValueError
    return np.array([np.histogram(score_map[mask == value], edges)[0] for value in (0, 1)])


def noise(random: torch.Generator, height: int, width: int) -> Map:
    """Independent scores."""
    return torch.rand((height, width), generator=random, dtype=torch.float64).numpy()


def checkerboard(random: torch.Generator, height: int, width: int) -> Map:
    """Fields of one to three pixels of a few levels."""
    period = number(random, 1, 3)
    y, x = np.mgrid[:height, :width] // period
    return (x + y) % 2 * np.round(noise(random, height, width) * 2 + 1) / 3


def rings(random: torch.Generator, height: int, width: int) -> Map:
    """Circles in circles with gnawed edges: holes, and regions in holes."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height * 0.5, x - width * 0.4) / number(random, 1, 6)
    levels = number(random, 2, 5)
    gnawed = noise(random, height, width) > 0.97
    return np.where(gnawed, 0.5, distance.astype(int) % levels / (levels - 1))


def plateaus(random: torch.Generator, height: int, width: int) -> Map:
    """Rectangles of few levels, one upon the other."""
    score_map = np.zeros((height, width))
    for _ in range(number(random, 1, 12)):
        y, x = number(random, 0, height - 1), number(random, 0, width - 1)
        score_map[y : y + number(random, 1, height), x : x + number(random, 1, width)] = number(random, 0, 4) / 4
    return score_map


def class_map(random: torch.Generator, height: int, width: int) -> Map:
    """Like class activation maps: noise and one to three peaks in 7, 14 or 28 cells a side, resized, from 0 to 1."""
    cells = 7 * 2 ** number(random, 0, 2)
    y, x = np.mgrid[:cells, :cells] / cells
    score_map = 0.15 * torch.randn((cells, cells), generator=random, dtype=torch.float64).numpy()
    for _ in range(number(random, 1, 3)):
        centre_y, centre_x, size, weight = torch.rand(4, generator=random).tolist()
        spread = 0.08 + 0.22 * size
        score_map += (0.5 + weight) * np.exp(-((y - centre_y) ** 2 + (x - centre_x) ** 2) / (2 * spread**2))
    ways = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)
    score_map = cv2.resize(score_map, (width, height), interpolation=ways[number(random, 0, 1)])
    return (score_map - score_map.min()) / max(np.ptp(score_map), 1e-9)


KINDS = (noise, checkerboard, rings, plateaus, class_map)


def number(random: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high."""
    return int(torch.randint(low, high + 1, (), generator=random))


def any_maps(random: torch.Generator) -> Iterator[Map]:
    """Maps of all kinds in turn; of any size up to 48, now and then a line or a class map of full size."""
    while True:
        for kind in KINDS:
            sides = [number(random, 1, 48), number(random, 1, 48)]
            chance = number(random, 0, 19)
            if chance < 2:
                sides[chance] = 1
            yield kind(random, *([SIDE, SIDE] if chance == 2 and kind is class_map else sides))


def check(count: int, random: torch.Generator) -> int:
    """How many of so many maps have other boxes than those of the recipe at any level, in either mode."""
    thresholds = np.arange(256) / 255.5
    different = 0
    for score_map in islice(any_maps(random), count):
        largest = boxes_at_thresholds(score_map[None], thresholds)[0]
        every = boxes_at_thresholds(score_map[None], thresholds, "all")[0]
        same = np.array_equal(largest, np.concatenate(recipe_boxes(score_map, thresholds, every=False)))
        for ours, theirs in zip(every, recipe_boxes(score_map, thresholds, every=True), strict=True):
            same &= sorted(ours.tolist()) == sorted(theirs.tolist())
        different += not same
    return different


def seconds(work: Callable[[], object]) -> float:
    """That the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratio(ours: Callable[[], object], recipe: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of ours, and how many times those the recipe takes."""
    before = [seconds(ours) for _ in range(REPEATS)]
    theirs = seconds(recipe)
    middle = median(before + [seconds(ours) for _ in range(REPEATS)])
    return middle, theirs / middle


def true_boxes(random: torch.Generator, count: int) -> list[Boxes]:
    """One to three true boxes an image."""
    corners = [torch.randint(0, SIDE, (number(random, 1, 3), 2, 2), generator=random).numpy() for _ in range(count)]
    return [np.sort(own, axis=1).reshape(-1, 4) for own in corners]


def time_boxes(maps: Map, thresholds: Map, threads: int) -> dict[str, tuple[float, float]]:
    """The boxes alone."""
    return {
        f"boxes, {contours}": ratio(
            lambda contours=contours: boxes_at_thresholds(maps, thresholds, contours, threads=threads),
            lambda contours=contours: [recipe_boxes(one, thresholds, every=contours == "all") for one in maps],
        )
        for contours in ("largest", "all")
    }


def time_metrics(maps: Map, truths: list[Boxes], thresholds: Map, threads: int) -> dict[str, tuple[float, float]]:
    """MaxBoxAcc and MaxBoxAccV2, which must be the same."""
    results = {}
    for name, contours in (("MaxBoxAcc", "largest"), ("MaxBoxAccV2", "all")):
        every = contours == "all"

        def ours(contours: str = contours, every: bool = every) -> BoxAccuracy:
            metric = BoxAccuracy(thresholds, IOUS[every], contours, threads=threads)
            metric.update(maps, truths)
            return metric

        def recipe(every: bool = every) -> NDArray[np.int64]:
            pairs = zip(maps, truths, strict=True)
            return sum(recipe_hits(*pair, thresholds, every=every).astype(np.int64) for pair in pairs)

        if not np.array_equal(ours().hits, recipe()):
            sys.exit(f"{name} differs from the recipe's")
        results[name] = ratio(ours, recipe)
    return results


def time_pixels(maps: Map, masks: NDArray[np.uint8]) -> tuple[float, float]:
    """PxAP, whose counts must be the same."""

    def ours() -> PixelAveragePrecision:
        metric = PixelAveragePrecision()
        for score_map, mask in zip(maps, masks, strict=True):
            metric.update(score_map[None], mask[None])
        return metric

    edges = ours().edges

    def recipe() -> NDArray[np.int64]:
        return sum(recipe_counts(*pair, edges) for pair in zip(maps, masks, strict=True))

    if not np.array_equal(ours().counts[:2], recipe()):
        sys.exit("PxAP differs from the recipe's")
    return ratio(ours, recipe)


def measure(batches: int, random: torch.Generator) -> dict[str, list[tuple[float, float]]]:
    """Each line's seconds and ratios, batch by batch."""
    thresholds = threshold_grid()
    lines: dict[str, list[tuple[float, float]]] = {}
    for _ in range(batches):
        maps = np.stack([class_map(random, SIDE, SIDE) for _ in range(BATCH)])
        truths = true_boxes(random, BATCH)
        inside = np.array([plateaus(random, SIDE, SIDE) > 0 for _ in maps], np.uint8)
        scattered = np.array([noise(random, SIDE, SIDE) < 0.4 for _ in maps], np.uint8)
        row = {"PxAP, rectangles": time_pixels(maps, inside), "PxAP, scattered": time_pixels(maps, scattered)}
        row |= {f"{name}, at 0.2": values for name, values in time_boxes(maps, thresholds[200:201], 1).items()}
        for threads in (1, 2):
            timed = time_boxes(maps, thresholds, threads) | time_metrics(maps, truths, thresholds, threads)
            row |= {f"{name}, {threads} thread{'s'[: threads - 1]}": values for name, values in timed.items()}
        for name, values in row.items():
            lines.setdefault(name, []).append(values)
    return lines


def main() -> None:
    """Print whether the boxes are the same, then a line for each thing timed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--maps", type=int, default=10_000, help="to compare the boxes of (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=4, help=f"of {BATCH} maps to time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the maps (default: %(default)s)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    random = torch.Generator().manual_seed(options.seed)
    different = check(options.maps, random)
    print(f"{different} of {options.maps:,} maps have other boxes than the recipe's, in either mode at any level")
    for name, pairs in measure(options.batches, random).items():
        ms = median(own for own, _ in pairs) / BATCH * 1e3
        print(f"{name:24} {ms:8.3f} ms a map  {median(times for _, times in pairs):6.1f} times as fast as the recipe")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
