from functools import partial
from itertools import pairwise, product
from typing import Any

import pytest
import timm
import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models.inception import InceptionB

from tests.conftest import BACKBONES
from wsolbench import backbones, methods, plugins
from wsolbench.backbone import Backbone, PostponedReLU, RectifiedMaxPool2d, norms_passed_by
from wsolbench.errors import InputError
from wsolbench.method import build, pooled

SIDE = 224

# Channels and side at 224 x 224. A 3 x 3 convolution of padding 1 and stride 2 halves 224, 112, 56 and 28.
VGG16 = {"conv1_1": (64, 224), "pool1": (64, 112), "pool2": (128, 56), "conv3_1": (256, 56), "pool3": (256, 28)}
MOBILENET = {"conv1": (32, 112), "conv2.dw": (32, 112), "conv2": (64, 112), "conv3.dw": (64, 56), "conv4": (128, 56)}
MOBILENET |= {"conv6": (256, 28), "conv7.dw": (256, 14), "conv7": (512, 14), "conv12": (512, 14)}
RESNET = {"conv1": (64, 112), "pool1": (64, 56), "layer1.0": (256, 56), "layer1.2": (256, 56), "layer2.3": (512, 28)}
INCEPTION = {
    "Conv2d_1a": (32, 112),
    "Conv2d_2a": (32, 110),  # 3 x 3 without padding
    "Conv2d_2b": (64, 110),
    "pool1": (64, 56),  # ceil((110 + 2 - 3) / 2) + 1
    "Conv2d_3b": (80, 56),
    "Conv2d_4a": (192, 54),
    "pool2": (192, 28),
    "Mixed_5b": (256, 28),  # 64 + 64 + 96 + 32
    "Mixed_5d": (288, 28),  # 64 + 64 + 96 + 64
}

GEOMETRY = [
    ("vgg16", {}, VGG16 | {"conv4_3": (512, 28), "pool4": (512, 14), "conv5_3": (512, 14), "conv6": (1024, 14)}),
    ("vgg16", {"pool_size": 3}, VGG16 | {"pool4": (512, 14), "conv5_3": (512, 14), "conv6": (1024, 14)}),
    ("vgg16", {"output_stride": 8}, VGG16 | {"conv4_3": (512, 28), "conv5_3": (512, 28), "conv6": (1024, 28)}),
    ("mobilenet_v1", {}, MOBILENET | {"conv13.dw": (512, 14), "conv13": (1024, 14), "conv14": (1024, 14)}),
    ("mobilenet_v1", {"padding": "same"}, MOBILENET | {"conv13.dw": (512, 14), "conv14": (1024, 14)}),
    ("mobilenet_v1", {"output_stride": 32}, MOBILENET | {"conv13.dw": (512, 7), "conv14": (1024, 7)}),
    ("inception_v3", {}, INCEPTION | {"Mixed_6a": (768, 28), "Mixed_6e": (768, 28), "A3_2b": (1024, 28)}),
    (
        "inception_v3",
        {"output_stride": 16},
        INCEPTION | {"pool3": (288, 14), "Mixed_6a": (768, 14), "Mixed_6e": (768, 14), "A3_1b": (1024, 14)},
    ),
    *[
        (name, {"output_stride": stride}, RESNET | {"layer3.0": (1024, third), "layer4.0": (2048, fourth)})
        for name in ("resnet50", "resnet50_se")
        for stride, third, fourth in ((16, 14, 14), (8, 28, 28), (32, 14, 7))
    ],
]

PARAMETERS = {
    "vgg16": 20_459_304,
    "mobilenet_v1": 4_231_976,
    "resnet50": 25_557_032,
    "resnet50_se": 28_088_024,
    "inception_v3": 26_507_976,
}
POINTS = {"vgg16": 18, "mobilenet_v1": 27, "resnet50": 18, "resnet50_se": 18, "inception_v3": 17}

every_backbone = pytest.mark.parametrize("name", BACKBONES)


def made(name: str, device: str = "meta", **options: Any) -> Backbone:
    torch.manual_seed(0)
    with torch.device(device):
        return plugins.make(backbones, name, options).build()


