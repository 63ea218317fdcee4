"""Compare a training step with a plain loop: fp32, contiguous, as the released codes of the field write it.

    python benchmarks/training_step.py --backbone vgg16 --pairs 5

The plain loop clears the gradients, adds up cross entropy, steps an SGD that is not fused, and reads the loss off after
every step. Ours is the harness's own Trainer with channels last, in fp32 and in bf16. Beside each: images a second and
the share of the largest rate at which this machine multiplied matrices in the same run.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F

from wsolbench import backbones, loop, methods, overhead, plugins, recipe
from wsolbench.loop import Trainer
from wsolbench.measure import noise, settle
from wsolbench.method import build

CLASSES = 200


def plain(backbone: str, method: str, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """A step of the plain loop."""
    made = plugins.make(methods, method, {})
    net = build(made, plugins.make(backbones, backbone, {}).build(), CLASSES).to(images.device).train()
    groups = [{"params": list(found), "lr": 1e-3} for found in (net.pretrained_parameters(), net.new_parameters())]
    sgd = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4, nesterov=True, fused=False, foreach=False)

    def step() -> None:
        loss = F.cross_entropy(net(images, labels).logits, labels)
        sgd.zero_grad(set_to_none=False)
        loss.backward()
        sgd.step()
        loss.item()

    return step


def ours(backbone: str, method: str, precision: str, batch: int, device: torch.device) -> Callable[[], None]:
    """A step of the harness."""
    trial = recipe.complete({"dataset": "cub", "backbone": backbone, "method": method, "precision": precision})
    made = plugins.make(methods, method, trial.method_options)
    net = build(made, plugins.make(backbones, backbone, trial.backbone_options).build(), CLASSES)
    net.to(device).to(memory_format=torch.channels_last).train()
    trainer = Trainer(net, made, loop.optimizer(net, trial), device, precision)
    made_up = noise(batch, trial.image_size, CLASSES)

    def step() -> None:
        trainer.step(made_up)

    return step


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """How long a step takes."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Multiply-accumulates a second of a large matrix product, the most of twenty."""
    side = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return side**3 / min(seconds(lambda: torch.mm(a, b), device) for _ in range(20))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--method", default="cam")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    asked = parser.parse_args()
    device = settle(asked.device)
    batch = noise(asked.batch, 224, CLASSES)
    sides = {
        "plain": plain(asked.backbone, asked.method, batch.images.contiguous().to(device), batch.labels.to(device)),
        "fp32": ours(asked.backbone, asked.method, "fp32", asked.batch, device),
        "bf16": ours(asked.backbone, asked.method, "bf16", asked.batch, device),
    }
    turns = [{name: seconds(step, device) for name, step in sides.items()} for _ in range(asked.pairs + 1)][1:]
    line = overhead.Line(labels=(asked.backbone, asked.method), backbone=asked.backbone, method=asked.method)
    macs = 3 * overhead.overhead(line, CLASSES, 224).macs * asked.batch  # forward, and twice as much backward
    print(f"{asked.backbone}, {asked.method}, batch {asked.batch}, 224 px, {device}, {torch.get_num_threads()} threads")
    for name, dtype in (("plain", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)):
        ratios = [turn["plain"] / turn[name] for turn in turns]
        taken = median(turn[name] for turn in turns)
        spread = f"{median(ratios):.2f}x (median of {asked.pairs} pairs; {min(ratios):.2f} to {max(ratios):.2f})"
        share = 100 * macs / taken / peak(dtype, device)
        print(f"  {name:5} {spread}, {asked.batch / taken:.1f} images/s, {share:.0f} % of the matmul peak")


if __name__ == "__main__":
    main()
