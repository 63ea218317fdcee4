import contextlib
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_trial import SPEC
from wsolbench import attempts, store, trial
from wsolbench.attempts import Attempt, State
from wsolbench.errors import InputError
from wsolbench.store import BrokenRecordError, Store

TRIAL = trial.from_spec(SPEC)
OTHER = trial.from_spec({**SPEC, "seed": 1})
RESULTS: dict[str, Any] = {
    "protocol": "adl2019",
    "results": {"adl2019": {"top1_loc": 49.69}, "wsolbench": {"top1_loc": 50.0}},
    "stages": ["pool1"],
}
AWAY = "elsewhere"  # a host that is not this one
DEAD = 2**22 + 1  # above the kernel's largest process number


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    """A store that knows `TRIAL`."""
    found = Store(tmp_path / "results")
    found.add(TRIAL)
    return found


def recorded(kept: Store) -> Path:
    kept.put(TRIAL, RESULTS)
    return kept.path(TRIAL.id, "record.json")


def begun(kept: Store, **meta: Any) -> Attempt:
    attempt = kept.attempt(TRIAL.id)
    attempt.begin(meta)
    return attempt


# Records


def test_record_holds_the_trial_and_its_results(kept: Store) -> None:
    recorded(kept)

    record = kept.record(TRIAL.id)

    assert record == {"schema": 1, "id": TRIAL.id, "trial": SPEC, **RESULTS}


def test_there_is_no_record_before_it_is_put(kept: Store) -> None:
    assert kept.record(TRIAL.id) is None


def test_first_record_wins(kept: Store) -> None:
    first, second = kept.put(TRIAL, RESULTS), kept.put(TRIAL, {**RESULTS, "protocol": "other"})

    assert (first, second) == (True, False)
    assert (kept.record(TRIAL.id) or {})["protocol"] == "adl2019"


def test_record_without_a_number_is_refused(kept: Store) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        kept.put(TRIAL, {"results": {"adl2019": {"top1_loc": float("nan")}}})

    assert kept.record(TRIAL.id) is None


def _put(barrier: Any, queue: Any, number: int, folder: Path) -> None:
    found = Store(folder)
    barrier.wait()
    found.add(TRIAL)
    queue.put((found.put(TRIAL, {**RESULTS, "writer": number}), number))


def test_one_of_16_processes_records_a_trial(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(16), context.SimpleQueue()
    processes = [context.Process(target=_put, args=(barrier, queue, n, tmp_path)) for n in range(16)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    outcomes = [queue.get() for _ in processes]

    winners = [number for won, number in outcomes if won]
    assert len(winners) == 1
    assert (Store(tmp_path).record(TRIAL.id) or {})["writer"] == winners[0]
    assert sorted(path.name for path in (tmp_path / TRIAL.id).iterdir()) == ["record.json", "trial.json"]


def altered(content: bytes) -> bytes:
    return content.replace(b"49.69", b"59.69")


def newer(content: bytes) -> bytes:
    return content.replace(b'"schema": 1', b'"schema": 2')


def of_another(content: bytes) -> bytes:
    return content.replace(TRIAL.id.encode(), OTHER.id.encode())


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "torn": lambda content: content[: len(content) // 2],
    "torn at the end": lambda content: content[:-3],
    "altered": altered,
    "newer schema": newer,
    "another trial's": of_another,
    "NaN": lambda content: content.replace(b"49.69", b"NaN"),
    "no digest": lambda content: content.replace(b'"digest"', b'"digets"'),
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "junk": lambda _: bytes(range(256)) * 40_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_record_is_refused_with_its_path(kept: Store, damage: str) -> None:
    path = recorded(kept)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))

    with pytest.raises(BrokenRecordError) as caught:
        kept.record(TRIAL.id)

    hint = "is torn, altered or another trial's; run the trial again with --fresh, which sets it aside"
    assert str(caught.value) == f"{path} {hint}"


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_record_is_left_out_of_the_records(kept: Store, damage: str) -> None:
    kept.add(OTHER)
    kept.put(OTHER, RESULTS)
    path = recorded(kept)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))

    assert [record["id"] for record in kept.records()] == [OTHER.id]


def test_huge_record_is_refused_unread(kept: Store) -> None:
    path = recorded(kept)
    with path.open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(BrokenRecordError, match="has more than 64000000 bytes"):
        kept.record(TRIAL.id)


