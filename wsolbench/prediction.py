"""What a trained network says of one image of anybody's: classes, a score map, and the box that each protocol cuts."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tabulate import tabulate

from wsolbench import extract, images, loop, machine, network, protocols, scoremaps
from wsolbench.batches import Batch, normalise
from wsolbench.boxes import boxes_at_thresholds
from wsolbench.errors import InputError, nearest
from wsolbench.gallery import PREDICTED, overlaid
from wsolbench.geometry import Window, window
from wsolbench.inspection import opened
from wsolbench.method import Net
from wsolbench.metrics import threshold_grid
from wsolbench.place import Place
from wsolbench.protocols import Geometry, Protocol
from wsolbench.trial import Trial, from_spec

SHOWN = 5  # classes, the likeliest first
_HALO = "#FFFFFF"  # around the box: it is seen on any image


@dataclass(frozen=True)
class Guess:
    """A class, its label, and its probability in [0, 1]."""

    name: str
    label: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a trial says of an image.

    Args:
        trial: whose network it is.
        pixels: (H, W, 3) uint8, the image.
        guesses: the likeliest classes, by the geometry of `protocol`.
        mapped: the class whose score map is shown and boxed.
        protocol: whose score map is shown.
        heat: (rows, columns) in [0, 1], the score map, at the size that it is boxed at.
        view: what the network sees of the image, there.
        boxes: by protocol, x0, y0, x1, y1 in pixels of the image.
        thresholds: by protocol, shares of the score map's maximum.
    """

    trial: Trial
    pixels: NDArray[np.uint8]
    guesses: tuple[Guess, ...]
    mapped: str
    protocol: str
    heat: scoremaps.Maps
    view: Window
    boxes: Mapping[str, tuple[float, ...]]
    thresholds: Mapping[str, float]

    def data(self) -> dict[str, Any]:
        """All but the pictures, as plain data."""
        return {
            "id": self.trial.id,
            "size": list(self.pixels.shape[1::-1]),
            "class": self.guesses[0].name,
            "probabilities": [vars(guess) for guess in self.guesses],
            "score_map_of": self.mapped,
            "protocol": self.protocol,
            "boxes": {
                name: {"box": [round(corner, 3) for corner in box], "threshold": self.thresholds[name]}
                for name, box in self.boxes.items()
            },
        }


def predict(trial_id: str, image: Path, place: Place, label: str | None = None) -> Prediction:
    """The prediction of a finished trial's network for an image file.

    Args:
        trial_id: how its id begins.
        image: file of the image.
        place: with its protocol's score map as the one to show; by default the record's.
        label: the class whose score map is boxed, by name or number; by default the likeliest.

    Raises:
        InputError: there is no such finished trial, class, image, or no threshold of the place's protocol.
    """
    record, pixels = opened(trial_id, image, place)
    trial = from_spec(record["trial"])
    name, thresholds = place.protocol or record["protocol"], known_thresholds(record)
    if name not in thresholds:
        fix = f"run it with protocol={name} first, which chooses one"
        raise InputError(f"trial {trial.id} has no threshold of protocol {name}; {fix}")
    classes = images.class_names(trial, place)
    chosen = None if label is None else _label(label, classes)
    device = machine.settle(trial, place)
    passes = _Passes(trial, network.trained(trial, place, classes, device), device, pixels)
    guesses = passes.guesses(protocols.protocol(name).geometry, classes)
    mapped = guesses[0].label if chosen is None else chosen
    found = {each: passes.box(protocols.protocol(each), mapped, share) for each, share in thresholds.items()}
    geometry = protocols.protocol(name).geometry
    heat = passes.heat(protocols.protocol(name), mapped)
    return Prediction(trial, pixels, guesses, classes[mapped], name, heat, passes.view(geometry), found, thresholds)


def known_thresholds(record: Mapping[str, Any]) -> dict[str, float]:
    """By protocol, the share of its maximum that a score map is cut at: the protocol's own, or what it chose."""
    grid = threshold_grid()
    found: dict[str, float] = {}
    for name in protocols.names():
        own = protocols.protocol(name).threshold
        if isinstance(own, float):
            found[name] = own
        elif "threshold" in record["results"].get(name, ()):
            chosen = record["results"][name]["threshold"] / 100
            found[name] = float(grid[np.abs(grid - chosen).argmin()])  # as it was, to the last digit
    return found


def _label(asked: str, classes: tuple[str, ...]) -> int:
    if asked in classes:
        return classes.index(asked)
    if asked.isdecimal() and int(asked) < len(classes):
        return int(asked)
    there = f"{', '.join(classes[:SHOWN])}{', ...' if len(classes) > SHOWN else ''} or 0 to {len(classes) - 1}"
    raise InputError(f"no class {asked!r}{nearest(asked, classes) or '.'} There are: {there}")


