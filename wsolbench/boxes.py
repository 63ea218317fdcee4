"""Boxes: around the regions of score maps at many thresholds, their overlap, and their scaling.

`boxes_at_thresholds` gives the boxes of clovaai/wsolevaluation (evaluation.py, by OpenCV's contours) in one compiled
sweep over the 255 levels of a map. `boxes_at_thresholds_opencv` draws the contours: the check of the former, and its
place where there is no numba.
"""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

ScoreMaps: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
Boxes: TypeAlias = NDArray[np.int64]
Levels: TypeAlias = NDArray[np.uint8]
Thresholds: TypeAlias = Sequence[float] | NDArray[np.floating]
Contours: TypeAlias = Literal["largest", "largest_rect", "all"]
Convention: TypeAlias = Literal["half_open", "inclusive"]
Result = TypeVar("Result")
Array = TypeVar("Array", NDArray[Any], "Tensor")

AXES = ("N", "H", "W")
CHUNK = 16  # maps at once: so few stay in the processor's cache from one step to the next


@overload
def boxes_at_thresholds(
    score_maps: ScoreMaps,
    thresholds: Thresholds,
    contours: Literal["largest", "largest_rect"] = "largest",
    *,
    clip: bool = True,
    threads: int = 1,
) -> Boxes: ...


@overload
def boxes_at_thresholds(
    score_maps: ScoreMaps, thresholds: Thresholds, contours: Literal["all"], *, clip: bool = True, threads: int = 1
) -> list[list[Boxes]]: ...


def boxes_at_thresholds(
    score_maps: ScoreMaps,
    thresholds: Thresholds,
    contours: Contours = "largest",
    *,
    clip: bool = True,
    threads: int = 1,
) -> Boxes | list[list[Boxes]]:
    """Boxes x0, y0, x1, y1 in pixels around what is above each threshold of each score map.

    A pixel is above where trunc(255 score) > int(threshold * max(trunc(255 score))). If none is, the box is 0, 0, 0, 0,
    or 0, 0, 1, 1 without `clip` (clovaai/wsolevaluation, evaluation.py; junsukchoe/ADL, evaluate.py).

    Args:
        score_maps: (N, H, W) float32 or float64 in [0, 1]; TypeError or ValueError for others.
        thresholds: T finite numbers.
        contours: "largest" by the area of the contour's polygon, "largest_rect" by that of its box (always drawn by
            OpenCV), or "all" of them, those of holes too.
        clip: x1, y1 are x + w, y + h but at most W - 1, H - 1; if false they are x + w, y + h.
        threads: among so many the maps are shared out.

    Returns:
        (N, T, 4), or for "all" a list of N lists of T arrays (M, 4), read-only, in any order, with duplicates.
    """
    check_contours(contours)
    kernels = compiled_kernels("_segments")
    if kernels is None or contours == "largest_rect":
        return boxes_at_thresholds_opencv(score_maps, thresholds, contours, clip=clip)
    check_score_maps(score_maps)
    grid = checked_thresholds(thresholds)

    def work(part: slice) -> list[tuple[Boxes, Boxes, Boxes]]:
        return _boxes_by_row(kernels, score_maps[part], grid, contours == "all", clip)

    found = [one for part in in_chunks(work, len(score_maps), threads) for one in part]
    if contours == "all":
        return [_shared(boxes, first.tolist(), rows.tolist()) for boxes, first, rows in found]
    return np.array([boxes[first[rows]] for boxes, first, rows in found], np.int64).reshape(
        len(score_maps), len(grid), 4
    )


def boxes_at_thresholds_opencv(
    score_maps: ScoreMaps, thresholds: Thresholds, contours: Contours = "largest", *, clip: bool = True
) -> Boxes | list[list[Boxes]]:
    """What `boxes_at_thresholds` returns, by drawing the contours once for each level that thresholds fall on."""
    check_contours(contours)
    check_score_maps(score_maps)
    grid = checked_thresholds(thresholds)
    found = [_boxes_of_map(levels, grid, contours, clip) for levels in _levels(score_maps)]
    if contours == "all":
        return found
    return np.array(found, np.int64).reshape(len(score_maps), len(grid), 4)


def box_iou(a: Array, b: Array, convention: Convention = "half_open") -> Array:
    """Intersection over union of (N, 4) and (M, 4) boxes x0, y0, x1, y1 -> (N, M) float64 in [0, 1].

    Column x1 and row y1 belong to an "inclusive" box, not to a "half_open" one. Boxes of no area have IoU 0.
    ValueError where x1 < x0 or y1 < y0.
    """
    xp, a, b = _checked_pair(a, b)
    return _iou(xp, a[:, None], b[None], convention)


