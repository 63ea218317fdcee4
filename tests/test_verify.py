import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import fake_data
from wsolbench import datasets, plugins
from wsolbench.annotations import read_image
from wsolbench.dataset import Dataset, Split, SplitName
from wsolbench.datasets.cub import CUB
from wsolbench.datasets.imagenet import ImageNet
from wsolbench.datasets.openimages import OpenImages
from wsolbench.datasets.table import Table
from wsolbench.errors import InputError
from wsolbench.verify import verify


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return fake_data.cub(tmp_path / "cub")


@pytest.mark.parametrize("name", sorted(fake_data.FAKES))
def test_whole_data_has_no_problem(tmp_path: Path, name: str) -> None:
    dataset: Dataset = plugins.make(datasets, name, fake_data.OPTIONS.get(name, {}))

    report = verify(dataset, fake_data.FAKES[name](tmp_path / "data"))

    assert report.problems == ()
    assert {split.name for split in report.splits} | report.absent.keys() == {"train", "held_out", "test"}


def test_counts_and_sizes_are_reported(birds: Path) -> None:
    train, test = verify(CUB(), birds).splits

    sizes = np.array([fake_data.size(i) for i in range(1, 13, 2)])
    assert (train.name, train.images, train.official, train.classes, train.boxes, train.masks) == (
        "train",
        6,
        5994,
        3,
        6,
        0,
    )
    assert (train.smallest, train.largest) == (tuple(sizes.min(0)), tuple(sizes.max(0)))
    assert (test.name, test.images) == ("test", 6)


def test_what_differs_from_the_official_count_is_a_note(birds: Path) -> None:
    report = verify(CUB(), birds)

    assert "6 images, 5,994 officially" in report.splits[0].notes
    assert "3 of the 200 classes are here" in report.splits[0].notes


def test_a_split_that_is_not_there_is_no_problem(birds: Path) -> None:
    report = verify(CUB(), birds)

    assert list(report.absent) == ["held_out"]
    assert "CUBV2" in report.absent["held_out"]


def test_a_wrong_folder_is_said_once(tmp_path: Path) -> None:
    report = verify(CUB(), tmp_path)

    said = f"no CUB-200-2011 in '{tmp_path}' (images.txt is missing); data must be the folder that holds images.txt"
    assert (report.splits, report.problems) == ((), (said,))


def test_no_split_at_all_is_a_problem(tmp_path: Path) -> None:
    fake_data.write(tmp_path / "synset_words.txt", ["n01440764 tench"])

    report = verify(ImageNet(), tmp_path)

    assert len(report.problems) == 3


def test_a_torn_image_is_named(birds: Path) -> None:
    path = birds / "images" / fake_data.CUB_CLASSES[1] / "Bird_0001.jpg"
    path.write_bytes(path.read_bytes()[:-40])

    [problem] = verify(CUB(), birds).problems

    assert problem.startswith(f"test: images or masks that cannot be used (1): cannot read the image '{path}'")


def test_an_image_in_two_splits_is_named_whatever_its_file_is_called(birds: Path) -> None:
    folder = birds / "images" / fake_data.CUB_CLASSES[0]
    shutil.copy(folder / "Bird_0000.jpg", birds / "images" / fake_data.CUB_CLASSES[2] / "Bird_0003.jpg")
    fake_data.edit(birds / "bounding_boxes.txt", 12, "12 5 5 9 9")

    problems = verify(CUB(), birds).problems

    pair = f"{fake_data.CUB_CLASSES[0]}/Bird_0000.jpg = {fake_data.CUB_CLASSES[2]}/Bird_0003.jpg"
    assert problems == (f"images that train and test have in common (1): {pair}",)


def test_an_image_compressed_anew_without_loss_is_found_in_two_splits(tmp_path: Path) -> None:
    photos = fake_data.table(tmp_path)
    with Image.open(photos / "photos" / "0.png") as image:
        image.save(photos / "photos" / "1.png", compress_level=0)
    assert (photos / "photos" / "0.png").read_bytes() != (photos / "photos" / "1.png").read_bytes()
    fake_data.edit(photos / "table.csv", 3, "photos/1.png,cat,test,3,4,9,9")

    assert verify(Table(), photos).problems == (
        "images that train and test have in common (1): photos/0.png = photos/1.png",
    )


def test_an_image_twice_in_a_split_is_a_note(birds: Path) -> None:
    folder = birds / "images" / fake_data.CUB_CLASSES[0]
    shutil.copy(folder / "Bird_0000.jpg", folder / "Bird_0002.jpg")
    fake_data.edit(birds / "bounding_boxes.txt", 3, "3 5 5 9 9")

    report = verify(CUB(), birds)

    assert report.problems == ()
    name = fake_data.CUB_CLASSES[0]
    assert f"images that occur twice (1): {name}/Bird_0000.jpg = {name}/Bird_0002.jpg" in report.splits[0].notes


def test_an_image_of_another_size_than_the_file_of_sizes_is_named(tmp_path: Path) -> None:
    data = fake_data.wsolevaluation(tmp_path)
    dataset: Dataset = plugins.make(datasets, "wsolevaluation", {"collection": "CUB"})
    names = dataset.split("train", data).ids
    many = [f"{names[0].partition('/')[0]}/more_{k}.jpg" for k in range(40)]
    metadata = data / "metadata" / "CUB" / "train"
    for k, name in enumerate(many):
        fake_data.save(data / "dataset" / "CUB" / name, k, 40, 30 + (k == 1))
    fake_data.write(metadata / "image_ids.txt", many)
    fake_data.write(metadata / "class_labels.txt", (f"{name},0" for name in many))
    fake_data.write(metadata / "image_sizes.txt", (f"{name},40,30" for name in many))
    fake_data.write(metadata / "localization.txt", (f"{name},22,3,39,29" for name in many))

    problems = verify(dataset, data).problems

    assert problems == (f"train: images of another size than was read (1): {many[1]} is 40 x 31",)


