"""Jobs that have to make room."""

from collections.abc import Callable

import pytest

from tests.slurm.cluster import await_
from tests.slurm.sweeping import PATIENCE, Sweeping, digests

pytestmark = pytest.mark.slurm

CLUSTER = {
    "nodes": 1,
    "kill_wait": 20,  # for a step to end, on a busy machine too
    "extra": """PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=abrupt Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF""",
}

Sweep = Callable[..., Sweeping]


@pytest.mark.parametrize("partition", ["low", "abrupt"])
def test_preempted_trial_comes_back_to_the_same_numbers(sweeping: Sweep, partition: str) -> None:
    made = sweeping(epochs=20)
    made.submit("--partition", partition)
    made.trained(epochs=2)

    made.cluster.slurm("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    await_(lambda: len(made.attempts()) == 2, PATIENCE, "the second attempt")
    made.done()

    first, second = made.attempts()
    assert (first.get("kind"), second["kind"]) == ("preempted", "done")
    assert second["slurm_restarts"] == 1
    assert digests(made.store) == made.expected()
