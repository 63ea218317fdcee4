"""From a network's predictions on a split to the metrics of a protocol."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsolbench import boxes, scoremaps
from wsolbench.dataset import Split
from wsolbench.errors import InputError
from wsolbench.metrics import ERRORS, HIT, BoxAccuracies, BoxAccuracy, PixelAveragePrecision, threshold_grid, update
from wsolbench.protocols import Protocol
from wsolbench.truth import Truth, counting

CHUNK = 64
"""Images whose full-size score maps are in memory at once."""

COVERED = 0.2
"""Share of its maximum above which a score map covers an object's body, whatever the protocol's threshold."""
IOUS = (0.3, HIT, 0.7)
SMALL, LARGE = 0.15, 0.45
"""Shares of the image that the largest true box of a small image is below, and of a large one at least."""


@dataclass(frozen=True)
class Predictions:
    """What a network says of a split's images, in their order.

    Args:
        top5: (N, 5) int64 classes, the likeliest first; fewer columns where there are fewer classes.
        probabilities: (N, 5) float32, of these classes.
        score_maps: (N, h, w) float32 of the images' labels, as the network gives them.
    """

    top5: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    score_maps: scoremaps.Maps


@dataclass(frozen=True)
class Chunk:
    """Score maps in [0, 1] at the size they are scored at, and the truth in their pixels.

    Args:
        maps: (N, H, W) float32 or float64.
        truths: for each map its true boxes (M, 4), those that count.
        truth: of the split; its masks are decoded when they are asked for.
        indices: of the images in it.
    """

    maps: scoremaps.Maps
    truths: list[NDArray[np.float64]]
    truth: Truth
    indices: range

    @property
    def masks(self) -> NDArray[np.uint8] | None:
        """(N, H, W) uint8, 1 object, 0 background, 255 not scored; None where there are none."""
        return self.truth.masks(self.indices)

    @property
    def bodies(self) -> NDArray[np.uint8] | None:
        """(N, H, W) uint8, 1 body, 0 elsewhere; None where there are none."""
        return self.truth.bodies(self.indices)


@dataclass(frozen=True)
class Scored:
    """The score maps of a split's images and their truth, chunk by chunk, as often as they are asked for.

    Args:
        truth: of the images.
        maps: some of the images -> their score maps in [0, 1], (N, H, W), H and W those that the truth is seen in.
        protocol: which of the true boxes count.
        chunk: so many images at once; all of one size unless it is 1.
    """

    truth: Truth
    maps: Callable[[range], scoremaps.Maps]
    protocol: Protocol
    chunk: int = CHUNK

    def __iter__(self) -> Iterator[Chunk]:
        for start in range(0, len(self.truth), self.chunk):
            indices = range(start, min(start + self.chunk, len(self.truth)))
            truths = [counting(self.truth.boxes(index), self.protocol) for index in indices]
            maps = scoremaps.GREYS[self.protocol.grey](self.maps(indices))
            yield Chunk(maps, truths, self.truth, indices)


@dataclass(frozen=True)
class Scores:
    """What a protocol says of a trial.

    Args:
        metrics: in percent, of the names in `protocols.METRICS`.
        images: by name, one value per image: `box`, `iou`, `error` (an index of `ERRORS`), and what the split knows.
        classes: by name, one value in percent per class: `gt_known_loc`; `top1_clas`, `top1_loc` where it is predicted.
        curve: (T,) GT-known Loc, %, at each threshold of `metrics.threshold_grid`.
    """

    metrics: dict[str, float]
    images: dict[str, NDArray[Any]]
    classes: dict[str, NDArray[np.float64]]
    curve: NDArray[np.float64]


Counts: TypeAlias = dict[Protocol, tuple[BoxAccuracy, BoxAccuracy]]
"""Hits of the split's images at every threshold, of a protocol's contours and of all, by a protocol's other fields."""


def collect(outputs: Iterable[tuple[Tensor, Tensor]]) -> Predictions:
    """The predictions of all batches of logits (N, K) and score maps (N, h, w)."""
    classes, probabilities, maps = [], [], []
    for logits, score_maps in outputs:
        top = logits.softmax(1).topk(min(5, logits.shape[1]))
        classes.append(top.indices)
        probabilities.append(top.values)
        maps.append(score_maps)
    return Predictions(*(torch.cat(parts).numpy() for parts in (classes, probabilities, maps)))


