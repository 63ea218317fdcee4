import random

import numpy as np
import pytest
import torch

from wsolbench import methods, plugins

cutmix = plugins.load(methods, "cutmix")


@pytest.mark.parametrize(
    ("kept", "centre", "expected"),
    [
        (0.75, (5, 10), (3, 5, 7, 15)),  # side 0.5: 5 of 10 rows -> 2 each way, 10 of 20 columns -> 5 each way
        (0.75, (0, 0), (0, 0, 2, 5)),  # cut off above and left
        (0.75, (9, 19), (7, 14, 10, 20)),  # cut off below and right
        (1.0, (5, 10), (5, 10, 5, 10)),  # empty
        (0.0, (5, 10), (0, 0, 10, 20)),  # all
    ],
)
def test_box_of_an_image_10_by_20(kept: float, centre: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert cutmix.box(10, 20, kept, centre) == expected


def test_targets_are_the_shares_of_the_pixels() -> None:
    values = torch.arange(1.0, 5.0)
    images, targets = values.view(4, 1, 1, 1).expand(4, 3, 12, 20), torch.eye(4)

    for seed in range(30):
        torch.manual_seed(seed)
        mixed, probabilities = cutmix.CutMix().augment(images, targets)

        shares = torch.stack([(mixed[:, 0] == value).float().mean((1, 2)) for value in values], 1)
        torch.testing.assert_close(probabilities, shares)


def test_the_box_lies_at_the_same_place_in_all_images_and_channels() -> None:
    images = torch.arange(1.0, 5.0).view(4, 1, 1, 1).expand(4, 3, 12, 20)
    torch.manual_seed(3)

    mixed, _ = cutmix.CutMix().augment(images, torch.eye(4))

    changed = mixed != images
    there = changed.any(0).any(0)
    moved = changed.flatten(1).any(1)
    assert there.any()
    assert torch.equal(changed[moved], there.expand_as(changed[moved]))


def test_probability_zero_mixes_nothing() -> None:
    images, targets = torch.rand(2, 3, 8, 8), torch.eye(2)

    mixed, probabilities = cutmix.CutMix(mix_probability=0.0).augment(images, targets)

    assert torch.equal(mixed, images)
    assert torch.equal(probabilities, targets)


def test_randomness_is_torchs_only() -> None:
    images, targets = torch.rand(4, 3, 16, 16), torch.eye(4)
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(0)
        results.append(cutmix.CutMix().augment(images, targets))

    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("beta", [0.01, 0.04, 1.35, 50.0])
def test_any_beta_gives_probabilities(beta: float) -> None:
    torch.manual_seed(0)

    for _ in range(50):
        _, probabilities = cutmix.CutMix(beta=beta).augment(torch.rand(3, 3, 8, 8), torch.eye(3))

        assert ((probabilities >= 0) & (probabilities <= 1)).all()
        torch.testing.assert_close(probabilities.sum(1), torch.ones(3))


def test_mean_share_that_is_kept_is_half_without_the_edges() -> None:
    torch.manual_seed(0)
    images = torch.zeros(2, 1, 64, 64)
    order_free = torch.eye(2)

    kept = [float(cutmix.CutMix().augment(images, order_free)[1].diagonal().max()) for _ in range(400)]

    assert min(kept) < 0.7
    assert max(kept) > 0.95
