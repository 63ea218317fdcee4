"""What a job of a cluster runs: `python -m wsolbench.entry FOLDER`, the folder of its batch."""

import os
import sys
from pathlib import Path

from wsolbench.stop import Stop, by_signals


def main(folder: Path, stop: Stop) -> None:
    """Run the trial of this job, unless another claim stands for it by now; what is wrong ends the process."""
    from wsolbench import claims, submission, worker  # noqa: PLC0415  these take a second, in which signals are heard
    from wsolbench.attempts import Order, cluster_job  # noqa: PLC0415
    from wsolbench.store import Store  # noqa: PLC0415

    batch = submission.Batch.read(folder)
    store = Store(batch.place.results)
    trial_id = batch.trials[int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))]
    claim = claims.newest(store, trial_id)
    if claim is None or claim.said().get("batch") != folder.name:
        print(f"trial {trial_id} was submitted again since: this job leaves it to the other")
        return
    here = cluster_job() or "0"
    claim.register(here, submission.log(folder.name, here))
    worker.work_and_exit(store.spec(trial_id), batch.place, Order(claim.number, batch.code, batch.commit), stop)


if __name__ == "__main__":
    with by_signals(Stop(), patient=True) as heard:
        main(Path(sys.argv[1]), heard)
