"""What ADL costs: one training step with it over one of CAM, VGG16, fp32, side by side.

    python benchmarks/adl_step.py --pairs 15

It is a row of `wsolbench overhead --measure`, on the CPU. Printed is the median of the ratios.
"""

import argparse

import torch

from wsolbench import overhead, recipe
from wsolbench.measure import Plan


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4)
    asked = parser.parse_args()
    trial = recipe.complete({"dataset": "cub", "backbone": "vgg16", "method": "adl"})
    line = overhead.Line(
        labels=("vgg16", "adl"), backbone="vgg16", method="adl", method_options=dict(trial.method_options)
    )
    plan = Plan(pairs=asked.pairs, batch_size=asked.batch, device="cpu")
    found = overhead.measured(line, 200, trial.image_size, plan, torch.device("cpu"))
    spread = f"{found.train_time_ratio_min:.3f} to {found.train_time_ratio_max:.3f}"
    shown = f"{found.train_time_ratio:.3f} (median of {found.pairs} pairs; {spread})"
    print(f"adl over cam, training step, vgg16, fp32: {shown}; memory {found.train_memory_ratio:.3f}")


if __name__ == "__main__":
    main()
