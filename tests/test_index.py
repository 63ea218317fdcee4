import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_trial import SPEC
from wsolbench import files, index, store, trial
from wsolbench.store import Store

ROOT = Path(__file__).resolve().parents[1]
TRIALS = [trial.from_spec({**SPEC, "seed": seed}) for seed in range(4)]


def results(number: int) -> dict[str, Any]:
    """What is put for a trial; the protocols, keys and types differ from trial to trial."""
    more: dict[str, Any] = {"later": {"top1_loc": 1.5, "px_ap": 2}} if number % 2 else {}
    return {
        "protocol": "adl2019",
        "results": {"adl2019": {"top1_loc": 40.1 + number, "flag": bool(number)}, **more},
        "stages": ["pool1", "pool2"],
        "weights": None if number else {"source": "a.pt"},
        "epochs": [{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1.25 + number}],
    }


def old(kept: Store) -> None:
    """Let everything have been written long before any index will be."""
    later = files.clock(kept.folder) + 100
    path = kept.folder / index.NAME
    if path.exists():
        os.utime(path, (later, later))


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    """A store of four finished trials."""
    found = Store(tmp_path / "results")
    for number, item in enumerate(TRIALS):
        found.add(item)
        found.put(item, results(number))
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials whose records are read."""
    names: list[str] = []
    read = Store.record

    def counted(self: Store, trial_id: str) -> dict[str, Any] | None:
        names.append(trial_id)
        return read(self, trial_id)

    monkeypatch.setattr(Store, "record", counted)
    return names


def told(kept: Store) -> list[dict[str, Any]]:
    """The records as plain data."""
    found = kept.records()
    return [{**record, "results": dict(record["results"])} for record in found]


def test_records_of_the_index_are_those_of_the_files(kept: Store) -> None:
    expected = []
    for name in kept.ids():
        record = kept.record(name) or {}
        last = record.pop("epochs")[-1]
        expected.append({**record, "last_epoch": last})

    cold = told(kept)
    old(kept)

    assert cold == expected == told(kept)


def test_whole_numbers_and_truths_keep_their_types(kept: Store) -> None:
    kept.records()
    old(kept)

    by_seed = {record["trial"]["seed"]: record["results"] for record in kept.records()}

    assert [by_seed[seed]["adl2019"]["flag"] for seed in range(4)] == [False, True, True, True]
    assert type(by_seed[1]["later"]["px_ap"]) is int


def test_unchanged_records_are_not_read_again(kept: Store, reads: list[str]) -> None:
    kept.records()
    old(kept)
    reads.clear()

    kept.records()

    assert reads == []


def new_record(kept: Store) -> str:
    name = TRIALS[1].id
    kept.set_aside(name)
    kept.put(TRIALS[1], {**results(1), "protocol": "later"})
    return name


def new_scores(kept: Store) -> str:
    kept.put_scores(TRIALS[2].id, "even_later", {"top1_loc": 9.5})
    return TRIALS[2].id


def altered_in_place(kept: Store) -> str:
    path = kept.path(TRIALS[3].id, "record.json")
    path.write_bytes(path.read_bytes().replace(b"43.1", b"44.1"))
    return TRIALS[3].id


def altered_with_its_old_time(kept: Store) -> str:
    path = kept.path(TRIALS[3].id, "record.json")
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    altered_in_place(kept)
    os.utime(path, ns=times)
    return TRIALS[3].id


def from_the_future(kept: Store) -> str:
    path = kept.path(TRIALS[0].id, "record.json")
    os.utime(path, (4e9, 4e9))
    return TRIALS[0].id


def gone(kept: Store) -> str:
    shutil.rmtree(kept.path(TRIALS[0].id))
    return TRIALS[0].id


CHANGES = [new_record, new_scores, altered_in_place, altered_with_its_old_time, from_the_future, gone]


@pytest.mark.parametrize("change", CHANGES)
def test_change_shows_at_once(kept: Store, change: Callable[[Store], str]) -> None:
    kept.records()
    old(kept)

    change(kept)
    warm, broken = told(kept), kept.index().broken
    (kept.folder / index.NAME).unlink(missing_ok=True)

    assert warm == told(kept)
    assert broken == kept.index().broken


@pytest.mark.parametrize("change", CHANGES[:-1])
def test_only_what_changed_is_read(kept: Store, reads: list[str], change: Callable[[Store], str]) -> None:
    kept.records()
    old(kept)
    name = change(kept)
    reads.clear()

    kept.records()

    assert reads == [name]


def test_what_was_written_just_before_the_index_is_read_again(kept: Store, reads: list[str]) -> None:
    kept.records()
    reads.clear()

    kept.records()

    assert reads == kept.ids()


def test_broken_record_is_named_and_left_out(kept: Store) -> None:
    name = altered_in_place(kept)

    cold = kept.index()
    old(kept)
    warm = kept.index()

    assert list(cold.broken) == list(warm.broken) == [name]
    assert len(kept.records()) == 3


def test_broken_record_in_a_folder_whose_name_is_no_text_is_named_again(tmp_path: Path) -> None:
    kept = Store(Path(os.fsdecode(os.fsencode(tmp_path) + b"/res\xff")))
    kept.add(TRIALS[0])
    kept.path(TRIALS[0].id, "record.json").write_bytes(b"{")

    assert list(kept.index().broken) == list(kept.index().broken) == [TRIALS[0].id]


def test_record_that_cannot_be_read_now_is_named_and_tried_again(
    kept: Store, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stale = files.UnreadableError(errno.ESTALE, "unreadable now", "record.json")
        patch.setattr(Store, "record", lambda *_: (_ for _ in ()).throw(stale))
        found = kept.index()
    old(kept)

    assert (found.ids, list(found.unreadable)) == ([], kept.ids())
    assert len(kept.records()) == 4
    assert reads == kept.ids()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"40.1", b"90.1"),
        lambda content: b"0" * 12 + content[12:],
        lambda _: bytes(range(256)) * 100,
    ],
)
def test_damaged_index_is_of_no_use_and_does_no_harm(kept: Store, damage: Callable[[bytes], bytes]) -> None:
    expected = told(kept)
    path = kept.folder / index.NAME
    path.write_bytes(damage(path.read_bytes()))
    old(kept)

    assert told(kept) == expected


def test_index_copied_with_the_results_is_not_believed(kept: Store, tmp_path: Path, reads: list[str]) -> None:
    kept.records()
    shutil.copytree(kept.folder, tmp_path / "copy")
    copy = Store(tmp_path / "copy")
    old(copy)
    reads.clear()

    assert len(copy.records()) == 4
    assert reads == copy.ids()


def test_one_new_record_of_many_does_not_write_the_index_anew(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.records()
    old(kept)
    before = (kept.folder / index.NAME).stat().st_mtime_ns
    monkeypatch.setattr(index, "_WORTH", 3)

    new_scores(kept)
    kept.records()

    assert (kept.folder / index.NAME).stat().st_mtime_ns == before


def _write(folder: Path, numbers: range) -> None:
    kept = Store(folder)
    for seed in numbers:
        item = trial.from_spec({**SPEC, "seed": seed})
        kept.add(item)
        kept.put(item, results(seed))
        kept.records()


def test_writers_at_once_lose_nothing(kept: Store) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(kept.folder, range(n, n + 20))) for n in (100, 200, 300)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        kept.records()
    for process in processes:
        process.join()

    assert [record["id"] for record in kept.records()] == kept.ids()
    assert len(kept.ids()) == 4 + 60
    assert kept.index().broken == {}


READ_ONLY = """
import sys
from pathlib import Path
from wsolbench.store import Store
print(len(Store(Path(sys.argv[1])).records()))
"""


def test_read_only_folder_is_read_without_an_index(kept: Store) -> None:
    folder = kept.folder
    mount = f"mount --bind {folder} {folder}; mount -o remount,ro,bind {folder};"
    words = ["unshare", "-rm", "sh", "-ec", f'{mount} exec {sys.executable} -c "$0" {folder}', READ_ONLY]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    if "unshare" in ended.stderr:
        pytest.skip(ended.stderr)

    assert ended.stdout == "4\n", ended.stderr
    assert not (kept.folder / index.NAME).exists()


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
ROWS = st.lists(st.none() | st.dictionaries(st.sampled_from("abc"), VALUES | st.lists(VALUES, max_size=2)), max_size=8)


@given(ROWS)
def test_rows_are_the_same_after_columns(rows: list[dict[str, Any] | None]) -> None:
    columns = json.loads(json.dumps(index._columns(rows)))

    assert repr(index._rows(columns, len(rows))) == repr(rows)


def test_values_that_many_records_share_are_one_object_after_columns() -> None:
    rows: list[dict[str, Any] | None] = [{"lr": float("0.02"), "zero": [0.0, -0.0][n % 2], "one": 1} for n in range(9)]
    read = index._rows(json.loads(json.dumps(index._columns(rows))), len(rows))

    assert len({id((row or {})["lr"]) for row in read}) == 1
    assert repr(read) == repr(rows)


def test_table_of_the_index_is_that_of_the_records(kept: Store) -> None:
    whole = [record for name in kept.ids() if (record := kept.record(name)) is not None]
    kept.records()
    old(kept)

    for protocol in (None, "later", "nothing"):
        assert store.rows(kept.records(), protocol) == store.rows(whole, protocol)
