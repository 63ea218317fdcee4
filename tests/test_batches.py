import io
import os
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
from wsolbench import batches, datasets, pixels, plugins, recipe
from wsolbench._pixels import windows
from wsolbench.batches import Batch
from wsolbench.dataset import Split
from wsolbench.pixels import Pixels
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
    whole = Pixels(split, 37)
    return list(batches.training_batches(whole, trial, epoch, NORMALISATION, workers))


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
@pytest.mark.parametrize("share", [0.0, 0.5], ids=["decoded anew", "kept"])
def test_batches_do_not_depend_on_workers_or_the_cache(
    split: Split, trial: Trial, monkeypatch: pytest.MonkeyPatch, workers: int, share: float
) -> None:
    expected = epoch_of(split, trial)
    monkeypatch.setattr(pixels, "SHARE", share)
    monkeypatch.setenv("WSOLBENCH_CACHE", f"{os.environ['WSOLBENCH_CACHE']}/{share}")

    assert same(epoch_of(split, trial, workers=workers), expected)


def test_another_epoch_has_another_order(split: Split, trial: Trial) -> None:
    orders = {tuple(batch.names for batch in epoch_of(split, trial, epoch)) for epoch in range(5)}

    assert len(orders) == 5


def test_another_seed_has_another_order(split: Split, trial: Trial) -> None:
    other = recipe.complete({**QUICK, "seed": 1})

    assert not same(epoch_of(split, trial), epoch_of(split, other))


def test_test_batches_are_the_split_in_its_order(split: Split) -> None:
    whole = Pixels(split, SIDE)

    found = list(batches.test_batches(whole, 5, NORMALISATION, 0))

    assert [name for batch in found for name in batch.names] == list(split.ids)
    assert torch.equal(torch.cat([batch.labels for batch in found]), torch.from_numpy(split.labels))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_test_images_do_not_depend_on_the_batch_size(split: Split, batch_size: int) -> None:
    whole = Pixels(split, SIDE)
    whole, parts = (
        torch.cat([batch.images for batch in batches.test_batches(whole, size, NORMALISATION, 0)])
        for size in (12, batch_size)
    )

    assert torch.equal(parts, whole)


# Each step against torchvision and PIL


def test_images_are_resized_as_torchvision_resizes_pil_images(split: Split) -> None:
    whole = Pixels(split, SIDE)

    for index in range(len(split)):
        picture = reference.resize(Image.fromarray(split.read(index)), [SIDE, SIDE], InterpolationMode.BILINEAR)
        assert np.array_equal(whole[index], np.asarray(picture))


def test_image_of_the_right_size_stays_as_it_is() -> None:
    array = images(SIDE, SIDE, 3).numpy()
    split = Split(("a",), np.zeros(1, np.int64), ("x",), lambda _: array, np.array([[SIDE, SIDE]]), (np.zeros((0, 4)),))

    assert np.array_equal(Pixels(split, SIDE)[0], array)


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


def squares(*shape: int) -> np.ndarray:
    return images(*shape).numpy()


def test_windows_are_torchvisions_bit_for_bit() -> None:
    whole, rows = squares(5, 11, 11, 3), np.array([3, 0, 3, 4])
    corners, mirrored = np.array([[0, 4], [4, 0], [2, 1], [4, 4]]), np.array([True, False, False, True])

    found = windows(whole, rows, corners, mirrored, batches.table_of(NORMALISATION), 7)

    for n, (top, left) in enumerate(corners.tolist()):
        cropped = reference.crop(Image.fromarray(whole[rows[n]]), top, left, 7, 7)
        turned = reference.hflip(cropped) if mirrored[n] else cropped
        expected = reference.normalize(reference.to_tensor(turned), *map(list, NORMALISATION))
        assert torch.equal(torch.from_numpy(found[n]).permute(2, 0, 1), expected)


def test_batches_are_windows_of_their_images(split: Split, trial: Trial) -> None:
    whole = Pixels(split, 37)
    for batch in epoch_of(split, trial):
        for name, image in zip(batch.names, batch.images, strict=True):
            square = torch.from_numpy(whole[split.ids.index(name)]).permute(2, 0, 1)
            both = [batches.normalise(side[None], NORMALISATION)[0] for side in (square, square.flip(2))]
            assert any(found_at(image, side) for side in both)


def test_places_are_drawn_alike() -> None:
    torch.manual_seed(0)

    drawn = Counter(map(tuple, batches.places(3000, 2).tolist()))

    assert sorted(drawn) == [(y, x) for y in range(3) for x in range(3)]
    assert all(abs(count - 3000 / 9) < 5 * 17.3 for count in drawn.values())  # a binomial's deviation is 17.2


def test_without_room_every_place_is_the_corner() -> None:
    assert batches.places(3, 0).tolist() == [[0, 0]] * 3


def test_half_of_the_images_are_flipped() -> None:
    torch.manual_seed(0)

    assert abs(int(batches.flips(10_000).sum()) - 5000) < 5 * 50


def test_seeds_of_different_parts_differ() -> None:
    parts = [(1,), (1, 0), (0, 1), (1, 23), (12, 3), (123,), (1, 2, 3), (1, 2, 4), (2**70,), (0,)]

    assert len({batches.stream(*each) for each in parts}) == len(parts)


def test_jpeg_is_decoded_as_pil_decodes_it(cub: Path, split: Split) -> None:
    path = cub / "images" / split.ids[0]
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        expected = np.asarray(picture.convert("RGB"))

    assert np.array_equal(split.read(0), expected)
