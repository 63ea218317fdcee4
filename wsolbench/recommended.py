"""What recipe.yaml says, read without the second that importing torch takes."""

from collections.abc import Sequence
from dataclasses import MISSING
from functools import cache
from pathlib import Path
from typing import Any

from wsolbench import documents, methods, plugins, resources
from wsolbench.defaults import defaults
from wsolbench.trial import Trial, expand_stages


def settings(dataset: str, backbone: str, method: str) -> dict[str, Any]:
    """The recipe's settings for one combination, the particular over the general."""
    merged = _merged(dataset, backbone, method)
    return {key: value for key, value in merged.items() if key not in resources.NAMES}


def options(dataset: str, backbone: str, method: str, *, stages: Sequence[str]) -> dict[str, Any]:
    """The recipe's options of a method on a backbone with these stages, and the method's defaults for the others.

    Nothing where nobody says all of them: the recipe is silent on one that has no default, or there are no stages.
    """
    known = settings(dataset, backbone, method)
    found = {name: known.get(name, default) for name, default in defaults(methods, method).items()}
    expanded = {name: expand_stages(value, stages) for name, value in found.items()}
    lacks = any(expanded[name] is MISSING or (value != () and expanded[name] == ()) for name, value in found.items())
    return {} if lacks else expanded


def resources_of(trial: Trial) -> dict[str, Any]:
    """What the recipe asks a cluster for, for a trial's job."""
    merged = _merged(trial.dataset, trial.backbone, trial.method)
    return {key: value for key, value in merged.items() if key in resources.NAMES}


def _merged(dataset: str, backbone: str, method: str) -> dict[str, Any]:
    layers = _recipe()
    merged: dict[str, Any] = {}
    for d in ("any", dataset):
        for b in ("any", plugins.family(backbone)):
            for m in ("any", method):
                merged |= layers.get(d, {}).get(b, {}).get(m, {})
    return merged


@cache
def _recipe() -> dict[str, Any]:
    return documents.read(Path(__file__).with_name("recipe.yaml")).data
