from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.conftest import QUICK, Command, words
from wsolbench import backbones, documents, job, methods, overhead, plugins, recipe, recommended, sweep, weights
from wsolbench.backbone import IMAGENET, Backbone
from wsolbench.backbones import timm as ours
from wsolbench.errors import InputError
from wsolbench.method import Net, build
from wsolbench.place import Place

LIGHT = ["test_resnet", "convnext_atto", "mobilenetv3_small_050", "regnety_002"]
"""Residual blocks, blocks with a norm between the stages, inverted blocks, and blocks of blocks."""

POINTS = {
    "resnet18": "conv1 act1 maxpool layer1.0 layer1.1 layer2.0 layer2.1 layer3.0 layer3.1 layer4.0 layer4.1",
    "vgg11": "features.1 features.2 features.4 features.5 features.7 features.9 features.10 features.12 features.14 "
    "features.15 features.17 features.19 features.20",  # each ReLU, which changes its convolution's map, and pooling
    "densenet121": "features.conv0 features.norm0 features.pool0 features.denseblock1 features.transition1.norm "
    "features.transition1.conv features.transition1.pool features.denseblock2 features.transition2.norm "
    "features.transition2.conv features.transition2.pool features.denseblock3 features.transition3.norm "
    "features.transition3.conv features.transition3.pool features.denseblock4 features.norm5",
    "mobilenetv3_small_100": "conv_stem bn1 blocks.0.0 blocks.1.0 blocks.1.1 blocks.2.0 blocks.2.1 blocks.2.2 "
    "blocks.3.0 blocks.3.1 blocks.4.0 blocks.4.1 blocks.4.2 blocks.5.0",
    "inception_v3": "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Pool1 Conv2d_3b_1x1 Conv2d_4a_3x3 Pool2 Mixed_5b "
    "Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c",
}
STAGES = {
    "resnet18": "act1 layer1.1 layer2.1 layer3.1 layer4.1",
    "vgg11": "features.1 features.4 features.9 features.14 features.19 features.20",
    "densenet121": "features.norm0 features.denseblock1 features.denseblock2 features.denseblock3 features.norm5",
    "mobilenetv3_small_100": "bn1 blocks.0.0 blocks.1.1 blocks.3.1 blocks.5.0",
    "efficientnet_b0": "blocks.0.0 blocks.1.1 blocks.2.1 blocks.4.2 bn2",
    "convnext_tiny": "stages.0.blocks.2 stages.1.blocks.2 stages.2.blocks.8 stages.3.blocks.2",
}
CHANNELS = {"resnet18": 512, "vgg11": 512, "densenet121": 1024, "mobilenetv3_small_100": 576, "efficientnet_b0": 1280}


def made(variant: str, device: str = "meta", **options: Any) -> Backbone:
    torch.manual_seed(0)
    with torch.device(device):
        return plugins.make(backbones, f"timm:{variant}", options).build()


planned = cache(made)
"""Without memory for weights; only to look at."""


@cache
def light(variant: str) -> Backbone:
    """To copy."""
    return made(variant, "cpu").eval()


def network(variant: str, num_classes: int = 1000, **options: Any) -> Net:
    return build(plugins.make(methods, "cam", {}), made(variant, "cpu", **options), num_classes)


def problems_of(**settings: Any) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        recipe.complete({**QUICK, **settings})
    return caught.value.problems


# Feature points


def test_file_of_the_librarys_name_uses_the_library() -> None:
    assert vars(ours)["timm"] is timm
    assert ours.__name__ == "wsolbench.backbones.timm"


@pytest.mark.parametrize(("variant", "points"), POINTS.items())
def test_points_are_blocks_and_the_layers_between_them(variant: str, points: str) -> None:
    assert " ".join(planned(variant).points) == points


@pytest.mark.parametrize(("variant", "stages"), STAGES.items())
def test_stages_are_those_of_timm_and_end_with_the_last_point(variant: str, stages: str) -> None:
    backbone = planned(variant)

    assert " ".join(backbone.stages) == stages
    assert backbone.stages[-1] == list(backbone.points)[-1]


