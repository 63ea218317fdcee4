from typing import Any

import cv2
import numpy as np
import pytest

from wsolbench import scoremaps


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_rows_and_columns_are_not_swapped(interpolation: str) -> None:
    score_map = np.zeros((1, 2, 3), np.float32)
    score_map[0, 0, 2] = 1.0  # at the upper right

    found = scoremaps.resized(score_map, 20, 30, interpolation)

    assert found.shape == (1, 20, 30)
    row, column = np.unravel_index(found[0].argmax(), found[0].shape)
    assert (row < 10, column >= 20) == (True, True)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("side", [1, 2, 7, 14])
def test_a_constant_map_is_constant_at_every_size_and_becomes_zeros(side: int, interpolation: str) -> None:
    scores = np.random.default_rng(0).normal(size=(300, 1, 1)).astype(np.float32)

    found = scoremaps.resized(np.tile(scores, (1, side, side)), 32, 40, interpolation)

    assert (found == scores).all()
    assert not scoremaps.min_max(found).any()


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_map_that_is_not_constant_is_resized_as_opencv_does_it(interpolation: str, dtype: type[Any]) -> None:
    maps = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(dtype)
    maps[1] = 2  # constant, between two that are not
    how = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}[interpolation]

    found = scoremaps.resized(maps, 20, 30, interpolation)

    for index in (0, 2):
        assert found[index].tolist() == cv2.resize(maps[index], (30, 20), interpolation=how).tolist()


def test_a_map_with_nan_becomes_zeros_after_resizing_too() -> None:
    maps = np.array([[[np.nan, 1.0]], [[np.nan, np.nan]]], np.float32)

    assert not scoremaps.min_max(scoremaps.resized(maps, 8, 8, "cubic")).any()


def test_each_map_is_scaled_by_itself_and_a_constant_one_becomes_zeros() -> None:
    maps = np.array([[[1.0, 3.0]], [[-4.0, -2.0]], [[7.0, 7.0]], [[np.nan, 1.0]]], np.float32)

    assert scoremaps.min_max(maps).tolist() == [[[0, 1]], [[0, 1]], [[0, 0]], [[0, 0]]]
