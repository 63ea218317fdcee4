import math
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFile

from tests import fake_data
from wsolbench import datasets, plugins
from wsolbench.annotations import read_image, read_plane
from wsolbench.dataset import Dataset, NoSplitError, Split, SplitName
from wsolbench.datasets.cub import CUB
from wsolbench.datasets.imagenet import ImageNet
from wsolbench.datasets.openimages import OpenImages
from wsolbench.datasets.table import Table
from wsolbench.datasets.wsolevaluation import WsolEvaluation
from wsolbench.errors import InputError

Fill = Callable[[Path], Path]


def made(name: str) -> Dataset:
    dataset: Dataset = plugins.make(datasets, name, fake_data.OPTIONS.get(name, {}))
    return dataset


def problems_of(read: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        read()
    return caught.value.problems


# Every data set


@pytest.fixture(params=sorted(fake_data.FAKES))
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Dataset, Path]:
    return made(request.param), fake_data.FAKES[request.param](tmp_path / "data")


def test_test_split_is_as_long_as_all_that_it_holds(filled: tuple[Dataset, Path]) -> None:
    dataset, data = filled

    split = dataset.split("test", data)

    assert len(split) == len(set(split.ids)) == len(split.labels) == len(split.sizes) == len(split.boxes) > 0


def test_images_are_rgb_of_the_sizes_that_are_said(filled: tuple[Dataset, Path]) -> None:
    dataset, data = filled
    split = dataset.split("test", data)

    images = [split.read(index) for index in range(len(split))]

    assert {(image.dtype, image.shape[2]) for image in images} == {(np.dtype(np.uint8), 3)}
    assert [list(image.shape[1::-1]) for image in images] == split.sizes.tolist()


def test_train_and_test_have_the_same_classes_and_no_image_in_common(filled: tuple[Dataset, Path]) -> None:
    dataset, data = filled

    train, test = dataset.split("train", data), dataset.split("test", data)

    assert train.classes == test.classes
    assert not set(train.ids) & set(test.ids)
    assert set(train.labels.tolist()) == set(test.labels.tolist()) == set(range(len(train.classes)))


def test_a_split_survives_pickling(filled: tuple[Dataset, Path]) -> None:
    dataset, data = filled
    split = dataset.split("test", data)

    copy: Split = pickle.loads(pickle.dumps(split))  # noqa: S301  as a data loader's workers do

    assert np.array_equal(copy.read(0), split.read(0))


def test_reading_twice_gives_the_same_order(filled: tuple[Dataset, Path]) -> None:
    dataset, data = filled

    assert dataset.split("train", data).ids == dataset.split("train", data).ids


def test_a_missing_image_is_named(filled: tuple[Dataset, Path]) -> None:
    dataset, data = filled
    name = dataset.split("test", data).ids[1]
    next(path for path in data.rglob("*.*") if path.as_posix().endswith(name)).unlink()

    [problem] = problems_of(lambda: dataset.split("test", data))

    assert problem.startswith("images that are not in")
    assert name.rpartition("/")[2] in problem


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.95])
def test_any_text_file_cut_short_reads_or_says_why(filled: tuple[Dataset, Path], share: float) -> None:
    dataset, data = filled
    names: tuple[SplitName, ...] = get_args(SplitName)
    outcomes = []
    for path in sorted(path for path in data.rglob("*") if path.suffix in {".txt", ".csv", ".xml"}):
        whole = path.read_bytes()
        path.write_bytes(whole[: math.floor(share * len(whole))])
        for name in names:
            try:
                outcomes.append(len(dataset.split(name, data)))
            except InputError as error:
                outcomes.append(len(error.problems))
        path.write_bytes(whole)

    assert len(outcomes) >= 3


@pytest.mark.parametrize("name", sorted(fake_data.FAKES))
def test_without_a_folder_what_to_give_is_said(name: str) -> None:
    assert problems_of(lambda: made(name).split("test", None))[0].startswith(
        f"{name} needs data=FOLDER, the folder that"
    )


# CUB


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return fake_data.cub(tmp_path / "cub")


def test_cub_without_data_names_the_folder_wanted() -> None:
    assert problems_of(lambda: CUB().split("train", None)) == (
        "cub needs data=FOLDER, the folder that holds images.txt",
    )


def test_cub_elsewhere_names_what_is_missing(tmp_path: Path) -> None:
    said = f"no CUB-200-2011 in '{tmp_path}' (images.txt is missing); data must be the folder that holds images.txt"

    assert problems_of(lambda: CUB().split("train", tmp_path)) == (said,)


def test_cub_names_every_missing_file(birds: Path) -> None:
    (birds / "classes.txt").unlink()
    (birds / "bounding_boxes.txt").unlink()

    with pytest.raises(InputError, match=r"\(bounding_boxes.txt, classes.txt are missing\)"):
        CUB().split("train", birds)


def test_cub_follows_the_official_split_and_numbers_classes_from_zero(birds: Path) -> None:
    split = CUB().split("train", birds)

    assert split.ids == tuple(f"{name}/Bird_{k:04d}.jpg" for name in fake_data.CUB_CLASSES for k in (0, 2))
    assert split.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert split.classes == fake_data.CUB_CLASSES


def test_cub_boxes_are_corners_of_the_stored_image(birds: Path) -> None:
    split = CUB().split("test", birds)

    assert [boxes.tolist() for boxes in split.boxes] == [[[*fake_data.corners(i)]] for i in range(2, 13, 2)]
    assert split.boxes[0].dtype == np.float64


def test_cub_says_that_classes_are_missing(birds: Path) -> None:
    assert "3 of the 200 classes are here" in CUB().split("train", birds).notes


def test_cub_numbers_the_classes_that_are_here_anew(birds: Path) -> None:
    shutil.rmtree(birds / "images" / fake_data.CUB_CLASSES[0])

    split = CUB().split("train", birds)

    assert (split.classes, split.labels.tolist()) == (fake_data.CUB_CLASSES[1:], [0, 0, 1, 1])
    assert "2 of the 200 classes are here" in split.notes


def test_cub_takes_rows_that_are_left_out_for_images_that_are_not_wanted(birds: Path) -> None:
    lines = (birds / "images.txt").read_text().splitlines()
    fake_data.write(birds / "images.txt", lines[:4])

    assert CUB().split("train", birds).classes == fake_data.CUB_CLASSES[:1]


