"""Annotation files and images as they lie on disk: read, checked, and put together as a `Split`."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from wsolbench.dataset import NoSplitError, Split
from wsolbench.errors import Collecting, InputError

Size = tuple[int, int]  # width and height, pixels
Problems = defaultdict[str, list[str]]  # a kind of problem -> where it was found

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what PIL raises on broken files
_READERS = 8  # threads that wait for the disk
_BOX, _MASK = 5, 3  # fields of a line of localization.txt
_FEW = 0.05  # share of the boxes that may be wrong one by one; more than that is a wrong file
_ENOUGH = 50  # boxes from which a doubt about all of them is no accident
_SPOT_CHECKS = 10  # headers compared with a file of sizes; `wsolbench data verify` compares all
_UNKNOWN = (2**31, 2**31)  # a size that every box is inside of
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_HASHED = re.compile(r"[0-9a-f]{40}\.jpe?g")  # the names ImageNetV2's files got later


class Row(NamedTuple):
    """One line of an annotation file.

    Args:
        where: `file:line`.
        values: its fields.
    """

    where: str
    values: list[str]

    def __str__(self) -> str:
        return f"{self.where} {' '.join(self.values)!r}"


class Box(NamedTuple):
    """A box as a file has it.

    Args:
        image: the id of its image.
        corners: x0, y0, x1, y1 in pixels, half-open; NaN where the file has no number.
        row: where it stands.
    """

    image: str
    corners: tuple[float, float, float, float]
    row: Row


class Masks(NamedTuple):
    """The mask files of one image, relative to its root.

    Args:
        objects: one file for each object; above 0 is object.
        ignore: a file that is above 0 where the truth is unknown, but for the objects; empty where there is none.
    """

    objects: tuple[str, ...]
    ignore: str = ""


@dataclass(frozen=True)
class Listing:
    """What the annotation files of a split say, before any image is looked at.

    Args:
        root: the folder that `files` and `masks` are relative to.
        ids: (N,) unique names of the images.
        files: (N,) their files.
        labels: (N,) in [0, K).
        classes: (K,) names.
        boxes: of all images, in the order of the file.
        corners_given: the file gives x0 y0 x1 y1, not x y w h.
        masks: of the images that have some.
        sizes: of the images, where a file says so; of the stored images.
        annotated: width and height of the image that the boxes were drawn on, where a file says so.
        notes: what was found on reading that a user should know.
    """

    root: Path
    ids: Sequence[str]
    files: Sequence[str]
    labels: Sequence[int]
    classes: tuple[str, ...]
    boxes: Sequence[Box] = ()
    corners_given: bool = True
    masks: Mapping[str, Masks] = field(default_factory=dict)
    sizes: Mapping[str, Size] = field(default_factory=dict)
    annotated: Mapping[str, Size] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def only(self, chosen: Iterable[int]) -> "Listing":
        """The images at these indices."""
        chosen = list(chosen)
        kept = {self.ids[i] for i in chosen}
        return replace(
            self,
            ids=[self.ids[i] for i in chosen],
            files=[self.files[i] for i in chosen],
            labels=[self.labels[i] for i in chosen],
            boxes=[box for box in self.boxes if box.image in kept],
        )


def data_folder(data: Path | None, name: str, title: str, anchor: str, *others: str) -> Path:
    """`data`, where it holds `anchor` and `others`; else `InputError` says which of them are missing."""
    if data is None:
        raise InputError(f"{name} needs data=FOLDER, the folder that holds {anchor}")
    if missing := missing_of(data, anchor) or missing_of(data, *others):
        are = "is" if len(missing) == 1 else "are"
        place = f"({', '.join(missing)} {are} missing); data must be the folder that holds {anchor}"
        raise InputError(f"no {title} in {str(data)!r} {place}")
    return data


def need(folder: Path, name: str, title: str) -> Path:
    """The path `name` in `folder`; `NoSplitError` where it is not."""
    if not (folder / name).exists():
        raise NoSplitError(f"no {title} in {str(folder)!r} ({name} is missing)")
    return folder / name


def missing_of(folder: Path, *names: str) -> list[str]:
    """Those of `names` that `folder` does not hold."""
    return [name for name in names if not (folder / name).exists()]


def first_five(found: Sequence[str]) -> str:
    """The first five, and dots if there are more."""
    return ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")  # noqa: PLR2004  the name says it


def sentences(problems: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each kind of problem, with its count and the first five."""
    return [f"{kind} ({len(found):,}): {first_five(found)}" for kind, found in problems.items() if found]


