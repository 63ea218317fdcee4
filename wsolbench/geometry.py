"""Test geometries: how an image becomes the square that a network sees, and its boxes and masks with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsolbench.boxes import scale_boxes
from wsolbench.protocols import Geometry


@dataclass(frozen=True)
class Window:
    """An image resized to `width` x `height`, of which `columns` x `rows` pixels from the corner (x, y) are seen."""

    width: int
    height: int
    x: int
    y: int
    columns: int
    rows: int

    def pixels(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 -> (rows, columns, 3): PIL's bilinear filter, as torchvision resizes images."""
        picture = Image.fromarray(image)
        if picture.size != (self.width, self.height):
            picture = picture.resize((self.width, self.height), Image.Resampling.BILINEAR)
        return np.asarray(picture)[self.y : self.y + self.rows, self.x : self.x + self.columns]

    def boxes(self, boxes: NDArray[np.float64], size: NDArray[np.int64]) -> NDArray[np.float64]:
        """(M, 4) boxes of an image of (width, height) `size`, in pixels of what is seen, not clipped to it."""
        width, height = size.tolist()
        scaled = scale_boxes(boxes, (width, height), (self.width, self.height), truncate=False)
        return np.asarray(scaled, np.float64) - (self.x, self.y, self.x, self.y)

    def in_image(self, boxes: NDArray[np.float64], size: NDArray[np.int64]) -> NDArray[np.float64]:
        """(M, 4) boxes of what is seen, in pixels of the image of (width, height) `size`, clipped to it."""
        width, height = size.tolist()
        whole = boxes + np.array((self.x, self.y, self.x, self.y))
        scaled = scale_boxes(whole, (self.width, self.height), (width, height), truncate=False)
        return np.clip(np.asarray(scaled, np.float64), 0, (width, height, width, height))

    def mask(self, mask: NDArray[Any]) -> NDArray[Any]:
        """(H, W) -> (rows, columns) by nearest neighbours."""
        rows = _nearest(mask.shape[0], self.height)[self.y : self.y + self.rows]
        columns = _nearest(mask.shape[1], self.width)[self.x : self.x + self.columns]
        return mask[np.ix_(rows, columns)]


def window(geometry: Geometry, size: NDArray[np.int64], side: int) -> Window:
    """What a network of input `side` sees of an image of `size`, (2,) width and height in pixels."""
    width, height = size.tolist()
    return _WINDOWS[geometry](width, height, side)


def larger(side: int) -> int:
    """The side before cropping: 256 for 224."""
    return round(side * 256 / 224)


def _resize(_width: int, _height: int, side: int) -> Window:
    return Window(side, side, 0, 0, side, side)


def _resize_crop(_width: int, _height: int, side: int) -> Window:
    return _centre(larger(side), larger(side), side)


def _short_crop(width: int, height: int, side: int) -> Window:
    short = larger(side)
    longer = int(short * max(width, height) / min(width, height))
    return _centre(*((longer, short) if width > height else (short, longer)), side)


def _centre(width: int, height: int, side: int) -> Window:
    return Window(width, height, round((width - side) / 2), round((height - side) / 2), side, side)


@lru_cache  # many images of a data set are of one size
def _nearest(source: int, target: int) -> NDArray[np.int64]:
    """For each of `target` pixels the nearest of `source`, as OpenCV's INTER_NEAREST takes it."""
    return np.minimum(np.floor(np.arange(target) * (1 / (target / source))).astype(np.int64), source - 1)


_WINDOWS: Mapping[Geometry, Any] = {
    "resize224": _resize,
    "resize256_crop224": _resize_crop,
    "short256_crop224": _short_crop,
}
