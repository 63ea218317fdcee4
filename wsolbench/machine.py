"""The machine that a trial runs on: made ready for it, and told of."""

import platform
import resource
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch

from wsolbench import arithmetic, memory
from wsolbench.errors import InputError
from wsolbench.place import Place
from wsolbench.trial import Trial

PACKAGES = "wsolbench torch torchvision timm numpy opencv-python-headless"
"""What a number may depend on; their versions are in the record."""


def settle(trial: Trial, place: Place) -> torch.device:
    """The device, made ready: the trial's number of threads, and `arithmetic`, which says what repeats bit for bit.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    wanted = place.device == "cuda" or (place.device == "auto" and place.gpus > 0)
    if wanted and not torch.cuda.is_available():
        asked = f"the job asked for {place.gpus} GPU(s)" if place.gpus else "device=cuda"
        raise InputError(f"{asked}, but torch {torch.__version__} finds no GPU here; say device=cpu to run without one")
    torch.set_num_threads(trial.threads)
    arithmetic.settle()
    memory.keep_freed()
    use = "cuda" if place.device != "cpu" and torch.cuda.is_available() else "cpu"
    return torch.device(use)


@cache
def packages() -> dict[str, str]:
    """The versions of the packages that a number may depend on."""
    extras = [name for name in ("torchcam",) if find_spec(name)]
    return {name: version(name) for name in (*PACKAGES.split(), *extras)}


def environment(device: torch.device) -> dict[str, Any]:
    """What the numbers were computed with."""
    return {
        "python": platform.python_version(),
        "packages": dict(packages()),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "tf32": torch.backends.cudnn.allow_tf32,  # of fp32 on a GPU
    }


def peak_mib(device: torch.device) -> float:
    """The most memory that the trial's tensors took on a GPU, or this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
