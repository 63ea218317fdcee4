"""Where a trial runs; a module of its own, as the command line needs it before torch."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Place:
    """Where a trial runs and what it finds there; none of it decides the result.

    Args:
        results: folder of the store.
        data: folder of the data set; None for one that needs none.
        weights: file of the pretrained weights; None to download them.
        device: `auto`, `cpu` or `cuda`.
        workers: processes that decode images.
        gpus: how many GPUs the job asked its cluster for.
        protocol: whose numbers are wanted beside those that every trial has.
        tensorboard: folder where TensorBoard finds how the trial goes; None to write nothing for it.
    """

    results: Path
    data: Path | None = None
    weights: Path | None = None
    device: Device = "auto"
    workers: int = 0
    gpus: int = 0
    protocol: str | None = None
    tensorboard: Path | None = None

    def absolute(self) -> "Place":
        """The same place, told by whole paths."""
        whole: dict[str, Any] = {key: path.absolute() for key, path in vars(self).items() if isinstance(path, Path)}
        return replace(self, **whole)


def cache_folder() -> Path:
    """`$WSOLBENCH_CACHE`, or `wsolbench` in the user's cache folder."""
    if own := os.environ.get("WSOLBENCH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsolbench"


def pixels_folder() -> Path:
    """Where decoded images are kept."""
    return cache_folder() / "pixels"