@pytest.mark.parametrize(("variant", "channels"), CHANNELS.items())
def test_last_map_has_the_papers_channels_and_a_32nd_of_the_side(variant: str, channels: int) -> None:
    backbone = planned(variant)

    assert backbone.channels == channels
    assert backbone.shapes(224, 320)[backbone.stages[-1]] == (channels, 7, 10)


@pytest.mark.parametrize("variant", LIGHT)
def test_everything_passes_through_every_point(variant: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    for point in light(variant).points:
        backbone = deepcopy(light(variant))
        backbone.insert(point, nn.Threshold(1e9, 0.5))

        with torch.inference_mode():
            last = backbone(images)["last"]

        torch.testing.assert_close(last[0], last[1], msg=f"the images differ behind a constant at {point}")


@pytest.mark.parametrize("variant", LIGHT)
def test_tapped_map_is_what_the_next_layer_sees(variant: str) -> None:
    backbone = deepcopy(light(variant))
    backbone.tap(*backbone.points)
    seen: dict[str, Tensor] = {}
    for point in backbone.points:
        backbone._at(point).register_forward_hook(lambda _m, _i, out, p=point: seen.update({p: out.clone()}))

    with torch.inference_mode():
        maps = backbone(torch.randn(1, 3, 64, 64))

    assert all(torch.equal(maps[point], seen[point]) for point in backbone.points)
    assert torch.equal(maps[backbone.stages[-1]], maps["last"])


def test_shapes_of_a_network_with_buffers_that_no_checkpoint_keeps() -> None:
    backbone = made("resnetblur18", "cpu")

    assert backbone.shapes(64, 96)["layer4.1"] == (512, 2, 3)


# The body


@pytest.mark.parametrize("variant", LIGHT)
def test_body_computes_what_timm_computes_and_has_no_other_weights(variant: str) -> None:
    backbone, source = deepcopy(light(variant)), timm.create_model(variant).eval()
    names = backbone.body.state_dict().keys()
    backbone.body.load_state_dict({name: tensor for name, tensor in source.state_dict().items() if name in names})
    images = torch.randn(2, 3, 64, 96)

    with torch.inference_mode():
        assert torch.equal(backbone(images)["last"], source.forward_features(images))
    backbone(images)["last"].sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_network_with_its_classifier_gives_timms_scores() -> None:
    net, source = network("test_resnet"), timm.create_model("test_resnet").eval()
    state = source.state_dict()
    net.backbone.body.load_state_dict({name: state[name] for name in net.backbone.body.state_dict()})
    assert net.head.load_classifier(state["fc.weight"], state["fc.bias"])
    images = torch.randn(2, 3, 64, 64)

    with torch.inference_mode():
        torch.testing.assert_close(net.eval()(images).logits, source(images))


def unstrided(variant: str) -> Any:
    """The network with stride 1 in its last stage, by hand."""
    net = timm.create_model(variant).eval()
    if variant == "mobilenetv3_small_050":
        net.blocks[4][0].conv_dw.stride = (1, 1)
    else:
        first = net.layer4[0]
        first.conv2.stride = (1, 1) if variant == "test_resnet" else first.conv2.stride
        first.conv1.stride = (1, 1)
        first.downsample[0].stride = (1, 1)
        first.downsample[0] = first.downsample[0] if isinstance(first.downsample[0], nn.Conv2d) else nn.Identity()
    return net


@pytest.mark.parametrize("variant", ["resnet18", "test_resnet", "mobilenetv3_small_050"])
def test_output_stride_16_takes_the_last_strides_without_dilation(variant: str) -> None:
    backbone, source = made(variant, "cpu", output_stride=16).eval(), unstrided(variant)
    state = source.state_dict()
    backbone.body.load_state_dict({name: state[name] for name in backbone.body.state_dict()})
    images = torch.randn(1, 3, 64, 96)

    with torch.inference_mode():
        last = backbone(images)["last"]

    assert last.shape[2:] == (4, 6)
    torch.testing.assert_close(last, source.forward_features(images))
    assert all(layer.dilation == (1, 1) for layer in backbone.modules() if isinstance(layer, nn.Conv2d))
    assert (backbone.points, backbone.stages) == (planned(variant).points, planned(variant).stages)


def test_output_stride_16_leaves_out_the_last_pooling() -> None:
    backbone = made("vgg11", output_stride=16)

    assert " ".join(backbone.points) == POINTS["vgg11"].removesuffix(" features.20")
    assert backbone.stages[-1] == "features.19"
    assert backbone.shapes(224, 224)["features.19"] == (512, 14, 14)


@pytest.mark.parametrize(
    ("variant", "stride", "has"), [("resnetblur18", 16, 32), ("convnext_atto", 8, 32), ("convmixer_768_32", 32, 8)]
)
def test_output_stride_that_cannot_be_is_told(variant: str, stride: int, has: int) -> None:
    (problem,) = problems_of(backbone=f"timm:{variant}", output_stride=stride, method="cam")

    assert problem == f"{variant} has output_stride {has} and cannot have {stride}"


# Weights


def saved(path: Path, variant: str, **options: Any) -> tuple[Path, dict[str, Tensor]]:
    torch.manual_seed(5)
    state = timm.create_model(variant, **options).state_dict()
    save_file(state, path)
    return path, state


@pytest.mark.parametrize(("variant", "taken"), [("test_resnet", True), ("convnext_atto", False)])
def test_file_with_timms_names_fills_body_and_where_it_can_the_head(tmp_path: Path, variant: str, taken: bool) -> None:
    path, state = saved(tmp_path / "w.safetensors", variant)
    net = network(variant)

    loaded = weights.load(net, path)

    assert all(torch.equal(tensor, state[name]) for name, tensor in net.backbone.body.state_dict().items())
    assert loaded.classifier is taken  # a layer norm is between pooling and the other's classifier
    assert loaded.missing == ()


def test_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path / "w.safetensors", "test_convnext")

    with pytest.raises(InputError, match=r"w\.safetensors has the weights of another network; missing: conv1"):
        weights.load(network("test_resnet"), path)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k"])