def test_cub_without_any_row_is_refused(birds: Path) -> None:
    fake_data.write(birds / "images.txt", [])

    with pytest.raises(InputError, match=r"no images of .* are listed for this split"):
        CUB().split("train", birds)


def test_cub_names_the_first_five_images_that_are_missing(birds: Path) -> None:
    for name in fake_data.CUB_CLASSES:
        for k in (1, 3):
            (birds / "images" / name / f"Bird_{k:04d}.jpg").unlink()

    [problem] = problems_of(lambda: CUB().split("train", birds))

    assert problem.startswith(
        f"images that are not in '{birds / 'images'}' (6): {fake_data.CUB_CLASSES[0]}/Bird_0001.jpg"
    )
    assert problem.count(".jpg") == 5
    assert problem.endswith(", ...")


def test_cub_without_any_image_is_refused(birds: Path) -> None:
    shutil.rmtree(birds / "images")
    (birds / "images").mkdir()

    with pytest.raises(InputError, match=r"images that are not in .* \(12\)"):
        CUB().split("train", birds)


def test_cub_counts_the_boxes_that_it_clips(birds: Path) -> None:
    width, height = fake_data.size(1)
    fake_data.edit(birds / "bounding_boxes.txt", 1, f"1 20 10 {width - 20 + 0.5} 5")
    fake_data.edit(birds / "bounding_boxes.txt", 3, "3 -2 -3 12 13")

    split = CUB().split("train", birds)

    assert split.boxes[0].tolist() == [[20, 10, width, 15]]
    assert split.boxes[1].tolist() == [[0, 0, 10, 10]]
    assert "2 boxes were clipped to their image, 1 of them by more than 1 px" in split.notes
    assert height > 15


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("3 5 5 0 4", "boxes without size"),
        ("3 5 5 4 -1", "boxes without size"),
        ("3 40 5 4 4", "boxes wholly outside their image"),
        ("3 5 -9 4 4", "boxes wholly outside their image"),
        ("3 nan 5 4 4", "boxes that are not four finite numbers"),
        ("3 5 inf 4 4", "boxes that are not four finite numbers"),
        ("3 5 5 4 wide", "boxes that are not four finite numbers"),
    ],
)
def test_cub_names_the_line_of_a_wrong_box(birds: Path, line: str, kind: str) -> None:
    fake_data.edit(birds / "bounding_boxes.txt", 3, line)

    assert problems_of(lambda: CUB().split("train", birds)) == (f"{kind} (1): bounding_boxes.txt:3 {line!r}",)


def test_cub_names_all_kinds_of_wrong_boxes_at_once(birds: Path) -> None:
    fake_data.edit(birds / "bounding_boxes.txt", 1, "1 5 5 0 4")
    fake_data.edit(birds / "bounding_boxes.txt", 3, "3 nan 5 4 4")

    assert len(problems_of(lambda: CUB().split("train", birds))) == 2


def test_cub_names_missing_images_and_wrong_boxes_at_once(birds: Path) -> None:
    fake_data.edit(birds / "bounding_boxes.txt", 1, "1 5 5 0 4")
    first = next((birds / "images").rglob("*.jpg"))
    first.unlink()

    [problem] = problems_of(lambda: CUB().split("train", birds))

    assert first.name in problem


@pytest.mark.parametrize(
    ("file", "line", "kind"),
    [
        ("image_class_labels.txt", "3 9", "lines of a class that classes.txt has not"),
        ("train_test_split.txt", "3 2", "lines without 0 or 1"),
        ("train_test_split.txt", "2 1", "lines that name what an earlier line named"),
        ("images.txt", "3 001.Black_footed_Albatross/Bird_0000.jpg", "lines that name what an earlier line named"),
    ],
)
def test_cub_names_the_line_of_a_wrong_value(birds: Path, file: str, line: str, kind: str) -> None:
    fake_data.edit(birds / file, 3, line)

    assert f"{kind} (1): {file}:3 {line!r}" in problems_of(lambda: CUB().split("train", birds))


def test_cub_names_the_torn_lines_of_every_file(birds: Path) -> None:
    fake_data.edit(birds / "bounding_boxes.txt", 12, "12 5.0 4")
    fake_data.edit(birds / "images.txt", 12, "12")

    problems = problems_of(lambda: CUB().split("train", birds))

    assert [problem.rpartition(": ")[2] for problem in problems] == [
        "images.txt:12 '12'",
        "bounding_boxes.txt:12 '12 5.0 4'",
    ]


def test_cub_names_images_without_a_line(birds: Path) -> None:
    lines = (birds / "bounding_boxes.txt").read_text().splitlines()
    fake_data.write(birds / "bounding_boxes.txt", lines[:-2])

    said = "images without a line in bounding_boxes.txt, by image id (2): 11, 12"
    assert problems_of(lambda: CUB().split("train", birds)) == (said,)


def test_cub_suspects_corners_where_width_and_height_belong(birds: Path) -> None:
    fake_data.write(birds / "bounding_boxes.txt", (f"{i} 15 12 27 20" for i in range(1, 13)))

    assert (
        "6 of 6 boxes do not fit their images as x y w h, all but 0 do as x0 y0 x1 y1; write them as x y w h"
        in problems_of(lambda: CUB().split("train", birds))[-1]
    )


