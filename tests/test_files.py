import errno
import hashlib
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from wsolbench import files

WRITERS = 16


def together(work: Any, *arguments: Any) -> list[Any]:
    """What `work(barrier, queue, number, ...)` puts into the queue, of 16 processes at once."""
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(WRITERS), context.SimpleQueue()
    processes = [context.Process(target=work, args=(barrier, queue, number, *arguments)) for number in range(WRITERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [queue.get() for _ in range(WRITERS)]


def _commit(barrier: Any, queue: Any, number: int, path: Path) -> None:
    barrier.wait()
    queue.put((files.commit(path, f"{number}\n".encode() * 1000), number))


def _numbered(barrier: Any, queue: Any, _number: int, folder: Path) -> None:
    barrier.wait()
    queue.put(files.numbered(folder).name)


def test_write_replaces_the_content(tmp_path: Path) -> None:
    files.write(tmp_path / "a", b"old")

    files.write(tmp_path / "a", b"new")

    assert (tmp_path / "a").read_bytes() == b"new"


def test_commit_leaves_the_first_content(tmp_path: Path) -> None:
    first, second = files.commit(tmp_path / "a", b"first"), files.commit(tmp_path / "a", b"second")

    assert (first, second) == (True, False)
    assert (tmp_path / "a").read_bytes() == b"first"


@pytest.mark.parametrize("put", [files.write, files.commit])
def test_nothing_else_is_left_in_the_folder(tmp_path: Path, put: Any) -> None:
    put(tmp_path / "a", b"x")
    put(tmp_path / "a", b"y")

    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208  hidden files too


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_old_content_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    files.write(tmp_path / "a", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    monkeypatch.setattr(Path, call, full, raising=False)

    with pytest.raises(OSError, match="No space left"):
        files.write(tmp_path / "a", b"new")

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_one_of_16_processes_commits(tmp_path: Path) -> None:
    outcomes = together(_commit, tmp_path / "record")

    winners = [number for won, number in outcomes if won]
    assert len(winners) == 1
    assert (tmp_path / "record").read_bytes() == f"{winners[0]}\n".encode() * 1000


def test_16_processes_get_16_folders(tmp_path: Path) -> None:
    names = together(_numbered, tmp_path / "attempts")

    assert sorted(names) == [f"{number:04d}" for number in range(1, WRITERS + 1)]


def test_numbers_go_on_after_the_last(tmp_path: Path) -> None:
    (tmp_path / "0007").mkdir()
    (tmp_path / "notes.txt").touch()

    assert files.numbered(tmp_path).name == "0008"


def test_in_order_counts_and_passes_over_what_is_no_number(tmp_path: Path) -> None:
    for name in ("10000", "9999", "0001", ".DS_Store", "zzz"):
        (tmp_path / name).mkdir()

    assert [path.name for path in files.in_order(tmp_path)] == ["0001", "9999", "10000"]


def test_in_order_of_no_folder_is_nothing(tmp_path: Path) -> None:
    assert files.in_order(tmp_path / "none") == []


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)

    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