def refuse(problems: Mapping[str, Sequence[str]], *hints: str) -> None:
    """Raise all problems as one `InputError`, if there are any."""
    if said := sentences(problems):
        raise InputError(*said, *hints)


def read_rows(path: Path, *counts: int, separator: str | None = None, splits: int = -1) -> list[Row]:
    """The lines of a text file, each of one of these `counts` of fields, split as `str.split` does.

    Empty lines and lines that begin with # are passed over. Raises `InputError` that names the lines of another count.
    """
    if not path.is_file():
        raise InputError(f"no {path.name} in {str(path.parent)!r}")
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    rows = [
        Row(f"{path.name}:{number}", [value.strip() for value in line.split(separator, splits)])
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.startswith("#")
    ]
    wanted = " or ".join(str(count) for count in counts)
    torn = [str(row) for row in rows if len(row.values) not in counts]
    refuse({f"lines of {str(path)!r} that have not {wanted} fields; is the file whole?": torn})
    return rows


def read_tables(
    folder: Path, counts: Mapping[str, Sequence[int]], separator: str | None = None, optional: Sequence[str] = ()
) -> list[list[Row]]:
    """The rows of several files, of these counts of fields; of those that are `optional`, none if they are missing."""
    problems: list[str] = []
    tables: list[list[Row]] = []
    for name, count in counts.items():
        if name in optional and missing_of(folder, name):
            tables.append([])
            continue
        with Collecting(problems):
            tables.append(read_rows(folder / name, *count, separator=separator))
    if problems:
        raise InputError(*problems)
    return tables


def keyed(rows: Iterable[Row], problems: Problems, column: int = 0) -> dict[str, Row]:
    """Rows by a field; of those with the same one the first, and a problem more for each other."""
    found: dict[str, Row] = {}
    for row in rows:
        if found.setdefault(row.values[column], row) is not row:
            problems["lines that name what an earlier line named"].append(str(row))
    return found


def whole_number(row: Row, column: int, problems: Problems) -> int:
    """The integer in a column, of 9 digits at most; -1, and a problem more, where there is none."""
    if _INTEGER.fullmatch(row.values[column]):
        return int(row.values[column])
    problems["lines without the integer that belongs there"].append(str(row))
    return -1


def decimal(text: str) -> float:
    """The number that `text` is, NaN if it is none."""
    try:
        return float("nan" if "_" in text else text)  # 1_0 is 10 to Python alone
    except ValueError:
        return float("nan")


def corners_of(texts: Sequence[str]) -> tuple[float, float, float, float]:
    """Four numbers as they stand, NaN for what is none."""
    x0, y0, x1, y1 = (decimal(text) for text in texts)
    return x0, y0, x1, y1


def image_names(folder: Path) -> list[str]:
    """The names of the JPEG and PNG files of a folder, sorted."""
    return sorted(name for name in _names(folder) if name.lower().endswith((".jpeg", ".jpg", ".png")))


def metadata_listing(metadata: Path, root: Path, classes: tuple[str, ...], ids: str = "image_ids.txt") -> Listing:
    """A split in wsolevaluation's files: `ids`, class_labels.txt, image_sizes.txt and localization.txt.

    A line of localization.txt is `image,x0,y0,x1,y1` or `image,mask,ignore`. The last two may be empty or missing.
    A mapping.txt of `old, new` lines gives the files of ImageNetV2 their later names.
    """
    counts = {ids: [1], "class_labels.txt": [2], "localization.txt": [_MASK, _BOX], "image_sizes.txt": [3]}
    optional = ["localization.txt", "image_sizes.txt"]
    listed, labelled, localized, measured = read_tables(metadata, counts, ",", optional)
    problems = Problems(list)
    names = list(keyed(listed, problems))
    rows = keyed(labelled, problems)
    problems["images without a line in class_labels.txt"] += [name for name in names if name not in rows]
    labels = {name: whole_number(row, 1, problems) for name, row in rows.items()}
    outside = [str(row) for name, row in rows.items() if not 0 <= labels[name] < len(classes)]
    problems[f"labels that are not 0 to {len(classes) - 1}"] += outside
    boxes, masks = _localization(localized, set(names), problems)
    sizes = sizes_of(measured, problems)
    refuse(problems)
    files = _mapped(metadata, names)
    return Listing(root, names, files, [labels[name] for name in names], classes, boxes, masks=masks, sizes=sizes)


