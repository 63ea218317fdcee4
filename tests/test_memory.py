import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator

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


@pytest.fixture
def collector() -> Iterator[None]:
    """As it was, whatever a test does with it."""
    collects = gc.isenabled()
    yield
    gc.unfreeze()
    (gc.enable if collects else gc.disable)()


def test_memory_that_was_freed_is_had_again_as_it_is() -> None:
    ended = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)

    kept, count = ended.stdout.split()
    if kept == "False":
        pytest.skip("the C library is not glibc")

    assert int(count) < 8  # of the 4,096 pages of 16 MiB


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())

    assert memory.keep_freed.__wrapped__() is False


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("without", [memory.collecting_nothing, memory.lasting])
def test_the_collector_is_left_as_it_was(without: Callable[[], ContextDecorator], collects: bool) -> None:
    (gc.enable if collects else gc.disable)()

    meanwhile = []

    @without()
    def fails() -> None:
        meanwhile.append(gc.isenabled())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()

    assert (meanwhile, gc.isenabled()) == ([False], collects)


@pytest.mark.usefixtures("collector")
def test_what_lasts_is_not_looked_at_again() -> None:
    with memory.lasting():
        made: list[list[int]] = [[]]

    assert gc.get_freeze_count() > 0
    assert not any(found is made for found in gc.get_objects())
