"""A real time limit, which SLURM looks at twice a minute."""

from collections.abc import Callable

import pytest

from tests.slurm.cluster import await_
from tests.slurm.sweeping import PATIENCE, Sweeping, digests

pytestmark = pytest.mark.slurm

Sweep = Callable[..., Sweeping]


def test_time_limit_makes_a_checkpoint_and_the_same_numbers(sweeping: Sweep) -> None:
    made = sweeping(epochs=60)
    made.submit("--timeout-min", 1, "--signal-delay-s", 10)
    made.trained(epochs=1)

    await_(lambda: len(made.attempts()) == 2, PATIENCE, "the second attempt")
    made.done()

    first, second = made.attempts()
    assert (first["kind"], second["kind"]) == ("preempted", "done")
    assert digests(made.store) == made.expected()