def evaluate(
    predictions: Predictions,
    truth: Truth,
    protocol: Protocol,
    held_out: tuple[scoremaps.Maps, Truth] | None = None,
    threads: int = 1,
    *,
    counts: Counts | None = None,
) -> Scores:
    """The scores of a split's predictions.

    Args:
        predictions: for the images of `truth`, made in the protocol's geometry.
        truth: as the network saw the images.
        protocol: how a score map becomes a box, and a box a hit.
        held_out: score maps and truth of the images that a threshold may be chosen on.
        threads: among so many the maps are shared out; the scores do not depend on it.
        counts: of these predictions, by protocols before this one; it is added to.

    Raises:
        InputError: the protocol chooses its threshold on held-out images and there are none.
    """
    chosen_on = None if held_out is None else of_network(*held_out, protocol)
    found = localization(
        of_network(predictions.score_maps, truth, protocol), protocol, chosen_on, threads, counts=counts
    )
    labels = truth.split.labels
    top1 = predictions.top5[:, 0] == labels
    top5 = (predictions.top5 == labels[:, None]).any(1)
    known = {"top1_clas": _percent(top1), "top5_clas": _percent(top5)}
    classes = {"top1_clas": _by_class(truth.split, top1)}
    if "iou" not in found.images:
        return Scores({**known, **found.metrics}, found.images, classes, found.curve)
    hit = found.images["iou"] >= HIT
    error = np.where(hit & ~top1, ERRORS.index("class"), found.images["error"])
    located = {"top1_loc": _percent(hit & top1), "top5_loc": _percent(hit & top5)}
    classes |= {**found.classes, "top1_loc": _by_class(truth.split, hit & top1)}
    metrics = {**known, **located, **found.metrics, **_shares(error)}
    return Scores(metrics, {**found.images, "error": error}, classes, found.curve)


def localization(
    scored: Scored,
    protocol: Protocol,
    held_out: Scored | None = None,
    threads: int = 1,
    *,
    counts: Counts | None = None,
) -> Scores:
    """The scores that need no predicted class: of score maps against boxes and masks, where there are any."""
    boxed = scored.truth.split.boxed
    threshold = _threshold(protocol, held_out, threads) if boxed else None
    rule = replace(protocol, threshold="oracle")  # hits are counted at every threshold, whichever is chosen
    counts = {} if counts is None else counts
    counted = rule in counts or not boxed
    best, every = counts.get(rule) or (_accuracy(rule, rule.contours, threads), _accuracy(rule, "all", threads))
    precision, images = PixelAveragePrecision(), []
    for chunk in scored:
        if not counted:
            update((best, every), chunk.maps, chunk.truths)
        if (masks := chunk.masks) is not None:
            precision.update(chunk.maps, masks)
        images.append(_cover(chunk) | ({} if threshold is None else _localize(chunk, protocol, threshold)))
    counts[rule] = best, every
    known = _joined(images)
    metrics = {"body_coverage": _percent(known["body_coverage"])} if "body_coverage" in known else {}
    if precision.counts.any():
        metrics["px_ap"] = precision.compute()
    if not boxed:
        return Scores(metrics, known, {}, np.empty(0))
    curve = _curve(best)
    if threshold is None:  # the best one for these images
        threshold = _best(curve)
        known |= _joined([_localize(chunk, protocol, threshold) for chunk in scored])
    found = _against_boxes(known, threshold, best.compute(), every.compute())
    by_class = _by_class(scored.truth.split, known["iou"] >= HIT)
    return Scores({**found, **metrics}, known, {"gt_known_loc": by_class}, curve)


def _against_boxes(
    images: dict[str, NDArray[Any]], threshold: float, best: BoxAccuracies, every: BoxAccuracies
) -> dict[str, float]:
    hit = images["iou"] >= HIT
    return {
        "gt_known_loc": _percent(hit),
        "mean_iou": _percent(images["iou"]),
        "max_box_acc": best["max_box_acc"],
        "max_box_acc_v2": every["max_box_acc_v2"],
        "threshold": 100 * threshold,
        "gt_known_loc_at_20": float(best["accuracy"][IOUS.index(HIT), 200]),
        "optimism": best["max_box_acc"] - _percent(hit),
        **_strata(images["size"], hit),
        **_shares(images["error"]),
    }


def of_network(score_maps: scoremaps.Maps, truth: Truth, protocol: Protocol) -> Scored:
    """A network's own score maps (N, h, w), resized to its input, and the truth there."""
    view = truth.views[0]

    def maps(indices: range) -> scoremaps.Maps:
        chosen = score_maps[indices.start : indices.stop]
        return scoremaps.min_max(scoremaps.resized(chosen, view.rows, view.columns, protocol.interpolation))

    return Scored(truth, maps, protocol)


def _accuracy(protocol: Protocol, contours: boxes.Contours, threads: int) -> BoxAccuracy:
    """Counts hits at every threshold."""
    rule: dict[str, Any] = {"convention": protocol.convention, "clip": protocol.clip, "threads": threads}
    return BoxAccuracy(threshold_grid(), IOUS, contours, **rule)


def _curve(accuracy: BoxAccuracy) -> NDArray[np.float64]:
    return accuracy.compute()["accuracy"][IOUS.index(HIT)]


def _best(curve: NDArray[np.float64]) -> float:
    """The threshold of the highest accuracy, in [0, 1]; of equally good ones the lowest."""
    return float(threshold_grid()[int(curve.argmax())])


def _threshold(protocol: Protocol, held_out: Scored | None, threads: int) -> float | None:
    """The protocol's threshold, in [0, 1]; None where it is the best one for the images to be scored."""
    if isinstance(protocol.threshold, float):
        return protocol.threshold
    if protocol.threshold == "oracle":
        return None
    if held_out is None:
        raise InputError("the protocol chooses its threshold on held-out images, and there are none")
    accuracy = _accuracy(protocol, protocol.contours, threads)
    for chunk in held_out:
        accuracy.update(chunk.maps, chunk.truths)
    return _best(_curve(accuracy))


