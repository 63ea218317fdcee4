"""Finds the sweep, table and figure files: a user's own, those of a checkout, or those of the wheel."""

from pathlib import Path

from wsolbench.errors import InputError, nearest

_HERE = Path(__file__).resolve().parent


def names(kind: str) -> list[str]:
    """What files of a kind there are, `sweeps`, `reports` or `figures`, by name."""
    return sorted({path.stem for folder in _folders(kind) for path in folder.glob("*.yaml")})


def find(kind: str, name: str) -> Path:
    """The file that a path or a bare name such as `drop-rate` means; `InputError` lists what there is."""
    if Path(name).is_file():
        return Path(name)
    for folder in _folders(kind):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = names(kind)
    stem = Path(name).stem
    raise InputError(f"no file {name!r}{nearest(stem, known) or '.'} The {kind} here are: {', '.join(known) or 'none'}")


def _folders(kind: str) -> list[Path]:
    inside = _HERE / f"_{kind}"
    return [Path(kind), inside if inside.is_dir() else _HERE.parent / kind]
