"""Pretrained weights: from their source or a file into the body of a network, with an account of what was loaded."""

import hashlib
import json
import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wsolbench import files
from wsolbench.backbone import Normalisation, Pretrained
from wsolbench.errors import InputError
from wsolbench.method import Net

IMAGENET = "imagenet"
"""Instead of a file: the weights that the backbone names as its pretrained ones."""

_SHOWN = 3  # names in an error
_COUNTER = "num_batches_tracked"  # of batch normalisation: no file needs it
_UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    AttributeError,
    TypeError,
    AssertionError,
)
_PADDINGS = {"": "symmetric"}  # timm's word for it -> ours
_Reader = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class Provenance:
    """What was loaded.

    Args:
        source: the file's name, or what was downloaded.
        sha256: of the file, or of the names and values that were downloaded.
        tensors: how many the network took.
        missing: names that the body has and the source lacks: counters of batch normalisation only.
        unexpected: names that the source has and the network no place for: those the backbone declares unused.
        normalisation: mean and standard deviation of R, G, B that the weights were trained with.
        normalisation_source: `file` where its metadata says so, else `backbone`.
        classifier: whether the source's classifier became the head.
    """

    source: str
    sha256: str
    tensors: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    normalisation: Normalisation
    normalisation_source: str
    classifier: bool


@dataclass(frozen=True)
class _Source:
    name: str
    sha256: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


def load(net: Net, weights: str | Path) -> Provenance:
    """Fill the body of `net`, and its head where the classes agree; set the backbone's normalisation.

    `weights` is `imagenet` or a .safetensors, .pt or .pth file. Raises `InputError` unless it has every weight of the
    body and no others than the backbone declares unused; the network is then as it was.
    """
    backbone = net.backbone
    source = _downloaded(backbone.pretrained) if str(weights) == IMAGENET else _read(Path(weights))
    pretrained = backbone.pretrained or Pretrained(source.name, dict, backbone.normalisation)
    stated = _normalisation(source)
    filled = _matching(source, pretrained, backbone.body.state_dict())
    backbone.body.load_state_dict(filled, strict=False)
    classifier = _classifier(source, pretrained)
    taken = classifier is not None and net.head.load_classifier(*classifier.values())
    backbone.normalisation = stated or pretrained.normalisation
    placed = {pretrained.prefix + name for name in filled}.union((classifier or {}) if taken else ())
    return Provenance(
        source=source.name,
        sha256=source.sha256,
        tensors=len(placed),
        missing=tuple(name for name in backbone.body.state_dict() if name not in filled),
        unexpected=tuple(sorted(source.tensors.keys() - placed)),
        normalisation=backbone.normalisation,
        normalisation_source="file" if stated else "backbone",
        classifier=taken,
    )


def file_options(path: str | Path) -> dict[str, Any]:
    """The backbone options that the metadata of a file of weights asks for; none for most files.

    Raises:
        InputError: it is no file of a kind that holds weights, or its metadata cannot be read.
    """
    path = Path(path)
    metadata = _opened(path, _metadata) if _reader(path) is _safetensors else {}
    options = _json(path.name, metadata, "kwargs", dict) or {}
    if "pad_type" in options:
        padding = options.pop("pad_type")
        options["padding"] = _PADDINGS.get(padding, padding)
    return options


def _downloaded(pretrained: Pretrained | None) -> _Source:
    if pretrained is None:
        raise InputError(f"this backbone has no {IMAGENET} weights; give a file, or train it from scratch")
    try:
        tensors = dict(pretrained.download())
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"cannot download {pretrained.source}: {error}. Download it where there is internet and give the file"
        ) from error
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return _Source(pretrained.source, digest.hexdigest(), tensors)


def _reader(path: Path) -> _Reader:
    """What reads files of that ending."""
    read = {".safetensors": _safetensors, ".pt": _pickled, ".pth": _pickled}.get(path.suffix)
    if read is None:
        raise InputError(f"weights must be {IMAGENET} or a .safetensors, .pt or .pth file, not {str(path)!r}")
    return read