def test_record_in_another_trials_folder_is_refused(kept: Store) -> None:
    path = recorded(kept)
    kept.add(OTHER)
    shutil.copy(path, kept.path(OTHER.id, "record.json"))

    assert (kept.state(OTHER.id), kept.state(TRIAL.id)) == ("broken", "done")


def test_changed_byte_of_a_record_is_noticed_or_harmless(kept: Store) -> None:
    path = recorded(kept)
    content, said = path.read_bytes(), kept.record(TRIAL.id)

    for index in range(0, len(content), 7):
        path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        with contextlib.suppress(BrokenRecordError):
            assert kept.record(TRIAL.id) == said, f"byte {index}"


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text(max_size=8),
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
        max_size=4,
    )
)  # fmt: skip
def test_whatever_is_put_is_read_back(tmp_path_factory: pytest.TempPathFactory, results: dict[str, Any]) -> None:
    kept = Store(tmp_path_factory.mktemp("any"))
    kept.add(TRIAL)
    body = {f"own {key}": value for key, value in results.items()}

    kept.put(TRIAL, body)

    record = kept.record(TRIAL.id) or {}
    assert {key: record[key] for key in body} == body


# Protocols beside the first


def test_scores_of_another_protocol_join_the_record(kept: Store) -> None:
    recorded(kept)

    kept.put_scores(TRIAL.id, "later", {"top1_loc": 12.5})

    assert (kept.record(TRIAL.id) or {})["results"]["later"] == {"top1_loc": 12.5}


def test_rows_are_of_one_protocol(kept: Store) -> None:
    recorded(kept)

    own, asked, none = (store.rows(kept.records(), name) for name in (None, "wsolbench", "unknown"))

    assert [row["top1_loc"] for row in own] == [49.69]
    assert [row["top1_loc"] for row in asked] == [50.0]
    assert none == []


def test_row_has_fields_options_stages_and_metrics_side_by_side(kept: Store) -> None:
    recorded(kept)

    (row,) = store.rows(kept.records())

    wanted = {"id": TRIAL.id, "protocol": "adl2019", "dataset": "cub", "drop_rate": 0.75, "stages": ["pool1"]}
    assert {key: row[key] for key in wanted} == wanted


# Attempts and states


def test_attempts_are_numbered(kept: Store) -> None:
    names = [kept.attempt(TRIAL.id).folder.name for _ in range(3)]

    assert names == ["0001", "0002", "0003"] == [attempt.folder.name for attempt in kept.attempts(TRIAL.id)]


def test_newest_attempt_is_found_beside_other_files(kept: Store) -> None:
    newest = begun(kept)
    (newest.folder.parent / "notes.txt").write_text("mine", encoding="utf-8")
    newest.folder.rename(newest.folder.with_name("10000"))
    (newest.folder.with_name("9999")).mkdir()

    assert [attempt.folder.name for attempt in kept.attempts(TRIAL.id)] == ["9999", "10000"]


def test_epochs_are_read_back_in_order(kept: Store) -> None:
    attempt = begun(kept)
    rows = [{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1.25}]

    for row in rows:
        attempt.epoch(row)

    assert attempt.epochs() == rows


@pytest.mark.parametrize("left", [1, 10, 21])
def test_torn_last_line_of_the_metrics_is_left_out(kept: Store, left: int) -> None:
    attempt = begun(kept)
    attempt.epoch({"epoch": 1, "loss": 2.5})
    attempt.epoch({"epoch": 2, "loss": 1.5})
    path = attempt.folder / "metrics.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)

    path.write_bytes(first + second[:left])

    assert attempt.epochs() == [{"epoch": 1, "loss": 2.5}]


def test_epochs_of_a_trial_are_those_of_all_its_attempts(kept: Store) -> None:
    first, second = begun(kept), begun(kept)
    for attempt, losses in ((first, {1: 3.0, 2: 2.0}), (second, {2: 2.5, 3: 1.0})):
        for epoch, loss in losses.items():
            attempt.epoch({"epoch": epoch, "loss": loss})

    assert [(row["epoch"], row["loss"]) for row in kept.epochs(TRIAL.id)] == [(1, 3.0), (2, 2.5), (3, 1.0)]


def test_attempt_has_no_epochs_before_the_first(kept: Store) -> None:
    assert begun(kept).epochs() == []


