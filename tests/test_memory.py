import subprocess
import sys

import pytest

from wsolbench import memory

FAULTS = """
import resource
import torch
from wsolbench import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = memory.keep_freed()
faults()
print(kept, min(faults() for _ in range(9)))
"""


def test_memory_that_was_freed_is_had_again_as_it_is() -> None:
    ended = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)

    kept, count = ended.stdout.split()
    if kept == "False":
        pytest.skip("the C library is not glibc")

    assert int(count) < 8  # of the 4,096 pages of 16 MiB


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())

    assert memory.keep_freed.__wrapped__() is False
