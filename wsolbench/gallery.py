"""What trials make of test images, image by image: which to look at, their cards, and the data that a page shows.

All of it comes from stored predictions and score maps and the images of the data set: no network is needed.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsolbench import datasets, plugins, protocols, scoremaps
from wsolbench.dataset import Split
from wsolbench.errors import InputError
from wsolbench.geometry import Window, window
from wsolbench.known import NO_SETTINGS
from wsolbench.looks import label
from wsolbench.metrics import ERRORS, HIT
from wsolbench.pairing import Side, by_setting, paired
from wsolbench.place import Place
from wsolbench.selection import Record, fits
from wsolbench.store import Store
from wsolbench.truth import counting
from wsolbench.words import values

CARD = 224
"""Pixels of the side of a card."""

TRUE, PREDICTED = "#0072B2", "#D55E00"
"""Colours of boxes; the true one is dashed too, and the predicted one solid."""

_COVER = 0.5  # of a score map over its image
_QUALITY = 80  # of a JPEG
COLOURS = "viridis"
"""Of score maps, as matplotlib names them."""

Pixels = NDArray[np.uint8]  # (CARD, CARD, 3)
Box = tuple[float, ...]  # x0, y0, x1, y1 in pixels of the card, half-open


@dataclass(frozen=True)
class Item:
    """One test image, and what one trial makes of it.

    Args:
        index: of the image in the test split.
        image: its name in the data set.
        label: the name of its class.
        predicted: the name of the class that the trial finds likeliest, and `probability` how likely, in percent.
        iou: of the predicted box and the true one it fits best, in [0, 1].
        hit: whether that is a hit.
        error: what the box does wrong, `none` or `class`, `part`, `more`, `multiple`, `other`.
        box: the predicted one.
        truths: the true ones that count.
        threshold: at which the score map is cut, in percent of its maximum.
    """

    trial: str
    method: str
    seed: int
    protocol: str
    index: int
    image: str
    label: str
    predicted: str
    probability: float
    correct: bool
    iou: float
    hit: bool
    error: str
    box: Box
    truths: tuple[Box, ...]
    threshold: float

    def data(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "size": CARD}


@dataclass(frozen=True)
class Seen:
    """A finished trial on its test images, under one protocol.

    Args:
        record: of the store.
        protocol: whose boxes these are.
        split: the test images.
        arrays: `box`, `iou`, `error`, `top5`, `probabilities` and `score_maps`, by image.
    """

    record: Mapping[str, Any]
    protocol: str
    split: Split
    arrays: Mapping[str, NDArray[Any]]

    @property
    def id(self) -> str:
        """Of the trial."""
        return str(self.record["id"])

    @property
    def name(self) -> str:
        """What pictures call the trial."""
        return label(self.record["trial"]["method"])

    @property
    def hits(self) -> NDArray[np.bool_]:
        """(N,) whether the predicted box is a hit."""
        return self.arrays["iou"] >= HIT

    def item(self, index: int) -> Item:
        """What the trial makes of an image."""
        trial, arrays = self.record["trial"], self.arrays
        seen, scale = self._view(index, trial["image_size"]), CARD / trial["image_size"]
        truths = seen.boxes(self.split.boxes[index], self.split.sizes[index])
        top1 = int(arrays["top5"][index, 0])
        return Item(
            trial=self.id,
            method=trial["method"],
            seed=trial["seed"],
            protocol=self.protocol,
            index=index,
            image=self.split.ids[index],
            label=self.split.classes[self.split.labels[index]],
            predicted=self.split.classes[top1],
            probability=round(100 * float(arrays["probabilities"][index, 0]), 2),
            correct=top1 == int(self.split.labels[index]),
            iou=round(float(arrays["iou"][index]), 4),
            hit=bool(self.hits[index]),
            error=ERRORS[int(arrays["error"][index])],
            box=_card_box(arrays["box"][index] * scale),
            truths=tuple(_card_box(box * scale) for box in counting(truths, protocols.protocol(self.protocol))),
            threshold=round(self.record["results"][self.protocol]["threshold"], 2),
        )

    def image(self, index: int) -> Pixels:
        """What the network saw of an image, in the size of a card; `InputError` names a file that cannot be read."""
        return self._view(index, CARD).pixels(self.split.read(index))

    def score_map(self, index: int) -> NDArray[Any]:
        """(CARD, CARD) in [0, 1]: the score map of the image's own class."""
        how = protocols.protocol(self.protocol).interpolation
        raw = self.arrays["score_maps"][index : index + 1]
        return scoremaps.min_max(scoremaps.resized(raw, CARD, CARD, how))[0]

    def overlay(self, index: int) -> Pixels:
        """The score map in colours over the image."""
        return overlaid(self.image(index), self.score_map(index))

    def card(self, index: int) -> bytes:
        """The overlay as a JPEG."""
        return jpeg(self.overlay(index))

    def _view(self, index: int, side: int) -> Window:
        return window(protocols.protocol(self.protocol).geometry, self.split.sizes[index], side)


