"""A trained network as an ONNX file that other programs run, checked against the network itself."""

import json
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsolbench import extract, images, machine, network
from wsolbench.errors import InputError
from wsolbench.inspection import finished
from wsolbench.method import Net
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial, from_spec

TOLERANCE = 1e-4
"""Of what onnxruntime computes, relative to the largest value of an output."""

LIKELIEST = -1
"""A label that stands for the class that the network thinks likeliest."""

_INPUTS, _OUTPUTS = ("images", "labels"), ("logits", "score_maps")
_LIBRARIES = ("onnx", "onnxruntime", "onnxscript")


class MismatchError(RuntimeError):
    """The exported network computes something else; the text says by how much."""


class Exported(nn.Module):
    """RGB images (N, 3, H, W) in [0, 1] and labels (N,) -> logits (N, K) and the labels' score maps (N, h, w)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in net.backbone.normalisation)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The network of evaluation, normalisation included."""
        output = self.net((images - self.mean) / self.deviation)
        chosen = torch.where(labels < 0, output.logits.argmax(1), labels)
        return output.logits, self.net.head.score_maps(output, chosen).float()


@dataclass(frozen=True)
class Export:
    """An ONNX file.

    Args:
        trial: whose network it is.
        content: of the file.
        differences: by output, the largest between onnxruntime and torch, relative to the output's largest value.
    """

    trial: Trial
    content: bytes
    differences: dict[str, float]


def export(trial_id: str, place: Place) -> Export:
    """The network of a finished trial.

    Raises:
        InputError: there is no such finished trial, its score maps are read off gradients, or a library is missing.
        MismatchError: onnxruntime computes something else than torch.
    """
    refuse_missing()
    record = finished(Store(place.results), trial_id)
    trial = from_spec(record["trial"])
    if extract.extractor(trial.extract) is not None:
        raise InputError(f"trial {trial.id} reads its score maps off gradients, extract={trial.extract}; ONNX has none")
    machine.settle(trial, place)
    classes = images.class_names(trial, place)
    net = Exported(network.trained(trial, place, classes, torch.device("cpu"))).eval()
    content = _onnx(net, trial.image_size, {**_facts(record), "classes": json.dumps(classes)})
    differences = compare(content, net, trial.image_size, len(classes))
    if wrong := {name: found for name, found in differences.items() if not found <= TOLERANCE}:
        told = ", ".join(f"{name} by {found:.1e}" for name, found in wrong.items())
        raise MismatchError(f"onnxruntime differs from torch, {told} of the largest value; {TOLERANCE:.0e} is allowed")
    return Export(trial, content, differences)


def refuse_missing() -> None:
    """Raise the `InputError` that names the libraries which are not installed, if some are not."""
    missing = [name for name in _LIBRARIES if not _importable(name)]
    if missing:
        raise InputError(f"export needs {', '.join(missing)}: pip install 'wsolbench[export]'")


def _importable(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True


def compare(content: bytes, net: Exported, side: int, classes: int) -> dict[str, float]:
    """By output, the largest difference between onnxruntime and torch on drawn images, relative to the largest value.

    There are as many images as classes, up to eight, one of them of the likeliest class: another number than the file
    was made with.
    """
    import onnxruntime  # noqa: PLC0415  an extra

    drawn = torch.Generator().manual_seed(0)
    labels = torch.arange(LIKELIEST, min(classes, 8) - 1)
    images = torch.rand((len(labels), 3, side, side), generator=drawn)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    theirs = session.run(list(_OUTPUTS), dict(zip(_INPUTS, (images.numpy(), labels.numpy()), strict=True)))
    with torch.inference_mode():
        ours = [output.numpy() for output in net(images, labels)]
    return {
        name: float(np.abs(own - other).max() / max(np.abs(own).max(), np.finfo(np.float32).tiny))
        for name, own, other in zip(_OUTPUTS, ours, theirs, strict=True)
    }


def _onnx(net: Exported, side: int, facts: dict[str, str]) -> bytes:
    """The file, of any number of images."""
    number = torch.export.Dim("N")
    images, labels = torch.zeros(2, 3, side, side), torch.tensor([LIKELIEST, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own exporter
        program: Any = torch.onnx.export(
            net,
            (images, labels),
            dynamo=True,
            verbose=False,
            input_names=list(_INPUTS),
            output_names=list(_OUTPUTS),
            dynamic_shapes={name: {0: number} for name in _INPUTS},
        )
    model = program.model_proto
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def _facts(record: dict[str, Any]) -> dict[str, str]:
    """What a user of the file needs to know."""
    protocol = record["protocol"]
    known = {key: record["trial"][key] for key in ("dataset", "backbone", "method")}
    chosen = record["results"][protocol].get("threshold")
    known |= {"trial": record["id"], "protocol": protocol, "threshold_pct": chosen, "label_of_likeliest": LIKELIEST}
    return {key: str(value) for key, value in known.items() if value is not None}
