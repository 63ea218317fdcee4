"""Batches of images: cropped, flipped and normalised in one pass over the decoded pixels."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsolbench._pixels import windows
from wsolbench.backbone import Normalisation
from wsolbench.dataset import Split
from wsolbench.pixels import Pixels
from wsolbench.trial import Trial


@dataclass(frozen=True)
class Batch:
    """Normalised float32 images (N, 3, H, W), labels (N,), and the images' names."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]


def training_batches(
    pixels: Pixels, trial: Trial, epoch: int, normalisation: Normalisation, workers: int, *, behind: int = 0
) -> Iterator[Batch]:
    """The split in a random order, randomly cropped and flipped; epochs count from 0, so many steps are behind.

    Every step draws from torch's generator seeded by (seed, epoch, step): neither the number of workers nor an
    interruption changes what is drawn, here and in the network that trains on the batch.
    """
    seed(trial.seed, epoch)
    order = torch.randperm(len(pixels)).tolist()
    groups, table = _groups(order, trial.batch_size)[behind:], table_of(normalisation)
    for step, (group, (squares, rows)) in enumerate(zip(groups, pixels.groups(groups, workers), strict=True), behind):
        seed(trial.seed, epoch, step)
        corners, mirrored = places(len(rows), pixels.side - trial.image_size), flips(len(rows))
        images = windows(squares, rows, corners.numpy(), mirrored.numpy(), table, trial.image_size)
        yield _batch(pixels.split, group, images)


def test_batches(pixels: Pixels, batch_size: int, normalisation: Normalisation, workers: int) -> Iterator[Batch]:
    """The split in its own order, as it is."""
    groups, table = _groups(range(len(pixels)), batch_size), table_of(normalisation)
    for group, (squares, rows) in zip(groups, pixels.groups(groups, workers), strict=True):
        corners, mirrored = np.zeros((len(rows), 2), np.int64), np.zeros(len(rows), np.bool_)
        yield _batch(pixels.split, group, windows(squares, rows, corners, mirrored, table, pixels.side))


def seed(*parts: int) -> None:
    """Seed torch's generators, of GPUs too where one is in use, for this tuple of numbers.

    `torch.manual_seed` would write down with its whole stack, a quarter of a millisecond a step, what a GPU is to do
    that may be used later.
    """
    torch.default_generator.manual_seed(stream(*parts))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(stream(*parts))


def stream(*parts: int) -> int:
    """A seed for each tuple of numbers, unlike that of any other."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def places(count: int, room: int) -> Tensor:
    """(N, 2) int64: y and x of the corner of a crop, drawn for each image, in [0, room]."""
    return torch.stack([torch.randint(room + 1, (count,)) for _ in range(2)], 1)


def flips(count: int) -> Tensor:
    """(N,) bool: whether each image is mirrored left to right, with probability one half."""
    return torch.rand(count) < 0.5  # noqa: PLR2004


def normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    """(N, 3, H, W) uint8 -> float32, channels last, minus the mean and over the deviation of [0, 1] values."""
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in normalisation)
    scaled = images.to(memory_format=torch.channels_last).float().div_(255)
    return scaled.sub_(mean).div_(deviation)


def table_of(normalisation: Normalisation) -> NDArray[np.float32]:
    """(256, 3): what `normalise` makes of each byte of each channel."""
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 256, 1).expand(-1, 3, -1, -1)
    return normalise(every, normalisation)[0, :, :, 0].T.contiguous().numpy()


def _groups(order: Sequence[int], batch_size: int) -> list[tuple[int, ...]]:
    return [tuple(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]


def _batch(split: Split, indices: tuple[int, ...], images: NDArray[np.float32]) -> Batch:
    """(N, H, W, 3) images as a batch: (N, 3, H, W) with channels last, without a copy."""
    labels = torch.from_numpy(split.labels[list(indices)])
    return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), labels, tuple(split.ids[index] for index in indices))
