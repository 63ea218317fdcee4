"""Batches of images: resized and kept, cropped, flipped and normalised as tensors."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsolbench.backbone import Normalisation
from wsolbench.dataset import Split
from wsolbench.geometry import Geometry, window
from wsolbench.trial import Trial

KEPT_IN_MEMORY = 4 << 30
"""Bytes of decoded images that are kept; a larger split is decoded anew in each epoch."""


@dataclass(frozen=True)
class Batch:
    """Normalised float32 images (N, 3, H, W), labels (N,), and the images' names."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]


class Pixels(Dataset[Tensor]):
    """The images of a split as squares of `side` pixels in one geometry: (3, side, side) uint8."""

    def __init__(self, split: Split, side: int, geometry: Geometry = "resize224") -> None:
        self.split = split
        self.side = side
        self.geometry: Geometry = geometry
        kept = len(split) if len(split) * 3 * side * side <= KEPT_IN_MEMORY else 0
        self._pixels = torch.empty((kept, 3, side, side), dtype=torch.uint8)
        self._known = np.zeros(kept, bool)

    def __len__(self) -> int:
        return len(self.split)

    @property
    def keeps(self) -> bool:
        """Whether an image is decoded only once."""
        return len(self._known) > 0

    def __getitem__(self, index: int) -> Tensor:
        if not self.keeps:
            return self._decode(index)
        if not self._known[index]:
            self._pixels[index] = self._decode(index)
            self._known[index] = True
        return self._pixels[index]

    def _decode(self, index: int) -> Tensor:
        square = window(self.geometry, self.split.sizes[index], self.side).pixels(self.split.read(index))
        return torch.from_numpy(square.copy()).permute(2, 0, 1)


def training_batches(
    pixels: Pixels, trial: Trial, epoch: int, normalisation: Normalisation, workers: int
) -> Iterator[Batch]:
    """The split in a random order, randomly cropped and flipped; epochs count from 0.

    Every step draws from torch's generator seeded by (seed, epoch, step): neither the number of workers nor an
    interruption changes what is drawn, here and in the network that trains on the batch.
    """
    torch.manual_seed(stream(trial.seed, epoch))
    order = torch.randperm(len(pixels)).tolist()
    for step, (indices, images) in enumerate(_loaded(pixels, order, trial.batch_size, workers)):
        torch.manual_seed(stream(trial.seed, epoch, step))
        cropped = flip(crop(images, trial.image_size))
        yield _batch(pixels.split, indices, normalise(cropped, normalisation))


def test_batches(pixels: Pixels, batch_size: int, normalisation: Normalisation, workers: int) -> Iterator[Batch]:
    """The split in its own order, as it is."""
    for indices, images in _loaded(pixels, range(len(pixels)), batch_size, workers):
        yield _batch(pixels.split, indices, normalise(images, normalisation))


def stream(*parts: int) -> int:
    """A seed for each tuple of numbers, unlike that of any other."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def crop(images: Tensor, side: int) -> Tensor:
    """(N, C, H, W) -> (N, C, side, side), at a place drawn for each image."""
    places = torch.stack([torch.randint(extent - side + 1, (len(images),)) for extent in images.shape[-2:]], 1).tolist()
    return torch.stack([image[:, y : y + side, x : x + side] for image, (y, x) in zip(images, places, strict=True)])


def flip(images: Tensor) -> Tensor:
    """(N, C, H, W), each mirrored left to right with probability one half."""
    mirrored = torch.rand(len(images)) < 0.5  # noqa: PLR2004
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    """(N, 3, H, W) uint8 -> float32, channels last, minus the mean and over the deviation of [0, 1] values."""
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in normalisation)
    scaled = images.to(memory_format=torch.channels_last).float().div_(255)
    return scaled.sub_(mean).div_(deviation)


def _loaded(
    pixels: Pixels, order: Sequence[int], batch_size: int, workers: int
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    groups: list[Any] = [tuple(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    if pixels.keeps:
        workers = 0  # a worker's memory is its own
    loader = DataLoader(pixels, batch_sampler=groups, num_workers=workers)
    return zip(groups, loader, strict=True)


def _batch(split: Split, indices: tuple[int, ...], images: Tensor) -> Batch:
    labels = torch.from_numpy(split.labels[list(indices)])
    return Batch(images, labels, tuple(split.ids[index] for index in indices))