def located(listing: Listing) -> Listing:
    """The listing, if each of its images has a box or a mask; else `InputError`."""
    known = {box.image for box in listing.boxes} | listing.masks.keys()
    refuse({"images without a box or a mask": [name for name in listing.ids if name not in known]})
    return listing


def sizes_of(rows: Iterable[Row], problems: Problems) -> dict[str, Size]:
    """Width and height by the first field of rows that have them in the next two."""
    found = keyed(rows, problems).items()
    return {name: (whole_number(row, 1, problems), whole_number(row, 2, problems)) for name, row in found}


def _localization(rows: Sequence[Row], names: set[str], problems: Problems) -> tuple[list[Box], dict[str, Masks]]:
    """The boxes and the masks of the images of these names."""
    boxes = [row for row in rows if len(row.values) == _BOX]
    with_masks = [row for row in rows if len(row.values) == _MASK]
    if boxes and with_masks:
        fewer = min(boxes, with_masks, key=len)
        problems["lines with another number of fields than most"] += [str(row) for row in fewer]
    known = [Box(row.values[0], corners_of(row.values[1:]), row) for row in boxes if row.values[0] in names]
    return known, _masks([row for row in with_masks if row.values[0] in names], problems)


def _masks(rows: Sequence[Row], problems: Problems) -> dict[str, Masks]:
    """The masks of each image; an ignore file stands on the first line of an image only."""
    masks: dict[str, Masks] = {}
    for row in rows:
        name, file, ignore = row.values
        if name in masks and ignore:
            problems["lines with an ignore file that are not the first of their image"].append(str(row))
        known = masks.get(name, Masks((), ignore))
        masks[name] = known._replace(objects=(*known.objects, file))
    return masks


def _mapped(metadata: Path, names: list[str]) -> list[str]:
    """The files of the images, by their later names where there is a file that maps them, below their first folder."""
    (rows,) = read_tables(metadata, {"mapping.txt": [2]}, ",", ["mapping.txt"])
    later = {row.values[0]: row.values[1] for row in rows}
    parts = [name.partition("/") for name in names]
    return [f"{top}/{later[rest]}" if rest in later else top + slash + rest for top, slash, rest in parts]


def as_split(listing: Listing, *, subset: bool = True) -> Split:
    """The split of a listing, its boxes clipped to their images; `InputError` has what is wrong with it.

    Args:
        listing: what the annotation files say.
        subset: classes may be missing as a whole.
    """
    if not listing.ids:
        raise InputError(f"no images of {str(listing.root)!r} are listed for this split")
    problems: list[str] = []
    with Collecting(problems):
        listing = _here(listing, subset=subset)
    with Collecting(problems):
        _refuse_masks(listing)
    if not problems:
        with Collecting(problems):
            sizes = _sizes(listing)
    if problems:
        with Collecting(problems):
            _fitted_boxes(listing, dict.fromkeys(listing.ids, _UNKNOWN))
        raise InputError(*problems)
    boxes, notes = _fitted_boxes(listing, dict(zip(listing.ids, sizes.tolist(), strict=True)))
    return Split(
        ids=tuple(listing.ids),
        labels=np.array(listing.labels, dtype=np.int64),
        classes=listing.classes,
        read=partial(_read_file, listing.root, tuple(listing.files)),
        sizes=sizes,
        boxes=boxes,
        mask=_mask_reader(listing, sizes),
        stamp=partial(_stamp, listing.root, tuple(listing.files)),
        notes=(*listing.notes, *notes),
    )


