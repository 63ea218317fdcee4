"""The one training loop, and the one forward pass that evaluation needs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from wsolbench.batches import Batch
from wsolbench.checkpoint import Position
from wsolbench.method import Method, Net
from wsolbench.trial import Trial

START = Position()


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

    def epoch(self, batches: Iterable[Batch], begun: Position = START) -> Position:
        """One pass over `batches`, all or the rest of an epoch; returns the position after it.

        Raises:
            DivergedError: the loss of a batch is not finite.
        """
        self.net.train()
        step, total, count = begun.step, begun.loss, begun.images
        pending: tuple[Tensor, Batch] | None = None
        for batch in batches:
            loss = self.step(batch)
            total += _finite(pending)  # of the step before: the device is not made to wait for this one
            pending = (loss, batch)
            step, count = step + 1, count + len(batch.names)
        return replace(begun, step=step, loss=total + _finite(pending), images=count)

    def step(self, batch: Batch) -> Tensor:
        """One update of the weights; returns the loss, a scalar on the device."""
        labels = batch.labels.to(self.device, non_blocking=True)
        clean = batch.images.to(self.device, non_blocking=True)
        images, targets = self.method.augment(clean, F.one_hot(labels, self.net.num_classes).to(clean.dtype))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.net.head.loss(self.net(images, labels), targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def _finite(pending: tuple[Tensor, Batch] | None) -> float:
    """The summed loss of a batch."""
    if pending is None:
        return 0.0
    loss, batch = pending
    if not torch.isfinite(loss):
        raise DivergedError(f"the loss is {float(loss)}", batch.names)
    return float(loss) * len(batch.names)


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
