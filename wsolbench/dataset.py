"""A data set: images, labels, and the boxes or masks that localization is measured against."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsolbench.errors import InputError


class NoSplitError(InputError):
    """The data set has no such split, or its files are not there."""


Found = TypeVar("Found")
SplitName = Literal["train", "held_out", "test"]


@dataclass(frozen=True)
class Split:
    """The images of one split, with what is known about them.

    Args:
        ids: (N,) unique names of the images, as the data set has them.
        labels: (N,) int64, in [0, K).
        classes: (K,) names.
        read: the index of an image -> (H, W, 3) uint8 RGB; raises `InputError` that names a file it cannot decode.
        sizes: (N, 2) int64, width and height in pixels of what `read` returns.
        boxes: for each image (M, 4) float64 x0, y0, x1, y1 in pixels of what `read` returns, half-open;
            empty where unknown.
        body: the index of an image -> (H, W) bool, the object without its class-specific part; None where unknown.
        mask: the index of an image -> (h, w) uint8 over the whole image, in pixels of its own: 1 object, 0 background,
            255 unknown and not scored; None where there are no masks.
        stamp: the index of an image -> what is another text when the image may be another one, without reading it; None
            where nothing tells.
        notes: what was found on reading that a user should know, such as boxes clipped.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    read: Callable[[int], NDArray[np.uint8]]
    sizes: NDArray[np.int64]
    boxes: tuple[NDArray[np.float64], ...]
    body: Callable[[int], NDArray[np.bool_]] | None = None
    mask: Callable[[int], NDArray[np.uint8]] | None = None
    stamp: Callable[[int], str] | None = None
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """sha256 of all that is said of the images: names, classes, sizes and boxes, in their order; not of pixels."""
        counts = np.array([len(boxes) for boxes in self.boxes], np.int64)
        boxes = (each.astype(np.float64) for each in self.boxes)
        numbers = (self.labels.astype(np.int64), self.sizes.astype(np.int64), counts, *boxes)
        text = "\0".join((*self.classes, "", *self.ids))
        return hashlib.sha256(text.encode() + b"".join(array.tobytes() for array in numbers)).hexdigest()

    def only(self, indices: Sequence[int]) -> "Split":
        """These images of the split, in this order."""
        kept = np.asarray(indices, np.int64)

        def at(read: Callable[[int], Found] | None) -> Callable[[int], Found] | None:
            return None if read is None else lambda index: read(int(kept[index]))

        return replace(
            self,
            ids=tuple(self.ids[index] for index in kept),
            labels=self.labels[kept],
            sizes=self.sizes[kept],
            boxes=tuple(self.boxes[index] for index in kept),
            read=lambda index: self.read(int(kept[index])),
            body=at(self.body),
            mask=at(self.mask),
            stamp=at(self.stamp),
        )

    @property
    def boxed(self) -> bool:
        """Whether images have boxes; `InputError` names those without where others have them."""
        without = [name for name, boxes in zip(self.ids, self.boxes, strict=True) if not len(boxes)]
        if without and len(without) < len(self):
            named = ", ".join(without[:5])
            raise InputError(
                f"{len(without)} of {len(self)} images have no box, give them one or leave them out: {named}"
            )
        return not without

    def held_out(self, share: float) -> tuple["Split", "Split"]:
        """The images to train on, and a share of each class's that is not; the same ones on every machine.

        Which of a class's images with boxes are held out is drawn by the digests of their names; at least one of a
        class with two or more is, none of a class with one.
        """
        held: set[int] = set()
        boxed = np.array([len(boxes) > 0 for boxes in self.boxes], bool)
        for label in np.unique(self.labels):
            candidates = np.flatnonzero((self.labels == label) & boxed).tolist()
            indices = sorted(candidates, key=lambda i: _drawn(self.ids[i]))
            held.update(indices[: min(max(1, round(share * len(indices))), len(indices) - 1)])
        rest = [index for index in range(len(self)) if index not in held]
        return self.only(rest), self.only(sorted(held))


def _drawn(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


class Dataset(Protocol):
    """What a file in `wsolbench/datasets/` declares as `DATASET`: a frozen dataclass, its fields are its options."""

    def split(self, name: SplitName, data: Path | None) -> Split:
        """One split, read from the folder `data`.

        Raises:
            NoSplitError: the data set has no such split.
            InputError: names what is missing or wrong in the folder.
        """
        ...
