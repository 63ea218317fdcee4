"""Anybody's score maps as they lie on disk: found by the names of the images, each looked at before one is scored."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from wsolbench.annotations import Problems, refuse, sentences
from wsolbench.dataset import Split
from wsolbench.errors import Collecting, InputError

Array = NDArray[Any]


@dataclass(frozen=True)
class MapFiles:
    """Where the score maps of a split's images are.

    Args:
        split: the images.
        names: (N,) of the files, or of the arrays in one file.
        load: the index of an image -> its array; raises `InputError` that names it where it cannot be read.
    """

    split: Split
    names: list[str]
    load: Callable[[int], Array]


@dataclass(frozen=True)
class Looks:
    """What was seen of each map, without keeping it.

    Args:
        shapes: (N,) rows and columns; empty of what has none.
        outside: of each map with scores outside [0, 1], its name and range.
    """

    shapes: list[tuple[int, ...]]
    outside: list[str]


def found(source: Path, split: Split, problems: list[str]) -> MapFiles:
    """The maps in a folder, or in an .npz of all; images that have none are left out, and a problem more."""
    return _in_folder(source, split, problems) if source.is_dir() else _in_archive(source, split, problems)


def look(files: MapFiles, problems: list[str]) -> Looks:
    """Read each map once; a problem more for each kind that cannot be read, or holds no (H, W) finite real numbers."""
    shapes: list[tuple[int, ...]] = []
    outside: list[str] = []
    wrong, unreadable = Problems(list), list[str]()
    for index, name in enumerate(files.names):
        shapes.append(())
        with Collecting(unreadable):
            array = files.load(index)
            shapes[-1] = array.shape if array.ndim == 2 and array.size else ()  # noqa: PLR2004  rows and columns
            if kind := _wrong(array):
                wrong[kind].append(f"{name} ({array.dtype}, {size(array.shape)})")
            elif array.min() < 0 or array.max() > 1:
                outside.append(f"{name} ({array.min():g} to {array.max():g})")
    problems += [*unreadable, *sentences(wrong)]
    return Looks(shapes, outside)


def size(shape: tuple[int, ...]) -> str:
    """Rows x columns."""
    return " x ".join(map(str, shape)) or "one number"


def refuse_shared(asked: Sequence[MapFiles]) -> None:
    """A map that two images are given, as their names are the same but for folder or ending, is of one at most."""
    first: dict[str, str] = {}
    given = [(name, image) for files in asked for name, image in zip(files.names, files.split.ids, strict=True)]
    shared = [f"{name} to {first[name]} and {image}" for name, image in given if first.setdefault(name, image) != image]
    refuse({"score maps that go to two images": shared}, "name each like its image, with folder and ending")


def _in_folder(folder: Path, split: Split, problems: list[str]) -> MapFiles:
    paths = [next((path for path in _paths(folder, image) if path.is_file()), None) for image in split.ids]
    there = [path for path in paths if path is not None]
    split = _with_maps(folder, split, paths, problems)
    return MapFiles(split, [str(path) for path in there], lambda index: _array(there[index]))


def _in_archive(path: Path, split: Split, problems: list[str]) -> MapFiles:
    archive = _archive(path)
    keys = [next((key for key in _names(image) if key in archive), None) for image in split.ids]
    there = [key for key in keys if key is not None]
    names = [f"{path}: {key}" for key in there]
    split = _with_maps(path, split, keys, problems)
    return MapFiles(split, names, lambda index: _held(archive, names[index], there[index]))


def _wrong(array: Array) -> str:
    """What is wrong with a map; empty where nothing is."""
    if array.dtype.kind not in "buif":
        return "score maps that hold no real numbers"
    if array.ndim != 2 or not array.size:  # noqa: PLR2004  rows and columns
        return "score maps that are not of rows and columns"
    with np.errstate(over="ignore", invalid="ignore"):  # that is what is asked
        spread = array.max().astype(np.float64) - array.min().astype(np.float64)
    return "" if np.isfinite(spread) else "score maps that are not finite everywhere, or of an endless range"


def _archive(path: Path) -> NpzFile:
    with _reading(path):
        if path.suffix == ".npz":
            ZipFile(path).close()  # where it is torn, numpy would leave it open
        archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, NpzFile):
        raise InputError(f"{str(path)!r} is one array; name the folder that it is in, or an .npz of all maps")
    return archive


def _held(archive: NpzFile, name: str, key: str) -> Array:
    with _reading(name):
        return np.asarray(archive[key])


def _array(path: Path) -> Array:
    with _reading(path), path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, NpzFile):
            return np.asarray(loaded)
        if len(loaded.files) != 1:
            raise ValueError(f"it holds {len(loaded.files)} arrays")
        return np.asarray(loaded[loaded.files[0]])


@contextmanager
def _reading(name: Path | str) -> Iterator[None]:
    """Tell what numpy cannot read, whatever it raises."""
    try:
        yield
    except (ValueError, EOFError, OSError, RuntimeError, MemoryError, BadZipFile, zlib.error, TokenError) as error:
        raise InputError(f"{name} holds no score map: {error}") from None


def _names(image: str) -> list[str]:
    """What the map of an image may be called, the surest first."""
    return [image, str(Path(image).with_suffix("")), Path(image).name, Path(image).stem]


def _paths(folder: Path, image: str) -> list[Path]:
    return [folder / f"{name}{suffix}" for name in _names(image) for suffix in (".npy", ".npz")]


def _with_maps(source: Path, split: Split, found: Sequence[object], problems: list[str]) -> Split:
    """The images that have a map; a problem more names the others."""
    images = [image for image, each in zip(split.ids, found, strict=True) if each is None]
    if not images:
        return split
    such = f"such as {_paths(source, images[0])[0].name} or {_paths(source, images[0])[2].name}"
    problems.append(f"no score map in {str(source)!r} for {len(images)} images ({such}): {', '.join(images[:5])}")
    return split.only([index for index, each in enumerate(found) if each is not None])
