import torch

from wsolbench import methods, plugins

max_drop = plugins.load(methods, "max_drop")

FEATURES = torch.tensor([[[[1.0, 5.0], [3.0, 4.0]], [[2.0, 2.0], [0.0, 1.0]]]])


def test_the_maximum_of_every_channel_is_zero_at_drop_rate_one() -> None:
    out = max_drop.MaximumDropout(1.0)(FEATURES)

    assert out.tolist() == [[[[1.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 1.0]]]]  # equal maxima go all


def test_the_rest_keeps_value_and_gradient() -> None:
    features = FEATURES.clone().requires_grad_()

    max_drop.MaximumDropout(1.0)(features).sum().backward()

    assert features.grad is not None
    assert features.grad.tolist() == [[[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]]]


def test_the_maximum_is_that_of_the_image() -> None:
    out = max_drop.MaximumDropout(1.0)(torch.tensor([[[[1.0, 2.0]]], [[[10.0, 20.0]]]]))

    assert out.tolist() == [[[[1.0, 0.0]]], [[[10.0, 0.0]]]]


def test_channels_and_images_are_drawn_independently() -> None:
    torch.manual_seed(0)
    features = torch.arange(1.0, 5.0).view(1, 1, 2, 2).expand(32, 8, 2, 2)

    dropped = max_drop.MaximumDropout(0.5)(features)[:, :, 1, 1] == 0

    assert len({tuple(image.tolist()) for image in dropped}) > 24
    assert abs(float(dropped.float().mean()) - 0.5) < 0.13  # four deviations of 256 draws


def test_negative_maxima_are_dropped_too() -> None:
    out = max_drop.MaximumDropout(1.0)(torch.tensor([[[[-3.0, -1.0]]]]))

    assert out.tolist() == [[[[-3.0, 0.0]]]]


def test_the_identity_at_drop_rate_zero_and_when_not_training() -> None:
    assert torch.equal(max_drop.MaximumDropout(0.0)(FEATURES), FEATURES)
    assert max_drop.MaximumDropout(1.0).eval()(FEATURES) is FEATURES
