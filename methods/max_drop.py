"""MaxDrop (Park & Kwak, ACCV 2016): drop the strongest activation of a channel."""

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from wsolbench.backbone import Backbone
from wsolbench.method import FeaturePoints, Method
from wsolbench.plugins import OPTIONS, Share


@dataclass(frozen=True, config=OPTIONS)
class MaxDrop(Method):
    """At each of `points`, zero the maximum of each channel of each image by chance."""

    points: FeaturePoints  # feature points that get a layer
    drop_rate: Share = 0.5  # P(the maximum of a channel is dropped)

    def prepare(self, backbone: Backbone) -> None:
        """Insert a `MaximumDropout` at every point."""
        for point in self.points:
            backbone.insert(point, MaximumDropout(self.drop_rate))


class MaximumDropout(nn.Module):
    """Zero the positions where a channel is at its maximum over the image; the identity when not training."""

    def __init__(self, drop_rate: float) -> None:
        super().__init__()
        self.drop_rate = drop_rate

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape and type."""
        if not self.training:
            return features
        dropped = torch.rand(features.shape[:2], device=features.device) < self.drop_rate
        return features.masked_fill(maximum(features) & dropped[:, :, None, None], 0)

    def maps(self, features: Tensor) -> dict[str, Tensor]:
        """(N, H, W): how large a share of the channels is dropped at each position, expected over the draws."""
        return {"share dropped": self.drop_rate * maximum(features).float().mean(1)}

    def extra_repr(self) -> str:
        """The option, for print()."""
        return f"drop_rate={self.drop_rate}"


def maximum(features: Tensor) -> Tensor:
    """Where each channel is at its maximum over the image, equal ones all; as `features`, bool."""
    return features == features.amax((2, 3), keepdim=True)


METHOD = MaxDrop
