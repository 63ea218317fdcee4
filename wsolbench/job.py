"""The life of a trial: build, train, resume, evaluate, record."""

import hashlib
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NoReturn

import numpy as np
import torch

from wsolbench import (
    arithmetic,
    backbones,
    checkpoint,
    datasets,
    endings,
    evaluation,
    extract,
    loop,
    memory,
    methods,
    mirror,
    overhead,
    plugins,
    protocols,
    source,
    weights,
)
from wsolbench.attempts import PATIENCE, Attempt, Order, Pulse, StalledError, SupersededError, cluster_job, stalled
from wsolbench.batches import Batch, stream, test_batches, training_batches
from wsolbench.checkpoint import Position
from wsolbench.dataset import Dataset, NoSplitError, Split, SplitName
from wsolbench.endings import IN_ORDER, Ending
from wsolbench.errors import InputError
from wsolbench.evaluation import Predictions, Scores
from wsolbench.geometry import larger
from wsolbench.method import Method, Net, build
from wsolbench.pixels import Pixels
from wsolbench.place import Place
from wsolbench.protocols import Geometry, Protocol
from wsolbench.stop import Stop
from wsolbench.store import COUNTED, DATA, Store
from wsolbench.trial import Trial, canonical
from wsolbench.truth import Truth, of_network

PACKAGES = "wsolbench torch torchvision timm numpy opencv-python-headless"
"""What a number may depend on; their versions are in the record."""

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
    message = f"{found.message}, as were the {PATIENCE - 1} attempts before it, none of which left a checkpoint"
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
    commit = source.commit() or (order.commit if digest == order.code else None)
    return {"commit": commit, "code": digest, "code_changed": digest != order.code if order.code else None}


def check(trial: Trial, place: Place) -> None:
    """Raise the `InputError` that running the trial here would, if it would: of device, data or weights."""
    settle(trial, place)
    images = splits(trial, place)
    _refuse_unheld(place, images)
    network(trial, place, len(images.test.classes))


def rescore(trial: Trial, place: Place) -> Scores:
    """What the place's protocol says of a finished trial, added to its record.

    Stored score maps are scored again as they are; a geometry without any is passed through the network of the last
    checkpoint first.
    """
    store = Store(place.results)
    name = place.protocol or protocols.DEFAULT
    images = splits(trial, place)
    device = settle(trial, place)
    net = cache(lambda: trained(trial, place, images.test.classes, device))
    evaluator = Evaluator(trial, place, images, net, device)
    evaluator.recall(store)
    scores = evaluator.scores([name])
    evaluator.save(store, scores)
    store.put_scores(trial.id, name, scores[name].metrics)
    return scores[name]


def trained(trial: Trial, place: Place, classes: Sequence[str], device: torch.device) -> Net:
    """The network of a finished trial, of its last checkpoint; without epochs there is none, it is as it was built.

    Args:
        trial: what was trained.
        place: where its results are, and its pretrained weights if it has no epochs.
        classes: of `class_names`, or of the data set it was trained on.
        device: where the network is wanted.

    Raises:
        InputError: no checkpoint after the last epoch is left, or it has other classes; the weights are not named.
    """
    store = Store(place.results)
    net = _blank(trial, len(classes)) if trial.epochs else network(trial, place, len(classes))[0]
    mean, deviation = (store.record(trial.id) or {})["normalisation"]
    net.backbone.normalisation = tuple(mean), tuple(deviation)
    net.to(device).to(memory_format=torch.channels_last)
    try:
        epochs = checkpoint.resume(store.path(trial.id, "checkpoint"), net, loop.optimizer(net, trial)).epoch
    except RuntimeError:
        raise InputError(f"the data set has other classes than trial {trial.id} was trained on") from None
    if epochs != trial.epochs:
        raise InputError(f"no checkpoint of trial {trial.id} after its last epoch is left; run it with --fresh")
    return net


