"""SpatialDropout (Tompson et al., CVPR 2015): drop whole channels."""

from pydantic.dataclasses import dataclass
from torch import nn

from wsolbench.backbone import Backbone
from wsolbench.method import FeaturePoints, Method
from wsolbench.plugins import OPTIONS, Share


@dataclass(frozen=True, config=OPTIONS)
class SpatialDropout(Method):
    """At each of `points`, zero each channel of each image by chance, and scale up the others for it."""

    points: FeaturePoints  # feature points that get a layer
    drop_rate: Share = 0.5  # P(a channel is dropped)

    def prepare(self, backbone: Backbone) -> None:
        """Insert a channel-wise dropout at every point; the identity when not training."""
        for point in self.points:
            backbone.insert(point, nn.Dropout2d(self.drop_rate))


METHOD = SpatialDropout
