"""Looks at everything that the results hold: what is not as it was written, and what is none of ours."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsolbench import files, index
from wsolbench.store import JOBS, BrokenRecordError, Store, read_arrays, told
from wsolbench.trial import id_of

Kind = Literal["broken", "unreadable", "note"]

_AT_ROOT = {index.NAME, JOBS, "published", ".gitignore", ".gitkeep"}
_OF_TRIAL = re.compile(
    r"(trial|record)\.json|(predictions|scoremaps)\.npz|attempts|checkpoint|scores|submitted|aside|events|tensorboard"
)
_PUT_BY = re.compile(r".*\.corrupt-\d+")


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Args:
        path: the file.
        kind: `broken` is damage, `unreadable` may be, and a `note` is worth knowing only.
        problem: what is the matter, and what to do about it.
    """

    path: Path
    kind: Kind
    problem: str


def findings(store: Store) -> Iterator[Finding]:
    """What is found in a results folder, trial by trial."""
    ids = store.ids()
    for path in sorted(store.folder.iterdir()) if store.folder.is_dir() else ():
        if path.name not in {*ids, *_AT_ROOT} and not _temporary(path):
            yield Finding(path, "note", "is none of ours")
    for name in ids:
        yield from _of_trial(store, name)


def repair(found: Finding) -> Path:
    """Put a broken file by under another name, so that nothing reads it; returns that name."""
    seal = files.seal(found.path)
    target = files.put_by(found.path, "corrupt")
    if found.path.parent.name == "checkpoint" and seal.exists():
        files.put_by(seal, "corrupt")
    return target


def _of_trial(store: Store, name: str) -> Iterator[Finding]:
    folder = store.path(name)
    yield from _checked(folder / "trial.json", lambda path: _spec(path, name))
    yield from _checked(folder / "record.json", lambda _: _record(store, name))
    for path in sorted(folder.glob("scores/*.json")):
        yield from _checked(path, lambda path: told(path, name)[1])
    for path in sorted([*folder.glob("*.npz"), *folder.glob("attempts/*/*.npz")]):
        yield from _checked(path, _arrays)
    for path in sorted(folder.glob("checkpoint/*.safetensors")):
        yield from _checkpoint(path)
    for path in sorted([*folder.glob("attempts/*/*.json"), *folder.glob("submitted/*/*.json")]):
        yield from _checked(path, _plain)
    for path in sorted(folder.glob("attempts/*/metrics.jsonl")):
        yield from _metrics(path)
    yield from _others(folder)


def _checked(path: Path, problem: Callable[[Path], str | None]) -> Iterator[Finding]:
    try:
        if (said := problem(path)) is not None:
            yield Finding(path, "broken" if path.exists() else "note", said)
    except OSError as error:
        yield Finding(path, "unreadable", files.reason(error))


def _spec(path: Path, name: str) -> str | None:
    content = files.read(path)
    if content is None:
        return "is not there: the sweep or run that names the trial writes it again"
    spec = files.json_object(content)
    if spec is None:
        return "is torn"
    return (
        None if id_of(spec) == name else f"is the specification of trial {id_of(spec)}: the folder was renamed, or it"
    )


def _record(store: Store, name: str) -> str | None:
    body, why = told(store.path(name, "record.json"), name)
    if body is not None and id_of(body["trial"]) != name:
        return "holds the specification of another trial"
    return why


def _arrays(path: Path) -> str | None:
    try:
        read_arrays(path)
    except BrokenRecordError as error:
        return str(error).removeprefix(f"{path} ")
    return None


def _checkpoint(path: Path) -> Iterator[Finding]:
    seal = files.read(files.seal(path))
    if seal is None:
        yield Finding(path, "note", "was never finished; `wsolbench gc` removes it once a later one is")
    elif files.sha256(path).encode() != seal:
        yield Finding(path, "broken", "is not what its digest beside it says: training goes on from the one before")


def _plain(path: Path) -> str | None:
    content = files.read(path)
    return None if content is None or files.json_object(content) is not None else "is no JSON object"


def _metrics(path: Path) -> Iterator[Finding]:
    lines = (files.read(path) or b"").split(b"\n")
    torn = [number for number, line in enumerate(lines, 1) if line and files.json_object(line) is None]
    if torn == [len(lines)]:  # no end of line: the writer was killed
        yield Finding(path, "note", f"has a torn last line, {torn[0]}: its writer was killed, and it is passed over")
    elif torn:
        yield Finding(path, "broken", f"is torn in line {', '.join(map(str, torn))}")


def _others(folder: Path) -> Iterator[Finding]:
    for path in sorted(folder.rglob("*")):
        if path.is_relative_to(folder / "aside"):
            continue
        if _temporary(path):
            yield Finding(path, "note", "was left by a writer that was killed; `wsolbench gc` removes it")
        elif _PUT_BY.fullmatch(path.name):
            yield Finding(path, "note", "was put by; `wsolbench gc --aside` removes it")
        elif path.parent == folder and not _OF_TRIAL.fullmatch(path.name):
            yield Finding(path, "note", "is none of ours")


def _temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")