@pytest.mark.parametrize(("name", "options", "expected"), GEOMETRY, ids=str)
def test_channels_and_size_at_feature_points(
    name: str, options: dict[str, Any], expected: dict[str, tuple[int, int]]
) -> None:
    shapes = made(name, **options).shapes(SIDE, SIDE)

    assert {point: shapes[point] for point in expected} == {p: (c, side, side) for p, (c, side) in expected.items()}


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_parameters_with_1000_classes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        net = build(plugins.make(methods, "cam", {}), made(name), 1000)

    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def test_parameters_of_vgg_gap_by_arithmetic() -> None:
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512, 1024]  # conv1_1 .. conv5_3, conv6
    convolutions = sum(9 * before * after + after for before, after in pairwise(widths))

    assert convolutions + 1024 * 1000 + 1000 == PARAMETERS["vgg16"]


def test_parameters_of_mobilenet_by_arithmetic() -> None:
    widths = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]  # conv1 .. conv14
    separable = sum(9 * before + 2 * before + before * after + 2 * after for before, after in pairwise(widths))

    assert 3 * 9 * 32 + 2 * 32 + separable + 1024 * 1000 + 1000 == PARAMETERS["mobilenet_v1"]


@pytest.mark.parametrize(("name", "count"), POINTS.items())
def test_every_layer_of_the_paper_is_a_feature_point(name: str, count: int) -> None:
    assert len(made(name).points) == count


@every_backbone
def test_feature_points_run_in_the_order_they_are_listed(name: str) -> None:
    backbone = made(name)
    seen: list[str] = []
    for point in backbone.points:
        spy = nn.Identity()
        spy.register_forward_hook(partial(lambda seen, point, *_: seen.append(point), seen, point))
        backbone.insert(point, spy)

    backbone(torch.empty(1, 3, 64, 64, device="meta"))

    assert seen == list(backbone.points)


def usual(backbone: Backbone) -> Backbone:
    """The same, in the usual order: every ReLU where it stands, before pooling."""
    for layer in backbone.modules():
        layer.__class__ = {PostponedReLU: nn.ReLU, RectifiedMaxPool2d: nn.MaxPool2d}.get(type(layer), type(layer))
    return backbone