def test_attempt_says_who_runs_it(kept: Store) -> None:
    meta = begun(kept, commit="abc").meta()

    assert (meta["host"], meta["pid"], meta["commit"]) == (socket.gethostname(), os.getpid(), "abc")


def test_how_an_attempt_ended_is_read_back(kept: Store) -> None:
    attempt = begun(kept)

    attempt.end("failed", "ValueError: no", "the traceback")

    assert (attempt.exit()["kind"], attempt.exit()["message"]) == ("failed", "ValueError: no")
    assert (attempt.folder / "log.txt").read_text(encoding="utf-8") == "the traceback"


def rewrite(attempt: Attempt, **changes: Any) -> None:
    path = attempt.folder / "meta.json"
    path.write_text(json.dumps({**attempt.meta(), **changes}), encoding="utf-8")


def fresh(_: Store) -> None:
    """No attempt at all."""


def alive(kept: Store) -> None:
    begun(kept)


def killed(kept: Store) -> None:
    rewrite(begun(kept), pid=DEAD)


def number_reused(kept: Store) -> None:
    rewrite(begun(kept), process_start="1")


def killed_before_it_said_who(kept: Store) -> None:
    kept.attempt(TRIAL.id)


def alive_elsewhere(kept: Store) -> None:
    rewrite(begun(kept), host=AWAY, pid=DEAD)


def silent_elsewhere(kept: Store) -> None:
    attempt = begun(kept)
    rewrite(attempt, host=AWAY)
    long_ago = time.time() - attempts.SILENT_AFTER - 60
    os.utime(attempt.folder / "heartbeat", (long_ago, long_ago))


def ended(kind: str) -> Callable[[Store], None]:
    return lambda kept: begun(kept).end(kind)


def done(kept: Store) -> None:
    recorded(kept)


def done_by_another_attempt(kept: Store) -> None:
    begun(kept).end("failed")
    recorded(kept)


def broken(kept: Store) -> None:
    recorded(kept).write_text("{}", encoding="utf-8")


def started_again(kept: Store) -> None:
    begun(kept).end("failed")
    begun(kept)


@pytest.mark.parametrize(
    ("history", "state"),
    [
        (fresh, "new"),
        (alive, "running"),
        (killed, "lost"),
        (number_reused, "lost"),
        (killed_before_it_said_who, "lost"),
        (alive_elsewhere, "running"),
        (silent_elsewhere, "lost"),
        (ended("interrupted"), "interrupted"),
        (ended("preempted"), "preempted"),
        (ended("superseded"), "new"),
        (ended("failed"), "failed"),
        (ended("diverged"), "failed"),
        (ended("oom"), "failed"),
        (done, "done"),
        (done_by_another_attempt, "done"),
        (broken, "broken"),
        (started_again, "running"),
    ],
)
def test_state_is_what_the_files_say(kept: Store, history: Callable[[Store], None], state: State) -> None:
    history(kept)

    assert kept.state(TRIAL.id) == state


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize(("history", "state"), [(alive_elsewhere, "running"), (silent_elsewhere, "lost")])
def test_clock_that_is_wrong_decides_nothing(
    kept: Store, monkeypatch: pytest.MonkeyPatch, history: Callable[[Store], None], state: State, hours: int
) -> None:
    history(kept)
    wrong = time.time() + hours * 3600
    monkeypatch.setattr(time, "time", lambda: wrong)

    assert kept.state(TRIAL.id) == state


