import multiprocessing
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK
from tests.fake_slurm import FakeSlurm
from wsolbench import claims, cluster, entry, job, mirror, recipe, recommended, source, submission, watch
from wsolbench.cluster import Plan
from wsolbench.errors import InputError
from wsolbench.place import Place
from wsolbench.resources import Resources, resources
from wsolbench.slurm import NoAnswerError
from wsolbench.stop import Stop
from wsolbench.submission import Batch, Outcome, job_script
from wsolbench.trial import Trial

TRIALS = [recipe.complete({**QUICK, "epochs": 1, "seed": seed}) for seed in range(20)]
ASKED = Resources(timeout_min=60, mem_gb=4.0, gpus_per_node=0, signal_delay_s=120)


def never() -> bool:
    return False


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return FakeSlurm(tmp_path / "bin")


def planned(place: Place, trials: Iterable[Trial] = TRIALS, **facts: Any) -> Plan:
    found = {trial.id: trial for trial in trials}
    plan = Plan(found, place, dict.fromkeys(found, ASKED), **facts)
    for trial in found.values():
        plan.store.add(trial)
    plan.look()
    return plan


def submitted(place: Place, trials: Iterable[Trial] = TRIALS, most: int | None = None, **facts: Any) -> Outcome:
    return cluster.submit(planned(place, trials, **facts), most, never)


def standings(place: Place, trials: Iterable[Trial] = TRIALS) -> Counter[str]:
    return Counter(standing.state for standing in planned(place, trials).standings.values())


def scripts(place: Place) -> list[str]:
    """Of the arrays that were submitted, in their order."""
    paths = (place.results / ".jobs").glob("*/*.sh")
    return [path.read_text(encoding="utf-8") for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]


# Arrays


def test_trials_are_submitted_as_one_array(fake: FakeSlurm, place: Place) -> None:
    outcome = submitted(place)

    assert sorted(outcome.jobs.values(), key=lambda name: int(name[4:])) == [f"100_{index}" for index in range(20)]
    assert list(fake.jobs) == [f"100_{index}" for index in range(20)]
    assert outcome.told() == "20 submitted as job 100"


def test_a_second_submission_submits_nothing(fake: FakeSlurm, place: Place) -> None:
    submitted(place)

    assert submitted(place) == Outcome()
    assert fake.calls("sbatch") == 1


def test_arrays_are_no_larger_than_the_cluster_allows(fake: FakeSlurm, place: Place) -> None:
    fake.set(array_size=8)

    submitted(place)

    sizes = Counter(name.partition("_")[0] for name in fake.jobs)
    assert sizes == {"100": 8, "101": 8, "102": 4}


def test_trials_of_equal_resources_make_an_array(fake: FakeSlurm, place: Place) -> None:
    plan = planned(place)
    plan.asked = {trial_id: replace(ASKED, mem_gb=4.0 + index % 2) for index, trial_id in enumerate(plan.trials)}

    cluster.submit(plan, None, never)

    assert Counter(name.partition("_")[0] for name in fake.jobs) == {"100": 10, "101": 10}
    assert ["--mem=4GB" in script for script in scripts(place)] == [True, False]


def test_a_single_trial_makes_no_array(fake: FakeSlurm, place: Place) -> None:
    outcome = submitted(place, TRIALS[:1])

    assert list(fake.jobs) == list(outcome.jobs.values()) == ["100"]


@pytest.mark.parametrize(
    ("arrays", "most", "lanes"), [(1, 3, [3]), (3, 10, [4, 3, 3]), (3, 3, [1, 1, 1]), (5, 2, [1, 1]), (4, 1, [1])]
)
def test_arrays_share_the_trials_that_may_run_at_a_time(arrays: int, most: int, lanes: list[int]) -> None:
    assert submission._lanes(arrays, most) == lanes


def test_no_more_run_at_a_time_than_wanted_also_over_several_arrays(fake: FakeSlurm, place: Place) -> None:
    fake.set(array_size=8)

    submitted(place, most=2)

    headers = [
        dict(line.split("=", 1) for line in script.splitlines() if line.startswith("#SBATCH") and "=" in line)
        for script in scripts(place)
    ]
    assert [header["#SBATCH --array"] for header in headers] == ["0-7%1", "0-7%1", "0-3%1"]
    assert [header.get("#SBATCH --dependency") for header in headers] == [None, None, "afterany:100"]


