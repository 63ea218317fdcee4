"""Score maps: from a network's own resolution to numbers in [0, 1] on the pixels of its input."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Maps: TypeAlias = NDArray[np.float32] | NDArray[np.float64]


def resized(score_maps: Maps, height: int, width: int, interpolation: str) -> Maps:
    """(N, h, w) score maps at the size of the input, (N, height, width); `interpolation` is `linear` or `cubic`.

    A constant map stays constant to the bit, where interpolation would leave noise for `min_max` to stretch.
    """
    import cv2  # noqa: PLC0415  costs a tenth of a second that the command line does without

    how = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}[interpolation]
    out = np.empty((len(score_maps), height, width), score_maps.dtype)
    constant = score_maps.min(axis=(1, 2)) == score_maps.max(axis=(1, 2))
    out[constant] = score_maps[constant, :1, :1]
    for index in np.flatnonzero(~constant):
        cv2.resize(score_maps[index], (width, height), dst=out[index], interpolation=how)
    return out


def min_max(score_maps: Maps) -> Maps:
    """Each map scaled to [0, 1]; a map that is constant or not finite becomes zeros."""
    low = score_maps.min(axis=(1, 2), keepdims=True)
    spread = score_maps.max(axis=(1, 2), keepdims=True) - low
    usable = np.isfinite(spread) & (spread > 0)
    scaled = np.divide(score_maps - low, spread, out=np.zeros_like(score_maps), where=usable)
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def linear(score_maps: Maps) -> Maps:
    """The scores as they are."""
    return score_maps


def cubehelix(score_maps: Maps) -> Maps:
    """Scores in [0, 1] as the grey of their colours in matplotlib's cubehelix, in 256 levels from 0 to 1."""
    grey = _cubehelix_grey()[np.minimum(score_maps.astype(np.float64) * 256, 255).astype(np.uint8)]
    return np.minimum((grey + 0.5) / 255, 1.0)  # the half keeps a level from rounding to the one below


GREYS: Mapping[str, Callable[[Maps], Maps]] = {"linear": linear, "cubehelix": cubehelix}


@cache
def _cubehelix_grey() -> NDArray[np.uint8]:
    import cv2  # noqa: PLC0415  as above
    from matplotlib import colormaps  # noqa: PLC0415  likewise

    colours = colormaps["cubehelix"](np.arange(256))[None, :, :3]
    return np.asarray(cv2.cvtColor((colours * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)[0], np.uint8)