def class_names(trial: Trial, place: Place) -> tuple[str, ...]:
    """The classes of a finished trial, by label: those beside its record, else those of its data set."""
    known = Store(place.results).arrays(trial.id, "predictions.npz").get("classes")
    return splits(trial, place).test.classes if known is None else tuple(known.tolist())


@dataclass(frozen=True)
class Splits:
    """The images that a trial trains on, those a threshold may be chosen on, and those it is tested on."""

    train: Split | None
    held_out: Split | None
    test: Split

    @property
    def digest(self) -> str:
        """sha256 of all that is said of them: which images, in which split, with which classes, sizes and boxes."""
        return hashlib.sha256(
            " ".join(split.digest if split else "" for split in vars(self).values()).encode()
        ).hexdigest()


@dataclass(frozen=True)
class Shared:
    """What is the same for many trials: their images, and what their networks cost.

    Args:
        known: what was found out for trials before, of a data set as it was then; it is added to.
    """

    known: dict[bytes, Any]

    def splits(self, trial: Trial, place: Place) -> Splits:
        """The trial's images, as `splits` gives them, with its errors."""
        asked = (trial.dataset, dict(trial.dataset_options), trial.held_out, trial.epochs > 0, str(place.data))
        return self._once(canonical(asked), lambda: splits(trial, place))

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
        _refuse_unheld(self.place, images)
        counted = self.shared.cost(self.trial, len(images.test.classes))
        net, loaded = network(self.trial, self.place, len(images.test.classes))
        net.to(device).to(memory_format=torch.channels_last)
        groups = parameter_groups(self.trial, net)
        if images.train is not None and self.trial.epochs:
            self._train(net, images.train, device, images.digest)
        trained = time.monotonic()
        epochs = self.store.epochs(self.trial.id)
        default = protocols.UNHELD if images.held_out is None else protocols.DEFAULT
        evaluator = Evaluator(self.trial, self.place, images, lambda: net, device, self.stop)
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
        trainer = loop.Trainer(net, _method(trial), sgd, device, trial.precision, trial.compile)
        pixels = Pixels(split, larger(trial.image_size))
        position = checkpoint.resume(folder, net, sgd, _warn, data)
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


