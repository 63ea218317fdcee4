"""The images of a trial: those it trains on, those a threshold is chosen on, those it is tested on."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wsolbench import datasets, plugins, protocols
from wsolbench.dataset import Dataset, NoSplitError, Split, SplitName
from wsolbench.errors import InputError
from wsolbench.place import Place
from wsolbench.store import DATA, Store
from wsolbench.trial import Trial


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


def class_names(trial: Trial, place: Place) -> tuple[str, ...]:
    """The classes of a finished trial, by label: those beside its record, else those of its data set."""
    known = Store(place.results).arrays(trial.id, "predictions.npz").get("classes")
    return splits(trial, place).test.classes if known is None else tuple(known.tolist())


def refuse_other_data(found: Iterable[tuple[Mapping[str, Any], Splits]], place: Place) -> None:
    """Raise the `InputError` that names finished trials whose images are others than are in the place's folder now."""
    digests = ((record["id"], record.get(DATA), images.digest) for record, images in found)
    wrong = [(trial, theirs, ours) for trial, theirs, ours in digests if theirs not in {ours, None}]  # None: an old one
    if wrong:
        trial, theirs, ours = wrong[0]
        others = f" and {len(wrong) - 1} more" if wrong[1:] else ""
        raise InputError(
            f"{place.data} holds other images, classes or boxes (data digest {ours[:12]}) than trial {trial}{others} "
            f"in {place.results} ({theirs[:12]}): choose another --results, or run such a trial again with --fresh"
        )


def refuse_unheld(place: Place, images: Splits) -> None:
    """Refuse, before training, a protocol that chooses its threshold on images that are not there."""
    if place.protocol and images.held_out is None and protocols.protocol(place.protocol).threshold == "held_out":
        said = f"protocol {place.protocol} chooses its threshold on held-out images, and there are none"
        raise InputError(f"{said}; hold some out, such as held_out=0.1, or take another protocol")


def _unless_absent(dataset: Dataset, name: SplitName, place: Place, *, needed: bool = False) -> Split | None:
    try:
        return dataset.split(name, place.data)
    except NoSplitError:
        if needed:
            raise
        return None