class Centred(nn.Module):
    """A layer that puts below 0 what a ReLU has put above it."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps - 1


def trained_with(backbone: Backbone, images: Tensor, precision: torch.dtype | None) -> list[Tensor]:
    """What comes out of it in training, and the gradients that go into its weights."""
    with torch.autocast("cpu", precision, enabled=precision is not None):
        out = backbone(images)
    (out["last"].float() * torch.linspace(-1, 1, out["last"].shape[1])[:, None, None]).sum().backward()
    return [*out.values(), *(parameter.grad for parameter in backbone.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize(
    ("points", "precision"),
    [
        ("untouched", None),
        ("untouched", torch.bfloat16),
        ("tapped", None),
        pytest.param("tapped", torch.bfloat16, marks=pytest.mark.full),
        pytest.param("changed", None, marks=pytest.mark.full),
        ("changed", torch.bfloat16),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", [name for name in BACKBONES if PostponedReLU in map(type, made(name).modules())])
def test_a_relu_after_pooling_has_the_bits_of_one_before(name: str, points: str, precision: torch.dtype | None) -> None:
    images, networks = torch.randn(2, 3, 64, 64), [made(name, "cpu"), usual(made(name, "cpu"))]
    for network in networks if points == "tapped" else []:
        network.tap(*network.points)
    for network, point in product(networks if points == "changed" else [], made(name).points):
        network.insert(point, Centred())

    found, expected = (trained_with(network, images, precision) for network in networks)

    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels last", "contiguous"])
def test_the_gradient_of_pooling_is_laid_out_as_the_map(layout: torch.memory_format) -> None:
    seen: list[Tensor] = []
    network = made("tiny", "cpu").to(memory_format=layout)
    images = torch.randn(2, 3, 16, 16).to(memory_format=layout)
    network.get_submodule(network.points["conv5"]).register_full_backward_hook(lambda _, __, found: seen.extend(found))

    pooled(network(images)["last"]).sum().backward()

    assert [gradient.is_contiguous(memory_format=layout) for gradient in seen] == [True]


@every_backbone
def test_stages_are_feature_points_of_ever_smaller_maps(name: str) -> None:
    backbone = made(name)
    shapes = backbone.shapes(SIDE, SIDE)

    sides = [shapes[stage][1] for stage in backbone.stages]
    assert sides == sorted(sides, reverse=True)
    assert list(backbone.stages) == [point for point in backbone.points if point in backbone.stages]
    assert shapes[backbone.stages[-1]][0] == backbone.body_channels


@every_backbone
def test_channels_are_those_of_the_last_map_with_and_without_neck(name: str) -> None:
    backbone = made(name)
    images = torch.empty(1, 3, 64, 64, device="meta")

    assert backbone(images)["last"].shape[1] == backbone.channels
    backbone.drop_neck()
    assert backbone(images)["last"].shape[1] == backbone.channels == backbone.body_channels


@every_backbone
def test_an_inserted_layer_changes_what_the_next_layer_sees(name: str) -> None:
    for point in made(name, "cpu").stages[-1:]:
        backbone = made(name, "cpu").eval()
        backbone.insert(point, nn.Threshold(1e9, 0.0))
        backbone.tap(point)

        with torch.inference_mode():
            tapped = backbone(torch.randn(1, 3, 64, 64))[point]

        assert not tapped.any()


@every_backbone
def test_a_layer_at_the_neck_is_given_the_maps_of_the_neck(name: str) -> None:
    backbone = made(name)
    shapes, seen = backbone.shapes(64, 64), dict[str, torch.Size]()
    for point in (point for point in backbone.points if point in dict(backbone.neck.named_children())):
        spy = nn.Identity()
        spy.register_forward_pre_hook(lambda _, inputs, point=point: seen.update({point: inputs[0].shape[1:]}))
        backbone.insert(point, spy)

    backbone(torch.empty(1, 3, 64, 64, device="meta"))

    assert len(seen) == len(backbone.neck)
    assert all(shapes[point] == shape for point, shape in seen.items())
    assert {shape[0] for shape in seen.values()} <= {backbone.channels}


def test_dropout_comes_after_the_points_of_inceptions_neck() -> None:
    backbone = made("inception_v3", "cpu", dropout=1.0)  # nothing gets past it
    backbone.tap("A3_1b", "A3_2b")

    with torch.inference_mode():
        maps = backbone(torch.randn(1, 3, 64, 64))

    biases = [backbone.get_parameter(f"neck.{point}.1.0.bias").relu() for point in ("A3_1b", "A3_2b")]
    for point, bias in zip(("A3_1b", "A3_2b"), biases, strict=True):
        assert bias.any()
        assert torch.equal(maps[point], bias.view(1, -1, 1, 1).expand_as(maps[point]))
    assert not maps["last"].any()


def test_a_second_layer_at_a_point_is_refused() -> None:
    backbone = made("tiny")
    backbone.insert("conv4", nn.Identity())

    with pytest.raises(InputError, match="feature point 'conv4' has a layer already"):
        backbone.insert("conv4", nn.Identity())


def test_an_unknown_point_is_refused() -> None:
    with pytest.raises(InputError, match="no feature point 'pool5'; this backbone has: conv1_1, conv1_2, pool1"):
        made("vgg16").tap("pool5")


def test_the_neck_cannot_be_reached_once_it_is_left_out() -> None:
    backbone = made("vgg16")
    backbone.drop_neck()

    with pytest.raises(InputError, match="no feature point 'conv6'"):
        backbone.insert("conv6", nn.Identity())


def test_shapes_leave_the_network_as_it_was() -> None:
    backbone, untouched = made("mobilenet_v1", "cpu"), made("mobilenet_v1", "cpu")

    backbone.shapes(64, 96)

    assert all(
        torch.equal(a, b) for a, b in zip(*(b.state_dict().values() for b in (backbone, untouched)), strict=True)
    )
    images = torch.randn(2, 3, 64, 96)
    assert set(backbone(images)) == {"images", "last"}
    torch.testing.assert_close(backbone(images)["last"], untouched(images)["last"])


class Halved(nn.BatchNorm2d):
    """A batch normalisation that makes the map smaller."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps)[..., ::2, ::2]