def test_cub_suspects_images_stored_smaller_than_annotated(birds: Path) -> None:
    for path in (birds / "images").rglob("*.jpg"):
        with Image.open(path) as image:
            smaller = image.resize((image.width // 2, image.height // 2))
        smaller.save(path)

    assert "were they drawn on larger images than those stored?" in problems_of(lambda: CUB().split("train", birds))[-1]


def test_cub_reads_sizes_from_the_file_that_has_them(birds: Path) -> None:
    fake_data.write(
        birds / "image_sizes.txt", ["# id w h", *("{} {} {}".format(i, *fake_data.size(i)) for i in range(1, 13))]
    )

    assert CUB().split("train", birds).sizes.tolist() == [[*fake_data.size(i)] for i in range(1, 13, 2)]


def test_cub_compares_the_file_of_sizes_with_images(birds: Path) -> None:
    fake_data.write(birds / "image_sizes.txt", (f"{i} 500 400" for i in range(1, 13)))

    with pytest.raises(InputError, match="is 31 x 23, not 500 x 400"):
        CUB().split("train", birds)


def test_cub_names_a_file_that_is_no_image(birds: Path) -> None:
    path = birds / "images" / fake_data.CUB_CLASSES[0] / "Bird_0000.jpg"
    path.write_bytes(b"")

    with pytest.raises(InputError, match=r"files that are no images; fetch them again \(1\): .*Bird_0000.jpg"):
        CUB().split("train", birds)


def test_cub_has_cubv2_as_held_out(birds: Path) -> None:
    fake_data.cubv2(birds)

    split = CUB().split("held_out", birds)

    assert split.ids == tuple(f"{name}/{k}0731.jpg" for name in fake_data.CUB_CLASSES for k in (0, 1))
    assert [boxes.tolist() for boxes in split.boxes] == [[[*fake_data.corners(i)]] for i in range(6)]


def test_cubv2_keeps_the_numbers_of_the_classes_that_are_here(birds: Path) -> None:
    fake_data.cubv2(birds)
    shutil.rmtree(birds / "images" / fake_data.CUB_CLASSES[0])

    split = CUB().split("held_out", birds)

    assert (split.classes, split.labels.tolist()) == (fake_data.CUB_CLASSES[1:], [0, 0, 1, 1])


def test_cub_without_cubv2_has_no_held_out_split(birds: Path) -> None:
    with pytest.raises(NoSplitError, match=r"no annotation of CUBV2 in .*metadata/CUB/val/image_ids.txt is missing"):
        CUB().split("held_out", birds)


@pytest.fixture(scope="module")
def mutable_birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_data.cub(tmp_path_factory.mktemp("cub"))


@given(
    file=st.sampled_from(["images.txt", "bounding_boxes.txt", "image_class_labels.txt", "train_test_split.txt"]),
    number=st.integers(1, 12),
    line=st.text(max_size=30) | st.lists(st.floats(width=16).map(str), min_size=5, max_size=5).map(" ".join),
)
def test_cub_with_any_line_changed_reads_or_says_why(mutable_birds: Path, file: str, number: int, line: str) -> None:
    whole = (mutable_birds / file).read_bytes()
    try:
        lines = whole.decode().splitlines()
        lines[number - 1] = line.encode(errors="replace").decode()
        (mutable_birds / file).write_text("\n".join(lines), encoding="utf-8")
        split = CUB().split("train", mutable_birds)
        for (width, height), boxes in zip(split.sizes, split.boxes, strict=True):
            [[x0, y0, x1, y1]] = boxes
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
    except InputError as error:
        assert str(error)  # noqa: PT017  either is right
    finally:
        (mutable_birds / file).write_bytes(whole)


# ImageNet


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Path:
    return fake_data.imagenetv2(fake_data.imagenet(tmp_path / "ilsvrc"))


def test_imagenet_reads_all_boxes_and_the_class_of_xml_files(ilsvrc: Path) -> None:
    split = ImageNet().split("test", ilsvrc)

    assert split.labels.tolist() == [k % 3 for k in range(12)]
    assert split.boxes[0].tolist() == [[*fake_data.corners(0)], [1, 1, 9, 9]]
    assert [len(boxes) for boxes in split.boxes] == [2, 1, 1] * 4


def test_imagenet_labels_follow_the_order_of_the_class_file(ilsvrc: Path) -> None:
    split = ImageNet().split("train", ilsvrc)

    assert split.labels.tolist() == [label for label in range(3) for _ in range(4)]
    assert split.classes[0] == "n01440764 tench, Tinca tinca"
    assert split.ids[0] == "train/n01440764/n01440764_0.JPEG"


def test_imagenet_classes_without_images_keep_their_labels(ilsvrc: Path) -> None:
    shutil.rmtree(ilsvrc / "train" / fake_data.WNIDS[0])

    split = ImageNet().split("train", ilsvrc)

    assert (set(split.labels.tolist()), len(split.classes)) == ({1, 2}, 3)
    assert split.notes == ("2 of the 3 classes are here",)


def test_imagenet_refuses_a_class_file_in_another_order(ilsvrc: Path) -> None:
    fake_data.write(ilsvrc / "LOC_synset_mapping.txt", [f"{wnid} fish" for wnid in reversed(fake_data.WNIDS)])

    with pytest.raises(InputError, match="not sorted by wnid"):
        ImageNet().split("train", ilsvrc)


def test_imagenet_names_folders_that_are_no_class(ilsvrc: Path) -> None:
    (ilsvrc / "train" / "n99999999").mkdir()

    with pytest.raises(InputError, match=r"no wnids of the class file \(1\): n99999999"):
        ImageNet().split("train", ilsvrc)


def test_imagenet_reads_kaggles_folders(ilsvrc: Path) -> None:
    plain = ImageNet().split("test", ilsvrc)
    image = plain.read(3)
    (ilsvrc / "ILSVRC" / "Data" / "CLS-LOC").mkdir(parents=True)
    shutil.move(ilsvrc / "val", ilsvrc / "ILSVRC" / "Data" / "CLS-LOC" / "val")
    shutil.move(ilsvrc / "Annotations", ilsvrc / "ILSVRC" / "Annotations")

    kaggle = ImageNet().split("test", ilsvrc)

    assert kaggle.ids == plain.ids
    assert np.array_equal(kaggle.read(3), image)


def test_imagenet_reads_wsolevaluations_files(ilsvrc: Path) -> None:
    names = ["val/ILSVRC2012_val_00000002.JPEG", "val/ILSVRC2012_val_00000005.JPEG"]
    fake_data.write(ilsvrc / "image_ids.txt", names)
    fake_data.write(ilsvrc / "class_labels.txt", [f"{names[0]},2", f"{names[1]},0"])
    fake_data.write(
        ilsvrc / "localization.txt", [f"{names[1]},1,2,9,11.5", f"{names[0]},3,4,20,20", f"{names[1]},2,2,8,8"]
    )

    split = ImageNet().split("test", ilsvrc)

    assert (split.ids, split.labels.tolist()) == (tuple(names), [2, 0])
    assert [boxes.tolist() for boxes in split.boxes] == [[[3, 4, 20, 20]], [[1, 2, 9, 11.5], [2, 2, 8, 8]]]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("</annotation>", "", "XML files that are torn"),
        ("n01443537", "n99999999", "XML files without one class of the class file"),
        ("<xmax>", "<xmax>x", "boxes that are not four finite numbers"),
        ("<width>31", "<width>500", "images of another size than the annotation says"),
    ],
)
def test_imagenet_names_a_wrong_xml_file(ilsvrc: Path, old: str, new: str, said: str) -> None:
    path = ilsvrc / "Annotations" / "CLS-LOC" / "val" / "ILSVRC2012_val_00000002.xml"
    path.write_text(path.read_text().replace(old, new))

    problems = problems_of(lambda: ImageNet().split("test", ilsvrc))

    assert any(problem.startswith(said) and "ILSVRC2012_val_00000002" in problem for problem in problems)


