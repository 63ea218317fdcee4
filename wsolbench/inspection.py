"""What the inserted layers of a trained network would do to one image: their maps as numbers and as one picture."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor

from wsolbench import images, machine, network, protocols
from wsolbench.annotations import read_image
from wsolbench.batches import normalise
from wsolbench.drawing import rendered, style
from wsolbench.errors import Collecting, InputError
from wsolbench.gallery import COLOURS
from wsolbench.geometry import window
from wsolbench.method import Net
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial, from_spec

Map = NDArray[np.float32]  # (H, W)

_CELL = 2.3  # of the picture, inches
_TIMES = " \N{MULTIPLICATION SIGN} "
_FAINT = 0.6  # opacity of what is not the point of a panel


@runtime_checkable
class HasMaps(Protocol):
    """An inserted layer that can show what it does in training."""

    def maps(self, features: Tensor) -> Mapping[str, Tensor]:
        """By name, maps (N, H, W) or (N, 1, H, W) of feature maps (N, C, H, W); one of 0 and 1 is shown as a mask."""
        ...


@dataclass(frozen=True)
class Point:
    """What a layer makes of one image.

    Args:
        name: the feature point.
        shape: channels, rows and columns of the feature map that enters the layer.
        maps: by name, (rows, columns).
    """

    name: str
    shape: tuple[int, ...]
    maps: Mapping[str, Map]


@dataclass(frozen=True)
class Inspection:
    """A trial, (side, side, 3) uint8 what its network sees of an image, and what its layers make of that."""

    trial: Trial
    image: NDArray[np.uint8]
    points: tuple[Point, ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each map in numbers; `zero_pct` is the share of positions that are 0, in a drop mask those dropped."""
        for point in self.points:
            size = dict(zip(("channels", "height", "width"), point.shape, strict=True))
            for name, values in point.maps.items():
                spread = {f.__name__: float(f(values)) for f in (np.min, np.mean, np.max)}
                zero = 100 * float((values == 0).mean())
                yield {"point": point.name, **size, "map": name, **spread, "zero_pct": zero}


def inspect(trial_id: str, image: Path, place: Place) -> Inspection:
    """Pass an image through the network of a finished trial, in the geometry of the place's or the trial's protocol.

    Raises:
        InputError: no trial or several begin with `trial_id`, or it is not finished, or has no checkpoint left;
            its layers have no maps; the image cannot be read.
    """
    record, pixels = opened(trial_id, image, place)
    trial = from_spec(record["trial"])
    geometry = protocols.protocol(place.protocol or record["protocol"]).geometry
    seen = window(geometry, np.array(pixels.shape[1::-1]), trial.image_size).pixels(pixels)
    device = machine.settle(trial, place)
    net = network.trained(trial, place, images.class_names(trial, place), device)
    batch = normalise(torch.from_numpy(seen.copy()).permute(2, 0, 1)[None], net.backbone.normalisation)
    found = points(net, batch.to(device))
    if not found:
        raise InputError(f"trial {trial.id} has no map to show: its method, {trial.method}, inserts no layer that has")
    return Inspection(trial, seen, found)


def opened(trial_id: str, image: Path, place: Place) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """The record of a finished trial and the pixels of an image file; raises the `InputError` of both."""
    problems: list[str] = []
    with Collecting(problems):
        record = finished(Store(place.results), trial_id)
    with Collecting(problems):
        pixels = read_image(image, upright=True)
    if problems:
        raise InputError(*problems)
    return record, pixels


def finished(store: Store, trial_id: str) -> dict[str, Any]:
    """The record of the one finished trial whose id begins with `trial_id`."""
    name = store.whole(trial_id)
    record = store.record(name)
    if record is None:
        state = store.state(name)
        raise InputError(f"trial {name} is not finished but {state}; the command that began it goes on with it")
    return record


