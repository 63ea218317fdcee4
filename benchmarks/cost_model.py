"""What all of Table 3 costs, from steps measured here: CUB and ImageNet, every network, on 1, 8, 64 devices.

    python benchmarks/cost_model.py --steps 1 --batch 4 --peak 990 --share 35

Each network of the sweep `table3` trains a few batches here, in bf16. Hours are images times seconds an image,
measured, for this device. `--peak` and `--share` derive those of one that is not here: multiply-accumulates, counted
exactly, over a share of its largest rate that is assumed for all networks alike, not measured.
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


def told(name: str, hours: list[float]) -> None:
    """Print what trials of so many hours, each once a seed, take."""
    each = hours * SEEDS
    spans = ", ".join(f"{makespan(each, count):,.1f} h on {count}" for count in DEVICES)
    print(f"{name}: {len(each)} trials, {sum(each):,.1f} device hours; {spans}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--peak", type=float, help="of a device that is not here, in TFLOP/s")
    parser.add_argument("--share", type=float, default=35, help="of that peak, %%, that a step is assumed to reach")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    asked = parser.parse_args()
    device = settle(asked.device)
    here = peak(torch.bfloat16, device)
    print(f"bf16, batch {asked.batch}, {device}; matmul peak {2 * here / 1e12:.2f} TFLOP/s")
    steps: dict[tuple[str, str], tuple[float, float]] = {}  # of the first data set; the other has other classes only
    for dataset in IMAGES:
        costs = []
        for trial in table3(dataset):
            key = trial.backbone, trial.method
            if key not in steps:
                steps[key] = measured(trial, asked.batch, asked.steps, device)
                step, macs = steps[key]
                speed = f"{1 / step:.1f} images/s, {100 * macs / step / here:.0f} % of peak"
                print(f"  {' '.join(key)}: {macs / 1e9:.1f} GMAC an image, {speed}", flush=True)
            costs.append(cost(trial, *steps[key]))
        told(f"{dataset}, measured, {device}", [one.seconds / 3600 for one in costs])
        if asked.peak:
            rate = asked.peak * 1e12 * asked.share / 100 / 2
            name = f"{dataset}, derived, {asked.peak:g} TFLOP/s at {asked.share:g} %"
            told(name, [one.macs / rate / 3600 for one in costs])


if __name__ == "__main__":
    main()
