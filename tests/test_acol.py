import math
from typing import Any

import pytest
import torch
from torch import nn

from wsolbench import backbones, methods, plugins
from wsolbench.method import build, min_max

acol = plugins.load(methods, "acol")

FEATURES = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]], [[8.0, 8.0], [4.0, 0.0]]]])  # as maps of two classes
LABELS = torch.tensor([0])
ERASED = [[[[0.0, 1.0], [0.0, 0.0]], [[8.0, 8.0], [0.0, 0.0]]]]  # where the first, over its maximum 4, is >= 0.5


def head(threshold: float = 0.5) -> Any:
    """A head whose branches give the features back, so that they are the class maps."""
    with torch.device("meta"):
        made = acol.ComplementaryHead(acol.ACoL(threshold=threshold), 2, 2)
    made.a, made.b = nn.Identity(), nn.Identity()
    return made


def test_erases_where_the_first_branch_is_at_or_above_the_threshold() -> None:
    assert head().erased(FEATURES, FEATURES, LABELS).tolist() == ERASED


def test_the_map_of_the_label_decides_what_is_erased() -> None:
    erased = head().erased(FEATURES, FEATURES, torch.tensor([1]))

    assert erased.tolist() == [[[[0.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]]


def test_loss_is_the_cross_entropy_of_both_branches() -> None:
    output = head()({"last": FEATURES}, LABELS)

    loss = head().loss(output, torch.tensor([[1.0, 0.0]]))

    def cross_entropy(right: float, wrong: float) -> float:
        return math.log(1 + math.exp(wrong - right))

    assert output.logits.tolist() == [[7 / 4, 5.0]]
    assert float(loss) == pytest.approx(cross_entropy(7 / 4, 5.0) + cross_entropy(1 / 4, 4.0))


def test_the_mask_has_no_gradient() -> None:
    features = FEATURES.clone().requires_grad_()

    head()({"last": features}, LABELS).maps["logits_b"].sum().backward()

    assert features.grad is not None
    assert features.grad.tolist() == [[[[0.25, 0.25], [0.0, 0.0]], [[0.25, 0.25], [0.0, 0.0]]]]


def test_score_map_is_the_larger_of_both_scaled_maps() -> None:
    made = head().eval()

    maps = made.score_maps(made({"last": FEATURES}, None), LABELS)

    assert maps.tolist() == [[[0.0, 1.0], [0.5, 1.0]]]  # A: 0 .25 / .5 1; B, erased: 0 1 / 0 0


def test_score_maps_are_of_the_labels_asked_for_not_of_those_in_the_forward_pass() -> None:
    made = head().eval()

    maps = [made.score_maps(made({"last": FEATURES}, known), torch.tensor([1])) for known in (LABELS, None)]

    assert torch.equal(*maps)
    assert maps[0].tolist() == [[[1.0, 1.0], [0.5, 0.0]]]  # A: 1 1 / .5 0; B, erased: 0 everywhere


def test_a_constant_map_gives_zeros_not_nan() -> None:
    features = torch.full((1, 2, 2, 2), 3.0)
    made = head()

    assert made.erased(features, features, LABELS).tolist() == features.tolist()
    assert made.score_maps(made({"last": features}, LABELS), LABELS).tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


def test_min_max_scales_each_image_by_itself() -> None:
    maps = torch.tensor([[[1.0, 3.0]], [[10.0, 10.0]], [[-4.0, 0.0]]])

    assert min_max(maps).tolist() == [[[0.0, 1.0]], [[0.0, 0.0]], [[0.0, 1.0]]]


def test_scores_are_those_of_the_first_branch() -> None:
    made = head()

    assert torch.equal(made({"last": FEATURES}, LABELS).logits, made.eval()({"last": FEATURES}, None).logits)


def test_pools_are_of_stride_one() -> None:
    with torch.device("meta"):
        made = acol.ComplementaryHead(acol.ACoL(pools=True), 2, 2)
    spot = torch.zeros(1, 1, 5, 5)
    spot[0, 0, 2, 2] = 9.0

    pooled = made.pools(spot)

    assert pooled[0, 0].tolist() == [  # maximum: a square of 3; average: how many of the 9 are in it
        [1.0, 2.0, 3.0, 2.0, 1.0],
        [2.0, 4.0, 6.0, 4.0, 2.0],
        [3.0, 6.0, 9.0, 6.0, 3.0],
        [2.0, 4.0, 6.0, 4.0, 2.0],
        [1.0, 2.0, 3.0, 2.0, 1.0],
    ]


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [("vgg16", 45_080_336), ("resnet50", 82_185_232), ("inception_v3", 44_050_096)],  # the released networks
)
def test_parameters_with_1000_classes(backbone: str, parameters: int) -> None:
    with torch.device("meta"):
        net = build(acol.ACoL(), plugins.make(backbones, backbone, {}).build(), 1000)

    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
