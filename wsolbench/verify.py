"""What a data set on disk holds, and what is wrong with it."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from wsolbench.annotations import Problems, sentences
from wsolbench.dataset import Dataset, NoSplitError, Split, SplitName
from wsolbench.errors import InputError

_CHUNK = 16  # images that a thread takes at a time
_MASK_VALUES = {0, 1, 255}
STRETCH = 0.05
"""Of a mask against its image: less comes of rounding to whole pixels."""


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    Args:
        name: `train`, `held_out` or `test`.
        images: how many.
        official: how many the whole data set has; None where it says nothing.
        classes: how many are known, with images here or not.
        boxes: how many.
        masks: how many images have one.
        smallest: of the images, width and height in pixels, each for itself; of none, 0.
        largest: the same.
        digest: sha256 over ids, labels, boxes, masks and decoded pixels, whatever the order of the images.
        notes: what the reader and this check found that is not wrong.
    """

    name: SplitName
    images: int
    official: int | None
    classes: int
    boxes: int
    masks: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    digest: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What a data set holds.

    Args:
        splits: those that could be read.
        absent: for each split that is not there, why.
        problems: what is wrong, a sentence each; empty if nothing is.
    """

    splits: tuple[SplitReport, ...]
    absent: Mapping[SplitName, str]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Checked:
    """A split after each of its images was decoded: their digests, and what is wrong."""

    report: SplitReport
    ids: tuple[str, ...]
    digests: tuple[bytes, ...]
    problems: tuple[str, ...]


class _Look(NamedTuple):
    """What was seen of an image: the digest of its pixels, that of all that is known of it, and what is wrong."""

    pixels: bytes
    everything: bytes
    problems: tuple[tuple[str, str], ...]


def verify(dataset: Dataset, data: Path | None, threads: int = 2) -> Report:
    """Read every split of a data set, decode every image and mask, and compare the splits with each other.

    Never raises for what is wrong with the data; that is in `problems`.
    """
    checked: list[_Checked] = []
    absent: dict[SplitName, str] = {}
    problems: list[str] = []
    for name in get_args(SplitName):
        try:
            checked.append(_checked(name, dataset.split(name, data), _official(dataset).get(name), threads))
        except NoSplitError as error:
            absent[name] = str(error)
        except InputError as error:
            problems += error.problems
    problems += [problem for split in checked for problem in split.problems]
    problems += sentences(_shared(checked))
    if not checked and not problems:
        problems = list(absent.values())
    return Report(tuple(split.report for split in checked), absent, tuple(dict.fromkeys(problems)))


def _official(dataset: Dataset) -> Mapping[SplitName, int]:
    """How many images the whole data set has, where its file says so in `official`."""
    return getattr(dataset, "official", {})


def _checked(name: SplitName, split: Split, official: int | None, threads: int) -> _Checked:
    whole = min(len(split), len(split.labels), len(split.sizes), len(split.boxes))
    with ThreadPool(threads) as pool:
        looks = pool.map(partial(_look, split), range(whole), chunksize=_CHUNK)
    found = _structure(split)
    for look in looks:
        for kind, what in look.problems:
            found[kind].append(what)
    digests = tuple(look.pixels for look in looks)
    masks = len(split) if split.mask else 0
    report = SplitReport(
        name=name,
        images=len(split),
        official=official,
        classes=len(split.classes),
        boxes=sum(len(boxes) for boxes in split.boxes),
        masks=masks,
        smallest=_pair(split.sizes.min(axis=0)) if len(split) else (0, 0),
        largest=_pair(split.sizes.max(axis=0)) if len(split) else (0, 0),
        digest=hashlib.sha256(b"".join(sorted(look.everything for look in looks))).hexdigest(),
        notes=(*split.notes, *_count_note(len(split), official), *sentences(_twice(split.ids, digests))),
    )
    problems = [f"{name}: {problem}" for problem in sentences(found)]
    if name != "train" and not report.boxes and not masks:
        problems.append(f"{name}: neither boxes nor masks, so that localization cannot be measured")
    return _Checked(report, split.ids, digests, tuple(problems))


def _pair(size: NDArray[np.int64]) -> tuple[int, int]:
    width, height = size.tolist()
    return width, height


def _count_note(images: int, official: int | None) -> list[str]:
    return [f"{images:,} images, {official:,} officially"] if official not in (None, images) else []


def _look(split: Split, index: int) -> _Look:
    """Decode an image and its mask."""
    name = split.ids[index]
    try:
        image = split.read(index)
        mask = split.mask(index) if split.mask else None
    except InputError as error:
        return _Look(b"", b"", (("images or masks that cannot be used", str(error)),))
    size = tuple(split.sizes[index].tolist())
    problems = []
    if image.shape[1::-1] != size:
        problems.append(("images of another size than was read", f"{name} is {image.shape[1]} x {image.shape[0]}"))
    if mask is not None:
        problems += [(kind, name) for kind in _mask_problems(mask, size)]
    pixels = _digest(np.array(image.shape), image)
    said = [np.array(split.labels[index]), split.boxes[index], *([] if mask is None else [mask])]
    return _Look(pixels, _digest(np.frombuffer(name.encode() + pixels, np.uint8), *said), tuple(problems))


def _mask_problems(mask: NDArray[np.uint8], size: tuple[int, ...]) -> list[str]:
    wrong = {
        "masks of another shape than their image": _stretch(mask.shape[::-1], size) > STRETCH,
        "masks of other values than 0, 1 and 255": not set(np.unique(mask).tolist()) <= _MASK_VALUES,
        "masks without an object": not (mask == 1).any(),
    }
    return [kind for kind, found in wrong.items() if found]


def _stretch(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """How far two widths and heights are from the same shape; 0 where one is scaled to the other."""
    ratio = (one[0] * other[1]) / (one[1] * other[0])
    return max(ratio, 1 / ratio) - 1


def _digest(*arrays: NDArray[Any]) -> bytes:
    """16 bytes of blake2b over the arrays' contents; equal images have equal ones, however they were compressed."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _structure(split: Split) -> Problems:
    """Whether a split is what `Split` says, whoever wrote its reader."""
    problems = Problems(list)
    lengths = {len(split.ids), len(split.labels), len(split.sizes), len(split.boxes)}
    problems["ids, labels, sizes and boxes of different lengths"] += [str(sorted(lengths))] * (len(lengths) > 1)
    problems["ids that occur twice"] += [name for name, count in Counter(split.ids).items() if count > 1]
    for name, label, size, boxes in zip(split.ids, split.labels.tolist(), split.sizes, split.boxes, strict=False):
        if not 0 <= label < len(split.classes):
            problems["labels of no class"].append(f"{name} {label}")
        if not _boxes_fit(boxes, size):
            problems["boxes that are not finite, have no size or leave their image"].append(name)
    return problems


def _boxes_fit(boxes: NDArray[np.float64], size: NDArray[np.int64]) -> bool:
    sized = (boxes[:, :2] < boxes[:, 2:]) & (boxes[:, :2] >= 0) & (boxes[:, 2:] <= size)
    return bool(sized.all())  # NaN compares as false


def _twice(ids: Sequence[str], digests: Sequence[bytes]) -> dict[str, list[str]]:
    """Images of one split that show the same pixels."""
    first: dict[bytes, str] = {}
    same = [(first.setdefault(digest, name), name) for name, digest in zip(ids, digests, strict=False) if digest]
    return {"images that occur twice": [f"{a} = {b}" for a, b in same if a != b]}


def _shared(checked: Sequence[_Checked]) -> dict[str, list[str]]:
    """Images that two splits have in common, by their pixels."""
    shared: dict[str, list[str]] = {}
    for one, other in combinations(checked, 2):
        held = {digest: name for name, digest in zip(one.ids, one.digests, strict=False) if digest}
        pairs = [(held.get(digest), name) for name, digest in zip(other.ids, other.digests, strict=False)]
        kind = f"images that {one.report.name} and {other.report.name} have in common"
        shared[kind] = [f"{a} = {b}" for a, b in pairs if a]
    return shared
