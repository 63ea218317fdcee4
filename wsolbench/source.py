"""The running code: its commit, its digest, and a copy of it to run from."""

import hashlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from wsolbench import methods, shipped

_PACKAGE = Path(__file__).resolve().parent
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.pyc")
_KINDS = {".py", ".yaml"}


def commit() -> str | None:
    """The commit of this code, `+` behind it if files differ; None outside a checkout."""
    try:
        found, changed = (_git(*words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno")))
    except (OSError, subprocess.CalledProcessError):
        return None
    return found + "+" * bool(changed)


def digest() -> str:
    """sha256 of the code as it is on the disk now: the files of this package and of the methods, committed or not."""
    content = hashlib.sha256()
    for name, path in _files():
        content.update(f"{name}\0{_of_file(path, path.stat().st_mtime_ns)}\n".encode())
    return content.hexdigest()


@cache
def _of_file(path: Path, _written: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()  # of hundreds of files, for each trial


def snapshot(folder: Path) -> dict[str, str]:
    """Copy the code into `folder`, once for each digest; returns the variables of a process that runs the copy."""
    target = folder.resolve() / digest()[:12]
    places = [target / f"methods_{number}" for number in range(len(methods.__path__) - 1)]
    if not target.exists():
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        shutil.copytree(_PACKAGE, temporary / _PACKAGE.name, ignore=_NOT_COPIED)
        for path, place in zip(methods.__path__, [*places, target / "methods"], strict=True):
            shutil.copytree(path, temporary / place.name, ignore=_NOT_COPIED)
        try:
            temporary.rename(target)
        except OSError:  # another launcher was first
            shutil.rmtree(temporary)
    return {"PYTHONPATH": str(target), "WSOLBENCH_METHODS": os.pathsep.join(map(str, places))}


def _files() -> Iterator[tuple[str, Path]]:
    """The code and its recipes, whatever part of them a trial runs, named alike in a checkout, a wheel and a copy."""
    beside = shipped.of_a_wheel()  # a checkout has them outside; the methods follow
    for path in sorted(_PACKAGE.rglob("*")):
        inside = path.relative_to(_PACKAGE)
        if path.suffix in _KINDS and inside.parts[0] not in beside:
            yield inside.as_posix(), path
    for number, folder in enumerate(methods.__path__):
        yield from ((f"methods/{number}/{path.name}", path) for path in sorted(Path(folder).glob("*.py")))


def _git(*words: str) -> str:
    command = ["git", "-C", str(_PACKAGE), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603  our own words
