"""The one training loop, and the one forward pass that evaluation needs."""

import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from wsolbench.batches import Batch
from wsolbench.checkpoint import Position
from wsolbench.errors import InputError
from wsolbench.method import Method, Net, Output
from wsolbench.trial import Trial

START = Position()
Names: TypeAlias = tuple[str, ...]

UNREAD = 32
"""Steps whose losses stay on the device: to read one makes the processor wait for all that the device has to do."""


class DivergedError(RuntimeError):
    """The loss or the scores are no numbers any more; the text and `batch` name the images."""

    def __init__(self, what: str, batch: tuple[str, ...] = ()) -> None:
        super().__init__(f"{what} in the batch of images {', '.join(batch)}" if batch else what)
        self.batch = batch


@dataclass(frozen=True)
class Trainer:
    """What a step needs: network, method, optimizer, and where and how precisely it computes."""

    net: Net
    method: Method
    optimizer: SGD
    device: torch.device
    precision: str
    compile: bool = False

    @cached_property
    def forward(self) -> Callable[[Tensor, Tensor], Output]:
        """The network, as kernels of its own where that is asked for: on a GPU replayed as CUDA graphs.

        Raises:
            InputError: there is nothing here to compile with.
        """
        if not self.compile:
            return self.net
        _refuse_without_compiler(self.device)
        from torch import _inductor as inductor  # noqa: PLC0415  takes seconds

        torch.compiler.reset()  # of networks before this one; after eight of them torch would compile no more
        torch._dynamo.config.skip_nnmodule_hook_guards = False  # noqa: SLF001  hooks are what tells networks apart
        inductor.config.fallback_random = True  # draw as without compilation
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        return torch.compile(self.net, mode=mode, dynamic=False)  # an epoch has batches of two sizes

    def epoch(self, batches: Iterable[Batch], begun: Position = START) -> Position:
        """One pass over `batches`, all or the rest of an epoch; returns the position after it.

        Raises:
            DivergedError: the loss of a batch is not finite.
        """
        self.net.train()
        reached, unread = begun, list[tuple[Tensor, Names]]()
        for batch in batches:
            unread.append((self.step(batch), batch.names))
            if len(unread) == UNREAD:
                reached = _read(unread, reached)
        return _read(unread, reached)

    def step(self, batch: Batch) -> Tensor:
        """One update of the weights; returns the loss, a scalar on the device."""
        labels = batch.labels.to(self.device, non_blocking=True)
        clean = batch.images.to(self.device, non_blocking=True)
        images, targets = self.method.augment(clean, F.one_hot(labels, self.net.num_classes).to(clean.dtype))
        with torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext():
            loss = self.net.head.loss(self.forward(images, labels), targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def _refuse_without_compiler(device: torch.device) -> None:
    """Say what is missing, before torch does in the words of its inner parts."""
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cuda" and find_spec("triton") is None:
        raise InputError("compile=true needs triton on a GPU, and it is not installed: pip install triton")
    if device.type != "cuda" and shutil.which(compiler) is None:
        raise InputError(
            f"compile=true needs a C++ compiler, and there is no {compiler}: install one, or set CXX to it"
        )


def _read(unread: list[tuple[Tensor, Names]], reached: Position) -> Position:
    """The position after these steps, whose losses are taken off the device at once; the list is empty afterwards."""
    losses = torch.stack([loss for loss, _ in unread]).tolist() if unread else []
    for loss, (_, names) in zip(losses, unread, strict=True):
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss}", names)
        step, images = reached.step + 1, reached.images + len(names)
        reached = replace(reached, step=step, loss=reached.loss + loss * len(names), images=images)
    unread.clear()
    return reached


def optimizer(net: Net, trial: Trial) -> SGD:
    """Nesterov SGD with a group for the pretrained and one for the new layers."""
    groups = [
        {"params": list(net.pretrained_parameters()), "lr": trial.lr},
        {"params": list(net.new_parameters()), "lr": trial.head_lr},
    ]
    nesterov = trial.momentum > 0
    return SGD(groups, momentum=trial.momentum, nesterov=nesterov, weight_decay=trial.weight_decay, fused=True)


def set_rates(sgd: SGD, trial: Trial, epoch: int) -> None:
    """The learning rates of an epoch, counted from 0."""
    factor = trial.lr_factor ** sum(epoch >= step for step in trial.lr_steps)
    for group, rate in zip(sgd.param_groups, (trial.lr, trial.head_lr), strict=True):
        group["lr"] = rate * factor


def predict(
    net: Net, batches: Iterable[Batch], device: torch.device, extractor: type[Any] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields logits (N, K) and the labels' score maps (N, h, w), both on the CPU: one forward pass gives both.

    Args:
        net: the network; it has no gradients afterwards.
        batches: images and labels.
        device: where the network is.
        extractor: a class of torchcam that reads the score maps off gradients; None for the head's own.

    Raises:
        DivergedError: the logits or score maps of a batch are not finite.
    """
    net.eval()
    read = _own if extractor is None else partial(_of_gradients, extractor)
    for batch in batches:
        logits, maps = (found.cpu() for found in read(net, batch.images.to(device), batch.labels.to(device)))
        if not (torch.isfinite(logits).all() and torch.isfinite(maps).all()):
            raise DivergedError("the scores are not finite", batch.names)
        yield logits, maps


@torch.inference_mode()
def _own(net: Net, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the score maps of the method's head."""
    output = net(images, labels)
    return output.logits, net.head.score_maps(output, labels).float()


def _of_gradients(extractor: type[Any], net: Net, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the score maps that `extractor` reads off the last feature map and the gradient of the label's score.

    The extractor's hooks are on a layer of its own between backbone and head. Of the network only the head is
    differentiated, with respect to its input and no weight. Maps stay as they are, not normalised.
    """
    with torch.no_grad():
        maps = net.backbone(images)
    last, gradients, spot = maps["last"].requires_grad_(), list[Tensor](), nn.Identity()
    last.register_hook(gradients.append)
    with torch.enable_grad(), extractor(spot, spot) as read:
        logits = net.head({**maps, "last": spot(last).clone()}, labels).logits  # a head may change its input in place
        (score_maps,) = read(labels.tolist(), logits, normalized=False)
    usable = (last.isfinite() & gradients[0].isfinite()).flatten(1).all(1)  # the extractors count nan as 0
    return logits.detach(), score_maps.where(usable[:, None, None], torch.nan)
