import math

import pytest
import torch
from torch import Tensor

from wsolbench import backbones, methods, plugins
from wsolbench.errors import InputError
from wsolbench.method import Net, build

adl = plugins.load(methods, "adl")

FEATURES = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[3.0, 2.0], [1.0, 4.0]]]])  # mean over channels: 2 2 / 2 4


def layer(**options: float) -> torch.nn.Module:
    return adl.AttentionDropout(adl.ADL(points=("conv4",), **options))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def network(method: str, options: dict[str, object]) -> Net:
    torch.manual_seed(0)
    return build(plugins.make(methods, method, options), plugins.make(backbones, "tiny", {}).build(), 3)


def test_drop_mask_hides_what_is_not_below_the_threshold() -> None:
    attention = torch.tensor([[[[2.0, 2.5], [3.0, 4.0]]]])

    mask = adl.drop_mask(attention, 0.7)  # threshold 2.8

    assert mask.tolist() == [[[[1.0, 1.0], [0.0, 0.0]]]]


def test_drop_mask_hides_what_equals_the_threshold() -> None:
    mask = adl.drop_mask(torch.tensor([[[[2.0, 4.0]]]]), 0.5)

    assert mask.tolist() == [[[[0.0, 0.0]]]]


def test_drop_mask_takes_the_maximum_of_each_image() -> None:
    attention = torch.tensor([[[[1.0, 4.0]]], [[[10.0, 40.0]]]])

    mask = adl.drop_mask(attention, 0.5)

    assert mask.tolist() == [[[[1.0, 0.0]]], [[[1.0, 0.0]]]]


@pytest.mark.parametrize(
    ("attention", "gamma", "expected"),
    [
        ([-1.0, -2.0], 0.5, [1.0, 1.0]),  # a maximum below 0: nothing is dropped
        ([-1.0, -2.0], 1.0, [1.0, 1.0]),
        ([0.0, 0.0], 0.5, [0.0, 0.0]),  # a map of zeros: all is dropped
        ([1.0, 3.0], 0.0, [0.0, 0.0]),
        ([1.0, 3.0], 1.0, [1.0, 0.0]),  # the maximum itself is dropped
    ],
)
def test_drop_mask_at_its_edges(attention: list[float], gamma: float, expected: list[float]) -> None:
    assert adl.drop_mask(torch.tensor([[[attention]]]), gamma).flatten().tolist() == expected


def test_drop_branch_multiplies_by_the_mask_in_both_directions() -> None:
    features = FEATURES.clone().requires_grad_()

    out = layer(drop_rate=1.0, gamma=0.6)(features)  # threshold 2.4: only the lower right is at or above it
    out.sum().backward()

    kept = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert torch.equal(out, FEATURES * kept)
    assert features.grad is not None
    assert torch.equal(features.grad, kept.expand(1, 2, 2, 2))


def test_importance_branch_has_the_gradient_of_the_sigmoid_and_of_the_mean() -> None:
    features = FEATURES.clone().requires_grad_()

    out = layer(drop_rate=0.0)(features)
    out.sum().backward()

    weights = {a: sigmoid(a) for a in (2.0, 4.0)}
    slopes = {a: s + a * s * (1 - s) for a, s in weights.items()}  # d/dx of (x + y) s((x + y) / 2)
    expected = FEATURES * torch.tensor([[weights[2.0], weights[2.0]], [weights[2.0], weights[4.0]]])
    gradient = torch.tensor([[slopes[2.0], slopes[2.0]], [slopes[2.0], slopes[4.0]]]).expand(1, 2, 2, 2)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(features.grad, gradient)


@pytest.mark.parametrize("seed", range(8))
def test_what_was_drawn_has_the_bits_of_choosing_between_both_maps(seed: int) -> None:
    dropout, (own, theirs) = layer(drop_rate=0.5, gamma=0.6), [FEATURES.clone().requires_grad_() for _ in range(2)]
    torch.manual_seed(seed)
    drop = torch.rand(()) < 0.5
    maps = dropout.maps(theirs)
    expected = theirs * torch.where(drop, maps["drop mask"], maps["importance map"])
    torch.manual_seed(seed)

    out = dropout(own)
    out.square().sum().backward()
    expected.square().sum().backward()

    assert torch.equal(out, expected)
    assert torch.equal(own.grad, theirs.grad)


