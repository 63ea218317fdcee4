"""Checkpoints: weights and optimizer state after an epoch, sealed by a digest beside them."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import SGD

from wsolbench import files

KEPT = 2
_NAME = re.compile(r"epoch_(\d+)\.attempt_(\d+)\.safetensors")


def write(folder: Path, epoch: int, attempt: str, net: nn.Module, sgd: SGD) -> None:
    """Save the state after `epoch` epochs, and keep only the last two of this trial.

    The digest is written after the weights: a checkpoint without one was not finished.
    """
    folder.mkdir(exist_ok=True)
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    tensors |= {f"momentum.{name}": value for name, value in _momentum(net, sgd).items()}
    content = _packed(tensors)
    path = folder / f"epoch_{epoch:04d}.attempt_{attempt}.safetensors"
    files.write(path, content)
    files.write(_seal(path), hashlib.sha256(content).hexdigest().encode())
    for old in _found(folder)[KEPT:]:
        old.unlink(missing_ok=True)
        _seal(old).unlink(missing_ok=True)


def resume(folder: Path, net: nn.Module, sgd: SGD) -> int:
    """Load the newest whole checkpoint; returns the number of epochs it has seen, 0 if there is none."""
    for path in _found(folder):
        content = _whole(path)
        if content is None:
            continue  # torn, or damaged since: the one before it serves
        tensors = load(content)
        net.load_state_dict({name.removeprefix("net."): v for name, v in tensors.items() if name.startswith("net.")})
        _set_momentum(net, sgd, tensors)
        return _place(path)[0]
    return 0


def _whole(path: Path) -> bytes | None:
    """The content of a checkpoint; None where it is not what was written, or another attempt has removed it."""
    try:
        content, seal = path.read_bytes(), _seal(path).read_bytes()
    except FileNotFoundError:
        return None
    return content if seal == hashlib.sha256(content).hexdigest().encode() else None


def digest(net: nn.Module) -> str:
    """sha256 of a network's weights, by name and bit for bit."""
    return hashlib.sha256(_packed(net.state_dict())).hexdigest()


def _packed(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def _momentum(net: nn.Module, sgd: SGD) -> dict[str, Tensor]:
    buffers = {name: sgd.state[parameter].get("momentum_buffer") for name, parameter in net.named_parameters()}
    return {name: buffer for name, buffer in buffers.items() if buffer is not None}


def _set_momentum(net: nn.Module, sgd: SGD, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in net.named_parameters():
        if (saved := tensors.get(f"momentum.{name}")) is not None:
            buffer = torch.empty_like(parameter)  # of the parameter's memory format: the fused step reads both alike
            sgd.state[parameter]["momentum_buffer"] = buffer.copy_(saved)


def _found(folder: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_place, reverse=True)


def _place(path: Path) -> tuple[int, int]:
    """Epoch and attempt of a checkpoint, by its name."""
    match = _NAME.fullmatch(path.name)
    assert match is not None  # noqa: S101  of `_found`
    return int(match[1]), int(match[2])


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")
