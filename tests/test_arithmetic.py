from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import QUICK
from wsolbench import machine, measure, recipe
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
