import subprocess
import sys
from itertools import chain
from types import SimpleNamespace

import cv2
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray

from wsolbench import boxes
from wsolbench.boxes import box_iou, boxes_at_thresholds, boxes_at_thresholds_opencv, scale_boxes

Map = NDArray[np.float64]
THRESHOLDS = [0.0, 0.2, 0.35, 0.5, 0.999, 1.0, -0.001, -0.4, 1.7]


def picture(*rows: str) -> Map:
    """A score map of digits from 0 to 9, for the scores 0 to 1."""
    return np.array([[int(digit) / 9 for digit in row] for row in rows])


def all_boxes(score_map: Map, threshold: float) -> list[tuple[int, ...]]:
    return sorted(map(tuple, boxes_at_thresholds(score_map[None], [threshold], "all")[0][0].tolist()))


def largest_box(score_map: Map, threshold: float = 0.5) -> tuple[int, ...]:
    return tuple(boxes_at_thresholds(score_map[None], [threshold])[0, 0].tolist())


def contour_boxes(score_map: Map, threshold: float, *, every: bool) -> list[list[int]]:
    """The definition: binarise, follow the contours, keep the largest or all, box them, cut at the last pixel."""
    image = np.trunc(score_map.astype(np.float64) * 255).astype(np.uint8)
    _, binary = cv2.threshold(image, int(threshold * image.max()), 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if contours and not every:
        contours = [max(contours, key=cv2.contourArea)]
    corners = [(x, y, x + w, y + h) for x, y, w, h in map(cv2.boundingRect, contours)]
    height, width = image.shape
    return sorted([x0, y0, min(x1, width - 1), min(y1, height - 1)] for x0, y0, x1, y1 in corners) or [[0, 0, 0, 0]]


def assert_as_defined(score_map: Map) -> None:
    largest = boxes_at_thresholds(score_map[None], THRESHOLDS)[0].tolist()
    every = [sorted(found.tolist()) for found in boxes_at_thresholds(score_map[None], THRESHOLDS, "all")[0]]

    assert largest == [contour_boxes(score_map, t, every=False)[0] for t in THRESHOLDS]
    assert every == [contour_boxes(score_map, t, every=True) for t in THRESHOLDS]


def rings(height: int, width: int, period: int) -> Map:
    """Circles inside circles."""
    y, x = np.mgrid[:height, :width]
    return np.hypot(y - height / 2, x - width / 2).astype(int) % period / (period - 1)


def class_map(height: int, width: int, seed: int) -> Map:
    """What networks give: a few coarse cells, resized bicubically, from 0 to 1."""
    cells = torch.rand((7, 7), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy() ** 3
    fine = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    return (fine - fine.min()) / max(np.ptp(fine), 1e-9)


sides = st.integers(1, 9)
few_levels = st.sampled_from([0.0, 0.2, 0.4, 0.41, 0.7, 1.0])
any_score = st.floats(0, 1)
at_a_level = st.builds(lambda k, up: np.clip(np.nextafter(k / 255, 2.0 * up), 0, 1), st.integers(0, 255), st.booleans())


@settings(deadline=None, max_examples=300)
@given(arrays.arrays(np.float64, st.tuples(sides, sides), elements=few_levels))
def test_boxes_of_few_levels_are_those_of_contours(score_map: Map) -> None:
    assert_as_defined(score_map)


@settings(deadline=None, max_examples=150)
@given(arrays.arrays(np.float64, st.tuples(sides, sides), elements=any_score | at_a_level))
def test_boxes_of_any_scores_are_those_of_contours(score_map: Map) -> None:
    assert_as_defined(score_map)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(2, 40))
def test_boxes_of_rings_are_those_of_contours(height: int, width: int, period: int) -> None:
    assert_as_defined(rings(height, width, period))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 10_000))
