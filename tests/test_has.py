import torch

from wsolbench import methods, plugins
from wsolbench.batches import normalise

has = plugins.load(methods, "has")


def test_a_patch_is_hidden_or_left_as_a_whole_and_cut_off_at_the_edges() -> None:
    torch.manual_seed(0)

    mask = has.keep_mask(torch.zeros(50, 3, 5, 7), 3, 0.5)  # patches 3 + 2 rows by 3 + 3 + 1 columns

    assert mask.shape == (50, 1, 5, 7)
    for rows in (slice(0, 3), slice(3, 5)):
        for columns in (slice(0, 3), slice(3, 6), slice(6, 7)):
            patch = mask[:, 0, rows, columns].flatten(1)
            assert torch.equal(patch, patch[:, :1].expand_as(patch))
            assert set(patch[:, 0].tolist()) == {0.0, 1.0}


def test_each_image_has_a_mask_of_its_own() -> None:
    torch.manual_seed(0)

    masks = has.keep_mask(torch.zeros(8, 3, 64, 64), 8, 0.5)

    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 8


def test_channels_share_a_mask() -> None:
    torch.manual_seed(0)

    images, _ = has.HaS(patch=8).augment(torch.ones(2, 3, 32, 48), torch.eye(2))

    assert torch.equal(images, images[:, :1].expand_as(images))


def test_rows_and_columns_are_not_swapped() -> None:
    torch.manual_seed(0)

    mask = has.keep_mask(torch.zeros(1, 3, 64, 2), 2, 0.5)  # one column of 32 patches

    assert set(mask[0, 0, :, 0].tolist()) == {0.0, 1.0}
    assert torch.equal(mask[..., 0], mask[..., 1])


def test_probability_zero_hides_nothing_and_one_hides_all() -> None:
    images = torch.rand(2, 3, 33, 40) + 1

    assert torch.equal(has.HaS(hide_probability=0.0).augment(images, torch.eye(2))[0], images)
    assert not has.HaS(hide_probability=1.0).augment(images, torch.eye(2))[0].any()


def test_hide_probability_is_the_share_of_hidden_patches() -> None:
    torch.manual_seed(0)

    mask = has.keep_mask(torch.zeros(100, 3, 40, 40), 4, 0.25)  # 10,000 patches, deviation 0.0043

    assert abs(float(mask.mean()) - 0.75) < 0.02


def test_targets_and_the_input_stay() -> None:
    images, targets = torch.rand(2, 3, 16, 16), torch.eye(2)
    before = images.clone()

    _, changed = has.HaS(patch=4).augment(images, targets)

    assert torch.equal(images, before)
    assert torch.equal(changed, targets)


def test_hidden_is_the_mean_colour() -> None:
    mean = torch.tensor([51, 102, 153], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    images = normalise(mean, ((0.2, 0.4, 0.6), (0.5, 0.25, 0.125)))

    hidden, _ = has.HaS(patch=2, hide_probability=1.0).augment(images, torch.eye(1))

    torch.testing.assert_close(hidden, images, atol=1e-6, rtol=0)


def test_a_patch_larger_than_the_image_hides_all_or_nothing() -> None:
    torch.manual_seed(0)

    masks = has.keep_mask(torch.zeros(20, 3, 10, 12), 32, 0.5).flatten(1)

    assert set(masks.mean(1).tolist()) == {0.0, 1.0}


def test_a_patch_larger_than_the_image_costs_no_more_than_the_image() -> None:
    torch.manual_seed(0)

    mask = has.keep_mask(torch.zeros(8, 3, 5, 7), 1_000_000, 0.5)

    assert mask.shape == (8, 1, 5, 7)
    assert all(len(image.unique()) == 1 for image in mask)