def test_norms_are_passed_by_meanwhile_only_and_where_they_do_no_more() -> None:
    maps = torch.randn(2, 3, 8, 8)
    net = nn.Sequential(nn.BatchNorm2d(3), Halved(3), nn.BatchNorm2d(3))
    vars(net[2])["forward"] = torch.neg  # what somebody has put in its place
    normed = net[0](maps)

    with norms_passed_by(net):
        assert torch.equal(net[0](maps), maps)
        assert net[1](maps).shape == (2, 3, 4, 4)
        assert torch.equal(net[2](maps), -maps)

    assert torch.equal(net[0](maps), normed)
    assert torch.equal(net[2](maps), -maps)


def original(net: Any, *without: str) -> nn.Sequential:
    return nn.Sequential(*(part for name, part in net.named_children() if name not in without))


def mobilenet_from_tensorflow() -> Any:
    return timm.create_model("mobilenetv1_100", pad_type="same", bn_eps=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "source", "without"),
    [
        ("resnet50", {"output_stride": 32}, torchvision.models.resnet50, ("avgpool", "fc")),
        ("resnet50_se", {"output_stride": 32}, partial(timm.create_model, "seresnet50"), ("global_pool", "fc")),
        (
            "mobilenet_v1",
            {"output_stride": 32, "padding": "same", "bn_eps": 1e-3},
            mobilenet_from_tensorflow,
            ("global_pool", "classifier"),
        ),
    ],
)
def test_body_computes_what_its_source_computes(name: str, options: Any, source: Any, without: tuple[str, ...]) -> None:
    torch.manual_seed(1)
    backbone, net = made(name, "cpu", **options).eval(), source().eval()
    backbone.body.load_state_dict({k: v for k, v in net.state_dict().items() if k.partition(".")[0] not in without})
    images = torch.randn(1, 3, 64, 96)

    with torch.inference_mode():
        assert torch.equal(backbone(images)["last"], original(net, *without)(images))


def test_vgg_body_has_the_names_of_torchvision() -> None:
    with torch.device("meta"):
        source = torchvision.models.vgg16(init_weights=False).state_dict()

    names = {f"features.{name}": tensor.shape for name, tensor in made("vgg16").body.state_dict().items()}

    assert names == {name: tensor.shape for name, tensor in source.items() if name.startswith("features.")}


def test_inception_body_has_the_names_of_torchvision() -> None:
    with torch.device("meta"):
        source = torchvision.models.inception_v3(init_weights=False).state_dict()

    names = {name: tensor.shape for name, tensor in made("inception_v3").body.state_dict().items()}

    elsewhere = ("AuxLogits.", "Mixed_7", "fc.")
    assert names == {name: tensor.shape for name, tensor in source.items() if not name.startswith(elsewhere)}


def test_mixed_6a_without_stride_is_torchvisions_at_every_other_place() -> None:
    backbone = made("inception_v3", "cpu").eval()
    source = InceptionB(288).eval()
    ours: Any = backbone.body.get_submodule("Mixed_6a")
    source.load_state_dict(ours.state_dict())
    features = torch.randn(1, 288, 9, 9)

    with torch.inference_mode():
        strided: Tensor = source(features)
        full: Tensor = ours(features)

    assert full.shape == (1, 768, 9, 9)
    torch.testing.assert_close(full[..., 1:8:2, 1:8:2], strided)


@pytest.mark.parametrize("stride", [4, 64])
def test_an_impossible_output_stride_is_refused(stride: int) -> None:
    with pytest.raises(InputError, match="output_stride must be"):
        made("resnet50", output_stride=stride)
