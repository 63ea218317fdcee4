"""Memory that stays: what a training step frees, the next one asks for again, and what is imported is never garbage."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of glibc's malloc.h
_NEVER = -1


@cache
def keep_freed() -> bool:
    """Let freed memory stay with this process, where the system would have to clear it anew for the next step.

    It grows by what cannot be joined (3 % for MobileNetV1 at 224 pixels). False where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))


@contextmanager
def collecting_nothing() -> Iterator[None]:
    """Without the garbage collector, which looks at ten thousand new records again and again, and none is garbage."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def lasting() -> Iterator[None]:
    """What is made meanwhile stays: nobody looks for garbage in it, which is a third of the time that imports take."""
    with collecting_nothing():
        try:
            yield
        finally:
            keep()


def keep() -> None:
    """Let what has been made stay: the collector need not look at it again."""
    gc.freeze()
