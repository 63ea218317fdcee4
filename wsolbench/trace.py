"""What one pass of empty images tells of a network: the layers that everything passes through, and those not needed."""

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.func import functional_call

_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Call:
    """The one call of a layer: rows of its input and of its output, the output, and what it was at that moment."""

    rows: tuple[int, int]
    output: Tensor
    node: Any  # of the output in the graph of the pass
    version: int  # counts what is changed in place


class Trace:
    """A pass of (2, 3, `height`, `width`) images through `net` on the meta device: nothing is computed or changed."""

    def __init__(self, net: nn.Module, height: int, width: int) -> None:
        self.net = net
        self.height, self.width = height, width
        self.calls: dict[str, Call] = {}
        self._repeated: set[str] = set()
        weights = {name: weight.detach().to("meta").requires_grad_() for name, weight in net.named_parameters()}
        buffers = {name: buffer.to("meta") for name, buffer in net.named_buffers()}
        images = torch.empty(2, 3, height, width, device="meta", requires_grad=True).clone()
        self._first = images.grad_fn
        hooks = [part.register_forward_hook(partial(self._note, name)) for name, part in net.named_modules() if name]
        try:
            self.last: Tensor = functional_call(net, {**weights, **buffers}, images)
        finally:
            for hook in hooks:
                hook.remove()
        gradients = torch.autograd.grad(self.last.sum(), list(weights.values()), allow_unused=True)
        self._used = {name for name, gradient in zip(weights, gradients, strict=True) if gradient is not None}

    def _note(self, name: str, _layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if name in self.calls:
            self._repeated.add(name)
        elif inputs and _is_map(inputs[0]) and _is_map(output):
            rows = inputs[0].shape[2], output.shape[2]
            self.calls[name] = Call(rows, output, output.grad_fn, output._version)  # noqa: SLF001

    def points(self) -> dict[Node, str]:
        """The layers that everything passes through, in forward order, by the node of their output.

        A block is one layer: a part that is no `nn.Sequential` and has a convolution of its own, or nothing inside that
        everything passes through.
        """
        blocks = tuple(f"{name}." for name, part in self.net.named_modules() if name and _is_block(part))
        layers: dict[Node, list[str]] = {}  # one inside the other, with the same output
        for name, call in self.calls.items():
            within = name.startswith(blocks) or isinstance(self.net.get_submodule(name), nn.Sequential)
            if not within and name not in self._repeated and self._is_passage(call):
                layers.setdefault(call.node, []).append(name)
        inner = [names[0] for names in layers.values()]
        return {node: _whole(names, inner) for node, names in layers.items()}

    def _is_passage(self, call: Call) -> bool:
        """Whether the last map depends on the images through this output only, unchanged by later layers."""
        if call.output._version != call.version:  # noqa: SLF001
            return False
        open_nodes, seen = [self.last.grad_fn], {call.node, None}
        while open_nodes:
            if (node := open_nodes.pop()) not in seen:
                seen.add(node)
                open_nodes += [before for before, _ in node.next_functions]  # type: ignore[union-attr]
        return self._first not in seen

    @property
    def output_stride(self) -> int:
        """Of the last map, to the next power of 2: convolutions without padding take some rows more."""
        return 2 ** round(math.log2(self.height / self.last.shape[2]))

    def unstride(self) -> bool:
        """Take the strides and the poolings that halve a map to the last one's size; False where there are none."""
        ends = [
            name
            for name, call in self.calls.items()
            if call.rows[1] == self.last.shape[2] and call.rows[0] > 1.5 * call.rows[1]
        ]
        layers = {name: layer for name in ends if isinstance(layer := self.net.get_submodule(name), _STRIDED)}
        for name, layer in layers.items():
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
            else:
                self.net.set_submodule(name, nn.Identity())
        return bool(layers)

    def unused(self) -> list[str]:
        """The largest parts of the network that have weights, none of which the last map depends on."""
        found: list[str] = []
        for name, part in self.net.named_modules():
            weights = {f"{name}.{weight}" for weight, _ in part.named_parameters() if name}
            if weights and not weights & self._used and not name.startswith(tuple(f"{outer}." for outer in found)):
                found.append(name)
        return found


def unstrided(trace: Trace, output_stride: int) -> Trace:
    """The pass through the network without its last strides; with some left where its parts would not fit without."""
    with suppress(RuntimeError):
        while trace.output_stride > output_stride and trace.unstride():
            trace = Trace(trace.net, trace.height, trace.width)
    return trace


def _is_map(found: Any) -> bool:
    return isinstance(found, Tensor) and found.ndim == len("NCHW")


def _is_block(part: nn.Module) -> bool:
    return not isinstance(part, nn.Sequential) and any(isinstance(layer, nn.Conv2d) for layer in part.children())


def _whole(names: list[str], inner: list[str]) -> str:
    """The outermost of layers with the same output that has no other of `inner` within."""
    first = names[0]
    around = [name for name in names if f"{first}.".startswith(f"{name}.")]
    return [first, *(n for n in around if not any(o != first and o.startswith(f"{n}.") for o in inner))][-1]
