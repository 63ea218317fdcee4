"""Shapes: drawn images of a body that all classes share, with a small part that tells its class."""

import hashlib
import io
from dataclasses import dataclass as plain_dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from wsolbench import files
from wsolbench.dataset import NoSplitError, Split, SplitName
from wsolbench.errors import InputError
from wsolbench.place import cache_folder
from wsolbench.plugins import OPTIONS

Real = NDArray[np.float64]
Bytes = NDArray[np.uint8]

SIDE = 48  # rows and columns of an image
IMAGES: dict[SplitName, int] = {"train": 200, "test": 100}  # of each class
SEEDS: dict[SplitName, int] = {"train": 1, "test": 2}
DIGESTS: dict[SplitName, str] = {
    "train": "4b756c1d241592b68309bf912f0a14afaf08ce341c0e8ce300827481dc10b9e6",
    "test": "2d6e2cb90eae75fa7cafc304661e7bc48e3075ebb74663f23623193bf21f9526",
}
BODY, PART = 1, 2  # values of the regions; 0 is background

COLOURS = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.05, 0.70, 0.15),
    "blue": (0.10, 0.20, 0.95),
    "yellow": (0.95, 0.90, 0.05),
    "white": (1.00, 1.00, 1.00),
}
CLASSES = tuple(f"{a}-{b}" for i, a in enumerate(COLOURS) for b in list(COLOURS)[i + 1 :])

TINT = 0.4  # most of the class's colours that a body's stripes take on; the least is none
OCTAVES = ((2, 0.25), (6, 0.20), (16, 0.15))  # cells a side and largest strength of the background's noise
CLUTTER = 5  # shapes behind the body, some of them vivid
CHUNK = 100  # images drawn at once: few enough for the processor's cache


@dataclass(frozen=True, config=OPTIONS)
class Shapes:
    """Ten classes of 48 x 48 images, the same on every machine; drawn once, then read from a cache."""

    def split(self, name: SplitName, data: Path | None) -> Split:
        """One split; `data` is the folder of the cache, None for the user's own."""
        if name not in IMAGES:
            raise NoSplitError(f"there are no {name} images in shapes; there are: {', '.join(IMAGES)}")
        images, regions = cached(name, data or cache_folder())
        return Split(
            ids=tuple(f"{name}/{index:05d}" for index in range(len(images))),
            labels=labels_of(name),
            classes=CLASSES,
            read=lambda index: np.array(images[index]),
            stamp=lambda _: DIGESTS[name],
            sizes=np.full((len(images), 2), SIDE, dtype=np.int64),
            boxes=tuple(extents(regions != 0)[:, None]),
            body=lambda index: regions[index] == BODY,
        )


def labels_of(name: SplitName) -> NDArray[np.int64]:
    """(N,) labels of a split: the classes in turn."""
    return np.arange(IMAGES[name] * len(CLASSES), dtype=np.int64) % len(CLASSES)


def extents(masks: NDArray[np.bool_]) -> Real:
    """(N, H, W) masks, none empty -> (N, 4) boxes x0, y0, x1, y1 in pixels, half-open."""
    sides: list[NDArray[np.bool_]] = [np.asarray(masks.any(axis)) for axis in (1, 2)]
    first = [side.argmax(1) for side in sides]
    last = [side.shape[1] - side[:, ::-1].argmax(1) for side in sides]
    return np.stack([*first, *last], 1).astype(np.float64)