def test_imagenet_names_images_without_annotation(ilsvrc: Path) -> None:
    (ilsvrc / "Annotations" / "CLS-LOC" / "val" / "ILSVRC2012_val_00000002.xml").unlink()

    with pytest.raises(InputError, match=r"annotations that are not in .* \(1\): ILSVRC2012_val_00000002.xml"):
        ImageNet().split("test", ilsvrc)


def test_imagenet_has_the_boxes_of_training_images_that_have_an_xml_file(ilsvrc: Path) -> None:
    plain = ImageNet().split("train", ilsvrc)
    fake_data.imagenet_train_boxes(ilsvrc, [1, 6])

    split = ImageNet().split("train", ilsvrc)

    assert not any(map(len, plain.boxes))
    boxed = {name: boxes.tolist() for name, boxes in zip(split.ids, split.boxes, strict=True) if len(boxes)}
    assert boxed == {
        split.ids[1]: [list(map(float, fake_data.corners(1)))],
        split.ids[6]: [list(map(float, fake_data.corners(6)))],
    }
    rest, held_out = split.held_out(0.9)
    assert len(held_out) == 0  # one boxed image a class: none can be spared
    assert len(rest) == len(split)


def test_imagenet_holds_out_boxed_training_images_only(ilsvrc: Path) -> None:
    fake_data.imagenet_train_boxes(ilsvrc, [0, 1, 4, 5])

    _, held_out = ImageNet().split("train", ilsvrc).held_out(0.5)

    assert len(held_out) == 2
    assert all(map(len, held_out.boxes))


def test_imagenet_reads_training_boxes_from_one_file_where_there_is_one(ilsvrc: Path) -> None:
    fake_data.imagenet_train_boxes(ilsvrc, [1])
    name = ImageNet().split("train", ilsvrc).ids[2]
    fake_data.write(ilsvrc / "metadata/ILSVRC/train/localization.txt", [f"{name},1,2,9,8"])

    split = ImageNet().split("train", ilsvrc)

    assert {n: b.tolist() for n, b in zip(split.ids, split.boxes, strict=True) if len(b)} == {name: [[1, 2, 9, 8]]}


def test_imagenet_names_a_training_image_whose_xml_file_is_of_another_class(ilsvrc: Path) -> None:
    first, second = fake_data.imagenet_train_boxes(ilsvrc, [1, 6])
    first.write_text(second.read_text(encoding="utf-8"), encoding="utf-8")

    with pytest.raises(InputError, match=rf"XML files of another class than their folder \(1\): {first.name}"):
        ImageNet().split("train", ilsvrc)


def renamed(folder: Path) -> list[str]:
    """Give the held-out images hashed names; lines of old and new names."""
    lines = []
    for number, path in enumerate(sorted((folder / "val2").rglob("*.jpeg"))):
        later = path.rename(path.with_name(f"{number:040x}.jpeg"))
        lines.append(f"{path.relative_to(folder / 'val2')}, {later.relative_to(folder / 'val2')}")
    return lines


def test_imagenetv2_with_hashed_names_asks_for_the_mapping(ilsvrc: Path) -> None:
    renamed(ilsvrc)

    assert "mapping.txt" in problems_of(lambda: ImageNet().split("held_out", ilsvrc))[-1]


def test_imagenetv2_is_found_by_its_mapping(ilsvrc: Path) -> None:
    before = ImageNet().split("held_out", ilsvrc)
    images = [before.read(index) for index in range(len(before))]
    fake_data.write(ilsvrc / "metadata" / "ILSVRC" / "val" / "mapping.txt", renamed(ilsvrc))

    after = ImageNet().split("held_out", ilsvrc)

    assert after.ids == before.ids == tuple(f"val2/{label}/{k}.jpeg" for label in range(3) for k in range(2))
    assert all(np.array_equal(after.read(index), image) for index, image in enumerate(images))


# OpenImages


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    return fake_data.openimages(tmp_path / "openimages")


def mask_by_hand(index: int, *objects: fake_data.Corners) -> list[list[int]]:
    """Of an image whose mask files are those of `fake_data`: all is ignored but the objects where `index` is even."""
    width, height = fake_data.size(index)
    return [
        [
            1 if any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in objects) else 255 * (index % 2 == 0)
            for x in range(width)
        ]
        for y in range(height)
    ]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_openimages_ignores_what_is_in_the_ignore_box_but_no_object(masked: Path, index: int) -> None:
    split = OpenImages().split("test", masked)

    assert split.mask is not None
    assert split.mask(index).dtype == np.uint8
    assert split.mask(index).tolist() == mask_by_hand(index, fake_data.corners(index))


def test_openimages_joins_the_masks_of_an_image(masked: Path) -> None:
    split = OpenImages().split("held_out", masked)

    assert split.mask is not None
    assert split.mask(3).tolist() == mask_by_hand(3, fake_data.corners(3), (1, 1, 6, 6))


def test_openimages_has_no_masks_to_train_on(masked: Path) -> None:
    split = OpenImages().split("train", masked)

    assert split.mask is None
    assert [len(boxes) for boxes in split.boxes] == [0, 0, 0, 0]


def test_openimages_gives_a_mask_in_its_own_pixels(masked: Path) -> None:
    split = OpenImages().split("test", masked)
    width, height = fake_data.size(1)
    files = masked / "dataset" / "OpenImages"
    for end, box in (("_m1.png", (2, 2, 4, 6)), ("_ignore.png", (0, 0, 0, 0))):
        fake_data.save_mask(files / split.ids[1].replace(".jpg", end), box, 2 * width, 2 * height)

    assert split.mask is not None
    assert split.mask(1).shape == (2 * height, 2 * width)
    assert np.argwhere(split.mask(1) == 1).tolist() == [[y, x] for y in range(2, 6) for x in range(2, 4)]