def test_imagenet_is_what_timm_gives_for_the_name_and_its_tag(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    net, create = network(name), timm.create_model

    def download(name: str, *, pretrained: bool) -> nn.Module:
        asked.append((name, pretrained))
        torch.manual_seed(5)
        return create(name)

    monkeypatch.setattr(timm, "create_model", download)
    loaded = weights.load(net, "imagenet")

    assert asked == [("tf_efficientnet_lite0.in1k", True)]
    assert loaded.source == "timm tf_efficientnet_lite0.in1k"
    assert loaded.classifier
    cfg = create("tf_efficientnet_lite0").pretrained_cfg
    assert loaded.normalisation == (cfg["mean"], cfg["std"]) != IMAGENET


# Names


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("timm", "no backbone 'timm', did you mean one such as 'timm:resnet18'?"),
        ("timm:", "no backbone 'timm:', did you mean one such as 'timm:resnet18'?"),
        ("resnet50:a", "no backbone 'resnet50:a', did you mean one such as 'resnet50'?"),
        ("tim:resnet18", "no backbone 'tim', did you mean 'timm'? There are: inception_v3, "),
        ("timm:resnet81", "no network 'resnet81' in timm, did you mean 'resnet18'? timm.list_models() of timm "),
        ("timm:resnet18.a9_in1k", "no network 'resnet18.a9_in1k' in timm, did you mean 'resnet18.a"),
        ("timm:hf-hub:timm/resnet18", "no network 'hf-hub:timm/resnet18' in timm"),
        ("timm:test_vit", "timm's test_vit does not make feature maps (N, C, H, W) of images of any size: its last"),
        ("timm:test_maxvit", "timm's test_maxvit does not make feature maps (N, C, H, W) of images of any size: Asse"),
        ("timm:mambaout_femto", "timm's mambaout_femto does not make feature maps (N, C, H, W) of images of any size"),
    ],
)
def test_name_that_is_none_is_told(name: str, start: str) -> None:
    (problem,) = problems_of(backbone=name)

    assert problem.startswith(start)


def test_network_that_is_none_is_told_with_all_other_mistakes() -> None:
    problems = problems_of(backbone="timm:resnet81", method="cam", batch_size=0, output_stride=16)

    assert [problem.split()[0] for problem in problems] == ["no", "batch_size"]


