"""Tiny data in the layouts of the true data sets, the same on every machine."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CUB_CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
WNIDS = ("n01440764", "n01443537", "n01484850")
WORDS = (
    "tench, Tinca tinca",
    "goldfish, Carassius auratus",
    "great white shark, white shark, man-eater, man-eating shark",
)
SPLITS = ("train", "val", "test")
Corners = tuple[int, int, int, int]


def picture(index: int, width: int = 32, height: int = 24) -> NDArray[np.uint8]:
    """(height, width, 3) uint8, another one for every index."""
    y, x, channel = np.meshgrid(range(height), range(width), range(3), indexing="ij")
    return ((x * (index % 7 + 1) + y * (index % 5 + 2) + channel * 40 + index * 29) % 256).astype(np.uint8)


def save(path: Path, index: int, width: int = 32, height: int = 24) -> None:
    """Write the picture of this index; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(index, width, height)).save(path)


def save_mask(path: Path, corners: Corners, width: int = 32, height: int = 24, mode: str = "1") -> None:
    """Write a mask file that is above 0 in a rectangle, half-open."""
    x0, y0, x1, y1 = corners
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[y0:y1, x0:x1] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).convert(mode).save(path)


def write(path: Path, lines: Iterable[str]) -> None:
    """A text file of these lines; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def edit(path: Path, number: int, line: str) -> None:
    """Put another line in the place of line `number`, counted from 1."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1] = line
    write(path, lines)


def size(index: int) -> tuple[int, int]:
    """Width and height of the picture of this index, here."""
    return 30 + index % 4, 22 + index % 3


def corners(index: int) -> Corners:
    """Its box x0, y0, x1, y1; some are past the middle of the picture."""
    x0, y0 = 2 + (index * 5) % 14, 3 + (index * 3) % 9
    return x0, y0, x0 + 10 + index % 3, y0 + 8 + index % 2


def cub(folder: Path, per_class: int = 4) -> Path:
    """CUB-200-2011 of three classes; in each, every other image is to train on. Boxes are those of `corners`."""
    names = [f"{name}/Bird_{k:04d}.jpg" for name in CUB_CLASSES for k in range(per_class)]
    rows = list(enumerate(names, start=1))
    for i, name in rows:
        save(folder / "images" / name, i, *size(i))
    boxes = [(i, *corners(i)) for i, _ in rows]
    write(folder / "images.txt", (f"{i} {name}" for i, name in rows))
    write(folder / "classes.txt", (f"{k} {name}" for k, name in enumerate(CUB_CLASSES, start=1)))
    write(folder / "image_class_labels.txt", (f"{i} {(i - 1) // per_class + 1}" for i, _ in rows))
    write(folder / "train_test_split.txt", (f"{i} {i % 2}" for i, _ in rows))
    write(
        folder / "bounding_boxes.txt",
        (f"{i} {x0:.1f} {y0:.1f} {x1 - x0:.1f} {y1 - y0:.1f}" for i, x0, y0, x1, y1 in boxes),
    )
    return folder


