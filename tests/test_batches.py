import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode

from tests.conftest import QUICK
from wsolbench import batches, datasets, plugins, recipe
from wsolbench.batches import Batch, Pixels
from wsolbench.dataset import Split
from wsolbench.trial import Trial

NORMALISATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIDE = 32


@pytest.fixture(scope="module")
def trial() -> Trial:
    return recipe.complete(QUICK)


@pytest.fixture(scope="module")
def split(cub: Path) -> Split:
    found: Split = plugins.make(datasets, "cub", {}).split("train", cub)
    return found


def images(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def epoch_of(split: Split, trial: Trial, epoch: int = 0, workers: int = 0) -> list[Batch]:
    pixels = Pixels(split, 37)
    return list(batches.training_batches(pixels, trial, epoch, NORMALISATION, workers))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return [batch.names for batch in a] == [batch.names for batch in b] and all(
        torch.equal(x.images, y.images) and torch.equal(x.labels, y.labels) for x, y in zip(a, b, strict=True)
    )


# A sequence of batches


def test_epoch_has_every_image_once(split: Split, trial: Trial) -> None:
    found = epoch_of(split, trial)

    assert sorted(name for batch in found for name in batch.names) == sorted(split.ids)


def test_only_the_last_batch_is_smaller(split: Split, trial: Trial) -> None:
    sizes = [len(batch.images) for batch in epoch_of(split, trial)]

    assert (sizes, len(split)) == ([5, 5, 2], 12)


def test_labels_are_those_of_the_images(split: Split, trial: Trial) -> None:
    for batch in epoch_of(split, trial):
        assert batch.labels.tolist() == [split.labels[split.ids.index(name)] for name in batch.names]


def test_batches_are_as_the_network_wants_them(split: Split, trial: Trial) -> None:
    batch = epoch_of(split, trial)[0]

    assert batch.images.shape == (5, 3, SIDE, SIDE)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_batches_are_the_same_whatever_was_drawn_before(split: Split, trial: Trial) -> None:
    torch.manual_seed(1)
    one = epoch_of(split, trial)
    torch.manual_seed(2)

    assert same(one, epoch_of(split, trial))


def test_what_the_network_draws_does_not_change_later_batches(split: Split, trial: Trial) -> None:
    drawing = []
    for batch in batches.training_batches(Pixels(split, 37), trial, 0, NORMALISATION, 0):
        torch.rand(100)
        drawing.append(batch)

    assert same(drawing, epoch_of(split, trial))


def test_what_the_network_draws_is_set_by_seed_epoch_and_step(split: Split, trial: Trial) -> None:
    def drawn(epoch: int) -> list[float]:
        found = batches.training_batches(Pixels(split, 37), trial, epoch, NORMALISATION, 0)
        return [float(torch.rand(())) for _ in found]

    assert drawn(0) == drawn(0)
    assert len({*drawn(0), *drawn(1)}) == 6


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("room", [0, 1 << 30], ids=["decoded anew", "kept"])
def test_batches_do_not_depend_on_workers_or_memory(
    split: Split, trial: Trial, monkeypatch: pytest.MonkeyPatch, workers: int, room: int
) -> None:
    expected = epoch_of(split, trial)
    monkeypatch.setattr(batches, "KEPT_IN_MEMORY", room)

    assert same(epoch_of(split, trial, workers=workers), expected)


def test_another_epoch_has_another_order(split: Split, trial: Trial) -> None:
    orders = {tuple(batch.names for batch in epoch_of(split, trial, epoch)) for epoch in range(5)}

    assert len(orders) == 5


def test_another_seed_has_another_order(split: Split, trial: Trial) -> None:
    other = recipe.complete({**QUICK, "seed": 1})

    assert not same(epoch_of(split, trial), epoch_of(split, other))


def test_images_are_decoded_once_where_they_are_kept(split: Split) -> None:
    read: Counter[int] = Counter()

    class Counting:
        ids, labels, sizes = split.ids, split.labels, split.sizes

        def __len__(self) -> int:
            return len(self.ids)

        def read(self, index: int) -> np.ndarray:
            read[index] += 1
            return split.read(index)

    pixels = Pixels(Counting(), 37)  # type: ignore[arg-type]
    for _ in range(2):
        assert [pixels[index] is not None for index in range(len(pixels))]

    assert set(read.values()) == {1}


def test_test_batches_are_the_split_in_its_order(split: Split) -> None:
    pixels = Pixels(split, SIDE)

    found = list(batches.test_batches(pixels, 5, NORMALISATION, 0))

    assert [name for batch in found for name in batch.names] == list(split.ids)
    assert torch.equal(torch.cat([batch.labels for batch in found]), torch.from_numpy(split.labels))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_test_images_do_not_depend_on_the_batch_size(split: Split, batch_size: int) -> None:
    pixels = Pixels(split, SIDE)
    whole, parts = (
        torch.cat([batch.images for batch in batches.test_batches(pixels, size, NORMALISATION, 0)])
        for size in (12, batch_size)
    )

    assert torch.equal(parts, whole)


# Each step against torchvision and PIL


def test_images_are_resized_as_torchvision_resizes_pil_images(split: Split) -> None:
    pixels = Pixels(split, SIDE)

    for index in range(len(split)):
        picture = reference.resize(Image.fromarray(split.read(index)), [SIDE, SIDE], InterpolationMode.BILINEAR)
        assert torch.equal(pixels[index], reference.pil_to_tensor(picture))


def test_image_of_the_right_size_stays_as_it_is() -> None:
    array = images(SIDE, SIDE, 3).numpy()
    split = Split(("a",), np.zeros(1, np.int64), ("x",), lambda _: array, np.array([[SIDE, SIDE]]), (np.zeros((0, 4)),))

    assert torch.equal(Pixels(split, SIDE)[0], torch.from_numpy(array).permute(2, 0, 1))


def test_normalised_images_are_torchvisions_bit_for_bit() -> None:
    pictures = images(4, 3, 9, 7)

    found = batches.normalise(pictures, NORMALISATION)

    for tensor, picture in zip(found, pictures, strict=True):
        expected = reference.normalize(reference.to_tensor(reference.to_pil_image(picture)), *map(list, NORMALISATION))
        assert torch.equal(tensor, expected)


def test_normalising_leaves_its_input_alone() -> None:
    pictures = images(2, 3, 5, 5)
    before = pictures.clone()

    batches.normalise(pictures, NORMALISATION)

    assert torch.equal(pictures, before)


def found_at(window: Tensor, image: Tensor) -> list[tuple[int, int]]:
    """Where in `image` the window stands, by looking everywhere."""
    height, width = window.shape[-2:]
    rows, columns = image.shape[-2] - height + 1, image.shape[-1] - width + 1
    places = ((y, x) for y in range(rows) for x in range(columns))
    return [(y, x) for y, x in places if torch.equal(reference.crop(image, y, x, height, width), window)]


def test_crop_is_a_window_of_its_image() -> None:
    pictures = images(6, 3, 9, 11)
    torch.manual_seed(0)

    windows = batches.crop(pictures, 7)

    assert windows.shape == (6, 3, 7, 7)
    assert all(len(found_at(window, image)) == 1 for window, image in zip(windows, pictures, strict=True))


def test_crop_draws_every_place_alike() -> None:
    pictures = images(1, 1, 4, 5).expand(3000, -1, -1, -1)
    torch.manual_seed(0)

    places = Counter(found_at(window, pictures[0])[0] for window in batches.crop(pictures, 3))

    assert sorted(places) == [(y, x) for y in range(2) for x in range(3)]
    assert all(abs(count - 500) < 5 * 21 for count in places.values())  # a binomial's deviation is 20.4


def test_crop_of_the_whole_side_is_the_image() -> None:
    pictures = images(3, 3, 8, 8)

    assert torch.equal(batches.crop(pictures, 8), pictures)


def test_flipped_image_is_torchvisions_mirror_image() -> None:
    pictures = images(32, 3, 5, 6)
    torch.manual_seed(0)

    found = batches.flip(pictures)

    same_, mirrored = ((found == other).flatten(1).all(1) for other in (pictures, reference.hflip(pictures)))
    assert (same_ ^ mirrored).all()
    assert same_.any()
    assert mirrored.any()


def test_half_of_the_images_are_flipped() -> None:
    pictures = torch.tensor([0, 1], dtype=torch.uint8).view(1, 1, 1, 2).expand(10_000, 1, 1, 2)
    torch.manual_seed(0)

    count = int(batches.flip(pictures)[:, 0, 0, 0].sum())

    assert abs(count - 5000) < 5 * 50


def test_seeds_of_different_parts_differ() -> None:
    parts = [(1,), (1, 0), (0, 1), (1, 23), (12, 3), (123,), (1, 2, 3), (1, 2, 4), (2**70,), (0,)]

    assert len({batches.stream(*each) for each in parts}) == len(parts)


def test_jpeg_is_decoded_as_pil_decodes_it(cub: Path, split: Split) -> None:
    path = cub / "images" / split.ids[0]
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        expected = np.asarray(picture.convert("RGB"))

    assert np.array_equal(split.read(0), expected)
