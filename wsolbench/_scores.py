"""Compiled histograms of the scores inside and outside of masks."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wsolbench._compiled import compiled

Scores: TypeAlias = NDArray[np.floating]
Masks: TypeAlias = NDArray[np.uint8]
Edges: TypeAlias = NDArray[np.float64]

BLOCK = 512  # pixels whose bins are guessed at once
FOREGROUND = 1
IGNORED = 255
NEAR = 1e-9  # share of a bin: nearer to an edge than this, a guess is compared with the edge itself


@compiled
def guess_bins(scores: Scores, scale: float, bins: NDArray[np.int32]) -> bool:
    """Fill in the bins of scores as if all had the width 1 / scale; False if one is at an edge or outside [0, 1]."""
    sure = np.bool_(True)
    for i in range(len(scores)):
        position = np.float64(scores[i]) * scale
        bins[i] = np.int32(position)
        offset = position - bins[i]
        sure &= (offset > NEAR) & (offset < 1.0 - NEAR) & (position < scale)
    return bool(sure)


@compiled
def find_bins(scores: Scores, edges: Edges, scale: float, bins: NDArray[np.int32]) -> bool:
    """Fill in the bins edges[b] <= score < edges[b + 1]; False if a score is outside [0, 1]."""
    for i in range(len(scores)):
        score = np.float64(scores[i])
        if not 0.0 <= score <= 1.0:
            return False
        b = min(int(score * scale), len(edges) - 2)
        while score < edges[b]:
            b -= 1
        while score >= edges[b + 1]:
            b += 1
        bins[i] = b
    return True


@compiled
def evenly_spaced(edges: Edges, scale: float) -> bool:
    """Whether the edges up to 1 are where `guess_bins` has them, for all that it can tell."""
    farthest = 0.0
    for b in range(len(edges) - 2):
        farthest = max(farthest, abs(edges[b] * scale - b))
    return farthest < NEAR / 2


@compiled
def add_mask(masks: Masks, stride: int, bins: NDArray[np.int32]) -> bool:
    """Add `stride` to the bins inside the masks, twice that to the ignored; False if a value is none of the three."""
    known, step = np.bool_(True), np.int32(stride)
    for i in range(len(masks)):
        value = np.int32(masks[i])
        known &= (value <= FOREGROUND) | (value == IGNORED)
        bins[i] += min(value, np.int32(2)) * step
    return bool(known)


@compiled
def count_scores(scores: Scores, masks: Masks, edges: Edges, scale: float, counts: NDArray[np.int64]) -> bool:
    """Add to counts[v, b] the pixels of mask value v, 0 or 1, whose score is in bin b; counts[2] has the ignored.

    False if a score is outside [0, 1] or a mask value is not 0, 1 or 255.

    Args:
        scores: (P,), of as many pixels as `masks`.
        masks: (P,).
        edges: B + 1, ascending from 0 to more than 1.
        scale: bins from 0 to 1.
        counts: (3, B).
    """
    even = evenly_spaced(edges, scale)
    bins = np.empty(BLOCK, np.int32)
    size = counts.shape[1]
    tables = np.zeros((4, 3 * size), np.uint32)  # four in turn: adding to the cell of the last sum waits for it
    for start in range(0, len(scores), BLOCK):
        block = scores[start : start + BLOCK]
        if not (even and guess_bins(block, scale, bins)) and not find_bins(block, edges, scale, bins):
            return False
        if not add_mask(masks[start : start + BLOCK], size, bins):
            return False
        for i in range(len(block)):
            tables[i & 3, bins[i]] += 1
    for value in range(3):
        for b in range(size):
            i = value * size + b
            counts[value, b] += tables[0, i] + tables[1, i] + tables[2, i] + tables[3, i]
    return True
