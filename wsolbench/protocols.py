"""Protocols as data: how a score map becomes a box, and a box a hit; and the metrics that come of it."""

from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError
from pydantic.dataclasses import dataclass

from wsolbench import documents
from wsolbench.errors import InputError, nearest
from wsolbench.plugins import OPTIONS, Share, explain

Geometry = Literal["resize224", "resize256_crop224", "short256_crop224"]
"""How an image becomes a network's input: 224 stands for its side, 256 for 256/224 of it."""

DEFAULT = "wsolbench"
UNHELD = "wsolbench_fixed"
"""Stands in for the default where there are no held-out images to choose a threshold on."""

Metric = Literal[
    "top1_clas",
    "top5_clas",
    "gt_known_loc",
    "top1_loc",
    "top5_loc",
    "mean_iou",
    "max_box_acc",
    "max_box_acc_v2",
    "px_ap",
    "body_coverage",
    "threshold",
    "gt_known_loc_at_20",
    "optimism",
    "gt_known_loc_small",
    "gt_known_loc_medium",
    "gt_known_loc_large",
    "error_class",
    "error_part",
    "error_more",
    "error_multiple",
    "error_other",
]
"""What a protocol says of a trial, in percent; `evaluation.evaluate` defines each."""

METRICS: tuple[str, ...] = get_args(Metric)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Protocol:
    """One way of the field to measure localization; two of them are not comparable."""

    geometry: Geometry  # of test images
    interpolation: Literal["linear", "cubic"]  # of score maps, to the size of the network's input
    grey: Literal["linear", "cubehelix"]  # what a score in [0, 1] becomes before its map is cut at a threshold
    truths: Literal["first", "any"]  # which of an image's true boxes count
    whole_pixels: bool  # coordinates of true boxes are cut to whole pixels of the network's input
    contours: Literal["largest", "largest_rect"]  # which region above the threshold is boxed
    convention: Literal["half_open", "inclusive"]  # of the intersection over union; a hit is one of 0.5 or more
    clip: bool  # predicted boxes end at the last pixel's near edge (W - 1, H - 1)
    threshold: Share | Literal["held_out", "oracle"]  # of a map's maximum; where it is chosen: there, or on the test


def names() -> list[str]:
    """The protocols there are."""
    return list(_all())


def protocol(name: str) -> Protocol:
    """The protocol of this name."""
    if name not in _all():
        raise InputError(f"no protocol {name!r}{nearest(name, names()) or '.'} There are: {', '.join(names())}")
    return _all()[name]


def of_geometry(geometry: Geometry) -> list[str]:
    """The protocols that look at images in this geometry."""
    return [name for name, found in _all().items() if found.geometry == geometry]


@cache
def _all() -> dict[str, Protocol]:
    document = documents.read(Path(__file__).with_name("protocols.yaml"))
    try:
        return {name: Protocol(**fields) for name, fields in document.data.items()}
    except ValidationError as error:
        raise InputError(*explain(error, "a protocol has no field {}")) from None
