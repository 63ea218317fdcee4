import subprocess
import sys

import pytest

from wsolbench import memory

FAULTS = """
import resource, sys
import torch
from wsolbench import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = sys.argv[1] == "keep" and memory.keep_freed()
faults()
print(kept, min(faults() for _ in range(9)))
"""


def faults(how: str) -> tuple[bool, int]:
    """Whether freed memory is kept, and how many pages the system clears for 16 MiB that were had before."""
    ended = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    kept, count = ended.stdout.split()
    return kept == "True", int(count)


def test_memory_that_was_freed_is_had_again_as_it_is() -> None:
    kept, count = faults("keep")
    if not kept:
        pytest.skip("the C library is not glibc")

    assert count < 8


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())

    assert memory.keep_freed.__wrapped__() is False