def paired_iou(a: Array, b: Array, convention: Convention = "half_open") -> Array:
    """Intersection over union of each of (N, 4) boxes with that of (N, 4) others -> (N,); else as `box_iou`."""
    xp, a, b = _checked_pair(a, b)
    return _iou(xp, a, b, convention)


def _iou(xp: ModuleType, a: Any, b: Any, convention: str) -> Any:
    check_convention(convention)
    extra = 1 if convention == "inclusive" else 0
    overlap = xp.clip(xp.minimum(a[..., 2:], b[..., 2:]) - xp.maximum(a[..., :2], b[..., :2]) + extra, 0, None)
    sides_a, sides_b = a[..., 2:] - a[..., :2] + extra, b[..., 2:] - b[..., :2] + extra
    intersection = overlap[..., 0] * overlap[..., 1]
    union = sides_a[..., 0] * sides_a[..., 1] + sides_b[..., 0] * sides_b[..., 1] - intersection
    return intersection / xp.where(union > 0, union, xp.ones_like(union))


def scale_boxes(
    boxes: ArrayLike, from_size: tuple[int, int], to_size: tuple[int, int], *, truncate: bool
) -> NDArray[np.float64] | Boxes:
    """Boxes (..., 4) of an image of `from_size` in pixels of an image of `to_size`; both are width, height.

    Cut to whole pixels towards zero, as int64, if `truncate` (clovaai/wsolevaluation, evaluation.py), else float64.
    """
    if min(*from_size, *to_size) <= 0:
        raise ValueError(f"sizes must be positive, not {from_size!r} and {to_size!r}")
    old, new = (np.array([*size, *size], np.float64) for size in (from_size, to_size))
    scaled = np.asarray(boxes, np.float64) * new / old  # in this order: the quotient first would round differently
    return scaled.astype(np.int64) if truncate else scaled


