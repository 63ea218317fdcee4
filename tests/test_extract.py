import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import Command, words
from tests.test_conformance import CLASSES, backbone_of, every_method, network
from tests.test_loop import CPU, batch
from wsolbench import documents, extract, job, loop, recipe
from wsolbench.backbone import Backbone
from wsolbench.batches import Batch
from wsolbench.errors import InputError
from wsolbench.loop import DivergedError
from wsolbench.method import Head, Net, Output
from wsolbench.place import Place
from wsolbench.trial import Trial

OF_GRADIENTS = ["gradcam", "gradcam++", "layercam"]
every_extractor = pytest.mark.parametrize("name", OF_GRADIENTS)


class Squares(Head):
    """Scores whose gradient differs from place to place, and in sign."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, num_classes)

    def scores(self, features: Tensor) -> Tensor:
        return self.classifier((features**2 - 0.5 * features).mean((2, 3)))

    def forward(self, maps: Mapping[str, Tensor], labels: Tensor | None) -> Output:
        del labels
        return Output(self.scores(maps["last"]))


class ChangesItsInput(Squares):
    """Begins with an operation in place."""

    def forward(self, maps: Mapping[str, Tensor], labels: Tensor | None) -> Output:
        return super().forward({"last": F.relu(maps["last"].sub_(0.1), inplace=True)}, labels)


class Breaks(Squares):
    def scores(self, features: Tensor) -> Tensor:
        raise MemoryError(f"no memory for {tuple(features.shape)}")


class RootOfNothing(Squares):
    """Finite scores, whose gradient is infinity times 0."""

    def scores(self, features: Tensor) -> Tensor:
        return super().scores(features) + (features * 0).sqrt().mean()


class LooksAway(Squares):
    """Scores that do not see what is no number."""

    def scores(self, features: Tensor) -> Tensor:
        return super().scores(features.nan_to_num())


def small(head: type[Squares] = Squares, backbone: Backbone | None = None) -> Net:
    torch.manual_seed(0)
    body = backbone or backbone_of("tiny")
    net = Net(body, head(body.channels, CLASSES), CLASSES)
    with torch.no_grad():
        net.backbone.body[0][0].weight.mul_(20)  # so that the maps are not almost 0
    return net


def read(name: str, net: Net, data: Batch) -> tuple[Tensor, Tensor]:
    """Logits and score maps."""
    ((logits, maps),) = loop.predict(net, [data], CPU, extract.extractor(name))
    return logits, maps


def features_and_gradients(net: Net, data: Batch) -> tuple[Tensor, Tensor]:
    """The last feature map, and the gradient of the labels' scores, image by image."""
    last = net.eval().backbone(data.images)["last"].detach()
    gradients = []
    for features, label in zip(last, data.labels, strict=True):
        leaf = features[None].clone().requires_grad_()
        net.head({"last": leaf}, None).logits[0, label].backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    net.zero_grad()
    return last, torch.cat(gradients)


# Against the papers


def test_gradcam_of_average_pooling_and_a_linear_classifier_is_the_positive_part_of_cam() -> None:
    net, data = network("cam", "tiny")[1], batch(5)
    _, own = read("cam", net, data)

    _, maps = read("gradcam", net, data)

    places = own.shape[1] * own.shape[2]  # pooling divides the gradient by their number
    torch.testing.assert_close(maps, own.relu() / places)
    assert own.min() < 0 < own.max()


def test_gradcam_by_hand() -> None:
    net, data = small(), batch(5)
    features, gradients = features_and_gradients(net, data)
    weights = gradients.sum((2, 3)) / (4 * 4)

    expected = sum(weights[:, c, None, None] * features[:, c] for c in range(features.shape[1]))

    torch.testing.assert_close(read("gradcam", net, data)[1], torch.as_tensor(expected).clamp_min(0))


def test_layercam_by_hand() -> None:
    net, data = small(), batch(5)
    features, gradients = features_and_gradients(net, data)

    expected = sum(gradients[:, c].clamp_min(0) * features[:, c] for c in range(features.shape[1]))

    torch.testing.assert_close(read("layercam", net, data)[1], torch.as_tensor(expected).clamp_min(0))


def test_gradcam_plus_plus_by_hand() -> None:
    """Section 3.2 of the paper, with Y = exp(S): its derivatives are the powers of that of S, times Y."""
    net, data = small(), batch(5)
    features, gradients = features_and_gradients(net, data)
    expected = torch.zeros(5, 4, 4)
    for n, c in torch.cartesian_prod(torch.arange(5), torch.arange(features.shape[1])).tolist():
        a, g = features[n, c].double(), gradients[n, c].double()
        weight = 0.0
        for i, j in torch.cartesian_prod(torch.arange(4), torch.arange(4)).tolist():
            if g[i, j] > 0:
                denominator = 2 * g[i, j] ** 2 + (a * g[i, j] ** 3).sum()
                weight += float(g[i, j] ** 2 / denominator * g[i, j])
        expected[n] += weight * features[n, c]

    torch.testing.assert_close(read("gradcam++", net, data)[1], expected.clamp_min(0), rtol=1e-4, atol=1e-6)


