"""How score maps are read off a network: the choices, and the library behind some of them."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from wsolbench import documents
from wsolbench.errors import InputError, Problem


def known(name: str) -> str:
    """The name, if it is one of extract.yaml; else a `ValueError` that lists them."""
    if name not in (there := choices()):
        *others, last = there
        raise ValueError(f"extract must be {', '.join(others)} or {last}, not {name!r}")
    return name


def extractor(name: str) -> type[Any] | None:
    """The class of torchcam that reads score maps off gradients; None for the method's own score maps.

    Raises:
        InputError: torchcam is needed and not installed.
    """
    wanted = choices()[known(name)]
    if wanted is None:
        return None
    try:
        library = import_module("torchcam.methods")
    except ModuleNotFoundError:
        raise InputError(
            Problem(f"extract={name} needs torchcam: pip install 'wsolbench[extract]'", "extract")
        ) from None
    found = getattr(library, wanted)
    return _published(found) if found is library.GradCAMpp else found


def _published(base: type[Any]) -> type[Any]:
    """GradCAMpp with the weights of its paper: torchcam 0.5 loses the denominator of alpha."""

    class GradCAMpp(base):
        def _get_weights(self, class_idx: list[int], scores: Any) -> list[Any]:
            self._backprop(scores, class_idx)
            (features,), (gradient,) = self.hook_a, self.hook_g
            alpha = 1 / (2 + features.sum((2, 3), keepdim=True) * gradient)  # equation 19, both sides over gradient^2
            return [(alpha * gradient).where(gradient > 0, 0).sum((2, 3))]

    return GradCAMpp


@cache
def choices() -> Mapping[str, str | None]:
    """Every way to read score maps off a network -> the class of torchcam that does, None for the method's own."""
    return documents.read(Path(__file__).with_name("extract.yaml")).data
