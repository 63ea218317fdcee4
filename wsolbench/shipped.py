"""Finds what is shipped beside the package: methods, and sweep, table and figure files; a user's own come first."""

from pathlib import Path

from wsolbench.errors import InputError, nearest

KINDS = ("sweeps", "reports", "figures")
"""The files that a user may have of their own in the current folder, by the folder's name."""

_HERE = Path(__file__).resolve().parent


def folder(kind: str) -> Path:
    """Where the shipped files of a kind are, `methods` or one of `KINDS`: a checkout has them beside the package."""
    return inside if (inside := _HERE / _inside(kind)).is_dir() else _HERE.parent / kind


def of_a_wheel() -> set[str]:
    """What the folders of `folder` are called in a wheel, which has them inside the package."""
    return {_inside(kind) for kind in ("methods", *KINDS)}


def names(kind: str) -> list[str]:
    """What files of one of the `KINDS` there are, by name."""
    return sorted({path.stem for place in _folders(kind) for path in place.glob("*.yaml")})


def find(kind: str, name: str) -> Path:
    """The file that a path or a bare name such as `drop-rate` means; `InputError` lists what there is."""
    if Path(name).is_file():
        return Path(name)
    for path in (place / f"{name}.yaml" for place in _folders(kind)):
        if path.is_file():
            return path
    known = names(kind)
    stem = Path(name).stem
    raise InputError(f"no file {name!r}{nearest(stem, known) or '.'} The {kind} here are: {', '.join(known) or 'none'}")


def _folders(kind: str) -> list[Path]:
    return [Path(kind), folder(kind)]


def _inside(kind: str) -> str:
    return f"_{kind}"
