"""What all of Table 3 costs, from steps measured here: CUB and ImageNet, every network, on 1, 8, 64 devices.

    python benchmarks/cost_model.py --steps 2 --peak 990

Each network of the sweep `table3` trains a few batches here, in bf16, and is evaluated on one. Hours are images times
seconds an image. `--peak` adds an estimate for a device that is not here: the same share of its largest rate of
multiply-accumulates, in units of 2 TFLOP, as of this one's, which is measured in the same run.
"""

import argparse
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from statistics import median

import torch
from training_step import ours, peak, seconds

from wsolbench import overhead, shipped, sweep
from wsolbench.measure import settle
from wsolbench.trial import Trial

IMAGES = {"cub": (5994, 5794, 200), "imagenet": (1281167, 50000, 1000)}
"""Images to train on and to test on, and classes."""

SEEDS = 3
DEVICES = (1, 8, 64)


@dataclass(frozen=True)
class Cost:
    """Of a trial: seconds here, and multiply-accumulates."""

    seconds: float
    macs: float


def cost(trial: Trial, step: float, macs: float) -> Cost:
    """Of a whole trial, of whose training an image takes `step` seconds and `macs`; testing costs a third of that."""
    train, test, _ = IMAGES[trial.dataset]
    images = train * (1 - trial.held_out) * trial.epochs + (test + train * trial.held_out) / 3
    return Cost(images * step, images * macs)


def makespan(costs: list[float], devices: int) -> float:
    """Until the last trial ends, the longest first, each on the device that is free first."""
    free = [0.0] * devices
    heapify(free)
    for each in sorted(costs, reverse=True):
        heapreplace(free, free[0] + each)
    return max(free)


def table3(dataset: str) -> list[Trial]:
    """The trials of the sweep on a data set, one seed."""
    return list(sweep.read(shipped.find("sweeps", "table3"), {"dataset": dataset}).trials)


def measured(trial: Trial, batch: int, steps: int, device: torch.device) -> tuple[float, float]:
    """Seconds and multiply-accumulates of a training step, for one image."""
    step = ours(replace(trial, precision="bf16"), batch, device)
    step()
    taken = median(seconds(step, device) for _ in range(steps)) / batch
    return taken, 3.0 * overhead.overhead(overhead.line_of(trial), IMAGES[trial.dataset][2], trial.image_size).macs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--peak", type=float, help="of a device that is not here, in TFLOP/s")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    asked = parser.parse_args()
    device = settle(asked.device)
    here = peak(torch.bfloat16, device)
    print(f"bf16, batch {asked.batch}, {device}; matmul peak {2 * here / 1e12:.2f} TFLOP/s")
    for dataset in IMAGES:
        costs = []
        for trial in table3(dataset):
            step, macs = measured(trial, asked.batch, asked.steps, device)
            costs.append(cost(trial, step, macs))
            share = 100 * macs / step / here
            print(
                f"  {dataset} {trial.backbone} {trial.method}: {costs[-1].seconds / 3600:.1f} h, {share:.0f} % of peak"
            )
        for name, factor in (("here", 1.0), *([("there", here * 2 / 1e12 / asked.peak)] if asked.peak else [])):
            each = [one.seconds * factor / 3600 for one in costs] * SEEDS
            spans = ", ".join(f"{makespan(each, count):,.1f} h on {count}" for count in DEVICES)
            print(f"{dataset}, {len(each)} trials, {name}: {sum(each):,.0f} device hours; {spans}")


if __name__ == "__main__":
    main()
