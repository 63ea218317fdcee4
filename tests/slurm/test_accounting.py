"""A cluster with accounting, which limits how many jobs a user may submit."""

import getpass
from collections.abc import Callable

import pytest

from tests.slurm.cluster import Cluster, await_
from tests.slurm.sweeping import PATIENCE, Sweeping

pytestmark = pytest.mark.slurm

CLUSTER = {"accounting": "slurmdbd", "extra": "AccountingStorageEnforce=associations,limits"}

Sweep = Callable[..., Sweeping]


@pytest.fixture(autouse=True, scope="module")
def _limit(slurm: Cluster) -> None:
    """At most six jobs of this user in the queue."""
    user = getpass.getuser()
    slurm.slurm("sacctmgr", "-i", "add", "account", "lab")
    slurm.slurm("sacctmgr", "-i", "add", "user", user, "account=lab", "DefaultAccount=lab")
    slurm.slurm("sacctmgr", "-i", "modify", "user", user, "set", "MaxSubmitJobs=6")


def test_full_queue_takes_what_fits_and_the_rest_later(sweeping: Sweep) -> None:
    made = sweeping(trials=10, epochs=1)

    first = made.run("-y")
    assert first.code == 3, first.err
    assert 0 < len(made.jobs()) <= 6
    made.held.unlink()
    await_(lambda: not made.running(), PATIENCE, "the first jobs")
    second = made.run("-y", "--wait")

    assert second.code == 0, second.err
    assert len(made.records()) == 10
    assert {len(made.attempts(trial)) for trial in made.records()} == {1}


def test_waiting_launcher_refills_a_full_queue(sweeping: Sweep) -> None:
    made = sweeping(trials=10, epochs=1)
    made.held.unlink()

    ended = made.run("-y", "--wait")

    assert ended.code == 0, ended.err
    assert len(made.records()) == 10
