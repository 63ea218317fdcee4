"""The life of a trial: build, train, resume, evaluate, record."""

import platform
import resource
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsolbench import (
    backbones,
    checkpoint,
    datasets,
    evaluation,
    extract,
    loop,
    methods,
    mirror,
    overhead,
    plugins,
    protocols,
    weights,
)
from wsolbench.attempts import Attempt, cluster_job
from wsolbench.batches import Batch, stream, test_batches, training_batches
from wsolbench.dataset import Dataset, NoSplitError, Split, SplitName
from wsolbench.errors import InputError
from wsolbench.evaluation import Predictions, Scores
from wsolbench.geometry import Geometry, larger
from wsolbench.method import Method, Net, build
from wsolbench.pixels import Pixels
from wsolbench.place import Place
from wsolbench.protocols import Protocol
from wsolbench.store import COUNTED, Store
from wsolbench.trial import Trial
from wsolbench.truth import Truth, of_network

PACKAGES = "wsolbench torch torchvision timm numpy opencv-python-headless"
"""What a number may depend on; their versions are in the record."""

BEAT = 20.0
"""Seconds between two signs of life."""

Say = Callable[[Mapping[str, Any]], None]


def run(trial: Trial, place: Place, say: Say = lambda _: None) -> dict[str, Any]:
    """The record of a trial: the stored one, else that of training it here, from its last checkpoint if there is one.

    Args:
        trial: what to run.
        place: where.
        say: is given each epoch's numbers.

    Raises:
        InputError: the data, weights or device are not what the trial needs.
        DivergedError: the loss is no number any more.
    """
    store = Store(place.results)
    store.add(trial)
    record = store.record(trial.id)
    if record is None:
        attempt = store.attempt(trial.id)
        with mirror.mirrored(trial, place, say) as tell, _ending(attempt):
            attempt.begin({"commit": commit(), "slurm_job": cluster_job()})
            store.put(trial, _Run(trial, place, store, attempt, tell).results())
        record = store.record(trial.id)
    elif place.protocol not in {None, *record["results"]}:
        rescore(trial, place)
        record = store.record(trial.id)
    assert record is not None  # noqa: S101  it has just been put
    return record


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
        epochs = checkpoint.resume(store.path(trial.id, "checkpoint"), net, loop.optimizer(net, trial))
    except RuntimeError:
        raise InputError(f"the data set has other classes than trial {trial.id} was trained on") from None
    if epochs != trial.epochs:
        raise InputError(f"no checkpoint of trial {trial.id} after its last epoch is left; run it with --fresh")
    return net


def class_names(trial: Trial, place: Place) -> tuple[str, ...]:
    """The classes of a finished trial, by label: those beside its record, else those of its data set."""
    known = Store(place.results).arrays(trial.id, "predictions.npz").get("classes")
    return splits(trial, place).test.classes if known is None else tuple(known.tolist())


