"""A trial in a process of its own: stopped, overtaken, doubled, out of room."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NAN_METHOD, QUICK, Command, method_folder, until, words
from wsolbench import attempts, batches, evaluator, files, job, methods, network, recipe, source, store, worker
from wsolbench.attempts import Attempt, Order
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial

FORK = multiprocessing.get_context("fork")
ANYWHERE = {"cost", "environment", "attempt", "digest", "epochs"}
"""What a record may say otherwise after an interruption; of the epochs only the seconds."""

Begin = Callable[..., BaseProcess]


@pytest.fixture
def loading(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    """A place without a cache, where two processes decode the images."""
    (tmp_path / "no folder").touch()
    monkeypatch.setenv("WSOLBENCH_CACHE", str(tmp_path / "no folder"))
    return Place(place.results, place.data, workers=2)


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts a job's process, forked from this one, in a session of its own; none outlives the test."""
    begun: list[BaseProcess] = []

    def start(trial: Trial, place: Place, order: Order = Order(), **variables: str) -> BaseProcess:  # noqa: B008
        process = FORK.Process(target=_alone, args=(trial.spec(), place, order, variables))
        begun.append(process)
        process.start()
        return process

    yield start
    for process in begun:
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


def _alone(spec: Mapping[str, Any], place: Place, order: Order, variables: Mapping[str, str]) -> None:
    os.setsid()
    os.environ.update(variables)
    worker.work_and_exit(spec, place, order)


def trial_of(**settings: Any) -> Trial:
    return recipe.complete({**QUICK, "batch_size": 2, **settings})


def code_of(process: BaseProcess) -> int | None:
    process.join(60)
    return process.exitcode


def newest(trial: Trial, place: Place) -> Attempt | None:
    found = Store(place.results).attempts(trial.id)
    return found[-1] if found else None


def checkpointed(trial: Trial, place: Place) -> list[str]:
    return sorted(path.name for path in Store(place.results).path(trial.id, "checkpoint").glob("*.safetensors"))


def comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    losses = [(row["epoch"], row["loss"]) for row in record["epochs"]]
    return {**{key: value for key, value in record.items() if key not in ANYWHERE}, "losses": losses}


def kinds(trial: Trial, place: Place) -> list[str | None]:
    return [attempt.exit().get("kind") for attempt in Store(place.results).attempts(trial.id)]


# Stopped by a signal


def disturbed(after: int, number: signal.Signals, delay: float | None = None) -> Callable[..., Iterator[batches.Batch]]:
    """The batches; as so many are used up a signal comes, or after a delay and to those too that load images."""
    left = iter(range(after, -1, -1))

    def training_batches(*arguments: Any, **more: Any) -> Iterator[batches.Batch]:
        for batch in batches.training_batches(*arguments, **more):
            if next(left, None) == 0:
                if delay is None:
                    os.kill(os.getpid(), number)
                else:
                    threading.Timer(delay, os.killpg, (os.getpid(), number)).start()
            yield batch

    return training_batches


@pytest.mark.faults
def test_interruptions_at_random_change_neither_weights_nor_record(loading: Place, begin: Begin) -> None:
    """With two processes that load images."""
    times = 20
    trial, chance = trial_of(epochs=2 * times), random.Random(times)
    whole = job.run(trial, Place(loading.results.with_name("whole"), loading.data))

    for _ in range(times):
        number = chance.choice([signal.SIGUSR2, signal.SIGTERM])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(job, "training_batches", disturbed(chance.randint(0, 4), number, chance.uniform(0, 0.02)))
            assert code_of(begin(trial, loading)) == 128 + number
    assert code_of(begin(trial, loading)) == 0

    record = Store(loading.results).record(trial.id)
    assert record is not None
    assert kinds(trial, loading) == ["preempted"] * times + ["done"]
    assert any(attempt.exit()["step"] for attempt in Store(loading.results).attempts(trial.id)[:-1])
    assert record["weights_digest"] == whole["weights_digest"]
    assert comparable(record) == comparable(whole)


