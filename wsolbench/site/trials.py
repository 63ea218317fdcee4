"""What the page of a trial shows: read off the store, without torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsolbench import files
from wsolbench.attempts import Attempt
from wsolbench.metrics import ERRORS
from wsolbench.selection import natural
from wsolbench.site.curve import Curve, curve
from wsolbench.store import BrokenRecordError, Store
from wsolbench.table import shown
from wsolbench.trial import OPTION_GROUPS, flat

Facts = Mapping[str, str]

_PER_CLASS = {"gt_known_loc": "GT-known Loc", "top1_clas": "Top-1 Clas", "top1_loc": "Top-1 Loc"}
_KINDS = {
    "none": "hit",
    "class": "box right, class wrong",
    "part": "part of the object",
    "more": "more than the object",
    "multiple": "several objects",
    "other": "elsewhere",
}
"""What a reader is told of each of `metrics.ERRORS`."""


@dataclass(frozen=True)
class Try:
    """One attempt at a trial."""

    name: str
    host: str
    started: str
    ended: str
    kind: str
    epochs: str
    message: str


@dataclass(frozen=True)
class OfClass:
    """A class, how many test images it has, and percent by metric; None where it was not measured."""

    name: str
    images: int
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of outcome, its share of the test images in percent, and its number of images."""

    name: str
    share: float
    images: int


@dataclass(frozen=True)
class TrialPage:
    """All that is known of a trial; most of it empty for one that is not finished."""

    id: str
    state: str
    note: str
    spec: Mapping[str, Any]
    settings: Facts
    provenance: Facts
    tries: tuple[Try, ...]
    curve: Curve | None
    protocol: str
    metrics: Mapping[str, Mapping[str, float]]  # by protocol
    per_class: tuple[OfClass, ...]
    class_metrics: tuple[str, ...]
    outcomes: tuple[Kind, ...]

    @property
    def title(self) -> str:
        """Method, backbone, data set and seed."""
        words = [str(self.spec.get(key, "?")) for key in ("method", "backbone", "dataset")]
        return f"{', '.join(words)}, seed {self.spec.get('seed', '?')}"

    @property
    def options(self) -> str:
        """The method's own, lists such as feature points last."""
        return _options(self.spec)

    def metric(self, name: str) -> float | None:
        """Under the page's protocol."""
        return self.metrics.get(self.protocol, {}).get(name)