def test_one_draw_for_all_images_of_a_batch() -> None:
    features = FEATURES.repeat(16, 1, 1, 1)
    torch.manual_seed(0)
    dropout = layer(drop_rate=0.5, gamma=0.6)

    outs = [dropout(features) for _ in range(20)]

    assert all(torch.equal(out, out[:1].expand_as(out)) for out in outs)
    assert len({float(out.sum()) for out in outs}) == 2


def test_layers_and_forward_passes_draw_independently() -> None:
    torch.manual_seed(0)
    layers = [layer(drop_rate=0.5, gamma=0.6) for _ in range(2)]

    drawn = [tuple(bool(each(FEATURES)[0, 0, 1, 1] == 0) for each in layers) for _ in range(64)]

    assert set(drawn) == {(False, False), (False, True), (True, False), (True, True)}


def test_drop_rate_is_the_share_of_drops() -> None:
    torch.manual_seed(0)
    dropout = layer(drop_rate=0.75, gamma=0.6)

    drops = sum(bool(dropout(FEATURES)[0, 0, 1, 1] == 0) for _ in range(400))

    assert abs(drops - 300) < 4 * math.sqrt(400 * 0.75 * 0.25)


@pytest.mark.parametrize(("drop_rate", "switch"), [(1.0, "drop_mask"), (0.0, "importance_map")])
def test_a_component_switched_off_passes_the_raw_map(drop_rate: float, switch: str) -> None:
    assert torch.equal(layer(drop_rate=drop_rate, **{switch: False})(FEATURES), FEATURES)


@pytest.mark.parametrize(("drop_rate", "switch"), [(0.0, "drop_mask"), (1.0, "importance_map")])
def test_a_component_switched_off_leaves_the_other(drop_rate: float, switch: str) -> None:
    assert torch.equal(layer(drop_rate=drop_rate, **{switch: False})(FEATURES), layer(drop_rate=drop_rate)(FEATURES))


def test_the_identity_when_not_training() -> None:
    assert layer().eval()(FEATURES) is FEATURES


def test_the_mask_is_computed_in_full_precision() -> None:
    step = 2.0**-7  # of bfloat16 above 1; half of it is rounded away
    features = torch.tensor([[[[1.0, 1.0]], [[1.0, 1.0 + step]]]], dtype=torch.bfloat16)

    with torch.autocast("cpu", torch.bfloat16):
        out = layer(drop_rate=1.0, gamma=1.0)(features)

    assert out.dtype == torch.bfloat16
    assert out[0, 0, 0].tolist() == [1.0, 0.0]


def outputs(net: Net, images: Tensor) -> tuple[Tensor, Tensor]:
    net.eval()
    with torch.inference_mode():
        output = net(images)
        return output.logits, net.head.score_maps(output, torch.tensor([0, 2]))


def test_is_the_network_of_cam_when_not_training() -> None:
    with_layers, plain = network("adl", {"points": ("pool2", "conv4", "conv5")}), network("cam", {})
    images = torch.randn(2, 3, 32, 48)

    plain.load_state_dict(with_layers.state_dict())

    assert list(with_layers.state_dict()) == list(plain.state_dict())
    assert torch.equal(outputs(with_layers, images)[0], outputs(plain, images)[0])
    assert torch.equal(outputs(with_layers, images)[1], outputs(plain, images)[1])


def test_changes_the_network_at_each_point_when_training() -> None:
    images = torch.randn(2, 3, 32, 32)
    plain = network("cam", {})(images).logits

    for point in ("conv1", "pool1", "conv4", "conv5"):
        changed = network("adl", {"points": (point,), "drop_rate": 1.0})(images).logits
        assert not torch.equal(changed, plain)


def test_an_unknown_point_is_refused() -> None:
    with pytest.raises(InputError, match="no feature point 'pool9'; this backbone has: conv1, pool1"):
        network("adl", {"points": ("pool9",)})


def test_a_drop_rate_above_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"drop_rate must be at most 1, not 75\.0"):
        plugins.make(methods, "adl", {"points": ("conv4",), "drop_rate": 75.0})