@dataclass(frozen=True)
class Evaluator:
    """Scores a trained network by protocols, with one forward pass for each geometry they ask for."""

    trial: Trial
    place: Place
    images: Splits
    net: Callable[[], Net]  # called where a pass is not stored
    device: torch.device
    stop: Stop = field(default_factory=Stop)  # may ask for an end after any batch
    passes: dict[str, Predictions] = field(default_factory=dict)  # `geometry/split`
    truths: dict[str, Truth] = field(default_factory=dict)  # as above
    counts: evaluation.Counts = field(default_factory=dict)  # of the test images

    def can(self, name: str) -> bool:
        """Whether the protocol has the images it chooses its threshold on."""
        return protocols.protocol(name).threshold != "held_out" or self.images.held_out is not None

    def scores(self, names: Sequence[str]) -> dict[str, Scores]:
        """The scores by protocol; `InputError` where held-out images are asked for and there are none."""
        return {name: self._scores(protocols.protocol(name)) for name in names}

    def recall(self, store: Store) -> None:
        """Take the passes that are stored already, instead of making them again."""
        predictions, maps = (store.arrays(self.trial.id, name) for name in ("predictions.npz", "scoremaps.npz"))
        if predictions and self._names(predictions) != self._names(self._known()):
            raise InputError(f"the data set has other images or labels than trial {self.trial.id} was tested on")
        for key, score_maps in maps.items():
            self.passes[key] = Predictions(predictions[f"{key}/top5"], predictions[f"{key}/probabilities"], score_maps)

    def save(self, store: Store, scores: Mapping[str, Scores], attempt: str | None = None) -> None:
        """Keep what the numbers are made of, image by image: of an attempt, else of the record; what is there stays."""
        known = self._known()
        for key, found in self.passes.items():
            known |= {f"{key}/top5": found.top5, f"{key}/probabilities": found.probabilities}
        for name, said in scores.items():
            known |= {f"{name}/{key}": values for key, values in said.images.items()}
            known |= {f"{name}/class/{key}": values for key, values in said.classes.items()}
            known[f"{name}/curve"] = said.curve
        there = store.arrays(self.trial.id, "predictions.npz", attempt)
        maps = {key: found.score_maps for key, found in self.passes.items()}
        store.put_arrays(self.trial.id, "predictions.npz", {**there, **known}, attempt)
        store.put_arrays(self.trial.id, "scoremaps.npz", maps, attempt)

    def _known(self) -> dict[str, Any]:
        test, held_out = self.images.test, self.images.held_out
        held_out_ids = np.array(held_out.ids if held_out else [], np.str_)
        known = {"ids": np.array(test.ids), "labels": test.labels, "classes": np.array(test.classes)}
        return {**known, "held_out_ids": held_out_ids}

    @staticmethod
    def _names(known: Mapping[str, Any]) -> list[list[Any]]:
        return [known[key].tolist() for key in ("ids", "labels", "held_out_ids")]

    def _scores(self, protocol: Protocol) -> Scores:
        test = self._pass(protocol.geometry, "test")
        truth = self._truth(protocol.geometry, "test")
        held_out = None
        if self.images.held_out is not None and protocol.threshold == "held_out":
            score_maps = self._pass(protocol.geometry, "held_out").score_maps
            held_out = (score_maps, self._truth(protocol.geometry, "held_out"))
        return evaluation.evaluate(test, truth, protocol, held_out, self.trial.threads, counts=self.counts)

    def _truth(self, geometry: Geometry, name: str) -> Truth:
        key = f"{geometry}/{name}"
        if key not in self.truths:
            self.truths[key] = of_network(getattr(self.images, name), geometry, self.trial.image_size)
        return self.truths[key]

    def _pass(self, geometry: Geometry, name: str) -> Predictions:
        key = f"{geometry}/{name}"
        if key not in self.passes:
            pixels = Pixels(getattr(self.images, name), self.trial.image_size, geometry)
            net = self.net()
            batches = test_batches(pixels, self.trial.batch_size, net.backbone.normalisation, self.place.workers)
            extractor = extract.extractor(self.trial.extract)
            found = evaluation.collect(loop.predict(net, self.stop.heeding(batches), self.device, extractor))
            self.stop.check()
            self.passes[key] = found
        return self.passes[key]


def settle(trial: Trial, place: Place) -> torch.device:
    """The device, made ready: the trial's number of threads, and `arithmetic`, which says what repeats bit for bit.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    wanted = place.device == "cuda" or (place.device == "auto" and place.gpus > 0)
    if place.device not in {"auto", "cpu", "cuda"}:
        raise InputError(f"device must be auto, cpu or cuda, not {place.device!r}")
    if wanted and not torch.cuda.is_available():
        asked = f"the job asked for {place.gpus} GPU(s)" if place.gpus else "device=cuda"
        raise InputError(f"{asked}, but torch {torch.__version__} finds no GPU here; say device=cpu to run without one")
    torch.set_num_threads(trial.threads)
    arithmetic.settle()
    memory.keep_freed()
    use = "cuda" if place.device != "cpu" and torch.cuda.is_available() else "cpu"
    return torch.device(use)


def splits(trial: Trial, place: Place) -> Splits:
    """The trial's images.

    Those held out are a share of each class's training images, so that what is trained on does not depend on what else
    is on the disk; where the trial holds out none, they are the data set's own, if it has any with boxes.

    Raises:
        InputError: there is nothing to train on, or some test images have boxes and others none.
    """
    dataset = plugins.make(datasets, trial.dataset, trial.dataset_options)
    test = dataset.split("test", place.data)
    test.boxed  # noqa: B018  some with and some without is an error, before training
    train = _unless_absent(dataset, "train", place, needed=trial.epochs > 0)
    if trial.held_out > 0 and train is not None:
        rest, held_out = train.held_out(trial.held_out)
        return Splits(rest, held_out, test) if len(held_out) else Splits(train, None, test)
    own = _unless_absent(dataset, "held_out", place)
    return Splits(train, own if own is not None and own.boxed else None, test)


def refuse_other_data(found: Iterable[tuple[Mapping[str, Any], Splits]], place: Place) -> None:
    """Raise the `InputError` that names finished trials whose images are others than are in the place's folder now."""
    digests = ((record["id"], record.get(DATA), images.digest) for record, images in found)
    wrong = [(trial, theirs, ours) for trial, theirs, ours in digests if theirs not in {ours, None}]  # None: an old one
    if wrong:
        trial, theirs, ours = wrong[0]
        others = f" and {len(wrong) - 1} others" if wrong[1:] else ""
        raise InputError(
            f"{place.data} holds other images, classes or boxes (data digest {ours[:12]}) than trial {trial}{others} "
            f"in {place.results} ({theirs[:12]}): choose another --results, or run such a trial again with --fresh"
        )


