"""Files that are there whole or not at all, whatever happens to the writer."""

import hashlib
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Put `content` at `path`: a reader finds the old or the new, never a part."""
    with _temporary(path, content) as temporary:
        temporary.replace(path)


def commit(path: Path, content: bytes) -> bool:
    """Put `content` at `path` unless something is there already; False if so. The first writer wins."""
    with _temporary(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    return True


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
        return folder / f"{number:04d}"


def in_order(folder: Path) -> list[Path]:
    """What `numbered` made in `folder`, the oldest first; nothing else that lies there."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if path.name.isdecimal()), key=lambda path: int(path.name))


def sha256(path: Path) -> str:
    """The digest of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[Path]:
    """The content in a file beside `path`, on the disk; gone afterwards, and the folder's entry is on the disk too."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
