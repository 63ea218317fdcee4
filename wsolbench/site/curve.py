"""The loss of a trial's epochs as a line, in the coordinates of an SVG picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 32
_TICKS = 4


@dataclass(frozen=True)
class Dot:
    """An epoch's loss, where it is drawn, and in words."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Curve:
    """Everything is in units of the picture, WIDTH x HEIGHT, y downwards.

    Args:
        dots: one an epoch.
        across: ticks of the epochs, with their labels.
        up: ticks of the loss, with their labels.
        resumed: where a later attempt goes on.
    """

    dots: tuple[Dot, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    resumed: tuple[float, ...]

    @property
    def line(self) -> str:
        """The points of a polyline."""
        return " ".join(f"{dot.x},{dot.y}" for dot in self.dots)

    @property
    def told(self) -> str:
        """The curve in a sentence."""
        return f"Training loss, {self.dots[0].text} to {self.dots[-1].text}"


def curve(epochs: Sequence[Mapping[str, Any]], resumed: Sequence[int] = ()) -> Curve | None:
    """The curve of rows of `epoch` and `loss`; None if there is none.

    Args:
        epochs: in their order, the loss finite.
        resumed: the first epochs of later attempts.
    """
    if not epochs:
        return None
    first, last = epochs[0]["epoch"], epochs[-1]["epoch"]
    highest = max((row["loss"] for row in epochs), default=0.0) or 1.0
    step = _step(highest / _TICKS)

    def x(epoch: float) -> float:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(loss: float) -> float:
        return round(HEIGHT - _BOTTOM - max(loss, 0.0) / highest * (HEIGHT - _TOP - _BOTTOM), 1)

    ticks = [number * step for number in range(int(highest / step + 1e-9) + 1)]
    return Curve(
        tuple(Dot(x(r["epoch"]), y(r["loss"]), f"epoch {r['epoch']}: {r['loss']:.4f}") for r in epochs),
        tuple((x(epoch), str(epoch)) for epoch in sorted({first, (first + last) // 2, last})),
        tuple((y(loss), f"{loss:g}") for loss in ticks),
        tuple(x(epoch - 0.5) for epoch in resumed if first < epoch <= last),
    )


def _step(wanted: float) -> float:
    """The least of 1, 2 or 5 times a power of ten that is not below `wanted`."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(number * power for number in (1, 2, 5, 10) if number * power >= wanted)
