"""`status`, `logs` and `cancel`, and `sweep` on a cluster, as a user types them; the cluster is a fake."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK, Command, until
from tests.fake_slurm import FakeSlurm
from wsolbench import claims, cluster, job, recipe
from wsolbench.commands import status
from wsolbench.store import Store

TRIALS = [recipe.complete({**QUICK, "epochs": 1, "seed": seed}) for seed in range(3)]
IDS = [trial.id for trial in TRIALS]


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WSOLBENCH_RESULTS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return FakeSlurm(tmp_path / "bin")


@pytest.fixture
def words(tmp_path: Path, cub: Path) -> list[str]:
    """A sweep of three trials on a cluster."""
    base = ", ".join(f"{key}: {value}" for key, value in QUICK.items())
    text = f"base: {{{base}, epochs: 1}}\ngrid: {{seed: [0, 1, 2]}}\n".replace("epochs: 2, ", "", 1)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    return ["mine.yaml", f"data={cub}"]


@pytest.fixture
def submitted(wsolbench: Command, words: list[str]) -> Store:
    assert wsolbench("sweep", *words, "--cluster", "slurm", "-y").code == 0
    return Store(Path("results"))


def rows(wsolbench: Command, *words: object) -> list[dict[str, Any]]:
    return json.loads(wsolbench("status", *words, "--json").out)


# sweep


def test_sweep_submits_what_is_missing_and_returns(wsolbench: Command, words: list[str], fake: FakeSlurm) -> None:
    ended = wsolbench("sweep", *words, "--cluster", "slurm", "-y")

    assert ended.code == 0
    assert "mine: 3 trials: 3 new, 3 to submit" in ended.err
    assert "at most 0.0 GPU hours" not in ended.err  # of cub: the recipe asks for a GPU
    assert "at most 12.0 GPU hours" in ended.err
    assert "3 submitted as job 100" in ended.err
    assert len(fake.jobs) == 3


def test_second_sweep_says_what_is_queued(wsolbench: Command, words: list[str], submitted: Store) -> None:
    ended = wsolbench("sweep", *words, "--cluster", "slurm", "-y")

    assert (ended.code, len(submitted.ids())) == (0, 3)
    assert "3 queued, 0 to submit" in ended.err


def test_dry_run_prints_the_header_and_the_trials(wsolbench: Command, words: list[str], fake: FakeSlurm) -> None:
    flags = [
        "--partition",
        "gpu",
        "--mem-gb",
        "7",
        "--setup",
        "module load x",
        "--sbatch",
        "nice=5",
        "--max-parallel",
        "2",
    ]
    ended = wsolbench("sweep", *words, "--cluster", "slurm", "-n", *flags)

    lines = ended.out.splitlines()
    assert {"#SBATCH --partition=gpu", "#SBATCH --mem=7GB", "#SBATCH --nice=5", "module load x"} <= set(lines)
    assert "#SBATCH --array=0-2%2" in lines
    assert [line.split()[0] for line in lines[-3:]] == IDS
    assert (fake.calls("sbatch"), Path("results").exists()) == (0, False)


def test_dry_run_needs_no_cluster(wsolbench: Command, words: list[str], fake: FakeSlurm) -> None:
    fake.remove("squeue", "sbatch", "srun", "scontrol")

    assert "#SBATCH --array=0-2" in wsolbench("sweep", *words, "--cluster", "slurm", "-n").out


def test_sweep_without_a_cluster_is_an_error_of_the_environment(
    wsolbench: Command, words: list[str], fake: FakeSlurm
) -> None:
    fake.remove("squeue")

    ended = wsolbench("sweep", *words, "--cluster", "slurm", "-y")

    assert (ended.code, "there is no squeue here" in ended.err) == (4, True)


def test_sweep_asks_before_it_submits(wsolbench: Command, words: list[str], fake: FakeSlurm) -> None:
    ended = wsolbench("sweep", *words, "--cluster", "slurm")

    assert (ended.code, fake.jobs) == (2, {})
    assert "submit 3 trials? nobody is there to answer: say it with --yes" in ended.err


def test_a_limit_of_the_cluster_exits_3_and_says_how_many_remain(
    wsolbench: Command, words: list[str], fake: FakeSlurm
) -> None:
    fake.set(most_jobs=1)

    ended = wsolbench("sweep", *words, "--cluster", "slurm", "-y")

    assert ended.code == 3
    assert "1 submitted as job 100; 2 remain: " in ended.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--partition", "gpu"], "--partition: of a SLURM cluster"),
        (["--wait", "--mem-gb", "3"], "--mem-gb, --wait: of a SLURM cluster"),
        (["--sbatch", "nice=5"], "--sbatch: of a SLURM cluster"),
        (["--retry", "faild"], "--retry knows lost, failed, cancelled, broken, silent, not 'faild'"),
        (["--cluster", "slurm", "--timeout-min", "0"], "timeout_min must be more than 0, not 0"),
    ],
)
def test_a_mistake_in_the_flags_is_told(wsolbench: Command, words: list[str], flags: list[str], said: str) -> None:
    ended = wsolbench("sweep", *words, *flags)

    assert ended.code == 2
    assert said in ended.err


def test_waiting_ends_with_the_table_and_a_failure_exits_1(
    wsolbench: Command, words: list[str], fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "POLL", 0.01)
    looks = iter(range(100))
    pause = cluster._pause

    def run_some(*given: Any) -> bool:
        if next(looks) == 0:
            for index, place_of in enumerate(fake.jobs.values()):
                batch = json.loads((Path(place_of["script"]).parent / "batch.json").read_bytes())
                if index:
                    job.run(TRIALS[index], cluster.submission.Batch.read(Path(place_of["script"]).parent).place)
                    assert batch["trials"][index] == IDS[index]
            failed = Store(Path("results")).attempt(IDS[0])
            failed.begin({"slurm_job": "100_0"})
            failed.end("failed", "ValueError: no")
            for job_id in fake.jobs:
                fake.change(job_id, state="COMPLETED")
        return pause(*given)

    monkeypatch.setattr(cluster, "_pause", run_some)

    ended = wsolbench("sweep", *words, "device=cpu", "--cluster", "slurm", "-y", "--wait")

    assert ended.code == 1
    assert f"failed: {IDS[0]}: ValueError: no" in ended.err
    assert "2 done, 1 failed" in ended.err


# status


@pytest.mark.usefixtures("submitted")
def test_status_joins_files_and_queue(wsolbench: Command, fake: FakeSlurm) -> None:
    fake.change("100_1", state="RUNNING", node="n1")
    fake.change("100_2", reason="JobHeldUser")

    found = rows(wsolbench)

    by_id = {row["id"]: (row["state"], row["job"], row["node"]) for row in found}
    assert by_id == {
        IDS[0]: ("queued", "100_0", ""),
        IDS[1]: ("running", "100_1", "n1"),
        IDS[2]: ("stuck", "100_2", ""),
    }
    assert fake.calls("squeue") == 2  # one of the sweep's, one of status


@pytest.mark.usefixtures("submitted")
def test_status_of_one_trial_needs_no_more_of_its_id_than_tells_it(wsolbench: Command, tmp_path: Path) -> None:
    assert [row["id"] for row in rows(wsolbench, IDS[1][:6])] == [IDS[1]]

    (tmp_path / "results" / f"{IDS[1][:6]}000000").mkdir()
    ended = wsolbench("status", IDS[1][:6])

    assert ended.code == 2
    assert f"2 trials begin with '{IDS[1][:6]}' in 'results'; there are: " in ended.err


def test_a_name_that_is_neither_a_sweep_nor_a_trial_is_told_with_what_there_is(
    wsolbench: Command, tmp_path: Path
) -> None:
    named = ("status", "drop-rat", "--results", tmp_path / "kept")
    nothing = wsolbench(*named).err
    Store(tmp_path / "kept").add(TRIALS[0])
    name = TRIALS[0].id

    slip, near, words = (
        wsolbench("status", *of, *named[2:]) for of in (["drop-rat"], [f"x{name[1:]}"], [name, "lr=1"])
    )

    assert (slip.code, near.code, words.code) == (2, 2, 2)
    start = f"error: no sweep, and no trial in '{tmp_path}/kept', is called"
    assert nothing.startswith(f"{start} 'drop-rat', did you mean 'drop-rate'? The sweeps are: backbone, drop-rate, ")
    assert nothing.endswith("table3\n")
    assert slip.err.endswith("table3; `wsolbench status` lists the trials\n")
    assert near.err.startswith(f"{start} 'x{name[1:]}', did you mean '{name}'? ")
    assert words.err == f"error: {name!r} is a trial, which has all settings already: leave the KEY=VALUE words out\n"


@pytest.mark.usefixtures("submitted")
def test_status_does_without_a_cluster(wsolbench: Command, fake: FakeSlurm) -> None:
    fake.remove("squeue")

    assert {row["state"] for row in rows(wsolbench)} == {"queued"}
    assert {row["note"] for row in rows(wsolbench)} == {"not sure: there is no squeue here"}


def test_status_of_trials_that_were_never_submitted_asks_no_queue(
    wsolbench: Command, fake: FakeSlurm, trained: tuple[Any, Any, Any]
) -> None:
    rows(wsolbench, "--results", trained[1].results)

    assert fake.calls("squeue") == 0


def test_status_has_the_time_that_is_left(wsolbench: Command, submitted: Store) -> None:
    attempt = submitted.attempt(IDS[0])
    attempt.begin({"slurm_job": "100_0"})
    attempt.epoch({"epoch": 0, "loss": 1.0, "seconds": 30.0})

    assert {row["id"]: row["left"] for row in rows(wsolbench)}[IDS[0]] == 30.0
    assert "30 s" in wsolbench("status").out


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ([], "2 running; about 90 s left"),
        ([120.0, 100.0], "2 new, 2 running; about 90 s left, 3 min with the new ones"),  # 360 s, two at a time
        ([100.0, None], "2 new, 2 running; about 90 s left"),
    ],
)
def test_the_time_left_of_trials_that_nobody_has_started_is_told_apart(new: list[float | None], said: str) -> None:
    lines = [{"state": "running", "left": left} for left in (90.0, 50.0)]
    lines += [{"state": "new", "left": left} for left in new]

    assert status._summary(Counter(str(line["state"]) for line in lines), lines) == said


def test_trials_of_a_sweep_that_have_not_begun_are_shown_as_what_they_are(wsolbench: Command, words: list[str]) -> None:
    found = rows(wsolbench, *words)

    assert [(row["id"], row["state"], row["epochs"]) for row in found] == [(name, "new", 1) for name in IDS]
    assert found[2]["trial"].startswith("cub tiny adl ")
    assert found[2]["trial"].endswith(" seed=2")
    assert not Path("results").exists()


@pytest.mark.usefixtures("submitted")
def test_watching_goes_on_until_nothing_is_at_work(
    wsolbench: Command, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        for job_id in fake.jobs:
            fake.change(job_id, state="CANCELLED")

    monkeypatch.setattr(time, "sleep", sleep)

    ended = wsolbench("status", "--watch")

    assert [seconds for seconds in slept if seconds >= 1] == [cluster.POLL]
    assert ended.err.splitlines() == ["3 queued", "3 cancelled"]


# logs


def test_logs_are_those_of_the_job_and_of_the_attempt(wsolbench: Command, submitted: Store) -> None:
    attempt = submitted.attempt(IDS[0])
    attempt.begin({"slurm_job": "100_0"})
    attempt.end("failed", "ValueError: no", "Traceback: here\n")
    claim = claims.newest(submitted, IDS[0])
    assert claim is not None
    Path("results", claim.job()["log"] + ".out").write_text("epoch 1\n", encoding="utf-8")
    Path("results", claim.job()["log"] + ".err").write_text("srun: error\n", encoding="utf-8")

    ended = wsolbench("logs", IDS[0][:8])

    lines = [line for line in ended.out.splitlines() if not line.startswith("==>")]
    assert (ended.code, lines) == (0, ["epoch 1", "srun: error", "Traceback: here"])


def test_logs_follow_until_the_trial_has_ended(
    wsolbench: Command, submitted: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claims.newest(submitted, IDS[0])
    assert claim is not None
    log = Path("results", claim.job()["log"] + ".out")
    log.write_text("first\n", encoding="utf-8")
    attempt = submitted.attempt(IDS[0])
    attempt.begin({"slurm_job": "100_0"})

    def sleep(_: float) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write("second\n")
        attempt.end("failed", "no")

    monkeypatch.setattr(time, "sleep", sleep)

    assert wsolbench("logs", IDS[0], "-f").out.splitlines()[1:] == ["first", "second"]


@pytest.mark.usefixtures("submitted")
def test_logs_of_a_trial_that_has_written_nothing_say_so(wsolbench: Command) -> None:
    ended = wsolbench("logs", IDS[0])

    assert (ended.code, ended.out) == (3, "")
    assert "has written nothing yet" in ended.err


def test_logs_of_a_local_trial_are_its_last_worker_s(wsolbench: Command, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.add(TRIALS[0])
    for age, (batch, number) in enumerate([("b", "000003"), ("a", "000001")]):
        folder = store.folder / ".jobs" / batch / "handover" / "logs"
        folder.mkdir(parents=True)
        for name in IDS[:2]:
            path = folder / f"{number}-{name}.txt"
            path.write_text(f"{batch} {name}\n", encoding="utf-8")
            os.utime(path, (age, age))

    ended = wsolbench("logs", IDS[0])

    assert (ended.code, ended.out.splitlines()[1:]) == (0, [f"a {IDS[0]}"])


def test_logs_of_a_trial_that_ended_without_one_say_so(wsolbench: Command, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.add(TRIALS[0])
    attempt = store.attempt(IDS[0])
    attempt.begin({})
    attempt.end("failed", "no")

    ended = wsolbench("logs", IDS[0])

    assert (ended.code, "has no log: `wsolbench run` keeps none" in ended.err) == (3, True)


@pytest.mark.usefixtures("submitted")
def test_logs_of_an_unknown_trial_are_a_mistake(wsolbench: Command) -> None:
    assert wsolbench("logs", "zzz").code == 2


# cancel


@pytest.mark.usefixtures("submitted")
def test_cancel_lists_asks_and_ends_the_jobs(wsolbench: Command, words: list[str], fake: FakeSlurm) -> None:
    listed = wsolbench("cancel", *words, "-n")
    asked = wsolbench("cancel", *words)
    before = {found["state"] for found in fake.jobs.values()}
    ended = wsolbench("cancel", *words, "-y")

    assert [line.split()[:3] for line in listed.out.splitlines()] == [
        [name, "queued", f"100_{i}"] for i, name in enumerate(IDS)
    ]
    assert (asked.code, before) == (2, {"PENDING"})
    assert (ended.code, {found["state"] for found in fake.jobs.values()}) == (0, {"CANCELLED"})
    assert {row["state"] for row in rows(wsolbench)} == {"cancelled"}


@pytest.mark.usefixtures("submitted")
@pytest.mark.parametrize("letters", [12, 6])
def test_cancel_of_one_trial_leaves_the_others(wsolbench: Command, fake: FakeSlurm, letters: int) -> None:
    wsolbench("cancel", IDS[1][:letters], "-y")

    assert [found["state"] for found in fake.jobs.values()] == ["PENDING", "CANCELLED", "PENDING"]


@pytest.mark.usefixtures("submitted")
def test_cancelled_trials_are_submitted_again_only_if_wanted(
    wsolbench: Command, words: list[str], fake: FakeSlurm
) -> None:
    wsolbench("cancel", *words, "-y")

    wsolbench("sweep", *words, "--cluster", "slurm", "-y")
    before = len(fake.jobs)
    wsolbench("sweep", *words, "--cluster", "slurm", "-y", "--retry", "cancelled,lost")

    assert (before, len(fake.jobs)) == (3, 6)


def test_cancel_ends_a_process_of_this_machine(wsolbench: Command, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.add(TRIALS[0])
    program = (
        "import sys, time; from pathlib import Path; from wsolbench.store import Store\n"
        "Store(Path(sys.argv[1])).attempt(sys.argv[2]).begin({}); print('ready', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", program, str(store.folder), IDS[0]]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()

        ended = wsolbench("cancel", IDS[0], "-y")

        assert (ended.code, process.wait(20)) == (0, -signal.SIGTERM)


@pytest.mark.faults
def test_cancel_of_a_sweep_stops_its_launcher_too(
    wsolbench: Command, start: Callable[..., Any], words: list[str], tmp_path: Path
) -> None:
    long, store = [*words, "epochs=3000"], Store(tmp_path / "results")
    launcher = start("sweep", *long, "--max-parallel", "1")
    until(lambda: any(store.epochs(trial_id) for trial_id in store.ids()))

    ended = wsolbench("cancel", *long, "-y")

    assert (ended.code, launcher.wait(60)) == (0, 130)
    assert f"process {launcher.pid} runs a sweep: it stops, and starts no more trials" in ended.err
    assert "the next `wsolbench sweep` or `run` goes on" in ended.err
    assert "--retry" not in ended.err
    assert "interrupted; run the same command again" in launcher.stderr.read()
    assert Counter(store.state(trial_id) for trial_id in store.ids()) == {"preempted": 1, "new": 2}


def test_cancel_of_one_trial_leaves_a_launcher_that_holds_others(wsolbench: Command, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for trial in TRIALS[:2]:
        store.add(trial)
        claims.take(store, trial.id, None, {"cluster": "local"})

    ended = wsolbench("cancel", IDS[0], "-y")

    assert (ended.code, ended.out) == (0, "")
    assert f"left alone: {IDS[0]} queued of " in ended.err
    assert "nothing to cancel here" in ended.err


def test_nothing_at_work_is_nothing_to_cancel(wsolbench: Command, tmp_path: Path) -> None:
    Store(tmp_path / "results").add(TRIALS[0])

    assert "nothing of it is at work" in wsolbench("cancel", IDS[0], "-y").err


# Control-C


Start = Callable[..., Any]


@pytest.mark.faults
def test_control_c_stops_submitting_and_says_what_was_submitted(
    start: Start, words: list[str], fake: FakeSlurm
) -> None:
    fake.set(array_size=1, slow=1.5)

    launcher = start("sweep", *words, "--cluster", "slurm", "-y")
    deadline = time.monotonic() + 60
    while not fake.calls("sbatch") and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(launcher.pid, signal.SIGINT)
    code, said = launcher.wait(60), launcher.stderr.read()

    assert code == 130, said
    assert len(fake.jobs) == 1, said
    assert "1 submitted as job 100; 2 remain" in said
    assert "submitted jobs go on" in said
