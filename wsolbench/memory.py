"""Memory of the C library: what a training step frees, the next one asks for again."""

import ctypes
from functools import cache

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of glibc's malloc.h


@cache
def keep_freed() -> bool:
    """Let freed memory stay with this process, where the system would have to clear it anew for the next step.

    The process is at its largest no larger for it. False where the C library is another than glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