def _read(path: Path) -> _Source:
    read = _reader(path)
    tensors = _opened(path, read)
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise InputError(f"{str(path)!r} holds no weights: a mapping of names to tensors, or one under 'state_dict'")
    if all(name.startswith("module.") for name in tensors):  # of DataParallel
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    metadata = _opened(path, _metadata) if read is _safetensors else {}
    return _Source(path.name, files.sha256(path), tensors, metadata)


def _opened(path: Path, read: _Reader) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"no file of weights {str(path)!r}")
    try:
        return read(path)
    except _UNREADABLE as error:
        raise InputError(
            f"cannot read weights from {str(path)!r}, damaged or of another kind: {_why(path, error)}"
        ) from error


def _why(path: Path, error: Exception) -> str:
    """What is the matter with a file that cannot be read, and what to do about it."""
    if isinstance(error, OSError):
        return files.reason(error)
    if "nsupported global" in str(error):
        return "it holds more than tensors, which might run code; save its state_dict alone with torch.save"
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if start.startswith(b"version https://git-lfs"):
        return "it only points to a file of Git LFS; fetch that with `git lfs pull`"
    what = "it is a web page" if start.startswith(b"<") else "" if start else "it is empty"
    writer = "torch.save" if _reader(path) is _pickled else "safetensors"
    return f"{what or f'it is not what {writer} writes, or not all of it'}; fetch it again, or give another file"


def _safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def _metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _pickled(path: Path) -> dict[str, Any]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    wrapped = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    return dict(wrapped) if isinstance(wrapped, Mapping) else {}


def _json(name: str, metadata: Mapping[str, str], key: str, kind: type) -> Any:
    """The value of `key` in a file's metadata; None where it has none."""
    try:
        value = json.loads(metadata[key]) if key in metadata else None
    except json.JSONDecodeError:
        value = metadata[key]
    if not isinstance(value, kind | None):
        raise InputError(f"{name}: {key} in its metadata must be a JSON {kind.__name__}, not {metadata[key]!r}")
    return value


def _normalisation(source: _Source) -> Normalisation | None:
    mean, std = (_json(source.name, source.metadata, key, list) for key in ("mean", "std"))
    if mean is None and std is None:
        return None
    match mean, std:
        case [float(), float(), float()], [float(), float(), float()]:
            return tuple(mean), tuple(std)
    raise InputError(f"{source.name}: mean and std in its metadata must be three numbers, not {mean!r} and {std!r}")


def _matching(source: _Source, pretrained: Pretrained, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The source's tensors by the body's names; `InputError` where the two do not fit."""
    tensors, prefix = source.tensors, pretrained.prefix
    names = {name: prefix + name for name in expected}
    missing = [full for name, full in names.items() if full not in tensors and not name.endswith(_COUNTER)]
    known = (*pretrained.unused, *filter(None, [pretrained.classifier]))
    unexpected = sorted(name for name in tensors.keys() - names.values() if not name.startswith(known))
    shapes = [
        f"{full} {tuple(tensors[full].shape)} for {tuple(expected[name].shape)}"
        for name, full in names.items()
        if full in tensors and tensors[full].shape != expected[name].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(problems.values()):
        found = "; ".join(f"{what}: {_first(items)}" for what, items in problems.items() if items)
        raise InputError(f"{source.name} has the weights of another network; {found}")
    return {name: tensors[full] for name, full in names.items() if full in tensors}


def _first(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _classifier(source: _Source, pretrained: Pretrained) -> dict[str, Tensor] | None:
    """The source's classifier, weight first; None where it has none."""
    if pretrained.classifier is None:
        return None
    names = (f"{pretrained.classifier}weight", f"{pretrained.classifier}bias")
    return {name: source.tensors[name] for name in names} if all(name in source.tensors for name in names) else None
