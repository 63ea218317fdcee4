"""What state trials are in: their files, joined with one look at the cluster's queue."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsolbench import claims, files, slurm
from wsolbench.attempts import SILENT_AFTER, Attempt
from wsolbench.claims import Claim
from wsolbench.slurm import Job, NoAnswerError, Queue
from wsolbench.store import Store

ABSENCE = 120.0
"""Seconds without a sign of life after which a job that is not in the queue is lost; NFS may hide files for 60."""

AT_WORK = frozenset({"submitting", "queued", "stuck", "running", "silent"})
"""States in which a trial is somebody's already."""

STATES = (
    "done",
    *sorted(AT_WORK),
    "lost",
    "timeout",
    "oom",
    "cancelled",
    "interrupted",
    "preempted",
    "failed",
    "broken",
)

STUCK: Mapping[str, str] = {
    "launch failed requeued held": "its node could not start it; `scontrol release {job}` lets it run again",
    "JobHeldUser": "it is held; `scontrol release {job}` lets it run",
    "JobHeldAdmin": "an administrator holds it: ask them",
    "ReqNodeNotAvail": "its nodes are down or reserved; wait, or cancel it and choose others",
    "PartitionDown": "its partition is down; cancel it and choose another --partition",
    "PartitionInactive": "its partition is closed; cancel it and choose another --partition",
    "PartitionTimeLimit": "its partition allows less time; cancel it and ask for less --timeout-min",
    "PartitionNodeLimit": "its partition has no such nodes; cancel it and choose another --partition",
    "AssocGrp": "its account has used up its share; wait, or cancel it and choose another --account",
    "AssocMax": "a limit of its account; wait, or cancel it and ask for less",
    "QOSMax": "a limit of its quality of service; wait, or cancel it and ask for less",
    "QOSGrp": "its quality of service has used up its share; wait, or choose another --qos",
    "DependencyNeverSatisfied": "it waits for a job that will never do; cancel it and submit again",
    "BadConstraints": "no node is like that; cancel it and ask for other resources",
    "InvalidAccount": "its account is not known; cancel it and choose another --account",
    "InvalidQOS": "its quality of service is not known; cancel it and choose another --qos",
}
"""Reasons for which a job may wait for ever, by how they begin, and what to do."""

_ENDED: Mapping[str, str] = {"TIMEOUT": "timeout", "OUT_OF_MEMORY": "oom", "CANCELLED": "cancelled"}
"""What the end of a job says of its trial; any other end is a loss, as the trial's own failure is in its files."""


@dataclass(frozen=True)
class Standing:
    """What state a trial is in, and why.

    Args:
        state: one of `STATES`, or `new`.
        note: why, and what to do.
        job: id of the job that stands for it, or stood last.
        node: where that runs or ran.
        reason: SLURM's word for why it waits or how it ended.
        progress: whether that has trained an epoch.
        claim: that its job came from.
    """

    state: str
    note: str = ""
    job: str = ""
    node: str = ""
    reason: str = ""
    claim: Claim | None = field(default=None, compare=False)
    progress: bool = False


@dataclass(frozen=True)
class Cluster:
    """What the cluster said when it was asked.

    Args:
        queue: our jobs; None where it did not answer, or there is no cluster.
        silent: why it did not answer; empty where nobody asked.
        clock: what time it is by the file system's clock, seconds.
        ended: says what became of jobs that have left the queue.
    """

    queue: Queue | None
    silent: str
    clock: float
    ended: Callable[[Iterable[str]], Mapping[str, Job]] = slurm.ended


def ask(store: Store) -> Cluster:
    """One look at the queue, where there is a cluster."""
    clock = files.clock(store.folder)
    if not slurm.there():
        return Cluster(None, "there is no squeue here", clock)
    try:
        return Cluster(slurm.queue(), "", clock)
    except NoAnswerError as error:
        return Cluster(None, str(error), clock)


def standings(store: Store, trial_ids: Iterable[str], cluster: Cluster) -> dict[str, Standing]:
    """What state each trial is in; accounting is asked at most once, for all jobs that have left the queue."""
    found = {trial_id: _standing(store, trial_id, cluster, {}) for trial_id in trial_ids}
    gone = {standing.job: trial_id for trial_id, standing in found.items() if standing.state == "lost" and standing.job}
    if gone and (said := cluster.ended(gone)):
        for job_id in said.keys() & gone.keys():
            found[gone[job_id]] = _standing(store, gone[job_id], cluster, said)
    return found


def _standing(store: Store, trial_id: str, cluster: Cluster, said: Mapping[str, Job]) -> Standing:
    state = store.state(trial_id)
    claim = None if state == "done" else claims.newest(store, trial_id)
    if claim is None or state == "broken":
        return Standing(state, claim=claim)
    attempts = store.attempts(trial_id)
    if end := claim.end():
        return _closed(state, end, claim, attempts)
    job_id = str(claim.job().get("job") or _adopted(claim, cluster.queue) or "")
    own = [attempt for attempt in attempts if job_id and attempt.meta().get("slurm_job") == job_id]
    if state == "running" and not own:
        return Standing("running", f"of {claim.launcher()}" if claim.held(cluster.clock) else "", job_id, claim=claim)
    if not job_id:
        return _unsubmitted(state, claim, cluster)
    job = said.get(job_id) or (cluster.queue or {}).get(job_id)
    if job and job.alive:
        return _alive(claim, job, own, cluster.clock)
    failed = state == "failed" and own and own[-1] == attempts[-1]  # its own code has ended it
    message = own[-1].exit().get("message", "") if own else ""
    return Standing(state, message, job_id, claim=claim) if failed else _gone(claim, job_id, job, own, cluster)