def cubv2(folder: Path, per_class: int = 2) -> Path:
    """CUBV2 beside `cub`: a download of its own, and wsolevaluation's files for it."""
    names = [f"{name}/{k}0731.jpg" for name in CUB_CLASSES for k in range(per_class)]
    _boxed(
        folder / "CUBV2", folder / "metadata" / "CUB" / "val", names, [k // per_class for k in range(len(names))], 100
    )
    return folder


def imagenet(folder: Path, per_class: int = 4) -> Path:
    """ILSVRC 2012 of three classes: XML files, with two boxes for every third image."""
    write(folder / "LOC_synset_mapping.txt", (f"{wnid} {words}" for wnid, words in zip(WNIDS, WORDS, strict=True)))
    for k in range(len(WNIDS) * per_class):
        wnid = WNIDS[k // per_class]
        save(folder / "train" / wnid / f"{wnid}_{k}.JPEG", 200 + k, *size(k))
        stem = f"ILSVRC2012_val_{k + 1:08d}"
        save(folder / "val" / f"{stem}.JPEG", 300 + k, *size(k))
        boxes = [corners(k), (1, 1, 9, 9)][: 2 if k % 3 == 0 else 1]
        write(folder / "Annotations" / "CLS-LOC" / "val" / f"{stem}.xml", [_xml(stem, WNIDS[k % 3], size(k), boxes)])
    return folder


def imagenet_train_boxes(folder: Path, indices: Iterable[int], per_class: int = 4) -> list[Path]:
    """XML files of these training images of `imagenet`, the boxes those of `corners`."""
    made = []
    for k in indices:
        wnid = WNIDS[k // per_class]
        made.append(folder / "Annotations" / "CLS-LOC" / "train" / wnid / f"{wnid}_{k}.xml")
        write(made[-1], [_xml(made[-1].stem, wnid, size(k), [corners(k)])])
    return made


def imagenetv2(folder: Path, per_class: int = 2) -> Path:
    """ImageNetV2 beside `imagenet`: val2/<label>/<k>.jpeg, and wsolevaluation's files for it."""
    names = [f"val2/{label}/{k}.jpeg" for label in range(len(WNIDS)) for k in range(per_class)]
    labels = [k // per_class for k in range(len(names))]
    _boxed(folder, folder / "metadata" / "ILSVRC" / "val", names, labels, 400)
    return folder


def openimages(folder: Path, per_class: int = 2) -> Path:
    """OpenImages30k of two classes in wsolevaluation's layout; the last image of every split has two objects.

    The objects are the rectangles of `corners`, and 1 1 6 6; the first image of a class has everything ignored.
    """
    for number, split in enumerate(SPLITS):
        names = [f"{split}/{label}/{k}{number}ab.jpg" for label in ("01226z", "0138tl") for k in range(per_class)]
        labels = [k // per_class for k in range(len(names))]
        _listed(
            folder / "dataset" / "OpenImages",
            folder / "metadata" / "OpenImages" / split,
            names,
            labels,
            500 + 50 * number,
        )
        lines = [] if split == "train" else _masked(folder / "dataset" / "OpenImages", names)
        write(folder / "metadata" / "OpenImages" / split / "localization.txt", lines)
        write(folder / "metadata" / "OpenImages" / split / "image_sizes.txt", [])
    return folder


def wsolevaluation(folder: Path, per_class: int = 2) -> Path:
    """A checkout of wsolevaluation with the data sets CUB and OpenImages in it."""
    for number, split in enumerate(SPLITS):
        names = [f"{name}/{split}_{k}.jpg" for name in CUB_CLASSES for k in range(per_class)]
        labels = [k // per_class for k in range(len(names))]
        _boxed(folder / "dataset" / "CUB", folder / "metadata" / "CUB" / split, names, labels, 700 + 50 * number)
    return openimages(folder)


def table(folder: Path, per_class: int = 4) -> Path:
    """A folder of images with one table.csv: a split column, a box an image, and none for those to train on."""
    lines = ["image,label,split,x0,y0,x1,y1"]
    for k in range(2 * per_class):
        split, name = ("train", "test")[k % 2], f"photos/{k}.png"
        save(folder / name, 900 + k, *size(k))
        box = ",".join(str(end) for end in corners(k)) if split == "test" else ",,,"
        lines.append(f"{name},{('cat', 'dog')[k // per_class]},{split},{box}")
    write(folder / "table.csv", lines)
    return folder


FAKES: dict[str, Callable[[Path], Path]] = {
    "cub": lambda folder: cubv2(cub(folder)),
    "imagenet": lambda folder: imagenetv2(imagenet(folder)),
    "openimages": openimages,
    "table": table,
    "wsolevaluation": wsolevaluation,
}
"""For each data set that needs a folder, what fills one."""

OPTIONS: dict[str, dict[str, str]] = {"wsolevaluation": {"collection": "CUB"}}
"""The options without a default, for the folders of `FAKES`."""


def _listed(images: Path, metadata: Path, names: Sequence[str], labels: Sequence[int], first: int) -> None:
    for i, name in enumerate(names):
        save(images / name, first + i, *size(i))
    write(metadata / "image_ids.txt", names)
    write(metadata / "class_labels.txt", (f"{name},{label}" for name, label in zip(names, labels, strict=True)))


def _boxed(images: Path, metadata: Path, names: Sequence[str], labels: Sequence[int], first: int) -> None:
    _listed(images, metadata, names, labels, first)
    write(metadata / "image_sizes.txt", (f"{name},{size(i)[0]},{size(i)[1]}" for i, name in enumerate(names)))
    write(metadata / "localization.txt", (",".join(map(str, (name, *corners(i)))) for i, name in enumerate(names)))


def _masked(images: Path, names: Sequence[str]) -> list[str]:
    """Write the masks; the lines of localization.txt."""
    lines = []
    for i, name in enumerate(names):
        stem = name.removesuffix(".jpg")
        ignored = (0, 0, *size(i)) if i % 2 == 0 else (0, 0, 0, 0)
        save_mask(images / f"{stem}_ignore.png", ignored, *size(i), mode="RGB")
        save_mask(images / f"{stem}_m1.png", corners(i), *size(i))
        lines.append(f"{name},{stem}_m1.png,{stem}_ignore.png")
    save_mask(images / f"{stem}_m2.png", (1, 1, 6, 6), *size(i))
    return [*lines, f"{name},{stem}_m2.png,"]


def _xml(stem: str, wnid: str, shape: tuple[int, int], boxes: Sequence[Corners]) -> str:
    ends = ("xmin", "ymin", "xmax", "ymax")
    inner = ["".join(f"<{end}>{value}</{end}>" for end, value in zip(ends, box, strict=True)) for box in boxes]
    objects = "".join(f"<object><name>{wnid}</name><bndbox>{box}</bndbox></object>" for box in inner)
    width, height = shape
    image = f"<filename>{stem}</filename><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><folder>val</folder>{image}{objects}</annotation>"