def _localize(chunk: Chunk, protocol: Protocol, threshold: float) -> dict[str, NDArray[Any]]:
    """Image by image: the box, its IoU, the kind of error if it is no hit, the size of the object."""
    found = boxes.boxes_at_thresholds(chunk.maps, [threshold], protocol.contours, clip=protocol.clip)[:, 0]
    truths, first = np.concatenate(chunk.truths), np.cumsum([0, *map(len, chunk.truths[:-1])])
    own = np.repeat(found.astype(np.float64), [len(boxes) for boxes in chunk.truths], axis=0)
    iou = np.maximum.reduceat(boxes.paired_iou(own, truths, protocol.convention), first)
    area = chunk.maps.shape[1] * chunk.maps.shape[2]
    return {
        "box": found,
        "iou": iou,
        "error": np.where(iou >= HIT, ERRORS.index("none"), error_kinds(own, truths, first)),
        "size": np.maximum.reduceat(_areas(truths), first) / area,
    }


def _cover(chunk: Chunk) -> dict[str, NDArray[Any]]:
    """Image by image, how much of the object's body is covered; nothing where there are no bodies."""
    bodies = chunk.bodies
    return {} if bodies is None else {"body_coverage": coverage(chunk.maps, bodies != 0, COVERED)}


def error_kinds(found: NDArray[np.float64], truths: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """What the box of each image, which is no hit, does wrong: numbers of the last four `ERRORS`.

    `multiple`: it covers more than 0.3 of each of two objects; `part`: more than half of it lies on the object it
    overlaps most; `more`: it covers more than 0.7 of that object (Gao et al., TS-CAM, ICCV 2021, section 4.3).

    Args:
        found: (M, 4) the box of an image, once for each of its true boxes.
        truths: (M, 4) the true boxes of all images.
        first: (N,) where those of each image begin.
    """
    shared = np.clip(np.minimum(found[:, 2:], truths[:, 2:]) - np.maximum(found[:, :2], truths[:, :2]), 0, None).prod(1)
    theirs = _areas(truths)
    of_object = np.divide(shared, theirs, out=np.zeros_like(shared), where=theirs > 0)
    own, most = _areas(found)[first], np.maximum.reduceat(shared, first)
    of_box = np.divide(most, own, out=np.zeros_like(most), where=own > 0)
    is_most = shared == np.repeat(most, np.diff(first, append=len(truths)))
    overlapped = np.minimum.reduceat(np.where(is_most, np.arange(len(truths)), len(truths)), first)
    conditions = {
        "multiple": np.add.reduceat(of_object > 0.3, first, dtype=np.int64) > 1,  # noqa: PLR2004
        "part": of_box > 0.5,  # noqa: PLR2004
        "more": of_object[overlapped] > 0.7,  # noqa: PLR2004
    }
    return np.select(list(conditions.values()), [ERRORS.index(kind) for kind in conditions], ERRORS.index("other"))


def coverage(score_maps: scoremaps.Maps, bodies: NDArray[np.bool_], threshold: float) -> NDArray[np.float64]:
    """Share of each body's pixels whose score is above `threshold` times the map's maximum, in [0, 1].

    Args:
        score_maps: (N, H, W) in [0, 1]; it counts in 256 levels, as for boxes.
        bodies: (N, H, W).
        threshold: in [0, 1].
    """
    levels = (score_maps.astype(np.float64) * 255).astype(np.uint8)
    above = levels > np.trunc(threshold * levels.max((1, 2), keepdims=True))
    size = bodies.sum((1, 2))
    return np.divide((above & bodies).sum((1, 2)), size, out=np.zeros(len(size)), where=size > 0)


def _strata(sizes: NDArray[np.float64], hit: NDArray[np.bool_]) -> dict[str, float]:
    """GT-known Loc by the share of the image that its largest true box covers; a stratum without images is left out."""
    strata = {"small": sizes < SMALL, "medium": (sizes >= SMALL) & (sizes < LARGE), "large": sizes >= LARGE}
    return {f"gt_known_loc_{name}": _percent(hit[chosen]) for name, chosen in strata.items() if chosen.any()}


def _shares(error: NDArray[np.int64]) -> dict[str, float]:
    """Percent of the images by kind of error, `none` left out."""
    return {f"error_{name}": _percent(error == index) for index, name in enumerate(ERRORS) if index}


def _by_class(split: Split, values: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Percent in each class; NaN for a class without images."""
    count = np.bincount(split.labels, minlength=len(split.classes))
    total = np.bincount(split.labels, weights=values, minlength=len(split.classes))
    return np.divide(100 * total, count, out=np.full(len(count), np.nan), where=count > 0)


def _areas(found: NDArray[np.float64]) -> NDArray[np.float64]:
    return (found[:, 2:] - found[:, :2]).prod(1)


def _joined(found: Sequence[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _percent(values: NDArray[Any]) -> float:
    return 100 * float(np.sum(values)) / len(values)
