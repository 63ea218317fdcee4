"""Any folder of images with a table of labels and boxes or masks."""

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from os.path import normpath
from pathlib import Path
from typing import NamedTuple

from pydantic.dataclasses import dataclass

from wsolbench.annotations import (
    Box,
    Listing,
    Masks,
    Problems,
    Row,
    as_split,
    corners_of,
    data_folder,
    sentences,
)
from wsolbench.dataset import NoSplitError, Split, SplitName
from wsolbench.errors import Collecting, InputError
from wsolbench.plugins import OPTIONS

ENDS = ("x0", "y0", "x1", "y1")
COLUMNS = {"image", "label", "split", "mask", "ignore", *ENDS}
SPLITS: tuple[SplitName, ...] = ("train", "held_out", "test")


@dataclass(frozen=True, config=OPTIONS)
class Table:
    """Own images: a CSV file of `image,label,x0,y0,x1,y1`, or `image,label,mask`, in the folder of the images.

    `data` holds table.csv with a column `split` (train, held_out or test), or train.csv, test.csv and, if wanted,
    held_out.csv. `image` and `mask` are paths in the folder, `label` is the name of a class; the classes are all that
    occur in any split, sorted (as numbers, if all are); the file is UTF-8, and spaces around a field are none of it.
    Boxes are in pixels, half-open; an image with several has several rows, one without has empty fields. A mask file
    is above 0 on the object, in the numbers that it stores (`annotations.read_plane`: 1 of 65,535 counts, and a black
    colour of a palette does if its number is above 0); a column `ignore` may name a file that is above 0 where the
    truth is unknown.
    """

    def split(self, name: SplitName, data: Path | None) -> Split:
        """The rows of one split; the ids are the paths."""
        folder = data_folder(data, "table", "table", "train.csv" if _apart(data) else "table.csv")
        problems: list[str] = []
        entries = _entries(folder, problems)
        chosen = [entry for entry in entries if entry.split == name]
        if not chosen and not problems:
            there = ", ".join(split for split in SPLITS if any(entry.split == split for entry in entries))
            raise NoSplitError(f"no {name} split in the table of {str(folder)!r}; there are: {there}")
        if chosen:
            listing = _listing(folder, chosen, _classes(entries), problems)
            with Collecting(problems):
                split = as_split(listing, subset=False)
        if problems:
            raise InputError(*problems)
        return split


class _Entry(NamedTuple):
    """A row of a table, its empty and missing fields empty."""

    where: str
    split: str
    fields: dict[str, str]


def _apart(data: Path | None) -> bool:
    return data is not None and (data / "train.csv").exists()


def _entries(folder: Path, problems: list[str]) -> list[_Entry]:
    """The rows of every split; those that cannot be are left out, and a problem more.

    Raises:
        InputError: with all problems, where a file cannot be read at all.
    """
    apart = [(f"{split}.csv", split) for split in SPLITS if (folder / f"{split}.csv").exists()]
    files = apart if _apart(folder) else [("table.csv", "")]
    entries: list[_Entry] = []
    unreadable: list[str] = []
    for file, split in files:
        with Collecting(unreadable):
            entries += _read(folder / file, split, problems)
    if unreadable or not (entries or problems):
        raise InputError(*problems, *unreadable or [f"no rows below the columns in the table of {str(folder)!r}"])
    strange = [f"{entry.where} {entry.split!r}" for entry in entries if entry.split not in SPLITS]
    bare = [entry.where for entry in entries if not entry.fields["image"] or not entry.fields["label"]]
    kinds = {"rows whose split is not train, held_out or test": strange, "rows without image or label": bare}
    _values([(entry, entry.split) for entry in entries], "split", problems)
    problems += sentences(kinds | _repeated(entries))
    return [entry for entry in entries if entry.fields["image"] and entry.fields["label"]]


def _repeated(entries: Sequence[_Entry]) -> dict[str, list[str]]:
    """Rows that would count an object, or an image, twice."""
    spelled: dict[str, str] = {}
    said: set[tuple[str, ...]] = set()
    problems = Problems(list)
    for entry in entries:
        image, row = entry.fields["image"], tuple(entry.fields.values())
        if spelled.setdefault(normpath(image), image) != image:
            problems["rows that spell the path of an earlier image in another way"].append(f"{entry.where} {image!r}")
        if row in said:
            problems["rows that are the same as an earlier one"].append(f"{entry.where} {image!r}")
        said.add(row)
    return problems


