"""A process that imports and compiles everything once, and forks a child for each trial that it is handed.

A trial starts within milliseconds and yet has a process of its own: what ends it ends nothing else.
"""

import os
import pickle
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from wsolbench import files, worker
from wsolbench.attempts import Order, running_here
from wsolbench.memory import lasting
from wsolbench.place import Place
from wsolbench.stop import held_back, unheard
from wsolbench.trial import from_spec

POLL = 0.02
"""Seconds between two looks for trials that are handed over or have ended."""

CARDS = "CUDA_VISIBLE_DEVICES"
"""The environment's word for the GPUs that a process sees, by CUDA's names."""

_STOPPING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Terms:
    """How workers run what they are handed.

    Args:
        place: where.
        order: what the launcher hands to each trial.
        cards: for each slot, which has one trial at a time, the GPU that it sees, by CUDA's name; the empty string for
            none.
    """

    place: Place
    order: Order
    cards: Sequence[str]


@dataclass(frozen=True)
class Handover:
    """Where launcher and workers meet: `terms`, `todo/<name>` a trial, `ended/<name>` the exit code of its child."""

    folder: Path

    def open(self) -> None:
        """Make the folders."""
        for name in ("todo", "ended", "logs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Say that no more trials come."""
        (self.folder / "closed").touch()

    @property
    def closed(self) -> bool:
        """Whether no more trials come."""
        return (self.folder / "closed").exists()

    def agree(self, terms: Terms) -> None:
        """Say how trials are run; nothing is run before."""
        files.write(self.folder / "terms", pickle.dumps(terms))

    def terms(self) -> Terms | None:
        """What was agreed; None if that is still to come."""
        try:
            found: Terms = pickle.loads((self.folder / "terms").read_bytes())  # noqa: S301  the folder is its owner's
        except FileNotFoundError:
            return None
        return found

    def hand(self, name: str, spec: Mapping[str, Any]) -> None:
        """Hand a trial over."""
        files.write(self.folder / "todo" / name, files.text(spec))

    def withdraw(self, name: str) -> bool:
        """Take a trial back; False if a worker has it already."""
        try:
            (self.folder / "todo" / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def next(self) -> tuple[str, dict[str, Any]] | None:
        """The trial that has waited longest, taken; None if there is none."""
        for path in sorted((self.folder / "todo").glob("[!.]*")):
            spec = files.plain(path)
            if spec and self.withdraw(path.name):
                return path.name, spec
        return None

    def end(self, name: str, code: int) -> None:
        """Say how a trial's process exited."""
        files.write(self.folder / "ended" / name, str(code).encode())

    def ended(self, name: str) -> bool:
        """Whether a trial's process has exited."""
        return (self.folder / "ended" / name).exists()


def serve(handover: Handover, launcher: Mapping[str, Any]) -> None:
    """Run what is handed over, a trial in each slot, as long as the launcher is there.

    Until it has terms a stop ends it at once: nothing has been taken.

    Args:
        handover: where terms and trials come from.
        launcher: the process that hands them over, as `attempts.here` describes it.
    """
    _hear(signal.SIG_DFL)
    warm()
    while (terms := handover.terms()) is None:
        if handover.closed or not running_here(launcher):
            return
        time.sleep(POLL)
    slots = _Slots(handover, terms, dict.fromkeys(range(len(terms.cards))))
    _hear(slots.stop)
    while True:
        slots.stopping |= not running_here(launcher)
        slots.reap()
        slots.fill()
        if not slots.busy and (slots.stopping or handover.closed):
            return
        time.sleep(POLL)


def _hear(how: Any) -> None:
    for number in _STOPPING:
        if not unheard(number):
            signal.signal(number, how)


@lasting()
def warm() -> None:
    """Import, read, and load the compiled kernels, as children need not then.

    Torch starts no threads here, now or later: a child could not use them.
    """
    import numpy as np  # noqa: PLC0415  these take two seconds
    import torch._dynamo  # noqa: PLC0415  as optimizers do

    from wsolbench import boxes, machine, protocols, scoremaps, source  # noqa: PLC0415
    from wsolbench import job as job  # noqa: PLC0414, PLC0415  for the children
    from wsolbench._pixels import windows  # noqa: PLC0415
    from wsolbench.backbone import IMAGENET  # noqa: PLC0415
    from wsolbench.batches import table_of  # noqa: PLC0415
    from wsolbench.metrics import BoxAccuracy, threshold_grid  # noqa: PLC0415

    torch.set_num_threads(1)
    machine.packages()
    source.digest()
    protocols.names()
    maps, box = np.zeros((1, 8, 8), np.float32), [np.array([[1.0, 1.0, 4.0, 4.0]])]
    maps[0, 2:5, 2:5] = 1
    boxes.boxes_at_thresholds(scoremaps.resized(maps, 16, 16, "linear"), [0.2])
    BoxAccuracy(threshold_grid()).update(maps, box)
    rows, corners, mirrored = np.zeros(1, np.int64), np.zeros((1, 2), np.int64), np.zeros(1, np.bool_)
    windows(np.zeros((1, 8, 8, 3), np.uint8), rows, corners, mirrored, table_of(IMAGENET), 8)


@lasting()
def prepare(spec: Mapping[str, Any], place: Place, known: dict[bytes, Any]) -> None:
    """Find out what a trial shares with others: its backbone, whose imports take most of a second, images, truth, cost.

    What is wrong with it is its child's to tell.
    """
    from wsolbench import job, recipe  # noqa: PLC0415  import torch

    with suppress(Exception):
        recipe.blueprint(spec["backbone"], spec["backbone_options"])
        trial, shared = from_spec(spec), job.Shared(known)
        shared.cost(trial, len(shared.splits(trial, place).test.classes))
        for truth in shared.truths(trial, place).values():
            truth.prepare()


@dataclass(repr=False)  # `signal` writes out what hears a signal, with all that it knows
class _Slots:
    """The children, each in its slot."""

    handover: Handover
    terms: Terms
    children: dict[int, tuple[int, str] | None]  # slot -> process and name of the trial
    stopping: bool = False
    known: dict[bytes, Any] = field(default_factory=dict)  # of `job.Shared`

    @property
    def busy(self) -> bool:
        """Whether any child runs."""
        return any(self.children.values())

    def stop(self, number: int, _: FrameType | None) -> None:
        """Take no more trials and pass the wish on; the children stop between two steps."""
        self.stopping = True
        for child in filter(None, self.children.values()):
            os.kill(child[0], number)

    def reap(self) -> None:
        """Write down which children have exited."""
        for slot, child in self.children.items():
            if child is not None:
                pid, status = os.waitpid(child[0], os.WNOHANG)
                if pid:
                    self.children[slot] = None
                    self.handover.end(child[1], os.waitstatus_to_exitcode(status))

    def fill(self) -> None:
        """Fork a child for each trial there is room for."""
        for slot in (slot for slot, child in self.children.items() if child is None):
            found = None if self.stopping else self.handover.next()
            if found is None:
                return
            name, spec = found
            prepare(spec, self.terms.place, self.known)
            self._fork(slot, name, spec)

    def _fork(self, slot: int, name: str, spec: Mapping[str, Any]) -> None:
        """Give a trial a process, unless a stop was asked for meanwhile; one that is asked for now reaches it too."""
        with held_back(*_STOPPING):
            if self.stopping:
                self.handover.hand(name, spec)
                return
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
            if pid == 0:
                self._be(slot, name, spec)
            self.children[slot] = (pid, name)

    def _be(self, slot: int, name: str, spec: Mapping[str, Any]) -> NoReturn:
        """Be the process of a trial."""
        code = worker.FAILED
        try:
            os.environ[CARDS] = self.terms.cards[slot]
            log = os.open(self.handover.folder / "logs" / f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            worker.work_and_exit(spec, self.terms.place, self.terms.order, known=self.known)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else worker.FAILED
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