# What a job is told


def test_a_job_needs_the_trial_and_the_place_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(place, TRIALS[:3])
    folder = next((place.results / ".jobs").iterdir())
    for name, value in {"JOB_ID": "100", "TASK_ID": "1"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_{name}", value)

    process = multiprocessing.get_context("fork").Process(target=entry.main, args=(folder, Stop()))
    process.start()
    process.join()

    assert process.exitcode == 0
    record = planned(place).store.record(TRIALS[1].id) or {}
    meta = planned(place).store.attempts(TRIALS[1].id)[0].meta()
    assert (meta["slurm_job"], meta["submission"], meta["code_changed"]) == ("100_1", 1, False)
    expected = job.run(TRIALS[1], replace(place, results=place.results.with_name("here")))
    assert record["weights_digest"] == expected["weights_digest"]
    assert not list(place.results.rglob("*.pkl"))


EARLY = """
import os, runpy, signal, sys
class Early:  # a finder: the first module that a job takes is being imported
    def find_spec(self, name, path=None, target=None):
        if name == "wsolbench.claims":
            sys.meta_path.remove(self)
            print("signalled", "torch" in sys.modules, flush=True)
            os.kill(os.getpid(), int(sys.argv[2]))
sys.meta_path.insert(0, Early())
runpy.run_module("wsolbench.entry", run_name="__main__")
"""


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_in_the_first_second_is_heard(place: Place, number: signal.Signals) -> None:
    submitted(place, TRIALS[:1])
    folder = next((place.results / ".jobs").iterdir())
    environment = {**os.environ, "SLURM_JOB_ID": "100", "OMP_NUM_THREADS": "1"}

    words = [sys.executable, "-c", EARLY, str(folder), str(int(number))]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    assert ended.stdout == "signalled False\n"
    assert ended.returncode == 128 + number, ended.stderr
    (attempt,) = planned(place).store.attempts(TRIALS[0].id)
    assert (attempt.exit()["kind"], attempt.exit()["step"]) == ("preempted", 0)


def test_jobs_run_a_copy_of_the_code_if_asked(place: Place) -> None:
    plan = planned(place, TRIALS[:1])
    plan.store.add(TRIALS[0])

    cluster.run_a_copy(plan)
    plan.look()
    cluster.submit(plan, None, never)

    (script,) = place.results.glob(".jobs/*/1.sh")
    exported = re.findall(r"^export PYTHONPATH=(.*)$", script.read_text(encoding="utf-8"), re.MULTILINE)
    copy = Path(exported[-1])  # the last one holds
    assert copy.parent == (place.results / ".jobs" / "code").resolve()
    assert copy.name == source.digest()[:12]
    assert (copy / "wsolbench" / "entry.py").exists()


def test_a_job_leaves_a_trial_that_was_submitted_again(
    place: Place, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(place, TRIALS[:1])
    folder = next((place.results / ".jobs").iterdir())
    fake.change("100", state="NODE_FAIL")
    submitted(place, TRIALS[:1])
    monkeypatch.setenv("SLURM_JOB_ID", "100")

    entry.main(folder, Stop())

    assert "was submitted again" in capsys.readouterr().out
    assert planned(place).store.attempts(TRIALS[0].id) == []


def test_a_batch_is_read_as_it_was_written_by_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths: dict[str, Any] = {field.name: Path(field.name) for field in fields(Place) if "Path" in str(field.type)}
    others: dict[str, Any] = {"device": "cpu", "workers": 2, "gpus": 1, "protocol": "adl2019"}
    batch = Batch(Place(**paths, **others), ("a", "b"), "digest", "commit")

    batch.write(tmp_path)

    told = Place(**{name: path.absolute() for name, path in paths.items()}, **others)
    assert {field.name for field in fields(Place)} == {*paths, *others}, "a field that the test does not set"
    assert Batch.read(tmp_path) == replace(batch, place=told)


def test_a_job_tells_tensorboard_how_its_trial_goes(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(replace(place, tensorboard=tmp_path / "runs"), TRIALS[:1])
    monkeypatch.setenv("SLURM_JOB_ID", "100")

    folder = next((place.results / ".jobs").iterdir())

    process = multiprocessing.get_context("fork").Process(target=entry.main, args=(folder, Stop()))
    process.start()  # of its own: a job that has ended hears no signal any more
    process.join()

    assert process.exitcode == 0
    assert planned(place, TRIALS[:1]).store.record(TRIALS[0].id) is not None
    assert list((tmp_path / "runs" / mirror.run_name(TRIALS[0])).iterdir())


def test_script_asks_for_what_is_wanted(tmp_path: Path) -> None:
    asked = replace(
        ASKED, partition="gpu", account="lab", gpus_per_node=2, cpus_per_task=6, exclude="n7", setup=("module load x",)
    )
    asked = replace(asked, additional_parameters={"nice": 100, "licenses": "a:1"})

    lines = job_script(tmp_path, "abc", asked, 3, (2, "7")).splitlines()

    wanted = (
        "array=0-2%2 comment=wsolbench:abc job-name=wsolbench-abc partition=gpu account=lab gpus-per-node=2 exclude=n7"
    )
    wanted += " cpus-per-task=6 mem=4GB time=60 signal=USR2@120 nice=100 licenses=a:1 dependency=afterany:7 requeue"
    assert {f"#SBATCH --{word}" for word in wanted.split()} <= set(lines)
    assert {"module load x", "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"} <= set(lines)
    assert lines[-2 if not lines[-1] else -1].endswith(f"-m wsolbench.entry {tmp_path}")


def test_a_job_without_a_gpu_sees_none(tmp_path: Path) -> None:
    scripts = [job_script(tmp_path, "a", replace(ASKED, gpus_per_node=n), 1, (1, None)) for n in (0, 1)]

    assert ["export CUDA_VISIBLE_DEVICES=" in script.splitlines() for script in scripts] == [True, False]


# Resources


def test_resources_are_of_the_recipe_the_file_and_the_flags_in_this_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "habit")
    monkeypatch.setenv("SBATCH_PARTITION", "habit")
    layers = (
        {"timeout_min": 10, "mem_gb": 1.0, "gpus_per_node": 1, "signal_delay_s": 9},
        {"mem_gb": 2.0, "qos": "file"},
    )

    asked = resources(TRIALS[0], Place(Path("r"), workers=3), *layers, {"mem_gb": 3.0, "partition": "flag"})

    told = {"qos": "file", "partition": "flag", "account": "habit", "cpus_per_task": TRIALS[0].threads + 3}
    assert asked == Resources(timeout_min=10, mem_gb=3.0, gpus_per_node=1, signal_delay_s=9, **told)


def test_recipe_asks_for_something_for_every_trial() -> None:
    asked = resources(TRIALS[0], Place(Path("r")), recommended.resources_of(TRIALS[0]))

    assert asked.timeout_min > 0
    assert asked.mem_gb > 0


def test_no_gpu_is_asked_for_where_the_cpu_is_wanted() -> None:
    asked = {"timeout_min": 10, "mem_gb": 1.0, "gpus_per_node": 1, "signal_delay_s": 9}

    assert resources(TRIALS[0], Place(Path("r"), device="cpu"), asked).gpus_per_node == 0
    with pytest.raises(InputError, match="--gpus-per-node 1"):
        resources(TRIALS[0], Place(Path("r"), device="cuda"), {**asked, "gpus_per_node": 0})


def test_wrong_resources_are_told_all_at_once() -> None:
    with pytest.raises(InputError) as caught:
        resources(TRIALS[0], Place(Path("r")), {"timeout_min": 0, "mem_gb": 1.0, "gpus_per_node": 1, "memory": 3})

    told = "\n".join(caught.value.problems)
    assert "timeout_min must be more than 0" in told
    assert "signal_delay_s is missing" in told
    assert "no resource memory; there are: timeout_min" in told


def test_a_retry_gets_more_of_what_was_too_little() -> None:
    more = ASKED.more(["oom", "lost", "oom", "timeout"])

    assert (more.mem_gb, more.timeout_min) == (16.0, 120)


# The cluster takes no more


def test_what_fits_is_submitted_and_the_rest_remains(fake: FakeSlurm, place: Place) -> None:
    fake.set(most_jobs=13)

    outcome = submitted(place)

    assert (len(outcome.jobs), len(outcome.left), len(fake.jobs)) == (13, 7, 13)
    assert "7 remain" in outcome.told()
    assert standings(place) == {"queued": 13, "new": 7}


def test_the_rest_is_submitted_when_there_is_room(fake: FakeSlurm, place: Place) -> None:
    fake.set(most_jobs=13)
    submitted(place)
    fake.set(most_jobs=100)

    submitted(place)

    assert standings(place) == {"queued": 20}
    assert len(fake.jobs) == 20


def test_no_claim_remains_where_nothing_fits(fake: FakeSlurm, place: Place) -> None:
    fake.set(most_jobs=0)

    outcome = submitted(place, TRIALS[:3])

    assert len(outcome.left) == 3
    assert not list(place.results.glob("*/submitted/*"))


def test_a_refusal_for_another_reason_is_told_and_frees_the_trials(fake: FakeSlurm, place: Place) -> None:
    fake.fault("sbatch", "sbatch: error: invalid partition specified: nowhere")

    with pytest.raises(InputError, match="invalid partition specified: nowhere"):
        submitted(place)

    assert standings(place) == {"new": 20}


# Launchers that die, and several of them


LAUNCH = """
import sys
from pathlib import Path
from wsolbench import cluster
from wsolbench.place import Place
from wsolbench.resources import Resources
from wsolbench.store import Store
from wsolbench.trial import from_spec

place = Place(Path(sys.argv[1]))
trials = {name: from_spec(Store(place.results).spec(name)) for name in Store(place.results).ids()}
asked = Resources(timeout_min=60, mem_gb=4.0, gpus_per_node=0, signal_delay_s=120)
plan = cluster.Plan(trials, place, dict.fromkeys(trials, asked))
plan.look()
outcome = cluster.submit(plan, None, lambda: False)
print(len(outcome.jobs))
"""


def launcher(place: Place, count: int, **environment: str) -> "subprocess.Popen[str]":
    """A process of its own that submits the first so many trials and what else is there; it does without torch."""
    planned(place, TRIALS[:count])
    words = [sys.executable, "-c", LAUNCH, str(place.results)]
    root = Path(__file__).resolve().parents[1]
    return subprocess.Popen(words, cwd=root, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_launcher_killed_around_sbatch_loses_and_doubles_nothing(fake: FakeSlurm, place: Place, when: str) -> None:
    fake.fault("sbatch", f"kill {when}")
    killed = launcher(place, 3)
    killed.communicate(timeout=60)
    fake.fault("sbatch", "")

    again = submitted(place, TRIALS[:3])

    assert killed.returncode == -signal.SIGKILL
    assert len(again.jobs) == {"before": 3, "after": 0}[when]
    assert len(fake.jobs) == 3
    assert standings(place, TRIALS[:3]) == {"queued": 3}
    assert all(claims.newest(planned(place).store, trial.id).job() for trial in TRIALS[:3])  # type: ignore[union-attr]


@pytest.mark.faults
@pytest.mark.parametrize(
    "fault", ["1:rename:0001", "2:rename:0001", "1:fsync:batch.json", "1:fsync:3.sh", "1:link:job.json"]
)
def test_a_launcher_killed_at_a_step_loses_and_doubles_nothing(fake: FakeSlurm, place: Place, fault: str) -> None:
    killed = launcher(place, 3, WSOLBENCH_FAULT=fault)
    killed.communicate(timeout=60)

    submitted(place, TRIALS[:3])

    assert killed.returncode == -signal.SIGKILL
    assert len(fake.jobs) == 3
    assert standings(place, TRIALS[:3]) == {"queued": 3}


@pytest.mark.parametrize("_", [0, *(pytest.param(again, marks=pytest.mark.faults) for again in range(1, 50))])
def test_two_launchers_at_once_submit_each_trial_once(fake: FakeSlurm, place: Place, _: int) -> None:
    planned(place, [replace(TRIALS[0], seed=seed) for seed in range(100)])
    both = [launcher(place, 0) for _ in range(2)]
    said = [int(process.communicate(timeout=120)[0]) for process in both]

    assert len(fake.jobs) == 100
    assert sum(said) == 100


def test_a_trial_that_is_claimed_meanwhile_is_told(fake: FakeSlurm, place: Place) -> None:
    late = planned(place, TRIALS[:1])
    submitted(place, TRIALS[:1])

    outcome = cluster.submit(late, None, never)

    assert list(outcome.elsewhere) == [TRIALS[0].id]
    assert re.search(rf"being submitted by {claims.here()['host']}:{os.getpid()} \d+ s ago", outcome.told())
    assert len(fake.jobs) == 1


def test_of_many_only_one_gets_the_claim(place: Place) -> None:
    store = planned(place, TRIALS[:1]).store

    got = [claims.take(store, TRIALS[0].id, None, {"batch": str(number)}) for number in range(5)]

    assert [claim is not None for claim in got] == [True, False, False, False, False]
    assert [path.name for path in store.path(TRIALS[0].id, "submitted").iterdir()] == ["0001"]


# Trying again


def test_lost_jobs_are_submitted_again_a_few_times(fake: FakeSlurm, place: Place) -> None:
    for number in range(100, 100 + cluster.MOST_LOSSES):
        submitted(place, TRIALS[:1])
        fake.change(str(number), state="NODE_FAIL")

    assert submitted(place, TRIALS[:1]).jobs == {}
    assert submitted(place, TRIALS[:1], insist=True).jobs.keys() == {TRIALS[0].id}


@pytest.mark.parametrize(
    ("state", "retry", "again"),
    [
        ("CANCELLED", ("lost",), False),
        ("CANCELLED", ("cancelled",), True),
        ("TIMEOUT", ("lost",), True),
        ("OUT_OF_MEMORY", ("failed",), True),
        ("OUT_OF_MEMORY", ("cancelled",), False),
    ],
)
def test_a_job_is_submitted_again_by_how_it_ended(
    fake: FakeSlurm, place: Place, state: str, retry: tuple[str, ...], again: bool
) -> None:
    submitted(place, TRIALS[:1])
    fake.change("100", state=state)

    assert bool(submitted(place, TRIALS[:1], retry=retry).jobs) == again


def test_a_failed_trial_is_submitted_again_only_if_wanted(fake: FakeSlurm, place: Place) -> None:
    plan = planned(place, TRIALS[:1])
    cluster.submit(plan, None, never)
    attempt = plan.store.attempt(TRIALS[0].id)
    attempt.begin({"slurm_job": "100"})
    attempt.end("failed", "ValueError: no")
    fake.change("100", state="FAILED")

    assert submitted(place, TRIALS[:1]).jobs == {}
    assert len(submitted(place, TRIALS[:1], retry=("failed",)).jobs) == 1


def test_a_broken_record_is_put_by_and_its_trial_submitted_only_if_wanted(place: Place) -> None:
    record = planned(place, TRIALS[:1]).store.path(TRIALS[0].id, "record.json")
    record.write_text("{}", encoding="utf-8")

    untouched = submitted(place, TRIALS[:1])
    again = submitted(place, TRIALS[:1], retry=("broken",))

    assert (len(untouched.jobs), len(again.jobs)) == (0, 1)
    assert record.with_name("record.json.corrupt-1").read_text(encoding="utf-8") == "{}"
    assert standings(place, TRIALS[:1]) == {"queued": 1}


def test_more_memory_is_asked_for_after_too_little(fake: FakeSlurm, place: Place) -> None:
    submitted(place, TRIALS[:1])
    fake.change("100", state="OUT_OF_MEMORY")

    submitted(place, TRIALS[:1])

    assert ["--mem=4GB" in script for script in scripts(place)] == [True, False]
    assert "--mem=8GB" in scripts(place)[1]


def test_a_node_that_loses_trials_is_kept_away_from(fake: FakeSlurm, place: Place) -> None:
    submitted(place, TRIALS[:4])
    for index, (state, node) in enumerate(
        [("NODE_FAIL", "n1"), ("NODE_FAIL", "n1"), ("RUNNING", "n2"), ("PENDING", "")]
    ):
        fake.change(f"100_{index}", state=state, node=node)

    submitted(place, TRIALS[:4])

    assert "#SBATCH --exclude=n1" in scripts(place)[1].splitlines()


def test_a_cancelled_job_is_remembered_after_the_queue_has_forgotten_it(fake: FakeSlurm, place: Place) -> None:
    submitted(place, TRIALS[:2])

    cluster.cancel(planned(place, TRIALS[:2]).standings)
    fake.forget("100_0", "100_1")

    assert standings(place, TRIALS[:2]) == {"cancelled": 2}


# The folder of jobs


def test_folder_of_jobs_is_the_users_alone_whatever_the_umask(place: Place) -> None:
    before = os.umask(0)
    try:
        submitted(place, TRIALS[:1])
    finally:
        os.umask(before)

    folders = [place.results / ".jobs", *(place.results / ".jobs").iterdir()]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700, 0o700]


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_folder_of_jobs_that_others_may_write_is_refused(place: Place, fake: FakeSlurm, mode: int) -> None:
    (place.results / ".jobs").mkdir(parents=True)
    (place.results / ".jobs").chmod(mode)

    with pytest.raises(InputError, match="chmod 700"):
        submitted(place, TRIALS[:1])
    assert fake.calls("sbatch") == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_folder_of_jobs_of_somebody_else_is_refused(place: Place) -> None:
    (place.results / ".jobs").mkdir(parents=True, mode=0o700)
    os.chown(place.results / ".jobs", 12345, 12345)

    with pytest.raises(InputError, match="not a folder of yours"):
        submitted(place, TRIALS[:1])


def test_folder_of_jobs_that_is_a_link_is_refused(place: Place, tmp_path: Path) -> None:
    place.results.mkdir()
    (place.results / ".jobs").symlink_to(tmp_path)

    with pytest.raises(InputError, match="not a folder of yours"):
        submitted(place, TRIALS[:1])


# Waiting


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "POLL", 0.01)


def run_all(fake: FakeSlurm) -> None:
    """Let every job that waits run here, to its end."""
    for job_id, found in fake.jobs.items():
        if found["state"] == "PENDING":
            batch = Batch.read(Path(found["script"]).parent)
            job.run(next(t for t in TRIALS if t.id == batch.trials[int(job_id.partition("_")[2] or 0)]), batch.place)
            fake.change(job_id, state="COMPLETED")


@pytest.mark.usefixtures("_quick")
def test_waiting_ends_when_all_is_done_and_submits_what_was_lost_or_refused(fake: FakeSlurm, place: Place) -> None:
    fake.set(most_jobs=2)
    plan = planned(place, TRIALS[:3])
    first = cluster.submit(plan, None, never)
    fake.change("100", state="NODE_FAIL")
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        run_all(fake)

    cluster.wait(plan, first, None, tell, never)

    assert [standing.state for standing in plan.standings.values()] == ["done"] * 3
    assert told[-1] == "3 done"


@pytest.mark.usefixtures("_quick")
def test_waiting_asks_again_while_the_cluster_still_counts_what_has_ended(fake: FakeSlurm, place: Place) -> None:
    fake.set(most_jobs=1)
    plan = planned(place, TRIALS[:2])
    first = cluster.submit(plan, None, never)
    run_all(fake)
    fake.set(most_jobs=0)
    refused, deadline = fake.calls("sbatch") + 1, time.monotonic() + 30

    def stop() -> bool:
        if fake.calls("sbatch") >= refused:
            fake.set(most_jobs=1)
            run_all(fake)
        return time.monotonic() > deadline

    cluster.wait(plan, first, None, lambda _: None, stop)

    assert [standing.state for standing in plan.standings.values()] == ["done"] * 2


@pytest.mark.usefixtures("_quick")
def test_waiting_leaves_when_told_to_and_the_jobs_go_on(fake: FakeSlurm, place: Place) -> None:
    plan = planned(place, TRIALS[:2])
    first = cluster.submit(plan, None, never)
    looks = iter([False, False, False, True, True])

    cluster.wait(plan, first, None, lambda _: None, lambda: next(looks, True))

    assert {found["state"] for found in fake.jobs.values()} == {"PENDING"}


@pytest.mark.usefixtures("_quick")
def test_waiting_does_not_go_on_for_ever_where_the_queue_is_silent(
    fake: FakeSlurm, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "QUEUE_PATIENCE", 0.1)
    plan = planned(place, TRIALS[:1])
    first = cluster.submit(plan, None, never)
    fake.fault("squeue", "squeue: error: Unable to contact slurm controller")

    with pytest.raises(NoAnswerError, match="silent for"):
        cluster.wait(plan, first, None, lambda _: None, never)


def test_queue_is_not_asked_more_often_than_every_ten_seconds() -> None:
    assert cluster.POLL >= 10


def test_one_look_asks_the_queue_once(fake: FakeSlurm, place: Place) -> None:
    submitted(place)
    before = fake.calls("squeue")

    watch.standings(planned(place).store, [trial.id for trial in TRIALS], watch.ask(planned(place).store))

    assert fake.calls("squeue") == before + 3
