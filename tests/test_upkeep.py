import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Command
from tests.test_store import OTHER, RESULTS, TRIAL
from wsolbench import files, fsck, garbage
from wsolbench.store import BrokenRecordError, Store


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    """A finished trial, with everything that one leaves."""
    found = Store(tmp_path / "results")
    found.add(TRIAL)
    attempt = found.attempt(TRIAL.id)
    attempt.begin({})
    attempt.epoch({"epoch": 1, "loss": 2.5})
    found.put(TRIAL, RESULTS)
    found.put_scores(TRIAL.id, "later", {"top1_loc": 1.0})
    for name in ("predictions.npz", "scoremaps.npz"):
        found.put_arrays(TRIAL.id, name, {"a": np.arange(300.0), "ids": np.array(["one", "two"])})
    for epoch in (1, 2, 3):
        checkpoint(found, epoch)
    attempt.end("done")
    return found


def checkpoint(kept: Store, epoch: int, attempt: int = 1) -> Path:
    folder = kept.path(TRIAL.id, "checkpoint")
    folder.mkdir(exist_ok=True)
    path = folder / f"epoch_{epoch:04d}.attempt_{attempt:04d}.safetensors"
    files.write_sealed(path, b"weights" * epoch)
    return path


def told(kept: Store) -> dict[str, str]:
    """What is found, by the file's place."""
    return {str(found.path.relative_to(kept.folder / TRIAL.id)): found.kind for found in fsck.findings(kept)}


def flip(path: Path, share: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 4
    path.write_bytes(content)


# fsck


def test_whole_results_have_nothing_wrong(kept: Store) -> None:
    assert told(kept) == {}


BREAKABLE = [
    "trial.json",
    "record.json",
    "scores/later.json",
    "predictions.npz",
    "scoremaps.npz",
    "checkpoint/epoch_0003.attempt_0001.safetensors",
    "attempts/0001/meta.json",
    "attempts/0001/exit.json",
]


@pytest.mark.parametrize("name", BREAKABLE)
def test_torn_file_is_found(kept: Store, name: str) -> None:
    path = kept.path(TRIAL.id, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    assert told(kept) == {name: "broken"}


@pytest.mark.parametrize("name", [name for name in BREAKABLE if not name.startswith("attempts")])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])  # an .npz ends with what does not matter
def test_flipped_bit_is_found(kept: Store, name: str, share: float) -> None:
    flip(kept.path(TRIAL.id, name), share)

    assert told(kept) == {name: "broken"}


def test_folder_of_another_name_is_found(kept: Store) -> None:
    kept.path(TRIAL.id).rename(kept.path(OTHER.id))

    found = {found.path.name: found.kind for found in fsck.findings(kept)}

    assert found == {"trial.json": "broken", "record.json": "broken", "later.json": "broken"}


def foreign(kept: Store) -> str:
    kept.path(TRIAL.id, "notes.txt").touch()
    return "notes.txt"


def left_behind(kept: Store) -> str:
    kept.path(TRIAL.id, ".record.json.host.1.abc.tmp").touch()
    return ".record.json.host.1.abc.tmp"


def unfinished(kept: Store) -> str:
    path = checkpoint(kept, 4)
    files.seal(path).unlink()
    return f"checkpoint/{path.name}"


