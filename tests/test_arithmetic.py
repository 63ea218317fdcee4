from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import QUICK
from wsolbench import arithmetic, machine, measure, recipe
from wsolbench.place import Place

CUDNN = torch.backends.cudnn


def of_trials() -> None:
    machine.settle(recipe.complete(QUICK), Place(Path("results"), device="cpu"))


def of_measurements() -> None:
    measure.settle("cpu")


@pytest.fixture
def _torch_as_it_comes() -> Iterator[None]:
    kept = CUDNN.allow_tf32, CUDNN.benchmark, CUDNN.deterministic, torch.get_float32_matmul_precision()
    CUDNN.allow_tf32, CUDNN.benchmark, CUDNN.deterministic = True, True, False
    torch.set_float32_matmul_precision("high")  # as a plug-in of the user may have asked for
    yield
    CUDNN.allow_tf32, CUDNN.benchmark, CUDNN.deterministic = kept[:3]
    torch.set_float32_matmul_precision(kept[3])


@pytest.mark.usefixtures("_torch_as_it_comes")
@pytest.mark.parametrize("settle", [of_trials, of_measurements])
def test_fp32_is_never_tf32(settle: Callable[[], None]) -> None:
    settle()

    assert (CUDNN.allow_tf32, torch.get_float32_matmul_precision()) == (False, "highest")
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.usefixtures("_torch_as_it_comes")
@pytest.mark.parametrize("settle", [of_trials, of_measurements])
def test_cudnn_takes_the_same_deterministic_algorithm_each_time(settle: Callable[[], None]) -> None:
    settle()

    assert (CUDNN.enabled, CUDNN.benchmark, CUDNN.deterministic) == (True, False, True)


def test_a_strided_depthwise_convolution_rounds_what_fp32_gives_where_the_cpu_computes_in_bf16() -> None:
    torch.manual_seed(0)
    layer, images = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4), torch.randn(2, 4, 8, 8).bfloat16()
    expected = layer(images.float())

    arithmetic.widen(layer)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(images)

    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    assert torch.equal(layer(images.float()), expected)


@pytest.mark.parametrize("facts", [{"groups": 4}, {"stride": 2}, {"groups": 2, "stride": 2}], ids=str)
def test_other_convolutions_stay_in_bf16(facts: dict[str, Any]) -> None:
    layer = nn.Conv2d(4, 4, 3, **facts)

    arithmetic.widen(layer)

    assert "forward" not in vars(layer)


def test_a_copy_of_a_widened_layer_computes_with_its_own_weights() -> None:
    layer, images = nn.Conv2d(4, 4, 3, stride=2, groups=4), torch.ones(1, 4, 8, 8)
    arithmetic.widen(layer)

    copied = deepcopy(layer)
    with torch.no_grad():
        copied.weight.zero_()

    assert copied(images).abs().amax() == copied.bias.abs().amax()
    assert layer(images).abs().amax() != copied.bias.abs().amax()