def read_image(path: Path, *, upright: bool = False) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8 RGB, whatever its own mode.

    An EXIF orientation is applied only if it is to stand `upright`: the field's boxes were drawn without.

    Raises:
        InputError: the file cannot be decoded whole.
    """
    with _opened(path) as opened:
        image = ImageOps.exif_transpose(opened) if upright else opened
        if image.mode == "F":
            raise InputError(
                f"the image {str(path)!r} holds fractions, whose range nobody knows: save it in 8 or 16 bits"
            )
        if image.mode.startswith("I"):  # 16 bits of grey, which converting would clip at 255
            image = Image.fromarray((np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8))
        plain = image.convert("RGBA") if "transparency" in image.info else image
        return np.array(plain.convert("RGB"))


def read_plane(path: Path) -> NDArray[np.bool_]:
    """Where a mask file is above 0, (H, W), in the numbers that it stores, however dark these look.

    Of several channels any counts. A palette's numbers do, unless number 0 is not black: then their colours do. What is
    wholly transparent does not count, and where all colours of a file are the same its opacity does instead.

    Raises:
        InputError: the file cannot be decoded whole.
    """
    with _opened(path) as opened:
        image = _as_stored(opened)
        names = image.getbands()
        bands = [np.asarray(band) for band in (image.split() if len(names) > 1 else [image])]
    opacity = bands.pop() if names[-1] == "A" else None
    above = reduce(np.logical_or, [band if band.dtype == np.bool_ else band > 0 for band in bands])
    if opacity is None or not np.ptp(opacity):
        return above
    return above & (opacity > 0) if any(np.ptp(band) for band in bands) else opacity > 0


_WITH_OPACITY = {"1": "LA", "L": "LA", "P": "PA", "RGB": "RGBA"}
"""Modes whose numbers stay, beside an opacity."""


def _as_stored(image: Image.Image) -> Image.Image:
    """An image whose bands are 0 where nothing is drawn, with opacity, if it has any, as band A."""
    clear = "transparency" in image.info  # a colour or a palette's number, told beside the bands
    if image.mode in {"P", "PA"} and any((image.getpalette() or [])[:3]):
        return image.convert("RGB" if image.mode == "P" and not clear else "RGBA")
    if clear and image.mode in _WITH_OPACITY:
        return image.convert(_WITH_OPACITY[image.mode])
    plain = len(image.getbands()) == 1 or image.mode in {"LA", "PA", "RGB", "RGBA"}
    return image if plain else image.convert("RGB")  # black is not 0 in CMYK, nor in YCbCr


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file, to be decoded in the block; `InputError` where it cannot be."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library may have allowed half images
    try:
        with Image.open(path) as image:
            yield image
    except InputError:  # of what was decoded
        raise
    except _UNREADABLE as error:
        raise InputError(f"cannot read the image {str(path)!r}: {error}; fetch it again") from None


def present(root: Path, files: Sequence[str], labels: Sequence[int], *, subset: bool = True) -> tuple[list[int], int]:
    """The indices of the images that are on disk, and the number of classes that are not.

    With `subset`, classes may be missing as a whole. Raises `InputError` that names the images that may not.
    """
    absent = _missing(root, files)
    left = Counter(labels)
    left.subtract(Counter(labels[i] for i in absent))
    gone = {label for label, count in left.items() if not count} if subset else set()
    torn = [files[i] for i in absent if labels[i] not in gone or len(gone) == len(left)]
    refuse({f"images that are not in {str(root)!r}": torn}, *_renamed(root, torn))
    lost = set(absent)
    return [i for i in range(len(files)) if i not in lost], len(gone)


def _here(listing: Listing, *, subset: bool) -> Listing:
    kept, gone = present(listing.root, listing.files, listing.labels, subset=subset)
    if not gone:
        return listing
    note = f"{len(set(listing.labels)) - gone:,} of the {len(listing.classes):,} classes are here"
    return replace(listing.only(kept), notes=(*listing.notes, note))


def _missing(root: Path, files: Sequence[str]) -> list[int]:
    """Indices of the files that do not exist; every folder is listed once."""
    folders = {file.rpartition("/")[0] for file in files}
    held = {folder: _names(root / folder) for folder in folders}
    return [i for i, file in enumerate(files) if file.rpartition("/")[2] not in held[file.rpartition("/")[0]]]


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def _renamed(root: Path, torn: Sequence[str]) -> list[str]:
    folders = {(root / file).parent for file in torn[:5]}
    if not any(_HASHED.fullmatch(name) for folder in folders for name in _names(folder)):
        return []
    return ["ImageNetV2's files got hashed names later; put a mapping.txt of 'old, new' lines beside image_ids.txt"]


def _sizes(listing: Listing) -> NDArray[np.int64]:
    """(N, 2) sizes of the stored images, from the listing where it has them all, else from the images' headers."""
    paths = [listing.root / file for file in listing.files]
    if not all(name in listing.sizes for name in listing.ids):
        sizes = _header_sizes(paths)
    else:
        sizes = np.array([listing.sizes[name] for name in listing.ids], dtype=np.int64).reshape(-1, 2)
        spots = range(0, len(paths), max(1, len(paths) // _SPOT_CHECKS))
        _compare(listing, spots, sizes[list(spots)], _header_sizes([paths[i] for i in spots]), "image_sizes.txt")
    if all(name in listing.annotated for name in listing.ids) and listing.ids:
        drawn = np.array([listing.annotated[name] for name in listing.ids], dtype=np.int64)
        _compare(listing, range(len(paths)), drawn, sizes, "the annotation")
    return sizes


def _compare(
    listing: Listing, chosen: Sequence[int], said: NDArray[np.int64], found: NDArray[np.int64], source: str
) -> None:
    wrong = [
        f"{listing.ids[i]} is {has[0]} x {has[1]}, not {says[0]} x {says[1]}"
        for i, says, has in zip(chosen, said.tolist(), found.tolist(), strict=True)
        if says != has
    ]
    refuse({f"images of another size than {source} says; its boxes are in other pixels": wrong})


def _header_sizes(paths: Sequence[Path]) -> NDArray[np.int64]:
    """(N, 2) widths and heights; nothing is decoded."""
    with ThreadPool(_READERS) as pool:
        found = pool.map(_header_size, paths, chunksize=64)
    broken = [f"{path} ({size})" for path, size in zip(paths, found, strict=True) if isinstance(size, str)]
    refuse({"files that are no images; fetch them again": broken})
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _header_size(path: Path) -> Size | str:
    try:
        with Image.open(path) as image:
            return image.size
    except _UNREADABLE as error:
        return type(error).__name__


def _fitted_boxes(listing: Listing, sizes: Mapping[str, Size]) -> tuple[tuple[NDArray[np.float64], ...], list[str]]:
    """For each image its (M, 4) boxes, clipped to the image, and notes on what was clipped."""
    boxes = listing.boxes
    corners = np.array([box.corners for box in boxes], dtype=np.float64).reshape(-1, 4)
    limits = np.array([sizes[box.image] * 2 for box in boxes], dtype=np.float64).reshape(-1, 4)
    _refuse_boxes(boxes, corners, limits, corners_given=listing.corners_given)
    clipped = np.clip(corners, 0, limits)
    by_image: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for box, fitted in zip(boxes, clipped, strict=True):
        by_image[box.image].append(fitted)
    notes = _clip_notes(corners, clipped) + _doubts(corners, limits, corners_given=listing.corners_given)
    if boxes and (bare := [name for name in listing.ids if name not in by_image]):
        notes.append(f"images without a box ({len(bare):,}): {first_five(bare)}")
    return tuple(np.array(by_image[name]).reshape(-1, 4) for name in listing.ids), notes


def _doubts(corners: NDArray[np.float64], limits: NDArray[np.float64], *, corners_given: bool) -> list[str]:
    """Corners read as x y w h leave their image once past its middle: if none of many does, they may be no corners."""
    if not corners_given or len(corners) < _ENOUGH or _misfits(_read_otherwise(corners, corners_given=True), limits):
        return []
    return [f"all {len(corners):,} boxes fit as x y w h too; are they x0 y0 x1 y1?"]


def _clip_notes(corners: NDArray[np.float64], clipped: NDArray[np.float64]) -> list[str]:
    over = np.abs(corners - clipped).max(axis=1, initial=0)
    by = f"{(over > 1).sum():,} of them by more than 1 px"
    return [f"{(over > 0).sum():,} boxes were clipped to their image, {by}"] if (over > 0).any() else []


def _refuse_boxes(
    boxes: Sequence[Box], corners: NDArray[np.float64], limits: NDArray[np.float64], *, corners_given: bool
) -> None:
    finite = np.isfinite(corners).all(axis=1)
    sized = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    inside = ((corners[:, :2] < limits[:, :2]) & (corners[:, 2:] > 0)).all(axis=1)
    wrong = {
        "boxes that are not four finite numbers": ~finite,
        "boxes without size": finite & ~sized,
        "boxes wholly outside their image": finite & sized & ~inside,
    }
    hint = _reading(corners[finite], limits[finite], corners_given=corners_given)
    problems = {kind: [str(boxes[i].row) for i in np.flatnonzero(found).tolist()] for kind, found in wrong.items()}
    if hint or any(problems.values()):
        raise InputError(*sentences(problems), *hint)


def _reading(corners: NDArray[np.float64], limits: NDArray[np.float64], *, corners_given: bool) -> list[str]:
    """What the boxes seem to be, if too many of them do not fit as what they are said to be."""
    said, read = ("x0 y0 x1 y1", "x y w h") if corners_given else ("x y w h", "x0 y0 x1 y1")
    wrong = _misfits(corners, limits)
    if wrong < max(3, _FEW * len(corners)):
        return []
    wrong_other = _misfits(_read_otherwise(corners, corners_given=corners_given), limits)
    if wrong_other < _FEW * wrong:
        fit = f"all but {wrong_other:,} do as {read}; write them as {said}"
        return [f"{wrong:,} of {len(corners):,} boxes do not fit their images as {said}, {fit}"]
    times = float((corners / limits).max())
    larger = f"up to {times:.2f} times its size: were they drawn on larger images than those stored?"
    return [f"{wrong:,} of {len(corners):,} boxes leave their image, {larger}"] if times > 1 else []


def _read_otherwise(corners: NDArray[np.float64], *, corners_given: bool) -> NDArray[np.float64]:
    """The corners that the same four numbers mean, read as x y w h if they were read as x0 y0 x1 y1, or the reverse."""
    start, end = corners[:, :2], corners[:, 2:]
    return np.hstack([start, start + end if corners_given else end - start])


def _misfits(corners: NDArray[np.float64], limits: NDArray[np.float64]) -> int:
    """How many boxes have no size or leave their image by more than 1 px."""
    flat = (corners[:, 2:] <= corners[:, :2]).any(axis=1)
    return int((flat | (corners[:, :2] < -1).any(axis=1) | (corners > limits + 1).any(axis=1)).sum())


def _read_file(root: Path, files: Sequence[str], index: int) -> NDArray[np.uint8]:
    return read_image(root / files[index])


def _stamp(root: Path, files: Sequence[str], index: int) -> str:
    found = (root / files[index]).stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def _refuse_masks(listing: Listing) -> None:
    if not listing.masks:
        return
    bare = [name for name in listing.ids if name not in listing.masks]
    masks = [listing.masks[name] for name in listing.ids if name in listing.masks]
    files = [file for mask in masks for file in (*mask.objects, mask.ignore) if file]
    absent = [files[i] for i in _missing(listing.root, files)]
    refuse({"images without a mask": bare, f"masks that are not in {str(listing.root)!r}": absent})


def _mask_reader(listing: Listing, sizes: NDArray[np.int64]) -> Callable[[int], NDArray[np.uint8]] | None:
    masks = tuple(listing.masks[name] for name in listing.ids) if listing.masks else ()
    return partial(_read_mask, listing.root, masks, sizes) if masks else None


def _read_mask(root: Path, masks: Sequence[Masks], sizes: NDArray[np.int64], index: int) -> NDArray[np.uint8]:
    """In the pixels of its files; where these differ, in those of the image. `InputError` if no object is drawn."""
    files = [file for file in (*masks[index].objects, masks[index].ignore) if file]
    planes = [read_plane(root / file) for file in files]
    objects = len(masks[index].objects)
    if not any(plane.any() for plane in planes[:objects]):
        raise InputError(f"no object is drawn in {', '.join(repr(str(root / file)) for file in files[:objects])}")
    if len({plane.shape for plane in planes}) > 1:
        planes = [_scaled(plane, sizes[index]) for plane in planes]
    mask = np.any(planes[:objects], axis=0).astype(np.uint8)
    for ignored in planes[objects:]:
        mask[ignored & (mask == 0)] = 255
    return mask


def _scaled(plane: NDArray[np.bool_], size: NDArray[np.int64]) -> NDArray[np.bool_]:
    """A plane at a width and height, by OpenCV's nearest rule."""
    (height, width), (w, h) = plane.shape, size.tolist()
    return plane[np.ix_(np.arange(h) * height // h, np.arange(w) * width // w)]
