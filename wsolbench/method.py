"""A method: what a WSOL technique changes about plain CAM; and the network it makes of a backbone."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, get_type_hints

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from wsolbench.backbone import Backbone
from wsolbench.plugins import OPTIONS

POINTS = "feature points"
FeaturePoints = Annotated[tuple[str, ...], POINTS]
"""Feature points of a backbone; the names are checked against it before a trial is submitted."""


class Output:
    """What a head makes of feature maps.

    Args:
        logits: (N, K) class scores.
        maps: whatever the head needs for its loss and score maps.
    """

    def __init__(self, logits: Tensor, **maps: Tensor) -> None:
        self.logits = logits
        self.maps = maps


class Head(nn.Module):
    """Feature maps -> class scores, loss and score maps."""

    def forward(self, maps: Mapping[str, Tensor], labels: Tensor | None) -> Output:
        """Feature maps by feature point, and `last`; (N,) labels where they are known -> `Output`."""
        raise NotImplementedError

    def loss(self, output: Output, targets: Tensor) -> Tensor:
        """Scalar training loss; `targets` are (N, K) class probabilities."""
        return F.cross_entropy(output.logits, targets)

    def score_maps(self, output: Output, labels: Tensor) -> Tensor:
        """(N, h, w) score maps of the classes `labels`; any range, larger is more of the class."""
        raise NotImplementedError

    def load_classifier(self, weight: Tensor, bias: Tensor) -> bool:
        """Take over a pretrained classifier, (K, C) and (K,); False where this head has no place for it."""
        del weight, bias
        return False


class GapHead(Head):
    """Global average pooling and a linear classifier (Zhou et al., CVPR 2016).

    Args:
        channels: of the last feature map.
        num_classes: how many classes there are.
        dense: classify every position and pool then: the same scores, at the cost the backbone's papers count.
    """

    def __init__(self, channels: int, num_classes: int, *, dense: bool = False) -> None:
        super().__init__()
        self.dense = dense
        self.classifier = nn.Linear(channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, maps: Mapping[str, Tensor], labels: Tensor | None) -> Output:
        """Scores from the pooled last feature map."""
        del labels
        last = maps["last"]
        if not self.dense:
            return Output(self.classifier(pooled(last)), last=last)
        every = F.conv2d(last, self.classifier.weight[:, :, None, None], self.classifier.bias)
        return Output(pooled(every), last=last)

    def score_maps(self, output: Output, labels: Tensor) -> Tensor:
        """The last feature map weighted by the classifier's weights of the class."""
        return torch.einsum("nchw,nc->nhw", output.maps["last"], self.classifier.weight[labels])

    def load_classifier(self, weight: Tensor, bias: Tensor) -> bool:
        """Take over a pretrained classifier where it has the same classes and channels."""
        if weight.shape != self.classifier.weight.shape:
            return False
        with torch.no_grad():
            self.classifier.weight.copy_(weight)
            self.classifier.bias.copy_(bias)
        return True


@dataclass(frozen=True, config=OPTIONS)
class Method:
    """The defaults are CAM. A method overrides `augment`, `prepare`, `head`, or nothing.

    The fields of a subclass are its options: what a sweep may vary, with type and default.
    """

    def augment(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Change a training batch, not in place: (N, 3, H, W) normalised images, (N, K) class probabilities."""
        return images, targets

    def prepare(self, backbone: Backbone) -> None:
        """Insert layers at, or tap, feature points of the backbone."""

    def head(self, backbone: Backbone, num_classes: int) -> Head:
        """What follows the last feature map."""
        return GapHead(backbone.channels, num_classes, dense=backbone.dense)


class Net(nn.Module):
    """A backbone and the head of a method."""

    def __init__(self, backbone: Backbone, head: Head, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.num_classes = num_classes

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Output:
        """(N, 3, H, W) normalised images, (N,) labels where they are known -> `Output`."""
        return self.head(self.backbone(images), labels)

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the body: what pretrained weights fill."""
        return self.backbone.body.parameters()

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """All other parameters: neck, inserted layers and head."""
        pretrained = {id(parameter) for parameter in self.pretrained_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in pretrained)


def build(method: Method, backbone: Backbone, num_classes: int) -> Net:
    """The network of `method` on `backbone`."""
    method.prepare(backbone)
    return Net(backbone, method.head(backbone, num_classes), num_classes)


def pooled(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C): the mean over all positions, whose gradient is laid out as the maps are.

    That of a mean over the last axes never has the channels last, and ReLU is slow on two layouts.
    """
    if maps.is_contiguous(memory_format=torch.channels_last):
        return maps.permute(0, 2, 3, 1).mean((1, 2))
    return maps.mean((2, 3))


def of_class(maps: Tensor, labels: Tensor) -> Tensor:
    """(N, K, h, w) -> (N, h, w): the map of each image's label."""
    return maps[torch.arange(maps.shape[0], device=maps.device), labels]  # len() would fix N in an export


def min_max(maps: Tensor) -> Tensor:
    """(N, h, w) maps, each scaled to [0, 1] in float32, without gradient; a constant map becomes zeros."""
    maps = maps.detach().float()
    above = maps - maps.amin((1, 2), keepdim=True)
    return above / above.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def feature_points(method_class: type[Method]) -> tuple[str, ...]:
    """The options of a method that hold feature points."""
    found: Any = method_class  # a class that mypy takes for its instances, which have no hash
    return _feature_points(found)


@cache
def _feature_points(method_class: Any) -> tuple[str, ...]:
    hints: dict[str, Any] = get_type_hints(method_class, include_extras=True)
    return tuple(f.name for f in fields(method_class) if POINTS in getattr(hints[f.name], "__metadata__", ()))
