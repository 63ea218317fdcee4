"""Completes what a user asked for into trials, from the recipe of recommended settings."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from wsolbench import backbones, datasets, files, method, methods, plugins, recommended, trial, weights
from wsolbench.backbone import Backbone
from wsolbench.errors import Collecting, InputError, Problem
from wsolbench.trial import FIELDS, Trial, expand_stages

KINDS: dict[str, ModuleType] = {"dataset": datasets, "backbone": backbones, "method": methods}


def complete(settings: Mapping[str, Any], weights_file: Path | None = None) -> Trial:
    """The trial of these settings; the recipe and the plug-ins' defaults supply the rest.

    Args:
        settings: flat: fields of `Trial` and options of the data set, the backbone and the method.
        weights_file: what `weights` stands for; its metadata may ask for options of the backbone.

    Raises:
        InputError: with every unknown name, wrong value and feature point that does not exist.
    """
    options = _options(settings)
    asked: dict[str, Any] = {}
    if weights_file is not None:
        _refuse_foreign(weights_file, settings["backbone"])
        asked = {"weights": digest(weights_file), **weights.file_options(weights_file)}
    return _complete({**recommended.settings(*(settings[kind] for kind in KINDS)), **asked, **settings}, options)


def digest(weights_file: Path) -> str:
    """What a file is called as the `weights` of a trial."""
    return _digest(weights_file, weights_file.stat().st_mtime_ns)


@cache
def _digest(path: Path, _written: int) -> str:
    return files.sha256(path)  # of hundreds of megabytes, for each of thousands of trials


def _refuse_foreign(weights_file: Path, backbone: str) -> None:
    """Refuse weights whose metadata asks for options that the backbone has not."""
    if foreign := weights.file_options(weights_file).keys() - set(plugins.option_names(backbones, backbone)):
        asked = f"its metadata asks for {', '.join(sorted(foreign))}, which {backbone} has not"
        raise InputError(Problem(f"{weights_file.name} has the weights of another network: {asked}", "weights"))


def accepts(settings: Mapping[str, Any]) -> list[str]:
    """The fields and options that a trial of this data set, backbone and method has."""
    return [*FIELDS, *(name for names in _options(settings).values() for name in names)]


def _options(settings: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The options of the data set, the backbone and the method that are asked for."""
    found: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    for kind, package in KINDS.items():
        with Collecting(problems):
            if kind not in settings:
                raise InputError(Problem(f"{kind} is missing; there are: {', '.join(plugins.names(package))}", kind))
            found[kind] = plugins.declared_names(plugins.option_class(package, str(settings[kind])))
    if problems:
        others = {key: value for key, value in settings.items() if key not in KINDS}
        raise InputError(*problems, *trial.wrong_fields(others))
    return found


def _complete(merged: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> Trial:
    known = (*FIELDS, *(name for options in names.values() for name in options))
    problems: list[str] = [*trial.unknown_keys(merged, known)]
    options = {kind: {key: merged[key] for key in names[kind] if key in merged} for kind in KINDS}
    for kind, package in KINDS.items():
        with Collecting(problems):
            if kind == "method":  # the last: its points are checked against the backbone before it
                options[kind] = _resolve_points(merged, options, problems)
            made = plugins.make(package, merged[kind], options[kind])
            options[kind] = {name: getattr(made, name) for name in names[kind]}
    if not problems and isinstance(side := merged["image_size"], int) and side > 0:
        with Collecting(problems):
            network = merged["backbone"], json.dumps(options["backbone"], sort_keys=True)
            problems += (*_too_small(*network, side), *_no_weights(*network, merged["weights"]))
    fields = {key: merged[key] for key in FIELDS if key in merged}
    with Collecting(problems):
        result = trial.from_spec({**fields, **{f"{kind}_options": value for kind, value in options.items()}})
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return result


def _resolve_points(
    merged: Mapping[str, Any], options: Mapping[str, dict[str, Any]], problems: list[str]
) -> dict[str, Any]:
    """The method's options with `stages` written out; adds a problem for each point that the backbone has not."""
    names = method.feature_points(plugins.option_class(methods, merged["method"]))
    asked = [name for name in names if name in options["method"]]
    if not asked:
        return options["method"]
    network = blueprint(merged["backbone"], options["backbone"])
    resolved = {name: expand_stages(options["method"][name], network.stages) for name in asked}
    problems += [
        Problem(sentence, name)
        for name in asked
        for sentence in (*_no_points(options["method"][name], resolved[name]), *_wrong_points(resolved[name], network))
    ]
    return {**options["method"], **resolved}


def _no_points(asked: Any, points: Any) -> Iterator[str]:
    """An empty list is said to be one; a slice that takes nothing is a slip."""
    if isinstance(asked, str) and points == ():
        yield f"{asked} takes none of the backbone's stages"


def _wrong_points(points: Any, network: Backbone) -> Iterator[str]:
    names = points if isinstance(points, list | tuple) else ()
    for point in dict.fromkeys(map(str, names)):
        if point not in network.points:
            yield f"no feature point {point!r}; this backbone has: {', '.join(network.points)}"
        elif names.count(point) > 1:
            yield f"feature point {point!r} is named {names.count(point)} times"


@cache
def _too_small(name: str, options: str, side: int) -> list[Problem]:
    """A problem if the layers of a backbone leave nothing of an image of `side` pixels."""
    try:
        _blueprint(name, options).shapes(side, side)
    except RuntimeError:
        return [Problem(f"image_size {side} is too small for {name}, whose layers leave nothing of it", "image_size")]
    return []


@cache
def _no_weights(name: str, options: str, asked: str) -> list[Problem]:
    """A problem, before the first job and not in each, if a backbone has no weights to download."""
    if asked != weights.IMAGENET or _blueprint(name, options).pretrained is not None:
        return []
    sentence = f"{name} has no {asked} weights; say weights=none, give a file, or take another backbone"
    return [Problem(sentence, "weights")]


def blueprint(name: str, options: Mapping[str, Any]) -> Backbone:
    """A backbone without memory for its weights: its points and stages."""
    return _blueprint(name, json.dumps(options, sort_keys=True))


@cache
def _blueprint(name: str, options: str) -> Backbone:
    with torch.device("meta"):
        return plugins.make(backbones, name, json.loads(options)).build()
