"""Checkpoints: weights, optimizer state and position between two steps, sealed by a digest beside them."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import SGD

from wsolbench import files
from wsolbench.errors import InputError

KEPT = 2
_NAME = re.compile(r"epoch_(\d+)(?:\.step_(\d+))?\.attempt_(\d+)\.safetensors")


@dataclass(frozen=True)
class Position:
    """How far training is, between two steps.

    Args:
        epoch: whole epochs behind.
        step: steps of the next behind.
        loss: summed over the images of those steps, in their order.
        images: so many.
        seconds: spent on them.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    images: int = 0
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        """What is said of the epoch when its last step is behind."""
        return {"epoch": self.epoch + 1, "loss": self.loss / max(self.images, 1), "seconds": self.seconds}


def write(folder: Path, position: Position, attempt: str, net: nn.Module, sgd: SGD, *, data: str = "") -> None:
    """Save the state at a position, reached on images of digest `data`, and keep only the last two of this trial."""
    folder.mkdir(exist_ok=True)
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    tensors |= {f"momentum.{name}": value for name, value in _momentum(net, sgd).items()}
    step = f".step_{position.step:06d}" if position.step else ""
    path = folder / f"epoch_{position.epoch:04d}{step}.attempt_{attempt}.safetensors"
    files.write_sealed(path, _packed(tensors, {"position": json.dumps(asdict(position)), "data": data}))
    for old in surplus(folder):
        old.unlink(missing_ok=True)
        files.seal(old).unlink(missing_ok=True)


def surplus(folder: Path, kept: int = KEPT) -> list[Path]:
    """Checkpoints that no attempt will need: all but the last few that were finished, and those begun after them."""
    finished = [path for path in _found(folder) if files.seal(path).exists()][:kept]
    return [path for path in _found(folder) if finished and _place(path) < _place(finished[0]) and path not in finished]


def resume(
    folder: Path, net: nn.Module, sgd: SGD, warn: Callable[[str], None] = lambda _: None, *, data: str = ""
) -> Position:
    """Load the newest whole checkpoint; returns its position, the beginning if there is none.

    A damaged one is passed over, and `warn` is told so. Only tensors are read, never code.

    Raises:
        InputError: it says that it was trained on others than the images of digest `data`.
    """
    for path in _found(folder):
        found = _content(path)
        if found is None:
            if files.seal(path).exists():  # else it was never finished, which is no damage
                warn(f"{path} is damaged; the checkpoint before it serves")
            continue
        tensors, position, trained_on = found
        if data and trained_on not in {data, ""}:
            raise InputError(
                f"{path} was trained on other images, classes or boxes (data digest {trained_on[:12]}) than are here "
                f"now ({data[:12]}); bring those back, choose another --results, or start again with --fresh"
            )
        net.load_state_dict({name.removeprefix("net."): v for name, v in tensors.items() if name.startswith("net.")})
        _set_momentum(net, sgd, tensors)
        return position
    return Position()


def _content(path: Path) -> tuple[dict[str, Tensor], Position, str] | None:
    """What a checkpoint holds; None where it is not what was written, or another attempt has removed it."""
    try:
        content = files.sealed(path)
        return None if content is None else (load(content), *_header(content, path))
    except (
        files.UnreadableError,
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
    ):  # the last: another kind, a seal that fits
        return None


def _header(content: bytes, path: Path) -> tuple[Position, str]:
    """The position and the images' digest that a checkpoint tells; the first ones told where they are by their name."""
    length = int.from_bytes(content[:8], "little")
    said = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    position = Position(**json.loads(said["position"])) if "position" in said else Position(_place(path)[0])
    return position, said.get("data", "")


def digest(net: nn.Module) -> str:
    """sha256 of a network's weights, by name and bit for bit."""
    return hashlib.sha256(_packed(net.state_dict())).hexdigest()


def _packed(tensors: Mapping[str, Tensor], said: dict[str, str] | None = None) -> bytes:
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, said)


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


def _place(path: Path) -> tuple[int, int, int]:
    """Epoch, step and attempt of a checkpoint, by its name."""
    match = _NAME.fullmatch(path.name)
    assert match is not None  # noqa: S101  of `_found`
    return int(match[1]), int(match[2] or 0), int(match[3])
