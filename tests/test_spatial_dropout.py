import torch
from torch import nn

from wsolbench import backbones, methods, plugins
from wsolbench.method import Net, build


def network(drop_rate: float, points: tuple[str, ...] = ("pool2", "conv4")) -> Net:
    torch.manual_seed(0)
    method = plugins.make(methods, "spatial_dropout", {"points": points, "drop_rate": drop_rate})
    return build(method, plugins.make(backbones, "tiny", {}).build(), 3)


def test_each_channel_of_each_image_is_zero_or_scaled_up_as_a_whole() -> None:
    layer = network(0.25).backbone.inserted["conv4"]
    features = torch.rand(16, 8, 3, 5) + 1

    ratio = (layer(features) / features).flatten(2)

    assert torch.equal(ratio == 0, (ratio[..., :1] == 0).expand_as(ratio))
    torch.testing.assert_close(ratio[ratio > 0], torch.full_like(ratio[ratio > 0], 1 / 0.75))
    assert len({tuple(image.tolist()) for image in (ratio[..., 0] == 0)}) > 8


def test_a_layer_stands_at_every_point() -> None:
    net = network(0.5, ("conv1", "pool2", "conv5"))

    assert [name for name, part in net.backbone.inserted.items() if isinstance(part, nn.Dropout2d)] == [
        "conv1",
        "pool2",
        "conv5",
    ]


def test_drop_rate_zero_is_the_identity_and_one_leaves_nothing() -> None:
    features = torch.rand(2, 8, 4, 4)

    assert torch.equal(network(0.0).backbone.inserted["pool2"](features), features)
    assert not network(1.0).backbone.inserted["pool2"](features).any()


def test_the_identity_when_not_training() -> None:
    features = torch.rand(2, 8, 4, 4)

    assert torch.equal(network(0.9).eval().backbone.inserted["pool2"](features), features)
