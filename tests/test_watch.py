from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK
from wsolbench import attempts, claims, recipe, submission, watch
from wsolbench.attempts import SILENT_AFTER, Attempt
from wsolbench.claims import Claim
from wsolbench.slurm import Job
from wsolbench.store import Store
from wsolbench.watch import ABSENCE, Cluster, Standing

TRIAL = recipe.complete(QUICK)
DEAD = {"host": attempts.here()["host"], "pid": 4_194_305, "process_start": "1"}
ELSEWHERE = {"host": "elsewhere", "pid": 1, "process_start": "1"}


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    store.add(TRIAL)
    return store


def claim(store: Store, job: str = "12_0", **facts: Any) -> Claim:
    said = {"cluster": "slurm", "batch": "abc", "index": 0, **facts}
    made = claims.take(store, TRIAL.id, claims.newest(store, TRIAL.id), said)
    assert made is not None
    if job:
        made.register(job, submission.log("abc", job))
    return made


def attempt(store: Store, job: str | None = "12_0", **facts: Any) -> Attempt:
    made = store.attempt(TRIAL.id)
    made.begin({"slurm_job": job, **facts})
    return made


def standing(
    store: Store, *jobs: Job, later: float = 0, silent: str = "", ended: Mapping[str, Job] | None = None
) -> Standing:
    """What state the trial is in, so many seconds after its last sign of life."""

    def accounts(_: Iterable[str]) -> Mapping[str, Job]:
        return ended or {}

    paths = [*store.path(TRIAL.id, "submitted").rglob("*.json"), *store.path(TRIAL.id, "attempts").rglob("*")]
    clock = max(path.stat().st_mtime for path in paths) + later if paths else 0
    queue = None if silent else {job.id: job for job in jobs}
    return watch.standings(store, [TRIAL.id], Cluster(queue, silent, clock, accounts))[TRIAL.id]


def job(state: str = "RUNNING", reason: str = "", job_id: str = "12_0", **facts: Any) -> Job:
    return Job(job_id, state, "n1", reason, "wsolbench:abc", **facts)


def test_a_trial_that_was_never_submitted_is_as_its_files_say(kept: Store) -> None:
    assert standing(kept) == Standing("new")


# While it is submitted


def test_a_claim_of_a_living_launcher_is_being_submitted(kept: Store) -> None:
    held = claim(kept, job="")

    found = standing(kept, later=3)

    assert (found.state, found.note) == ("submitting", f"being submitted by {held.launcher()} 3 s ago")


def test_a_claim_of_a_dead_launcher_without_a_job_is_free(kept: Store) -> None:
    claim(kept, job="", **DEAD)

    found = standing(kept)

    assert found.state == "new"
    assert found.note.endswith("which is gone")


@pytest.mark.parametrize(("later", "state"), [(SILENT_AFTER - 1, "submitting"), (SILENT_AFTER + 1, "new")])
def test_a_claim_from_another_host_is_free_after_a_while(kept: Store, later: float, state: str) -> None:
    claim(kept, job="", **ELSEWHERE)

    assert standing(kept, later=later).state == state


def test_the_job_of_a_dead_launcher_is_found_by_its_comment(kept: Store) -> None:
    claim(kept, job="", index=1, **DEAD)

    found = standing(kept, job("PENDING", job_id="12_0"), job("PENDING", job_id="12_1"))

    assert (found.state, found.job) == ("queued", "12_1")


def test_a_single_job_of_a_dead_launcher_is_found_too(kept: Store) -> None:
    claim(kept, job="", **DEAD)

    assert standing(kept, job("RUNNING", job_id="12")).job == "12"


# While it is in the queue


def test_a_waiting_job_says_why(kept: Store) -> None:
    claim(kept)

    assert standing(kept, job("PENDING", "Priority")) == Standing("queued", "Priority", "12_0", "n1", "Priority")


@pytest.mark.parametrize(
    "reason", ["launch failed requeued held", "(JobHeldUser)", "AssocGrpCPUMinutesLimit", "BadConstraints"]
)
def test_a_job_that_may_wait_for_ever_is_stuck_and_says_what_to_do(kept: Store, reason: str) -> None:
    claim(kept)

    found = standing(kept, job("PENDING", reason))

    assert found.state == "stuck"
    assert found.note.startswith(f"{reason}: ")


def test_a_held_job_says_how_to_release_it(kept: Store) -> None:
    claim(kept)

    assert "`scontrol release 12_0`" in standing(kept, job("PENDING", "launch failed requeued held")).note


def test_a_running_job_without_an_attempt_starts(kept: Store) -> None:
    claim(kept)

    assert standing(kept, job()) == Standing("running", "starts", "12_0", "n1")


@pytest.mark.parametrize(("later", "state"), [(SILENT_AFTER - 1, "running"), (SILENT_AFTER + 1, "silent")])
def test_a_running_job_without_a_sign_of_life_is_silent(kept: Store, later: float, state: str) -> None:
    claim(kept)
    attempt(kept, **ELSEWHERE)

    assert standing(kept, job(), later=later).state == state


