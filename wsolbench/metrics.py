"""MaxBoxAcc, MaxBoxAccV2 and PxAP, fed batch by batch (Choe et al., CVPR 2020; clovaai/wsolevaluation)."""

from collections.abc import Sequence
from typing import Any, Self, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsolbench import boxes
from wsolbench.boxes import Boxes, ScoreMaps, Thresholds

HIT = 0.5
"""The IoU from which on a box is a hit for MaxBoxAcc."""

ERRORS = ("none", "class", "part", "more", "multiple", "other")
"""Kinds of error of an image, in the order of their numbers."""


class BoxAccuracies(TypedDict):
    """Percent of the images."""

    max_box_acc: float  # at IoU 0.5 and the best threshold for it
    max_box_acc_v2: float  # mean over the IoUs, each at the best threshold for it
    accuracy: NDArray[np.float64]  # (D, T)


def threshold_grid(step: float = 0.001) -> NDArray[np.float64]:
    """The thresholds 0, step, 2 step, ... below 1 that the field's metrics try."""
    return np.arange(0, 1, step)


class BoxAccuracy:
    """Share of the images with a box that overlaps a true one, at each of many thresholds.

    An image is a hit where any of its boxes reaches the IoU with any true box. MaxBoxAcc takes the largest contour;
    MaxBoxAccV2 takes all of them and the IoUs 0.3, 0.5 and 0.7; both are inclusive and clip (clovaai/wsolevaluation,
    evaluation.py).

    Args:
        thresholds: T, as for `boxes_at_thresholds`.
        iou_thresholds: D numbers above 0 and at most 1, 0.5 among them.
        contours: as for `boxes_at_thresholds`.
        convention: of the IoU, as for `box_iou`.
        clip: as for `boxes_at_thresholds`.
        threads: among so many the maps of an update are shared out.
    """

    def __init__(
        self,
        thresholds: Thresholds,
        iou_thresholds: Sequence[float] = (HIT,),
        contours: boxes.Contours = "largest",
        *,
        convention: boxes.Convention = "inclusive",
        clip: bool = True,
        threads: int = 1,
    ) -> None:
        boxes.check_contours(contours)
        boxes.check_convention(convention)
        if HIT not in iou_thresholds or not all(0 < iou <= 1 for iou in iou_thresholds):
            raise ValueError(f"IoU thresholds must be above 0 and at most 1, {HIT} among them, not {iou_thresholds!r}")
        self.thresholds = boxes.checked_thresholds(thresholds)
        if not self.thresholds.size:
            raise ValueError("thresholds must hold at least one number")
        self.iou_thresholds = np.array(iou_thresholds, np.float64)
        self.contours: boxes.Contours = contours
        self.convention: boxes.Convention = convention
        self.clip = clip
        self.threads = threads
        self.hits = np.zeros((len(self.iou_thresholds), len(self.thresholds)), np.int64)
        self.count = 0

    @property
    def rule(self) -> tuple[Any, ...]:
        """All that it counts by, but for the contours."""
        return self.convention, self.clip, tuple(self.iou_thresholds), tuple(self.thresholds)

    def update(self, score_maps: ScoreMaps, boxes_of_images: Sequence[ArrayLike]) -> None:
        """Add images; all of them or, where a ValueError or TypeError is raised, none.

        Args:
            score_maps: (N, H, W) float32 or float64 in [0, 1].
            boxes_of_images: for each image its true boxes (M, 4), M >= 1, x0, y0, x1, y1 in pixels of the score map.
        """
        update([self], score_maps, boxes_of_images)

    def merge(self, other: Self) -> None:
        """Add the images of another; ValueError if it counts something else."""
        if (self.contours, self.rule) != (other.contours, other.rule):
            raise ValueError(
                "only metrics of the same contours, convention, IoU thresholds and thresholds can be merged"
            )
        self.hits += other.hits
        self.count += other.count

    def compute(self) -> BoxAccuracies:
        """The accuracies over all images so far; ValueError if there is none."""
        if not self.count:
            raise ValueError("there is no image to take the accuracy of")
        accuracy = self.hits * 100.0 / self.count
        best = accuracy.max(1)
        return {
            "max_box_acc": float(best[self.iou_thresholds == HIT][0]),
            "max_box_acc_v2": float(best.mean()),
            "accuracy": accuracy,
        }