def test_storm_of_signals_leaves_one_ending_in_order(loading: Place, begin: Begin) -> None:
    trial = trial_of(epochs=1000)
    process = begin(trial, loading)
    until(lambda: Store(loading.results).epochs(trial.id))

    for _ in range(30):
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR1, signal.SIGCONT):
            os.killpg(process.pid or 0, number)

    assert code_of(process) in {128 + number for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR1)}
    (attempt,) = Store(loading.results).attempts(trial.id)
    assert attempt.exit()["kind"] == "preempted"
    assert attempt.exit()["moved"]
    assert not (attempt.folder / "log.txt").exists()


def test_stopped_evaluation_is_made_anew_from_the_last_checkpoint(place: Place, begin: Begin) -> None:
    trial = trial_of(epochs=1)
    read, reached, told = batches.test_batches, place.results.with_name("reached"), place.results.with_name("told")

    def held(*arguments: Any) -> Iterator[batches.Batch]:
        for batch in read(*arguments):
            reached.touch()
            until(told.exists)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "test_batches", held)
        process = begin(trial, place)
        until(reached.exists)
        os.kill(process.pid or 0, signal.SIGTERM)
        told.touch()
        assert code_of(process) == 128 + signal.SIGTERM
    assert code_of(begin(trial, place)) == 0

    assert kinds(trial, place) == ["preempted", "done"]
    assert [len(attempt.epochs()) for attempt in Store(place.results).attempts(trial.id)] == [1, 0]