def test_feature_map_is_that_behind_neck_and_inserted_layers() -> None:
    backbone = backbone_of("tiny")
    backbone.insert("conv5", nn.AvgPool2d(2))
    net, data = small(backbone=backbone), batch(3)
    features, gradients = features_and_gradients(net, data)
    assert features.shape == (3, 64, 2, 2)

    torch.testing.assert_close(read("layercam", net, data)[1], (gradients.clamp_min(0) * features).sum(1).clamp_min(0))


# Promises to every method


@every_extractor
@every_method
def test_scores_are_those_of_cam_and_maps_are_finite(method: str, name: str) -> None:
    net, data = network(method, "tiny")[1], batch(4)
    logits, own = read("cam", net, data)

    found, maps = read(name, net, data)

    assert torch.equal(found, logits)
    assert (maps.shape, maps.dtype) == (own.shape, torch.float32)
    assert maps.isfinite().all()
    assert maps.any()
    assert [found.requires_grad, maps.requires_grad] == [False, False]


@every_extractor
@every_method
def test_reading_is_deterministic(method: str, name: str) -> None:
    net, data = network(method, "tiny")[1], batch(4)

    assert torch.equal(read(name, net, data)[1], read(name, net, data)[1])


def hooks(net: Net) -> list[int]:
    return [len(getattr(m, kind)) for m in net.modules() for kind in ("_forward_hooks", "_backward_hooks")]


@every_extractor
@every_method
def test_reading_leaves_the_network_as_it_was(method: str, name: str) -> None:
    net = network(method, "tiny")[1]
    before, hooked = deepcopy(net.state_dict()), hooks(net)

    read(name, net, batch(4))

    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert hooks(net) == hooked


@every_extractor
def test_images_of_a_batch_do_not_know_each_other(name: str) -> None:
    net, data = small(), batch(4)
    alone = Batch(data.images[2:3], data.labels[2:3], data.names[2:3])

    torch.testing.assert_close(read(name, net, data)[1][2:3], read(name, net, alone)[1])


@every_extractor
def test_head_that_changes_its_input_in_place_is_read_too(name: str) -> None:
    net, data = small(ChangesItsInput), batch(4)
    with torch.inference_mode():
        expected = net.eval()(data.images).logits

    logits, maps = read(name, net, data)

    torch.testing.assert_close(logits, expected)
    assert maps.isfinite().all()


@every_extractor
def test_no_hook_stays_after_an_error(name: str) -> None:
    net = small(Breaks)
    hooked = hooks(net)

    with pytest.raises(MemoryError, match="no memory for"):
        read(name, net, batch(2))

    assert hooks(net) == hooked
    assert all(parameter.grad is None for parameter in net.parameters())


@every_extractor
def test_gradient_that_is_no_number_is_not_taken_for_0(name: str) -> None:
    with pytest.raises(DivergedError, match=r"not finite in the batch of images 0\.jpg, 1\.jpg$"):
        read(name, small(RootOfNothing), batch(2))


@every_extractor
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_feature_that_is_no_number_is_not_taken_for_0(name: str, value: float) -> None:
    data = batch(2)
    data.images[1] = value

    with pytest.raises(DivergedError, match="not finite"):
        read(name, small(LooksAway), data)


# The field of a trial


def test_choices_are_classes_of_torchcam() -> None:
    choices = documents.read(recipe.Path(extract.__file__).with_suffix(".yaml")).data

    assert list(choices) == ["cam", *OF_GRADIENTS]
    assert {name: getattr(extract.extractor(name), "__name__", None) for name in choices} == choices


def quick(**settings: Any) -> Trial:
    return recipe.complete({"dataset": "shapes", "backbone": "tiny", "method": "cam", "epochs": 0, **settings})


def test_default_is_cam() -> None:
    assert quick() == quick(extract="cam")


def test_record_has_the_maps_that_were_asked_for(trained: tuple[Trial, Place, dict[str, Any]], place: Place) -> None:
    trial, _, record = trained

    other = job.run(replace(trial, extract="layercam"), place)

    assert other["weights_digest"] == record["weights_digest"]
    assert other["results"]["wsolbench"]["top1_clas"] == record["results"]["wsolbench"]["top1_clas"]
    assert "torchcam" in other["environment"]["packages"]


@pytest.fixture
def _no_torchcam(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torchcam", "torchcam.methods"):
        monkeypatch.setitem(sys.modules, module, None)


NEEDED = "extract=gradcam needs torchcam: pip install 'wsolbench[extract]'"


@pytest.mark.usefixtures("_no_torchcam")
def test_missing_library_is_told_before_training(wsolbench: Command, place: Place) -> None:
    settings = words(data=place.data, extract="gradcam")

    ended = wsolbench("run", *settings, "--results", place.results)

    assert (ended.code, NEEDED in ended.err) == (2, True)
    assert not list(place.results.rglob("*.safetensors"))
    assert not list(place.results.rglob("epochs*"))


@pytest.mark.usefixtures("_no_torchcam")
def test_check_tells_a_missing_library(trained: tuple[Trial, Place, dict[str, Any]]) -> None:
    trial, place, _ = trained

    with pytest.raises(InputError) as caught:
        job.check(replace(trial, extract="gradcam"), place)

    assert caught.value.problems == (NEEDED,)


@pytest.mark.usefixtures("_no_torchcam")
def test_cam_needs_no_library() -> None:
    assert extract.extractor("cam") is None