def _card_box(box: NDArray[Any]) -> Box:
    return tuple(round(float(corner), 1) for corner in box)


def of_trial(trial_id: str, place: Place, read: Callable[[Mapping[str, Any], Place], Split] | None = None) -> Seen:
    """The test images of a finished trial, with what it stored about them under the place's or its own protocol.

    Args:
        trial_id: of a finished trial, in full.
        place: its results, and the folder of its data set.
        read: the test split of a trial; by default it is read from the place's folder.

    Raises:
        InputError: no record, score maps or boxes are stored; the data set has other images than the trial had.
    """
    store = Store(place.results)
    record = store.record(trial_id)
    if record is None:
        raise InputError(f"trial {trial_id} is not finished; the command that began it goes on with it")
    protocol = place.protocol or record["protocol"]
    if protocol not in record["results"]:
        raise InputError(f"trial {trial_id} is not scored by {protocol}; run it again with protocol={protocol}")
    said, maps = store.arrays(trial_id, "predictions.npz"), store.arrays(trial_id, "scoremaps.npz")
    key = f"{protocols.protocol(protocol).geometry}/test"
    if key not in maps or f"{protocol}/iou" not in said:
        raise InputError(f"trial {trial_id} has no {_lack(record['results'][protocol], protocol, said, maps)}")
    split = (read or test_split)(record["trial"], place)
    if (said["ids"].tolist(), said["labels"].tolist()) != (list(split.ids), split.labels.tolist()):
        raise InputError(f"the data set has other images or labels than trial {trial_id} was tested on")
    arrays = {name: said[f"{protocol}/{name}"] for name in ("box", "iou", "error")}
    arrays |= {name: said[f"{key}/{name}"] for name in ("top5", "probabilities")}
    return Seen(record, protocol, split, {**arrays, "score_maps": maps[key]})


def _lack(metrics: Mapping[str, float], protocol: str, said: Mapping[str, Any], maps: Mapping[str, Any]) -> str:
    """What a gallery lacks of a trial, and what to do about it."""
    if "gt_known_loc" not in metrics:
        return "boxes: its data set has none; a gallery is made of them"
    lost = [name for name, found in (("predictions.npz", said), ("scoremaps.npz", maps)) if not found]
    what = " and ".join(lost) or f"score maps and boxes of {protocol}"
    return f"{what} in its folder of results; a gallery is made of them: `wsolbench run --fresh` makes them again"


def test_split(trial: Mapping[str, Any], place: Place) -> Split:
    """The images that a trial, given as its specification, is tested on."""
    return plugins.make(datasets, trial["dataset"], trial["dataset_options"]).split("test", place.data)


Order = NDArray[np.int64]


def best(ours: Seen, _: Seen | None, __: int) -> Order:
    """Images by the IoU of the predicted box, the highest first."""
    return np.argsort(-ours.arrays["iou"], kind="stable")


def worst(ours: Seen, _: Seen | None, __: int) -> Order:
    """Images by the IoU of the predicted box, the lowest first."""
    return np.argsort(ours.arrays["iou"], kind="stable")


def random(ours: Seen, _: Seen | None, seed: int) -> Order:
    """Images as the digests of seed and name fall: the same ones on every machine, whatever the trial."""
    return np.array(sorted(range(len(ours.split)), key=lambda index: _drawn(seed, ours.split.ids[index])), np.int64)


def first(ours: Seen, _: Seen | None, __: int) -> Order:
    """The first image of each class, in the order of the test split."""
    return np.unique(ours.split.labels, return_index=True)[1].astype(np.int64)


def fixes(ours: Seen, theirs: Seen | None, _: int) -> Order:
    """Images that only we hit, and not the baseline; those that gain most first."""
    return _gains(ours, theirs)


