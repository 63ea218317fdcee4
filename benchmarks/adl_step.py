"""What ADL costs: one training step with it over one of CAM, VGG16, fp32, side by side.

    python benchmarks/adl_step.py --pairs 15

Both networks take the same batch in turn; the order within a pair alternates. Printed is the median of the ratios.
"""

import argparse
import time
from statistics import median

import torch

from wsolbench import backbones, loop, methods, plugins
from wsolbench.batches import Batch
from wsolbench.method import build
from wsolbench.recipe import complete
from wsolbench.trial import Trial


def trainer(trial: Trial) -> loop.Trainer:
    """A network of the trial, ready for a step on the CPU."""
    method = plugins.make(methods, trial.method, trial.method_options)
    net = build(method, plugins.make(backbones, trial.backbone, trial.backbone_options).build(), 200)
    net.to(memory_format=torch.channels_last).train()
    return loop.Trainer(net, method, loop.optimizer(net, trial), torch.device("cpu"), trial.precision)


def seconds(side: loop.Trainer, batch: Batch) -> float:
    """Of one step."""
    start = time.perf_counter()
    side.step(batch)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4)
    asked = parser.parse_args()
    base = {"dataset": "cub", "backbone": "vgg16", "weights": "none"}
    with_adl, plain = (trainer(complete({**base, "method": name})) for name in ("adl", "cam"))
    images = torch.randn(asked.batch, 3, 224, 224).to(memory_format=torch.channels_last)
    batch = Batch(images, torch.randint(200, (asked.batch,)), tuple(map(str, range(asked.batch))))
    for side in (with_adl, plain):
        side.step(batch)  # not counted: the first step allocates
    ratios = []
    for pair in range(asked.pairs):
        order = (with_adl, plain) if pair % 2 else (plain, with_adl)
        taken = {id(side): seconds(side, batch) for side in order}
        ratios.append(taken[id(with_adl)] / taken[id(plain)])
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"adl over cam, training step, vgg16, fp32: {median(ratios):.3f} (median of {asked.pairs} pairs; {spread})")


if __name__ == "__main__":
    main()
