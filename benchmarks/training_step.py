"""Compare a training step with a plain loop: fp32, contiguous, as the released codes of the field write it.

    python benchmarks/training_step.py dataset=cub backbone=vgg16 method=cam --pairs 5

The plain loop clears the gradients, adds up cross entropy, steps an SGD that is not fused, and reads the loss off after
every step, in a process of its own, which gets its memory and computes as any process does: on a GPU, convolutions in
TF32. Ours is the harness's own Trainer with channels last, in fp32, which is never TF32, and in bf16. Beside each:
images a second and the share of the largest rate at which this machine multiplied matrices, likewise without TF32, in
any of the turns.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from statistics import median

import torch
import torch.nn.functional as F

from wsolbench import backbones, loop, methods, overhead, plugins, recipe, words
from wsolbench.backbone import PostponedReLU
from wsolbench.loop import Trainer
from wsolbench.measure import noise, settle
from wsolbench.method import Net, build
from wsolbench.trial import Trial

CLASSES = 200


def network(trial: Trial) -> Net:
    """That of a trial, of random weights."""
    method = plugins.make(methods, trial.method, trial.method_options)
    return build(method, plugins.make(backbones, trial.backbone, trial.backbone_options).build(), CLASSES)


def in_usual_order(net: Net) -> Net:
    """The network with every ReLU before its pooling, as the released codes have it: one that is hooked stays there."""
    for layer in net.modules():
        if isinstance(layer, PostponedReLU):
            layer.register_forward_hook(lambda *_: None)
    return net


def plain(trial: Trial, batch: int, device: torch.device) -> Callable[[], None]:
    """A step of the plain loop."""
    made_up = noise(batch, trial.image_size, CLASSES)
    images, labels = made_up.images.contiguous().to(device), made_up.labels.to(device)
    net = in_usual_order(network(trial)).to(device).train()
    groups = [{"params": list(found), "lr": 1e-3} for found in (net.pretrained_parameters(), net.new_parameters())]
    sgd = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4, nesterov=True, fused=False, foreach=False)

    def step() -> None:
        loss = F.cross_entropy(net(images, labels).logits, labels)
        sgd.zero_grad(set_to_none=False)
        loss.backward()
        sgd.step()
        loss.item()

    return step


def serve(end: Connection, trial: Trial, batch: int, device: torch.device) -> None:
    """Do a step of the plain loop whenever asked, and say how long it took."""
    step = plain(trial, batch, device)
    while end.recv():
        end.send(taken(step, device))


@contextmanager
def apart(trial: Trial, batch: int, device: torch.device) -> Iterator[Callable[[], tuple[float, float]]]:
    """Times a step of the plain loop in a process of its own."""
    context = multiprocessing.get_context("spawn")
    own, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, trial, batch, device), daemon=True)
    process.start()
    theirs.close()  # so that its end is heard

    def ask() -> tuple[float, float]:
        own.send(True)
        clock, processor = own.recv()
        return clock, processor

    try:
        yield ask
    finally:
        with suppress(OSError):
            own.send(False)
        process.join()


def ours(trial: Trial, batch: int, device: torch.device) -> Callable[[], None]:
    """A step of the harness."""
    net = network(trial).to(device).to(memory_format=torch.channels_last).train()
    method = plugins.make(methods, trial.method, trial.method_options)
    trainer = Trainer(net, method, loop.optimizer(net, trial), device, trial.precision)
    made_up = noise(batch, trial.image_size, CLASSES)

    def step() -> None:
        trainer.step(made_up)

    return step


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """How long a step takes."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def taken(step: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """How long a step takes, of the clock and of the processor, after one in which the other sides make room for it."""
    step()
    before = time.process_time()
    clock = seconds(step, device)
    return clock, time.process_time() - before


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Multiply-accumulates a second of a large matrix product, the most of five."""
    side = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return side**3 / min(seconds(lambda: torch.mm(a, b), device) for _ in range(5))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="of the trial")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    asked = parser.parse_args()
    device = settle(asked.device)
    trials = {name: recipe.complete({**words.values(asked.settings), "precision": name}) for name in ("fp32", "bf16")}
    trial = trials["fp32"]
    own = {name: ours(each, asked.batch, device) for name, each in trials.items()}
    turns: list[dict[str, tuple[float, float]]] = []
    peaks = dict.fromkeys((torch.float32, torch.bfloat16), 0.0)
    with apart(trial, asked.batch, device) as theirs:
        for _ in range(asked.pairs + 1):
            turns.append({"plain": theirs(), **{name: taken(step, device) for name, step in own.items()}})
            peaks = {dtype: max(most, peak(dtype, device)) for dtype, most in peaks.items()}
    del turns[0]  # which allocates
    cost = overhead.overhead(overhead.line_of(trial), CLASSES, trial.image_size)
    macs = 3 * cost.macs * asked.batch  # forward, and twice as much backward
    where = f"{trial.image_size} px, {device}, {torch.get_num_threads()} threads"
    print(f"{trial.backbone}, {trial.method}, batch {asked.batch}, {where}")
    for name, dtype in (("plain", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)):
        ratios = [turn["plain"][0] / turn[name][0] for turn in turns]
        clock = median(turn[name][0] for turn in turns)
        spread = f"{median(ratios):.2f}x (median of {asked.pairs} pairs; {min(ratios):.2f} to {max(ratios):.2f})"
        of_processor = median(turn["plain"][1] / turn[name][1] for turn in turns)
        share = 100 * macs / clock / peaks[dtype]
        print(f"  {name:5} {spread}, of the processor {of_processor:.2f}x")
        print(f"        {asked.batch / clock:.1f} images/s, {share:.0f} % of the matmul peak")


if __name__ == "__main__":
    main()
