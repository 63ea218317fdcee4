"""ResNet50 without its last stride and its classifier (He et al., CVPR 2016)."""

from collections import OrderedDict
from typing import Any, Literal

from pydantic.dataclasses import dataclass
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.models.resnet import Bottleneck

from wsolbench.backbone import Backbone, PostponedReLU, Pretrained, RectifiedMaxPool2d
from wsolbench.plugins import OPTIONS


@dataclass(frozen=True, config=OPTIONS)
class ResNet50:
    """Feature points `conv1`, `pool1`, and every block, `layer1.0` .. `layer4.2`, after its addition and ReLU."""

    output_stride: Literal[8, 16, 32] = 16  # of the last feature map: strides 1 from layer3, from layer4, or nowhere

    def build(self) -> Backbone:
        """(N, 3, H, W) -> (N, 2048, H/16, W/16), with random weights; no dilation."""
        net: Any = resnet50()
        net.relu = PostponedReLU(inplace=True)
        net.maxpool = RectifiedMaxPool2d(net.relu, 3, padding=1)
        body = nn.Sequential(OrderedDict(list(net.named_children())[:-2]))  # all but pooling and classifier
        points = {"conv1": "body.relu", "pool1": "body.maxpool"}
        points |= {name: f"body.{name}" for name, part in body.named_modules() if isinstance(part, Bottleneck)}
        for stride, block in ((8, net.layer3[0]), (16, net.layer4[0])):
            if self.output_stride <= stride:
                block.conv2.stride = block.downsample[0].stride = (1, 1)
        stages = ("conv1", "layer1.2", "layer2.3", "layer3.5", "layer4.2")
        return Backbone(body, points, stages, (2048,), pretrained=_WEIGHTS)


_WEIGHTS = Pretrained(
    "torchvision ResNet50_Weights.IMAGENET1K_V1",  # V1, as in the published results of the field
    lambda: ResNet50_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True),
    classifier="fc.",
)

BACKBONE = ResNet50
