"""The drawn data set: the same everywhere, exact boxes, and a cache that heals."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wsolbench import place
from wsolbench.dataset import Split, SplitName
from wsolbench.datasets import shapes
from wsolbench.errors import InputError

SPLITS: tuple[SplitName, ...] = ("train", "test")
every_split = pytest.mark.parametrize("name", SPLITS)
Drawn = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def drawn() -> dict[SplitName, Drawn]:
    return {name: shapes.generate(name) for name in SPLITS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, drawn: dict[SplitName, Drawn]) -> Path:
    """A cache that holds both splits."""
    path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "generate", drawn.__getitem__)
        for name in SPLITS:
            split(name, path)
    return path


@pytest.fixture
def cached_as_drawn(monkeypatch: pytest.MonkeyPatch, drawn: dict[SplitName, Drawn]) -> list[str]:
    """Splits asked to be drawn; they are taken from `drawn`, for drawing takes seconds."""
    asked: list[str] = []

    def generate(name: SplitName) -> Drawn:
        asked.append(name)
        return drawn[name]

    monkeypatch.setattr(shapes, "generate", generate)
    return asked


def split(name: SplitName, folder: Path) -> Split:
    return shapes.Shapes().split(name, folder)


def extent(mask: NDArray[np.bool_]) -> list[float]:
    """The half-open box of a mask, pixel by pixel."""
    rows, columns = zip(
        *((y, x) for y, line in enumerate(mask.tolist()) for x, on in enumerate(line) if on), strict=True
    )
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


@every_split
def test_digest_is_frozen(name: SplitName, drawn: dict[SplitName, Drawn]) -> None:
    assert shapes.digest(*drawn[name]) == shapes.DIGESTS[name]


def test_generation_is_identical_twice(drawn: dict[SplitName, Drawn]) -> None:
    again = shapes.generate("test")

    assert all(np.array_equal(a, b) for a, b in zip(drawn["test"], again, strict=True))


@every_split
def test_boxes_are_the_extents_of_the_masks(name: SplitName, folder: Path, drawn: dict[SplitName, Drawn]) -> None:
    some = slice(0, None, 37)

    boxes = split(name, folder).boxes[some]

    assert [box.tolist() for box in boxes] == [[extent(region > 0)] for region in drawn[name][1][some]]


def test_body_and_part_are_disjoint_and_both_visible(folder: Path, drawn: dict[SplitName, Drawn]) -> None:
    test = split("test", folder)
    parts = drawn["test"][1] == shapes.PART
    bodies = np.stack([test.body(index) for index in range(len(test))]) if test.body else parts

    assert not (bodies & parts).any()
    assert parts.sum((1, 2)).min() > 20
    assert bodies.sum((1, 2)).min() > 2 * parts.sum((1, 2)).max()


def test_part_lies_at_varying_places_of_the_object(drawn: dict[SplitName, Drawn]) -> None:
    regions = drawn["test"][1]
    boxes = shapes.extents(regions > 0)
    parts = shapes.extents(regions == shapes.PART)

    places = ((parts[:, :2] + parts[:, 2:]) / 2 - boxes[:, :2]) / (boxes[:, 2:] - boxes[:, :2])

    assert (places.min(0) < 0.25).all()
    assert (places.max(0) > 0.75).all()


def test_body_tells_the_class_less_than_the_part(drawn: dict[SplitName, Drawn]) -> None:
    """Images whose nearest class mean, in mean colour of a region, is their own; by chance 10 %."""

    def told_by(region: int) -> float:
        means = [
            np.stack([image[where == region].mean(0) for image, where in zip(*drawn[name], strict=True)])
            for name in SPLITS
        ]
        labels = [shapes.labels_of(name) for name in SPLITS]
        centres = np.stack([means[0][labels[0] == label].mean(0) for label in range(len(shapes.CLASSES))])
        nearest = ((means[1][:, None] - centres) ** 2).sum(2).argmin(1)
        return float((nearest == labels[1]).mean())

    assert told_by(shapes.PART) > 0.8
    assert told_by(shapes.BODY) < 0.4


@every_split
def test_every_class_is_there_equally_often(name: SplitName, folder: Path) -> None:
    labels = split(name, folder).labels

    assert np.bincount(labels, minlength=len(shapes.CLASSES)).tolist() == [shapes.IMAGES[name]] * len(shapes.CLASSES)


def test_no_image_is_in_both_splits(drawn: dict[SplitName, Drawn]) -> None:
    train, test = ({image.tobytes() for image in drawn[name][0]} for name in SPLITS)

    assert len(train) == len(drawn["train"][0])
    assert not train & test


def test_images_are_what_was_drawn_and_as_large_as_said(folder: Path, drawn: dict[SplitName, Drawn]) -> None:
    test = split("test", folder)

    image = test.read(5)

    assert np.array_equal(image, drawn["test"][0][5])
    assert image.shape == (*test.sizes[5][::-1], 3)
    assert len(test) == len(test.labels) == len(test.boxes) == len(set(test.ids))


def test_cache_is_read_and_not_drawn_again(tmp_path: Path, cached_as_drawn: list[str]) -> None:
    for _ in range(2):
        split("test", tmp_path)

    assert cached_as_drawn == ["test"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut short", "emptied", "foreign", "one byte", "gone"])
def test_torn_cache_is_drawn_again(damage: str, tmp_path: Path, cached_as_drawn: list[str]) -> None:
    split("test", tmp_path)
    path = next(tmp_path.glob("*images*"))
    content = path.read_bytes()
    damaged = {"cut short": content[:-9], "emptied": b"", "foreign": b"PK\x03\x04", "one byte": content[:-1] + b"\x07"}
    path.unlink()
    if damage in damaged:
        path.write_bytes(damaged[damage])

    split("test", tmp_path)

    assert cached_as_drawn == ["test", "test"]
    assert path.read_bytes() == content


@pytest.mark.faults
def test_two_processes_at_once_leave_one_whole_cache(tmp_path: Path) -> None:
    """Whatever else they drew, and however many threads they have."""
    program = "import sys, torch; from pathlib import Path; from wsolbench.datasets import shapes\n"
    program += "torch.manual_seed(int(sys.argv[2])); torch.rand(3); torch.set_num_threads(int(sys.argv[2]))\n"
    program += "shapes.Shapes().split('test', Path(sys.argv[1]))"
    started = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(seed)]) for seed in (1, 2)]

    ended = [process.wait() for process in started]

    paths = sorted(tmp_path.iterdir())
    assert ended == [0, 0]
    assert [path.name for path in paths] == ["shapes-test-images.npy", "shapes-test-regions.npy"]
    assert shapes.digest(*(np.load(path) for path in paths)) == shapes.DIGESTS["test"]


def test_other_numbers_from_torch_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "generate", lambda _: (np.zeros((1, 2, 2, 3), np.uint8), np.ones((1, 2, 2), np.uint8)))

    with pytest.raises(InputError, match=r"shapes test has digest .* draws other numbers"):
        split("test", tmp_path)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"WSOLBENCH_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, Path("/a")),
        ({"WSOLBENCH_CACHE": "", "XDG_CACHE_HOME": "/b"}, Path("/b/wsolbench")),
        ({"HOME": "/c"}, Path("/c/.cache/wsolbench")),
    ],
)
def test_cache_folder(variables: dict[str, str], expected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WSOLBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert place.cache_folder() == expected
