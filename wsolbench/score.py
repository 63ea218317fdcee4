"""Scores anybody's score maps, and baselines that look at no image."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wsolbench import map_files, scoremaps
from wsolbench.annotations import refuse
from wsolbench.dataset import Dataset, NoSplitError, Split, SplitName
from wsolbench.errors import Collecting, InputError
from wsolbench.evaluation import Scored, Scores, localization
from wsolbench.geometry import Window, window
from wsolbench.metrics import ERRORS
from wsolbench.protocols import Protocol
from wsolbench.truth import Truth, of_network

Space = Literal["original", "input"]
Baseline = Literal["whole", "centre", "random"]
Normalise = Literal["auto", "always", "never"]

SPLITS: tuple[SplitName, ...] = ("held_out", "train")
"""That a threshold may be chosen on, the better first."""


def score(
    folder: Path,
    split: Split,
    protocol: Protocol,
    space: Space,
    held_out: tuple[Path, Split] | None,
    *,
    normalise: Normalise = "auto",
) -> tuple[Scores, bool]:
    """The scores of a folder of score maps, and whether each was scaled to its own range; none is resized.

    Args:
        folder: of one .npy, or .npz of one array, for each image, named like it; or an .npz of all, by image.
        split: the images, with their boxes.
        protocol: how a score map becomes a box, and a box a hit.
        space: `original`: a map has the size of its image; `input`: all have that of a network's square input, which
            sees images in the protocol's geometry.
        held_out: maps and images that a threshold may be chosen on.
        normalise: scale the least score of each map to 0 and its greatest to 1: `always`; `auto`: all maps, those of
            `held_out` too, if any has a score outside [0, 1]; `never`: such a score is an error.

    Raises:
        InputError: maps are missing, have the wrong size, or are not finite; the first five of each are named.
    """
    asked, views, normalised = _looked_at(
        [(folder, split), *([held_out] if held_out else [])], protocol, space, normalise
    )
    own, *chosen_on = (
        _scored(files, seen, protocol, normalised=normalised) for files, seen in zip(asked, views, strict=True)
    )
    return localization(own, protocol, chosen_on[0] if chosen_on else None), normalised


def baseline(kind: Baseline, split: Split, side: int, protocol: Protocol, held_out: Split | None = None) -> Scores:
    """The scores of a box or map that is the same for every image, or drawn: what a method has to beat."""

    def scored(images: Split) -> Scored:
        def maps(indices: range) -> scoremaps.Maps:
            drawn = [BASELINES[kind](side, torch.Generator().manual_seed(index)) for index in indices]
            return np.stack(drawn).astype(np.float32)

        return Scored(of_network(images, protocol.geometry, side), maps, protocol)

    return localization(scored(split), protocol, None if held_out is None else scored(held_out))


def choosing(dataset: Dataset, data: Path | None, share: float | None) -> tuple[SplitName, Split]:
    """The images that a threshold is chosen on, and the split they are of.

    The data set's own held-out split, if its images have boxes; else a share of each class's training images, a tenth
    unless said.

    Raises:
        InputError: there are no such images with boxes, or a share is asked for that would do nothing.
    """
    for name in SPLITS:
        try:
            split = dataset.split(name, data)
        except NoSplitError:
            continue
        if name == "train":
            _, split = split.held_out(0.1 if share is None else share)
        if len(split) and split.boxed:
            if share is not None and name != "train":
                raise InputError("--share is for data sets without held-out images, and this one has its own")
            return name, split
    raise InputError("the protocol chooses its threshold on held-out images, and there are none with boxes")


def refuse_out(path: Path | None) -> None:
    """`InputError` if `save` could not write there, which is better known before maps are scored."""
    if path is None:
        return
    if path.suffix != ".npz":
        raise InputError(f"{path} must end in .npz: it holds an array for each thing known of the images")
    if not path.parent.is_dir():
        raise InputError(f"no folder {str(path.parent)!r} to write {path.name} into")


def save(path: Path | None, split: Split, scores: Scores) -> None:
    """Write what is known of each image and each class to an .npz file, if there is to be one."""
    refuse_out(path)
    if path is None:
        return
    known: dict[str, Any] = {"ids": np.array(split.ids), "labels": split.labels, "classes": np.array(split.classes)}
    known |= {**scores.images, "errors": np.array(ERRORS), "curve": scores.curve}
    known |= {f"class/{name}": values for name, values in scores.classes.items()}
    np.savez(path, **known)


def _whole(side: int, _generator: torch.Generator) -> scoremaps.Maps:
    return np.ones((side, side), np.float32)


def _centre(side: int, _generator: torch.Generator) -> scoremaps.Maps:
    """The box of half the image's area in its middle."""
    margin = round(side * (1 - 0.5**0.5) / 2)
    drawn = np.zeros((side, side), np.float32)
    drawn[margin : side - margin, margin : side - margin] = 1
    return drawn