def cached(name: SplitName, folder: Path) -> tuple[Bytes, Bytes]:
    """Images (N, H, W, 3) and regions (N, H, W) of a split, memory-mapped; drawn first where the cache has not these.

    Raises:
        InputError: this version of torch draws other numbers, and so other images.
    """
    paths = [folder / f"shapes-{name}-{kind}.npy" for kind in ("images", "regions")]
    if (found := _opened(paths)) and digest(*found) == DIGESTS[name]:
        return found
    drawn = generate(name)
    if (other := digest(*drawn)) != DIGESTS[name]:
        raise InputError(
            f"shapes {name} has digest {other}, not {DIGESTS[name]}: torch {torch.__version__} draws other numbers; "
            "results would not compare, use another version"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, array in zip(paths, drawn, strict=True):
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        files.write(path, content.getvalue())
    return _opened(paths) or drawn


def digest(*arrays: Bytes) -> str:
    """SHA-256 of the arrays' shapes and values, hexadecimal."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def _opened(paths: list[Path]) -> tuple[Bytes, Bytes] | None:
    try:
        images, regions = (np.asarray(open_memmap(path, mode="r")) for path in paths)  # a memmap is slow to index
    except (OSError, ValueError):  # absent, cut short, or no array
        return None
    return images, regions


def generate(name: SplitName) -> tuple[Bytes, Bytes]:
    """Images (N, H, W, 3) and regions (N, H, W) of a split, the same on every machine.

    Only what IEEE 754 defines to the last bit: + - * / and square roots in float64, element by element.
    """
    generator = torch.Generator().manual_seed(SEEDS[name])
    labels = labels_of(name)
    chunks = [_scene(labels[start : start + CHUNK], generator) for start in range(0, len(labels), CHUNK)]
    images, regions = zip(*chunks, strict=True)
    return np.concatenate(images), np.concatenate(regions)


def _scene(labels: NDArray[np.int64], generator: torch.Generator) -> tuple[Bytes, Bytes]:
    draw = _Draw(len(labels), generator)
    colours = np.array(list(COLOURS.values()))
    pairs = np.array([[list(COLOURS).index(colour) for colour in name.split("-")] for name in CLASSES])
    pair = (colours[pairs[labels, 0]][:, None, None], colours[pairs[labels, 1]][:, None, None])
    mean = draw.colour(0.15)
    canvas = _background(draw, mean)
    for _ in range(CLUTTER):
        _clutter(draw, canvas)
    pose = draw.pose()
    body, part = _body(draw, pose), _part(draw, pose)
    _paint(canvas, _coat(draw, pose, mean, pair), _cover(body))
    _paint(canvas, _mix(*pair, _cover(part.across)[..., None]), _cover(part.inside))
    canvas *= draw.uniform(0.75, 1.1, 1, 1, 1)  # exposure
    canvas += draw.uniform(-0.06, 0.06, SIDE, SIDE, 3)  # the sensor's noise
    images = np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    regions = np.where(part.inside > 0, PART, np.where(body > 0, BODY, 0)).astype(np.uint8)
    return images, regions


@plain_dataclass(frozen=True)
class _Pose:
    """Half-axes of the torso in pixels, and each pixel's place along (u) and across (v) the body from its centre."""

    length: Real
    width: Real
    u: Real
    v: Real


@plain_dataclass(frozen=True)
class _Part:
    """Signed distances in pixels: to the part's edge, and to the line between its colours."""

    inside: Real
    across: Real


class _Draw:
    """Random values for `count` images."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator

    def uniform(self, low: float, high: float, *shape: int) -> Real:
        """(count, *shape), or (count, 1, 1)."""
        size = (self.count, *(shape or (1, 1)))
        return low + (high - low) * torch.rand(size, generator=self.generator, dtype=torch.float64).numpy()

    def direction(self) -> tuple[Real, Real]:
        """Unit vectors x, y; no angle, for sines differ between machines."""
        x, y = self.uniform(-1, 1), self.uniform(-1, 1)
        norm = np.sqrt(x * x + y * y)
        return x / norm, y / norm

    def colour(self, chroma: float) -> Real:
        """Greys with R, G and B off by up to `chroma`; (count, 1, 1, 3)."""
        return self.uniform(0.2, 0.8, 1, 1, 1) + self.uniform(-chroma, chroma, 1, 1, 3)

    def frame(self, x: Real, y: Real) -> tuple[Real, Real]:
        """Each pixel's place along and across a random direction, from (x, y)."""
        rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
        c, s = self.direction()
        return (columns - x) * c + (rows - y) * s, (rows - y) * c - (columns - x) * s

    def pose(self) -> _Pose:
        """Where a body lies; head and tail may leave the image a little."""
        length = self.uniform(9, 14)
        margin = 1.4 * length
        x, y = (margin + (SIDE - 2 * margin) * self.uniform(0, 1) for _ in range(2))
        return _Pose(length, length * self.uniform(0.5, 0.8), *self.frame(x, y))

    def noise(self, cells: int) -> Real:
        """(count, SIDE, SIDE) in [-1, 1], linear between random values `cells` to a side."""
        grid = self.uniform(-1, 1, cells + 1, cells + 1)
        place = np.arange(SIDE, dtype=np.float64) * (cells / SIDE)
        low = place.astype(np.int64)
        rest: Real = place - low
        rows = _mix(grid[:, low + 1], grid[:, low], rest[:, None])
        return _mix(rows[:, :, low + 1], rows[:, :, low], rest)


def _background(draw: _Draw, mean: Real) -> Real:
    canvas = np.broadcast_to(mean, (draw.count, SIDE, SIDE, 3)).copy()
    for cells, strength in OCTAVES:
        amount = draw.uniform(0, strength)
        canvas += (amount * draw.noise(cells))[..., None]
        canvas += np.stack([amount / 3 * draw.noise(cells) for _ in range(3)], -1)
    return canvas


def _clutter(draw: _Draw, canvas: Real) -> None:
    """Paint an ellipse or a rectangle of any colour."""
    u, v = draw.frame(draw.uniform(0, SIDE), draw.uniform(0, SIDE))
    radius, v = draw.uniform(1.5, 7), v * draw.uniform(1, 3)
    angular = draw.uniform(0, 1) < 0.5  # noqa: PLR2004
    reach = np.where(angular, np.maximum(np.abs(u), np.abs(v)), np.sqrt(u * u + v * v))
    _paint(canvas, draw.colour(0.4), _cover(radius - reach) * draw.uniform(0.4, 1))


def _body(draw: _Draw, pose: _Pose) -> Real:
    """Signed distance in pixels, about, to the edge of torso, head and tail; positive inside."""
    length, width, u, v = pose.length, pose.width, pose.u, pose.v
    torso = (1 - np.sqrt(u * u / (length * length) + v * v / (width * width))) * width
    head = _disc(pose, length, width * draw.uniform(-0.5, 0.5), width * draw.uniform(0.5, 0.75))
    end = length * draw.uniform(1.4, 1.9)
    half = width * (0.3 + draw.uniform(-0.1, 0.3) * (-u / end))
    tail = np.minimum(np.minimum(end + u, -u), half - np.abs(v))
    return np.maximum(np.maximum(torso, head), tail)


def _part(draw: _Draw, pose: _Pose) -> _Part:
    """A disc of two colours, somewhere on the torso or over its edge."""
    c, s = draw.direction()
    reach = draw.uniform(0.3, 0.95)
    u, v = pose.length * c * reach, pose.width * s * reach
    c, s = draw.direction()
    return _Part(_disc(pose, u, v, draw.uniform(3, 4)), (pose.u - u) * c + (pose.v - v) * s)


def _coat(draw: _Draw, pose: _Pose, mean: Real, pair: tuple[Real, Real]) -> Real:
    """Colour of the body: any that stands out from the background, striped with a hint of the class's colours."""
    contrast = np.where(mean[..., :1] < 0.5, 1, -1) * draw.uniform(0.2, 0.45, 1, 1, 1)  # noqa: PLR2004
    base = mean[..., :1] + contrast + draw.uniform(-0.2, 0.2, 1, 1, 3)
    c, s = draw.direction()
    phase = (pose.u * c + pose.v * s) / draw.uniform(5, 11)
    stripes = _cover(8 * np.abs(phase - np.floor(phase) - 0.5) - 2)[..., None]
    tinted = _mix(_mix(*pair, stripes), base, draw.uniform(0, TINT, 1, 1, 1))
    shade = pose.v / pose.width * draw.uniform(-0.12, 0.12) + 0.1 * draw.noise(8)
    return tinted + shade[..., None]


def _disc(pose: _Pose, u: Real, v: Real, radius: Real) -> Real:
    du, dv = pose.u - u, pose.v - v
    return radius - np.sqrt(du * du + dv * dv)


def _cover(distance: Real) -> Real:
    """Share of a pixel that is inside, from the signed distance of its centre to the edge in pixels."""
    return np.clip(distance + 0.5, 0, 1)


def _mix(a: Real, b: Real, share: Real) -> Real:
    """`share` of a, the rest b."""
    return a * share + b * (1 - share)


def _paint(canvas: Real, colour: Real, share: Real) -> None:
    canvas += (colour - canvas) * share[..., None]


DATASET = Shapes