def test_variant_is_no_option() -> None:
    (problem,) = problems_of(backbone="timm:test_resnet", variant="resnet18")

    assert problem.startswith("no field or option 'variant'")


def test_trial_has_the_whole_name() -> None:
    trial = recipe.complete({**QUICK, "backbone": "timm:test_resnet", "points": "stages[-2:]"})

    assert trial.backbone == trial.spec()["backbone"] == "timm:test_resnet"
    assert trial.backbone_options == {"output_stride": 32}
    assert trial.method_options["points"] == ("layer3.0", "layer4.0")


def test_options_of_two_networks_differ_and_of_one_are_equal() -> None:
    one, same, other = (plugins.make(backbones, f"timm:{name}", {}) for name in ("vgg11", "vgg11", "vgg13"))

    assert one == same != other


def test_recommended_settings_of_the_file_are_for_all_its_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"any": {"any": {"any": {"lr": 1, "epochs": 1}}, "timm": {"any": {"lr": 2}}}}
    monkeypatch.setattr(recommended, "_recipe", lambda: layers)

    assert recommended.settings("cub", "timm:vgg11", "cam") == {"lr": 2, "epochs": 1}


# The whole


def test_run_and_report_of_a_trial(wsolbench: Command, place: Place) -> None:
    settings = words(backbone="timm:test_resnet", image_size=64, epochs=1, data=place.data)

    ended = wsolbench("run", *settings, "--results", place.results)

    assert ended.code == 0, ended.err
    trial = recipe.complete({**QUICK, "backbone": "timm:test_resnet", "image_size": 64, "epochs": 1})
    record = job.run(trial, place)
    assert record["stages"] == ["act1", "layer1.0", "layer2.0", "layer3.0", "layer4.0"]
    assert "timm:test_resnet" in wsolbench("status", "--results", place.results).out


def test_refusal_of_a_network_is_a_usage_error(wsolbench: Command, place: Place) -> None:
    ended = wsolbench("run", *words(backbone="timm:test_vit"), "--results", place.results)

    assert (ended.code, "does not make feature maps" in ended.err) == (2, True)


def test_sweep_of_networks(tmp_path: Path) -> None:
    text = "base: {dataset: shapes, method: adl, weights: none}\ngrid:\n  backbone: [tiny, timm:test_resnet]\n"
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")

    found = sweep.read(tmp_path / "s.yaml", {})

    assert [trial.backbone for trial in found.trials] == ["tiny", "timm:test_resnet"]


def test_sweep_tells_the_line_of_a_network_that_is_none(tmp_path: Path) -> None:
    text = "base: {dataset: shapes, method: cam, weights: none}\ngrid:\n  backbone: [timm:resnet81]\n"
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(InputError, match=r"s\.yaml:3: no network 'resnet81' in timm"):
        sweep.read(tmp_path / "s.yaml", {})


def test_overhead_counts_the_published_parameters(tmp_path: Path) -> None:
    row = "{backbone: timm:resnet18, method: cam, labels: [a, b]}"
    text = f"title: T\nnum_classes: 1000\nimage_size: 224\nrows:\n  - {row}\n"
    path = tmp_path / "o.yaml"
    path.write_text(text, encoding="utf-8")

    (line,) = overhead.overhead_file(documents.read(path)).rows
    found = overhead.overhead(line, 1000, 224)

    assert found.params == 11_689_512  # of ResNet18 with 1,000 classes
    assert found.macs == pytest.approx(1.814e9, rel=0.001)


def test_list_shows_how_to_name_a_network(wsolbench: Command) -> None:
    (line,) = (line for line in wsolbench("list", "backbones").out.splitlines() if line.split()[:1] == ["timm"])

    assert "[such as timm:resnet18; output_stride=32; points: conv1 act1 maxpool layer1.0" in line


def test_adl_trains_with_layers_at_all_stages() -> None:
    backbone = made("test_resnet", "cpu")
    adl = plugins.make(methods, "adl", {"points": list(backbone.stages)})
    net = build(adl, backbone, 3)

    loss = F.cross_entropy(net(torch.randn(4, 3, 64, 64)).logits, torch.tensor([0, 1, 2, 0]))
    loss.backward()

    assert loss.isfinite()
    assert len(net.backbone.inserted) == len(net.backbone.stages)