def _random(side: int, generator: torch.Generator) -> scoremaps.Maps:
    """14 x 14 uniform numbers, resized as a network's map is."""
    drawn = torch.rand((1, 14, 14), generator=generator).numpy()
    return scoremaps.min_max(scoremaps.resized(drawn, side, side, "linear"))[0]


BASELINES: Mapping[Baseline, Callable[[int, torch.Generator], scoremaps.Maps]] = {
    "whole": _whole,
    "centre": _centre,
    "random": _random,
}


def _looked_at(
    given: Sequence[tuple[Path, Split]], protocol: Protocol, space: Space, normalise: Normalise
) -> tuple[list[map_files.MapFiles], list[list[Window]], bool]:
    """The maps of each folder, what of its image each is, and whether all are scaled; `InputError` has all mistakes."""
    problems: list[str] = []
    asked: list[map_files.MapFiles] = []
    for each in given:
        with Collecting(problems):
            asked.append(map_files.found(*each, problems))
    with Collecting(problems):
        map_files.refuse_shared(asked)
    looks = [map_files.look(files, problems) for files in asked]
    views = [_views(files.split, look.shapes, protocol, space) for files, look in zip(asked, looks, strict=True)]
    for files, look, seen in zip(asked, looks, views, strict=True):
        with Collecting(problems):
            _refuse_wrong_sizes(files.split, look.shapes, seen, space)
    with Collecting(problems):
        normalised = _normalises(looks, normalise)
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return asked, views, normalised


def _normalises(looks: Sequence[map_files.Looks], how: Normalise) -> bool:
    """Whether every map is scaled: one answer for all, as maps that differ by little would be scored unlike else."""
    outside = [name for each in looks for name in each.outside]
    if how == "never":
        refuse({"score maps with scores outside [0, 1]": outside}, "--normalise always scales each to its own range")
    return how == "always" or bool(outside)


def _scored(files: map_files.MapFiles, views: list[Window], protocol: Protocol, *, normalised: bool) -> Scored:
    """Each map by itself, as their sizes may differ."""

    def maps(indices: range) -> scoremaps.Maps:
        found = files.load(indices[0]).astype(np.float64)[None]
        return scoremaps.min_max(found) if normalised else found

    return Scored(Truth(files.split, views), maps, protocol, chunk=1)


def _views(split: Split, shapes: list[tuple[int, ...]], protocol: Protocol, space: Space) -> list[Window]:
    side = next((shape[1] for shape in shapes if shape), 1)
    return [_view(side, size, protocol, space) for size in split.sizes]


def _view(side: int, size: NDArray[np.int64], protocol: Protocol, space: Space) -> Window:
    width, height = size.tolist()
    return Window(width, height, 0, 0, width, height) if space == "original" else window(protocol.geometry, size, side)


def _refuse_wrong_sizes(split: Split, shapes: list[tuple[int, ...]], views: list[Window], space: Space) -> None:
    wanted = [(view.rows, view.columns) for view in views]
    wrong = [i for i, shape in enumerate(shapes) if shape and shape != wanted[i]]
    if wrong:
        named = [f"{split.ids[i]}: {map_files.size(shapes[i])}, not {map_files.size(wanted[i])}" for i in wrong[:5]]
        other = "input" if space == "original" else "original"
        hint = f"maps are never resized; for maps in the other space say --space {other}"
        raise InputError(
            *named, f"{len(wrong)} of {len(shapes)} score maps have the wrong size (rows x columns); {hint}"
        )
