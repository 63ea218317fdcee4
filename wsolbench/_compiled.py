"""Compilation by numba: cached on disk where there is a place for it, and announced when it really happens."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.core import event

Function = TypeVar("Function", bound=Callable[..., object])

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
"""Nothing is divided by zero: where that may raise, every call counts references to its arrays, half of its time."""


class _Announcement(event.Listener):
    """Says once on stderr that kernels of this package are being compiled, since nothing else moves meanwhile."""

    said = False

    def on_start(self, event: event.Event) -> None:
        if not self.said and event.data["dispatcher"].py_func.__module__.startswith("wsolbench."):
            self.said = True
            sys.stderr.write("wsolbench: compiling the evaluation kernels once (about 15 s)\n")

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Announcement())


def compiled(function: Function) -> Function:
    """`function` as machine code that releases the GIL; compiled at its first call."""
    kernel: Any
    try:
        kernel = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
        kernel = njit(**_OPTIONS)(function)
    return kernel


def inlined(function: Function) -> Function:
    """A small function that other compiled ones take into their own code: a call passes every array by its parts."""
    kernel: Any = njit(forceinline=True, **_OPTIONS)(function)
    return kernel