def in_order(specs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The ids of trials by data set, backbone, method and its options, and then by seed."""

    def place(trial_id: str) -> tuple[Any, ...]:
        spec = specs[trial_id]
        named = (str(spec.get(key, "")) for key in ("dataset", "backbone", "method"))
        return (*named, _options(spec), natural(str(spec.get("seed", ""))), trial_id)

    return sorted(specs, key=place)


def _options(spec: Mapping[str, Any]) -> str:
    found = sorted(spec.get("method_options", {}).items(), key=lambda option: isinstance(option[1], list))
    return ", ".join(f"{key} {shown(value)}" for key, value in found)


def trial_page(store: Store, trial_id: str, protocol: str | None, classes: Sequence[str] | None = None) -> TrialPage:
    """What is known of a trial, under the protocol that is asked for, or the record's own.

    The names of its classes are taken from beside its record, where that has them.
    """
    try:
        record, broken = store.record(trial_id) or {}, ""
    except (BrokenRecordError, files.UnreadableError) as error:
        record, broken = {}, str(error)
    spec = record.get("trial") or store.spec(trial_id)
    attempts = store.attempts(trial_id)
    own = str(protocol if protocol in record.get("results", {}) else record.get("protocol", ""))
    arrays = ({"classes": classes} if classes else {}) | (store.arrays(trial_id, "predictions.npz") if record else {})
    last = attempts[-1].exit() if attempts and not record else {}
    epochs = record.get("epochs") or store.epochs(trial_id)
    return TrialPage(
        id=trial_id,
        state=store.state(trial_id),
        note=broken or str(last.get("message", "")),
        spec=spec,
        settings=_settings(spec),
        provenance=_provenance(record),
        tries=tuple(_try(attempt) for attempt in attempts),
        curve=curve(epochs, [rows[0]["epoch"] for attempt in attempts[1:] if (rows := attempt.epochs())]),
        protocol=own,
        metrics={name: dict(found) for name, found in record.get("results", {}).items()},
        per_class=tuple(_per_class(arrays, own)),
        class_metrics=tuple(_PER_CLASS.values()),
        outcomes=tuple(_outcomes(arrays, own)),
    )


def _settings(spec: Mapping[str, Any]) -> dict[str, str]:
    """Fields first, then the options of data set, backbone and method."""
    groups = {key for group in OPTION_GROUPS for key in spec.get(group, {})}
    found = {key: shown(value) for key, value in flat(spec).items()}
    return {**{k: v for k, v in found.items() if k not in groups}, **{k: v for k, v in found.items() if k in groups}}


def _provenance(record: Mapping[str, Any]) -> dict[str, str]:
    """What the numbers were computed with, in words."""
    if not record:
        return {}
    here, weights, cost = record["environment"], record.get("weights") or {}, record.get("cost", {})
    images = [f"{count} {name.replace('_', ' ')}" for name, count in record.get("images", {}).items()]
    facts = {
        "Commit": here.get("commit") or "not a checkout",
        "Software": ", ".join(f"{k} {v}" for k, v in {"python": here["python"], **here["packages"]}.items()),
        "Device": f"{here.get('device', '?')}, {here.get('threads', '?')} threads",
        "Images": ", ".join(images),
        "Pretrained": f"{weights['source']}, sha256 {weights['sha256']}" if weights else "none",
        "Weights digest": record.get("weights_digest", ""),
        "Training": f"{cost['train_seconds']:.0f} s" if "train_seconds" in cost else "",
        "Evaluation": f"{cost['test_seconds']:.0f} s" if "test_seconds" in cost else "",
        "Peak memory": f"{cost['peak_mib']:.0f} MiB" if "peak_mib" in cost else "",
        "Notes": "; ".join(record.get("notes", [])),
    }
    return {key: str(value) for key, value in facts.items() if value}


def _try(attempt: Attempt) -> Try:
    meta, end, epochs = attempt.meta(), attempt.exit(), attempt.epochs()
    going = "running" if attempt.alive() else "killed"
    return Try(
        name=attempt.folder.name,
        host=str(meta.get("host", "?")),
        started=str(meta.get("started", "?")),
        ended=str(end.get("ended", "")),
        kind=str(end.get("kind", going if meta else "died at once")),
        epochs=f"{epochs[0]['epoch']} to {epochs[-1]['epoch']}" if epochs else "none",
        message=str(end.get("message", "")),
    )


def _per_class(arrays: Mapping[str, Any], protocol: str) -> Iterator[OfClass]:
    found = [arrays.get(f"{protocol}/class/{name}") for name in _PER_CLASS]
    if all(values is None for values in found):
        return
    number = max(len(values) for values in found if values is not None)
    images = np.bincount(arrays["labels"], minlength=number)
    names: Sequence[Any] = arrays.get("classes", [f"class {label}" for label in range(number)])
    for label in range(number):
        values = [None if each is None or np.isnan(each[label]) else float(each[label]) for each in found]
        yield OfClass(str(names[label]), int(images[label]), tuple(values))


def _outcomes(arrays: Mapping[str, Any], protocol: str) -> Iterator[Kind]:
    """How often each kind of error is made, and none."""
    errors = arrays.get(f"{protocol}/error")
    if errors is None or not len(errors):
        return
    counts = np.bincount(errors, minlength=len(ERRORS))
    for name, count in zip(ERRORS, counts.tolist(), strict=True):
        yield Kind(_KINDS[name], 100 * count / len(errors), count)
