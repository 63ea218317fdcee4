"""The network of a trial: as it was built, with pretrained weights, or as it was trained."""

from collections.abc import Sequence
from typing import Any

import torch

from wsolbench import backbones, checkpoint, extract, loop, methods, plugins, weights
from wsolbench.batches import stream
from wsolbench.errors import InputError
from wsolbench.method import Method, Net, build
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial


def network(trial: Trial, place: Place, classes: int) -> tuple[Net, weights.Provenance | None]:
    """The trial's network of so many classes before training, and what pretrained weights went into it."""
    net = blank(trial, classes)
    if trial.weights == "none":
        return net, None
    if trial.weights != weights.IMAGENET and place.weights is None:
        raise InputError(f"the trial starts from the weights file of sha256 {trial.weights}; name it with weights=FILE")
    loaded = weights.load(net, place.weights or trial.weights)
    if trial.weights not in {weights.IMAGENET, loaded.sha256}:
        raise InputError(f"{loaded.source} has sha256 {loaded.sha256}, but the trial asks for {trial.weights}")
    return net, loaded


def trained(trial: Trial, place: Place, classes: Sequence[str], device: torch.device) -> Net:
    """The network of a finished trial, of its last checkpoint; without epochs there is none, it is as it was built.

    Args:
        trial: what was trained.
        place: where its results are, and its pretrained weights if it has no epochs.
        classes: of `class_names`, or of the data set it was trained on.
        device: where the network is wanted.

    Raises:
        InputError: no checkpoint after the last epoch is left, or it has other classes; the weights are not named.
    """
    store = Store(place.results)
    net = blank(trial, len(classes)) if trial.epochs else network(trial, place, len(classes))[0]
    mean, deviation = (store.record(trial.id) or {})["normalisation"]
    net.backbone.normalisation = tuple(mean), tuple(deviation)
    net.to(device).to(memory_format=torch.channels_last)
    try:
        epochs = checkpoint.resume(store.path(trial.id, "checkpoint"), net, loop.optimizer(net, trial)).epoch
    except RuntimeError:
        raise InputError(f"the data set has other classes than trial {trial.id} was trained on") from None
    if epochs != trial.epochs:
        raise InputError(f"no checkpoint of trial {trial.id} after its last epoch is left; run it with --fresh")
    return net


def parameter_groups(trial: Trial, net: Net) -> list[dict[str, Any]]:
    """Which parameters train at which rate."""
    rates = (("pretrained", net.pretrained_parameters(), trial.lr), ("new", net.new_parameters(), trial.head_lr))
    return [{"group": name, "parameters": sum(p.numel() for p in found), "lr": rate} for name, found, rate in rates]


def blank(trial: Trial, classes: int) -> Net:
    """The trial's network without pretrained weights."""
    extract.extractor(trial.extract)  # a library that is missing is told before training
    torch.manual_seed(stream(trial.seed))
    backbone = plugins.make(backbones, trial.backbone, trial.backbone_options).build()
    return build(method_of(trial), backbone, classes)


def method_of(trial: Trial) -> Method:
    """The trial's method, with its options."""
    return plugins.make(methods, trial.method, trial.method_options)