def _adopted(claim: Claim, queue: Queue | None) -> str | None:
    """The job of a claim whose launcher died before it wrote the id down."""
    said = claim.said()
    jobs = [job.id for job in (queue or {}).values() if job.batch == said.get("batch")]
    return next((job_id for job_id in jobs if int(job_id.partition("_")[2] or 0) == said.get("index")), None)


def _closed(state: str, end: Mapping[str, Any], claim: Claim, attempts: Sequence[Attempt]) -> Standing:
    """Its job is known to have ended; a sign of life since then, or an attempt by hand, says more."""
    job = str(end.get("job", ""))
    ended_at = (claim.folder / "end.json").stat().st_mtime
    by_hand = bool(attempts) and attempts[-1].meta().get("slurm_job") != job
    if by_hand or (state == "running" and _last_sign(claim, attempts) > ended_at):
        return Standing(state, claim=claim)
    note, node, reason = (str(end.get(key, "")) for key in ("note", "node", "reason"))
    return Standing(str(end["state"]), note, job, node, reason, claim)


def _unsubmitted(state: str, claim: Claim, cluster: Cluster) -> Standing:
    """A claim that has no job: its launcher is about to submit it, or to run it itself, or has died."""
    if not claim.held(cluster.clock):
        return Standing(state, f"claimed by {claim.launcher()}, which is gone", claim=claim)
    if claim.said().get("cluster") != "slurm":
        return Standing("queued", f"of {claim.launcher()}", claim=claim)
    age = f"{claim.age(cluster.clock):.0f} s ago"
    return Standing("submitting", f"being submitted by {claim.launcher()} {age}", claim=claim)


def _alive(claim: Claim, job: Job, own: Sequence[Attempt], clock: float) -> Standing:
    """SLURM is not done with it; the end of an earlier attempt, such as that on a failed node, says nothing."""
    if job.on_node:
        note = "" if job.state == "RUNNING" else job.state.lower()
        if own and not own[-1].exit() and (still := clock - _last_sign(claim, own)) > SILENT_AFTER:
            return Standing("silent", f"no sign of life for {span(still)}", job.id, job.node, job.reason, claim)
        return Standing("running", note if own else "starts", job.id, job.node, job.reason, claim)
    do = next((text for reason, text in STUCK.items() if job.reason.strip("()").startswith(reason)), None)
    again = f"again after {len(own)} attempts, " if len(own) > 1 else "again, " if own else ""
    if do:
        return Standing("stuck", f"{job.reason}: {do.format(job=job.id)}", job.id, job.node, job.reason, claim)
    return Standing("queued", f"{again}{job.reason or job.state.lower()}", job.id, job.node, job.reason, claim)


def _gone(claim: Claim, job_id: str, job: Job | None, own: Sequence[Attempt], cluster: Cluster) -> Standing:
    """SLURM is done with it, or does not know it any more, and there is no record; if SLURM is silent, who knows."""
    still = cluster.clock - _last_sign(claim, own)
    alive = "running" if own and not own[-1].exit() else "queued"
    if cluster.queue is None:
        return Standing(alive, f"not sure: {cluster.silent}", job_id, claim=claim)
    if still < ABSENCE and (job is None or job.state == "COMPLETED"):
        return Standing(alive, f"left the queue, last seen {span(still)} ago", job_id, claim=claim)
    progress = any(attempt.epochs() for attempt in own)
    if job is None:
        note = f"its job left the queue; no sign of life for {span(still)}"
        return Standing("lost", note, job_id, claim=claim, progress=progress)
    code = f", exit code {job.exit_code}" if job.exit_code else ""
    note = "COMPLETED, but without a result" if job.state == "COMPLETED" else f"{job.state} {job.reason}".strip() + code
    state = _ENDED.get(job.state, "lost")
    return Standing(state, f"its job is {note}", job_id, job.node, job.state, claim, progress)


def _last_sign(claim: Claim, own: Sequence[Attempt]) -> float:
    """When a trial was last heard of, by the file system's clock."""
    paths = [claim.folder / "job.json", claim.folder / "claim.json"]
    paths += [attempt.folder / name for attempt in own[-1:] for name in ("heartbeat", "exit.json", "meta.json")]
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def span(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    minute, hour = 60, 3600
    if seconds < 2 * minute:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / minute:.0f} min" if seconds < 2 * hour else f"{seconds / hour:.1f} h"


def remaining(store: Store, trial_id: str, epochs: int, others: Sequence[float] = ()) -> float | None:
    """Seconds that a trial has yet to train, from its own epochs, else from those of its like; None if nobody knows."""
    rows = store.epochs(trial_id)
    measured = [row["seconds"] for row in rows] or list(others)
    if not measured:
        return None
    left = epochs - (rows[-1]["epoch"] if rows else 0)
    return max(0, left) * statistics.median(measured)
