"""Decoded images: squares of one geometry, decoded once into a file that every trial of a machine maps."""

import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import features
from torch.utils.data import DataLoader, Dataset

from wsolbench import files
from wsolbench.dataset import Split
from wsolbench.geometry import window
from wsolbench.place import pixels_folder
from wsolbench.protocols import Geometry
from wsolbench.stop import heed_only_the_parent

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]

SHARE = 0.5
"""Of the free space of the disk, what one file may take; a larger split is decoded anew in each epoch."""

LAYOUT = 2
"""Of the files, and of how a file becomes bytes where that is not Pillow's; another one has other names."""

DECODERS = ("jpg", "libjpeg_turbo", "jpg_2000", "webp", "avif")
"""Libraries behind Pillow whose pixels may differ from version to version; those of other formats lose nothing."""


class Pixels(Dataset[Bytes]):
    """The images of a split as squares of `side` pixels in one geometry: (side, side, 3) uint8.

    They are decoded once, into the cache folder, under a name that says everything that decides them. Where that cannot
    be, for want of space or of a place to write, they are decoded each time; the numbers are the same.
    """

    def __init__(self, split: Split, side: int, geometry: Geometry = "resize224") -> None:
        self.split = split
        self.side = side
        self.geometry: Geometry = geometry

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Bytes:
        size = self.split.sizes[index]
        return np.array(window(self.geometry, size, self.side).pixels(self.split.read(index)))

    def groups(self, groups: Sequence[Sequence[int]], workers: int = 0) -> Iterator[tuple[Bytes, Rows]]:
        """For each group of indices an array of squares and the rows of it that are the group's.

        Args:
            groups: indices of images.
            workers: processes that decode; the cache needs none.
        """
        if self.cache is not None:
            self.cache.used()
            yield from ((self.cache.squares, self.cache.sound(group)) for group in groups)
            return
        sampler = [list(group) for group in groups]
        deaf = heed_only_the_parent if workers else None
        loader = DataLoader(self, batch_sampler=sampler, num_workers=workers, collate_fn=np.stack, worker_init_fn=deaf)
        yield from ((squares, np.arange(len(squares))) for squares in loader)

    @cached_property
    def cache(self) -> "Cache | None":
        """The cache, filled first where it is not there yet; None where there can be none."""
        path = pixels_folder() / f"{self._key()}.npy" if self.split.stamp and len(self) else None
        if path is None:
            return None
        try:
            return Cache.opened(path, self) or self._filled(path)
        except OSError as error:
            sys.stderr.write(f"wsolbench: no cache of decoded images: {error}\n")
            return None

    def _key(self) -> str:
        """A digest of all that decides the squares: the images' names and states, the geometry, the decoder."""
        assert self.split.stamp is not None  # noqa: S101  asked before
        stamps = [(name, self.split.stamp(index)) for index, name in enumerate(self.split.ids)]
        decoder = [LAYOUT, PIL.__version__, *(features.version(name) for name in DECODERS)]
        facts = [*decoder, self.geometry, self.side, stamps]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def _filled(self, path: Path) -> "Cache | None":
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._bytes > SHARE * shutil.disk_usage(path.parent).free:
            return None
        shape = (len(self), self.side, self.side, 3)
        with files.building(path) as temporary, ThreadPoolExecutor(os.cpu_count()) as threads:
            squares = open_memmap(temporary, "w+", np.uint8, shape)
            sums = list(threads.map(lambda index: _store(squares, index, self[index]), range(len(self))))
            squares.flush()
            files.write(_sums(path), np.array(sums, np.uint32).tobytes())
        return Cache.opened(path, self)

    @property
    def _bytes(self) -> int:
        return len(self) * self.side * self.side * 3


class Cache:
    """The squares on disk, mapped, each checked against its sum when it is first asked for."""

    def __init__(self, path: Path, squares: Bytes, sums: NDArray[np.uint32], pixels: Pixels) -> None:
        self._path = path
        self.squares = squares
        self._sums = sums
        self._known = np.zeros(len(sums), bool)
        self._pixels = pixels

    @classmethod
    def opened(cls, path: Path, pixels: Pixels) -> "Cache | None":
        """The cache at `path`; None where there is none, or what is there was not written whole."""
        try:
            # what is mended is in this process's memory only; of a plain array each part is had sooner
            squares = np.load(path, mmap_mode="c").view(np.ndarray)
            sums = np.fromfile(_sums(path), np.uint32)
        except (FileNotFoundError, ValueError, EOFError):
            return None
        whole = squares.shape == (len(pixels), pixels.side, pixels.side, 3) and squares.dtype == np.uint8
        return cls(path, squares, sums, pixels) if whole and len(sums) == len(squares) else None

    def used(self) -> None:
        """Date the files anew: what nobody has used for long can go."""
        with suppress(OSError):  # another user's, or on a disk that is read-only
            for path in (self._path, _sums(self._path)):
                os.utime(path)

    def sound(self, group: Sequence[int]) -> Rows:
        """The rows of a group, those that were damaged since they were written decoded anew."""
        rows = np.asarray(group, np.int64)
        for row in rows[~self._known[rows]].tolist():
            if zlib.crc32(self.squares[row].data) != self._sums[row]:
                self.squares[row] = self._pixels[row]
            self._known[row] = True
        return rows


def _store(squares: Bytes, index: int, square: Bytes) -> int:
    squares[index] = square
    return zlib.crc32(square.data)


def _sums(path: Path) -> Path:
    return path.with_suffix(".crc32")
