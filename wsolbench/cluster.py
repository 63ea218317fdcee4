"""Runs the trials of a sweep on a SLURM cluster: plans, submits what is missing, and, if asked, waits for it."""

import getpass
import shlex
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wsolbench import claims, files, slurm, source, submission, watch
from wsolbench.place import Place
from wsolbench.resources import Resources
from wsolbench.slurm import NoAnswerError
from wsolbench.store import Store
from wsolbench.submission import Outcome, Wanted
from wsolbench.trial import Trial
from wsolbench.watch import AT_WORK, Standing

POLL = 10.0
"""Seconds between two looks at the queue."""

QUEUE_PATIENCE = 1800.0
"""Seconds for which the queue may be silent before nobody waits for it any more."""

MOST_LOSSES = 3
"""So often a trial's job may be lost before it is not submitted again unasked."""

SEVERAL = 2
"""So many trials lost on a node make it one to keep away from."""

ENDED = frozenset({"lost", "timeout", "oom", "cancelled", "failed"})
"""States of a job that SLURM is done with, without a record."""

MISSING = frozenset({"new", "preempted", "interrupted"})
"""States that are always submitted."""

RETRIES: Mapping[str, frozenset[str]] = {
    "lost": frozenset({"lost", "timeout", "oom"}),
    "failed": frozenset({"failed", "timeout", "oom"}),
    "cancelled": frozenset({"cancelled"}),
    "broken": frozenset({"broken"}),
    "silent": frozenset({"silent"}),
}
"""The words of --retry, and the states that each submits again."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """How a sweep is to be submitted.

    Args:
        asked: of each job's resources, over the file's and the recipe's.
        retry: words of `RETRIES`; None for the usual ones.
        most: trials at a time.
        wait: whether to stay until all is done.
        yes: whether not to ask.
        snapshot: whether jobs run a copy of the code, made when they are submitted.
    """

    asked: Mapping[str, Any] = field(default_factory=dict)
    retry: Collection[str] | None = None
    most: int | None = None
    wait: bool = False
    yes: bool = False
    snapshot: bool = False


@dataclass
class Plan:
    """What is to do for the trials of a sweep.

    Args:
        trials: all of them, by id.
        place: where they run.
        asked: what each one's job asks for.
        retry: words of `RETRIES`.
        insist: whether these win over `MOST_LOSSES`.
    """

    trials: Mapping[str, Trial]
    place: Place
    asked: Mapping[str, Resources]
    retry: Collection[str] = ("lost",)
    insist: bool = False
    standings: dict[str, Standing] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """Where they are."""
        return Store(self.place.results)

    def look(self, asking: bool = True) -> watch.Cluster:
        """Ask the queue once, and write down what it alone knows: whose job is whose, and how jobs ended."""
        cluster = watch.ask(self.store) if asking else watch.Cluster(None, "", files.clock(self.store.folder))
        self.standings = watch.standings(self.store, self.trials, cluster)
        for standing in self.standings.values():
            _note(standing)
        return cluster

    def wanted(self) -> list[Wanted]:
        """The trials to submit now."""
        found = self.standings.items()
        return [self._wanted(trial_id, standing) for trial_id, standing in found if self._missing(trial_id, standing)]

    def groups(self) -> dict[Resources, list[str]]:
        """The trials to submit now, by what their jobs ask for."""
        found: dict[Resources, list[str]] = {}
        for one in self.wanted():
            found.setdefault(one.resources, []).append(one.trial_id)
        return found

    def counts(self) -> str:
        """`3 done, 2 queued, ...`."""
        counts = Counter(standing.state for standing in self.standings.values())
        return ", ".join(f"{counts[state]} {state}" for state in ("new", *watch.STATES) if counts[state])

    def at_work(self) -> list[str]:
        """The trials that are somebody's already."""
        return [trial_id for trial_id, standing in self.standings.items() if standing.state in AT_WORK]

    def _missing(self, trial_id: str, standing: Standing) -> bool:
        if standing.state in MISSING:
            return True
        if not any(standing.state in RETRIES[word] for word in self.retry):
            return False
        return self.insist or len(self._losses(trial_id)) < MOST_LOSSES

    def _losses(self, trial_id: str) -> list[str]:
        """How its jobs ended that the cluster, not the trial, is to blame for."""
        ends = [claim.end() for claim in claims.everyone(self.store, trial_id)]
        states = ["lost" if end.get("progress") else str(end.get("state")) for end in ends if end]
        return [state for state in states if state in RETRIES["lost"]]

    def _wanted(self, trial_id: str, standing: Standing) -> Wanted:
        asked = self.asked[trial_id].more(self._losses(trial_id))
        if bad := self._bad_nodes():
            asked = replace(asked, exclude=",".join(filter(None, (asked.exclude, *bad))))
        return Wanted(trial_id, asked, standing.claim)

    def _bad_nodes(self) -> list[str]:
        """Nodes on which several trials were lost and none runs, as long as there are others."""
        lost = Counter(standing.node for standing in self.standings.values() if standing.state == "lost")
        bad = {node for node, count in lost.items() if node and count >= SEVERAL}
        good = {standing.node for standing in self.standings.values() if standing.state in {"running", "done"}}
        return sorted(bad - good) if good - bad - {""} else []