def update(accuracies: Sequence[BoxAccuracy], score_maps: ScoreMaps, boxes_of_images: Sequence[ArrayLike]) -> None:
    """Add images, as `BoxAccuracy.update` does, to several at once, which shares the work.

    Args:
        accuracies: one at least; the first says among how many threads, and a ValueError is raised where another
            differs from it in more than that and the contours.
        score_maps: (N, H, W) float32 or float64 in [0, 1].
        boxes_of_images: for each image its true boxes (M, 4), M >= 1, x0, y0, x1, y1 in pixels of the score map.
    """
    if len({accuracy.rule for accuracy in accuracies}) != 1:
        raise ValueError("metrics that are updated at once, one or more, must differ in nothing but their contours")
    one = accuracies[0]
    boxes.check_score_maps(score_maps)
    truths = _checked_truths(boxes_of_images, len(score_maps))
    wanted = {accuracy.contours for accuracy in accuracies}

    def work(part: slice) -> dict[boxes.Contours, NDArray[np.int64]]:
        return _hits(one, wanted, score_maps[part], truths[part])

    parts = boxes.in_chunks(work, len(score_maps), one.threads)
    for accuracy in dict.fromkeys(accuracies):
        accuracy.hits += sum((part[accuracy.contours] for part in parts), np.zeros_like(accuracy.hits))
        accuracy.count += len(score_maps)


def _hits(
    rule: BoxAccuracy, wanted: set[boxes.Contours], score_maps: ScoreMaps, truths: Sequence[NDArray[np.float64]]
) -> dict[boxes.Contours, NDArray[np.int64]]:
    """(D, T) by contours."""
    kernels = boxes.compiled_kernels("_segments")
    of_kernels: set[boxes.Contours] = wanted & {"largest", "all"} if kernels else set()
    hits = {contours: _hits_opencv(rule, contours, score_maps, truths) for contours in wanted - of_kernels}
    if kernels and of_kernels:
        hits |= {contours: np.zeros_like(rule.hits) for contours in of_kernels}
        none = np.zeros_like(rule.hits[:0])
        kernels.count_hits(
            boxes.ringed_levels(kernels, score_maps),
            boxes.box_limits(score_maps.shape[1:], clip=rule.clip),
            np.concatenate(truths),
            np.cumsum([0, *map(len, truths)]),
            rule.thresholds,
            rule.iou_thresholds,
            float(rule.convention == "inclusive"),
            hits.get("largest", none),
            hits.get("all", none),
        )
    return hits


def _hits_opencv(
    rule: BoxAccuracy, contours: boxes.Contours, score_maps: ScoreMaps, truths: Sequence[NDArray[np.float64]]
) -> NDArray[np.int64]:
    found = boxes.boxes_at_thresholds_opencv(score_maps, rule.thresholds, contours, clip=rule.clip)
    reached = np.array([_best_iou(*pair, rule.convention) for pair in zip(found, truths, strict=True)])
    return (reached[None] >= rule.iou_thresholds[:, None, None]).sum(1)


