"""Any network of the library timm whose feature maps are (N, C, H, W), by its name, without pooling and classifier."""

from typing import Any, ClassVar, Literal

import timm
from pydantic.dataclasses import dataclass
from torch import nn

from wsolbench.backbone import Backbone, Pretrained
from wsolbench.errors import InputError, Problem, nearest
from wsolbench.plugins import OPTIONS
from wsolbench.trace import Trace, unstrided


@dataclass(frozen=True, config=OPTIONS)
class Timm:
    """Feature points are the blocks, and the layers between them, that everything passes through, by timm's names."""

    variant: ClassVar[str] = "resnet18"  # timm's name of a network, with or without the tag of its weights
    output_stride: Literal[8, 16, 32] = 32  # of the last feature map; less takes the last strides, without dilation

    def build(self) -> Backbone:
        """(N, 3, H, W) -> (N, C, H/32, W/32), with random weights."""
        net = _network(self.variant)
        native = _trace(net, self.variant)
        trace = unstrided(native, self.output_stride)
        if trace.output_stride != self.output_stride:
            sentence = f"{self.variant} has output_stride {native.output_stride} and cannot have {self.output_stride}"
            raise InputError(Problem(sentence, "output_stride"))
        pretrained = _pretrained(net, trace.unused())
        for part in trace.unused():
            net.set_submodule(part, nn.Identity())
        points = trace.points()
        modules = [stage["module"] for stage in net.feature_info[:-1]]
        ends = [points.get(trace.calls[name].node) for name in modules if name in trace.calls]
        stages = dict.fromkeys([*filter(None, ends), [*points.values()][-1]])
        paths = {point: f"body.{point}" for point in points.values()}
        return Backbone(net, paths, tuple(stages), (trace.last.shape[1],), pretrained=pretrained)


def _network(variant: str) -> Any:
    known = [*timm.list_models(), *timm.list_models(pretrained=True)]
    if variant not in known:
        hint = nearest(variant, known) or "."
        there = f"timm.list_models() of timm {timm.__version__} lists them"
        raise InputError(Problem(f"no network {variant!r} in timm{hint} {there}", "backbone"))
    net: Any = timm.create_model(variant)
    net.forward = net.forward_features
    return net


def _trace(net: Any, variant: str) -> Trace:
    try:
        trace = Trace(net, 256, 320)
        fits = trace.last.ndim == len("NCHW") and trace.last.shape[1] == net.num_features
        reason = f"its last map is {tuple(trace.last.shape)}"
    except Exception as error:  # noqa: BLE001  as many kinds as there are networks
        fits, reason = False, f"{type(error).__name__}: {error}"
    if not fits:
        wanted = f"timm's {variant} does not make feature maps (N, C, H, W) of images of any size"
        raise InputError(Problem(f"{wanted}: {reason}", "backbone"))
    return trace


def _pretrained(net: Any, unused: list[str]) -> Pretrained:
    cfg = net.pretrained_cfg
    name = ".".join(filter(None, [cfg["architecture"], cfg.get("tag")]))
    prefixes = tuple(f"{part}." for part in unused)
    classifier = {f"{cfg['classifier']}.weight", f"{cfg['classifier']}.bias"}
    alone = classifier == {weight for weight, _ in net.named_parameters() if weight.startswith(prefixes)}
    return Pretrained(
        f"timm {name}",
        lambda: timm.create_model(name, pretrained=True).state_dict(),
        normalisation=(tuple(cfg["mean"]), tuple(cfg["std"])),
        classifier=f"{cfg['classifier']}." if alone else None,  # else it does not read the pooled last map
        unused=prefixes,
    )


BACKBONE = Timm
