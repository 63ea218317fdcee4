"""Nodes that fail."""

from collections.abc import Callable

import pytest

from tests.slurm.cluster import await_
from tests.slurm.sweeping import PATIENCE, Sweeping, alive, digests

pytestmark = pytest.mark.slurm

CLUSTER = {"node_timeout": 3}

Sweep = Callable[..., Sweeping]


def node_of(made: Sweeping) -> str:
    return made.cluster.slurm("squeue", "--noheader", "--states=running", "--format=%N").strip()


def test_crashed_node_costs_no_record(sweeping: Sweep) -> None:
    made = sweeping(epochs=20)
    made.submit()
    made.trained(epochs=2)
    node = node_of(made)

    made.cluster.crash(node)
    await_(lambda: len(made.attempts()) == 2, PATIENCE, "the second attempt")
    made.done()
    made.cluster.start(node)

    assert made.kinds() == [None, "done"]
    assert digests(made.store) == made.expected()


def test_writer_on_a_cut_node_is_refused_by_its_lease(sweeping: Sweep) -> None:
    made = sweeping(epochs=60)
    made.submit()
    made.trained(epochs=2)
    node, (zombie,) = node_of(made), made.attempts()

    made.cluster.cut(node)
    await_(lambda: len(made.attempts()) == 2, PATIENCE, "the second attempt")
    await_(lambda: not alive(zombie["pid"]), PATIENCE, "the first has seen the lease of the second")
    made.done()
    made.cluster.start(node)

    first, second = made.attempts()
    assert (first["kind"], second["kind"]) == ("superseded", "done")
    assert digests(made.store) == made.expected()
