from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import QUICK
from wsolbench import backbones, loop, measure, methods, plugins, recipe
from wsolbench.errors import InputError
from wsolbench.loop import Trainer
from wsolbench.measure import Alive
from wsolbench.method import build

CPU = torch.device("cpu")
CUDNN = torch.backends.cudnn
BATCH = measure.noise(2, 32, 3)


def trainer(method: str = "cam") -> Trainer:
    trial = recipe.complete({**QUICK, "method": method})
    made = plugins.make(methods, method, trial.method_options)
    net = build(made, plugins.make(backbones, "tiny", {}).build(), 3)
    return Trainer(net, made, loop.optimizer(net, trial), CPU, "fp32")


# Memory


def test_memory_is_that_of_the_tensors_alive_and_the_peak_is_the_most() -> None:
    with Alive() as alive:
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = torch.zeros(10, dtype=torch.float64)

        assert (alive.bytes, alive.peak) == (4000 + 80, 8000)
        del second, third
        assert (alive.bytes, alive.peak) == (0, 8000)


def test_a_view_and_a_change_in_place_take_no_memory() -> None:
    with Alive() as alive:
        values = torch.zeros(1000)
        values.view(10, 100).add_(1).relu_()

        assert (alive.bytes, alive.peak) == (4000, 4000)


def test_what_the_backward_pass_needs_is_alive_until_then() -> None:
    with Alive() as alive:
        values = torch.zeros(1000, requires_grad=True)
        total = values.exp().sum()  # the result of exp is what its derivative needs
        assert alive.bytes == 4000 + 4000 + 4
        total.backward()

        assert alive.bytes == 4000 + 4000 + 4  # the gradient in its place
        assert alive.peak >= alive.bytes


class Buffer:
    """A network of 4000 bytes."""

    def __init__(self) -> None:
        self.weights = torch.zeros(1000)


def test_the_peak_is_of_making_the_network_and_of_its_work() -> None:
    def work(side: Any, _: object) -> None:
        side.weights + torch.zeros(1000)[0]

    assert measure.peak_bytes(Buffer, work, BATCH, CPU) == 4000 + 4000 + 4000  # type: ignore[arg-type]


def test_a_step_has_weights_gradients_and_momentum_in_memory_and_inference_weights_only() -> None:
    weights = 4 * sum(parameter.numel() for parameter in trainer().net.parameters())

    train, inference = (measure.peak_bytes(trainer, work, BATCH, CPU) for work in measure.WORKS.values())

    assert train > 3 * weights
    assert weights < inference < train


def test_memory_is_the_same_every_time() -> None:
    peaks = {measure.peak_bytes(trainer, measure.train, BATCH, CPU) for _ in range(2)}

    assert len(peaks) == 1


# Time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass, by the seconds it is told."""
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def test_ratios_are_of_pairs_and_who_begins_alternates(clock: Callable[[float], None]) -> None:
    turns: list[str] = []
    taken: Iterator[float] = iter([9, 9, 2, 6, 4, 2])  # the first turn of each is not counted

    def work(side: Any, _: object) -> None:
        turns.append(side)
        clock(next(taken))

    ratios = measure.time_ratios(("own", "other"), work, BATCH, 2)  # type: ignore[arg-type]

    assert turns == ["own", "other", "other", "own", "own", "other"]
    assert ratios == [6 / 2, 4 / 2]


def test_a_time_is_the_median_of_the_pairs_with_the_lowest_and_the_highest(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = iter([0, 3, 1, 2])
    sides = {"own": lambda: next(own), "other": lambda: 1}
    monkeypatch.setattr(
        measure, "WORKS", {"train": lambda side, _: clock(sides[side]()), "inference": lambda *_: clock(1)}
    )
    monkeypatch.setattr(measure, "peak_bytes", lambda make, *_: {"own": 30, "other": 20}[make()])

    found = measure.measure(lambda: "own", lambda: "other", BATCH, 3, CPU)  # type: ignore[arg-type, return-value]

    assert (found.train_time_ratio_min, found.train_time_ratio, found.train_time_ratio_max) == (1, 2, 3)
    assert (found.inference_time_ratio, found.train_memory_ratio, found.pairs) == (1, 1.5, 3)


# What is measured


def weights(net: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_training_is_the_step_of_the_loop_and_inference_leaves_the_network_as_it_is() -> None:
    torch.manual_seed(0)
    measured = trainer()
    torch.manual_seed(0)
    stepped = trainer()
    stepped.net.train()

    measure.train(measured, BATCH)
    stepped.step(BATCH)
    after = weights(measured.net)
    measure.infer(measured, BATCH)

    assert torch.equal(after, weights(stepped.net))
    assert torch.equal(weights(measured.net), after)
    assert not measured.net.training


def test_a_network_beside_itself_needs_the_same_memory() -> None:
    found = measure.measure(trainer, trainer, BATCH, 1, CPU)

    assert (found.train_memory_ratio, found.inference_memory_ratio) == (1, 1)
    assert found.train_time_ratio == found.train_time_ratio_min == found.train_time_ratio_max > 0


def test_measuring_draws_nothing_from_the_generator_of_its_caller() -> None:
    before = torch.get_rng_state()

    measure.measure(lambda: trainer("adl"), trainer, BATCH, 1, CPU)

    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_measured_is_what_trials_do_with_cudnn_on() -> None:
    measure.settle("cpu")
    seen = []

    def watched() -> Trainer:
        seen.append((CUDNN.enabled, CUDNN.allow_tf32, CUDNN.benchmark, CUDNN.deterministic))
        return trainer()

    measure.measure(watched, watched, BATCH, 1, CPU)

    assert set(seen) == {(True, False, False, True)}


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(InputError, match="finds no GPU here; say cpu"):
        measure.settle("cuda")
    assert measure.settle("auto") == CPU
