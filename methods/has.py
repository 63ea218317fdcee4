"""Hide-and-Seek (Singh & Lee, ICCV 2017): hide patches of the training images."""

import math
from collections.abc import Mapping

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from wsolbench.method import Method
from wsolbench.plugins import OPTIONS, Count, Share


@dataclass(frozen=True, config=OPTIONS)
class HaS(Method):
    """Each patch of a square grid is filled with the mean colour, or left, independently in each image."""

    patch: Count = 32  # side of a patch, pixels of the images as they are: 7 x 7 at 224; those at the edge are cut off
    hide_probability: Share = 0.5

    def augment(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Hide patches; the mean colour of normalised images is 0."""
        return images * keep_mask(images, self.patch, self.hide_probability), targets

    def operations(self, shapes: Mapping[str, tuple[int, int, int]]) -> int:
        """Elementwise operations of an image: each value times the mask."""
        return math.prod(shapes["images"])


def keep_mask(images: Tensor, patch: int, hide_probability: float) -> Tensor:
    """0 where a patch is hidden, else 1; (N, 1, H, W) for (N, C, H, W) images, in their type."""
    count, _, height, width = images.shape
    grid = (count, 1, -(-height // patch), -(-width // patch))
    kept = (torch.rand(grid, device=images.device) >= hide_probability).to(images.dtype)
    rows, columns = (torch.arange(side, device=images.device) // patch for side in (height, width))
    return kept[:, :, rows][..., columns]


METHOD = HaS
