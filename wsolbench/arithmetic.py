"""How torch computes, wherever numbers are made that are told: in fp32 where it says fp32, the same way each time."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


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


def widen(net: nn.Module) -> None:
    """Have strided depthwise convolutions compute in fp32, and round, where a CPU computes the others in bf16.

    On a Xeon the gradient of their input took torch 2.14 from 6 to 90 times as long in bf16 as in fp32.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels and max(layer.stride) > 1:
            layer.forward = partial(_in_fp32, layer.forward)  # type: ignore[method-assign]


def _in_fp32(convolve: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    if maps.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return convolve(maps)
    with torch.autocast("cpu", enabled=False):
        return convolve(maps.float()).to(torch.get_autocast_dtype("cpu"))