def test_boxes_of_class_maps_are_those_of_contours(height: int, width: int, seed: int) -> None:
    assert_as_defined(class_map(height, width, seed))


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 10_000))
def test_boxes_of_noise_are_those_of_contours(height: int, width: int, seed: int) -> None:
    noise = torch.rand((height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert_as_defined(noise.numpy())


@settings(deadline=None, max_examples=100)
@given(arrays.arrays(np.float64, st.tuples(sides, sides), elements=any_score | few_levels), st.floats(-0.2, 1.2))
def test_boxes_at_one_threshold_are_those_of_contours(score_map: Map, threshold: float) -> None:
    assert largest_box(score_map, threshold) == tuple(contour_boxes(score_map, threshold, every=False)[0])
    assert all_boxes(score_map, threshold) == sorted(map(tuple, contour_boxes(score_map, threshold, every=True)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("clip", [True, False])
def test_both_ways_agree(dtype: type[np.floating], clip: bool) -> None:
    maps = np.stack([class_map(40, 60, seed) for seed in range(3)]).astype(dtype)
    grid = np.arange(0, 1, 0.01)
    compiled = boxes_at_thresholds(maps, grid, "all", clip=clip)
    drawn = boxes_at_thresholds_opencv(maps, grid, "all", clip=clip)

    assert np.array_equal(boxes_at_thresholds(maps, grid, clip=clip), boxes_at_thresholds_opencv(maps, grid, clip=clip))
    for one, other in zip(chain(*compiled), chain(*drawn), strict=True):
        assert sorted(one.tolist()) == sorted(other.tolist())


def test_a_thin_ring_has_its_box_twice() -> None:
    ring = picture("00000", "09990", "09090", "09990", "00000")

    assert all_boxes(ring, 0.5) == [(1, 1, 4, 4), (1, 1, 4, 4)]
    assert largest_box(ring) == (1, 1, 4, 4)


def test_a_thick_ring_has_a_box_around_its_hole() -> None:
    ring = picture("000000000", *["099999990"] * 2, *["099000990"] * 3, *["099999990"] * 2, "000000000")

    assert all_boxes(ring, 0.5) == [(1, 1, 8, 8), (2, 2, 7, 7)]


def test_what_is_in_a_hole_is_not_the_largest() -> None:
    inside = picture("9999999", "9000009", "9099909", "9099909", "9000009", "9999999")

    assert largest_box(inside) == (0, 0, 6, 5)
    assert all_boxes(inside, 0.5) == [(0, 0, 6, 5), (0, 0, 6, 5), (2, 2, 5, 4)]


def test_a_notch_at_the_border_is_no_hole() -> None:
    assert all_boxes(picture("99099", "99099", "99999"), 0.5) == [(0, 0, 4, 2)]


def test_a_line_has_no_area() -> None:
    assert largest_box(picture("999999999", "000000000", "000990000", "000990000")) == (3, 2, 5, 3)


def test_the_largest_rectangle_is_another_choice() -> None:
    score_map = picture("999999999", "000000000", "000990000", "000990000", "000000000")

    rectangles = boxes_at_thresholds(score_map[None], [0.5, 0.5], "largest_rect", clip=False)
    assert rectangles.tolist() == [[[0, 0, 9, 1]] * 2]


def test_a_checkerboard_is_one_region_with_holes() -> None:
    board = picture("90909", "09090", "90909", "09090", "90909")

    assert all_boxes(board, 0.5) == [(0, 0, 4, 4), (0, 1, 3, 4), (1, 0, 4, 3), (1, 2, 4, 4), (2, 1, 4, 4)]


def test_of_equal_areas_the_last_wins() -> None:
    assert largest_box(picture("99000", "99000", "00000", "00990", "00990")) == (2, 3, 4, 4)


def test_of_equal_areas_in_equal_rows_the_rightmost_wins() -> None:
    assert largest_box(picture("990990", "990990", "000000")) == (3, 0, 5, 2)


def test_of_two_regions_the_larger_wins() -> None:
    two = picture("990000", "990000", "000000", "009990", "009990", "000000")

    assert largest_box(two) == (2, 3, 5, 5)
    assert all_boxes(two, 0.5) == [(0, 0, 2, 2), (2, 3, 5, 5)]


def test_regions_join_as_the_threshold_falls() -> None:
    two = picture("000000", "095990", "095990", "000000")

    assert boxes_at_thresholds(two[None], [0.4, 0.6]).tolist() == [[[1, 1, 5, 3], [3, 1, 5, 3]]]


def test_a_plateau_is_one_region_up_to_its_level() -> None:
    plateau = picture("00000", "05550", "05950", "05550", "00000")

    assert boxes_at_thresholds(plateau[None], [0.0, 0.5, 0.6, 0.999]).tolist() == [
        [[1, 1, 4, 4], [1, 1, 4, 4], [2, 2, 3, 3], [2, 2, 3, 3]]
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (("000", "900", "000"), (0, 1, 1, 2)),
        (("000", "009", "000"), (2, 1, 2, 2)),
        (("090", "000", "000"), (1, 0, 2, 1)),
        (("000", "000", "090"), (1, 2, 2, 2)),
    ],
    ids=["left", "right", "top", "bottom"],
)
def test_a_box_ends_at_the_last_pixel(rows: tuple[str, ...], expected: tuple[int, ...]) -> None:
    assert largest_box(picture(*rows)) == expected
    assert all_boxes(picture(*rows), 0.5) == [expected]


def test_an_unclipped_box_is_half_open() -> None:
    box = boxes_at_thresholds(picture("000", "009", "000")[None], [0.5], clip=False)

    assert box.tolist() == [[[2, 1, 3, 2]]]


@pytest.mark.parametrize(("clip", "expected"), [(True, [0, 0, 0, 0]), (False, [0, 0, 1, 1])])
@pytest.mark.parametrize("contours", ["largest", "all"])
def test_a_map_of_zeros_has_a_box_in_the_corner(contours: str, clip: bool, expected: list[int]) -> None:
    found = boxes_at_thresholds(np.zeros((1, 4, 5)), [0.0, 0.5], contours, clip=clip)

    assert np.asarray(found).reshape(-1, 4).tolist() == [expected] * 2


def test_a_constant_map_is_one_region_at_every_threshold() -> None:
    found = boxes_at_thresholds(np.full((1, 3, 5), 0.5), [0.0, 0.5, 0.999])

    assert found.tolist() == [[[0, 0, 4, 2]] * 3]


def test_a_map_of_one_pixel() -> None:
    assert boxes_at_thresholds(np.ones((1, 1, 1)), [0.5]).tolist() == [[[0, 0, 0, 0]]]
    assert boxes_at_thresholds(np.ones((1, 1, 1)), [0.5], clip=False).tolist() == [[[0, 0, 1, 1]]]


def test_at_threshold_0_the_lowest_level_is_outside() -> None:
    score_map = np.array([[0.0, 0.9 / 255, 1.0 / 255, 1.0, 0.0]])

    assert boxes_at_thresholds(score_map[None], [0.0]).tolist() == [[[2, 0, 4, 0]]]


def test_single_and_double_precision_have_the_same_levels() -> None:
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    edges = np.concatenate([levels, np.nextafter(levels, np.float32(0)), np.nextafter(levels[:-1], np.float32(1))])
    grid = (np.arange(255) + 0.5) / 255

    single = boxes_at_thresholds(edges.reshape(1, 1, -1), grid, "all")[0]
    double = boxes_at_thresholds(edges.reshape(1, 1, -1).astype(np.float64), grid, "all")[0]
    assert all(np.array_equal(one, other) for one, other in zip(single, double, strict=True))


def test_maps_are_shared_out_among_threads() -> None:
    maps = np.stack([class_map(30, 20, seed) for seed in range(37)])

    assert np.array_equal(boxes_at_thresholds(maps, THRESHOLDS, threads=3), boxes_at_thresholds(maps, THRESHOLDS))


def test_maps_may_be_read_only_and_not_contiguous() -> None:
    maps = np.stack([class_map(30, 20, seed) for seed in range(2)])
    turned = np.ascontiguousarray(maps.transpose(0, 2, 1)).transpose(0, 2, 1)
    turned.flags.writeable = False

    assert np.array_equal(boxes_at_thresholds(turned, THRESHOLDS), boxes_at_thresholds(maps, THRESHOLDS))


def test_arrays_that_thresholds_share_are_read_only() -> None:
    first, second = boxes_at_thresholds(picture("090")[None], [0.1, 0.1], "all")[0]

    assert first is second
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1


def test_no_maps_have_no_boxes() -> None:
    assert boxes_at_thresholds(np.zeros((0, 3, 3)), [0.1, 0.2]).shape == (0, 2, 4)
    assert boxes_at_thresholds(np.zeros((0, 3, 3)), [0.1, 0.2], "all") == []
    assert boxes_at_thresholds(np.zeros((2, 3, 3)), []).shape == (2, 0, 4)


@pytest.mark.parametrize("way", [boxes_at_thresholds, boxes_at_thresholds_opencv])
@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        (np.zeros((1, 2, 2), np.float16), TypeError, "float16"),
        (np.zeros((1, 2, 2), np.uint8), TypeError, "uint8"),
        ([[[0.0]]], TypeError, "list"),
        (np.zeros((2, 2)), ValueError, r"\(2, 2\)"),
        (np.zeros((1, 0, 2)), ValueError, r"\(1, 0, 2\)"),
        (np.array([[[0.0, np.nan]]]), ValueError, "NaN"),
        (np.array([[[0.0, 1.1]]]), ValueError, r"\[0, 1\], not from .*0.0.* to .*1.1"),
        (np.array([[[0.0, 1.0]], [[-1e-9, 1.0]]]), ValueError, r"\[0, 1\]"),
        (np.array([[[0.0, np.inf]]], np.float32), ValueError, r"\[0, 1\]"),
    ],
)
def test_other_maps_are_refused(way: object, maps: Map, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        way(maps, [0.5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"thresholds": [np.nan]}, "finite"),
        ({"thresholds": [[0.5]]}, "finite"),
        ({"thresholds": [0.5], "contours": "most"}, "'most'"),
        ({"thresholds": [0.5], "threads": 0}, "threads .* not 0"),
    ],
)
def test_other_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        boxes_at_thresholds(np.zeros((1, 2, 2)), **arguments)


