"""How attempts end: what kind of end an error is, and what there is to say of it."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from wsolbench import files, recipe
from wsolbench.attempts import Kind, SupersededError
from wsolbench.loop import DivergedError
from wsolbench.machine import peak_mib
from wsolbench.stop import Stop, Stopped
from wsolbench.trial import Trial

IN_ORDER: tuple[Kind, ...] = ("preempted", "interrupted", "superseded")
"""Ends that are nobody's fault, and need no traceback."""

_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # a RuntimeError, on the CPU
_NO_WORKER = "DataLoader worker"  # so begins the RuntimeError when one is killed


@dataclass(frozen=True)
class Ending:
    """What `exit.json` says."""

    kind: Kind
    message: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def ending(error: BaseException, trial: Trial, stop: Stop) -> Ending:
    """What an error that ends an attempt makes of it."""
    message = f"{type(error).__name__}: {error}"
    if stopped := _stopped(error, stop):
        return stopped
    if isinstance(error, SupersededError):
        return Ending("superseded", str(error))
    if isinstance(error, DivergedError):
        stages = recipe.blueprint(trial.backbone, trial.backbone_options).stages  # by which tables find its row
        return Ending("diverged", message, {"batch": list(error.batch), "stages": list(stages)})
    if isinstance(error, OSError) and error.errno in files.FULL:
        return Ending("disk_full", files.reason(error), {"errno": errno.errorcode[error.errno], "path": error.filename})
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or _NO_MEMORY in str(error):
        return Ending("oom", message, _memory(trial))
    return Ending("failed", message)


def _stopped(error: BaseException, stop: Stop) -> Ending | None:
    """The ending in order that was asked for; None if this is no such."""
    if isinstance(error, Stopped) or (stop.asked and str(error).startswith(_NO_WORKER)):
        return Ending("preempted", f"stopped by {stop.asked.name}" if stop.asked else "stopped")
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return Ending("interrupted")
    return None


def _memory(trial: Trial) -> dict[str, Any]:
    hint = "ask for a device with more memory; a smaller batch_size is another trial, with other results"
    sizes = {"batch_size": trial.batch_size, "image_size": trial.image_size}
    device = torch.device("cuda" if torch.cuda.is_available() and torch.cuda.is_initialized() else "cpu")
    return {**sizes, "device": device.type, "peak_mib": round(peak_mib(device), 1), "hint": hint}
