"""`score`: anybody's score maps against a data set's boxes and masks."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wsolbench import protocols, words
from wsolbench.console import Json, app, print_metrics, say
from wsolbench.errors import Collecting, InputError

if TYPE_CHECKING:
    from wsolbench.dataset import Dataset

Space = Annotated[
    Literal["original", "input"] | None,
    typer.Option(help="maps have the size of their image, unless said, or of a network's input"),
]
Normalise = Annotated[
    Literal["auto", "always", "never"] | None,
    typer.Option(
        help="scale each map to [0, 1] by its least and greatest score; auto, unless said: all if any leaves [0, 1]"
    ),
]
Share = Annotated[
    float | None,
    typer.Option(help="of each class's training images is held out, above 0 and below 1; 0.1 unless others are"),
]
SCALED = "every score map was scaled to [0, 1] by its own least and greatest score"
AS_THEY_ARE = "score maps were taken as they are, all within [0, 1]; --normalise always scales each to its own range"


@app.command()
def score(
    folder: Annotated[
        Path | None, typer.Argument(help="of .npy or .npz files named like the images, or an .npz of all")
    ] = None,
    dataset: Annotated[str, typer.Option(help="the data set the maps belong to")] = "",
    pairs: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE", help="of the data set")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="folder of the data set")] = None,
    split: Annotated[Literal["train", "held_out", "test"], typer.Option(help="which images")] = "test",
    protocol: Annotated[str, typer.Option(help="how a score map becomes a box, and a box a hit")] = protocols.UNHELD,
    space: Space = None,
    held_out: Annotated[
        Path | None, typer.Option(help="maps of the held-out images, if they are not in the same folder")
    ] = None,
    normalise: Normalise = None,
    share: Share = None,
    baseline: Annotated[Literal["whole", "centre", "random"] | None, typer.Option(help="instead of a folder")] = None,
    out: Annotated[Path | None, typer.Option(help="also write what is known of each image and class, as .npz")] = None,
    as_json: Json = False,
) -> None:
    """Score anybody's score maps against a data set's boxes and masks; they are never resized."""
    rule, found = _asked(locals())
    from wsolbench import score as scoring  # noqa: PLC0415  imports torch

    images = found.split(split, data)
    heading: dict[str, Any] = {"protocol": protocol, "images": len(images)}
    chosen_on = None
    if rule.threshold == "held_out":
        name, chosen_on = scoring.choosing(found, data, share)
        if name == split:
            raise InputError(f"{protocol} would choose its threshold on the images of {split}; score another --split")
        heading |= {"threshold_from": f"{len(chosen_on)} images of {name}"}
    if baseline is not None:
        scores = scoring.baseline(baseline, images, 224, rule, chosen_on)
    elif folder is not None:
        maps_of = None if chosen_on is None else (held_out or folder, chosen_on)
        scores, scaled = scoring.score(
            folder, images, rule, space or "original", maps_of, normalise=normalise or "auto"
        )
        heading["normalised"] = scaled
        say(SCALED if scaled else AS_THEY_ARE)
    scoring.save(out, images, scores)
    print_metrics(heading, scores.metrics, as_json)


def _asked(given: Mapping[str, Any]) -> tuple[protocols.Protocol, "Dataset"]:
    """The protocol and the data set that the options name; `InputError` has all that is wrong with any of them."""
    from wsolbench import datasets, plugins  # noqa: PLC0415  as below
    from wsolbench import score as scoring  # noqa: PLC0415  imports torch

    problems: list[str] = []
    if (share := given["share"]) is not None and not 0 < share < 1:
        problems.append(f"--share must be above 0 and below 1, not {share:g}: a share of each class's training images")
    with Collecting(problems):
        rule = protocols.protocol(given["protocol"])
    with Collecting(problems):
        _refuse_idle(given, chosen=bool(problems) or rule.threshold == "held_out")
    with Collecting(problems):
        scoring.refuse_out(given["out"])
    with Collecting(problems):
        plugins.load(datasets, given["dataset"])  # its options may hide that it is not there
    with Collecting(problems):
        found = plugins.make(datasets, given["dataset"], words.values(given["pairs"] or ()))
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return rule, found


def _refuse_idle(given: Mapping[str, Any], *, chosen: bool) -> None:
    """Refuse options that would do nothing; `chosen`: the threshold is, or may be, on held-out images."""
    one = (given["folder"] is None) != (given["baseline"] is None)
    problems = [] if one else ["name a folder of score maps, or a --baseline"]
    of_maps = () if given["baseline"] is None else ("space", "normalise", "held_out")
    of_choice = () if chosen else ("held_out", "share")
    problems += [f"{_flag(name)} is for score maps of a folder" for name in of_maps if given[name] is not None]
    choice = "is for a protocol that chooses its threshold on held-out images"
    problems += [f"{_flag(name)} {choice}" for name in of_choice if given[name] is not None]
    if problems:
        raise InputError(*problems)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