def test_without_numba_contours_are_drawn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "wsolbench._segments", None)
    boxes.compiled_kernels.cache_clear()
    try:
        assert largest_box(picture("0000", "0990", "0990", "0000")) == (1, 1, 3, 3)
        assert largest_box(picture("0000")) == (0, 0, 0, 0)
    finally:
        boxes.compiled_kernels.cache_clear()

    assert capsys.readouterr().err.count("without numba") == 1


def test_importing_costs_neither_compiler_nor_libraries() -> None:
    heavy = "{'numba', 'cv2', 'torch'}"
    program = f"import sys, wsolbench.boxes, wsolbench.metrics; print({heavy} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert finished.stdout == "set()\n"


def test_compiling_is_announced_once(capsys: pytest.CaptureFixture[str]) -> None:
    compiled = pytest.importorskip("wsolbench._compiled")
    announcement = compiled._Announcement()
    of_ours = SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=boxes_at_thresholds)})
    of_others = SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=np.arange)})
    for happening in (of_others, of_ours, of_ours):
        announcement.on_start(happening)

    assert capsys.readouterr().err.count("compiling") == 1


@pytest.mark.parametrize("library", [np.array, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize(("convention", "expected"), [("inclusive", 8 / 27), ("half_open", 3 / 17)])
def test_iou_by_hand(library: object, convention: str, expected: float) -> None:
    found = box_iou(library([[1, 2, 5, 6]]), library([[3, 1, 4, 5]]), convention)

    assert found.tolist() == [[expected]]


def test_iou_is_of_all_pairs() -> None:
    a, b = np.array([[0, 0, 2, 2], [4, 4, 6, 6], [1, 0, 3, 2]]), np.array([[0, 0, 2, 2], [4, 4, 6, 8]])

    assert box_iou(a, b).tolist() == [[1, 0], [0, 0.5], [1 / 3, 0]]
    assert box_iou(a, np.zeros((0, 4))).shape == (3, 0)


def test_iou_of_boxes_without_area_is_0() -> None:
    assert box_iou(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 1, 1], [0, 0, 2, 2]])).tolist() == [[0, 0]]


