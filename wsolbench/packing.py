"""How many local trials share a GPU: as many as its free memory holds."""

from collections.abc import Sequence
from functools import cache

import torch
from torch.optim import SGD

from wsolbench import backbones, measure, methods, plugins
from wsolbench.loop import Trainer
from wsolbench.method import build
from wsolbench.trial import Trial, from_spec

CONTEXT = 600 * 2**20
"""Bytes that a process takes on a GPU before its first tensor: CUDA's context and the libraries' kernels."""

SPARE = 1.25
"""Times what the tensors of a step take: scratch memory of kernels, and gaps between blocks."""

CLASSES = 1000
"""That a network is counted with; those of fewer take less."""


def free_bytes() -> list[int]:
    """Of each GPU that this process sees."""
    return [torch.cuda.mem_get_info(card)[0] for card in range(torch.cuda.device_count())]


def at_once(trials: Sequence[Trial], free: Sequence[int], by_cores: int) -> int:
    """How many trials run at a time on GPUs of so much free memory: one on each, more where the largest fits again.

    Args:
        trials: of which any may be beside any.
        free: bytes of each GPU.
        by_cores: trials that have their threads at a time; no GPU gets a second one beyond that.
    """
    largest = max((need(trial) for trial in trials), default=CONTEXT)
    return max(len(free), min(len(free) * max(1, min(free) // largest), by_cores))


def need(trial: Trial) -> int:
    """Bytes of a GPU that a trial takes, estimated: those of its tensors in training, which no score depends on."""
    spec = trial.spec() | {"seed": 0, "dataset_options": {}}  # which change no size
    return CONTEXT + int(SPARE * _of_tensors(from_spec(spec)))


@cache
def _of_tensors(trial: Trial) -> int:
    """The most bytes alive in two steps in fp32, counted on the device `meta`, which computes nothing."""
    meta = torch.device("meta")

    def made() -> Trainer:
        method = plugins.make(methods, trial.method, trial.method_options)
        with meta:
            net = build(method, plugins.make(backbones, trial.backbone, trial.backbone_options).build(), CLASSES)
        net.to(memory_format=torch.channels_last).train()
        sgd = SGD(net.parameters(), lr=trial.lr, momentum=trial.momentum, foreach=False)
        return Trainer(net, method, sgd, meta, "fp32")

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a method may draw what it makes
        return measure.peak_bytes(made, Trainer.step, measure.noise(trial.batch_size, trial.image_size, CLASSES), meta)
