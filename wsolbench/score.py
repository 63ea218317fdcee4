"""Scores anybody's score maps, and baselines that look at no image."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wsolbench import scoremaps
from wsolbench.dataset import Split
from wsolbench.errors import InputError
from wsolbench.evaluation import Chunk, Chunks, Scores, counting, localization
from wsolbench.geometry import Window, window
from wsolbench.protocols import Protocol

Space = Literal["original", "input"]
Baseline = Literal["whole", "centre", "random"]


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
    split.boxed  # noqa: B018  boxes for some images and none for others are an error
    chosen_on = None if held_out is None else _chunks(*held_out, protocol, space)
    return localization(_chunks(folder, split, protocol, space), protocol, chosen_on)


def baseline(kind: Baseline, split: Split, side: int, protocol: Protocol) -> Scores:
    """The scores of a box or map that is the same for every image, or drawn: what a method has to beat."""
    views = [window(protocol.geometry, size, side) for size in split.sizes]
    generator = torch.Generator().manual_seed(0)

    def chunks() -> Iterator[Chunk]:
        for index, view in enumerate(views):
            yield _chunk(BASELINES[kind](side, generator), split, index, view, protocol)

    return localization(chunks, protocol)


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


def _chunks(folder: Path, split: Split, protocol: Protocol, space: Space) -> Chunks:
    """Each map by itself, as their sizes may differ; all are looked at before the first is scored."""
    load = _loader(folder, split)
    shapes = [load(index).shape for index in range(len(split))]
    views = [_view(shape, size, protocol, space) for shape, size in zip(shapes, split.sizes, strict=True)]
    _refuse_wrong_sizes(split, shapes, views, space)

    def chunks() -> Iterator[Chunk]:
        for index, view in enumerate(views):
            found = load(index).astype(np.float32)
            if not np.isfinite(found).all():
                raise InputError(f"the score map of {split.ids[index]} is not finite everywhere")
            within = found.min() >= 0 and found.max() <= 1  # then they are scored as they are
            scaled = found if within else scoremaps.min_max(found[None])[0]
            yield _chunk(scaled, split, index, view, protocol)

    return chunks


def _chunk(score_map: scoremaps.Maps, split: Split, index: int, view: Window, protocol: Protocol) -> Chunk:
    truths = counting(view.boxes(split.boxes[index], split.sizes[index]), protocol)
    masks = None if split.mask is None else view.mask(split.mask(index))[None]
    bodies = None if split.body is None else view.mask(split.body(index))[None]
    return Chunk(score_map[None], [truths], masks, bodies)


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
