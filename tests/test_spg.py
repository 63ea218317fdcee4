import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wsolbench import backbones, methods, plugins
from wsolbench.errors import InputError
from wsolbench.method import Output, build

spg = plugins.load(methods, "spg")

GUIDE = torch.tensor([[[0.9, 0.8, 0.6, 0.04, 0.2]]])


def certain(guide: Tensor, high: float, low: float) -> tuple[Any, Any]:
    foreground, background = spg.certain(guide, (high, low))
    return foreground.int().tolist(), background.int().tolist()


@pytest.fixture
def _one_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spg, "FEWEST", 1)


@pytest.mark.usefixtures("_one_is_enough")
def test_above_the_first_is_foreground_below_the_second_background() -> None:
    assert certain(GUIDE, 0.7, 0.05) == ([[[1, 1, 0, 0, 0]]], [[[0, 0, 0, 1, 0]]])


@pytest.mark.usefixtures("_one_is_enough")
def test_thresholds_are_strict() -> None:
    assert certain(torch.tensor([[[0.75, 0.5, 0.25]]]), 0.75, 0.25) == ([[[1, 0, 0]]], [[[0, 0, 0]]])  # .75 as the peak
    assert certain(torch.tensor([[[0.8, 0.75, 0.25]]]), 0.75, 0.25) == ([[[1, 0, 0]]], [[[0, 0, 0]]])


def test_few_pixels_of_foreground_lower_the_threshold_of_their_own_image_only() -> None:
    few = torch.cat([torch.full((10,), 0.8), torch.full((30,), 0.6), torch.full((60,), 0.3)]).view(1, 10, 10)
    many = torch.cat([torch.full((30,), 0.8), torch.full((30,), 0.6), torch.full((40,), 0.3)]).view(1, 10, 10)

    foreground, _ = spg.certain(torch.cat([few, many]), (0.7, 0.05))

    assert foreground.sum((1, 2)).tolist() == [40, 30]  # above 0.56; above 0.7


def test_what_is_both_is_background() -> None:
    weak = torch.tensor([[[0.04, 0.01, 0.0]]])  # all below the second threshold, the peak among them

    assert certain(weak, 0.7, 0.05) == ([[[0, 0, 0]]], [[[1, 1, 1]]])


@pytest.mark.usefixtures("_one_is_enough")
def test_guidance_loss_is_the_mean_over_certain_pixels() -> None:
    logits = torch.tensor([[[2.0, -1.0, 5.0, 0.5, 7.0]]])  # fore, fore, ignored, back, ignored

    loss = spg.guidance_loss(logits, GUIDE, (0.7, 0.05))

    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1)) + math.log(1 + math.exp(0.5))) / 3
    assert float(loss) == pytest.approx(expected)


def test_guidance_of_nothing_certain_is_zero_not_nan() -> None:
    logits = torch.zeros(1, 1, 3, requires_grad=True)

    loss = spg.guidance_loss(logits, torch.zeros(1, 1, 3), (0.7, 0.0))
    loss.backward()

    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert logits.grad.tolist() == [[[0.0, 0.0, 0.0]]]


def head(tapped: tuple[int, int] = (4, 6), channels: int = 8, **options: Any) -> Any:
    torch.manual_seed(0)
    return spg.GuidedHead(spg.SPG(points=("early", "late"), width=5, **options), list(tapped), channels, 3)