def in_chunks(work: Callable[[slice], Result], count: int, threads: int) -> list[Result]:
    """`work` of all parts of `count` maps, in their order; `threads` of them at a time."""
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads!r}")
    size = max(1, min(CHUNK, -(-count // threads)))
    parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    if threads == 1:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, parts))


@cache
def compiled_kernels(module: str) -> ModuleType | None:
    """A module of kernels; None, with a note on stderr, on a machine without numba."""
    try:
        return import_module(f"wsolbench.{module}")
    except ImportError as error:
        sys.stderr.write(f"wsolbench: evaluation is several times slower without numba ({error})\n")
        return None


def ringed_levels(kernels: ModuleType, score_maps: ScoreMaps) -> Levels:
    """trunc(255 score) of (N, H, W) scores with a ring of zeros around each map: (N, H + 2, W + 2) uint8."""
    count, height, width = score_maps.shape
    levels = np.zeros((count, height + 2, width + 2), np.uint8)
    bad = kernels.quantise(np.ascontiguousarray(score_maps), levels)
    if bad >= 0:
        check_scores(score_maps[bad])
    return levels


def check_convention(convention: str) -> None:
    """ValueError unless it is a convention."""
    if convention not in ("half_open", "inclusive"):
        raise ValueError(f"convention must be 'half_open' or 'inclusive', not {convention!r}")


def check_contours(contours: str) -> None:
    """ValueError unless it is a choice of contours."""
    if contours not in ("largest", "largest_rect", "all"):
        raise ValueError(f"contours must be 'largest', 'largest_rect' or 'all', not {contours!r}")


def check_score_maps(score_maps: ScoreMaps) -> None:
    """TypeError or ValueError unless it is an array (N, H, W) of float32 or float64 with a pixel."""
    if not isinstance(score_maps, np.ndarray) or score_maps.dtype not in (np.float32, np.float64):
        given = score_maps.dtype if isinstance(score_maps, np.ndarray) else type(score_maps).__name__
        raise TypeError(f"score maps must be a numpy array of float32 or float64, not {given}")
    if score_maps.ndim != len(AXES) or 0 in score_maps.shape[1:]:
        raise ValueError(f"score maps must be (N, H, W) with at least one pixel, not {score_maps.shape}")


def check_scores(scores: ScoreMaps) -> None:
    """ValueError unless all are numbers in [0, 1]."""
    if np.isnan(scores).any():
        raise ValueError("score maps must not hold NaN")
    if scores.size and not 0 <= scores.min() <= scores.max() <= 1:
        raise ValueError(f"scores must be in [0, 1], not from {scores.min()!r} to {scores.max()!r}")


def checked_thresholds(thresholds: Thresholds) -> NDArray[np.float64]:
    """As (T,) float64; ValueError unless they are finite numbers."""
    grid = np.ascontiguousarray(thresholds, dtype=np.float64)
    if grid.ndim != 1 or not np.isfinite(grid).all():
        raise ValueError(f"thresholds must be a list of finite numbers, not {thresholds!r}")
    return grid


def _boxes_by_row(
    kernels: ModuleType, score_maps: ScoreMaps, grid: NDArray[np.float64], every: bool, clip: bool
) -> list[tuple[Boxes, Boxes, Boxes]]:
    """For each map its boxes in the order of their rows, where each row begins, and the row of each threshold."""
    levels = ringed_levels(kernels, score_maps)
    first = np.empty((len(levels), kernels.ROWS + 1), np.int64)
    rows = np.empty((len(levels), len(grid)), np.int64)
    limits = box_limits(score_maps.shape[1:], clip)
    boxes = kernels.boxes_of_rows(levels, limits, grid, every, first, rows)
    return list(zip(boxes, first, rows, strict=True))


def box_limits(shape: tuple[int, ...], clip: bool) -> Boxes:
    """The greatest x1 and y1 of boxes in a map (H, W), then x1 and y1 of the box around nothing."""
    height, width = shape
    return np.array([width - 1, height - 1, 0, 0] if clip else [width, height, 1, 1])


def _shared(boxes: Boxes, first: list[int], rows: list[int]) -> list[Boxes]:
    """The boxes of each row; thresholds of one row share an array, which is therefore read-only."""
    boxes.flags.writeable = False
    of_row = {row: boxes[first[row] : first[row + 1]] for row in set(rows)}
    return [of_row[row] for row in rows]


def _levels(score_maps: ScoreMaps) -> Levels:
    check_scores(score_maps)
    return (score_maps.astype(np.float64) * 255).astype(np.uint8)


def _boxes_of_map(levels: Levels, grid: NDArray[np.float64], contours: Contours, clip: bool) -> list[Boxes]:
    greatest = int(levels.max())
    highest = np.clip(np.trunc(grid * greatest), -1, greatest)
    of_level = {}
    for level in np.unique(highest):
        boxes = _drawn_boxes((levels > level).astype(np.uint8), contours)
        limits = box_limits(levels.shape, clip)
        boxes[:, 2:] = np.minimum(boxes[:, 2:], limits[:2]) if boxes.any() else limits[2:]
        boxes.flags.writeable = False
        of_level[level] = boxes
    return [of_level[level] for level in highest]


def _drawn_boxes(mask: Levels, contours: Contours) -> Boxes:
    """x, y, x + w, y + h of the chosen contours of a mask; zeros if it is empty."""
    import cv2  # noqa: PLC0415  # only where contours are drawn

    found = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
    if len(found) == 0:
        return np.zeros((1, 4), np.int64)
    boxes = np.array([cv2.boundingRect(contour) for contour in found], np.int64)
    if contours == "all":
        chosen = slice(None)
    else:  # of equals the one that OpenCV lists first
        areas = [cv2.contourArea(c) for c in found] if contours == "largest" else boxes[:, 2] * boxes[:, 3]
        best = int(np.argmax(areas))
        chosen = slice(best, best + 1)
    boxes[:, 2:] += boxes[:, :2]
    return boxes[chosen]


def _library(array: object) -> ModuleType:
    """PyTorch for tensors, else numpy."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, torch.Tensor) else np


def _checked_pair(a: Any, b: Any) -> tuple[ModuleType, Any, Any]:
    """The library of `a`, and both as its float64 boxes."""
    xp = _library(a)
    a, b = (xp.asarray(boxes, dtype=xp.float64) for boxes in (a, b))
    return xp, _checked_boxes(a, "a"), _checked_boxes(b, "b")


def _checked_boxes(boxes: Any, name: str) -> Any:
    if boxes.shape[1:] != (4,):
        raise ValueError(f"boxes {name} must be (N, 4), not {tuple(boxes.shape)}")
    wrong = ~(boxes[:, 2:] >= boxes[:, :2]).all(1)
    if wrong.any():
        raise ValueError(f"boxes {name} must have x1 >= x0 and y1 >= y0, not {boxes[wrong][0].tolist()}")
    return boxes
