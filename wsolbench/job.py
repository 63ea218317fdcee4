"""The life of a trial: build, train, resume, evaluate, record."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

import torch

from wsolbench import checkpoint, endings, loop, mirror, overhead, protocols, source
from wsolbench.attempts import (
    MOST_FRUITLESS,
    Attempt,
    Order,
    Pulse,
    StalledError,
    SupersededError,
    cluster_job,
    stalled,
)
from wsolbench.batches import Batch, training_batches
from wsolbench.checkpoint import Position
from wsolbench.dataset import Split
from wsolbench.endings import IN_ORDER, Ending
from wsolbench.errors import InputError
from wsolbench.evaluator import Evaluator, known_truths, rescore
from wsolbench.geometry import larger
from wsolbench.images import Splits, refuse_other_data, refuse_unheld, splits
from wsolbench.machine import environment, peak_mib, settle
from wsolbench.method import Net
from wsolbench.network import method_of, network, parameter_groups
from wsolbench.pixels import Pixels
from wsolbench.place import Place
from wsolbench.stop import Stop
from wsolbench.store import COUNTED, DATA, Store
from wsolbench.trial import Trial, canonical
from wsolbench.truth import Truth

CODE_CHANGED = "the code was changed between the submission of a trial and its start"
"""A note of records and of the reports that show them."""

NO_ORDER = Order()

Say = Callable[[Mapping[str, Any]], None]


def run(
    trial: Trial,
    place: Place,
    say: Say = lambda _: None,
    stop: Stop | None = None,
    order: Order = NO_ORDER,
    *,
    known: dict[bytes, Any] | None = None,
) -> dict[str, Any]:
    """The record of a trial: the stored one, else that of training it here, from its last checkpoint if there is one.

    Args:
        trial: what to run.
        place: where.
        say: is given each epoch's numbers.
        stop: may ask for an end after any step.
        order: of the launcher, if there is one.
        known: of other trials, as `Shared` keeps it.

    Raises:
        InputError: the data, weights or device are not what the trial needs.
        DivergedError: the loss is no number any more.
        SupersededError: a newer attempt has begun, and there is no record yet.
        Stopped: the cluster asked for a stop; the next attempt goes on from there.
        StalledError: it did so again and again before an attempt had got anywhere.
    """
    store = Store(place.results)
    store.add(trial)
    record = store.record(trial.id)
    if record is None:
        pulse, code, shared = Pulse(store.attempt(trial.id)), _code(order), Shared({} if known is None else known)
        try:
            with mirror.mirrored(trial, place, say) as tell:
                _live(_Run(trial, place, store, pulse, tell, stop or Stop(), code, shared), order)
        except SupersededError:
            if store.record(trial.id) is None:
                raise
        record = store.record(trial.id)
    else:
        if place.data is not None:
            refuse_other_data([(record, splits(trial, place))], place)
        if place.protocol not in {None, *record["results"]}:
            rescore(trial, place)
            record = store.record(trial.id)
    assert record is not None  # noqa: S101  it has just been put
    return record


def _live(run: "_Run", order: Order) -> None:
    """An attempt at a trial, from its first word to its last."""
    attempt, pulse = run.pulse.attempt, run.pulse
    try:
        attempt.begin(_meta(run, order))
        with pulse.beating():
            run.publish()
    except BaseException as error:
        found = endings.ending(error, run.trial, run.stop)
        detail = "" if found.kind in IN_ORDER else traceback.format_exc()
        _end(attempt, found, detail, moved=pulse.moved, epoch=pulse.epoch, step=pulse.step)
        if found.kind == "preempted":
            if stalled(run.store.attempts(run.trial.id)):
                _give_up(attempt, found)
            run.stop.check()
        raise
    _end(attempt, Ending("done"))


def _end(attempt: Attempt, found: Ending, detail: str = "", **facts: Any) -> None:
    """Write down how it ended, if that can be: what ended it is raised all the same."""
    try:
        attempt.end(found.kind, found.message, detail, **facts, **found.facts)
    except OSError as error:
        _warn(f"cannot write how attempt {attempt.name} ended: {error}")


def _warn(what: str) -> None:
    sys.stderr.write(f"wsolbench: {what}\n")


def _give_up(attempt: Attempt, found: Ending) -> NoReturn:
    """The trial gets nowhere: it fails instead of being queued for ever."""
    message = f"{found.message}, as were the {MOST_FRUITLESS - 1} attempts before it, none of which left a checkpoint"
    message += ": a step takes longer than a job may run; give jobs more time"
    _end(attempt, Ending("failed", message), message + "\n")
    raise StalledError(message)


def _meta(run: "_Run", order: Order) -> dict[str, Any]:
    """What an attempt says of itself when it begins."""
    device = settle(run.trial, run.place)
    slurm = {name: os.environ.get(f"SLURM_{name}") for name in ("JOB_ID", "RESTART_COUNT")}
    return {
        "slurm_job": cluster_job(),
        "slurm_job_id": slurm["JOB_ID"],
        "slurm_restarts": int(slurm["RESTART_COUNT"] or 0),
        "node": os.environ.get("SLURMD_NODENAME"),
        "submission": order.submission or None,
        **environment(device),
        **run.code,
    }


def _code(order: Order) -> dict[str, Any]:
    """Which code runs, and whether it is that of the submission; a copy of it has no commit but that one."""
    digest = source.digest()
    commit = order.commit if digest == order.code else source.commit()
    return {"commit": commit, "code": digest, "code_changed": digest != order.code if order.code else None}


def check(trial: Trial, place: Place, known: dict[bytes, Any] | None = None) -> None:
    """Raise the `InputError` that running the trial here would, if it would: of device, data, protocol or weights."""
    settle(trial, place)
    images = Shared({} if known is None else known).splits(trial, place)
    refuse_unheld(place, images)
    network(trial, place, len(images.test.classes))
    _refuse_alone(trial, images)


def _refuse_alone(trial: Trial, images: Splits) -> None:
    """Say before training that the last batch of each epoch is one that the network cannot train on."""
    if images.train is None or not trial.epochs or (len(images.train) - 1) % trial.batch_size:
        return
    reason = overhead.untrainable_alone(overhead.line_of(trial), len(images.test.classes), trial.image_size)
    if reason is not None:
        alone = f"batch_size {trial.batch_size} leaves a batch of one of the {len(images.train)} training images"
        raise InputError(f"{alone}, which this network cannot train on ({reason}); take another batch_size")


@dataclass(frozen=True)
class Shared:
    """What is the same for many trials: their images, what is known of them, and what their networks cost.

    Args:
        known: what was found out for trials before, of a data set as it was then; it is added to.
    """

    known: dict[bytes, Any]

    def splits(self, trial: Trial, place: Place) -> Splits:
        """The trial's images, as `splits` gives them, with its errors."""
        return self._once(canonical(_asked(trial, place)), lambda: splits(trial, place))

    def truths(self, trial: Trial, place: Place) -> dict[str, Truth]:
        """What is known of the images that the trial is tested on, as its `Evaluator` keeps it; that adds to it."""
        images, side = self.splits(trial, place), trial.image_size
        return self._once(canonical((*_asked(trial, place), side)), lambda: known_truths(images, side))

    def cost(self, trial: Trial, classes: int) -> dict[str, float]:
        """What the trial's network costs over plain CAM; empty where a method looks at values, which are not there."""
        line = overhead.line_of(trial)
        return self._once(canonical((asdict(line), classes, trial.image_size)), lambda: _counted(trial, classes))

    def _once(self, key: bytes, find: Callable[[], Any]) -> Any:
        if key not in self.known:
            self.known[key] = find()
        return self.known[key]


