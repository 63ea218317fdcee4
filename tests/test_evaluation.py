"""From score maps to metrics: every number here is worked out by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from numpy.typing import NDArray

from wsolbench import evaluation, metrics, scoremaps
from wsolbench.boxes import boxes_at_thresholds
from wsolbench.dataset import Split
from wsolbench.errors import InputError
from wsolbench.evaluation import Counts, Predictions, Scores, coverage, error_kinds, evaluate
from wsolbench.metrics import ERRORS, BoxAccuracy
from wsolbench.protocols import Protocol, names, protocol
from wsolbench.truth import of_network

SIDE = 20


def filled(*boxes: tuple[int, int, int, int], value: float = 1.0) -> NDArray[np.float32]:
    """A map of `SIDE` pixels that is `value` within the half-open boxes and 0 elsewhere."""
    score_map = np.zeros((SIDE, SIDE), np.float32)
    for x0, y0, x1, y1 in boxes:
        score_map[y0:y1, x0:x1] = value
    return score_map


def split_of(*boxes: list[tuple[float, float, float, float]], **more: Any) -> Split:
    """Images of `SIDE` pixels, one class, with these true boxes."""
    count = len(boxes)
    return Split(
        ids=tuple(f"{index}.jpg" for index in range(count)),
        labels=np.zeros(count, np.int64),
        classes=("bird",),
        read=lambda _: np.zeros((SIDE, SIDE, 3), np.uint8),
        sizes=np.full((count, 2), SIDE),
        boxes=tuple(np.array(found, np.float64) for found in boxes),
        **more,
    )


def predictions(*maps: NDArray[np.float32], right: bool = True) -> Predictions:
    top5 = np.full((len(maps), 1), 0 if right else 1)
    return Predictions(top5, np.ones((len(maps), 1), np.float32), np.stack(maps))


def fixed(threshold: float = 0.2, **changed: Any) -> Protocol:
    return replace(protocol("wsolbench_fixed"), threshold=threshold, **changed)


def scores(found: Predictions, split: Split, rule: Protocol) -> Scores:
    return evaluate(found, of_network(split, rule.geometry, SIDE), rule)


@pytest.mark.parametrize("name", names())
def test_a_filled_box_is_a_hit_under_every_protocol(name: str) -> None:
    rule = replace(protocol(name), geometry="resize224", threshold=0.2)

    found = scores(predictions(filled((4, 5, 14, 17))), split_of([(4, 5, 14, 17)]), rule)

    assert found.metrics["gt_known_loc"] == 100


def test_a_filled_box_has_iou_one_in_the_half_open_convention() -> None:
    found = scores(predictions(filled((4, 5, 14, 17))), split_of([(4, 5, 14, 17)]), fixed())

    assert found.images["iou"].tolist() == [1.0]


def test_a_filled_box_has_iou_below_one_where_the_conventions_disagree() -> None:
    """Clipping at W - 1 with inclusive pixels: the box 0 0 20 20 is found as 0 0 19 19, 400 of 441 pixels."""
    rule = fixed(convention="inclusive", clip=True)

    found = scores(predictions(filled((0, 0, 20, 20)) - filled((0, 0, 1, 1))), split_of([(0, 0, 20, 20)]), rule)

    assert found.images["iou"].tolist() == [pytest.approx(400 / 441)]


def test_only_the_first_box_counts_where_the_protocol_says_so() -> None:
    split = split_of([(0, 0, 5, 5), (10, 10, 18, 18)])
    found = predictions(filled((10, 10, 18, 18)))

    assert scores(found, split, fixed(truths="first")).metrics["gt_known_loc"] == 0
    assert scores(found, split, fixed(truths="any")).metrics["gt_known_loc"] == 100


def test_true_boxes_are_cut_to_whole_pixels_where_the_protocol_says_so() -> None:
    split = split_of([(4.9, 4.9, 14.9, 14.9)])
    found = predictions(filled((4, 4, 14, 14)))

    assert scores(found, split, fixed(whole_pixels=True)).images["iou"].tolist() == [1.0]
    assert scores(found, split, fixed()).images["iou"][0] == pytest.approx(9.1**2 / (200 - 9.1**2))


def test_the_largest_contour_is_not_the_largest_rectangle() -> None:
    """A thin diagonal has the larger rectangle, a block the larger area."""
    score_map = filled((12, 0, 18, 6))
    for step in range(11):
        score_map[8 + step, step] = 1
    found, split = predictions(score_map), split_of([(12, 0, 18, 6)])

    assert scores(found, split, fixed()).images["box"].tolist() == [[12, 0, 18, 6]]
    assert scores(found, split, fixed(contours="largest_rect")).images["box"].tolist() == [[0, 8, 11, 19]]


def test_an_iou_of_one_half_is_a_hit() -> None:
    found = scores(predictions(filled((0, 0, 10, 5))), split_of([(0, 0, 10, 10)]), fixed())

    assert found.metrics["gt_known_loc"] == 100


def test_top1_loc_needs_box_and_class() -> None:
    maps = [filled((0, 0, 10, 10)), filled((0, 0, 10, 10)), filled((15, 15, 20, 20)), filled((15, 15, 20, 20))]
    split = split_of(*[[(0.0, 0.0, 10.0, 10.0)]] * 4)
    found = Predictions(np.array([[0], [1], [0], [1]]), np.ones((4, 1), np.float32), np.stack(maps))

    metrics = scores(found, split, fixed()).metrics

    assert {name: metrics[name] for name in ("top1_clas", "gt_known_loc", "top1_loc")} == {
        "top1_clas": 50,
        "gt_known_loc": 50,
        "top1_loc": 25,
    }


def two_levels(wide: tuple[int, int, int, int], narrow: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """0.5 in the wide box, 1 in the narrow one: thresholds below 0.5 find the former, above the latter."""
    return np.maximum(filled(wide, value=0.5), filled(narrow))


def test_the_oracle_chooses_its_threshold_on_the_test_images() -> None:
    found = predictions(two_levels((0, 0, 20, 19), (5, 5, 10, 10)))

    metrics = scores(found, split_of([(5, 5, 10, 10)]), replace(fixed(), threshold="oracle")).metrics

    assert metrics["gt_known_loc"] == metrics["max_box_acc"] == 100
    assert metrics["threshold"] == pytest.approx(
        50, abs=0.3
    )  # 127 of 255 levels: the first threshold with int(255 t) = 127
    assert metrics["gt_known_loc_at_20"] == 0


def test_the_held_out_threshold_is_chosen_on_the_held_out_images_alone() -> None:
    test, held_out = split_of([(5, 5, 10, 10)]), split_of([(0, 0, 20, 20)])
    score_map = two_levels((0, 0, 20, 19), (5, 5, 10, 10))
    rule = protocol("wsolbench")

    seen, chosen_on = (of_network(split, rule.geometry, SIDE) for split in (test, held_out))

    found = evaluate(predictions(score_map), seen, rule, (score_map[None], chosen_on))

    assert found.metrics["threshold"] == 0  # the lowest that finds the wide box
    assert found.metrics["gt_known_loc"] == 0
    assert found.metrics["optimism"] == 100


def test_masks_of_held_out_images_are_not_decoded() -> None:
    def unread(index: int) -> NDArray[Any]:
        raise AssertionError(f"image {index}")

    rule, mask = protocol("wsolbench"), filled((5, 5, 10, 10)).astype(np.uint8)
    test = split_of([(5, 5, 10, 10)], mask=lambda _: mask, body=lambda _: mask != 0)
    held_out = split_of([(5, 5, 10, 10)], mask=unread, body=unread)
    seen, chosen_on = (of_network(split, rule.geometry, SIDE) for split in (test, held_out))

    found = evaluate(predictions(mask.astype(np.float32)), seen, rule, (mask[None].astype(np.float32), chosen_on))

    assert found.metrics["px_ap"] == found.metrics["body_coverage"] == 100


def test_without_held_out_images_their_protocol_is_refused() -> None:
    with pytest.raises(InputError, match="chooses its threshold on held-out images, and there are none"):
        scores(predictions(filled((0, 0, 5, 5))), split_of([(0, 0, 5, 5)]), protocol("wsolbench"))


def test_what_was_counted_before_an_error_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_: evaluation.Chunk) -> dict[str, NDArray[Any]]:
        raise InputError("a mask cannot be read")

    monkeypatch.setattr(evaluation, "_cover", unreadable)
    truth, counts = of_network(split_of([(4, 5, 14, 17)]), fixed(0.2).geometry, SIDE), Counts()

    with pytest.raises(InputError, match="a mask cannot be read"):
        evaluate(predictions(filled((4, 5, 14, 17))), truth, fixed(0.2), counts=counts)

    assert counts == {}


def test_protocols_that_differ_in_their_threshold_share_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[list[str]] = []

    def counted(accuracies: Sequence[BoxAccuracy], *arguments: Any) -> None:
        updates.append([accuracy.contours for accuracy in accuracies])
        metrics.update(accuracies, *arguments)

    monkeypatch.setattr(evaluation, "update", counted)
    rules = [fixed(0.2), fixed(0.6), fixed(0.2, clip=True)]
    found, split = predictions(filled((4, 5, 14, 17)), filled((1, 1, 5, 5))), split_of([(4, 5, 14, 17)], [(0, 0, 9, 9)])
    truth, counts = of_network(split, rules[0].geometry, SIDE), Counts()

    together = [evaluate(found, truth, rule, counts=counts) for rule in rules]

    assert updates == [["largest", "all"]] * 2
    alone = [scores(found, split, rule) for rule in rules]
    assert [each.metrics for each in together] == [each.metrics for each in alone]
    assert [each.curve.tolist() for each in together] == [each.curve.tolist() for each in alone]


def test_max_box_acc_v2_takes_every_contour() -> None:
    """The object is the smaller of two blobs: the largest contour never finds it, all contours do."""
    found = predictions(filled((0, 0, 10, 10), (14, 14, 18, 18)))

    metrics = scores(found, split_of([(14, 14, 18, 18)]), fixed()).metrics

    assert (metrics["max_box_acc"], metrics["max_box_acc_v2"]) == (0, 100)


def test_objects_are_small_medium_or_large_by_the_share_of_the_image() -> None:
    boxes = [(0.0, 0.0, 7.0, 8.0), (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 18.0, 10.0)]  # 14 %, 25 %, 45 %
    maps = [filled((0, 0, 7, 8)), filled((15, 15, 18, 18)), filled((0, 0, 18, 10))]

    metrics = scores(predictions(*maps), split_of(*([box] for box in boxes)), fixed()).metrics

    assert [metrics[f"gt_known_loc_{size}"] for size in ("small", "medium", "large")] == [100, 0, 100]


@pytest.mark.parametrize(
    ("box", "truths", "kind"),
    [
        ((0, 0, 4, 4), [(0, 0, 10, 10)], "part"),  # all of it on the object, 16 of 100
        ((0, 0, 20, 20), [(0, 0, 10, 10)], "more"),  # all of the object, 100 of 400
        ((0, 0, 20, 20), [(0, 0, 8, 8), (12, 12, 20, 20)], "multiple"),
        ((15, 15, 20, 20), [(0, 0, 10, 10)], "other"),
        ((5, 5, 20, 20), [(0, 0, 10, 10)], "other"),  # 25 of the box's 225 and of the object's 100
    ],
)
def test_errors_are_told_apart(box: tuple[int, ...], truths: list[tuple[float, ...]], kind: str) -> None:
    others = [(0.0, 0.0, 4.0, 4.0)]  # of the images before and after, which the box is all of
    every = np.array([*others, *truths, *others], np.float64)
    own = np.array([*others, *[box] * len(truths), *others], np.float64)

    found = error_kinds(own, every, np.array([0, 1, 1 + len(truths)]))

    assert [ERRORS[number] for number in found] == ["part", kind, "part"]


def test_a_hit_of_the_wrong_class_is_an_error_of_class() -> None:
    found = scores(predictions(filled((0, 0, 10, 10)), right=False), split_of([(0, 0, 10, 10)]), fixed())

    assert [ERRORS[index] for index in found.images["error"]] == ["class"]
    assert found.metrics["error_class"] == 100


def test_a_class_without_images_has_no_accuracy() -> None:
    split = replace(split_of([(0, 0, 10, 10)]), classes=("bird", "absent"))

    found = scores(predictions(filled((0, 0, 10, 10))), split, fixed())

    assert found.classes["gt_known_loc"][0] == 100
    assert np.isnan(found.classes["gt_known_loc"][1])


def test_coverage_counts_the_body_above_the_threshold() -> None:
    bodies = np.stack([filled((0, 0, 10, 10)), filled((0, 0, 10, 10)), filled((0, 0, 0, 0))]).astype(bool)
    maps = np.stack([filled((0, 0, 5, 10)), filled((0, 0, 5, 10)) / 2, filled((0, 0, 5, 10))])

    assert coverage(maps, bodies, 0.2).tolist() == [0.5, 0.5, 0]


def test_body_coverage_is_a_metric_where_there_are_bodies() -> None:
    body = filled((0, 0, 10, 10)).astype(bool)

    metrics = scores(
        predictions(filled((0, 0, 5, 10))), split_of([(0, 0, 10, 10)], body=lambda _: body), fixed()
    ).metrics

    assert metrics["body_coverage"] == 50


def test_px_ap_of_a_perfect_map_is_100() -> None:
    mask = filled((0, 0, 10, 10)).astype(np.uint8)

    metrics = scores(
        predictions(filled((0, 0, 10, 10))), split_of([(0, 0, 10, 10)], mask=lambda _: mask), fixed()
    ).metrics

    assert metrics["px_ap"] == pytest.approx(100)


def test_a_constant_map_is_a_miss_and_no_error() -> None:
    found = scores(predictions(np.full((SIDE, SIDE), 3.0, np.float32)), split_of([(5, 5, 15, 15)]), fixed())

    assert found.metrics["gt_known_loc"] == 0


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("side", [1, 2, 7])
def test_a_constant_map_of_any_size_has_the_box_of_no_region(name: str, side: int) -> None:
    rule = replace(protocol(name), geometry="resize224", threshold=0.2)
    constants = np.random.default_rng(0).normal(size=20).astype(np.float32)  # interpolation would not keep most of them

    found = scores(
        predictions(*(np.full((side, side), c) for c in constants)), split_of(*[[(5, 5, 15, 15)]] * 20), rule
    )

    assert found.images["box"].tolist() == [[0, 0, 0, 0] if rule.clip else [0, 0, 1, 1]] * 20


def test_a_map_that_is_not_finite_is_a_miss_and_no_error() -> None:
    score_map = filled((5, 5, 15, 15))
    score_map[0, 0] = np.nan

    assert scores(predictions(score_map), split_of([(5, 5, 15, 15)]), fixed()).metrics["gt_known_loc"] == 0


def test_truths_follow_the_image_into_the_networks_input() -> None:
    """An image of 40 x 10 pixels, whose right half is the object, seen as 20 x 20."""
    split = replace(split_of([(20, 0, 40, 10)]), sizes=np.array([[40, 10]]))

    assert scores(predictions(filled((10, 0, 20, 20))), split, fixed()).images["iou"].tolist() == [1.0]


def test_without_boxes_masks_and_classes_are_scored() -> None:
    mask = filled((0, 0, 10, 10)).astype(np.uint8)
    split = replace(split_of([(0, 0, 1, 1)], mask=lambda _: mask), boxes=(np.empty((0, 4)),))

    metrics = scores(predictions(filled((0, 0, 10, 10))), split, protocol("wsolbench")).metrics

    assert metrics == {"top1_clas": 100, "top5_clas": 100, "px_ap": pytest.approx(100)}


def test_images_without_a_box_among_others_are_named() -> None:
    split = replace(split_of([(0, 0, 5, 5)], [(0, 0, 5, 5)]), boxes=(np.array([[0.0, 0, 5, 5]]), np.empty((0, 4))))

    with pytest.raises(InputError, match=r"1 of 2 images have no box, .*: 1\.jpg"):
        _ = split.boxed


def test_only_images_with_a_box_are_held_out() -> None:
    split = replace(
        split_of(*[[(0.0, 0.0, 5.0, 5.0)]] * 6), boxes=tuple([np.array([[0.0, 0, 5, 5]])] * 2 + [np.empty((0, 4))] * 4)
    )

    rest, held_out = split.held_out(0.9)

    assert len(held_out) == 1
    assert set(held_out.ids) < {"0.jpg", "1.jpg"}
    assert len(rest) == 5


PICTURE = replace(split_of([(50.5, 40.2, 149.6, 159.9), (200.0, 20.0, 280.0, 180.0)]), sizes=np.array([[300, 200]]))
"""An image of 300 x 200 pixels with two objects."""


def blocks(side: int, large: tuple[int, int, int, int], line: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """1 in a block, 0.15 in a wider and larger frame that is one pixel thick."""
    score_map = np.zeros((side, side), np.float32)
    x0, y0, x1, y1 = line
    score_map[y0:y1, x0:x1] = 0.15
    score_map[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = 0
    x0, y0, x1, y1 = large
    score_map[y0:y1, x0:x1] = 1
    return score_map


@pytest.mark.parametrize(
    ("name", "box", "truth"),
    [
        # x by 224 / 300, y by 224 / 200; the second object is the nearer one
        ("wsolbench_fixed", (150, 22, 210, 202), (149.3333, 22.4, 209.0667, 201.6)),
        ("wsolevaluation", (150, 22, 210, 202), (149, 22, 209, 201)),
        # x by 256 / 300, y by 256 / 200, less 16; the first object, cut to whole pixels
        ("adl2019", (150, 22, 210, 202), (27, 35, 111, 188)),
        ("adl2019_rect", (150, 22, 210, 202), (27, 35, 111, 188)),
        # 384 x 256, less 80 and 16; the first object; at 5 % the frame, filled, has the larger area
        ("acol_spg", (10, 10, 120, 220), (-15.36, 35.456, 111.488, 188.672)),
    ],
)
def test_what_each_protocol_makes_of_a_picture(name: str, box: tuple[int, ...], truth: tuple[float, ...]) -> None:
    rule = replace(protocol(name), interpolation="linear")
    score_map = blocks(224, (150, 22, 210, 202), (10, 10, 120, 220))
    rule = rule if rule.threshold != "oracle" else replace(rule, threshold=0.2)

    found = evaluate(predictions(score_map), of_network(PICTURE, rule.geometry, 224), rule)

    assert found.images["box"].tolist() == [list(box)]
    extra = 1 if rule.convention == "inclusive" else 0
    ours, theirs = np.array(box, float), np.array(truth)
    sides = np.clip(np.minimum(ours[2:], theirs[2:]) - np.maximum(ours[:2], theirs[:2]) + extra, 0, None)
    area, other = (np.prod(b[2:] - b[:2] + extra) for b in (ours, theirs))
    assert found.images["iou"][0] == pytest.approx(sides.prod() / (area + other - sides.prod()), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("wsolbench", ("resize224", "linear", "linear", "any", False, "largest", "half_open", False, "held_out")),
        ("wsolbench_fixed", ("resize224", "linear", "linear", "any", False, "largest", "half_open", False, 0.2)),
        ("wsolevaluation", ("resize224", "cubic", "linear", "any", True, "largest", "inclusive", True, "oracle")),
        ("adl2019", ("resize256_crop224", "linear", "cubehelix", "first", True, "largest", "inclusive", False, 0.2)),
        (
            "adl2019_rect",
            ("resize256_crop224", "linear", "cubehelix", "first", True, "largest_rect", "inclusive", False, 0.2),
        ),
        ("acol_spg", ("short256_crop224", "linear", "linear", "first", False, "largest", "inclusive", False, 0.05)),
    ],
)
def test_protocols_are_what_their_sources_do(name: str, fields: tuple[object, ...]) -> None:
    assert tuple(vars(protocol(name)).values())[: len(fields)] == fields


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_cubehelix_cuts_maps_as_the_released_code_does(seed: int, threshold: float) -> None:
    """Its steps: the colour of each score, to bytes, to grey, cut at a share of the maximum."""
    score_map = cv2.resize(np.random.default_rng(seed).random((7, 7)), (56, 56))
    scaled = scoremaps.min_max(score_map[None].astype(np.float32))
    colours = (colormaps["cubehelix"](scaled[0].astype(float))[:, :, :3] * 255).astype(np.uint8)
    grey = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)

    found = boxes_at_thresholds(scoremaps.cubehelix(scaled), [threshold], clip=False)

    theirs = boxes_at_thresholds((grey[None] + 0.25) / 255.25, [threshold], clip=False)
    assert np.array_equal(found, theirs)
