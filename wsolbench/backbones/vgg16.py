"""VGG16 without its last pooling and its classifier, and the neck of VGG-GAP."""

from typing import Literal

from pydantic.dataclasses import dataclass
from torch import nn
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from wsolbench.backbone import Backbone, PostponedReLU, Pretrained, RectifiedMaxPool2d, neck_layer
from wsolbench.plugins import OPTIONS


@dataclass(frozen=True, config=OPTIONS)
class VGG16:
    """Feature points `conv1_1` .. `conv5_3` (after ReLU), `pool1` .. `pool4`; neck `conv6` (Zhou et al., 2016)."""

    output_stride: Literal[8, 16] = 16  # of the last feature map; 8 leaves out pool4
    pool_size: Literal[2, 3] = 2  # side of a pooling window, pixels; 3 as in the network that ACoL released

    def build(self) -> Backbone:
        """(N, 3, H, W) -> (N, 1024, H/16, W/16), with random weights."""
        body = make_layers(cfgs["D"])[:-1]
        points: dict[str, str] = {}
        stage, convolution = 1, 0
        for name, layer in body.named_children():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.ReLU):
                convolution += 1
                points[f"conv{stage}_{convolution}"] = f"body.{name}"
            elif isinstance(layer, nn.MaxPool2d):
                if 2**stage > self.output_stride:
                    body[int(name)] = nn.Identity()
                else:
                    points[f"pool{stage}"] = f"body.{name}"
                    body[int(name) - 1] = relu = PostponedReLU(inplace=True)
                    body[int(name)] = RectifiedMaxPool2d(relu, self.pool_size, padding=self.pool_size - 2)
                stage, convolution = stage + 1, 0
        stages = [*(point for point in points if point.startswith("pool")), "conv5_3"]
        neck = {"conv6": neck_layer(512, 1024)}
        return Backbone(body, points, stages, (512, 1024), pretrained=_WEIGHTS, neck=neck)


_WEIGHTS = Pretrained(
    "torchvision VGG16_Weights.IMAGENET1K_V1",
    lambda: VGG16_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True),
    prefix="features.",
    unused=("classifier.",),
)

BACKBONE = VGG16
