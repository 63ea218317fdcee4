"""Compare a whole evaluation pass with the recipe of clovaai/wsolevaluation: fp32, on the CPU, side by side.

    python benchmarks/evaluation_pass.py --backbone resnet50 --pairs 5

The recipe classifies in one pass over the images and makes score maps in a second, both with autograd on; it writes
each map to a file as float64 at the size of the input, and finds boxes at 1,000 thresholds one by one. Ours is one
pass, the stored native maps, and MaxBoxAcc, MaxBoxAccV2 and all other metrics of the `wsolevaluation` protocol.
Score maps are those of random weights blended with a smooth blob, so that they look like a trained network's.
"""

import argparse
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from evaluation import IOUS, recipe_hits
from numpy.typing import NDArray
from training_step import in_usual_order

from wsolbench import backbones, evaluation, loop, plugins, protocols
from wsolbench.batches import Batch
from wsolbench.dataset import Split
from wsolbench.folding import folded
from wsolbench.method import Method, Net, build
from wsolbench.metrics import threshold_grid
from wsolbench.truth import of_network

SIDE = 224
BATCH = 8
BOX = (50.0, 40.0, 170.0, 180.0)


def blob(height: int, width: int) -> torch.Tensor:
    """(h, w), 1 in the middle and falling off."""
    rows, columns = (torch.linspace(-1, 1, extent) ** 2 for extent in (height, width))
    return (-4 * (rows[:, None] + columns[None])).exp()


def smooth(maps: torch.Tensor) -> torch.Tensor:
    """Score maps with nine parts of a blob to one of what the random network says."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low) * 0.1 + blob(*maps.shape[1:]) * 0.9


def split_of(count: int) -> Split:
    """The truth for so many images."""
    boxes = tuple(np.array([BOX]) for _ in range(count))
    names = tuple(map(str, range(count)))
    labels = np.arange(count) % 1000
    read = lambda _: np.zeros((SIDE, SIDE, 3), np.uint8)  # noqa: E731
    return Split(names, labels, tuple(map(str, range(1000))), read, np.full((count, 2), SIDE), boxes)


def recipe(net: Net, images: torch.Tensor, labels: torch.Tensor, folder: Path) -> float:
    """MaxBoxAccV2 as the recipe computes it."""
    net.eval()
    right = 0
    for start in range(0, len(images), BATCH):
        right += int((net(images[start : start + BATCH]).logits.argmax(1) == labels[start : start + BATCH]).sum())
    for start in range(0, len(images), BATCH):
        output = net(images[start : start + BATCH])
        maps = smooth(net.head.score_maps(output, labels[start : start + BATCH]).detach()).numpy().astype(float)
        for index, score_map in enumerate(maps):
            large = cv2.resize(score_map, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            np.save(folder / f"{start + index}.npy", (large - large.min()) / (large.max() - large.min()))
    grid, truth = threshold_grid(), np.array([BOX]).astype(int)
    hits: NDArray[np.int64] = np.zeros((3, len(grid)), np.int64)
    for index in range(len(images)):
        hits += recipe_hits(np.load(folder / f"{index}.npy"), truth, grid, every=True)
    return float(100 * (hits / len(images)).max(1).mean())


def ours(net: Net, images: torch.Tensor, labels: torch.Tensor) -> float:
    """MaxBoxAccV2, beside everything else."""
    batches = [
        Batch(images[s : s + BATCH], labels[s : s + BATCH], tuple(map(str, range(s, min(s + BATCH, len(images))))))
        for s in range(0, len(images), BATCH)
    ]
    with folded(net, SIDE):
        outputs = ((logits, smooth(maps)) for logits, maps in loop.predict(net, batches, torch.device("cpu")))
        predictions = evaluation.collect(outputs)
    rule = protocols.protocol("wsolevaluation")
    truth = of_network(split_of(len(images)), rule.geometry, SIDE)
    return evaluation.evaluate(predictions, truth, rule, threads=torch.get_num_threads()).metrics["max_box_acc_v2"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    torch.manual_seed(0)
    net = build(Method(), plugins.make(backbones, asked.backbone, {}).build(), 1000)
    plain = torch.randn(asked.images, 3, SIDE, SIDE)
    labels = torch.arange(asked.images) % 1000
    usual, fast = in_usual_order(deepcopy(net)), plain.to(memory_format=torch.channels_last)
    net.to(memory_format=torch.channels_last)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.pairs + 1):  # the first pair is not counted: it allocates and compiles
            start = time.perf_counter()
            theirs = recipe(usual, plain, labels, Path(folder))
            middle = time.perf_counter()
            found = ours(net, fast, labels)
            ratios.append((middle - start) / (time.perf_counter() - middle))
    counted = ratios[1:]
    print(f"MaxBoxAccV2: recipe {theirs:.4f}, ours {found:.4f}; IoUs {IOUS[True]}")
    spread = f"{min(counted):.2f} to {max(counted):.2f}"
    print(f"evaluation pass, {asked.backbone}, fp32: {median(counted):.2f}x (median of {asked.pairs} pairs; {spread})")


if __name__ == "__main__":
    main()