def _note(standing: Standing) -> None:
    """Keep what SLURM will have forgotten tomorrow."""
    claim = standing.claim
    if claim is None or not standing.job or claim.end():
        return
    if not claim.job():
        claim.register(standing.job, submission.log(str(claim.said()["batch"]), standing.job))
    if standing.state in ENDED:
        facts = {"job": standing.job, "node": standing.node, "reason": standing.reason, "note": standing.note}
        claim.close(standing.state, progress=standing.progress, **facts)


def run_a_copy(plan: Plan) -> None:
    """Have the jobs of a plan run a copy of the code as it is now, whatever becomes of the code."""
    variables = source.snapshot(submission.jobs_folder(plan.store.folder) / "code")
    lines = tuple(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    plan.asked = {trial_id: replace(asked, setup=(*asked.setup, *lines)) for trial_id, asked in plan.asked.items()}


def submit(plan: Plan, most: int | None, stop: Callable[[], bool]) -> Outcome:
    """Submit what is missing, at most `most` jobs of it at a time."""
    for trial_id, standing in plan.standings.items():
        if standing.state == "silent" and standing.claim and "silent" in plan.retry:
            cancel({trial_id: standing})
        if standing.state == "broken" and "broken" in plan.retry:
            folder = plan.store.path(trial_id)
            for path in (*folder.glob("record.json"), *folder.glob("scores/*.json")):
                files.put_by(path, "corrupt")  # checkpoints stay: it is evaluated again
    return submission.submit(plan.store, plan.wanted(), plan.place, most, stop)


def wait(plan: Plan, first: Outcome, most: int | None, tell: Tell, stop: Callable[[], bool]) -> None:
    """Wait until nothing is at work or missing; lost jobs are submitted again, refused ones when others end.

    Args:
        plan: what has been submitted.
        first: what came of that.
        most: how many jobs may run at a time.
        tell: is given a line when something has changed.
        stop: whether to leave; the jobs go on.

    Raises:
        NoAnswerError: the queue has been silent for long.
    """
    answered, said, outcome = time.monotonic(), "", first
    full = len(plan.at_work()) + len(first.jobs) if first.left else None
    while not stop():
        asking = _pause(plan, stop)
        cluster = plan.look(asking)
        answered = time.monotonic() if cluster.queue is not None else answered
        if time.monotonic() - answered > QUEUE_PATIENCE:
            raise NoAnswerError(f"the queue has been silent for {QUEUE_PATIENCE / 60:.0f} min: {cluster.silent}")
        if said != (said := "; ".join(filter(None, (plan.counts(), cluster.silent)))):
            tell(said)
        busy, wanted = len(plan.at_work()), plan.wanted()
        if not busy and not wanted:
            return
        room = most and most - busy
        fits = full is None or busy < full or not busy  # SLURM counts a job a little longer than it runs
        if wanted and cluster.queue is not None and (room is None or room > 0) and fits:
            outcome = submit(plan, room, stop)
            full = busy + len(outcome.jobs) if outcome.left else None
            tell(outcome.told())


def _pause(plan: Plan, stop: Callable[[], bool]) -> bool:
    """Until the next look at the queue, True; or until the files alone say that all is done, False."""
    until = time.monotonic() + POLL
    pending = plan.at_work()
    while time.monotonic() < until and not stop():
        time.sleep(min(0.5, POLL))
        pending = [trial_id for trial_id in pending if not plan.store.path(trial_id, "record.json").exists()]
        if not pending and not plan.wanted():
            return False
    return True


def cancel(standings: Mapping[str, Standing]) -> None:
    """Cancel jobs, and write down by whom, so that a later look tells it from a loss.

    Raises:
        NoAnswerError: the cluster does not take it; nothing is written down.
    """
    jobs = [standing.job for standing in standings.values() if standing.job]
    for start in range(0, len(jobs), 500):
        slurm.cancel(jobs[start : start + 500])
    for standing in standings.values():
        if standing.claim is not None:
            note = f"cancelled by {getpass.getuser()}"
            standing.claim.close("cancelled", job=standing.job, node=standing.node, note=note)
