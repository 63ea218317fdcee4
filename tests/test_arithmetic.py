from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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

    arithmetic.quicken(layer)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(images)

    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    assert torch.equal(layer(images.float()), expected)


def with_gradients(layer: nn.Conv2d, images: Tensor) -> list[Tensor]:
    """What a layer makes of (N, C, H, W) images in bf16, and the gradients of its weights and of the images."""
    given = images.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(given)
    weights = [found.float().square().sum(), *layer.parameters()]
    return [found.detach(), *torch.autograd.grad(weights[0], [*weights[1:], given])]


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_of_one_pixel_is_the_same_as_a_product_of_matrices(bias: bool) -> None:
    torch.manual_seed(0)
    layer, images = nn.Conv2d(6, 4, 1, bias=bias), torch.randn(2, 6, 5, 3).to(memory_format=torch.channels_last)
    expected, in_fp32 = with_gradients(layer, images), layer(images)

    arithmetic.quicken(layer)

    for found, theirs in zip(with_gradients(layer, images), expected, strict=True):
        assert (found.dtype, found.shape) == (theirs.dtype, theirs.shape)
        torch.testing.assert_close(found, theirs, rtol=0.01, atol=0.01 * float(theirs.abs().max()))
    assert with_gradients(layer, images)[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer(images), in_fp32)


def test_a_convolution_of_one_pixel_takes_one_image_without_a_batch() -> None:
    layer, image = nn.Conv2d(6, 4, 1), torch.randn(6, 5, 3)
    arithmetic.quicken(layer)

    with torch.autocast("cpu", torch.bfloat16):
        alone, together = layer(image), layer(image[None])

    assert torch.equal(alone, together[0])


OTHERS = [
    {"kernel_size": 3, "groups": 4},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "groups": 2, "stride": 2},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 1, "groups": 2},
    {"kernel_size": 1, "padding": 1},
    {"kernel_size": 1, "padding": "same"},
    {"kernel_size": (1, 3)},
]


@pytest.mark.parametrize("facts", OTHERS, ids=str)
def test_other_convolutions_compute_as_they_are(facts: dict[str, Any]) -> None:
    layer = nn.Conv2d(4, 4, **facts)

    arithmetic.quicken(layer)

    assert "forward" not in vars(layer)


@pytest.mark.parametrize("facts", [{"kernel_size": 3, "stride": 2, "groups": 4}, {"kernel_size": 1}], ids=str)
def test_a_copy_of_a_quickened_layer_computes_with_its_own_weights(facts: dict[str, Any]) -> None:
    layer, images = nn.Conv2d(4, 4, **facts), torch.ones(1, 4, 8, 8)
    arithmetic.quicken(layer)

    copied = deepcopy(layer)
    with torch.no_grad():
        copied.weight.zero_()

    for precision in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        with precision:
            assert copied(images).abs().amax() == copied.bias.to(copied(images).dtype).abs().amax()
            assert layer(images).abs().amax() != copied(images).abs().amax()