class PixelAveragePrecision:
    """PxAP: the area under the precision-recall curve of pixels above each threshold (clovaai/wsolevaluation).

    Args:
        thresholds: ascending from 0 to below 1; by default 0, 0.001, ... 0.999.
    """

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        grid = boxes.checked_thresholds(threshold_grid() if thresholds is None else thresholds)
        self.edges = np.append(grid, [1.0, 2.0, 3.0])
        if self.edges[0] != 0 or not (np.diff(self.edges) > 0).all():
            raise ValueError(f"thresholds must ascend from 0 to below 1, not {grid!r}")
        self.counts = np.zeros((3, len(self.edges) - 1), np.int64)  # of background, foreground, ignored pixels

    def update(self, score_maps: ScoreMaps, masks: NDArray[np.uint8]) -> None:
        """Add images; all of them or, where a ValueError or TypeError is raised, none.

        Args:
            score_maps: (N, H, W) float32 or float64 in [0, 1].
            masks: (N, H, W) uint8: 1 foreground, 0 background, 255 ignored.
        """
        boxes.check_score_maps(score_maps)
        if masks.dtype != np.uint8 or masks.shape != score_maps.shape:
            raise ValueError(f"masks must be uint8 {score_maps.shape}, not {masks.dtype} {masks.shape}")
        kernels = boxes.compiled_kernels("_scores")
        count = _counts_numpy if kernels is None else kernels.count_scores
        counts = np.zeros_like(self.counts)
        scores, values = score_maps.reshape(-1), masks.reshape(-1)
        if not count(scores, values, self.edges, float(len(self.edges) - 3), counts):
            boxes.check_scores(score_maps)
            raise ValueError(f"mask values must be 0, 1 or 255, not {sorted(set(np.unique(masks)) - {0, 1, 255})}")
        self.counts += counts

    def merge(self, other: Self) -> None:
        """Add the images of another; ValueError if its thresholds are others."""
        if not np.array_equal(self.edges, other.edges):
            raise ValueError("only metrics of the same thresholds can be merged")
        self.counts += other.counts

    def compute(self) -> float:
        """Percent; ValueError if no pixel so far is foreground."""
        false, true = (self.counts[value, ::-1].cumsum().astype(np.float64) for value in (0, 1))
        if not true[-1]:
            raise ValueError("there is no foreground pixel to take the precision of")
        above = true + false > 0
        precision = true[above] / (true + false)[above]
        recall_gain = np.diff(true / true[-1], prepend=0.0)[above]
        return float((precision * recall_gain).sum() * 100)


def _best_iou(found: Boxes | list[Boxes], truths: NDArray[np.float64], convention: boxes.Convention) -> list[float]:
    """The greatest IoU at each threshold, of one box or of an array of them with any true one."""
    if isinstance(found, np.ndarray):
        return boxes.box_iou(found, truths, convention).max(1).tolist()
    best = {id(own): float(boxes.box_iou(own, truths, convention).max()) for own in found}  # thresholds share arrays
    return [best[id(own)] for own in found]


def _counts_numpy(
    scores: ScoreMaps, masks: NDArray[np.uint8], edges: NDArray[np.float64], _: float, counts: NDArray[np.int64]
) -> bool:
    """`count_scores` where there is no numba."""
    if not (scores >= 0).all() or not (scores <= 1).all() or not np.isin(masks, (0, 1, 255)).all():
        return False
    for row, value in enumerate((0, 1, 255)):
        counts[row] += np.histogram(scores[masks == value], bins=edges)[0]
    return True


def _checked_truths(boxes_of_images: Sequence[ArrayLike], count: int) -> list[NDArray[np.float64]]:
    """As float64; ValueError unless there are as many as images, each with a box, each box with x1 >= x0, y1 >= y0."""
    if len(boxes_of_images) != count:
        raise ValueError(f"there are {count} score maps, but true boxes of {len(boxes_of_images)} images")
    truths = [np.asarray(own, np.float64) for own in boxes_of_images]
    for n, own in enumerate(truths):
        if own.shape[1:] != (4,) or not len(own) or not (own[:, 2:] >= own[:, :2]).all():
            raise ValueError(f"image {n} must have boxes (M, 4), M >= 1, x1 >= x0 and y1 >= y0, not {own.tolist()!r}")
    return truths
