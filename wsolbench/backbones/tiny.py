"""A VGG in miniature, for `shapes` on a laptop and for tests: a convolution a stage, no pretrained weights."""

import torch
from pydantic.dataclasses import dataclass
from torch import channels_last, nn

from wsolbench.backbone import Backbone, PostponedReLU, RectifiedMaxPool2d
from wsolbench.plugins import OPTIONS

WIDTHS = (16, 16, 32, 32)  # channels of conv1 .. conv4
NECK = 64  # channels of conv5
POOLS = 2  # after as many of the first convolutions
CONTRAST = ((0.5,) * 3, (0.2,) * 3)  # mean and deviation of an image's pixels


@dataclass(frozen=True, config=OPTIONS)
class Tiny:
    """Feature points `conv1` .. `conv4` (after ReLU), `pool1`, `pool2` and `conv5`, the neck.

    Like VGG16 it has no batch normalisation: ADL changes the maps in training only, and the statistics gathered there
    would not fit the maps in evaluation.
    """

    def build(self) -> Backbone:
        """(N, 3, H, W) -> (N, 64, H/4, W/4), with random weights."""
        body, points, channels = nn.Sequential(), dict[str, str](), 3
        for number, width in enumerate(WIDTHS, start=1):
            relu = (PostponedReLU if number <= POOLS else nn.ReLU)(inplace=True)
            body.add_module(f"conv{number}", _convolution(channels, width, relu))
            points[f"conv{number}"] = f"body.conv{number}.1"
            if isinstance(relu, PostponedReLU):
                body.add_module(f"pool{number}", RectifiedMaxPool2d(relu, 2))
                points[f"pool{number}"] = f"body.pool{number}"
            channels = width
        stages = [*(point for point in points if point.startswith("pool")), f"conv{len(WIDTHS)}"]
        neck = {f"conv{len(WIDTHS) + 1}": _convolution(channels, NECK, nn.ReLU(inplace=True))}
        backbone = Backbone(body, points, stages, (channels, NECK), neck=neck)
        backbone.normalisation = CONTRAST
        return backbone.to(memory_format=channels_last)  # a third faster on one thread


def _convolution(channels: int, width: int, relu: nn.ReLU) -> nn.Sequential:
    """A 3 x 3 convolution and its ReLU; each filter sums to zero at first.

    Such filters are blind to what is the same everywhere: from random weights the network then learns in a few passes.
    """
    convolution = nn.Conv2d(channels, width, 3, padding=1)
    if not convolution.weight.is_meta:  # there torch imports its compiler, in two seconds, to draw no values
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.get_parameter("bias"))
        with torch.no_grad():
            convolution.weight -= convolution.weight.mean((1, 2, 3), keepdim=True)
    return nn.Sequential(convolution, relu)


BACKBONE = Tiny