def _read(path: Path, split: str, problems: list[str]) -> list[_Entry]:
    """The whole rows of a file; all are of `split`, or of what their column says where that is empty."""
    rows = _lines(path)
    columns = rows[0][1] if rows else []
    _refuse_columns(path.name, columns, {"image", "label"} if split else {"image", "label", "split"})
    torn = [at for at, row in rows if len(row) != len(columns)]
    problems += sentences({f"rows that have not {len(columns)} fields": torn})
    entries = [(at, dict(zip(columns, row, strict=True))) for at, row in rows[1:] if len(row) == len(columns)]
    return [_Entry(at, split or fields["split"], fields) for at, fields in entries]


def _lines(path: Path) -> list[tuple[str, list[str]]]:
    """The rows of a CSV file that say something, each with where it begins."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows, begins = [], 1
            for row in reader:
                rows.append((f"{path.name}:{begins}", [field.strip() for field in row]))
                begins = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise InputError(
            f"{str(path)!r} is not UTF-8 text ({error.reason}, byte {error.start}); save it as that"
        ) from None
    except (csv.Error, OSError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}; is a quote open, or is it no file?") from None
    return [(at, row) for at, row in rows if any(row)]


def _refuse_columns(file: str, columns: Sequence[str], wanted: set[str]) -> None:
    absent = [f"{file} has no column {name!r}" for name in sorted(wanted - set(columns))]
    may = ", ".join(sorted(COLUMNS))
    strange = [f"{file} has a column {name!r}; it may have: {may}" for name in columns if name not in COLUMNS]
    twice = [f"{file} has the column {name!r} {count} times" for name, count in Counter(columns).items() if count > 1]
    if absent or strange or twice:
        raise InputError(*absent, *strange, *twice)


def _classes(entries: Sequence[_Entry]) -> tuple[str, ...]:
    found = {entry.fields["label"] for entry in entries}
    return tuple(sorted(found, key=int if all(name.isdecimal() for name in found) else None))


def _listing(folder: Path, entries: Sequence[_Entry], classes: tuple[str, ...], problems: list[str]) -> Listing:
    labels = _values([(entry, entry.fields["label"]) for entry in entries], "label", problems)
    images = list(labels)
    numbers = {name: number for number, name in enumerate(classes)}
    return Listing(
        root=folder,
        ids=images,
        files=images,
        labels=[numbers[labels[image]] for image in images],
        classes=classes,
        boxes=[_box(entry) for entry in entries if any(entry.fields.get(end) for end in ENDS)],
        masks=_masks(entries, problems),
    )


def _values(given: Sequence[tuple[_Entry, str]], what: str, problems: list[str]) -> dict[str, str]:
    """The label, or the split, of each image; a problem more names the rows that say otherwise than an earlier one."""
    found: dict[str, str] = {}
    others = [
        f"{entry.where} {image!r}"
        for entry, value in given
        if found.setdefault(image := entry.fields["image"], value) != value
    ]
    problems += sentences({f"rows with another {what} than an earlier row of their image": others})
    return found


def _box(entry: _Entry) -> Box:
    texts = [entry.fields.get(end, "") for end in ENDS]
    return Box(entry.fields["image"], corners_of(texts), Row(entry.where, texts))


def _masks(entries: Sequence[_Entry], problems: list[str]) -> dict[str, Masks]:
    """The mask files of the images that have some, each with its one ignore file, on whichever of its rows."""
    objects: dict[str, list[str]] = defaultdict(list)
    ignored: dict[str, str] = {}
    others: list[str] = []
    for entry in entries:
        image, ignore = entry.fields["image"], entry.fields.get("ignore")
        if file := entry.fields.get("mask"):
            objects[image].append(file)
        if ignore and ignored.setdefault(image, ignore) != ignore:
            others.append(entry.where)
    bare = [image for image in ignored if image not in objects]
    kinds = {"rows with another ignore file than an earlier row of their image": others}
    problems += sentences(kinds | {"images with an ignore file and no mask": bare})
    return {image: Masks(tuple(files), ignored.get(image, "")) for image, files in objects.items()}


DATASET = Table