def test_boxes_side_by_side_overlap_only_if_inclusive() -> None:
    a, b = np.array([[0, 0, 2, 1]]), np.array([[2, 0, 4, 1]])

    assert box_iou(a, b, "half_open").item() == 0
    assert box_iou(a, b, "inclusive").item() == 2 / 10


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([[3, 0, 2, 5]], "x1 >= x0"),
        ([[0, 5, 2, 4]], "y1 >= y0"),
        ([[0, 0, np.nan, 4]], "nan"),
        ([0, 0, 1, 1], r"\(4,\)"),
        ([[0, 0, 1]], r"\(1, 3\)"),
    ],
)
@pytest.mark.parametrize("library", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_other_boxes_are_refused(library: object, other: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box_iou(library([[0, 0, 1, 1]]), library(other))


def test_another_convention_is_refused() -> None:
    with pytest.raises(ValueError, match="'closed'"):
        box_iou(np.zeros((1, 4)), np.zeros((1, 4)), "closed")


def test_scaling_truncates() -> None:
    assert scale_boxes((1, 2, 4, 3), (10, 20), (35, 10), truncate=True).tolist() == [3, 1, 14, 1]
    assert scale_boxes([[1, 2, 4, 3]], (10, 20), (35, 10), truncate=False).tolist() == [[3.5, 1, 14, 1.5]]


def test_scaling_multiplies_first() -> None:
    assert scale_boxes((0, 0, 49, 49), (49, 49), (224, 224), truncate=True).tolist() == [0, 0, 224, 224]


def test_no_size_cannot_be_scaled() -> None:
    with pytest.raises(ValueError, match=r"positive, not \(0, 20\)"):
        scale_boxes((1, 2, 4, 3), (0, 20), (35, 10), truncate=True)
