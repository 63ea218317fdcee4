"""Score maps: from a network's own resolution to numbers in [0, 1] on the pixels of its input."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Maps: TypeAlias = NDArray[np.float32] | NDArray[np.float64]


def resized(score_maps: Maps, height: int, width: int, interpolation: str) -> Maps:
    """(N, h, w) score maps at the size of the input, (N, height, width); `interpolation` is `linear` or `cubic`."""
    import cv2  # noqa: PLC0415  costs a tenth of a second that the command line does without

    how = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}[interpolation]
    out = np.empty((len(score_maps), height, width), np.float32)
    for index, score_map in enumerate(score_maps):
        cv2.resize(score_map, (width, height), dst=out[index], interpolation=how)
    return out


def min_max(score_maps: Maps) -> Maps:
    """Each map scaled to [0, 1]; a map that is constant or not finite becomes zeros."""
    low = score_maps.min(axis=(1, 2), keepdims=True)
    spread = score_maps.max(axis=(1, 2), keepdims=True) - low
    usable = np.isfinite(spread) & (spread > 0)
    scaled = np.divide(score_maps - low, spread, out=np.zeros_like(score_maps), where=usable)
    return np.clip(scaled, 0.0, 1.0, out=scaled)
