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


def test_each_map_is_scaled_by_itself_and_a_constant_one_becomes_zeros() -> None:
    maps = np.array([[[1.0, 3.0]], [[-4.0, -2.0]], [[7.0, 7.0]], [[np.nan, 1.0]]], np.float32)

    assert scoremaps.min_max(maps).tolist() == [[[0, 1]], [[0, 1]], [[0, 0]], [[0, 0]]]
