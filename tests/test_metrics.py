import itertools
import sys
from collections.abc import Iterator

import cv2
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray

from wsolbench import boxes
from wsolbench.boxes import Contours, Convention, box_iou, boxes_at_thresholds, boxes_at_thresholds_opencv
from wsolbench.metrics import BoxAccuracy, PixelAveragePrecision, threshold_grid, update

Map = NDArray[np.float64]
EDGES = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])


@pytest.fixture(params=["compiled", "without numba"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    boxes.compiled_kernels.cache_clear()
    if request.param == "without numba":
        monkeypatch.setitem(sys.modules, "wsolbench._segments", None)
        monkeypatch.setitem(sys.modules, "wsolbench._scores", None)
    yield
    boxes.compiled_kernels.cache_clear()


def block(x0: int, y0: int, x1: int, y1: int, score: float = 1.0) -> Map:
    """A map of 20 x 10 with one half-open box in it."""
    score_map = np.zeros((10, 20))
    score_map[y0:y1, x0:x1] = score
    return score_map


def noise(count: int, seed: int, side: int = 12) -> Map:
    return torch.rand((count, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()


def inclusive_iou(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Of two boxes, by counting pixels."""
    pixels = [{(x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)} for x0, y0, x1, y1 in (a, b)]
    return len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1])


@pytest.mark.usefixtures("either_way")
def test_box_accuracy_by_hand() -> None:
    accuracy = BoxAccuracy([0.2, 0.6], [0.3, 0.5, 0.7])
    two_levels = np.maximum(block(0, 0, 10, 10, 0.5), block(0, 0, 5, 10))
    accuracy.update(np.stack([two_levels, block(2, 2, 8, 8)]), [[[0, 0, 10, 9]], [[2, 2, 8, 8], [15, 5, 19, 9]]])

    result = accuracy.compute()
    assert result["accuracy"].tolist() == [[100, 100], [100, 100], [100, 50]]
    assert result["max_box_acc"] == 100
    assert result["max_box_acc_v2"] == 100


@pytest.mark.usefixtures("either_way")
def test_v2_takes_the_best_threshold_of_each_iou() -> None:
    accuracy = BoxAccuracy([0.2, 0.6], [0.3, 0.5, 0.7])
    two_levels = np.maximum(block(0, 0, 10, 10, 0.5), block(0, 0, 5, 10))
    accuracy.update(np.stack([two_levels] * 4), [[[0, 0, 10, 9]], [[0, 0, 5, 9]], [[0, 0, 2, 9]], [[12, 0, 19, 9]]])

    result = accuracy.compute()
    assert result["accuracy"].tolist() == [[50, 75], [50, 75], [25, 25]]
    assert result["max_box_acc"] == 75
    assert result["max_box_acc_v2"] == pytest.approx((75 + 75 + 25) / 3)


@pytest.mark.usefixtures("either_way")
def test_a_smaller_region_counts_only_among_all_contours() -> None:
    maps = (block(0, 0, 10, 10) + block(14, 3, 18, 7))[None]
    largest, every = BoxAccuracy([0.5]), BoxAccuracy([0.5], contours="all")
    for metric in (largest, every):
        metric.update(maps, [np.array([[14, 3, 18, 7]])])

    assert largest.compute()["max_box_acc"] == 0
    assert every.compute()["max_box_acc"] == 100


@pytest.mark.usefixtures("either_way")
def test_a_hole_counts_among_all_contours() -> None:
    ring = block(0, 0, 20, 10)
    ring[4:7, 5:15] = 0
    metric = BoxAccuracy([0.5], contours="all")
    metric.update(ring[None], [[[4, 3, 16, 8]]])

    assert metric.compute()["max_box_acc"] == 100


@pytest.mark.usefixtures("either_way")
def test_an_iou_equal_to_the_threshold_is_a_hit() -> None:
    metric = BoxAccuracy([0.5])
    metric.update(block(0, 0, 9, 9)[None], [[[0, 0, 9, 4]]])

    assert inclusive_iou(np.array([0, 0, 9, 9]), np.array([0, 0, 9, 4])) == 0.5
    assert metric.compute()["max_box_acc"] == 100


@pytest.mark.usefixtures("either_way")
def test_an_empty_map_hits_only_a_box_in_the_corner() -> None:
    metric = BoxAccuracy([0.0, 0.5], contours="all")
    metric.update(np.zeros((2, 10, 20)), [[[0, 0, 0, 1]], [[1, 1, 2, 2]]])

    assert metric.compute()["accuracy"].tolist() == [[50, 50]]


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from(["largest", "all"]))
def test_box_accuracy_is_as_defined(seed: int, contours: str) -> None:
    maps, grid, ious = noise(3, seed), [0.1, 0.5, 0.9, 0.99], [0.3, 0.5, 0.7]
    truths = [np.array([[1, 2, 9, 8], [0, 0, 3, 2]]), np.array([[5, 5, 8, 11]]), np.array([[0, 0, 11, 11]])]
    metric = BoxAccuracy(grid, ious, contours)
    metric.update(maps, truths)

    found = boxes_at_thresholds(maps, grid, contours)
    best = [
        [max(inclusive_iou(a, b) for a in np.reshape(at, (-1, 4)) for b in own) for at in of_map]
        for of_map, own in zip(found, truths, strict=True)
    ]
    expected = [(np.array(best) >= iou).mean(0) * 100 for iou in ious]
    assert np.allclose(metric.compute()["accuracy"], expected)


sides = st.integers(1, 9)
corners = st.tuples(*[st.integers(0, 9)] * 4)


@settings(deadline=None, max_examples=200)
@given(
    arrays.arrays(np.float64, st.tuples(sides, sides), elements=st.sampled_from([0.0, 0.2, 0.4, 0.41, 0.7, 1.0])),
    st.lists(corners, min_size=1, max_size=3),
    st.sampled_from([(0.5,), (0.3, 0.5, 0.7), (0.7, 0.01, 0.5)]),
)
def test_a_box_counts_whatever_its_rivals(
    score_map: Map, drawn: list[tuple[int, ...]], ious: tuple[float, ...]
) -> None:
    truths = np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in drawn], np.float64)
    metric = BoxAccuracy(threshold_grid(), ious)

    metric.update(score_map[None], [truths])

    best = box_iou(boxes_at_thresholds(score_map[None], threshold_grid())[0], truths, "inclusive").max(1)
    assert (metric.hits == [best >= iou for iou in ious]).all()


@pytest.mark.parametrize("contours", ["largest", "all"])
def test_merging_and_threads_change_nothing(contours: str) -> None:
    maps, truths = noise(40, 0), [np.array([[n % 5, 0, 11, 11 - n % 7]]) for n in range(40)]
    at_once, first, second = (BoxAccuracy(threshold_grid(0.01), contours=contours, threads=t) for t in (1, 2, 3))
    at_once.update(maps, truths)
    first.update(maps[:7], truths[:7])
    second.update(maps[7:], truths[7:])
    first.merge(second)

    assert first.count == 40
    assert np.array_equal(first.compute()["accuracy"], at_once.compute()["accuracy"])


@pytest.mark.usefixtures("either_way")
def test_together_they_count_what_each_counts_alone() -> None:
    maps, truths = noise(9, 1), [np.array([[1, 2, 9, 8], [0, 0, 4, 4]][: 1 + n % 2]) for n in range(9)]
    kinds: list[Contours] = ["largest", "all", "largest_rect", "all"]
    together, alone = ([BoxAccuracy(threshold_grid(0.05), (0.3, 0.5, 0.7), kind) for kind in kinds] for _ in range(2))

    update(together, maps[:4], truths[:4])
    update(together, maps[4:], truths[4:])
    for accuracy in alone:
        accuracy.update(maps, truths)

    assert [accuracy.count for accuracy in together] == [9] * 4
    assert [accuracy.hits.tolist() for accuracy in together] == [accuracy.hits.tolist() for accuracy in alone]


@pytest.mark.parametrize(
    "other",
    [
        BoxAccuracy([0.4]),
        BoxAccuracy([0.5], [0.5, 0.7]),
        BoxAccuracy([0.5], clip=False),
        BoxAccuracy([0.5], convention="half_open"),
    ],
)
def test_what_counts_by_another_rule_is_not_updated_together(other: BoxAccuracy) -> None:
    one = BoxAccuracy([0.5])

    with pytest.raises(ValueError, match="differ in nothing but their contours"):
        update([one, other], block(0, 0, 5, 5)[None], [[[0, 0, 5, 5]]])

    assert (one.count, other.count) == (0, 0)


def test_nothing_is_not_updated_and_one_counts_once() -> None:
    one, maps, truths = BoxAccuracy([0.5]), block(0, 0, 5, 5)[None], [[[0, 0, 5, 5]]]

    update([one, one], maps, truths)

    assert (one.count, one.hits.tolist()) == (1, [[1]])
    with pytest.raises(ValueError, match="one or more"):
        update([], maps, truths)


def test_other_box_metrics_are_not_merged() -> None:
    for other in (BoxAccuracy([0.5], contours="all"), BoxAccuracy([0.6]), BoxAccuracy([0.5], [0.5, 0.7])):
        with pytest.raises(ValueError, match="same"):
            BoxAccuracy([0.5]).merge(other)


@pytest.mark.parametrize(
    ("maps", "truths", "message"),
    [
        (np.zeros((2, 4, 4)), [[[0, 0, 1, 1]]], "2 score maps, but true boxes of 1"),
        (np.zeros((1, 4, 4)), [np.zeros((0, 4))], "image 0 must have boxes"),
        (np.zeros((1, 4, 4)), [[[2, 0, 1, 1]]], r"image 0 .*\[\[2.0, 0.0, 1.0, 1.0\]\]"),
        (np.zeros((1, 4, 4)), [[0, 0, 1, 1]], "image 0"),
        (np.stack([np.zeros((4, 4)), np.full((4, 4), np.nan)]), [[[0, 0, 1, 1]]] * 2, "NaN"),
    ],
)
def test_a_refused_update_adds_nothing(maps: Map, truths: list[object], message: str) -> None:
    kinds: list[Contours] = ["largest", "all", "largest_rect"]
    metrics = [BoxAccuracy([0.5], contours=kind) for kind in kinds]
    with pytest.raises(ValueError, match=message):
        update(metrics, maps, truths)

    assert [(metric.count, metric.hits.sum()) for metric in metrics] == [(0, 0)] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5], [0.3]), "0.5 among them"),
        (([0.5], [50, 0.5]), "at most 1"),
        (([0.5], [0.5], "outer"), "'outer'"),
        (([],), "at least one"),
    ],
)
def test_other_box_metrics_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoxAccuracy(*arguments)


def test_another_convention_is_refused() -> None:
    with pytest.raises(ValueError, match="'open'"):
        BoxAccuracy([0.5], convention="open")  # type: ignore[arg-type]


def test_nothing_has_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no image"):
        BoxAccuracy([0.5]).compute()


def precision_of(scores: list[float], mask: list[int], thresholds: list[float] | None = None) -> float:
    metric = PixelAveragePrecision(thresholds)
    metric.update(np.array([[scores]]), np.array([[mask]], np.uint8))
    return metric.compute()


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    ("scores", "mask", "expected"),
    [
        ([0.1, 0.6, 0.8], [0, 1, 1], 100),
        ([0.2, 0.5, 0.8], [1, 0, 1], 100 * (1 / 2 + 1 / 2 * 2 / 3)),
        ([0.2, 0.5, 0.8], [1, 255, 1], 100),
        ([1.0, 1.0, 0.0], [1, 0, 1], 100 * (1 / 2 * 1 / 2 + 1 / 2 * 2 / 3)),
        ([0.5004, 0.5006], [0, 1], 50),
    ],
    ids=["perfect", "one between", "ignored", "ends", "one bin"],
)
def test_average_precision_by_hand(scores: list[float], mask: list[int], expected: float) -> None:
    assert precision_of(scores, mask) == pytest.approx(expected)


def test_coarse_thresholds_have_wide_bins() -> None:
    assert precision_of([0.1, 0.4, 0.6], [1, 0, 1], [0.0, 0.5]) == pytest.approx(100 * (1 / 2 + 1 / 2 * 2 / 3))
    assert precision_of([0.1, 0.01, 0.6], [1, 0, 1], [0.0, 0.05, 0.5]) == pytest.approx(100)


at_an_edge = st.builds(lambda edge, to: float(np.nextafter(edge, to)), st.sampled_from(EDGES[:1001]), st.floats(0, 1))
scores_and_edges = st.sampled_from(EDGES[:1001].tolist()) | at_an_edge | st.floats(0, 1)


@settings(deadline=None, max_examples=100)
@given(
    arrays.arrays(np.float64, (1, 7, 5), elements=scores_and_edges),
    arrays.arrays(np.uint8, (1, 7, 5), elements=st.sampled_from([0, 1, 255])),
)
def test_counts_are_those_of_two_histograms(score_maps: Map, masks: NDArray[np.uint8]) -> None:
    metric = PixelAveragePrecision()
    metric.update(score_maps, masks)

    for value in (0, 1):
        assert np.array_equal(metric.counts[value], np.histogram(score_maps[masks == value], EDGES)[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("step", [0.001, 0.01, 0.07])
def test_counts_of_many_pixels_are_those_of_histograms(dtype: type[np.floating], step: float) -> None:
    score_maps = noise(2, 1, side=101).astype(dtype)
    masks = (noise(2, 2, side=101) < 0.3).astype(np.uint8)
    metric = PixelAveragePrecision(threshold_grid(step))
    metric.update(score_maps, masks)

    for value in (0, 1):
        assert np.array_equal(metric.counts[value], np.histogram(score_maps[masks == value], metric.edges)[0])


def test_merged_precision_is_that_of_all_images() -> None:
    maps, masks = noise(4, 3), (noise(4, 4) < 0.5).astype(np.uint8)
    at_once, first, second = PixelAveragePrecision(), PixelAveragePrecision(), PixelAveragePrecision()
    at_once.update(maps, masks)
    first.update(maps[:1], masks[:1])
    second.update(maps[1:].transpose(0, 2, 1), masks[1:].transpose(0, 2, 1))
    first.merge(second)

    assert first.compute() == at_once.compute()


def test_precision_of_other_thresholds_is_not_merged() -> None:
    with pytest.raises(ValueError, match="same thresholds"):
        PixelAveragePrecision().merge(PixelAveragePrecision([0.0, 0.5]))


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    ("scores", "mask", "message"),
    [
        ([np.nan], [1], "NaN"),
        ([1.5], [1], r"\[0, 1\]"),
        ([-0.5], [0], r"\[0, 1\]"),
        ([0.5], [7], r"0, 1 or 255, not \[.*7.*\]"),
        ([0.5, 0.5], [1], r"uint8 \(1, 1, 2\), not uint8 \(1, 1, 1\)"),
        ([0.5], [0], "no foreground"),
    ],
)
def test_other_pixels_are_refused(scores: list[float], mask: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        precision_of(scores, mask)


@pytest.mark.parametrize("thresholds", [[0.1, 0.5], [0.0, 0.5, 0.5], [0.0, 1.0], [0.0, np.nan], []])
def test_other_thresholds_are_refused(thresholds: list[float]) -> None:
    with pytest.raises(ValueError, match="thresholds must"):
        PixelAveragePrecision(thresholds)


@pytest.mark.parametrize("contours", ["largest", "largest_rect", "all"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("convention", ["half_open", "inclusive"])
def test_box_accuracy_is_the_share_of_boxes_that_reach_the_iou(
    contours: Contours, clip: bool, convention: Convention
) -> None:
    generator = np.random.default_rng(0)
    maps = np.stack([cv2.resize(generator.random((5, 5)), (30, 24)) for _ in range(20)])
    truths = [np.sort(generator.uniform(0, 24, (2, 2, 2)), axis=1).reshape(2, 4) for _ in maps]
    metric = BoxAccuracy([0.1, 0.4, 0.7], (0.3, 0.5), contours, convention=convention, clip=clip)

    metric.update(maps, truths)

    expected = np.zeros((2, 3))
    found = boxes_at_thresholds_opencv(maps, [0.1, 0.4, 0.7], contours, clip=clip)
    for n, t in itertools.product(range(20), range(3)):
        best = box_iou(np.atleast_2d(found[n][t]), truths[n], convention).max()
        expected[:, t] += [best >= 0.3, best >= 0.5]
    assert metric.compute()["accuracy"].tolist() == (expected * 5).tolist()
