"""Compare hiding patches with the recipe of the field, a Python loop over the grid of every image; side by side.

    python benchmarks/has_mask.py --method has --batch 8 --pairs 9

The recipe walks over the grid of a copied image and fills the patches it draws, one by one, at a grid drawn for
each image; with patches of 4 pixels that is 3,136 fills an image. Ours is one mask for the batch, times the images.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from wsolbench import methods, plugins

SIDE = 224
PATCH = 4


def recipe(images: torch.Tensor) -> torch.Tensor:
    """Every image patch by patch."""
    found = images.clone()
    for image in found:
        for top in range(0, SIDE, PATCH):
            for left in range(0, SIDE, PATCH):
                if torch.rand(()) <= 0.5:
                    image[:, top : top + PATCH, left : left + PATCH] = 0.0
    return found


def seconds(hide: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    hide()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", required=True, help="that hides patches")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=9)
    asked = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randn(asked.batch, 3, SIDE, SIDE)
    targets = torch.eye(asked.batch)
    method = plugins.make(methods, asked.method, {"patch": PATCH})
    method.augment(images, targets)
    ratios = [
        seconds(lambda: recipe(images)) / seconds(lambda: method.augment(images, targets)) for _ in range(asked.pairs)
    ]
    hidden = [float((side == 0).float().mean()) for side in (recipe(images), method.augment(images, targets)[0])]
    print(f"share hidden: recipe {hidden[0]:.3f}, ours {hidden[1]:.3f}")
    spread = f"{min(ratios):.0f} to {max(ratios):.0f}"
    print(f"HaS, batch {asked.batch}, patch {PATCH}: {median(ratios):.0f}x (median of {asked.pairs} pairs; {spread})")


if __name__ == "__main__":
    main()