@dataclass(frozen=True)
class _Run:
    """One attempt at a trial."""

    trial: Trial
    place: Place
    store: Store
    pulse: Pulse
    say: Say
    stop: Stop
    code: Mapping[str, Any]
    shared: Shared

    def publish(self) -> None:
        """Put the record, if this attempt may and is the first to have one."""
        results = self._results()
        self.pulse.attempt.hold()
        if not self.store.put(self.trial, results):
            raise SupersededError(f"attempt {self.pulse.attempt.name} comes second: there is a record")

    def _results(self) -> dict[str, Any]:
        """Everything a record holds beside the trial."""
        device = settle(self.trial, self.place)
        images = self.shared.splits(self.trial, self.place)
        refuse_unheld(self.place, images)
        counted = self.shared.cost(self.trial, len(images.test.classes))
        net, loaded = network(self.trial, self.place, len(images.test.classes))
        _refuse_alone(self.trial, images)
        net.to(device).to(memory_format=torch.channels_last)
        groups = parameter_groups(self.trial, net)
        if images.train is not None and self.trial.epochs:
            self._train(net, images.train, device, images.digest)
        trained = time.monotonic()
        epochs = self.store.epochs(self.trial.id)
        default = protocols.UNHELD if images.held_out is None else protocols.DEFAULT
        truths = self.shared.truths(self.trial, self.place)
        evaluator = Evaluator(self.trial, self.place, images, lambda: net, device, self.stop, truths=truths)
        names = dict.fromkeys((*protocols.of_geometry(protocols.protocol(default).geometry), *_named(self.place)))
        scores = evaluator.scores([name for name in names if evaluator.can(name)])
        evaluator.save(self.store, scores, self.pulse.attempt.name)
        return {
            "attempt": self.pulse.attempt.name,
            "protocol": default,
            "results": {name: found.metrics for name, found in scores.items()},
            "stages": list(net.backbone.stages),
            "images": {name: len(split or ()) for name, split in vars(images).items()},
            DATA: images.digest,
            "notes": self._notes(images),
            "weights": None if loaded is None else asdict(loaded),
            "normalisation": net.backbone.normalisation,
            "parameter_groups": groups,
            "overhead": counted,
            "weights_digest": checkpoint.digest(net),
            "epochs": epochs,
            "cost": _cost(sum(row["seconds"] for row in epochs), time.monotonic() - trained, device),
            "environment": {**environment(device), **self.code},
        }

    def _notes(self, images: "Splits") -> list[str]:
        """What a reader of the numbers is told of them."""
        said = [note for split in vars(images).values() if split for note in split.notes]
        return list(dict.fromkeys([*said, *([CODE_CHANGED] if self.code["code_changed"] else [])]))

    def _train(self, net: Net, split: Split, device: torch.device, data: str) -> None:
        trial, attempt, folder = self.trial, self.pulse.attempt, self.store.path(self.trial.id, "checkpoint")
        sgd = loop.optimizer(net, trial)
        trainer = loop.Trainer(net, method_of(trial), sgd, device, trial.precision, trial.compile)
        pixels = Pixels(split, larger(trial.image_size))
        position = checkpoint.resume(folder, net, sgd, _warn, data=data)
        while position.epoch < trial.epochs:
            self.stop.check()
            position = self._epoch(trainer, pixels, position)
            row = position.row() if position.images == len(split) else None
            if row is not None:
                attempt.epoch(row)  # before the checkpoint: a kill between the two repeats the epoch, with the same row
                position = Position(position.epoch + 1)
            attempt.hold()
            checkpoint.write(folder, position, attempt.name, net, sgd, data=data)
            self.pulse.moved = True
            if row is not None:
                self.say(row)

    def _epoch(self, trainer: loop.Trainer, pixels: Pixels, begun: Position) -> Position:
        """The rest of an epoch, or as much of it as there is before a stop."""
        started = time.monotonic()
        loop.set_rates(trainer.optimizer, self.trial, begun.epoch)
        normalisation, workers = trainer.net.backbone.normalisation, self.place.workers
        batches = training_batches(pixels, self.trial, begun.epoch, normalisation, workers, behind=begun.step)
        reached = trainer.epoch(self._counted(self.stop.heeding(batches), begun), begun)
        return replace(reached, seconds=begun.seconds + time.monotonic() - started)

    def _counted(self, batches: Iterator[Batch], begun: Position) -> Iterator[Batch]:
        """The batches, of which the signs of life say the number."""
        for step, batch in enumerate(batches, begun.step):
            self.pulse.epoch, self.pulse.step = begun.epoch, step
            yield batch


def _asked(trial: Trial, place: Place) -> tuple[Any, ...]:
    """All that decides the trial's images."""
    return trial.dataset, dict(trial.dataset_options), trial.held_out, trial.epochs > 0, str(place.data)


def _named(place: Place) -> list[str]:
    return [] if place.protocol is None else [place.protocol]


def _counted(trial: Trial, num_classes: int) -> dict[str, float]:
    """What `Shared.cost` tells."""
    try:
        found = overhead.overhead(overhead.line_of(trial), num_classes, trial.image_size)
    except RuntimeError:
        return {}
    return {name: getattr(found, name) for name in COUNTED}


def _cost(train_seconds: float, test_seconds: float, device: torch.device) -> dict[str, float]:
    return {"train_seconds": train_seconds, "test_seconds": test_seconds, "peak_mib": peak_mib(device)}
