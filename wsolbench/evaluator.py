"""The scores of a trial: each geometry's pass once, whatever protocols ask for it; kept, and scored again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch

from wsolbench import evaluation, extract, loop, protocols
from wsolbench.batches import test_batches
from wsolbench.errors import InputError
from wsolbench.evaluation import Predictions, Scores
from wsolbench.folding import folded
from wsolbench.images import Splits, splits
from wsolbench.machine import settle
from wsolbench.method import Net
from wsolbench.network import trained
from wsolbench.pixels import Pixels
from wsolbench.place import Place
from wsolbench.protocols import Geometry, Protocol
from wsolbench.stop import Stop
from wsolbench.store import Store
from wsolbench.trial import Trial
from wsolbench.truth import Truth, of_network


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
        for key, score_maps in maps.items() if predictions else ():
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
            size = 2 * self.trial.batch_size  # without gradients maps are not kept
            batches = test_batches(pixels, size, net.backbone.normalisation, self.place.workers)
            extractor = extract.extractor(self.trial.extract)
            with folded(net, self.trial.image_size, extractor):
                found = evaluation.collect(loop.predict(net, self.stop.heeding(batches), self.device, extractor))
            self.stop.check()
            self.passes[key] = found
        return self.passes[key]


def known_truths(images: Splits, side: int) -> dict[str, Truth]:
    """What is known of the test images in the default protocol's geometry, as a network of input `side` sees them."""
    geometry = protocols.protocol(protocols.DEFAULT).geometry
    return {f"{geometry}/test": of_network(images.test, geometry, side)}


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
