"""Attention-based Dropout Layer (Choe & Shim, CVPR 2019)."""

from collections.abc import Mapping

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from wsolbench.backbone import Backbone
from wsolbench.method import FeaturePoints, Method
from wsolbench.plugins import OPTIONS, Share


@dataclass(frozen=True, config=OPTIONS)
class ADL(Method):
    """At each of `points`, hide the most discriminative region or weight it up."""

    points: FeaturePoints  # feature points that get a layer
    drop_rate: Share = 0.75  # P(the drop mask is chosen, not the importance map)
    gamma: Share = 0.80  # drop threshold, share of the attention maximum
    drop_mask: bool = True  # False passes the raw map where the drop mask is chosen (Table 1, lower block)
    importance_map: bool = True  # False passes the raw map where the importance map is chosen

    def prepare(self, backbone: Backbone) -> None:
        """Insert an `AttentionDropout` at every point."""
        for point in self.points:
            backbone.insert(point, AttentionDropout(self))

    def operations(self, shapes: Mapping[str, tuple[int, int, int]]) -> int:
        """Elementwise operations of an image; of a step that makes both maps, as the released code does."""
        return sum(2 * c * h * w + 6 * h * w + 1 for c, h, w in (shapes[point] for point in self.points))


class AttentionDropout(nn.Module):
    """Hide the most discriminative region, or weight it up; the identity when not training (section 3)."""

    def __init__(self, options: ADL) -> None:
        super().__init__()
        self.options = options

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape and type; one draw per batch, as the authors'."""
        if not self.training:
            return features
        attention, rate = _attention(features), self.options.drop_rate
        if torch.compiler.is_compiling():  # a graph has no branches
            drop = torch.rand((), device=features.device) < rate
            chosen = torch.where(drop, self._drop_mask(attention), self._importance_map(attention))
        else:  # drawn on the CPU: for a number of a GPU's the processor would wait
            chosen = (self._drop_mask if torch.rand((), device="cpu") < rate else self._importance_map)(attention)
        return features * chosen.to(features.dtype)

    def maps(self, features: Tensor) -> dict[str, Tensor]:
        """The maps of Figure 2, each (N, 1, H, W) float32; a component that is switched off is 1 everywhere."""
        attention = _attention(features)
        return {
            "self-attention map": attention,
            "importance map": self._importance_map(attention),
            "drop mask": self._drop_mask(attention),
        }

    def _importance_map(self, attention: Tensor) -> Tensor:
        return attention.sigmoid() if self.options.importance_map else torch.ones_like(attention)

    def _drop_mask(self, attention: Tensor) -> Tensor:
        return drop_mask(attention, self.options.gamma) if self.options.drop_mask else torch.ones_like(attention)

    def extra_repr(self) -> str:
        """The options, for print()."""
        return repr(self.options)


def _attention(features: Tensor) -> Tensor:
    return features.mean(1, keepdim=True, dtype=torch.float32)  # half precision would move the threshold


def drop_mask(attention: Tensor, gamma: float) -> Tensor:
    """1 where `attention` is below `gamma` times its maximum over the image, else 0; (N, 1, H, W).

    An image whose maximum is below 0 keeps everything: times gamma, its threshold would lie above the maximum.
    A map of zeros is below nothing, so all of it is dropped.
    """
    maximum = attention.amax((2, 3), keepdim=True)
    return ((attention < gamma * maximum) | (maximum < 0)).to(attention.dtype)


METHOD = ADL