def test_openimages_scales_masks_of_different_sizes_to_their_image(masked: Path) -> None:
    """The last image has two objects; one of them is drawn twice as large, and every other pixel of it is taken."""
    split = OpenImages().split("test", masked)
    index = len(split) - 1
    width, height = fake_data.size(index)
    assert split.mask is not None
    before = split.mask(index)
    first = masked / "dataset" / "OpenImages" / split.ids[index].replace(".jpg", "_m1.png")
    x0, y0, x1, y1 = fake_data.corners(index)
    fake_data.save_mask(first, (2 * x0, 2 * y0, 2 * x1, 2 * y1), 2 * width, 2 * height)

    assert np.array_equal(split.mask(index), before)


def test_openimages_refuses_an_ignore_file_on_a_later_line(masked: Path) -> None:
    path = masked / "metadata" / "OpenImages" / "test" / "localization.txt"
    last = path.read_text().splitlines()[-1]
    fake_data.edit(path, 5, f"{last}late.png")

    with pytest.raises(InputError, match=r"not the first of their image \(1\): localization.txt:5 "):
        OpenImages().split("test", masked)


def test_openimages_names_missing_masks(masked: Path) -> None:
    path = next((masked / "dataset" / "OpenImages" / "test").rglob("*_m2.png"))
    path.unlink()

    [problem] = problems_of(lambda: OpenImages().split("test", masked))

    assert problem.startswith("masks that are not in")
    assert problem.endswith(path.name)


def test_openimages_names_images_without_a_mask(masked: Path) -> None:
    path = masked / "metadata" / "OpenImages" / "test" / "localization.txt"
    lines = path.read_text().splitlines()
    fake_data.write(path, [*lines[:2], lines[4]])

    [problem] = problems_of(lambda: OpenImages().split("test", masked))

    assert problem.startswith("images without a box or a mask (1): test/0138tl/")


# wsolevaluation


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return fake_data.wsolevaluation(tmp_path / "wsolevaluation")


def test_wsolevaluation_reads_its_files_as_they_are(checkout: Path) -> None:
    split = WsolEvaluation(collection="CUB").split("held_out", checkout)

    assert split.ids == tuple(f"{name}/val_{k}.jpg" for name in fake_data.CUB_CLASSES for k in range(2))
    assert split.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert split.classes == fake_data.CUB_CLASSES
    assert [boxes.tolist() for boxes in split.boxes] == [[[*fake_data.corners(i)]] for i in range(6)]


def test_wsolevaluation_trains_on_the_proxy_images_only_if_asked(checkout: Path) -> None:
    names = WsolEvaluation(collection="CUB").split("train", checkout).ids
    fake_data.write(checkout / "metadata" / "CUB" / "train" / "image_ids_proxy.txt", names[::2])

    dataset = WsolEvaluation(collection="CUB", proxy=True)

    assert dataset.split("train", checkout).ids == names[::2]
    assert len(dataset.split("test", checkout)) == 6


def test_wsolevaluation_names_the_collections_that_are_there(checkout: Path) -> None:
    with pytest.raises(InputError, match=r"no collection 'FGVC' in .*; there are: CUB, OpenImages"):
        WsolEvaluation(collection="FGVC").split("test", checkout)


def test_wsolevaluation_gives_numbers_where_folders_are_no_names(checkout: Path) -> None:
    shutil.rmtree(checkout / "metadata" / "CUB" / "train")

    assert WsolEvaluation(collection="CUB").split("test", checkout).classes == ("0", "1", "2")


def test_wsolevaluation_reads_openimages_as_openimages_does(checkout: Path) -> None:
    one, other = WsolEvaluation(collection="OpenImages").split("test", checkout), OpenImages().split("test", checkout)

    assert one.ids == other.ids
    assert one.mask is not None
    assert other.mask is not None
    assert np.array_equal(one.mask(3), other.mask(3))


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("class_labels.txt", "{},x", "lines without the integer that belongs there (1): class_labels.txt:1"),
        ("class_labels.txt", "{},-1", "labels that are not 0 to 2 (1): class_labels.txt:1"),
        ("class_labels.txt", "other.jpg,0", "images without a line in class_labels.txt (1): {}"),
        ("localization.txt", "{},1,2", "lines with another number of fields than most (1): localization.txt:1"),
        ("image_sizes.txt", "{},12,wide", "lines without the integer that belongs there (1): image_sizes.txt:1"),
    ],
)
def test_wsolevaluation_names_wrong_lines(checkout: Path, file: str, line: str, said: str) -> None:
    name = f"{fake_data.CUB_CLASSES[0]}/test_0.jpg"
    fake_data.edit(checkout / "metadata" / "CUB" / "test" / file, 1, line.format(name))

    problems = problems_of(lambda: WsolEvaluation(collection="CUB").split("test", checkout))

    assert any(problem.startswith(said.format(name)) for problem in problems)


def test_wsolevaluation_suspects_width_and_height_where_corners_belong(checkout: Path) -> None:
    path = checkout / "metadata" / "CUB" / "test" / "localization.txt"
    names = (path.parent / "image_ids.txt").read_text().splitlines()
    fake_data.write(path, (f"{name},{15 + k},{12 + k},6,5" for k, name in enumerate(names)))

    problems = problems_of(lambda: WsolEvaluation(collection="CUB").split("test", checkout))

    assert "6 of 6 boxes do not fit their images as x0 y0 x1 y1, all but 0 do as x y w h" in problems[-1]


# Table


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fake_data.table(tmp_path / "photos")


def test_table_reads_splits_labels_and_boxes(photos: Path) -> None:
    split = Table().split("test", photos)

    assert split.ids == tuple(f"photos/{k}.png" for k in (1, 3, 5, 7))
    assert (split.classes, split.labels.tolist()) == (("cat", "dog"), [0, 0, 1, 1])
    assert [boxes.tolist() for boxes in split.boxes] == [[[*fake_data.corners(k)]] for k in (1, 3, 5, 7)]


