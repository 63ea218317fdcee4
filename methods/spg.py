"""Self-Produced Guidance (Zhang et al., ECCV 2018): certain fore- and background teaches earlier and later layers."""

from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from wsolbench.backbone import Backbone, neck_layer
from wsolbench.method import FeaturePoints, Head, Method, Output, min_max, of_class
from wsolbench.plugins import OPTIONS, Count, Share

FEWEST = 30
"""Pixels of foreground; with fewer above the threshold, those above 0.7 of the maximum are taken, as the authors do."""

Thresholds = tuple[Share, Share]
"""Foreground is above the first, background below the second; what lies between is ignored."""


def two(points: tuple[str, ...]) -> tuple[str, ...]:
    """The points, if they are two."""
    if len(points) != 2:  # noqa: PLR2004
        raise ValueError(f"points must be two feature points, of B1 and of B2, not {points!r}")
    return points


@dataclass(frozen=True, config=OPTIONS)
class SPG(Method):
    """The class map guides B2 at the later of two points, B2 guides B1 at the earlier, both guide C at the last map."""

    points: Annotated[FeaturePoints, AfterValidator(two)]  # feature points of B1 and of B2
    class_map: Thresholds = (0.7, 0.05)  # of the class map, as guidance of B2
    b2: Thresholds = (0.5, 0.05)  # of B2's map, as guidance of B1
    fused: Thresholds = (0.7, 0.1)  # of the mean of B1's and B2's maps, as guidance of C
    width: Count = 512  # channels of B1 and B2; C has 512
    replace_neck: bool = False  # by two 3 x 3 convolutions as wide as the last map, as wsolevaluation does on VGG16

    def prepare(self, backbone: Backbone) -> None:
        """Tap the two points."""
        backbone.tap(*self.points)

    def head(self, backbone: Backbone, num_classes: int) -> Head:
        """A 1 x 1 convolution for the class maps, and the guided branches."""
        shapes = backbone.shapes(64, 64)  # any size: only the channels matter
        if self.replace_neck:
            backbone.drop_neck()
        return GuidedHead(self, [shapes[point][0] for point in self.points], backbone.channels, num_classes)


class GuidedHead(Head):
    """Class maps, and in training the maps of B1, B2 and C (sections 3.1 and 3.2)."""

    def __init__(self, options: SPG, tapped: list[int], channels: int, num_classes: int) -> None:
        super().__init__()
        self.options = options
        necks = [neck_layer(channels, channels) for _ in range(2)] if options.replace_neck else []
        self.neck = nn.Sequential(*necks)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.b1, self.b2 = (neck_layer(inputs, options.width) for inputs in tapped)
        self.shared = nn.Sequential(neck_layer(options.width, options.width), nn.Conv2d(options.width, 1, 1))
        self.c = nn.Sequential(neck_layer(channels, 512), nn.Conv2d(512, 1, 1))

    def forward(self, maps: Mapping[str, Tensor], labels: Tensor | None) -> Output:
        """Class maps and scores; in training also the guiding and the guided maps, at the size of the images."""
        last = self.neck(maps["last"])
        classes = self.classifier(last)
        logits = classes.mean((2, 3))
        if not self.training:
            return Output(logits, classes=classes)
        first, second = (maps[point] for point in self.options.points)
        found = {
            "guide": of_class(classes, logits.argmax(1) if labels is None else labels).unsqueeze(1),
            "b1": self.shared(self.b1(first)),
            "b2": self.shared(self.b2(second)),
            "c": self.c(last),
        }
        size = maps["images"].shape[-2:]
        return Output(logits, classes=classes, **{name: upsampled(each, size) for name, each in found.items()})

    def loss(self, output: Output, targets: Tensor) -> Tensor:
        """Cross-entropy of the scores, and a binary cross-entropy for each guided map (section 3.2)."""
        maps, options = output.maps, self.options
        b1, b2 = maps["b1"].detach().sigmoid(), maps["b2"].detach().sigmoid()
        of_b2 = guidance_loss(maps["b2"], min_max(maps["guide"]), options.class_map)
        of_b1 = guidance_loss(maps["b1"], b2, options.b2)
        of_c = guidance_loss(maps["c"], (b1 + b2) / 2, options.fused)
        return F.cross_entropy(output.logits, targets) + of_b2 + of_b1 + of_c

    def score_maps(self, output: Output, labels: Tensor) -> Tensor:
        """The class map of the label."""
        return of_class(output.maps["classes"], labels)


def guidance_loss(logits: Tensor, guide: Tensor, thresholds: Thresholds) -> Tensor:
    """Mean binary cross-entropy of (N, H, W) `logits` where `guide` is certain; 0 where it is nowhere."""
    foreground, background = certain(guide, thresholds)
    known = foreground | background
    each = F.binary_cross_entropy_with_logits(logits, foreground.to(logits.dtype), reduction="none")
    return (each * known).sum() / known.sum().clamp_min(1)


def certain(guide: Tensor, thresholds: Thresholds) -> tuple[Tensor, Tensor]:
    """Foreground and background of (N, H, W) maps in [0, 1]; what is both is background, as in the authors' code."""
    high, low = thresholds
    above, background = guide > high, guide < low
    few = above.sum((1, 2), keepdim=True) < FEWEST  # of each image by itself
    peak = guide > 0.7 * guide.amax((1, 2), keepdim=True)
    return torch.where(few, peak, above) & ~background, background


def upsampled(maps: Tensor, size: torch.Size) -> Tensor:
    """(N, 1, h, w) -> (N, H, W) float32, bilinearly."""
    return F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False).squeeze(1)


METHOD = SPG