@contextmanager
def _ending(attempt: Attempt) -> Iterator[None]:
    """Write down how the attempt ends, and let what ended it pass."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        attempt.end("interrupted")
        raise
    except BaseException as error:
        kinds: dict[type[BaseException], str] = {loop.DivergedError: "diverged", torch.OutOfMemoryError: "oom"}
        attempt.end(kinds.get(type(error), "failed"), f"{type(error).__name__}: {error}", traceback.format_exc())
        raise
    attempt.end("done")


@dataclass(frozen=True)
class Splits:
    """The images that a trial trains on, those a threshold may be chosen on, and those it is tested on."""

    train: Split | None
    held_out: Split | None
    test: Split


@dataclass(frozen=True)
class _Run:
    """One attempt at a trial."""

    trial: Trial
    place: Place
    store: Store
    attempt: Attempt
    say: Say

    def results(self) -> dict[str, Any]:
        """Everything a record holds beside the trial."""
        device = settle(self.trial, self.place)
        images = splits(self.trial, self.place)
        _refuse_unheld(self.place, images)
        counted = _counted(self.trial, len(images.test.classes))
        net, loaded = network(self.trial, self.place, len(images.test.classes))
        net.to(device).to(memory_format=torch.channels_last)
        groups = parameter_groups(self.trial, net)
        if images.train is not None and self.trial.epochs:
            self._train(net, images.train, device)
        trained = time.monotonic()
        epochs = self.store.epochs(self.trial.id)
        default = protocols.UNHELD if images.held_out is None else protocols.DEFAULT
        evaluator = Evaluator(self.trial, self.place, images, lambda: net, device)
        names = dict.fromkeys((*protocols.of_geometry(protocols.protocol(default).geometry), *_named(self.place)))
        scores = evaluator.scores([name for name in names if evaluator.can(name)])
        evaluator.save(self.store, scores)
        return {
            "protocol": default,
            "results": {name: found.metrics for name, found in scores.items()},
            "stages": list(net.backbone.stages),
            "images": {name: len(split or ()) for name, split in vars(images).items()},
            "notes": list(dict.fromkeys(note for split in vars(images).values() if split for note in split.notes)),
            "weights": None if loaded is None else asdict(loaded),
            "normalisation": net.backbone.normalisation,
            "parameter_groups": groups,
            "overhead": counted,
            "weights_digest": checkpoint.digest(net),
            "epochs": epochs,
            "cost": _cost(sum(row["seconds"] for row in epochs), time.monotonic() - trained, device),
            "environment": environment(device),
        }

    def _train(self, net: Net, split: Split, device: torch.device) -> None:
        trial, folder = self.trial, self.store.path(self.trial.id, "checkpoint")
        sgd = loop.optimizer(net, trial)
        trainer = loop.Trainer(net, _method(trial), sgd, device, trial.precision)
        pixels = Pixels(split, larger(trial.image_size))
        for epoch in range(checkpoint.resume(folder, net, sgd), trial.epochs):
            started = time.monotonic()
            loop.set_rates(sgd, trial, epoch)
            batches = training_batches(pixels, trial, epoch, net.backbone.normalisation, self.place.workers)
            loss = trainer.epoch(self._beating(batches))
            row = {"epoch": epoch + 1, "loss": loss, "seconds": time.monotonic() - started}
            self.attempt.epoch(
                row
            )  # before the checkpoint: a kill between the two repeats the epoch, with the same row
            checkpoint.write(folder, epoch + 1, self.attempt.folder.name, net, sgd)
            self.say(row)

    def _beating(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, with a sign of life every few seconds: an epoch may take hours."""
        last = time.monotonic()
        for batch in batches:
            if time.monotonic() - last > BEAT:
                self.attempt.beat()
                last = time.monotonic()
            yield batch


@dataclass(frozen=True)
class Evaluator:
    """Scores a trained network by protocols, with one forward pass for each geometry they ask for."""

    trial: Trial
    place: Place
    images: Splits
    net: Callable[[], Net]  # called where a pass is not stored
    device: torch.device
    passes: dict[str, Predictions] = field(default_factory=dict)  # `geometry/split`
    truths: dict[str, Truth] = field(default_factory=dict)  # as above

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

    def save(self, store: Store, scores: Mapping[str, Scores]) -> None:
        """Keep beside the record what its numbers are made of, image by image; what is there already stays."""
        known = self._known()
        for key, found in self.passes.items():
            known |= {f"{key}/top5": found.top5, f"{key}/probabilities": found.probabilities}
        for name, said in scores.items():
            known |= {f"{name}/{key}": values for key, values in said.images.items()}
            known |= {f"{name}/class/{key}": values for key, values in said.classes.items()}
            known[f"{name}/curve"] = said.curve
        store.put_arrays(self.trial.id, "predictions.npz", {**store.arrays(self.trial.id, "predictions.npz"), **known})
        store.put_arrays(self.trial.id, "scoremaps.npz", {key: found.score_maps for key, found in self.passes.items()})

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
        return evaluation.evaluate(test, truth, protocol, held_out, self.trial.threads)

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
            self.passes[key] = evaluation.collect(loop.predict(net, batches, self.device, extractor))
        return self.passes[key]


def settle(trial: Trial, place: Place) -> torch.device:
    """The device, made ready: the trial's number of threads, nothing that varies from run to run.

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
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
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
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in (*PACKAGES.split(), *extras)},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
    }


@cache
def commit() -> str | None:
    """The commit of this code, `+` behind it if files differ; None outside a checkout."""
    try:
        found, changed = (_git(*words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno")))
    except (OSError, subprocess.CalledProcessError):
        return None
    return found + "+" * bool(changed)


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603  our own words


def _counted(trial: Trial, num_classes: int) -> dict[str, float]:
    """What the network costs over plain CAM; empty for a method that looks at values, of which nothing is counted."""
    line = overhead.Line(
        labels=(trial.backbone, trial.method),
        backbone=trial.backbone,
        method=trial.method,
        backbone_options=dict(trial.backbone_options),
        method_options=dict(trial.method_options),
    )
    try:
        found = overhead.overhead(line, num_classes, trial.image_size)
    except RuntimeError:
        return {}
    return {name: getattr(found, name) for name in COUNTED}


def _cost(train_seconds: float, test_seconds: float, device: torch.device) -> dict[str, float]:
    return {"train_seconds": train_seconds, "test_seconds": test_seconds, "peak_mib": _peak_mib(device)}


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
