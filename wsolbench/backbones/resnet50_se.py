"""ResNet50 with squeeze-and-excitation, without its last stride and its classifier (Hu et al., CVPR 2018)."""

from collections import OrderedDict
from typing import Any, Literal

import timm
from pydantic.dataclasses import dataclass
from timm.models.resnet import Bottleneck
from torch import nn

from wsolbench.backbone import Backbone, PostponedReLU, Pretrained, RectifiedMaxPool2d
from wsolbench.plugins import OPTIONS


@dataclass(frozen=True, config=OPTIONS)
class ResNet50SE:
    """Feature points `conv1`, `pool1`, and every block, `layer1.0` .. `layer4.2`, after its addition and ReLU."""

    output_stride: Literal[8, 16, 32] = 16  # of the last feature map: strides 1 from layer3, from layer4, or nowhere

    def build(self) -> Backbone:
        """(N, 3, H, W) -> (N, 2048, H/16, W/16), with random weights; no dilation."""
        net: Any = timm.create_model(_NET, num_classes=0)
        net.act1 = PostponedReLU(inplace=True)
        net.maxpool = RectifiedMaxPool2d(net.act1, 3, padding=1)
        body = nn.Sequential(OrderedDict(list(net.named_children())[:-2]))  # all but pooling and classifier
        points = {"conv1": "body.act1", "pool1": "body.maxpool"}
        points |= {name: f"body.{name}" for name, part in body.named_modules() if isinstance(part, Bottleneck)}
        for stride, block in ((8, net.layer3[0]), (16, net.layer4[0])):
            if self.output_stride <= stride:
                block.conv2.stride = block.downsample[0].stride = (1, 1)
        stages = ("conv1", "layer1.2", "layer2.3", "layer3.5", "layer4.2")
        return Backbone(body, points, stages, (2048,), pretrained=_WEIGHTS)


_NET = "seresnet50"
_TAGGED = f"{_NET}.a1_in1k"
_WEIGHTS = Pretrained(
    f"timm {_TAGGED}",
    lambda: timm.create_model(_TAGGED, pretrained=True).state_dict(),
    classifier="fc.",
)

BACKBONE = ResNet50SE