def test_a_mix_up_of_box_forms_is_named(birds: Path) -> None:
    fake_data.write(birds / "bounding_boxes.txt", (f"{i} 15 12 27 20" for i in range(1, 13)))

    assert any("write them as x y w h" in problem for problem in verify(CUB(), birds).problems)


def test_an_empty_mask_is_named(tmp_path: Path) -> None:
    data = fake_data.openimages(tmp_path)
    path = next((data / "dataset" / "OpenImages" / "test").rglob("*1*_m1.png"))
    fake_data.save_mask(path, (0, 0, 0, 0))

    [problem] = verify(OpenImages(), data).problems

    assert problem == f"test: images or masks that cannot be used (1): no object is drawn in '{path}'"


def test_the_digest_is_of_the_content_not_of_the_order(birds: Path) -> None:
    before = verify(CUB(), birds).splits[0].digest
    lines = (birds / "images.txt").read_text().splitlines()
    fake_data.write(birds / "images.txt", reversed(lines))

    assert verify(CUB(), birds).splits[0].digest == before


@pytest.mark.parametrize(
    "change",
    [
        lambda birds: fake_data.edit(birds / "bounding_boxes.txt", 1, "1 5 5 9 9"),
        lambda birds: fake_data.edit(birds / "image_class_labels.txt", 1, "1 2"),
        lambda birds: fake_data.save(birds / "images" / fake_data.CUB_CLASSES[0] / "Bird_0000.jpg", 77, 31, 23),
    ],
    ids=["box", "label", "pixels"],
)
def test_the_digest_follows_boxes_labels_and_pixels(birds: Path, change: Callable[[Path], None]) -> None:
    before = verify(CUB(), birds).splits[0].digest
    change(birds)

    assert verify(CUB(), birds).splits[0].digest != before


def test_the_digest_finds_a_flipped_bit_that_still_decodes(birds: Path) -> None:
    before = verify(CUB(), birds).splits[0].digest
    path = birds / "images" / fake_data.CUB_CLASSES[0] / "Bird_0000.jpg"
    content, whole = path.read_bytes(), read_image(path)
    spot = content.index(b"\xff\xda") + 60  # in the entropy-coded data: no checksum, every bit means something
    path.write_bytes(content[:spot] + bytes([content[spot] ^ 4]) + content[spot + 1 :])
    assert not np.array_equal(read_image(path), whole)

    assert verify(CUB(), birds).splits[0].digest != before


# Of readers that others write


@dataclass(frozen=True)
class Given:
    """A data set of one split, as it is given."""

    test: Split
    folders: tuple[Path, ...] = field(default=())

    def split(self, name: SplitName, data: Path | None) -> Split:
        if name == "test":
            return self.test
        raise InputError(f"{name} of {data} is broken")


def plain(number: int = 2) -> Split:
    return Split(
        ids=tuple(f"image {k}" for k in range(number)),
        labels=np.zeros(number, dtype=np.int64),
        classes=("thing",),
        read=fake_data.picture,
        sizes=np.array([[32, 24]] * number, dtype=np.int64),
        boxes=tuple(np.array([[1.0, 2.0, 30.0, 20.0]]) for _ in range(number)),
    )


def only_box(*corners: float) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], ...]:
    return tuple(np.array([corners]) for _ in range(2))


def test_a_reader_without_official_counts_is_compared_with_none() -> None:
    [split] = verify(Given(plain()), None).splits

    assert (split.official, split.notes) == (None, ())


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"ids": ("same", "same")}, "ids that occur twice (1): same"),
        ({"labels": np.array([0, 1])}, "labels of no class (1): image 1 1"),
        ({"sizes": np.array([[32, 24]])}, "ids, labels, sizes and boxes of different lengths (1): [1, 2]"),
        ({"labels": np.array([0, 0, 0])}, "ids, labels, sizes and boxes of different lengths (1): [2, 3]"),
        ({"boxes": only_box(1, 2, 33, 20)}, "boxes that are not finite, have no size or leave their image (2)"),
        ({"boxes": only_box(1, 2, 1, 20)}, "boxes that are not finite, have no size or leave their image (2)"),
        ({"boxes": only_box(1, np.nan, 9, 20)}, "boxes that are not finite, have no size or leave their image (2)"),
        ({"sizes": np.array([[32, 24], [24, 32]])}, "images of another size than was read (1): image 1 is 32 x 24"),
        ({"mask": lambda _: np.full((24, 32), 7, np.uint8)}, "masks of other values than 0, 1 and 255 (2)"),
        ({"mask": lambda _: np.ones((32, 24), np.uint8)}, "masks of another shape than their image (2)"),
        ({"boxes": (np.zeros((0, 4)),) * 2}, "neither boxes nor masks, so that localization cannot be measured"),
    ],
)
def test_a_split_that_is_not_what_it_should_be_is_named(wrong: dict[str, object], kind: str) -> None:
    split = replace(plain(), **wrong)  # type: ignore[arg-type]

    problems = verify(Given(split), None).problems

    assert any(problem.startswith(f"test: {kind}") for problem in problems)


def test_a_broken_split_is_a_problem_and_the_others_are_read() -> None:
    report = verify(Given(plain()), Path("here"))

    assert report.problems == ("train of here is broken", "held_out of here is broken")
    assert [split.images for split in report.splits] == [2]