@dataclass(frozen=True)
class _Passes:
    """One image through one network, in every geometry that is asked for, once."""

    trial: Trial
    net: Net
    device: torch.device
    pixels: NDArray[np.uint8]
    made: dict[tuple[Geometry, int], tuple[NDArray[np.float32], scoremaps.Maps]] = field(default_factory=dict)

    def view(self, geometry: Geometry) -> Window:
        return window(geometry, np.array(self.pixels.shape[1::-1]), self.trial.image_size)

    def guesses(self, geometry: Geometry, classes: tuple[str, ...]) -> tuple[Guess, ...]:
        probabilities, _ = self._made(geometry, 0)  # of no label: they do not depend on it
        order = np.argsort(-probabilities, kind="stable")[:SHOWN]
        return tuple(Guess(classes[label], label, float(probabilities[label])) for label in order.tolist())

    def heat(self, protocol: Protocol, label: int) -> scoremaps.Maps:
        """(rows, columns) in [0, 1], what the protocol cuts."""
        view, (_, maps) = self.view(protocol.geometry), self._made(protocol.geometry, label)
        whole = scoremaps.min_max(scoremaps.resized(maps, view.rows, view.columns, protocol.interpolation))
        return scoremaps.GREYS[protocol.grey](whole)[0]

    def box(self, protocol: Protocol, label: int, threshold: float) -> tuple[float, ...]:
        """In pixels of the image."""
        heat = self.heat(protocol, label)[None]
        seen = boxes_at_thresholds(heat, [threshold], protocol.contours, clip=protocol.clip)[0, 0]
        size = np.array(self.pixels.shape[1::-1])
        return tuple(self.view(protocol.geometry).in_image(seen[None].astype(float), size)[0].tolist())

    def _made(self, geometry: Geometry, label: int) -> tuple[NDArray[np.float32], scoremaps.Maps]:
        if (geometry, label) not in self.made:
            seen = torch.from_numpy(self.view(geometry).pixels(self.pixels).copy()).permute(2, 0, 1)
            images = normalise(seen[None], self.net.backbone.normalisation)
            batch = Batch(images, torch.tensor([label]), ("the image",))
            extractor = extract.extractor(self.trial.extract)
            ((logits, maps),) = loop.predict(self.net, [batch], self.device, extractor)
            self.made[geometry, label] = logits.softmax(1)[0].numpy(), maps.numpy()
        return self.made[geometry, label]


def picture(found: Prediction) -> bytes:
    """A PNG: the score map in colours over the image, and the box of the shown protocol."""
    height, width = found.pixels.shape[:2]
    corners = found.view.in_image(
        np.array([[0.0, 0.0, found.view.columns, found.view.rows]]), np.array((width, height))
    )
    x0, y0, x1, y1 = np.rint(corners[0]).astype(int).tolist()
    heat = Image.fromarray((found.heat * 255).astype(np.uint8)).resize((x1 - x0, y1 - y0))
    shown = found.pixels.copy()
    part = shown[y0:y1, x0:x1]
    part[:] = overlaid(part, np.asarray(heat) / 255)
    drawn = Image.fromarray(shown)
    _frame(drawn, found.boxes[found.protocol])
    file = io.BytesIO()
    drawn.save(file, "png")
    return file.getvalue()


def _frame(image: Image.Image, box: tuple[float, ...]) -> None:
    """Draw a box, with a halo; no line is outside the image."""
    line = max(2, round(min(image.size) / 100))
    x0, y0, x1, y1 = (round(corner) for corner in box)
    pen = ImageDraw.Draw(image)
    inner = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
    pen.rectangle(inner, outline=_HALO, width=line + 2)
    pen.rectangle(inner, outline=PREDICTED, width=line)


def table(found: Prediction) -> str:
    """Classes and boxes, as text."""
    classes = [[guess.name, guess.label, f"{guess.probability:.4f}"] for guess in found.guesses]
    boxes = [
        [name, f"{100 * found.thresholds[name]:.1f}", *(f"{corner:.1f}" for corner in box)]
        for name, box in found.boxes.items()
    ]
    upper = tabulate(classes, ("Class", "Label", "Probability"), disable_numparse=True, colalign=_left(1, 2))
    headers = ("Protocol", "Threshold, %", "x0", "y0", "x1", "y1")
    lower = tabulate(boxes, headers, disable_numparse=True, colalign=_left(1, 5))
    return f"{upper}\n\nBoxes of {found.mapped}, in pixels of the image\n\n{lower}"


def _left(left: int, right: int) -> tuple[str, ...]:
    return (*["left"] * left, *["right"] * right)
