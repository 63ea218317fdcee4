"""MobileNetV1 without its last stride and its classifier (Howard et al., 2017)."""

from collections import OrderedDict
from typing import Any, Literal

import timm
from pydantic.dataclasses import dataclass
from torch import nn

from wsolbench.backbone import Backbone, Pretrained
from wsolbench.plugins import OPTIONS, Positive


@dataclass(frozen=True, config=OPTIONS)
class MobileNetV1:
    """Feature points `conv1` .. `conv14` (after ReLU), `conv2.dw` .. `conv14.dw` after the depthwise convolution."""

    output_stride: Literal[16, 32] = 16  # of the last feature map; 16 takes the stride of the last strided convolution
    padding: Literal["symmetric", "same"] = "symmetric"  # "same" is TensorFlow's, for weights that come from there
    bn_eps: Positive = 1e-5  # of batch normalisation; 1e-3 in weights that come from TensorFlow

    def build(self) -> Backbone:
        """(N, 3, H, W) -> (N, 1024, H/16, W/16), with random weights."""
        padding = {"symmetric": "", "same": "same"}[self.padding]
        net: Any = timm.create_model(_NET, pad_type=padding, bn_eps=self.bn_eps, num_classes=0)
        for layer in net.modules():
            if isinstance(layer, nn.ReLU6):
                layer.inplace = False  # in place it copies its input first, which its gradient needs
        net.blocks[4][0].conv_dw.stride = {16: (1, 1), 32: (2, 2)}[self.output_stride]
        blocks = [f"{stage}.{index}" for stage, blocks in enumerate(net.blocks) for index in range(len(blocks))]
        points = {"conv1": "body.bn1"}
        for number, block in enumerate(blocks, start=2):
            points |= {f"conv{number}.dw": f"body.blocks.{block}.bn1", f"conv{number}": f"body.blocks.{block}"}
        body = nn.Sequential(OrderedDict(conv_stem=net.conv_stem, bn1=net.bn1, blocks=net.blocks))
        return Backbone(body, points, ("conv2", "conv4", "conv6", "conv12", "conv14"), (1024,), pretrained=_WEIGHTS)


_NET = "mobilenetv1_100"
_TAGGED = f"{_NET}.ra4_e3600_r224_in1k"
_WEIGHTS = Pretrained(
    f"timm {_TAGGED}",
    lambda: timm.create_model(_TAGGED, pretrained=True).state_dict(),
    normalisation=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    classifier="classifier.",
)

BACKBONE = MobileNetV1