def test_process_that_is_not_waited_for_is_gone(kept: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    rewrite(begun(kept), pid=child.pid)

    assert kept.state(TRIAL.id) == "lost"
    child.wait()


@pytest.mark.parametrize("pid", [os.getpid(), DEAD], ids=["this one", "none"])
def test_processes_are_told_apart_without_proc_too(pid: int) -> None:
    assert (attempts._listed_start(pid) is None) == (attempts._process_start(pid) is None)


# Setting aside


def full(kept: Store) -> dict[str, bytes]:
    """A finished trial's files that `set_aside` moves, by their names."""
    recorded(kept)
    kept.put_scores(TRIAL.id, "later", {"top1_loc": 1.0})
    for name in ("predictions.npz", "scoremaps.npz"):
        kept.put_arrays(TRIAL.id, name, {"a": np.arange(3)})
    kept.path(TRIAL.id, "checkpoint").mkdir()
    kept.path(TRIAL.id, "checkpoint", "epoch").write_bytes(b"weights")
    begun(kept).end("done")
    return contents(kept.path(TRIAL.id))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_set_aside_loses_nothing(kept: Store) -> None:
    before = full(kept)

    kept.set_aside(TRIAL.id)

    assert sorted(contents(kept.path(TRIAL.id)).values()) == sorted(before.values())


def test_set_aside_makes_the_trial_new(kept: Store) -> None:
    full(kept)

    kept.set_aside(TRIAL.id)

    assert kept.state(TRIAL.id) == "new"
    assert not kept.path(TRIAL.id, "checkpoint").exists()
    assert kept.spec(TRIAL.id) == SPEC


def test_set_aside_twice_keeps_both(kept: Store) -> None:
    for protocol in ("first", "second"):
        kept.put(TRIAL, {**RESULTS, "protocol": protocol})
        kept.set_aside(TRIAL.id)

    aside = sorted(kept.path(TRIAL.id, "aside").glob("*/record.json"))
    assert [json.loads(path.read_bytes())["protocol"] for path in aside] == ["first", "second"]


def test_set_aside_of_nothing_makes_no_folder(kept: Store) -> None:
    kept.set_aside(TRIAL.id)

    assert not kept.path(TRIAL.id, "aside").exists()


# The folder


def test_ids_are_the_folders_of_trials(kept: Store) -> None:
    kept.add(OTHER)
    for name in (".jobs", "published", "notes.txt", "0123456789ABCDEF"):
        (kept.folder / name).mkdir()

    assert kept.ids() == sorted([TRIAL.id, OTHER.id])


def test_store_without_a_folder_is_empty(tmp_path: Path) -> None:
    kept = Store(tmp_path / "none")

    assert (kept.ids(), kept.records(), kept.state(TRIAL.id)) == ([], [], "new")


def test_specification_is_written_once(kept: Store) -> None:
    path = kept.path(TRIAL.id, "trial.json")
    before = path.stat().st_mtime_ns

    kept.add(TRIAL)

    assert path.stat().st_mtime_ns == before
    assert kept.spec(TRIAL.id) == SPEC


def test_results_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    kept = Store(tmp_path / "results")

    with pytest.raises(InputError) as caught:
        kept.add(TRIAL)

    reason = "cannot write to the results folder"
    assert str(caught.value) == f"{reason} '{tmp_path}/results': Not a directory; choose another with --results"


def test_results_folder_that_is_a_file_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    kept = Store(tmp_path / "results")

    assert (kept.ids(), kept.state(TRIAL.id), kept.spec(TRIAL.id)) == ([], "new", {})


def test_results_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(Path, "mkdir", refused)

    with pytest.raises(InputError, match="Read-only file system; choose another with --results"):
        Store(tmp_path / "results").add(TRIAL)


def test_results_of_two_folders_merge_by_copying(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    for kept, one in ((here, TRIAL), (there, OTHER)):
        kept.add(one)
        kept.put(one, RESULTS)

    shutil.copytree(there.folder, here.folder, dirs_exist_ok=True)

    assert [record["id"] for record in here.records()] == sorted([TRIAL.id, OTHER.id])


def test_arrays_are_read_back(kept: Store) -> None:
    arrays = {"ids": np.array(["a", "bc"]), "maps": np.arange(6, dtype=np.float32).reshape(2, 3)}

    kept.put_arrays(TRIAL.id, "predictions.npz", arrays)

    found = kept.arrays(TRIAL.id, "predictions.npz")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_arrays_of_objects_are_refused(kept: Store) -> None:
    with pytest.raises(ValueError, match="allow_pickle=False"):
        kept.put_arrays(TRIAL.id, "predictions.npz", {"a": np.array([object()])})


def test_arrays_that_are_not_there_are_none(kept: Store) -> None:
    assert kept.arrays(TRIAL.id, "predictions.npz") == {}


@pytest.mark.parametrize("module", ["store", "report", "trial", "cli"])
def test_torch_is_not_imported(module: str) -> None:
    code = f"import sys; import wsolbench.{module}; print('torch' in sys.modules)"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "0"}, "12_0"),
    ],
)
def test_a_cluster_job_is_named_as_its_queue_names_it(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], job: str | None
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert attempts.cluster_job() == job