@torch.inference_mode()
def points(net: Net, image: Tensor) -> tuple[Point, ...]:
    """What each inserted layer that has maps makes of a normalised image (1, 3, H, W), in forward order.

    The feature map that enters a layer is that of an evaluation pass, in which layers change nothing.
    """
    keys = {point: point.replace(".", "_") for point in net.backbone.points}  # as `Backbone.insert` names layers
    layers = {point: net.backbone.inserted[key] for point, key in keys.items() if key in net.backbone.inserted}
    found: list[Point] = []
    hooks = [
        layer.register_forward_pre_hook(partial(_keep, found, point))
        for point, layer in layers.items()
        if isinstance(layer, HasMaps)
    ]
    net.eval()(image)
    for hook in hooks:
        hook.remove()
    return tuple(found)


def _keep(found: list[Point], name: str, layer: Any, inputs: tuple[Tensor]) -> None:
    (features,) = inputs
    maps = {each: values[0].squeeze(0).float().cpu().numpy() for each, values in layer.maps(features).items()}
    found.append(Point(name, tuple(features.shape[1:]), maps))


def picture(inspection: Inspection) -> bytes:
    """A PNG, the same bytes every time: a row for each feature point, in it the image and the maps."""
    names = list(dict.fromkeys(name for point in inspection.points for name in point.maps))
    size = (_CELL * (1 + len(names)), _CELL * len(inspection.points) + 0.5)
    with style():
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(inspection.points), 1 + len(names), squeeze=False)
        for axes, title in zip(grid[0], ("input image", *names), strict=True):
            axes.set_title(title, fontsize=11)
        for row, point in zip(grid, inspection.points, strict=True):
            _draw_row(row, inspection.image, point, names)
        trial = inspection.trial
        figure.suptitle(f"{trial.method}, {trial.backbone}, {trial.dataset}, trial {trial.id}", fontsize=9, color="0.4")
    return rendered(figure, "png")


def _draw_row(row: NDArray[Any], image: NDArray[np.uint8], point: Point, names: list[str]) -> None:
    row[0].set_ylabel(f"{point.name}\n{_TIMES.join(map(str, point.shape))}", fontsize=11)
    row[0].imshow(image)
    for axes, name in zip(row[1:], names, strict=True):
        if name in point.maps:
            _draw(axes, image, point.maps[name])
        else:
            axes.axis("off")
    for axes in row:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)  # a frame: an image may be as white as the page


def _draw(axes: Axes, image: NDArray[np.uint8], values: Map) -> None:
    """A mask of 0 and 1 as the image in shade where it is 0, any other map in colours on the grey image."""
    extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
    if np.isin(values, (0, 1)).all():
        axes.imshow(image, alpha=_FAINT)
        axes.imshow(np.zeros_like(values), cmap="gray", alpha=1 - values, extent=extent)
        axes.set_xlabel(f"0 at {100 * (values == 0).mean():.1f} %")
        return
    axes.imshow(image.mean(2), cmap="gray")
    drawn = axes.imshow(values, cmap=COLOURS, alpha=_FAINT, extent=extent)
    bar = axes.inset_axes((1.03, 0, 0.05, 1))
    axes.figure.colorbar(drawn, cax=bar, ticks=MaxNLocator(5))
    bar.tick_params(labelsize=8)


def table(inspection: Inspection) -> str:
    """The numbers of each map, as text."""
    rows = [[r["point"], f"{r['channels']} x {r['height']} x {r['width']}", *_shown(r)] for r in inspection.rows()]
    return tabulate(rows, _HEADERS, disable_numparse=True, colalign=("left", "left", "left", *["right"] * 4))


_HEADERS = ("Point", "Size", "Map", "Min", "Mean", "Max", "At 0, %")


def _shown(row: Mapping[str, Any]) -> list[str]:
    return [row["map"], *(f"{row[key]:.4f}" for key in ("min", "mean", "max")), f"{row['zero_pct']:.2f}"]
