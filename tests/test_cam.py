import pytest
import torch

from wsolbench.method import GapHead

LAST = torch.tensor([[[[1.0, 3.0]], [[2.0, 6.0]]]])  # two channels, 1 x 2: means 2 and 4
LABELS = torch.tensor([1])


@pytest.fixture(params=[False, True], ids=["pooled", "dense"])
def head(request: pytest.FixtureRequest) -> GapHead:
    made = GapHead(2, 3, dense=request.param)
    weight = torch.tensor([[1.0, 0.0], [0.5, -1.0], [0.0, 2.0]])
    assert made.load_classifier(weight, torch.tensor([0.0, 10.0, 1.0]))
    return made


def test_scores_are_of_the_pooled_map(head: GapHead) -> None:
    output = head({"last": LAST}, None)

    torch.testing.assert_close(output.logits, torch.tensor([[2.0, 7.0, 9.0]]))


def test_score_map_is_the_weighted_sum_without_bias(head: GapHead) -> None:
    maps = head.score_maps(head({"last": LAST}, LABELS), LABELS)

    torch.testing.assert_close(maps, torch.tensor([[[-1.5, -4.5]]]))


def test_mean_of_the_score_map_is_the_score_less_its_bias(head: GapHead) -> None:
    last, labels = torch.randn(4, 2, 3, 5), torch.tensor([0, 1, 2, 1])
    output = head({"last": last}, labels)

    scores = head.score_maps(output, labels).mean((1, 2)) + head.classifier.bias[labels]

    torch.testing.assert_close(scores, output.logits[torch.arange(4), labels])


def test_a_classifier_of_other_classes_is_not_taken(head: GapHead) -> None:
    before = head.classifier.weight.clone()

    assert not head.load_classifier(torch.zeros(4, 2), torch.zeros(4))
    assert torch.equal(head.classifier.weight, before)


def test_loss_of_probabilities_is_the_mean_of_both_labels_losses(head: GapHead) -> None:
    output = head({"last": LAST}, None)

    def loss(targets: list[float]) -> torch.Tensor:
        return head.loss(output, torch.tensor([targets]))

    torch.testing.assert_close(loss([0.25, 0.75, 0.0]), 0.25 * loss([1.0, 0.0, 0.0]) + 0.75 * loss([0.0, 1.0, 0.0]))
