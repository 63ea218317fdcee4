"""What is known of a split's images, in the pixels that their score maps are scored in."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsolbench.dataset import Split
from wsolbench.geometry import Window, window
from wsolbench.protocols import Geometry, Protocol

THREADS = 4
"""That decode masks; they wait for the disk as much as they compute."""

TOGETHER = 16
"""Masks that a thread takes at once: to hand one over takes longer than to copy it."""


@dataclass(frozen=True)
class Truth:
    """A split as its images are seen. Its masks are decoded once, when they are first asked for.

    Args:
        split: the images.
        views: for each image, what is seen of it.
    """

    split: Split
    views: Sequence[Window]

    def __len__(self) -> int:
        return len(self.split)

    def boxes(self, index: int) -> NDArray[np.float64]:
        """(M, 4) true boxes of an image, not clipped to what is seen of it."""
        return self._boxes[index]

    def masks(self, indices: range) -> NDArray[np.uint8] | None:
        """(N, rows, columns) of images seen in one size: 1 object, 0 background, 255 unknown; None: no masks."""
        return self._masks and self._masks(indices)

    def bodies(self, indices: range) -> NDArray[np.uint8] | None:
        """(N, rows, columns) of images seen in one size: 1 body, 0 elsewhere; None where there are none."""
        return self._bodies and self._bodies(indices)

    def prepare(self) -> None:
        """Have at hand what needs no decoding: that of masks may take minutes, and not every protocol asks for them."""
        self._boxes, self._bodies  # noqa: B018  they are kept

    @cached_property
    def _boxes(self) -> list[NDArray[np.float64]]:
        images = zip(self.views, self.split.boxes, self.split.sizes, strict=True)
        return [view.boxes(boxes, size) for view, boxes, size in images]

    @cached_property
    def _masks(self) -> Callable[[range], NDArray[np.uint8]] | None:
        if self.split.mask is None:
            return None
        with ThreadPoolExecutor(THREADS) as pool:
            return _kept(self.split.mask, self.views, pool.map)

    @cached_property
    def _bodies(self) -> Callable[[range], NDArray[np.uint8]] | None:
        return None if self.split.body is None else _kept(self.split.body, self.views, map)  # these need no decoding


def of_network(split: Split, geometry: Geometry, side: int) -> Truth:
    """The truth in the pixels of a network's input of `side` pixels."""
    return Truth(split, [window(geometry, size, side) for size in split.sizes])


def counting(truths: NDArray[np.float64], protocol: Protocol) -> NDArray[np.float64]:
    """Those of an image's true boxes that count, as the protocol rounds them."""
    if protocol.whole_pixels:
        truths = np.trunc(truths)
    return truths[:1] if protocol.truths == "first" else truths


def _kept(
    read: Callable[[int], NDArray[Any]], views: Sequence[Window], each: Callable[..., Iterable[None]]
) -> Callable[[range], NDArray[np.uint8]]:
    """The planes that `read` gives, as they are seen; in a file that has no name, so that memory does not grow."""
    ends = list(accumulate((view.rows * view.columns for view in views), initial=0))
    with tempfile.TemporaryFile() as file:
        kept = np.memmap(file, np.uint8, shape=(ends[-1],)).view(np.ndarray)

    def keep(start: int) -> None:
        for index in range(start, min(start + TOGETHER, len(views))):
            kept[ends[index] : ends[index + 1]] = views[index].mask(read(index)).ravel()

    list(each(keep, range(0, len(views), TOGETHER)))

    def planes(indices: range) -> NDArray[np.uint8]:
        view = views[indices.start]
        return kept[ends[indices.start] : ends[indices.stop]].reshape(len(indices), view.rows, view.columns)

    return planes
