"""Checkpoints: weights and optimizer state after an epoch, sealed by a digest beside them."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import SGD

from wsolbench import files

KEPT = 2
_NAME = re.compile(r"epoch_(\d+)\.attempt_(\d+)\.safetensors")


def write(folder: Path, epoch: int, attempt: str, net: nn.Module, sgd: SGD) -> None:
    """Save the state after `epoch` epochs, and keep only the last two of this trial."""
    folder.mkdir(exist_ok=True)
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    tensors |= {f"momentum.{name}": value for name, value in _momentum(net, sgd).items()}
    path = folder / f"epoch_{epoch:04d}.attempt_{attempt}.safetensors"
    files.write_sealed(path, _packed(tensors))
    for old in surplus(folder):
        old.unlink(missing_ok=True)
        files.seal(old).unlink(missing_ok=True)


def surplus(folder: Path) -> list[Path]:
    """Checkpoints that no attempt will need: all but the last two that were finished, and those begun after them."""
    finished = [path for path in _found(folder) if files.seal(path).exists()][:KEPT]
    return [path for path in _found(folder) if finished and _place(path) < _place(finished[0]) and path not in finished]


def resume(folder: Path, net: nn.Module, sgd: SGD, warn: Callable[[str], None] = lambda _: None) -> int:
    """Load the newest whole checkpoint; returns the number of epochs it has seen, 0 if there is none.

    A damaged one is passed over, and `warn` is told so. Only tensors are read, never code.
    """
    for path in _found(folder):
        tensors = _tensors(path)
        if tensors is None:
            if files.seal(path).exists():  # else it was never finished, which is no damage
                warn(f"{path} is damaged; the checkpoint before it serves")
            continue
        net.load_state_dict({name.removeprefix("net."): v for name, v in tensors.items() if name.startswith("net.")})
        _set_momentum(net, sgd, tensors)
        return _place(path)[0]
    return 0


def _tensors(path: Path) -> dict[str, Tensor] | None:
    """What a checkpoint holds; None where it is not what was written, or another attempt has removed it."""
    try:
        content = files.sealed(path)
        return None if content is None else load(content)
    except (files.UnreadableError, SafetensorError, ValueError, KeyError):  # the last: another kind, a seal that fits
        return None


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
