"""Batch normalisations as part of the convolutions before them: the same scores in fewer passes over the maps."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsolbench import arithmetic, loop
from wsolbench.batches import Batch
from wsolbench.method import Net

Pairs: TypeAlias = dict[nn.Conv2d, nn.BatchNorm2d]
"""Convolutions, each with the batch normalisation that alone reads its output."""


@contextmanager
def folded(net: Net, side: int, extractor: type[Any] | None = None) -> Iterator[None]:
    """Meanwhile the network, in evaluation, scales and shifts in its convolutions: its scores differ in last digits.

    Args:
        net: none of its weights is changed, but in training it would not be the same network.
        side: of its square images, pixels.
        extractor: what reads the score maps, as of `loop.predict`.
    """
    net.eval()
    forwards: dict[nn.Module, Any] = {}
    for convolution, norm in pairs(net, side, extractor).items():
        forwards |= {convolution: _fused(convolution, norm), norm: arithmetic.unchanged}
    with arithmetic.instead(forwards):
        yield


def pairs(net: Net, side: int, extractor: type[Any] | None = None) -> Pairs:
    """What may be folded, as an empty image tells that is evaluated as all are; nothing where that cannot tell."""
    layers = [layer for layer in net.modules() if _is_plain(layer)]
    trains = any(layer.training for layer in net.modules())  # even now: each image changes what it computes
    if trains or not any(isinstance(layer, nn.BatchNorm2d) for layer in layers):
        return {}
    own = _tensors(net)
    calls: Counter[nn.Module] = Counter()
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by the id of the output, which is kept: no other gets its id
    readers: dict[nn.Conv2d, nn.BatchNorm2d] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[layer] += 1
        if not _tensors(layer) <= own:
            return  # weights that a method swaps in are not those to fold
        if isinstance(layer, nn.Conv2d):
            made[id(output)], reads[id(output)] = (layer, output), 0
        elif isinstance(layer, nn.BatchNorm2d) and inputs and id(inputs[0]) in made:
            readers[made[id(inputs[0])][0]] = layer

    with ExitStack() as stack:
        reads = stack.enter_context(_Reads()).of
        for layer in layers:
            stack.callback(layer.register_forward_hook(note).remove)
        empty = Batch(torch.zeros(1, 3, side, side), torch.zeros(1, dtype=torch.long), ("an empty image",))
        try:
            list(loop.predict(net, [empty], next(net.parameters()).device, extractor))
        except Exception:  # noqa: BLE001  it may fail of an empty image alone; else that of the others tells
            return {}
    once = {layer for key, (layer, _) in made.items() if reads[key] == 1 and calls[layer] == 1}
    return {layer: norm for layer, norm in readers.items() if layer in once and calls[norm] == 1}


def _tensors(module: nn.Module) -> set[int]:
    """The ids of its weights and statistics."""
    return {id(tensor) for tensor in chain(module.parameters(), module.buffers())}


class _Reads(TorchDispatchMode):
    """Counts the operations that read each tensor, by its id."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count, and compute."""
        del types
        self.of.update({id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)})
        return func(*args, **(kwargs or {}))


def _is_plain(layer: nn.Module) -> bool:
    """Whether it is a convolution or a batch normalisation that computes what its class says, unseen by hooks."""
    if layer._forward_pre_hooks or not arithmetic.is_own(layer):  # noqa: SLF001
        return False
    if type(layer) is nn.BatchNorm2d:
        return layer.running_mean is not None
    return type(layer) is nn.Conv2d and not layer._forward_hooks  # noqa: SLF001


@torch.no_grad()
def _fused(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Callable[[Tensor], Tensor]:
    """The convolution with weights that do the work of both."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
    )
    return partial(convolution._conv_forward, weight=weight.detach(), bias=bias.detach())  # noqa: SLF001
