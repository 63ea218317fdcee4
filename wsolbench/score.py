"""Scores anybody's score maps, and baselines that look at no image."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wsolbench import scoremaps
from wsolbench.dataset import Dataset, NoSplitError, Split, SplitName
from wsolbench.errors import InputError
from wsolbench.evaluation import Scored, Scores, localization
from wsolbench.geometry import Window, window
from wsolbench.metrics import ERRORS
from wsolbench.protocols import Protocol
from wsolbench.truth import Truth, of_network

Space = Literal["original", "input"]
Baseline = Literal["whole", "centre", "random"]

SPLITS: tuple[SplitName, ...] = ("held_out", "train")
"""That a threshold may be chosen on, the better first."""


def score(folder: Path, split: Split, protocol: Protocol, space: Space, held_out: tuple[Path, Split] | None) -> Scores:
    """The scores of a folder of score maps; those outside [0, 1] are scaled to it, none is resized.

    Args:
        folder: of one .npy, or .npz of one array, for each image, named like it; or an .npz of all, by image.
        split: the images, with their boxes.
        protocol: how a score map becomes a box, and a box a hit.
        space: `original`: a map has the size of its image; `input`: all have that of a network's square input, which
            sees images in the protocol's geometry.
        held_out: maps and images that a threshold may be chosen on.

    Raises:
        InputError: a map is missing, has the wrong size, or is not finite; the first five of each are named.
    """
    chosen_on = None if held_out is None else _scored(*held_out, protocol, space)
    return localization(_scored(folder, split, protocol, space), protocol, chosen_on)


def baseline(kind: Baseline, split: Split, side: int, protocol: Protocol, held_out: Split | None = None) -> Scores:
    """The scores of a box or map that is the same for every image, or drawn: what a method has to beat."""

    def scored(images: Split) -> Scored:
        def maps(indices: range) -> scoremaps.Maps:
            drawn = [BASELINES[kind](side, torch.Generator().manual_seed(index)) for index in indices]
            return np.stack(drawn).astype(np.float32)

        return Scored(of_network(images, protocol.geometry, side), maps, protocol)

    return localization(scored(split), protocol, None if held_out is None else scored(held_out))


def choosing(dataset: Dataset, data: Path | None, share: float) -> tuple[SplitName, Split]:
    """The images that a threshold is chosen on, and the split they are of.

    The data set's own held-out split, if its images have boxes; else a share of each class's training images.

    Raises:
        InputError: there are no such images with boxes.
    """
    for name in SPLITS:
        try:
            split = dataset.split(name, data)
        except NoSplitError:
            continue
        if name == "train":
            _, split = split.held_out(share)
        if len(split) and split.boxed:
            return name, split
    raise InputError("the protocol chooses its threshold on held-out images, and there are none with boxes")


def save(path: Path, split: Split, scores: Scores) -> None:
    """Write what is known of each image and each class to an .npz file; `InputError` if it has another suffix."""
    if path.suffix != ".npz":
        raise InputError(f"{path} must end in .npz: it holds an array for each thing known of the images")
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


def _scored(folder: Path, split: Split, protocol: Protocol, space: Space) -> Scored:
    """Each map by itself, as their sizes may differ; all are looked at before the first is scored."""
    load = _loader(folder, split)
    shapes = [load(index).shape for index in range(len(split))]
    views = [_view(shape, size, protocol, space) for shape, size in zip(shapes, split.sizes, strict=True)]
    _refuse_wrong_sizes(split, shapes, views, space)

    def maps(indices: range) -> scoremaps.Maps:
        return _usable(load(indices[0]), split.ids[indices[0]])[None]

    return Scored(Truth(split, views), maps, protocol, chunk=1)


def _usable(found: NDArray[Any], name: str) -> scoremaps.Maps:
    """A map (H, W) in [0, 1]: as it is if it is there already, else scaled to it."""
    if found.dtype.kind not in "buif":
        raise InputError(f"the score map of {name} holds {found.dtype}, no real numbers")
    score_map = found.astype(np.float64)
    if not np.isfinite(score_map).all():
        raise InputError(f"the score map of {name} is not finite everywhere")
    within = score_map.min() >= 0 and score_map.max() <= 1
    return score_map if within else scoremaps.min_max(score_map[None])[0]


def _view(shape: tuple[int, ...], size: NDArray[np.int64], protocol: Protocol, space: Space) -> Window:
    width, height = size.tolist()
    return (
        Window(width, height, 0, 0, width, height)
        if space == "original"
        else window(protocol.geometry, size, shape[-1])
    )


def _refuse_wrong_sizes(split: Split, shapes: list[tuple[int, ...]], views: list[Window], space: Space) -> None:
    wanted = [(view.rows, view.columns) for view in views]
    wrong = [
        i
        for i, shape in enumerate(shapes)
        if shape != (shapes[0] if space == "input" else wanted[i]) or shape != wanted[i]
    ]
    if wrong:
        named = [f"{split.ids[i]}: {_size(shapes[i])}, not {_size(wanted[i])}" for i in wrong[:5]]
        other = "input" if space == "original" else "original"
        hint = f"maps are never resized; for maps in the other space say --space {other}"
        raise InputError(
            *named, f"{len(wrong)} of {len(shapes)} score maps have the wrong size (rows x columns); {hint}"
        )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _loader(folder: Path, split: Split) -> Callable[[int], NDArray[Any]]:
    """Reads the map of an image; `InputError` if some image has none."""
    if folder.is_file():
        archive = np.load(folder, allow_pickle=False)
        found = {name: next((key for key in _names(name) if key in archive), None) for name in split.ids}
        _refuse_missing(folder, [name for name, key in found.items() if key is None])
        return lambda index: archive[str(found[split.ids[index]])]
    paths = {name: next((path for path in _paths(folder, name) if path.is_file()), None) for name in split.ids}
    _refuse_missing(folder, [name for name, path in paths.items() if path is None])
    return lambda index: _array(paths[split.ids[index]] or folder)


def _names(name: str) -> list[str]:
    return [name, str(Path(name).with_suffix("")), Path(name).name, Path(name).stem]


def _paths(folder: Path, name: str) -> list[Path]:
    return [folder / f"{stem}{suffix}" for stem in _names(name) for suffix in (".npy", ".npz")]


def _array(path: Path) -> NDArray[Any]:
    try:
        found = np.load(path, allow_pickle=False)
        return found[found.files[0]] if path.suffix == ".npz" else found
    except (ValueError, EOFError, OSError, IndexError) as error:
        raise InputError(f"{path} holds no score map: {error}") from None


def _refuse_missing(folder: Path, missing: list[str]) -> None:
    if missing:
        looked = f"such as {_paths(folder, missing[0])[0].name} or {_paths(folder, missing[0])[2].name}"
        raise InputError(
            f"no score map in {str(folder)!r} for {len(missing)} images ({looked}): {', '.join(missing[:5])}"
        )
