"""CutMix (Yun et al., ICCV 2019): paste a box of another training image, and mix the labels by area."""

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.distributions import Beta

from wsolbench.method import Method
from wsolbench.plugins import OPTIONS, Positive, Share


@dataclass(frozen=True, config=OPTIONS)
class CutMix(Method):
    """A batch is mixed with itself in another order, at one box for all images."""

    beta: Positive = 1.0  # both parameters of the Beta distribution of the share that is kept
    mix_probability: Share = 1.0  # of each batch

    def augment(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Paste the box; the classes' probabilities are mixed by the area that was pasted."""
        if torch.rand(()) >= self.mix_probability:
            return images, targets
        height, width = images.shape[-2:]
        kept = float(Beta(self.beta, self.beta).sample())
        y, x = (int(torch.randint(extent, ())) for extent in (height, width))
        top, left, bottom, right = box(height, width, kept, (y, x))
        order = torch.randperm(len(images)).to(images.device, non_blocking=True)
        pasted = images.clone()
        pasted[..., top:bottom, left:right] = images[order, :, top:bottom, left:right]
        share = (bottom - top) * (right - left) / (height * width)
        return pasted, (1 - share) * targets + share * targets[order]


def box(height: int, width: int, kept: float, centre: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right, half-open, of a box that leaves the share `kept` of an image.

    It is as long and as wide for its size as the image, around `centre` (row, column), and cut off at the edges.
    """
    side = (1 - kept) ** 0.5
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    y, x = centre
    return max(y - half_height, 0), max(x - half_width, 0), min(y + half_height, height), min(x + half_width, width)


METHOD = CutMix
