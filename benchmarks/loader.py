"""Compare loading training batches with the recipe of the field: PIL, decoded in every epoch; one core, side by side.

    python benchmarks/loader.py --data CUB_200_2011 --images 200 --pairs 5

The recipe opens and decodes each JPEG, resizes it to 256 x 256, crops 224 x 224, mirrors, and normalises it with
torchvision. Ours reads the decoded squares from the cache. Both end in float32 batches; they must be equal bit for bit.
What the cache costs once, an epoch's decoding, is printed beside.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as recipe
from cost_model import table3
from PIL import Image
from torchvision.transforms import InterpolationMode

from wsolbench import batches, datasets, memory, plugins
from wsolbench.backbone import IMAGENET
from wsolbench.geometry import larger
from wsolbench.pixels import Pixels
from wsolbench.trial import Trial

DATASET = "cub"
SIDE = 224
BATCH = 32


def theirs(paths: list[Path], seed: int) -> Iterator[torch.Tensor]:
    """Batches as the recipe makes them, with the crops and mirrors that ours will draw."""
    torch.manual_seed(batches.stream(seed, 0))
    order = torch.randperm(len(paths)).tolist()
    for step, start in enumerate(range(0, len(order), BATCH)):
        group = order[start : start + BATCH]
        torch.manual_seed(batches.stream(seed, 0, step))
        corners, mirrored = batches.places(len(group), larger(SIDE) - SIDE).tolist(), batches.flips(len(group)).tolist()
        yield torch.stack([one(paths[i], *c, m) for i, c, m in zip(group, corners, mirrored, strict=True)])


def one(path: Path, top: int, left: int, mirror: bool) -> torch.Tensor:
    """An image as the recipe makes it."""
    with Image.open(path) as image:
        picture: Any = image.convert("RGB")
    picture = recipe.resize(picture, [larger(SIDE)] * 2, InterpolationMode.BILINEAR)
    picture = recipe.crop(picture, top, left, SIDE, SIDE)
    picture = recipe.hflip(picture) if mirror else picture
    return recipe.normalize(recipe.to_tensor(picture), *map(list, IMAGENET))


def ours(pixels: Pixels, trial: Trial, seed: int) -> Iterator[torch.Tensor]:
    """The same batches."""
    yield from (b.images for b in batches.training_batches(pixels, replace(trial, seed=seed), 0, IMAGENET, 0))


def timed(made: Iterator[torch.Tensor]) -> float:
    """Seconds that an epoch takes."""
    start = time.perf_counter()
    for _ in made:
        pass
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    memory.keep_freed()  # of both sides, as trials do
    split = plugins.make(datasets, DATASET, {}).split("train", asked.data)
    split = split.only(np.linspace(0, len(split) - 1, min(asked.images, len(split))).astype(int).tolist())
    paths = [asked.data / "images" / name for name in split.ids]
    trial = replace(table3(DATASET)[0], batch_size=BATCH)  # neither network nor method decides a batch
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WSOLBENCH_CACHE"] = folder
        timed(ours(Pixels(split.only([0]), larger(SIDE)), trial, 0))  # compiles
        filling = timed(ours(Pixels(split, larger(SIDE)), trial, 0))
        pixels = Pixels(split, larger(SIDE))
        equal = all(torch.equal(a, b) for a, b in zip(theirs(paths, 0), ours(pixels, trial, 0), strict=True))
        pairs = [(timed(theirs(paths, seed)), timed(ours(pixels, trial, seed))) for seed in range(asked.pairs)]
    ratios = [theirs / ours for theirs, ours in pairs]
    spread = f"{min(ratios):.1f} to {max(ratios):.1f}"
    print(f"{len(split)} images of {SIDE} px, one core; batches equal bit for bit: {equal}")
    print(f"loader: {median(ratios):.1f}x (median of {asked.pairs} pairs; {spread})")
    print(f"  {len(split) / median(ours for _, ours in pairs):,.0f} images/s")
    print(f"  the first epoch, which decodes, over one of the recipe: {filling / median(t for t, _ in pairs):.2f}")


if __name__ == "__main__":
    main()