def test_table_in_a_file_for_each_split_reads_the_same(photos: Path) -> None:
    before = Table().split("test", photos)
    rows = [line.split(",") for line in (photos / "table.csv").read_text().splitlines()]
    for name in ("train", "test"):
        fake_data.write(
            photos / f"{name}.csv", (",".join(row[:2] + row[3:]) for row in rows if row[2] in {"split", name})
        )
    (photos / "table.csv").unlink()

    after = Table().split("test", photos)

    assert (after.ids, after.classes) == (before.ids, before.classes)
    assert np.array_equal(np.concatenate(after.boxes), np.concatenate(before.boxes))


def test_table_takes_several_rows_for_several_boxes(photos: Path) -> None:
    with (photos / "table.csv").open("a") as file:
        file.write("photos/1.png,cat,test,1,2,5,6\n")

    assert Table().split("test", photos).boxes[0].tolist() == [[*fake_data.corners(1)], [1, 2, 5, 6]]


def test_table_sorts_classes_that_are_numbers_as_numbers(photos: Path) -> None:
    path = photos / "table.csv"
    path.write_text(path.read_text().replace("cat", "10").replace("dog", "9"))

    assert Table().split("test", photos).classes == ("9", "10")


def test_table_joins_masks_and_ignores(photos: Path) -> None:
    fake_data.save_mask(photos / "a.png", (2, 3, 5, 6), *fake_data.size(1))
    fake_data.save_mask(photos / "b.png", (1, 1, 3, 4), *fake_data.size(1), mode="L")
    fake_data.save_mask(photos / "c.png", (0, 0, 4, 4), *fake_data.size(1))
    lines = ["image,label,split,mask,ignore", "photos/1.png,cat,test,a.png,c.png", "photos/1.png,cat,test,b.png,"]
    fake_data.write(photos / "table.csv", lines)

    mask = Table().split("test", photos).mask

    assert mask is not None
    assert [[int(value) for value in row[:6]] for row in mask(0)[:7]] == [
        [255, 255, 255, 255, 0, 0],
        [255, 1, 1, 255, 0, 0],
        [255, 1, 1, 255, 0, 0],
        [255, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_table_without_a_split_says_which_there_are(photos: Path) -> None:
    with pytest.raises(NoSplitError, match=r"no held_out split in the table of .*; there are: train, test"):
        Table().split("held_out", photos)


@pytest.mark.parametrize(
    ("number", "line", "said"),
    [
        (1, "image,class,split,x0,y0,x1,y1", "table.csv has no column 'label'"),
        (3, "photos/1.png,cat,test,1,2,3", "rows that have not 7 fields (1): table.csv:3"),
        (3, "photos/1.png,cat,test,1,2,3,4,5", "rows that have not 7 fields (1): table.csv:3"),
        (3, "photos/1.png,cat,val,1,2,3,4", "rows whose split is not train, held_out or test (1): table.csv:3 'val'"),
        (3, "photos/1.png,,test,1,2,3,4", "rows without image or label (1): table.csv:3"),
        (3, "photos/1.png,cat,test,1,2,,4", "boxes that are not four finite numbers (1): table.csv:3 '1 2  4'"),
        (3, "photos/1.png,cat,test,1,2,1_0,9", "boxes that are not four finite numbers (1): table.csv:3 '1 2 1_0 9'"),
        (4, "photos/1.png,cat,test,7,6,18,15", "rows that are the same as an earlier one (1): table.csv:4"),
        (3, "photos/1.png,cat,test,9,2,8,4", "boxes without size (1): table.csv:3 '9 2 8 4'"),
        (
            3,
            "photos/0.png,cat,test,1,2,3,4",
            "rows with another split than an earlier row of their image (1): table.csv:3",
        ),
        (
            3,
            "photos/7.png,cat,test,1,2,3,4",
            "rows with another label than an earlier row of their image (1): table.csv:9",
        ),
        (3, "photos/x.png,cat,test,1,2,3,4", "images that are not in"),
    ],
)
def test_table_names_wrong_rows(photos: Path, number: int, line: str, said: str) -> None:
    fake_data.edit(photos / "table.csv", number, line)

    assert any(problem.startswith(said) for problem in problems_of(lambda: Table().split("test", photos)))


def test_all_mistakes_of_a_table_and_its_images_are_told_at_once(photos: Path) -> None:
    (photos / "photos" / "7.png").write_bytes(b"no image")
    rows = [
        "cat,test,7,6,18",
        "cat,test,7,6,18,15",
        "dog,test,9,9,8,15",
        "cat,train,,,,",
        "cat,val,1,2,3,4",
        ",test,,,,",
    ]
    lines = [f"photos/{number}.png,{row}" for number, row in zip((1, 1, 1, 3, 3, 5), rows, strict=True)]
    last = "photos/7.png,dog,test,9,6,20,15"
    fake_data.write(photos / "table.csv", ["image,label,split,x0,y0,x1,y1", *lines, last, last])

    problems = problems_of(lambda: Table().split("test", photos))

    assert [problem.partition(" (1): ")[0] for problem in problems] == [
        "rows that have not 7 fields",
        "rows with another split than an earlier row of their image",
        "rows whose split is not train, held_out or test",
        "rows without image or label",
        "rows that are the same as an earlier one",
        "rows with another label than an earlier row of their image",
        "files that are no images; fetch them again",
        "boxes without size",
    ]


def test_mistakes_of_all_tables_of_a_folder_are_told_at_once(photos: Path) -> None:
    fake_data.write(photos / "train.csv", ["image", "photos/1.png"])
    fake_data.write(photos / "test.csv", ["image,labl", "photos/3.png,cat"])

    problems = problems_of(lambda: Table().split("test", photos))

    assert [problem.partition(";")[0] for problem in problems] == [
        "train.csv has no column 'label'",
        "test.csv has no column 'label'",
        "test.csv has a column 'labl'",
    ]


ASKEW = """\
\N{ZERO WIDTH NO-BREAK SPACE}image, label ,split,x0,y0,x1,y1\r
photos/1.png , cat,test ,1, 2,8.5,9 \r
,,,,,,\r
   \r
"photos/3.png","cat, black",test,1,2,8,9\r
photos/3.png,"cat, black",test,2,2,8,9
"""


def test_table_reads_what_spreadsheets_and_people_write(photos: Path) -> None:
    """A byte order mark, CRLF, quotes, commas in them, spaces around fields, empty rows, boxes between pixels."""
    (photos / "table.csv").write_bytes(ASKEW.encode())

    split = Table().split("test", photos)

    assert (split.ids, split.classes) == (("photos/1.png", "photos/3.png"), ("cat", "cat, black"))
    assert [boxes.tolist() for boxes in split.boxes] == [[[1, 2, 8.5, 9]], [[1, 2, 8, 9], [2, 2, 8, 9]]]


@pytest.mark.parametrize("name", ["ä b.PNG", "鳥/1.JPEG", "a;b.png"])
def test_table_reads_images_of_any_name_and_links_to_them(photos: Path, name: str) -> None:
    (photos / name).parent.mkdir(exist_ok=True)
    (photos / name).symlink_to(photos / "photos" / "1.png")
    fake_data.write(photos / "table.csv", ["image,label,split", f"{name},cat,test"])

    split = Table().split("test", photos)

    assert np.array_equal(split.read(0), read_image(photos / "photos" / "1.png"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"image,label,split,label\nphotos/1.png,cat,test,dog\n", "table.csv has the column 'label' 2 times"),
        (b"image,label,split\n\n", "no rows below the columns in the table of"),
        (b"", "table.csv has no column 'image'"),
        (b"image,label,split\nphotos/1.png,v\xf6gel,test\n", "is not UTF-8 text (invalid start byte, byte 32)"),
        ("image,label,split\n".encode("utf-16"), "is not UTF-8 text (invalid start byte, byte 0)"),
        (b'image,label,split\n"photos/1.png,cat,test\n' + b"photos/1.png,cat,test\n" * 9000, "is a quote open"),
        (b'image,label,split\n"photos/1.png,cat,test\nphotos/3.png,cat,test\n', "not 3 fields (1): table.csv:2"),
        (b"image,label,split\nphotos/1.png,cat,test\n./photos/1.png,cat,test\n", "table.csv:3 './photos/1.png'"),
        (b"image,label,split,mask,ignore\nphotos/1.png,cat,test,,photos/3.png\n", "an ignore file and no mask (1)"),
        (
            b"image,label,split,mask,ignore\nphotos/1.png,cat,test,a,b\nphotos/1.png,cat,test,a,c\n",
            "rows with another ignore file than an earlier row of their image (1): table.csv:3",
        ),
    ],
)
def test_table_refuses_a_file_that_it_would_misread(photos: Path, content: bytes, said: str) -> None:
    (photos / "table.csv").write_bytes(content)

    problems = problems_of(lambda: Table().split("test", photos))

    assert any(said in problem for problem in problems), problems


def test_table_refuses_a_folder_in_the_place_of_its_file(photos: Path) -> None:
    (photos / "table.csv").unlink()
    (photos / "table.csv").mkdir()

    assert "is it no file?" in problems_of(lambda: Table().split("test", photos))[0]


def test_table_takes_the_ignore_file_of_any_row_of_an_image(photos: Path) -> None:
    for name, corners in (("a.png", (2, 3, 5, 6)), ("b.png", (6, 6, 8, 8)), ("c.png", (0, 0, 4, 4))):
        fake_data.save_mask(photos / name, corners, *fake_data.size(1))
    lines = ["image,label,split,mask,ignore", "photos/1.png,cat,test,a.png,", "photos/1.png,cat,test,b.png,c.png"]
    fake_data.write(photos / "table.csv", lines)

    mask = Table().split("test", photos).mask

    assert mask is not None
    assert (mask(0)[0, 0], mask(0)[3, 3], mask(0)[7, 7]) == (255, 1, 1)


def test_table_misses_no_class_silently(photos: Path) -> None:
    for k in range(4):
        (photos / "photos" / f"{k}.png").unlink()

    with pytest.raises(InputError, match=r"images that are not in .* \(2\)"):
        Table().split("test", photos)


# Images


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LA"])
def test_images_of_any_mode_are_read_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.fromarray(fake_data.picture(1)).convert(mode).save(path)

    image = read_image(path)

    assert (image.shape, image.dtype.name) == ((24, 32, 3), "uint8")
    assert image.flags.writeable


def test_sixteen_bits_of_grey_are_read_by_their_upper_eight(tmp_path: Path) -> None:
    deep = np.array([[0, 255, 256], [257, 32_768, 65_535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "image.png")

    assert read_image(tmp_path / "image.png")[..., 0].tolist() == [[0, 0, 1], [1, 128, 255]]


def test_an_image_of_fractions_is_refused_not_read_as_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 0.5, np.float32)).save(tmp_path / "image.tif")

    with pytest.raises(InputError, match=r"^the image '.*image.tif' holds fractions.*save it in 8 or 16 bits"):
        read_image(tmp_path / "image.tif")


def test_an_image_is_turned_as_its_exif_says_only_where_it_is_to_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise shows it
    image = Image.new("RGB", (3, 2))
    image.putpixel((0, 0), (255, 0, 0))
    image.save(tmp_path / "image.png", exif=exif)

    as_stored, turned = (read_image(tmp_path / "image.png", upright=upright) for upright in (False, True))

    assert (as_stored.shape, turned.shape) == ((2, 3, 3), (3, 2, 3))
    assert (as_stored[0, 0, 0], turned[0, 1, 0]) == (255, 255)


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    palette = Image.fromarray(fake_data.picture(1)).convert("P")
    palette.save(tmp_path / "image.png", transparency=bytes(range(256)))

    assert read_image(tmp_path / "image.png").shape == (24, 32, 3)


def test_an_image_under_a_wrong_ending_is_read(tmp_path: Path) -> None:
    Image.fromarray(fake_data.picture(1)).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.jpg")

    assert np.array_equal(read_image(tmp_path / "image.jpg"), fake_data.picture(1))


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = tmp_path / "image.jpg"
    Image.fromarray(fake_data.picture(1, 200, 150)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: math.floor(share * len(whole))])

    with pytest.raises(InputError, match=f"cannot read the image '{path}'"):
        read_image(path)


