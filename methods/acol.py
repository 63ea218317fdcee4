"""Adversarial Complementary Learning (Zhang et al., CVPR 2018): a second classifier sees what a first one leaves."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from wsolbench.backbone import Backbone, neck_layer
from wsolbench.method import Head, Method, Output, min_max, of_class
from wsolbench.plugins import OPTIONS, Share

WIDTH = 1024
"""Channels of a branch."""


@dataclass(frozen=True, config=OPTIONS)
class ACoL(Method):
    """Two branches take the place of neck and classifier; the second works on features erased where the first looks."""

    threshold: Share = 0.6  # of the first branch's score map, scaled to [0, 1]; at or above it features are erased
    pools: bool = False  # 3 x 3 maximum and average pooling of stride 1 before the branches, as in the released VGG16

    def head(self, backbone: Backbone, num_classes: int) -> Head:
        """The two branches."""
        backbone.drop_neck()
        return ComplementaryHead(self, backbone.channels, num_classes)


class ComplementaryHead(Head):
    """Branches A and B; scores are those of A, score maps the larger of both (section 3.3)."""

    def __init__(self, options: ACoL, channels: int, num_classes: int) -> None:
        super().__init__()
        self.threshold = options.threshold
        pools = (nn.MaxPool2d(3, stride=1, padding=1), nn.AvgPool2d(3, stride=1, padding=1)) if options.pools else ()
        self.pools = nn.Sequential(*pools)
        self.a = branch(channels, num_classes)
        self.b = branch(channels, num_classes)

    def forward(self, maps: Mapping[str, Tensor], labels: Tensor | None) -> Output:
        """Scores of A; B is needed for the loss and for score maps, not for the scores."""
        features = self.pools(maps["last"])
        a = self.a(features)
        logits = a.mean((2, 3))
        if not self.training:
            return Output(logits, features=features, a=a)
        chosen = logits.argmax(1) if labels is None else labels
        return Output(logits, logits_b=self.b(self.erased(features, a, chosen)).mean((2, 3)), features=features, a=a)

    def erased(self, features: Tensor, a: Tensor, labels: Tensor) -> Tensor:
        """The features, 0 where A's score map of the label is at or above the threshold."""
        kept = min_max(of_class(a, labels)) < self.threshold
        return features * kept.unsqueeze(1).to(features.dtype)

    def loss(self, output: Output, targets: Tensor) -> Tensor:
        """Cross-entropy of both branches."""
        return F.cross_entropy(output.logits, targets) + F.cross_entropy(output.maps["logits_b"], targets)

    def score_maps(self, output: Output, labels: Tensor) -> Tensor:
        """The larger of both branches' score maps, each scaled to [0, 1], B's where A's map of `labels` is erased."""
        features, a = output.maps["features"], output.maps["a"]
        b = self.b(self.erased(features, a, labels))
        return torch.maximum(min_max(of_class(a, labels)), min_max(of_class(b, labels)))


def branch(channels: int, num_classes: int) -> nn.Sequential:
    """(N, C, h, w) -> (N, K, h, w) score maps: two 3 x 3 convolutions and one 1 x 1."""
    return nn.Sequential(neck_layer(channels, WIDTH), neck_layer(WIDTH, WIDTH), nn.Conv2d(WIDTH, num_classes, 1))


METHOD = ACoL
