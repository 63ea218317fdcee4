"""How torch computes, wherever numbers are made that are told: in fp32 where it says fp32, the same way each time."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Way: TypeAlias = Callable[[nn.Conv2d, Tensor], Tensor]
"""How a convolution computes."""


def settle() -> None:
    """Products and convolutions of fp32 in IEEE fp32, never TF32; cuDNN by algorithms with the same bits each time.

    On the CPU of one machine a trial of so many threads then has the same bits each time. On a GPU some of torch's own
    kernels add up by atomics, such as the gradients of bilinear upsampling and max-pooling: last digits may differ.
    """
    torch.set_float32_matmul_precision("highest")
    cudnn = torch.backends.cudnn
    cudnn.allow_tf32 = False  # newer torch has finer names for it, which torch 2.6 has not and which may not be mixed
    cudnn.benchmark = False
    cudnn.deterministic = True


def quicken(net: nn.Module) -> None:
    """Have a CPU that computes in bf16 take other ways, where it is slow in convolutions.

    Strided depthwise ones compute in fp32, and round: on a Xeon the gradient of their input took torch 2.14 from 6 to
    90 times as long in bf16. Those of 1 x 1 pixel are products of matrices: a step of ResNet50 took 5 % less time.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and (way := _other_way(layer)):
            layer.forward = partial(_in_bf16, way, layer)  # type: ignore[method-assign]


def is_own(layer: nn.Module) -> bool:
    """Whether it computes what its class says, in this way or another, and nobody has put something in its place."""
    forward = vars(layer).get("forward")
    return forward is None or getattr(forward, "func", None) is _in_bf16


@contextmanager
def instead(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Meanwhile layers compute this; afterwards what they computed before, be it of their class or not."""
    before = {layer: vars(layer).get("forward") for layer in forwards}
    try:
        for layer, forward in forwards.items():
            vars(layer)["forward"] = forward
        yield
    finally:
        for layer, own in before.items():
            vars(layer).pop("forward", None)
            if own is not None:
                vars(layer)["forward"] = own


def unchanged(maps: Tensor) -> Tensor:
    """The maps that it is given."""
    return maps


def _other_way(layer: nn.Conv2d) -> Way | None:
    if 1 < layer.groups == layer.in_channels and max(layer.stride) > 1:
        return _rounded
    plain = type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding in {(0, 0), "valid"}
    return _product if plain and {*layer.kernel_size, *layer.stride} == {1} else None


def _in_bf16(way: Way, layer: nn.Conv2d, maps: Tensor) -> Tensor:
    if maps.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return type(layer).forward(layer, maps)
    return way(layer, maps)


def _rounded(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    """What fp32 gives, in bf16."""
    with torch.autocast("cpu", enabled=False):
        return type(layer).forward(layer, maps.float()).to(torch.get_autocast_dtype("cpu"))


def _product(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    """Pixels by channels times channels by channels."""
    return F.linear(maps.movedim(-3, -1), layer.weight.flatten(1), layer.bias).movedim(-1, -3)