@pytest.mark.parametrize("content", [b"\0" * 2000, b"<html>quota exceeded</html>"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(content)

    with pytest.raises(InputError, match=f"cannot read the image '{path}'"):
        read_image(path)


# Masks

SQUARE = np.pad(np.ones((3, 4), np.uint8), ((2, 3), (1, 5)))
"""Of 8 x 10 pixels, the least that can be told from nothing."""


def palette_of(*colours: tuple[int, int, int], numbers: np.ndarray = SQUARE) -> Image.Image:
    image = Image.fromarray(numbers)
    image.putpalette([value for colour in colours for value in colour])
    return image


def with_opacity(colour: np.ndarray, opacity: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colour, colour, colour, opacity]))


WHOLE, NOTHING = np.full_like(SQUARE, 255), np.zeros_like(SQUARE)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
DARK_MASKS = {
    "1": Image.fromarray(SQUARE.astype(bool)),
    "L": Image.fromarray(SQUARE),
    "I;16": Image.fromarray(SQUARE.astype(np.uint16)),
    "I": Image.fromarray(SQUARE.astype(np.int32)),
    "F": Image.fromarray(np.where(SQUARE, 0.25, np.nan).astype(np.float32)),
    "blue": Image.fromarray(np.dstack([NOTHING, NOTHING, SQUARE])),
    "black palette": palette_of(BLACK, BLACK, WHITE),
    "coloured palette": palette_of(BLACK, (0, 0, 1)),
    "palette that begins with white": palette_of(WHITE, BLACK, numbers=1 - SQUARE),
    "LA": Image.merge("LA", [Image.fromarray(SQUARE), Image.fromarray(WHOLE)]),
    "opaque": with_opacity(SQUARE, WHOLE),
    "wholly transparent": with_opacity(SQUARE, NOTHING),
    "opacity of black": with_opacity(NOTHING, SQUARE),
    "opacity of white": with_opacity(WHOLE, SQUARE),
    "opacity of grey": Image.merge("LA", [Image.fromarray(NOTHING), Image.fromarray(SQUARE)]),
    "transparent ground of a colour": with_opacity(np.where(SQUARE, 255, 128).astype(np.uint8), SQUARE),
    "CMYK": Image.fromarray(255 * SQUARE).convert("CMYK"),
}


