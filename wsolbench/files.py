"""Files that are there whole or not at all, whatever happens to the writer; read with patience, as NFS asks for."""

import errno
import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic_core import from_json

FAULT = "WSOLBENCH_FAULT"
"""For tests: `<n>:<step>[:<pattern>]` kills this process after the n-th such step on a file of such a name; a step is
`open`, `write`, `fsync`, `link`, `rename`, `sync`, `append` or `mkdir`, or `*`; the writing ones are half done."""

WAITS = (0.05, 0.1, 0.2, 0.4)
"""Seconds between the looks at a file that is there and cannot be read."""

_PASSING = {errno.ESTALE, errno.EIO, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT}
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says where a disk, a quota or a limit is used up."""
_passed: Counter[str] = Counter()


class UnreadableError(OSError):
    """A file that is there, or may be, and cannot be read now."""


def write(path: Path, content: bytes) -> None:
    """Put `content` at `path`: a reader finds the old or the new, never a part."""
    with _temporary(path, content) as temporary:
        temporary.replace(path)
        _done("rename", path)


@contextmanager
def building(path: Path) -> Iterator[Path]:
    """A file beside `path` to write something large into; it becomes `path`, whole, where the block ends well."""
    with _temporary(path, b"") as temporary:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


def commit(path: Path, content: bytes) -> bool:
    """Put `content` at `path` unless something is there already; False if so. The first writer wins."""
    with _temporary(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        _done("link", path)
    return True


def append(path: Path, content: bytes) -> None:
    """Add to a file that this process alone writes; a kill may tear what is added, nothing else."""
    with path.open("ab", buffering=0) as file:
        _put(file.fileno(), content, "append", path)


def read(path: Path, most: int = sys.maxsize) -> bytes | None:
    """The content of a file, so many bytes at most; None if there is none.

    Raises:
        UnreadableError: the file is there, or nobody can say, and it cannot be read although it was waited for.
    """
    for wait in (*WAITS, None):
        try:
            return _content(path, most)
        except (FileNotFoundError, NotADirectoryError) as error:
            if not _listed(path):
                return None
            problem: OSError = error
        except OSError as error:
            problem = error
        if wait is None or problem.errno not in {*_PASSING, errno.ENOENT, errno.ENOTDIR}:
            break
        time.sleep(wait)
    raise UnreadableError(problem.errno, f"unreadable now, try again: {problem.strerror}", str(path))


def numbered(folder: Path) -> Path:
    """A new folder in `folder`, numbered after the last: 0001, 0002, ... No two processes get the same."""
    folder.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in in_order(folder)), default=0)
    while True:
        number += 1
        try:
            (folder / f"{number:04d}").mkdir()
        except FileExistsError:
            continue
        _done("mkdir", folder)
        return folder / f"{number:04d}"


def commit_folder(folder: Path, name: str, content: bytes) -> bool:
    """Make a folder that holds a file from its first moment; False if it is there already. The first writer wins."""
    temporary = folder.with_name(_name(folder.name))
    temporary.mkdir()
    _done("mkdir", folder)
    try:
        write(temporary / name, content)
        temporary.rename(folder)  # refused where one with something in it is
    except OSError:
        mine = read(folder / name) == content  # NFS may refuse what it has just done
        shutil.rmtree(temporary, ignore_errors=True)
        if not mine and not folder.is_dir():
            raise
        return mine
    _done("rename", folder)
    _sync(folder.parent)
    return True


def withdraw_folder(folder: Path) -> None:
    """Remove a folder all at once: nobody sees a part of it."""
    temporary = folder.with_name(_name(folder.name))
    folder.rename(temporary)
    _done("rename", folder)
    shutil.rmtree(temporary, ignore_errors=True)


def in_order(folder: Path) -> list[Path]:
    """What `numbered` made in `folder`, the oldest first; nothing else that lies there."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if path.name.isdecimal()), key=lambda path: int(path.name))


def text(data: Mapping[str, Any]) -> bytes:
    """Plain data as the JSON text of a file that people read too."""
    return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n"


def plain(path: Path) -> dict[str, Any]:
    """What a JSON file says; empty if there is none, or none that is whole."""
    return json_object(read(path) or b"") or {}


def json_object(content: bytes) -> dict[str, Any] | None:
    """The object that a JSON text holds; None where it is torn, or anything else."""
    try:
        found = from_json(content, allow_inf_nan=False)  # in half the time of json.loads, which a cold index feels
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def sha256(path: Path) -> str:
    """The digest of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sealed(path: Path, content: bytes) -> None:
    """`write`, and then the digest beside it: a file without one was not finished."""
    write(path, content)
    write(seal(path), hashlib.sha256(content).hexdigest().encode())


def sealed(path: Path) -> bytes | None:
    """The content of a file of `write_sealed`; None where it is gone, or is not what was written."""
    content = read(path)
    whole = content is not None and read(seal(path)) == hashlib.sha256(content).hexdigest().encode()
    return content if whole else None


def seal(path: Path) -> Path:
    """Where the digest of a file of `write_sealed` stands."""
    return path.with_suffix(".sha256")


def put_by(path: Path, word: str) -> Path:
    """Move a file to the first free name `<name>.<word>-<n>` beside it, which is returned; nothing is overwritten."""
    number = 1
    while True:
        target = path.with_name(f"{path.name}.{word}-{number}")
        try:
            os.link(path, target)
        except FileExistsError:
            number += 1
            continue
        path.unlink()
        return target


def clock(folder: Path) -> float:
    """The time by the clock that dates the files of a folder, seconds: never compare them with another machine's."""
    probe = folder / _name("clock")
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # read-only: nothing is decided there
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """What an error of the system means and, where a disk or quota is full, what makes room."""
    code = errno.errorcode.get(error.errno or 0, "")
    where = f"{error.filename}: " if error.filename else ""
    room = "; `wsolbench gc` lists what can go" if error.errno in FULL else ""
    return f"{where}{error.strerror} ({code} {error.errno}){room}" if code else str(error)


@contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[Path]:
    """The content in a file beside `path`, on the disk; gone afterwards, and the folder's entry is on the disk too."""
    temporary = path.with_name(_name(path.name))
    try:
        with temporary.open("wb", buffering=0) as file:
            _done("open", path)
            _put(file.fileno(), content, "write", path)
            os.fsync(file.fileno())
        _done("fsync", path)
        yield temporary
        _sync(path.parent)
        _done("sync", path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a descriptor has no name
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _name(name: str) -> str:
    return f".{name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"


def _put(descriptor: int, content: bytes, step: str, path: Path) -> None:
    """Write everything, in two halves between which a test may kill."""
    half = len(content) // 2
    for number, part in enumerate((memoryview(content)[:half], memoryview(content)[half:])):
        if number:
            _done(step, path)
        rest = part
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _content(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        content = file.read() if most == sys.maxsize else file.read(most)
        if len(content) < min(os.fstat(file.fileno()).st_size, most):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return content


def _listed(path: Path) -> bool:
    """Whether the folder has an entry of this name; where it cannot be listed nobody can say, and it may."""
    try:
        return path.name in os.listdir(path.parent)  # noqa: PTH208  a name is all that is wanted
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _done(step: str, path: Path) -> None:
    """Die where the test that set `FAULT` says so."""
    if (fault := os.environ.get(FAULT)) is None:
        return
    number, wanted, pattern = (*fault.split(":"), "*")[:3]
    if fnmatch(step, wanted) and fnmatch(path.name, pattern):
        _passed[fault] += 1
        if _passed[fault] == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
