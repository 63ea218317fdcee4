"""Compiled: batches of normalised images out of decoded ones."""

import numpy as np
from numpy.typing import NDArray

from wsolbench._compiled import compiled

Real = NDArray[np.float32]


@compiled
def windows(
    squares: NDArray[np.uint8],
    rows: NDArray[np.int64],
    corners: NDArray[np.int64],
    mirrored: NDArray[np.bool_],
    table: Real,
    side: int,
) -> Real:
    """(M, H, W, 3) squares -> (N, side, side, 3): of each row a window, mirrored or not, its bytes looked up.

    Args:
        squares: decoded images.
        rows: (N,) which of them.
        corners: (N, 2) y and x of each window.
        mirrored: (N,) left to right.
        table: (256, 3) what each byte of each channel becomes.
        side: of a window.
    """
    found = np.empty((len(rows), side, side, 3), np.float32)
    for n in range(len(rows)):
        top, left = corners[n]
        for y in range(side):
            line = squares[rows[n], top + y]
            for x in range(side):
                pixel = line[left + (side - 1 - x if mirrored[n] else x)]
                for channel in range(3):
                    found[n, y, x, channel] = table[pixel[channel], channel]
    return found
