"""Test geometries: what the network sees, and where the boxes go."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from wsolbench.geometry import Window, larger, window


def size(width: int, height: int) -> np.ndarray:
    return np.array((width, height))


def test_resize_ignores_the_aspect() -> None:
    assert window("resize224", size(500, 333), 224) == Window(224, 224, 0, 0, 224, 224)


def test_resize_crop_cuts_the_middle_of_a_square() -> None:
    assert window("resize256_crop224", size(500, 333), 224) == Window(256, 256, 16, 16, 224, 224)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (500, 250, Window(512, 256, 144, 16, 224, 224)),
        (250, 500, Window(256, 512, 16, 144, 224, 224)),
        (333, 333, Window(256, 256, 16, 16, 224, 224)),
        (500, 375, Window(341, 256, 58, 16, 224, 224)),  # int(256 * 500 / 375) = 341; (341 - 224) / 2 = 58.5, to even
    ],
)
def test_short_crop_keeps_the_aspect(width: int, height: int, expected: Window) -> None:
    assert window("short256_crop224", size(width, height), 224) == expected


@pytest.mark.parametrize(("side", "expected"), [(224, 256), (64, 73), (448, 512)])
def test_the_side_before_a_crop_keeps_the_proportion(side: int, expected: int) -> None:
    assert larger(side) == expected


def test_boxes_are_scaled_and_shifted_but_not_clipped() -> None:
    seen = window("resize256_crop224", size(512, 128), 224)

    found = seen.boxes(np.array([[0.0, 0.0, 512.0, 128.0], [64.0, 16.0, 128.0, 64.0]]), size(512, 128))

    assert found.tolist() == [[-16, -16, 240, 240], [16, 16, 48, 112]]


def test_pixels_are_pils_bilinear_resize_and_a_crop() -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 61, 3), np.uint8)

    found = window("short256_crop224", size(61, 37), 56).pixels(image)

    resized = np.asarray(Image.fromarray(image).resize((105, 64), Image.Resampling.BILINEAR))  # int(64 * 61 / 37) = 105
    assert np.array_equal(found, resized[4:60, 24:80])


def test_masks_follow_by_nearest_neighbours() -> None:
    mask = np.array([[1, 2], [3, 4]], np.uint8)

    found = window("resize224", size(2, 2), 4).mask(mask)

    assert found.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


@example(1600, 224)
@given(st.integers(1, 2000), st.sampled_from([7, 48, 160, 224, 256]))
def test_a_mask_is_scaled_as_opencv_scales_it(source: int, side: int) -> None:
    """1600 to 224 among others: the step is the reciprocal of a rounded quotient, not the quotient."""
    column = np.arange(source, dtype=np.float32)[:, None].repeat(2, 1)

    seen = Window(2, side, 0, 0, 2, side).mask(column)

    assert np.array_equal(seen, cv2.resize(column, (2, side), interpolation=cv2.INTER_NEAREST))
