"""A backbone: a network whose feature maps can be read or changed at named points."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from wsolbench.arithmetic import instead, is_own, quicken, unchanged
from wsolbench.errors import InputError

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation of R, G, B in [0, 1]: what a network's input is normalised with."""

IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Pretrained:
    """The ImageNet weights of a backbone's body.

    Args:
        source: what is downloaded, in words that find it again.
        download: returns the weights by the names their source gives them.
        normalisation: of the input these weights were trained with.
        prefix: what the source puts before the names of `Backbone.body`.
        classifier: prefix of a classifier that reads the pooled last feature map; None where there is none.
        unused: prefixes of weights that the body has no place for.
    """

    source: str
    download: Callable[[], Mapping[str, Tensor]]
    normalisation: Normalisation = IMAGENET
    prefix: str = ""
    classifier: str | None = None
    unused: tuple[str, ...] = ()


class Backbone(nn.Module):
    """Images in, named feature maps out.

    Args:
        body: the layers, from images to the last feature map before the neck; what pretrained weights fill.
        points: feature point -> submodule of this backbone whose output it is, in forward order; those of the neck only
            where they are not its layers' outputs.
        stages: the last feature point of each resolution, and the last before the neck: pool1 to pool4 and conv5_3.
        channels: channels of the last feature map of the body, and after each layer of the neck.
        pretrained: the weights that fit the body.
        neck: the 3 x 3 convolutions that CAM adds before pooling, by feature point; they train at the head rate.
        dense: the published network classifies every position before pooling, by a 1 x 1 convolution.
    """

    def __init__(
        self,
        body: nn.Module,
        points: Mapping[str, str],
        stages: Sequence[str],
        channels: Sequence[int],
        *,
        pretrained: Pretrained | None = None,
        neck: Mapping[str, nn.Module] | None = None,
        dense: bool = False,
    ) -> None:
        super().__init__()
        self.body = body
        quicken(body)
        self.neck = nn.Sequential()
        for name, layer in (neck or {}).items():
            self.neck.add_module(name, layer)
        self.points = {**points, **{name: f"neck.{name}" for name in neck or {} if name not in points}}
        self.stages = tuple(stages)
        self.channels = channels[-1]
        self.body_channels = channels[0]
        self.pretrained = pretrained
        self.dense = dense
        self.normalisation: Normalisation = pretrained.normalisation if pretrained else ((0.5,) * 3, (0.5,) * 3)
        self.inserted = nn.ModuleDict()
        self._taps: dict[str, Tensor] = {}

    def insert(self, point: str, layer: nn.Module) -> None:
        """Pass the feature map of `point` through `layer` before the next layer sees it."""
        module = self._at(point)
        key = point.replace(".", "_")  # a module name has no dot
        if key in self.inserted:
            raise InputError(f"feature point {point!r} has a layer already: {self.inserted[key]}")
        self.inserted[key] = layer  # registered, so that train(), to() and repr() reach it
        module.register_forward_hook(partial(_through, layer))

    def tap(self, *points: str) -> None:
        """Add the feature maps of `points` to what `forward` returns."""
        for point in points:
            self._at(point).register_forward_hook(partial(_keep, self._taps, point))

    def drop_neck(self) -> None:
        """Leave out the neck: for a head that branches before it."""
        self.points = {point: path for point, path in self.points.items() if not path.startswith("neck.")}
        self.neck = nn.Sequential()
        self.channels = self.body_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) normalised images -> {"last": (N, channels, h, w)}, the tapped points and `images`."""
        self._taps.clear()
        last = self.neck(self.body(images))
        return {**self._taps, "images": images, "last": last}

    def shapes(self, height: int, width: int) -> dict[str, tuple[int, int, int]]:
        """Channels, height and width at every feature point, for images of this size; nothing is computed."""
        found: dict[str, Tensor] = {}
        hooks = [self._at(point).register_forward_hook(partial(_keep, found, point)) for point in self.points]
        state = chain(self.named_parameters(), self.named_buffers())  # those too that no checkpoint keeps
        on_meta = {name: tensor.detach().to("meta") for name, tensor in state}
        try:
            with norms_passed_by(self):
                functional_call(self, on_meta, torch.empty(2, 3, height, width, device="meta"))
        finally:
            for hook in hooks:
                hook.remove()
        self._taps.clear()
        return {point: (found[point].shape[1], found[point].shape[2], found[point].shape[3]) for point in self.points}

    def _at(self, point: str) -> nn.Module:
        if point not in self.points:
            raise InputError(f"no feature point {point!r}; this backbone has: {', '.join(self.points)}")
        return self.get_submodule(self.points[point])


def norms_passed_by(net: nn.Module) -> AbstractContextManager[None]:
    """Meanwhile batch normalisation hands on the maps that it is given; what does more than its class still does it.

    On the meta device it is most of the work otherwise: torch finds out its shapes, which do not change, in Python.
    """
    norms = [each for each in net.modules() if isinstance(each, _BatchNorm) and is_own(each)]
    return instead({norm: unchanged for norm in norms if type(norm).forward is _BatchNorm.forward})


class PostponedReLU(nn.ReLU):
    """The ReLU before a `RectifiedMaxPool2d`, which does its work, unless a forward hook reads or changes its output.

    The greatest of rectified values is their greatest, rectified: outputs and gradients have the same bits, and there
    are four times fewer values to rectify.
    """

    @property
    def hooked(self) -> bool:
        """Whether its output is a feature map that somebody reads or changes."""
        return bool(self._forward_hooks)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same, rectified where that is not left to pooling."""
        return super().forward(maps) if self.hooked else maps


class RectifiedMaxPool2d(nn.MaxPool2d):
    """Max-pooling, and what `relu` before it leaves to be done."""

    relu: PostponedReLU

    def __init__(self, relu: PostponedReLU, kernel_size: int, stride: int = 2, padding: int = 0) -> None:
        super().__init__(kernel_size, stride, padding)
        self.__dict__["relu"] = relu  # no part of this layer

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, h, w)."""
        pooled: Tensor = super().forward(maps)
        return pooled if self.relu.hooked else F.relu(pooled, inplace=True)


def _through(layer: nn.Module, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return layer(output)


def _keep(taps: dict[str, Tensor], point: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
    taps[point] = output


def neck_layer(channels: int, width: int) -> nn.Sequential:
    """A 3 x 3 convolution to `width` channels and its ReLU."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True))
