"""How many trials share a GPU; there is none here, so that free memory is given, and sizes are held against a CPU's."""

from typing import Any

import pytest
import torch

from tests.conftest import QUICK
from wsolbench import backbones, launch, loop, measure, methods, packing, plugins, recipe
from wsolbench.loop import Trainer
from wsolbench.method import build
from wsolbench.place import Place
from wsolbench.trial import Trial

GIB = 2**30


def made(**changes: Any) -> Trial:
    return recipe.complete({**QUICK, **changes})


def alive_on_the_cpu(trial: Trial) -> int:
    """The most bytes of tensors in two real steps."""
    cpu = torch.device("cpu")

    def trainer() -> Trainer:
        method = plugins.make(methods, trial.method, trial.method_options)
        net = build(method, plugins.make(backbones, trial.backbone, trial.backbone_options).build(), packing.CLASSES)
        net.to(memory_format=torch.channels_last).train()
        return Trainer(net, method, loop.optimizer(net, trial), cpu, "fp32")

    batch = measure.noise(trial.batch_size, trial.image_size, packing.CLASSES)
    return measure.peak_bytes(trainer, Trainer.step, batch, cpu)


@pytest.mark.parametrize("method", plugins.names(methods))
def test_bytes_without_values_are_those_of_real_steps(method: str) -> None:
    trial = made(method=method, batch_size=16, image_size=48)

    tensors = (packing.need(trial) - packing.CONTEXT) / packing.SPARE

    assert tensors == pytest.approx(alive_on_the_cpu(trial), rel=0.1)


def test_more_images_take_more() -> None:
    assert packing.need(made(batch_size=32)) > packing.need(made(batch_size=8))


def test_seeds_take_the_same_and_are_counted_once() -> None:
    packing._of_tensors.cache_clear()

    assert len({packing.need(made(seed=seed)) for seed in range(5)}) == 1
    assert packing._of_tensors.cache_info().currsize == 1


@pytest.fixture
def of_a_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial takes 1 GiB for each epoch it has."""
    monkeypatch.setattr(packing, "need", lambda trial: trial.epochs * GIB)


@pytest.mark.usefixtures("of_a_gib")
@pytest.mark.parametrize(
    ("epochs", "free", "by_cores", "expected"),
    [
        ([1], [4], 16, 4),
        ([1, 2], [4], 16, 2),  # the largest decides
        ([1], [4, 4], 16, 8),
        ([1], [4, 2], 16, 4),  # slots are given out in turn: as many on each
        ([3], [2, 2], 16, 2),  # one on each all the same: the estimate may be wrong
        ([1], [8], 3, 3),  # each has its threads
        ([1], [4, 4], 1, 2),  # a card without a trial would be idle
    ],
)
def test_a_gpu_holds_as_many_as_its_memory(epochs: list[int], free: list[int], by_cores: int, expected: int) -> None:
    trials = [made(epochs=count) for count in epochs]

    assert packing.at_once(trials, [each * GIB for each in free], by_cores) == expected


@pytest.mark.usefixtures("of_a_gib")
def test_a_launcher_asks_for_the_free_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(packing, "free_bytes", lambda: [3 * GIB])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    trial = made(epochs=1)

    assert launch.at_once([trial], Place(tmp_path)) == 3
    assert launch.at_once([trial], Place(tmp_path, device="cpu")) == 16 // trial.threads