def breaks(ours: Seen, theirs: Seen | None, _: int) -> Order:
    """Images that only the baseline hits; those that lose most first."""
    return _gains(theirs, ours)


GROUPS: Mapping[str, Callable[[Seen, Seen | None, int], Order]] = {
    choose.__name__: choose for choose in (best, worst, random, first, fixes, breaks)
}
"""Which images to look at; each puts those that belong to it in order."""

PAIRED = ("fixes", "breaks")
"""Groups that need a baseline."""


def _gains(right: Seen | None, wrong: Seen | None) -> Order:
    if right is None or wrong is None:
        raise InputError(f"{' and '.join(PAIRED)} need a baseline to compare with")
    only = np.flatnonzero(right.hits & ~wrong.hits)
    return only[np.argsort((wrong.arrays["iou"] - right.arrays["iou"])[only], kind="stable")]


def _drawn(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def overlaid(image: Pixels, score_map: NDArray[Any]) -> Pixels:
    """A score map (H, W) in [0, 1] in colours over an image (H, W, 3)."""
    dim, colours = _tables()
    return dim[image] + colours[(score_map * 255).astype(np.uint8)]


@cache
def _tables() -> tuple[NDArray[np.uint8], Pixels]:
    """What is left of each of 256 greys under a map, and what each of its 256 levels adds: (256,) and (256, 3)."""
    from matplotlib import colormaps  # noqa: PLC0415  the rest of a card does without

    colours = colormaps[COLOURS](np.arange(256))[:, :3] * 255
    return ((1 - _COVER) * np.arange(256)).astype(np.uint8), (_COVER * colours).astype(np.uint8)


def jpeg(pixels: Pixels) -> bytes:
    """An image as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def pair(rows: Sequence[Record], ours: str, theirs: str | None, where: Mapping[str, Any]) -> tuple[str, str | None]:
    """The ids of a trial and of its baseline: of one seed, the lowest that both have, as `compare` pairs them.

    Args:
        rows: of `store.rows`.
        ours: an id, or fields as KEY=VALUE words.
        theirs: likewise; None for no baseline.
        where: a field or option and its value, which both must have.

    Raises:
        InputError: no trial fits, none of the same seed, or several of one seed.
    """
    side = _side(rows, ours, where)
    if theirs is None:
        found = [row for row in rows if fits(row, side.filters)]
        seeds = next(iter(by_setting(side, found, ()).values()), {})
        if not seeds:
            raise InputError(f"no finished trial fits {ours!r} (`wsolbench status`)")
        return str(seeds[min(seeds)]["id"]), None
    pairs, _ = paired(rows, (side, _side(rows, theirs, where)))
    if len(pairs) > 1:
        differ = sorted({name for one in pairs for name, _ in set(one.equal) - set(pairs[0].equal)})
        raise InputError(f"{ours!r} and {theirs!r} pair in {len(pairs)} settings; say which {', '.join(differ)}")
    first = pairs[0].seeds[min(pairs[0].seeds)]
    return str(first[0]["id"]), str(first[1]["id"])


def _side(rows: Sequence[Record], word: str, where: Mapping[str, Any]) -> Side:
    """The trials that a word means: by an id all that the trial is, so that its partner may differ in anything."""
    if "=" in word:
        own = values(word.split())
        if twice := sorted(own.keys() & where.keys()):
            raise InputError(f"{', '.join(twice)} is said of {word!r} and again of both trials; say it once")
        return Side(word, {**where, **own})
    found = next((row for row in rows if row["id"] == word and fits(row, where)), None)
    if found is None:
        raise InputError(f"no finished trial fits {word!r} (`wsolbench status`)")
    settings = {name: value for name, value in found.items() if name not in NO_SETTINGS}
    return Side(word, {**settings, "id": word})


def chosen(ours: Seen, theirs: Seen | None, groups: Sequence[str], count: int, seed: int) -> dict[str, list[int]]:
    """By group, the first `count` images of it.

    Raises:
        InputError: the two trials were tested on different images; a group needs a baseline.
    """
    if theirs is not None and ours.split.ids != theirs.split.ids:
        raise InputError(f"trials {ours.id} and {theirs.id} were tested on different images")
    return {group: GROUPS[group](ours, theirs, seed)[:count].tolist() for group in groups}
