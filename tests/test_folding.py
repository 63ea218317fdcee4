from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from wsolbench import arithmetic, extract, folding, loop
from wsolbench.backbone import Backbone
from wsolbench.batches import Batch
from wsolbench.method import Head, Method, Net, Output, build


class Body(nn.Module):
    """A convolution, a batch normalisation and, by `between`, what else comes before the map."""

    def __init__(self, between: "Between | None" = None, *, bias: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4)
        self.between = between

    def forward(self, images: Tensor) -> Tensor:
        """The last map."""
        made = self.conv(images)
        return self.norm(made) if self.between is None else self.between(self, made)


Between = Callable[[Body, Tensor], Tensor]


def net_of(body: nn.Module) -> Net:
    torch.manual_seed(0)
    for layer in body.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None and layer.running_mean is not None:
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            for weights in layer.parameters():
                nn.init.normal_(weights)
    return build(Method(), Backbone(body, {"norm": "body.norm", "conv": "body.conv"}, ("norm",), (4,)), 2).eval()


def of_names(net: Net) -> dict[str, str]:
    names = {layer: name for name, layer in net.backbone.body.named_modules()}
    return {names[conv]: names[norm] for conv, norm in folding.pairs(net, 8).items()}


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_convolution_does_the_work_of_its_normalisation(bias: bool) -> None:
    net, images = net_of(body := Body(bias=bias)), torch.randn(2, 3, 8, 8)
    convolved, expected = body.conv(images), body(images)

    with folding.folded(net, 8):
        found = body(images)
        alone = body.conv(images)

    torch.testing.assert_close(found, expected)
    assert torch.equal(alone, found)
    assert torch.equal(body.conv(images), convolved)
    assert torch.equal(body(images), expected)


def test_a_normalisation_is_folded_where_it_alone_reads_a_convolution() -> None:
    assert of_names(net_of(Body())) == {"conv": "norm"}


def second(body: Body, made: Tensor) -> Tensor:
    return body.norm(body.conv(made[:, :3]))


@pytest.mark.parametrize(
    "between",
    [
        lambda body, made: body.norm(made) + made,
        lambda body, made: body.norm(made.relu()),
        lambda body, made: body.norm(made.relu_()),
        lambda body, made: body.norm(made) + body.norm(made + 1),
        lambda body, made: body.norm(made[:, :]),
        second,
    ],
    ids=["added", "rectified", "rectified in place", "normalised twice", "as a view", "convolved twice"],
)
def test_a_convolution_is_not_folded_whose_output_something_else_reads(between: Between) -> None:
    assert of_names(net_of(Body(between))) == {}


def test_a_convolution_is_not_folded_whose_output_the_score_maps_read() -> None:
    net, kept = net_of(Body(lambda body, made: kept.append(made) or body.norm(made))), list[Tensor]()
    net.head.score_maps = lambda *_: kept[-1].sum(1)  # type: ignore[method-assign]

    assert of_names(net) == {}


def test_feature_maps_of_a_convolution_keep_it_as_it_is() -> None:
    net = net_of(Body())
    net.backbone.tap("conv")

    assert of_names(net) == {}


def test_a_layer_after_a_normalisation_sees_the_same() -> None:
    net, images = net_of(Body()), torch.randn(2, 3, 8, 8)
    net.backbone.insert("norm", nn.Sigmoid())
    expected = net(images).logits

    with folding.folded(net, 8):
        torch.testing.assert_close(net(images).logits, expected)


@pytest.mark.parametrize("own", ["conv", "norm"])
def test_a_layer_with_a_forward_of_its_own_is_left_alone(own: str) -> None:
    net = net_of(body := Body())
    layer = body.get_submodule(own)
    layer.forward = type(layer).forward.__get__(layer)

    assert of_names(net) == {}


def test_a_normalisation_without_statistics_is_left_alone() -> None:
    body = Body()
    body.norm = nn.BatchNorm2d(4, track_running_stats=False)

    assert of_names(net_of(body)) == {}


def test_all_is_as_before_after_an_error() -> None:
    body = Body()
    body.conv = nn.Conv2d(3, 4, 1)
    net = net_of(body)  # whose convolution has another way to compute in bf16
    before = dict(vars(body.conv))

    with pytest.raises(KeyboardInterrupt), folding.folded(net, 8):
        raise KeyboardInterrupt

    assert vars(body.conv) == before
    assert arithmetic.is_own(body.conv)
    assert "forward" not in vars(body.norm)
    assert not body.conv._forward_hooks


class Scaled(Head):
    """Classifies the normalised map; its score maps are asked for by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.classifier = nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, maps: Mapping[str, Tensor], labels: Tensor | None) -> Output:
        """Scores from the pooled map."""
        del labels
        return Output(self.classifier(self.norm(maps["last"]).relu().mean((2, 3))))


def test_an_extractor_reads_the_same_map_off_a_network() -> None:
    net, extractor = net_of(Body(lambda _, made: made)), extract.extractor("layercam")
    net.head = Scaled().eval()
    batch = Batch(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]), ("a", "b"))
    ((_, expected),) = loop.predict(net, [batch], torch.device("cpu"), extractor)

    with folding.folded(net, 8, extractor):
        ((_, found),) = loop.predict(net, [batch], torch.device("cpu"), extractor)

    torch.testing.assert_close(found, expected)


def test_a_head_is_told_the_labels_while_it_is_seen_what_may_be_folded() -> None:
    net, told = net_of(Body()), list[Tensor | None]()
    forward = net.head.forward
    net.head.forward = lambda maps, labels: told.append(labels) or forward(maps, labels)  # type: ignore[method-assign]

    folding.pairs(net, 8)

    assert [labels is not None and labels.tolist() for labels in told] == [[0]]


def test_a_network_that_fails_of_an_empty_image_is_left_alone() -> None:
    def crop(body: Body, made: Tensor) -> Tensor:
        assert made.std((2, 3)).max() > 1e-6, "there is nothing on this image"
        return body.norm(made)

    net, images = net_of(Body(crop)), torch.randn(2, 3, 8, 8)
    expected = net(images).logits

    with folding.folded(net, 8):
        assert torch.equal(net(images).logits, expected)


def test_a_network_that_trains_in_evaluation_is_left_alone() -> None:
    class Adapting(Body):
        def train(self, mode: bool = True) -> "Adapting":
            super().train(mode)
            self.norm.train()
            return self

    net, images = net_of(body := Adapting()), torch.randn(2, 3, 8, 8)
    statistics = body.norm.get_buffer("running_mean").clone()
    expected = net(images).logits
    body.norm.running_mean = statistics.clone()

    with folding.folded(net, 8):
        assert torch.equal(body.norm.running_mean, statistics)
        assert torch.equal(net(images).logits, expected)


def test_a_normalisation_may_be_called_by_keyword() -> None:
    assert of_names(net_of(Body(lambda body, made: body.norm(input=made)))) == {}


@pytest.mark.parametrize("swapped", ["conv", "norm"])
def test_a_layer_that_computes_with_other_weights_than_its_own_is_left_alone(swapped: str) -> None:
    def average(body: Body, images: Tensor) -> Tensor:
        layers = {"conv": body.conv, "norm": body.norm}
        for name, layer in layers.items():
            weights = {"weight": layer.weight / 2} if name == swapped else {}
            images = functional_call(layer, weights, images)
        return images

    body = Body()
    body.forward = lambda images: average(body, images)  # type: ignore[method-assign]

    assert of_names(net_of(body)) == {}