def _refuse_unheld(place: Place, images: Splits) -> None:
    """Refuse, before training, a protocol that chooses its threshold on images that are not there."""
    if place.protocol and images.held_out is None and protocols.protocol(place.protocol).threshold == "held_out":
        raise InputError(f"protocol {place.protocol} chooses its threshold on held-out images, and there are none")


def _unless_absent(dataset: Dataset, name: SplitName, place: Place, *, needed: bool = False) -> Split | None:
    try:
        return dataset.split(name, place.data)
    except NoSplitError:
        if needed:
            raise
        return None


def _named(place: Place) -> list[str]:
    return [] if place.protocol is None else [place.protocol]


def network(trial: Trial, place: Place, classes: int) -> tuple[Net, weights.Provenance | None]:
    """The trial's network of so many classes before training, and what pretrained weights went into it."""
    net = _blank(trial, classes)
    if trial.weights == "none":
        return net, None
    if trial.weights != weights.IMAGENET and place.weights is None:
        raise InputError(f"the trial starts from the weights file of sha256 {trial.weights}; name it with weights=FILE")
    loaded = weights.load(net, place.weights or trial.weights)
    if trial.weights not in {weights.IMAGENET, loaded.sha256}:
        raise InputError(f"{loaded.source} has sha256 {loaded.sha256}, but the trial asks for {trial.weights}")
    return net, loaded


def _blank(trial: Trial, classes: int) -> Net:
    """The trial's network without pretrained weights."""
    extract.extractor(trial.extract)  # a library that is missing is told before training
    torch.manual_seed(stream(trial.seed))
    backbone = plugins.make(backbones, trial.backbone, trial.backbone_options).build()
    return build(_method(trial), backbone, classes)


def parameter_groups(trial: Trial, net: Net) -> list[dict[str, Any]]:
    """Which parameters train at which rate."""
    rates = (("pretrained", net.pretrained_parameters(), trial.lr), ("new", net.new_parameters(), trial.head_lr))
    return [{"group": name, "parameters": sum(p.numel() for p in found), "lr": rate} for name, found, rate in rates]


def _method(trial: Trial) -> Method:
    return plugins.make(methods, trial.method, trial.method_options)


def environment(device: torch.device) -> dict[str, Any]:
    """What the numbers were computed with."""
    extras = [name for name in ("torchcam",) if find_spec(name)]
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in (*PACKAGES.split(), *extras)},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "tf32": torch.backends.cudnn.allow_tf32,  # of fp32 on a GPU
    }


def _counted(trial: Trial, num_classes: int) -> dict[str, float]:
    """What `Shared.cost` tells."""
    try:
        found = overhead.overhead(overhead.line_of(trial), num_classes, trial.image_size)
    except RuntimeError:
        return {}
    return {name: getattr(found, name) for name in COUNTED}


def _cost(train_seconds: float, test_seconds: float, device: torch.device) -> dict[str, float]:
    return {"train_seconds": train_seconds, "test_seconds": test_seconds, "peak_mib": endings.peak_mib(device)}
