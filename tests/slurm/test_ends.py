"""What ends a job before its trial does: signals, limits, people."""

import os
import signal
from collections.abc import Callable

import pytest

from tests.slurm.cluster import await_
from tests.slurm.sweeping import PATIENCE, Sweeping, alive, digests

pytestmark = pytest.mark.slurm

Sweep = Callable[..., Sweeping]


def test_user_signal_makes_a_checkpoint_and_the_same_numbers(sweeping: Sweep) -> None:
    made = sweeping(epochs=20)
    made.submit("workers=2")
    made.trained(epochs=2)
    (job,) = made.running()

    made.cluster.slurm("scancel", "--signal=USR2", job)
    await_(lambda: len(made.attempts()) == 2, PATIENCE, "the second attempt")
    made.done()

    first, second = made.attempts()
    assert (first["kind"], second["kind"]) == ("preempted", "done")
    assert len({job for job in made.jobs() if job == second["slurm_job"]}) == 1
    assert digests(made.store) == made.expected()


def test_cancelled_trial_goes_on_where_it_was(sweeping: Sweep) -> None:
    made = sweeping(epochs=20)
    made.submit()
    made.trained(epochs=2)

    made.cluster.slurm("scancel", made.running()[0])
    await_(lambda: not made.running(), PATIENCE, "the end of the job")
    assert made.records() == {}
    made.held.unlink()
    ended = made.run("-y", "--wait", "--retry", "cancelled")

    assert ended.code == 0, ended.err
    assert made.kinds()[1:] == ["done"]
    assert digests(made.store) == made.expected()


def test_killed_worker_is_lost_and_goes_on_from_its_checkpoint(sweeping: Sweep) -> None:
    made = sweeping(epochs=20)
    made.submit("workers=2")
    made.trained(epochs=2)
    (attempt,) = made.attempts()

    os.kill(attempt["pid"], signal.SIGKILL)
    await_(lambda: not alive(attempt["pid"]), PATIENCE, "the end of the process")
    await_(lambda: not made.running(), PATIENCE, "the end of the job")
    made.held.unlink()
    ended = made.run("-y", "--wait", "--retry", "lost")

    assert ended.code == 0, ended.err
    assert len(made.attempts()) == 2
    assert digests(made.store) == made.expected()
