"""Many trials: one array, several arrays, and never more at a time than asked."""

import time
from collections.abc import Callable

import pytest

from tests.slurm.cluster import await_
from tests.slurm.sweeping import PATIENCE, Sweeping, digests, doubled

pytestmark = pytest.mark.slurm

CLUSTER = {"array_size": 8}

Sweep = Callable[..., Sweeping]


def test_twenty_trials_run_three_at_a_time_in_arrays_of_eight(sweeping: Sweep) -> None:
    made = sweeping(trials=20, epochs=1)
    made.held.unlink()
    launcher = made.start("--max-parallel", 3, "--wait", "-y")
    most = 0

    while launcher.poll() is None:
        most = max(most, len(made.running()))
        time.sleep(0.5)
    _, err = launcher.communicate()

    assert launcher.returncode == 0, err
    assert len(made.records()) == 20
    assert most <= 3
    arrays = [job.partition("_")[0] for job in made.jobs()]
    assert sorted(arrays.count(array) for array in set(arrays)) == [4, 8, 8]
    assert {len(made.attempts(trial)) for trial in made.records()} == {1}
    assert digests(made.store) == made.expected()


def test_second_launch_submits_nothing(sweeping: Sweep) -> None:
    made = sweeping(trials=2, epochs=1)
    made.held.unlink()
    made.submit("--wait")
    before = made.jobs()

    ended = made.run("--wait", "-y")

    assert ended.code == 0, ended.err
    assert made.jobs() == before
    assert {len(made.attempts(trial)) for trial in made.records()} == {1}


def test_two_launchers_at_once_submit_each_trial_once(sweeping: Sweep) -> None:
    made = sweeping(trials=8, epochs=1)
    before = made.jobs()

    launchers = [made.start("-y") for _ in range(3)]
    for launcher in launchers:
        launcher.communicate()
    made.held.unlink()
    await_(lambda: len(made.records()) == 8, PATIENCE, "8 records")

    assert len(set(made.jobs()) - set(before)) == 8
    assert {len(made.attempts(trial)) for trial in made.records()} == {1}
    assert doubled(made.jobs()) == []
