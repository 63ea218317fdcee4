"""ILSVRC 2012 (Russakovsky et al., IJCV 2015), with ImageNetV2 (Recht et al., ICML 2019) as its held-out split."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple
from xml.etree import ElementTree as ET

from pydantic.dataclasses import dataclass

from wsolbench.annotations import (
    Box,
    Listing,
    Problems,
    Row,
    Size,
    as_split,
    corners_of,
    data_folder,
    image_names,
    keyed,
    located,
    metadata_listing,
    need,
    read_rows,
    read_tables,
    refuse,
    sizes_of,
    whole_number,
)
from wsolbench.dataset import Split, SplitName
from wsolbench.errors import InputError
from wsolbench.plugins import OPTIONS

_ENDS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, config=OPTIONS)
class ImageNet:
    """1,000 classes; trained on `train`, tested on the validation images with all their boxes.

    `data` holds synset_words.txt or LOC_synset_mapping.txt, a class a line in the order of the labels, and
    train/<wnid>/*.JPEG, val/*.JPEG, Annotations/CLS-LOC/val/*.xml; or, as Kaggle has them, ILSVRC/Data/CLS-LOC/train/
    and so on. Where there are wsolevaluation's image_ids.txt, class_labels.txt, image_sizes.txt and localization.txt,
    in the folder or in its metadata/ILSVRC/test/, these are read instead of the XML files.
    The held-out split is ImageNetV2 in val2/<label>/*.jpeg, its annotation wsolevaluation's metadata/ILSVRC/val/. For
    the hashed names that its files got later, a mapping.txt stands beside it, of lines `0/0.jpeg, 0/a310....jpeg`.
    Training images have the boxes of Annotations/CLS-LOC/train/<wnid>/*.xml, about half of them have some. A file
    image_sizes.txt in metadata/ILSVRC/train/ spares reading the headers of the training images, and a localization.txt
    of `train/<wnid>/<name>.JPEG,x0,y0,x1,y1` beside it reading the XML files; each takes minutes.
    Boxes are the numbers of the files: the last pixel counts as in the file, nothing is added or taken.
    The training and held-out splits and the XML files are tested on generated data in these layouts.
    """

    official: ClassVar[Mapping[SplitName, int]] = {"train": 1_281_167, "held_out": 10_000, "test": 50_000}

    def split(self, name: SplitName, data: Path | None) -> Split:
        """One split, the paths as ids. Classes whose images are not there keep their labels."""
        mapped = data is not None and (data / "LOC_synset_mapping.txt").exists()
        words = "LOC_synset_mapping.txt" if mapped else "synset_words.txt"
        folder = data_folder(data, "imagenet", "ILSVRC 2012", words)
        classes = _classes(folder / words)
        readers = {"train": _train, "held_out": _held_out, "test": _test}
        return as_split(readers[name](folder, classes))


class _Annotated(NamedTuple):
    """What an XML file says: the class of its objects, the size of the image, a box for each object."""

    wnid: str
    size: Size
    boxes: list[Box]


def _classes(path: Path) -> tuple[str, ...]:
    """The lines of the class file, such as `n01440764 tench, Tinca tinca`: as names, for some words occur twice."""
    rows = read_rows(path, 2, splits=1)
    problems = Problems(list)
    wnids = list(keyed(rows, problems))
    refuse(problems)
    if wnids != sorted(wnids):
        raise InputError(f"{str(path)!r} is not sorted by wnid, and labels follow that order; use ILSVRC's own file")
    return tuple(" ".join(row.values) for row in rows)


def _wnids(classes: tuple[str, ...]) -> dict[str, int]:
    return {name.partition(" ")[0]: label for label, name in enumerate(classes)}


def _images(folder: Path) -> Path:
    kaggle = folder / "ILSVRC" / "Data" / "CLS-LOC"
    return kaggle if kaggle.is_dir() else folder


def _train(folder: Path, classes: tuple[str, ...]) -> Listing:
    """The images of the class folders; sizes are read from the headers where no file has them."""
    root, labels = _images(folder), _wnids(classes)
    there = need(root, "train", "training images of ILSVRC 2012")
    strange = [entry.name for entry in there.iterdir() if entry.is_dir() and entry.name not in labels]
    refuse({f"folders of {str(there)!r} that are no wnids of the class file": strange})
    here = [wnid for wnid in labels if (there / wnid).is_dir()]
    files = [f"train/{wnid}/{name}" for wnid in here for name in image_names(there / wnid)]
    note = [f"{len(here):,} of the {len(classes):,} classes are here"] if len(here) < len(classes) else []
    tables = {"image_sizes.txt": [3], "localization.txt": [5]}
    measured, localized = read_tables(folder / "metadata/ILSVRC/train", tables, ",", list(tables))
    problems = Problems(list)
    sizes = sizes_of(measured, problems)
    boxes = [Box(row.values[0], corners_of(row.values[1:]), row) for row in localized]
    drawn: dict[str, _Annotated] = {} if boxes else _train_xml(_annotations(folder, "train"), files, labels, problems)
    refuse(problems)
    numbers = [labels[file.split("/")[1]] for file in files]
    boxes += [box for image in drawn.values() for box in image.boxes]
    annotated = {name: image.size for name, image in drawn.items()}
    return Listing(
        root, files, files, numbers, classes, boxes=boxes, sizes=sizes, annotated=annotated, notes=tuple(note)
    )


def _train_xml(
    annotations: Path, files: list[str], labels: Mapping[str, int], problems: Problems
) -> dict[str, _Annotated]:
    """What the XML files of training images say, of those that have one."""
    paths = {file: annotations / Path(file).relative_to("train").with_suffix(".xml") for file in files}
    there = {path for folder in {path.parent for path in paths.values()} for path in folder.glob("*.xml")}
    found = {file: _read_xml(path, file, labels, problems) for file, path in paths.items() if path in there}
    wrong = [paths[file].name for file, image in found.items() if image.wnid != file.split("/")[1]]
    problems["XML files of another class than their folder"] += wrong
    return found


def _annotations(folder: Path, name: str) -> Path:
    kaggle = folder / "ILSVRC" / "Annotations" / "CLS-LOC" / name
    return kaggle if kaggle.is_dir() else folder / "Annotations" / "CLS-LOC" / name


def _held_out(folder: Path, classes: tuple[str, ...]) -> Listing:
    metadata = need(folder, "metadata/ILSVRC/val/image_ids.txt", "annotation of ImageNetV2").parent
    return located(metadata_listing(metadata, folder, classes))


def _test(folder: Path, classes: tuple[str, ...]) -> Listing:
    for metadata in (folder, folder / "metadata" / "ILSVRC" / "test"):
        if (metadata / "image_ids.txt").exists():
            return located(metadata_listing(metadata, _images(folder), classes))
    return _from_xml(folder, classes)


def _from_xml(folder: Path, classes: tuple[str, ...]) -> Listing:
    """The validation images with the class and the boxes of their XML files."""
    root, labels = _images(folder), _wnids(classes)
    images = {
        name.rpartition(".")[0]: name for name in image_names(need(root, "val", "validation images of ILSVRC 2012"))
    }
    annotations = _annotations(folder, "val")
    stems = sorted(path.stem for path in annotations.glob("*.xml"))
    without = {
        f"annotations that are not in {str(annotations)!r}": [
            f"{stem}.xml" for stem in sorted(images.keys() - set(stems))
        ],
        f"images that are not in {str(root / 'val')!r}": [f"{stem}.JPEG" for stem in stems if stem not in images],
    }
    refuse(without)
    problems = Problems(list)
    ids = [f"val/{images[stem]}" for stem in stems]
    read = [
        _read_xml(annotations / f"{stem}.xml", image, labels, problems) for stem, image in zip(stems, ids, strict=True)
    ]
    refuse(problems)
    return Listing(
        root=root,
        ids=ids,
        files=ids,
        labels=[labels[image.wnid] for image in read],
        classes=classes,
        boxes=[box for image in read for box in image.boxes],
        annotated={name: image.size for name, image in zip(ids, read, strict=True)},
    )


def _read_xml(path: Path, image: str, labels: Mapping[str, int], problems: Problems) -> _Annotated:
    """What an XML file says of its image; what is wrong with it is added to `problems`."""
    try:
        root = ET.parse(path).getroot()  # noqa: S314  expat itself refuses entities that grow
    except ET.ParseError as error:
        problems["XML files that are torn"].append(f"{path.name} ({error})")
        return _Annotated("", (0, 0), [])
    found = root.findall("object")
    wnids = sorted({entry.findtext("name", "") for entry in found})
    if len(wnids) != 1 or wnids[0] not in labels:
        problems["XML files without one class of the class file"].append(f"{path.name} {wnids}")
    size = Row(path.name, [root.findtext(f"size/{side}", "") for side in ("width", "height")])
    boxes = [Row(path.name, [entry.findtext(f"bndbox/{end}", "") for end in _ENDS]) for entry in found]
    return _Annotated(
        wnid="".join(wnids[:1]),
        size=(whole_number(size, 0, problems), whole_number(size, 1, problems)),
        boxes=[Box(image, corners_of(row.values), row) for row in boxes],
    )


DATASET = ImageNet