def torn_tail(kept: Store) -> str:
    with kept.path(TRIAL.id, "attempts/0001/metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": 2, "lo')
    return "attempts/0001/metrics.jsonl"


def no_specification(kept: Store) -> str:
    kept.path(TRIAL.id, "trial.json").unlink()
    return "trial.json"


@pytest.mark.parametrize("what", [foreign, left_behind, unfinished, torn_tail, no_specification])
def test_what_does_no_harm_is_a_note(kept: Store, what: Callable[[Store], str]) -> None:
    name = what(kept)

    assert told(kept) == {name: "note"}


def test_line_torn_before_the_last_is_found(kept: Store) -> None:
    path = kept.path(TRIAL.id, "attempts/0001/metrics.jsonl")
    path.write_bytes(b'{"epo\n' + path.read_bytes())

    assert told(kept) == {"attempts/0001/metrics.jsonl": "broken"}


def test_fsck_says_what_is_wrong_and_changes_nothing(kept: Store, wsolbench: Command) -> None:
    path = kept.path(TRIAL.id, "record.json")
    flip(path)

    ended = wsolbench("fsck", "--results", kept.folder)

    assert ended.code == 3
    assert f"broken     {path} is torn, altered or another trial's" in ended.out
    assert path.exists()


def test_fsck_prints_json(kept: Store, wsolbench: Command) -> None:
    flip(kept.path(TRIAL.id, "record.json"))

    ended = wsolbench("fsck", "--results", kept.folder, "--json")

    assert [(found["kind"], Path(found["path"]).name) for found in json.loads(ended.out)] == [("broken", "record.json")]


def test_fsck_of_whole_results_ends_well(kept: Store, wsolbench: Command) -> None:
    ended = wsolbench("fsck", "--results", kept.folder)

    assert (ended.code, ended.out) == (0, "")


def test_repair_puts_broken_files_by_and_the_trial_runs_again(kept: Store, wsolbench: Command) -> None:
    paths = [kept.path(TRIAL.id, name) for name in ("record.json", "predictions.npz")]
    for path in paths:
        flip(path)
    before = [path.read_bytes() for path in paths]

    ended = wsolbench("fsck", "--results", kept.folder, "--repair", "--yes")

    assert ended.code == 3
    assert kept.state(TRIAL.id) == "new"
    assert [path.with_name(f"{path.name}.corrupt-1").read_bytes() for path in paths] == before
    assert set(told(kept).values()) == {"note"}


def test_a_record_stays_done_without_its_arrays_and_fsck_says_what_makes_them(kept: Store, wsolbench: Command) -> None:
    flip(kept.path(TRIAL.id, "predictions.npz"), 0.3)
    record = kept.record(TRIAL.id)

    ended = wsolbench("fsck", "--results", kept.folder, "--repair", "--yes")

    assert "and `wsolbench run --fresh` makes it again; tables and `status` do without" in ended.out
    assert (kept.state(TRIAL.id), kept.record(TRIAL.id)) == ("done", record)


def test_repair_asks(kept: Store, wsolbench: Command) -> None:
    flip(kept.path(TRIAL.id, "record.json"))

    ended = wsolbench("fsck", "--results", kept.folder, "--repair")

    assert (ended.code, kept.state(TRIAL.id)) == (2, "broken")


def test_broken_checkpoint_is_put_by_with_its_digest(kept: Store) -> None:
    path = checkpoint(kept, 3)
    flip(path)
    (found,) = fsck.findings(kept)

    fsck.repair(found)

    assert not path.exists()
    assert not files.seal(path).exists()


def test_damaged_arrays_are_refused(kept: Store) -> None:
    flip(kept.path(TRIAL.id, "predictions.npz"), 0.3)

    with pytest.raises(BrokenRecordError, match=r"predictions\.npz is damaged; `wsolbench fsck --repair`"):
        kept.arrays(TRIAL.id, "predictions.npz")


def test_arrays_of_another_file_are_refused(kept: Store) -> None:
    path = kept.path(TRIAL.id, "predictions.npz")
    found = kept.arrays(TRIAL.id, path.name)
    np.savez(path, **{**found, "a": found["a"] + 1, "digest": np.array("0" * 64)})

    with pytest.raises(BrokenRecordError):
        kept.arrays(TRIAL.id, path.name)


def test_arrays_without_a_digest_are_of_an_older_wsolbench(kept: Store) -> None:
    np.savez(kept.path(TRIAL.id, "predictions.npz"), a=np.arange(3))

    assert list(kept.arrays(TRIAL.id, "predictions.npz")) == ["a"]


# gc


def aged(folder: Path, hours: float = 100) -> None:
    """Let everything have been written so long ago."""
    then = time.time() - hours * 3600
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))


def names(kept: Store, grace: float = 24, **more: Any) -> list[str]:
    return sorted(item.path.name for item in garbage.items(kept, grace, **more))


def test_only_the_last_checkpoint_of_a_finished_trial_is_needed(kept: Store) -> None:
    aged(kept.folder)

    assert names(kept) == [f"epoch_{e:04d}.attempt_0001.{end}" for e in (1, 2) for end in ("safetensors", "sha256")]


def test_arrays_of_an_attempt_that_was_overtaken_can_go(kept: Store) -> None:
    (winner, loser) = ("0002", "0003")
    kept.path(TRIAL.id, "record.json").unlink()
    kept.put(TRIAL, {**RESULTS, "attempt": winner})
    for name in (winner, loser):
        kept.attempt(TRIAL.id).end("done")
        kept.put_arrays(TRIAL.id, "scoremaps.npz", {"a": np.arange(3)}, name)
    aged(kept.folder)

    gone = [item.path.parent.name for item in garbage.items(kept, 24) if item.path.suffix == ".npz"]
    assert gone == [loser]


def test_last_two_checkpoints_of_any_other_trial_are_needed(kept: Store) -> None:
    kept.path(TRIAL.id, "record.json").unlink()
    aged(kept.folder)

    assert names(kept) == [f"epoch_0001.attempt_0001.{end}" for end in ("safetensors", "sha256")]