@pytest.mark.parametrize("kind", [None, "preempted", "interrupted", "failed"])
def test_a_job_that_is_in_the_queue_again_is_alive_however_its_attempt_ended(kept: Store, kind: str | None) -> None:
    claim(kept)
    ended = attempt(kept, **DEAD)
    if kind:
        ended.end(kind)

    found = standing(kept, job("PENDING", "BeginTime"), later=10 * ABSENCE)

    assert (found.state, found.note) == ("queued", "again, BeginTime")


# When it has left the queue


@pytest.mark.parametrize(("later", "state"), [(ABSENCE - 1, "running"), (ABSENCE + 1, "lost")])
def test_a_job_is_lost_after_the_deadline_not_before(kept: Store, later: float, state: str) -> None:
    claim(kept)
    attempt(kept, **DEAD)

    assert standing(kept, later=later).state == state


def test_a_job_that_never_started_is_lost_too(kept: Store) -> None:
    claim(kept)

    assert standing(kept, later=ABSENCE + 1).state == "lost"


def test_accounting_says_why_a_job_was_lost(kept: Store) -> None:
    claim(kept)

    found = standing(kept, later=ABSENCE + 1, ended={"12_0": job("NODE_FAIL", exit_code="0:9")})

    assert (found.state, found.node, found.note) == ("lost", "n1", "its job is NODE_FAIL, exit code 0:9")


@pytest.mark.parametrize(
    ("slurm", "state"),
    [
        ("NODE_FAIL", "lost"),
        ("PREEMPTED", "lost"),
        ("BOOT_FAIL", "lost"),
        ("FAILED", "lost"),
        ("TIMEOUT", "timeout"),
        ("OUT_OF_MEMORY", "oom"),
        ("CANCELLED", "cancelled"),
    ],
)
def test_the_end_of_a_job_decides_what_may_be_done(kept: Store, slurm: str, state: str) -> None:
    claim(kept)
    attempt(kept, **DEAD)

    assert standing(kept, job(slurm)).state == state


def test_an_error_of_the_trials_own_is_a_failure(kept: Store) -> None:
    claim(kept)
    attempt(kept).end("failed", "ValueError: no")

    found = standing(kept, job("FAILED"))

    assert (found.state, found.note) == ("failed", "ValueError: no")


@pytest.mark.parametrize(("later", "state"), [(1, "running"), (ABSENCE + 1, "lost")])
def test_a_completed_job_without_a_result_is_given_time_to_show_it(kept: Store, later: float, state: str) -> None:
    claim(kept)
    attempt(kept, **DEAD)

    assert standing(kept, job("COMPLETED"), later=later).state == state


def test_nothing_is_lost_while_the_queue_is_silent(kept: Store) -> None:
    claim(kept)
    attempt(kept, **DEAD)

    found = standing(kept, later=100 * ABSENCE, silent="squeue did not answer in 10 s")

    assert (found.state, found.note) == ("running", "not sure: squeue did not answer in 10 s")


def test_a_failure_is_known_while_the_queue_is_silent(kept: Store) -> None:
    claim(kept)
    attempt(kept).end("diverged", "the loss is nan")

    assert standing(kept, silent="there is no squeue here").state == "failed"


# When it is known to have ended


def test_the_end_of_a_job_stays_known_after_slurm_has_forgotten_it(kept: Store) -> None:
    held = claim(kept)
    attempt(kept, **DEAD)
    held.close("oom", job="12_0", node="n1", note="its job is OUT_OF_MEMORY", reason="OUT_OF_MEMORY")

    assert standing(kept) == Standing("oom", "its job is OUT_OF_MEMORY", "12_0", "n1", "OUT_OF_MEMORY")


def test_a_run_by_hand_since_then_says_more(kept: Store) -> None:
    claim(kept).close("lost", job="12_0")
    attempt(kept, job=None)

    assert standing(kept).state == "running"


def test_the_last_claim_counts(kept: Store) -> None:
    claim(kept).close("lost", job="12_0")
    claim(kept, job="13", batch="def")

    assert standing(kept, Job("13", "PENDING", comment="wsolbench:def")).job == "13"


# Time that is left


def test_remaining_time_is_that_of_the_epochs_to_come(kept: Store) -> None:
    made = attempt(kept)
    made.epoch({"epoch": 1, "loss": 1.0, "seconds": 7.0})

    assert watch.remaining(kept, TRIAL.id, TRIAL.epochs) == 7.0 * (TRIAL.epochs - 1)


def test_remaining_time_of_a_trial_that_has_not_begun_is_that_of_its_like(kept: Store) -> None:
    assert watch.remaining(kept, TRIAL.id, TRIAL.epochs) is None
    assert watch.remaining(kept, TRIAL.id, TRIAL.epochs, [3.0, 4.0, 50.0]) == 4.0 * TRIAL.epochs
