import errno
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import pytest

from wsolbench import files

ROOT = Path(__file__).resolve().parents[1]
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


# Reading with patience


class Flaky:
    """Stands in for `open`: fails so many times as NFS does, then opens."""

    def __init__(self, failures: int, how: int | None) -> None:
        self.left, self.how, self.open = failures, how, Path.open

    def __call__(self, path: Path, *words: Any, **named: Any) -> Any:
        if self.left <= 0:
            return self.open(path, *words, **named)
        self.left -= 1
        if self.how is None:  # an old size of nothing
            return Empty(self.open(path, *words, **named))
        raise OSError(self.how, os.strerror(self.how), str(path))


class Empty:
    """An open file whose content has not arrived."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def fileno(self) -> int:
        return self.file.fileno()

    def read(self) -> bytes:
        return b""


def flaky(monkeypatch: pytest.MonkeyPatch, failures: int, how: int | None) -> Flaky:
    shim = Flaky(failures, how)
    monkeypatch.setattr(Path, "open", lambda *words, **named: shim(*words, **named))  # noqa: PLW0108  a method
    monkeypatch.setattr(files, "WAITS", (0.0, 0.0, 0.0))
    return shim


@pytest.mark.parametrize("how", [errno.ESTALE, errno.ENOENT, errno.EIO, None])
@pytest.mark.parametrize("failures", [1, 3])
def test_file_that_nfs_shows_late_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, how: int | None
) -> None:
    files.write(tmp_path / "a", b"content")
    flaky(monkeypatch, failures, how)

    assert files.read(tmp_path / "a") == b"content"


@pytest.mark.parametrize("how", [errno.ESTALE, errno.ENOENT, errno.EIO, errno.EACCES, None])
def test_file_that_stays_unreadable_is_never_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: int | None
) -> None:
    files.write(tmp_path / "a", b"content")
    flaky(monkeypatch, 99, how)

    with pytest.raises(files.UnreadableError, match="unreadable now, try again"):
        files.read(tmp_path / "a")


def test_file_in_a_folder_that_cannot_be_listed_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "listdir", stale)
    monkeypatch.setattr(files, "WAITS", (0.0,))

    with pytest.raises(files.UnreadableError):
        files.read(tmp_path / "a")


@pytest.mark.parametrize("folder", ["", "none", "file"])
def test_file_that_is_not_there_is_none(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()

    assert files.read(tmp_path / folder / "a") is None


def test_empty_file_is_empty_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))

    assert files.read(tmp_path / "a") == b""


# Faults


def _dies(fault: str, work: Any) -> int:
    """The exit code of a process of its own that does `work` under a fault."""
    process = multiprocessing.get_context("fork").Process(target=_under, args=(fault, work))
    process.start()
    process.join()
    return process.exitcode or 0


def _under(fault: str, work: Any) -> None:
    os.environ[files.FAULT] = fault
    work()


@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename", "sync"])
def test_killed_writer_leaves_the_old_content_or_the_new(tmp_path: Path, step: str) -> None:
    old, new = b"old" * 1000, b"new" * 2000
    files.write(tmp_path / "a", old)

    code = _dies(f"1:{step}", lambda: files.write(tmp_path / "a", new))

    assert code == -signal.SIGKILL
    assert (tmp_path / "a").read_bytes() == (new if step in {"rename", "sync"} else old)


@pytest.mark.parametrize("step", ["open", "write", "fsync", "link", "sync"])
def test_killed_writer_has_committed_everything_or_nothing(tmp_path: Path, step: str) -> None:
    code = _dies(f"1:{step}", lambda: files.commit(tmp_path / "a", b"new" * 1000))

    committed = (tmp_path / "a").read_bytes() if (tmp_path / "a").exists() else None
    assert code == -signal.SIGKILL
    assert committed == (b"new" * 1000 if step in {"link", "sync"} else None)
    assert files.commit(tmp_path / "a", b"next") == (committed is None)


@pytest.mark.parametrize(("number", "left"), [(1, b"abc"), (2, b"abcdefabc")])
def test_killed_writer_tears_only_what_it_appends(tmp_path: Path, number: int, left: bytes) -> None:
    code = _dies(f"{number}:append", lambda: [files.append(tmp_path / "a", b"abcdef") for _ in range(3)])

    assert (code, (tmp_path / "a").read_bytes()) == (-signal.SIGKILL, left)


def test_fault_is_of_files_with_a_name(tmp_path: Path) -> None:
    code = _dies("1:*:b*", lambda: [files.write(tmp_path / name, b"x") for name in ("a", "b.json", "c")])

    assert code == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".tmp") == ["a"]


def test_nobody_dies_without_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(files.FAULT, raising=False)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("killed"))

    files.write(tmp_path / "a", b"x")


# Full disks


FILL = """
import sys
from pathlib import Path
from wsolbench import files
old, new = b"o" * 50_000, b"n" * 400_000
path = Path(sys.argv[1]) / "checkpoint"
files.write(path, old)
try:
    files.write(path, new)
except OSError as error:
    print(files.reason(error))
print(path.read_bytes() == old, [p.name for p in path.parent.iterdir()])
"""


def said(folder: Path, *before: str) -> str:
    """What `FILL` prints, run behind some words of shell."""
    line = f'{" ".join(before)} exec {sys.executable} -c "$0" {folder}'
    words = ["unshare", "-rm", "sh", "-ec", line, FILL]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if "unshare" in ended.stderr:
        pytest.skip(ended.stderr)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_full_disk_leaves_the_old_content_and_says_what_makes_room(tmp_path: Path) -> None:
    out = said(tmp_path, f"mount -t tmpfs -o size=256k none {tmp_path};")

    reason = f"{tmp_path}/checkpoint: No space left on device (ENOSPC 28); `wsolbench gc` lists what can go"
    assert out == f"{reason}\nTrue ['checkpoint']\n"


def test_limit_of_a_files_size_is_told_the_same_way(tmp_path: Path) -> None:
    out = said(tmp_path, "ulimit -f 200;")  # blocks of 512 bytes

    assert out.startswith(f"{tmp_path}/checkpoint: File too large (EFBIG 27)")
    assert out.endswith("True ['checkpoint']\n")


def test_reason_of_an_error_without_a_number_is_its_text() -> None:
    assert files.reason(OSError("odd")) == "odd"


# Seals and what is put by


def test_sealed_content_is_read_back(tmp_path: Path) -> None:
    files.write_sealed(tmp_path / "a.bin", b"content")

    assert files.sealed(tmp_path / "a.bin") == b"content"


@pytest.mark.parametrize("name", ["a.bin", "a.sha256"])
def test_altered_or_missing_part_of_a_sealed_file_is_noticed(tmp_path: Path, name: str) -> None:
    files.write_sealed(tmp_path / "a.bin", b"content")
    content = (tmp_path / name).read_bytes()

    (tmp_path / name).write_bytes(content[:-1])
    cut = files.sealed(tmp_path / "a.bin")
    (tmp_path / name).unlink()

    assert (cut, files.sealed(tmp_path / "a.bin")) == (None, None)


def test_nothing_is_overwritten_by_what_is_put_by(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        (tmp_path / "a.json").write_bytes(content)
        files.put_by(tmp_path / "a.json", "corrupt")

    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"a.json.corrupt-1": b"first", "a.json.corrupt-2": b"second"}


def test_clock_is_that_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)

    now = files.clock(tmp_path)

    (tmp_path / "a").touch()
    assert abs((tmp_path / "a").stat().st_mtime - now) < 60
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
