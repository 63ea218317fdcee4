"""InceptionV3 up to Mixed_6e, with the strides, paddings and neck of SPG (Zhang et al., ECCV 2018)."""

from collections import OrderedDict
from typing import Any, Literal

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torchvision.models import Inception_V3_Weights, inception_v3
from torchvision.models.inception import InceptionB

from wsolbench.backbone import Backbone, Pretrained, neck_layer
from wsolbench.plugins import OPTIONS, Share


@dataclass(frozen=True, config=OPTIONS)
class InceptionV3:
    """Feature points `Conv2d_1a` .. `Conv2d_4a`, `pool1` .., `Mixed_5b` .. `Mixed_6e`; neck `A3_1b`, `A3_2b`."""

    output_stride: Literal[8, 16] = 8  # of the last feature map; 16 pools once more, `pool3` before Mixed_6a
    dropout: Share = 0.5  # before each convolution of the neck and before the classifier, as in SPG's network

    def build(self) -> Backbone:
        """(N, 3, H, W) -> (N, 1024, H/8, W/8), with random weights."""
        net: Any = inception_v3(init_weights=False)
        net.Conv2d_1a_3x3.conv.padding = (1, 1)
        net.maxpool1, net.maxpool2 = (nn.MaxPool2d(3, 2, padding=1, ceil_mode=True) for _ in range(2))
        net.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        net.Mixed_6a = _Mixed6a(288)
        layers = [name for name in _LAYERS if name != "maxpool3" or self.output_stride > 2**3]
        body = nn.Sequential(OrderedDict((name, getattr(net, name)) for name in layers))
        points = {name.removesuffix("_3x3").removesuffix("_1x1").removeprefix("max"): f"body.{name}" for name in layers}
        drops = [nn.Dropout(self.dropout) for _ in range(3)]
        neck = {
            "A3_1b": nn.Sequential(drops[0], neck_layer(768, 1024)),
            "A3_2b": nn.Sequential(drops[1], neck_layer(1024, 1024), drops[2]),
        }
        points |= {"A3_1b": "neck.A3_1b", "A3_2b": "neck.A3_2b.1"}  # the ReLU's output; dropout comes later
        stages = ("Conv2d_2b", "Conv2d_4a", "Mixed_5d", "Mixed_6e")
        return Backbone(body, points, stages, (768, 1024), pretrained=_WEIGHTS, neck=neck, dense=True)


class _Mixed6a(InceptionB):
    """Mixed_6a without its stride: the map keeps its size."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        for part in (self.branch3x3, self.branch3x3dbl_3):
            part.conv.stride, part.conv.padding = (1, 1), (1, 1)

    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch3x3(x), double, F.max_pool2d(x, 3, stride=1, padding=1)]


_LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "maxpool3", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
)
_WEIGHTS = Pretrained(
    "torchvision Inception_V3_Weights.IMAGENET1K_V1",
    lambda: Inception_V3_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True),
    normalisation=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    unused=("AuxLogits.", "Mixed_7", "fc."),
)

BACKBONE = InceptionV3
