"""A real time limit, which SLURM looks at twice a minute."""

from collections.abc import Callable

import pytest

from tests.slurm.cluster import await_
from tests.slurm.sweeping import PATIENCE, Sweeping, digests

pytestmark = pytest.mark.slurm

Sweep = Callable[..., Sweeping]


def test_time_limit_makes_a_checkpoint_and_the_same_numbers(sweeping: Sweep) -> None:
    made = sweeping(epochs=20)
    made.submit("--timeout-min", 1, "--signal-delay-s", 10)
    await_(made.jobs, PATIENCE, "the job")
    (job,) = made.jobs()

    await_(lambda: made.store.ids() and "preempted" in made.kinds(), PATIENCE, "the limit")
    made.cluster.slurm("scontrol", "update", f"jobid={job}", "timelimit=60")  # a busy machine may need longer now
    made.done()

    *before, last = made.kinds()
    assert (set(before), last) == ({"preempted"}, "done")
    assert set(made.jobs()) == {job}
    assert digests(made.store) == made.expected()
