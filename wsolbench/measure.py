"""What a network costs beside another one as it runs: time and peak memory of a training step and of inference."""

import gc
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsolbench import arithmetic, loop, memory
from wsolbench.batches import Batch
from wsolbench.errors import InputError
from wsolbench.loop import Trainer
from wsolbench.place import Device

Make = Callable[[], Trainer]
Work = Callable[[Trainer, Batch], object]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to measure."""

    pairs: int = 5  # of turns that are counted
    batch_size: int = 8
    image_size: int | None = None  # side, pixels; None is that of the table
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Ratios to another network: times as the median of the pairs with the lowest and the highest, and peak memory."""

    train_time_ratio: float
    train_time_ratio_min: float
    train_time_ratio_max: float
    train_memory_ratio: float
    inference_time_ratio: float
    inference_time_ratio_min: float
    inference_time_ratio_max: float
    inference_memory_ratio: float
    pairs: int


def train(trainer: Trainer, batch: Batch) -> None:
    """One step: forward, loss, backward, update of the weights; it ends when the device has its loss."""
    trainer.epoch([batch])


def infer(trainer: Trainer, batch: Batch) -> None:
    """Scores and the score maps of the labels, on the CPU."""
    for _ in loop.predict(trainer.net, [batch], trainer.device):
        pass


WORKS: Mapping[str, Work] = {"train": train, "inference": infer}


def measure(own: Make, other: Make, batch: Batch, pairs: int, device: torch.device) -> Measured:
    """The ratios of `own` to `other`, which are made on `device`: anew for each memory, once for all times."""
    found: dict[str, float] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a method may draw
        for name, work in WORKS.items():
            peaks = [peak_bytes(make, work, batch, device) for make in (own, other)]
            found[f"{name}_memory_ratio"] = peaks[0] / peaks[1]
        sides = own(), other()
        for name, work in WORKS.items():
            ratios = time_ratios(sides, work, batch, pairs)
            key = f"{name}_time_ratio"
            found |= {key: median(ratios), f"{key}_min": min(ratios), f"{key}_max": max(ratios)}
    return Measured(**found, pairs=pairs)


def time_ratios(sides: tuple[Trainer, Trainer], work: Work, batch: Batch, pairs: int) -> list[float]:
    """Seconds of the first side over those of the second, pair by pair; who begins alternates."""
    for side in sides:
        work(side, batch)  # not counted: the first turn allocates
    ratios = []
    for pair in range(pairs):
        order = (0, 1) if pair % 2 else (1, 0)
        seconds = {index: _seconds(sides[index], work, batch) for index in order}
        ratios.append(seconds[0] / seconds[1])
    return ratios


def _seconds(side: Trainer, work: Work, batch: Batch) -> float:
    start = time.perf_counter()
    work(side, batch)
    return time.perf_counter() - start


def peak_bytes(make: Make, work: Work, batch: Batch, device: torch.device) -> int:
    """The most memory in use while a network is made and works twice: the second time with its momentum.

    On a GPU it is that of torch's allocator, which has the scratch memory of some kernels too; elsewhere that of all
    tensors alive: weights, gradients, momentum, and what the backward pass needs.
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(device)
        _twice(make, work, batch)
        return torch.cuda.max_memory_allocated(device)
    with Alive() as alive:
        _twice(make, work, batch)
    return alive.peak


def _twice(make: Make, work: Work, batch: Batch) -> None:
    trainer = make()
    work(trainer, batch)
    work(trainer, batch)


class Alive(TorchDispatchMode):
    """Adds up the bytes of the tensors alive that operators have made within it; `peak` is the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.peak = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self._add(each.untyped_storage())
        self.peak = max(self.peak, self.bytes)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()  # noqa: SLF001  without values, on meta, data_ptr() is 0
        if size and address not in self._storages:  # else a view, or changed in place
            self.bytes += size
            self._storages[address] = weakref.ref(storage, lambda _: self._drop(address, size))

    def _drop(self, address: int, size: int) -> None:
        del self._storages[address]
        self.bytes -= size


def settle(device: Device) -> torch.device:
    """The device; a GPU where there is one, unless told otherwise. It computes and keeps freed memory as trials do."""
    arithmetic.settle()
    memory.keep_freed()
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device cuda: torch {torch.__version__} finds no GPU here; say cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def described(device: torch.device) -> str:
    """Where it runs and what its memory is, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; memory is the peak of torch's allocator"
    return f"a CPU (threads: {torch.get_num_threads()}); memory is the peak of all tensors alive"


def noise(size: int, side: int, num_classes: int) -> Batch:
    """A batch of random images and labels; what is in them decides no time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, side, side, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.randint(num_classes, (size,), generator=generator)
    return Batch(images, labels, tuple(map(str, range(size))))
