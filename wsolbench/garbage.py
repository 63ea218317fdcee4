"""What a results folder no longer needs: what killed writers left, old checkpoints, folders of jobs that are over."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsolbench import checkpoint, files
from wsolbench.place import pixels_folder
from wsolbench.store import JOBS, Store


@dataclass(frozen=True)
class Item:
    """A file or folder that can go.

    Args:
        path: where it is.
        size: bytes, of everything in it.
        why: what it was.
    """

    path: Path
    size: int
    why: str

    def remove(self) -> None:
        """Delete it."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def items(store: Store, grace: float, *, aside: bool = False, cache: bool = False) -> list[Item]:
    """What can go, older than `grace` hours by the clock that dates the files; nothing of a trial that somebody runs.

    Args:
        store: the results.
        grace: hours that everything is left alone after it was written.
        aside: whether to name too what was set aside by --fresh and put by as broken.
        cache: whether to name too the decoded images that no trial, of any store, has used since.
    """
    latest = files.clock(store.folder) - grace * 3600
    ids = store.ids()
    live = {name for name in ids if _live(store, name)}
    found = [*_temporaries(store.folder, recursive=False)]
    for name in ids:
        if name not in live:
            found += _of_trial(store, name, aside=aside)
    if not live:  # a job that still waits needs what was submitted
        found += ((path, "of jobs that are over") for path in store.folder.glob(f"{JOBS}/*"))
    old = [Item(path, _size(path), why) for path, why in found if _newest(path) < latest]
    return old + (_unused(pixels_folder(), grace) if cache else [])


def _unused(folder: Path, grace: float) -> list[Item]:
    """Decoded images, whatever version has written them, that were last used more than `grace` hours ago."""
    if not folder.is_dir():
        return []
    latest = files.clock(folder) - grace * 3600  # another disk than that of the results, perhaps another clock
    found = [*_temporaries(folder, recursive=False)]
    found += ((path, "decoded images that no trial uses") for path in sorted(folder.glob("[!.]*")))
    return [Item(path, _size(path), why) for path, why in found if _newest(path) < latest]


def _live(store: Store, name: str) -> bool:
    """Whether an attempt at the trial may be running, or a job that is to run it may still come."""
    if any(attempt.alive() for attempt in store.attempts(name) if not attempt.exit()):
        return True
    claims = files.in_order(store.path(name, "submitted"))
    open_claim = bool(claims) and not (claims[-1] / "end.json").exists()
    return open_claim and store.state(name) != "done"


def _of_trial(store: Store, name: str, *, aside: bool) -> Iterator[tuple[Path, str]]:
    folder = store.path(name)
    yield from _temporaries(folder, recursive=True)
    done = store.state(name) == "done"
    for path in checkpoint.surplus(folder / "checkpoint", 1 if done else checkpoint.KEPT):
        why = "checkpoint before the last of a finished trial" if done else "checkpoint before the last two"
        yield from ((part, why) for part in (path, files.seal(path)) if part.exists())
    if done:
        kept = store.arrays_folder(name)
        overtaken = (path for path in sorted(folder.glob("attempts/*/*.npz")) if path.parent != kept)
        yield from ((path, "of an attempt that another has overtaken") for path in overtaken)
    if aside:
        yield from ((path, "set aside by --fresh") for path in files.in_order(folder / "aside"))
        yield from ((path, "put by as broken") for path in sorted(folder.rglob("*.corrupt-*")))


def _temporaries(folder: Path, *, recursive: bool) -> Iterator[tuple[Path, str]]:
    found = folder.rglob(".*.tmp") if recursive else folder.glob(".*.tmp")
    return ((path, "left by a writer that was killed") for path in sorted(found))


def _newest(path: Path) -> float:
    return max((part.lstat().st_mtime for part in (path, *path.rglob("*"))), default=0.0)


def _size(path: Path) -> int:
    return sum(part.lstat().st_size for part in (path, *path.rglob("*")) if not part.is_dir())