@pytest.mark.parametrize("kind", DARK_MASKS)
def test_a_mask_is_above_0_in_the_numbers_that_it_stores(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("mask.tif" if kind in {"F", "CMYK", "I"} else "mask.png")
    DARK_MASKS[kind].save(path)

    plane = read_plane(path)

    assert (plane.dtype, plane.tolist()) == (np.bool_, (SQUARE == 1).tolist())


GREY = Image.fromarray(np.where(SQUARE, 255, 128).astype(np.uint8))


@pytest.mark.parametrize(
    ("mask", "ending", "clear"),
    [
        (palette_of(WHITE, (255, 0, 0)), "png", 0),
        (palette_of(WHITE, (255, 0, 0)), "png", b"\x00\xff"),
        (palette_of(WHITE, (255, 0, 0)), "gif", 0),
        (palette_of(BLACK, BLACK, WHITE, numbers=2 - SQUARE), "png", 2),
        (GREY, "png", 128),
        (GREY.convert("RGB"), "png", (128, 128, 128)),
        (Image.fromarray(SQUARE.astype(bool)), "png", 0),
    ],
    ids=["palette", "palette of opacities", "gif", "black palette", "grey", "colour", "1"],
)
@pytest.mark.filterwarnings("error")
def test_what_a_mask_file_declares_transparent_does_not_count(
    tmp_path: Path, mask: Image.Image, ending: str, clear: object
) -> None:
    path = tmp_path / f"mask.{ending}"
    mask.save(path, transparency=clear)

    assert read_plane(path).tolist() == (SQUARE == 1).tolist()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_an_empty_mask_has_no_pixel(tmp_path: Path, mode: str) -> None:
    Image.fromarray(NOTHING).convert(mode).save(tmp_path / "mask.png")

    assert not read_plane(tmp_path / "mask.png").any()


@given(st.sampled_from(["1", "L"]), arrays(np.uint8, (6, 7)))
def test_grey_masks_are_read_as_opencv_reads_them(
    tmp_path_factory: pytest.TempPathFactory, mode: str, values: np.ndarray
) -> None:
    """The reading of wsolevaluation: grey, above 0.5."""
    path = tmp_path_factory.getbasetemp() / "grey_mask.png"
    Image.fromarray(values).convert(mode).save(path)

    assert np.array_equal(read_plane(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0.5)


def test_a_torn_mask_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(SQUARE).save(path)
    path.write_bytes(path.read_bytes()[:-30])

    with pytest.raises(InputError, match=f"cannot read the image '{path}'"):
        read_plane(path)


def test_a_mask_without_an_object_is_named_but_an_ignore_file_may_be_empty(photos: Path) -> None:
    for name, corners in (("a.png", (2, 3, 5, 6)), ("none.png", (0, 0, 0, 0))):
        fake_data.save_mask(photos / name, corners, *fake_data.size(1))
    lines = ["image,label,split,mask,ignore", "photos/1.png,cat,test,a.png,none.png", "photos/3.png,cat,test,none.png,"]
    fake_data.write(photos / "table.csv", lines)

    mask = Table().split("test", photos).mask

    assert mask is not None
    assert (mask(0) == 1).sum() == 9
    with pytest.raises(InputError, match=f"no object is drawn in '{photos / 'none.png'}'"):
        mask(1)


# The true data, where they are at hand

CUB_FOLDER, ILSVRC_FOLDER = (os.environ.get(name, "") for name in ("WSOLBENCH_CUB", "WSOLBENCH_ILSVRC"))


@pytest.mark.skipif(not CUB_FOLDER, reason="WSOLBENCH_CUB is not set")
def test_cub_itself_has_one_box_an_image_and_no_more_images_than_officially() -> None:
    train, test = CUB().split("train", Path(CUB_FOLDER)), CUB().split("test", Path(CUB_FOLDER))

    assert len(train) <= CUB.official["train"]
    assert len(test) <= CUB.official["test"]
    assert {len(boxes) for boxes in (*train.boxes, *test.boxes)} == {1}
    assert train.read(0).shape[1::-1] == tuple(train.sizes[0])


@pytest.mark.skipif(not ILSVRC_FOLDER, reason="WSOLBENCH_ILSVRC is not set")
def test_ilsvrc_itself_has_a_thousand_classes_and_a_box_for_each_image() -> None:
    test = ImageNet().split("test", Path(ILSVRC_FOLDER))

    assert len(test.classes) == 1000
    assert min(len(boxes) for boxes in test.boxes) >= 1
    assert test.read(0).shape[1::-1] == tuple(test.sizes[0])