def test_what_killed_writers_left_can_go(kept: Store) -> None:
    left_behind(kept)
    (kept.folder / "..index.jsonl.host.1.abc.tmp").touch()
    aged(kept.folder)

    assert {".record.json.host.1.abc.tmp", "..index.jsonl.host.1.abc.tmp"} <= set(names(kept))


def test_nothing_young_can_go(kept: Store) -> None:
    left_behind(kept)
    aged(kept.folder, hours=23)

    assert names(kept) == []


def test_age_is_told_by_the_clock_of_the_files(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(kept)
    aged(kept.folder, hours=1)
    ahead = time.time() + 48 * 3600
    monkeypatch.setattr(time, "time", lambda: ahead)

    assert names(kept) == []


def test_nothing_of_a_trial_that_runs_can_go(kept: Store) -> None:
    kept.path(TRIAL.id, "record.json").unlink()
    (kept.folder / ".jobs" / "abc").mkdir(parents=True)
    left_behind(kept)
    kept.attempt(TRIAL.id).begin({})
    aged(kept.folder)

    assert names(kept, aside=True) == []


def test_nothing_of_a_trial_that_waits_for_its_job_can_go(kept: Store) -> None:
    kept.path(TRIAL.id, "record.json").unlink()
    (kept.folder / ".jobs" / "abc").mkdir(parents=True)
    files.write(files.numbered(kept.path(TRIAL.id, "submitted")) / "claim.json", b"{}")
    aged(kept.folder)

    assert names(kept) == []


def test_folders_of_jobs_that_are_over_can_go(kept: Store) -> None:
    (kept.folder / ".jobs" / "abc").mkdir(parents=True)
    (kept.folder / ".jobs" / "young").mkdir(parents=True)
    aged(kept.folder)
    (kept.folder / ".jobs" / "young" / "log.txt").touch()

    assert [name for name in names(kept) if not name.startswith("epoch")] == ["abc"]


def test_what_was_set_aside_goes_only_when_asked(kept: Store) -> None:
    flip(kept.path(TRIAL.id, "scoremaps.npz"))
    fsck.repair(next(fsck.findings(kept)))
    kept.set_aside(TRIAL.id)
    kept.put(TRIAL, RESULTS)
    aged(kept.folder)

    assert names(kept) == []
    assert names(kept, aside=True) == ["0001", "scoremaps.npz.corrupt-1"]


def test_gc_lists_and_deletes_what_can_go(kept: Store, wsolbench: Command) -> None:
    aged(kept.folder)
    listed = wsolbench("gc", "--results", kept.folder, "--dry-run")
    refused = wsolbench("gc", "--results", kept.folder)
    ended = wsolbench("gc", "--results", kept.folder, "--yes")

    assert (listed.code, refused.code, ended.code) == (0, 2, 0)
    assert listed.out.count("checkpoint before the last of a finished trial") == 4
    assert len(list(kept.path(TRIAL.id, "checkpoint").iterdir())) == 2
    assert told(kept) == {}


def test_gc_deletes_decoded_images_that_no_trial_uses_when_asked_for_them(
    kept: Store, wsolbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSOLBENCH_CACHE", str(tmp_path / "cache"))
    pixels = tmp_path / "cache" / "pixels"
    pixels.mkdir(parents=True)
    for name in ("old.npy", "old.crc32", ".old.npy.tmp", "used.npy", "used.crc32"):
        (pixels / name).write_bytes(b"squares")
        if "old" in name:
            os.utime(pixels / name, (time.time() - 25 * 3600,) * 2)
    asked = ("gc", "--results", kept.folder, "--yes")

    unasked = wsolbench(*asked)
    ended = wsolbench(*asked, "--cache")

    assert (unasked.code, ended.code, unasked.out) == (0, 0, "")
    assert ended.out.count("decoded images that no trial uses") == 2
    assert sorted(path.name for path in pixels.iterdir()) == ["used.crc32", "used.npy"]


def test_gc_prints_json(kept: Store, wsolbench: Command) -> None:
    aged(kept.folder)

    ended = wsolbench("gc", "--results", kept.folder, "--dry-run", "--json")

    assert sorted(json.loads(ended.out)[0]) == ["path", "size", "why"]


def test_gc_of_nothing_needs_no_answer(tmp_path: Path, wsolbench: Command) -> None:
    (tmp_path / "results").mkdir()
    shutil.rmtree(tmp_path / "results")

    ended = wsolbench("gc", "--results", tmp_path / "results")

    assert (ended.code, ended.out) == (0, "")
