"""What a job asks its cluster for, by submitit's names; none of it decides a result."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from pydantic import ValidationError
from pydantic.dataclasses import dataclass

import wsolbench
from wsolbench.errors import InputError
from wsolbench.place import Place
from wsolbench.plugins import OPTIONS, Count, Positive, explain, frozen
from wsolbench.trial import Trial, canonical

HOUR = 60  # minutes


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Resources:
    """What one job gets; jobs of equal resources make one array."""

    timeout_min: Count  # the job saves its state before that, and goes on in the queue
    mem_gb: Positive
    gpus_per_node: Annotated[int, Ge(0)]
    signal_delay_s: Count  # between the warning and the end of a job
    cpus_per_task: Count | None = None  # None: as many as the trial's threads and the processes that decode images
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None  # nodes
    setup: tuple[str, ...] = ()  # shell lines before the job
    additional_parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict)  # of sbatch

    def __hash__(self) -> int:
        return hash(canonical(asdict(self)))

    def __str__(self) -> str:
        said = {name: value for name, value in asdict(self).items() if value and name != "setup"}
        return ", ".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in said.items()
        )

    @property
    def gpu_hours(self) -> float:
        """Of one job that takes all its time."""
        return self.gpus_per_node * self.timeout_min / HOUR

    def more(self, endings: Sequence[str]) -> "Resources":
        """Twice the memory for each `oom` that a job of these resources ended in, twice the time for each `timeout`."""
        memory, time = (2 ** endings.count(state) for state in ("oom", "timeout"))
        return replace(self, mem_gb=self.mem_gb * memory, timeout_min=self.timeout_min * time)

    def parameters(self) -> dict[str, Any]:
        """What submitit's executor is given."""
        plain = ("partition", "account", "qos", "constraint", "exclude", "signal_delay_s", "cpus_per_task")
        given = {name: getattr(self, name) for name in plain}
        sizes = {"timeout_min": self.timeout_min, "mem_gb": self.mem_gb, "gpus_per_node": self.gpus_per_node or None}
        more = {"setup": [*_setup(self.gpus_per_node), *self.setup]}
        # a node's failure puts a job back into the queue also where that is not the cluster's custom
        return {**given, **sizes, **more, "additional_parameters": {"requeue": True, **self.additional_parameters}}


NAMES = tuple(f.name for f in fields(Resources))
_OF_SBATCH = {f"SBATCH_{name.upper()}": name for name in ("partition", "account", "qos", "constraint", "exclude")}


def resources(trial: Trial, place: Place, *layers: Mapping[str, Any]) -> Resources:
    """What a trial's job asks for.

    Args:
        trial: what runs.
        place: where.
        layers: settings by name, the later over the earlier; below them is what SBATCH_... says of the user's habits.

    Raises:
        InputError: with every wrong name or value.
    """
    merged: dict[str, Any] = {
        _OF_SBATCH[name]: value for name, value in os.environ.items() if name in _OF_SBATCH and value
    }
    for layer in layers:
        merged |= layer
    if place.device == "cpu":
        merged["gpus_per_node"] = 0
    asked = _made(merged)
    if place.device == "cuda" and not asked.gpus_per_node:
        raise InputError("device=cuda needs a GPU; ask for it with --gpus-per-node 1")
    return replace(asked, cpus_per_task=asked.cpus_per_task or trial.threads + place.workers)


def check(settings: Mapping[str, Any]) -> None:
    """Raise an `InputError` with every wrong name or value of some resources."""
    _made({"timeout_min": 1, "mem_gb": 1, "gpus_per_node": 0, "signal_delay_s": 1, **settings})


def _made(settings: Mapping[str, Any]) -> Resources:
    try:
        return Resources(**{name: frozen(value) for name, value in settings.items()})
    except ValidationError as error:
        known = ", ".join(NAMES)
        raise InputError(*explain(error, f"a job has no resource {{}}; there are: {known}")) from None


def _setup(gpus: int) -> list[str]:
    """Lines that make the node ready: this code is found, srun passes the CPUs on, no GPU is used that is not ours."""
    root = Path(wsolbench.__file__).resolve().parents[1]
    lines = ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"]
    if root.name != "site-packages":  # a checkout, which a node finds only by its path
        lines.append(f"export PYTHONPATH={shlex.quote(str(root))}${{PYTHONPATH:+:$PYTHONPATH}}")
    return lines if gpus else [*lines, "export CUDA_VISIBLE_DEVICES="]
