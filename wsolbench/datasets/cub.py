"""CUB-200-2011 (Wah et al., Caltech CNS-TR-2011-001), with CUBV2 (Choe et al., CVPR 2020) as its held-out split."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic.dataclasses import dataclass

from wsolbench.annotations import (
    Box,
    Listing,
    Problems,
    Row,
    Size,
    as_split,
    data_folder,
    decimal,
    keyed,
    located,
    metadata_listing,
    need,
    present,
    read_tables,
    refuse,
    sizes_of,
)
from wsolbench.dataset import Split, SplitName
from wsolbench.plugins import OPTIONS

NUM_CLASSES = 200
TABLES = {"image_class_labels.txt": [2], "train_test_split.txt": [2], "bounding_boxes.txt": [5], "classes.txt": [2]}


@dataclass(frozen=True, config=OPTIONS)
class CUB:
    """200 kinds of birds; the official split, read from the official files.

    `data` holds images.txt, image_class_labels.txt, train_test_split.txt, bounding_boxes.txt, classes.txt and images/.
    Boxes are x y w h in pixels of the images as stored. Where only some classes are there, those are numbered from 0.
    `image_sizes.txt` (image id, width, height; not official) spares reading the headers of the images.
    CUBV2 is a download of its own: its class folders go into CUBV2/, its annotation is wsolevaluation's
    metadata/CUB/val/; that split is tested on generated data in this layout.
    """

    official: ClassVar[Mapping[SplitName, int]] = {"train": 5994, "held_out": 1000, "test": 5794}

    def split(self, name: SplitName, data: Path | None) -> Split:
        """What train_test_split.txt gives to train or test, or CUBV2; the id of an image is its path."""
        folder = data_folder(data, "cub", "CUB-200-2011", "images.txt", *TABLES, "images")
        listing, train = _listing(folder)
        if name == "held_out":
            return as_split(_cubv2(folder, listing.classes))
        return as_split(listing.only(i for i, flag in enumerate(train) if flag == (name == "train")))


def _listing(folder: Path) -> tuple[Listing, list[bool]]:
    """All images that are here, and which of them are to train on."""
    files, tables = _tables(folder)
    labels, flags, boxes, classes = (tables[name] for name in TABLES)
    numbers = {key: number for number, key in enumerate(classes)}
    paths = [row.values[1] for row in files.values()]
    listing = Listing(
        root=folder / "images",
        ids=paths,
        files=paths,
        labels=[numbers[labels[key].values[1]] for key in files],
        classes=tuple(row.values[1] for row in classes.values()),
        boxes=[_box(path, boxes[key]) for key, path in zip(files, paths, strict=True)],
        corners_given=False,
        sizes=_sizes(folder, files),
    )
    kept, _ = present(listing.root, paths, listing.labels)
    train = [row.values[1] == "1" for row in (flags[key] for key in files)]
    return _numbered(listing.only(kept)), [train[i] for i in kept]


def _tables(folder: Path) -> tuple[dict[str, Row], dict[str, dict[str, Row]]]:
    """Of images.txt, and of each of `TABLES`, the rows by their key; `InputError` where they do not fit together."""
    problems = Problems(list)
    listed, *rows = read_tables(folder, {"images.txt": [2], **TABLES})
    files = keyed(listed, problems)
    keyed(listed, problems, column=1)
    tables = {name: keyed(found, problems) for name, found in zip(TABLES, rows, strict=True)}
    for name in list(TABLES)[:3]:
        problems[f"images without a line in {name}, by image id"] += [key for key in files if key not in tables[name]]
    of_class, flags = tables["image_class_labels.txt"].values(), tables["train_test_split.txt"].values()
    unknown = [str(row) for row in of_class if row.values[1] not in tables["classes.txt"]]
    problems["lines of a class that classes.txt has not"] += unknown
    problems["lines without 0 or 1"] += [str(row) for row in flags if row.values[1] not in {"0", "1"}]
    refuse(problems)
    return files, tables


def _box(image: str, row: Row) -> Box:
    x, y, width, height = (decimal(value) for value in row.values[1:])
    return Box(image, (x, y, x + width, y + height), row)


def _sizes(folder: Path, files: Mapping[str, Row]) -> dict[str, Size]:
    """Width and height by path, none where there is no such file; further columns are passed over."""
    (rows,) = read_tables(folder, {"image_sizes.txt": [3, 5]}, optional=["image_sizes.txt"])
    problems = Problems(list)
    sizes = sizes_of(rows, problems)
    refuse(problems)
    return {row.values[1]: sizes[key] for key, row in files.items() if key in sizes}


def _numbered(listing: Listing) -> Listing:
    """The classes that have images, numbered from 0."""
    used = sorted(set(listing.labels))
    classes = tuple(listing.classes[label] for label in used)
    return replace(
        listing, labels=[used.index(label) for label in listing.labels], classes=classes, notes=_note(classes)
    )


def _note(classes: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{len(classes)} of the {NUM_CLASSES} classes are here",) * (len(classes) < NUM_CLASSES)


def _cubv2(folder: Path, classes: tuple[str, ...]) -> Listing:
    """CUBV2's images of the classes that are here, which the folders name; its labels are the official ones."""
    metadata = need(folder, "metadata/CUB/val/image_ids.txt", "annotation of CUBV2").parent
    root = need(folder, "CUBV2", "images of CUBV2")
    listing = located(metadata_listing(metadata, root, ("",) * NUM_CLASSES))
    names = [name.partition("/")[0] for name in listing.ids]
    here = listing.only(i for i, name in enumerate(names) if name in classes)
    labels = [classes.index(name.partition("/")[0]) for name in here.ids]
    return replace(here, classes=classes, labels=labels, notes=_note(classes))


DATASET = CUB