def maps(height: int = 24, width: int = 40) -> dict[str, Tensor]:
    torch.manual_seed(1)
    sizes = {"early": (4, 4), "late": (6, 8), "last": (8, 8)}
    found = {name: torch.randn(2, channels, height // by, width // by) for name, (channels, by) in sizes.items()}
    return {**found, "images": torch.zeros(2, 3, height, width)}


def test_guided_maps_have_the_size_of_the_images() -> None:
    output = head()(maps(24, 40), torch.tensor([0, 2]))

    assert {name: output.maps[name].shape for name in ("guide", "b1", "b2", "c")} == dict.fromkeys(
        ("guide", "b1", "b2", "c"), (2, 24, 40)
    )


def test_the_guide_is_the_class_map_of_the_label() -> None:
    made, found = head(), maps()

    output = made(found, torch.tensor([0, 2]))

    classes = made.classifier(found["last"])
    expected = nn.functional.interpolate(classes, (24, 40), mode="bilinear")
    torch.testing.assert_close(output.maps["guide"], torch.stack([expected[0, 0], expected[1, 2]]))


def test_scores_are_the_mean_of_the_class_maps() -> None:
    made, found = head(), maps()

    logits = made(found, None).logits

    torch.testing.assert_close(logits, made.classifier(found["last"]).mean((2, 3)))


def binary_cross_entropy(logits: Tensor, guide: Tensor, high: float, low: float) -> float:
    """By loops, as an independent statement: one threshold per image, background last."""
    losses = []
    for image_logits, image_guide in zip(logits.tolist(), guide.tolist(), strict=True):
        flat = [value for row in image_guide for value in row]
        threshold = high if sum(value > high for value in flat) >= 30 else 0.7 * max(flat)
        for logit, value in zip([x for row in image_logits for x in row], flat, strict=True):
            if value < low:
                losses.append(math.log1p(math.exp(logit)))
            elif value > threshold:
                losses.append(math.log1p(math.exp(-logit)))
    return sum(losses) / len(losses)


def test_class_map_guides_b2_which_guides_b1_and_both_guide_c() -> None:
    torch.manual_seed(2)
    raw = {name: torch.randn(2, 7, 9) * 3 for name in ("guide", "b1", "b2", "c")}
    output = Output(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), **raw)

    loss = head(class_map=(0.6, 0.2), b2=(0.5, 0.1), fused=(0.7, 0.3)).loss(output, torch.eye(2))

    low, high = (extreme(raw["guide"], (1, 2), keepdim=True) for extreme in (torch.amin, torch.amax))
    b1, b2 = raw["b1"].sigmoid(), raw["b2"].sigmoid()
    expected = (
        (math.log1p(math.exp(1.0)) + math.log1p(math.exp(-3.0))) / 2
        + binary_cross_entropy(raw["b2"], (raw["guide"] - low) / (high - low), 0.6, 0.2)
        + binary_cross_entropy(raw["b1"], b2, 0.5, 0.1)
        + binary_cross_entropy(raw["c"], (b1 + b2) / 2, 0.7, 0.3)
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_guides_have_no_gradient() -> None:
    raw = {name: torch.randn(1, 7, 9, requires_grad=True) for name in ("guide", "b1", "b2", "c")}

    head().loss(Output(torch.zeros(1, 2), **raw), torch.tensor([[1.0, 0.0]])).backward()

    b2 = raw["b2"].detach().clone().requires_grad_()
    spg.guidance_loss(b2, spg.min_max(raw["guide"]), (0.7, 0.05)).backward()
    assert raw["guide"].grad is None
    assert raw["b2"].grad is not None
    torch.testing.assert_close(raw["b2"].grad, b2.grad)  # as a pupil only, not as a teacher of B1 and C


def test_guided_branches_are_skipped_when_not_training() -> None:
    made = head().eval()
    for branch in (made.b1, made.b2, made.shared, made.c):
        branch.register_forward_hook(lambda *_: pytest.fail("a guided branch ran"))

    output = made(maps(), torch.tensor([0, 2]))

    assert set(output.maps) == {"classes"}


@pytest.mark.parametrize("points", [(), ("conv4",), ("pool1", "pool2", "conv4")])
def test_other_than_two_points_are_refused(points: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="points must be two feature points"):
        plugins.make(methods, "spg", {"points": points})


@pytest.mark.parametrize(
    ("backbone", "options", "parameters"),
    [
        ("inception_v3", {"points": ("Mixed_5d", "Mixed_6d")}, 38_454_986),  # the released network
        ("resnet50", {"points": ("layer3.0", "layer3.5"), "width": 1024}, 63_310_890),  # wsolevaluation's
        ("vgg16", {"points": ("pool4", "conv5_3"), "replace_neck": True}, 29_387_562),  # wsolevaluation's
    ],
)
def test_parameters_with_1000_classes(backbone: str, options: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        net = build(plugins.make(methods, "spg", options), plugins.make(backbones, backbone, {}).build(), 1000)

    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