def test_control_c_interrupts(place: Place, begin: Begin) -> None:
    trial = trial_of(epochs=1000)
    process = begin(trial, place)
    until(lambda: Store(place.results).epochs(trial.id))

    os.kill(process.pid or 0, signal.SIGINT)

    assert code_of(process) == 130
    assert Store(place.results).state(trial.id) == "interrupted"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_trial_in_the_foreground_stops_after_a_step_and_goes_on_from_there(
    place: Place, wsolbench: Command, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    trial = trial_of()
    arguments = ["run", *words(batch_size=2), f"data={place.data}", "--results", place.results]
    with monkeypatch.context() as patch:
        patch.setattr(job, "training_batches", disturbed(6, number))
        ended = wsolbench(*arguments)

    assert ended.code == code
    assert "run the same command again to go on from" in ended.err
    found = newest(trial, place)
    assert found is not None
    assert (found.exit()["epoch"], found.exit()["step"]) == (1, 1)
    assert wsolbench(*arguments).code == 0
    assert checkpointed(trial, place)[-1].startswith("epoch_0002.attempt_0002")
    assert "epoch_0001.step_000002.attempt_0001.safetensors" in checkpointed(trial, place)


def test_trial_that_gets_nowhere_fails_at_last(place: Place, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = trial_of(epochs=1)
    real = network.network

    def stopped_at_once(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR2)
        return real(*arguments)

    monkeypatch.setattr(job, "network", stopped_at_once)

    codes = [code_of(begin(trial, place)) for _ in range(attempts.MOST_FRUITLESS)]

    assert codes == [128 + signal.SIGUSR2] * (attempts.MOST_FRUITLESS - 1) + [1]
    assert kinds(trial, place) == ["preempted"] * (attempts.MOST_FRUITLESS - 1) + ["failed"]
    found = newest(trial, place)
    assert found is not None
    assert "as were the 4 attempts before it, none of which left a checkpoint" in found.exit()["message"]


# SLURM


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A fake scontrol: says and exits as told; returns what it was asked."""
    folder, asked = tmp_path / "bin", tmp_path / "asked"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name, value in {"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)

    def put(
        state: str = "RUNNING", status: int = 0, ran: str = "00:00:40", restarts: int = 0, known: int = 0
    ) -> list[str]:
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(known))
        path = folder / "scontrol"
        said = f"JobId=14 JobState={state} Requeue=1 Restarts={restarts} RunTime={ran} TimeLimit=00:05:00"
        show = f'[ "$2" = show ] && echo "{said}" && exit 0'
        path.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n{show}\nexit {status}\n', encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return asked.read_text(encoding="utf-8").splitlines() if asked.exists() else []

    return put


def stop(trial: Trial, place: Place, begin: Begin, number: signal.Signals) -> int | None:
    process = begin(trial, place)
    until(lambda: Store(place.results).epochs(trial.id))
    os.killpg(process.pid or 0, number)
    return code_of(process)


@pytest.mark.parametrize("status", [0, 1])
def test_stopped_element_of_an_array_is_queued_again_once(
    loading: Place, begin: Begin, scontrol: Callable[..., list[str]], status: int
) -> None:
    scontrol(status=status)
    trial = trial_of(epochs=1000)

    code = stop(trial, loading, begin, signal.SIGUSR2)

    assert scontrol() == ["--oneliner show job 12_3"] * 2 + ["requeue 12_3"]
    assert (code, Store(loading.results).state(trial.id)) == (128 + signal.SIGUSR2, "preempted")


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING"])
def test_cancelled_job_is_interrupted_and_not_queued_again(
    place: Place, begin: Begin, scontrol: Callable[..., list[str]], state: str
) -> None:
    scontrol(state=state)
    trial = trial_of(epochs=1000)

    code = stop(trial, place, begin, signal.SIGTERM)

    assert not any("requeue" in line for line in scontrol())
    assert (code, Store(place.results).state(trial.id)) == (130, "interrupted")


@pytest.mark.parametrize(("known", "kind"), [(0, "preempted"), (1, "interrupted")])
def test_job_that_slurm_has_requeued_is_preempted_not_cancelled(
    place: Place, begin: Begin, scontrol: Callable[..., list[str]], known: int, kind: str
) -> None:
    scontrol(state="COMPLETING", ran="00:00:00", restarts=1, known=known)
    trial = trial_of(epochs=1000)

    stop(trial, place, begin, signal.SIGTERM)

    assert Store(place.results).state(trial.id) == kind


def test_job_that_is_ended_at_its_time_limit_is_queued_again(
    place: Place, begin: Begin, scontrol: Callable[..., list[str]]
) -> None:
    scontrol(state="COMPLETING", ran="00:05:12")
    trial = trial_of(epochs=1000)

    code = stop(trial, place, begin, signal.SIGTERM)

    assert scontrol()[-1] == "requeue 12_3"
    assert (code, Store(place.results).state(trial.id)) == (143, "preempted")


@pytest.mark.parametrize(
    ("time", "seconds"), [("00:05:00", 300), ("1-02:03:04", 93784), ("05:00", 300), ("UNLIMITED", None), ("", None)]
)
def test_times_of_slurm_are_read(time: str, seconds: int | None) -> None:
    assert worker._seconds(time) == seconds


def test_attempt_says_where_and_by_what_it_ran(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"JOB_ID": "14", "ARRAY_JOB_ID": "12", "ARRAY_TASK_ID": "3", "RESTART_COUNT": "2", "D_NODENAME": "n2"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}".replace("_D_", "D_"), value)
    trial = trial_of(epochs=0)

    worker.work(trial.spec(), place, Order(7))

    found = newest(trial, place)
    assert found is not None
    wanted = {"slurm_job": "12_3", "slurm_job_id": "14", "slurm_restarts": 2, "node": "n2", "submission": 7}
    assert {key: found.meta()[key] for key in wanted} == wanted
    assert {
        "host",
        "pid",
        "started",
        "python",
        "packages",
        "device",
        "threads",
        "commit",
        "code",
    } <= found.meta().keys()


# Several attempts at once


def test_zombie_writes_nothing_after_its_successor_has_begun(place: Place, begin: Begin) -> None:
    trial = trial_of(epochs=1000)
    process = begin(trial, place)
    until(lambda: len(Store(place.results).epochs(trial.id)) > 2)
    os.kill(process.pid or 0, signal.SIGSTOP)
    time.sleep(0.1)

    Store(place.results).attempt(trial.id)
    before = sorted(Store(place.results).path(trial.id, "checkpoint").glob("[!.]*"))
    os.kill(process.pid or 0, signal.SIGCONT)

    assert code_of(process) == 0
    first = Store(place.results).attempts(trial.id)[0]
    assert (first.exit()["kind"], first.exit()["message"]) == (
        "superseded",
        "attempt 0001 writes nothing more: attempt 0002 has begun",
    )
    after = sorted(Store(place.results).path(trial.id, "checkpoint").glob("[!.]*"))
    assert len(set(after) - set(before)) <= 2  # the one that was being written when its successor began, and its seal


def test_zombie_does_not_publish_over_its_successor(place: Place, begin: Begin, tmp_path: Path) -> None:
    trial, gate = trial_of(epochs=1), tmp_path / "gate"
    real = evaluator.Evaluator.save

    def late(*arguments: Any) -> None:
        real(*arguments)
        gate.touch()
        os.kill(os.getpid(), signal.SIGSTOP)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator.Evaluator, "save", late)
        process = begin(trial, place)
        until(gate.exists)
    record = job.run(trial, place)
    content = Store(place.results).path(trial.id, "record.json").read_bytes()
    os.kill(process.pid or 0, signal.SIGCONT)

    assert code_of(process) == 0
    assert kinds(trial, place) == ["superseded", "done"]
    assert record["attempt"] == "0002"
    assert Store(place.results).path(trial.id, "record.json").read_bytes() == content


def test_attempts_that_were_set_aside_write_nothing_more(place: Place, begin: Begin) -> None:
    trial = trial_of(epochs=1000)
    process = begin(trial, place)
    until(lambda: Store(place.results).epochs(trial.id))

    Store(place.results).set_aside(trial.id)

    assert code_of(process) is not None
    assert Store(place.results).state(trial.id) == "new"
    assert not list(Store(place.results).path(trial.id).glob("checkpoint/epoch*.sha256"))


@pytest.mark.faults
def test_sixteen_at_once_make_one_record(place: Place, begin: Begin) -> None:
    trial = trial_of(epochs=2)

    processes = [begin(trial, place) for _ in range(16)]

    assert [code_of(process) for process in processes] == [0] * 16
    ended = Counter(kinds(trial, place))
    assert ended["done"] == 1
    assert set(ended) <= {"done", "superseded"}
    record = Store(place.results).record(trial.id)
    assert record is not None
    assert record["results"] == job.run(trial, Place(place.results.with_name("alone"), place.data))["results"]


# What ends badly


def test_full_disk_leaves_the_checkpoint_before_and_says_so(place: Place) -> None:
    trial = trial_of(epochs=3)

    def run() -> None:
        job.run(trial, place, lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)))

    process = FORK.Process(target=run)
    process.start()
    process.join()

    found = newest(trial, place)
    assert found is not None
    assert (found.exit()["kind"], found.exit()["errno"]) == ("disk_full", "EFBIG")
    assert found.exit()["message"].endswith("`wsolbench gc` lists what can go")
    assert job.run(trial, place)["epochs"][0]["epoch"] == 1
    assert [len(attempt.epochs()) for attempt in Store(place.results).attempts(trial.id)] == [2, 2]


SMALL_DISK = """
import json, os, sys
from pathlib import Path
from tests.test_worker import trial_of
from wsolbench import job
from wsolbench.place import Place
from wsolbench.store import Store

trial, place = trial_of(epochs=3), Place(Path(sys.argv[1]), Path(sys.argv[2]))

def fill(row):
    with open(place.results / "ballast", "wb", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            pass

try:
    job.run(trial, place, fill)
except OSError as error:
    (attempt,) = Store(place.results).attempts(trial.id)
    (place.results / "ballast").unlink()
    print(json.dumps({**attempt.exit(), "epochs": len(job.run(trial, place)["epochs"])}))
"""


@pytest.mark.faults
def test_disk_without_a_byte_left_is_told_in_the_room_that_was_kept(cub: Path, tmp_path: Path) -> None:
    shell = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    unshare = ["unshare", "-rm", "sh", "-c", shell, str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("needs to be allowed to mount")

    python = [sys.executable, "-c", SMALL_DISK, str(tmp_path), str(cub)]
    said = subprocess.run([*unshare, *python], capture_output=True, text=True, check=False)

    assert said.returncode == 0, said.stderr
    ended = json.loads(said.stdout)
    assert (ended["kind"], ended["errno"], ended["epochs"]) == ("disk_full", "ENOSPC", 3)


@pytest.fixture
def failed(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Trains a method with this code, which must fail; how its attempt says that it ended."""

    def train(code: str) -> dict[str, Any]:
        folder = method_folder(tmp_path / "methods", failing=code)
        monkeypatch.delitem(sys.modules, f"{methods.__name__}.failing", raising=False)  # another test's
        monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
        trial = trial_of(method="failing")
        assert worker.work(trial.spec(), place, Order()) == 1
        found = newest(trial, place)
        assert found is not None
        return found.exit()

    return train


def test_diverged_trial_dumps_the_images_of_its_batch(failed: Callable[[str], dict[str, Any]]) -> None:
    ended = failed(NAN_METHOD)

    assert (ended["kind"], len(ended["batch"]), ended["epoch"]) == ("diverged", 2, 0)


def test_diverged_trial_is_known_to_tables_by_its_settings(
    failed: Callable[[str], dict[str, Any]], place: Place
) -> None:
    failed(NAN_METHOD)

    (row,) = store.rows(Store(place.results).outcomes())

    assert (row["method"], row["diverged"], row["protocol"]) == ("failing", True, "wsolbench")
    assert row["stages"] == ["pool1", "pool2", "conv4"]
    assert "top1_loc" not in row


@pytest.mark.parametrize(
    "raised", ["torch.OutOfMemoryError('no')", 'RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried")']
)
def test_memory_that_does_not_suffice_is_told_with_its_batch(
    failed: Callable[[str], dict[str, Any]], raised: str
) -> None:
    ended = failed(NAN_METHOD.replace("self.steps += 1", f"raise {raised}"))

    assert (ended["kind"], ended["batch_size"], ended["image_size"], ended["device"]) == ("oom", 2, 32, "cpu")
    assert ended["peak_mib"] > 50
    assert "more memory" in ended["hint"]


def test_mistake_is_told_and_has_its_exit_code(
    place: Place, begin: Begin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert code_of(begin(trial_of(), Place(place.results, tmp_path / "nowhere"))) == 2

    assert "error: no CUB-200-2011 in" in capfd.readouterr().err


# Code


@pytest.mark.parametrize(("code", "changed"), [("same", False), ("other", True), ("", None)])
def test_changed_code_is_seen(place: Place, code: str, changed: bool | None) -> None:
    trial = trial_of(epochs=0)
    submitted = source.digest() if code == "same" else code

    worker.work(trial.spec(), place, Order(1, submitted))

    record = Store(place.results).record(trial.id)
    assert record is not None
    assert record["environment"]["code_changed"] is changed
    assert record["environment"]["code"] == source.digest()
    assert (job.CODE_CHANGED in record["notes"]) == bool(changed)


# Signs of life


def test_heart_beats_whatever_the_process_is_at(place: Place) -> None:
    kept = Store(place.results)
    kept.add(trial_of())
    attempt = kept.attempt(trial_of().id)
    attempt.begin({})
    pulse = attempts.Pulse(attempt)

    with pulse.beating(every=0.01):
        assert attempt.heartbeat() == {"attempt": "0001", "epoch": 0, "step": 0}
        pulse.epoch, pulse.step = 3, 14
        until(lambda: attempt.heartbeat()["step"] == 14, 10)
        first = files.read(attempt.folder / "heartbeat"), (attempt.folder / "heartbeat").stat().st_mtime_ns
        until(lambda: (attempt.folder / "heartbeat").stat().st_mtime_ns > first[1], 10)
    (attempt.folder / "heartbeat").unlink()
    time.sleep(0.1)

    assert not (attempt.folder / "heartbeat").exists()


def test_heart_that_cannot_write_beats_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[OSError] = []

    def beat(*arguments: Any, own: Callable[..., None] = Attempt.beat) -> None:
        try:
            own(*arguments)
        except OSError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(Attempt, "beat", beat)

    with attempts.Pulse(Attempt(place.results / "nowhere" / "0001")).beating(every=0.01):
        until(lambda: len(refused) > 1, 10)
