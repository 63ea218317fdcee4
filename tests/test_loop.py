from copy import deepcopy
from dataclasses import replace
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from tests.conftest import QUICK
from wsolbench import backbones, loop, method, methods, plugins, recipe
from wsolbench.batches import Batch
from wsolbench.errors import InputError
from wsolbench.loop import DivergedError, Trainer
from wsolbench.method import Method, Net
from wsolbench.trial import Trial

CLASSES = 3
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trial() -> Trial:
    return recipe.complete(QUICK)


def network(name: str = "cam", **options: object) -> Net:
    torch.manual_seed(0)
    made = plugins.make(methods, name, options)
    net = method.build(made, plugins.make(backbones, "tiny", {}).build(), CLASSES)
    return net.to(memory_format=torch.channels_last)


def batch(count: int, start: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(start)
    images = torch.randn((count, 3, 16, 16), generator=generator).to(memory_format=torch.channels_last)
    return Batch(images, torch.arange(count) % CLASSES, tuple(f"{n}.jpg" for n in range(start, start + count)))


def trainer(net: Net, trial: Trial, precision: str = "fp32", made: Method | None = None) -> Trainer:
    return Trainer(net, made or plugins.make(methods, "cam", {}), loop.optimizer(net, trial), CPU, precision)


def weights(net: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in net.parameters()]


# Learning rates and parameter groups


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 1.0), (1, 1.0), (2, 0.5), (3, 0.5), (4, 0.25), (5, 0.25), (100, 0.25)]
)
def test_rates_fall_after_each_step(trial: Trial, epoch: int, factor: float) -> None:
    trial = replace(trial, lr=0.1, head_lr=0.2, lr_steps=(2, 4), lr_factor=0.5)
    sgd = loop.optimizer(network(), trial)

    loop.set_rates(sgd, trial, epoch)

    assert [group["lr"] for group in sgd.param_groups] == pytest.approx([0.1 * factor, 0.2 * factor])


@pytest.mark.parametrize(
    ("dataset", "epochs", "frequency"), [("cub", 50, 15), ("imagenet", 10, 3), ("openimages", 10, 3)]
)
def test_rates_of_the_recipe_fall_where_wsolevaluations_do(dataset: str, epochs: int, frequency: int) -> None:
    """It counts epochs from 1 and divides the rate before each whose number its frequency divides."""
    trial = recipe.complete({"dataset": dataset, "backbone": "vgg16", "method": "cam", "weights": "none"})
    sgd, rate = loop.optimizer(network(), trial), trial.lr

    assert trial.epochs == epochs
    for epoch in range(1, epochs + 1):
        rate *= 0.1 if epoch % frequency == 0 else 1
        loop.set_rates(sgd, trial, epoch - 1)
        assert sgd.param_groups[0]["lr"] == pytest.approx(rate)


def test_body_trains_at_its_rate_and_the_rest_at_the_heads(trial: Trial) -> None:
    net = network()

    body, rest = loop.optimizer(net, replace(trial, lr=0.1, head_lr=0.2)).param_groups

    assert (body["lr"], rest["lr"]) == (0.1, 0.2)
    assert {id(p) for p in body["params"]} == {id(p) for p in net.backbone.body.parameters()}
    expected = chain(net.backbone.neck.parameters(), net.head.parameters())
    assert {id(p) for p in rest["params"]} == {id(p) for p in expected}


def test_one_step_is_nesterov_sgd(trial: Trial) -> None:
    trial = replace(trial, lr=0.1, head_lr=0.2, momentum=0.9, weight_decay=0.01)
    net, data = network(), batch(4)
    before = dict(deepcopy(net).named_parameters())
    train = trainer(net, trial)

    train.step(data)
    first = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    for name, p in net.named_parameters():
        rate = 0.1 if name.startswith("backbone.body") else 0.2
        gradient = first[name] + 0.01 * before[name]

        torch.testing.assert_close(p.detach(), (before[name] - rate * (gradient + 0.9 * gradient)).detach())


def test_fused_steps_on_channels_last_equal_plain_ones(trial: Trial) -> None:
    fused, data = network(), [batch(4, start) for start in range(6)]
    plain = deepcopy(fused).to(memory_format=torch.contiguous_format)
    train = trainer(fused, trial)
    groups = [
        {"params": list(plain.pretrained_parameters()), "lr": trial.lr},
        {"params": list(plain.new_parameters()), "lr": trial.head_lr},
    ]
    sgd = SGD(
        groups, momentum=trial.momentum, nesterov=True, weight_decay=trial.weight_decay, foreach=False, fused=False
    )

    for each in data:
        train.step(each)
        sgd.zero_grad()
        F.cross_entropy(plain(each.images.contiguous()).logits, each.labels).backward()
        sgd.step()

    for a, b in zip(weights(fused), weights(plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_no_momentum_is_plain_sgd(trial: Trial) -> None:
    net = network()
    train = trainer(net, replace(trial, momentum=0.0, weight_decay=0.0, lr=0.1, head_lr=0.1))
    before = weights(net)

    train.step(batch(4))

    for p, old in zip(net.parameters(), before, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.detach(), old - 0.1 * p.grad)


# Compiled


def test_compiling_without_a_compiler_is_refused_with_what_to_do(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")

    with pytest.raises(InputError, match=r"needs a C\+\+ compiler, and there is no no-such-compiler: install one"):
        replace(trainer(network(), trial), compile=True).step(batch(2))


def test_compiling_for_a_gpu_without_triton_is_refused(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "find_spec", lambda _: None)

    with pytest.raises(InputError, match="needs triton on a GPU"):
        _ = replace(trainer(network(), trial), compile=True, device=torch.device("cuda")).forward


# Epochs


def test_loss_of_an_epoch_is_the_mean_over_its_images(trial: Trial) -> None:
    net, data = network(), [batch(4), batch(2, 4)]
    frozen = replace(trial, lr=1e-30, head_lr=1e-30)
    losses = [float(F.cross_entropy(net.train()(each.images).logits, each.labels).detach()) for each in data]

    loss = trainer(net, frozen).epoch(data).row()["loss"]

    assert loss == pytest.approx((4 * losses[0] + 2 * losses[1]) / 6, rel=1e-6)


def test_loss_of_no_batch_is_zero(trial: Trial) -> None:
    assert trainer(network(), trial).epoch([]).row()["loss"] == 0


def test_training_lowers_the_loss(trial: Trial) -> None:
    train = trainer(network(), trial)
    data = batch(6)
    data.images[range(6), data.labels] += 3  # a colour for each class

    losses = [train.epoch([data]).loss for _ in range(40)]

    assert losses[-1] < 0.5 * losses[0]


def test_epoch_trains_in_training_mode(trial: Trial) -> None:
    net = network().eval()

    trainer(net, trial).epoch([batch(2)])

    assert net.training


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_loss_that_is_no_number_names_its_batch(trial: Trial, bad: int) -> None:
    data = [batch(2, 2 * k) for k in range(3)]
    data[bad] = replace(data[bad], images=torch.full_like(data[bad].images, torch.nan))

    with pytest.raises(DivergedError) as caught:
        trainer(network(), trial).epoch(data)

    assert str(caught.value) == f"the loss is nan in the batch of images {2 * bad}.jpg, {2 * bad + 1}.jpg"


@pytest.mark.parametrize("bad", [0, loop.UNREAD - 1, loop.UNREAD, loop.UNREAD + 1])
def test_of_many_losses_the_first_that_is_no_number_names_its_batch(trial: Trial, bad: int) -> None:
    data = [batch(1, k) for k in range(loop.UNREAD + 2)]
    data[bad] = replace(data[bad], images=torch.full_like(data[bad].images, torch.nan))

    with pytest.raises(DivergedError, match=rf"^the loss is nan in the batch of images {bad}\.jpg$"):
        trainer(network(), trial).epoch(data)


def test_losses_are_read_once_in_many_steps(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda losses: reads.append(len(losses)) or stack(losses))

    reached = trainer(network(), trial).epoch([batch(1, k) for k in range(loop.UNREAD + 2)])

    assert (reached.step, reached.images, reads) == (loop.UNREAD + 2, loop.UNREAD + 2, [loop.UNREAD, 2])


def test_infinite_loss_names_its_batch(trial: Trial) -> None:
    net = network()
    with torch.no_grad():
        assert isinstance(net.head, method.GapHead)
        net.head.classifier.bias.copy_(torch.tensor([0, 3e38, 0]))

    with pytest.raises(DivergedError, match=r"^the loss is inf in the batch of images 0\.jpg, 1\.jpg, 2\.jpg$"):
        trainer(net, trial).epoch([batch(3)])


def test_targets_are_those_of_the_method(trial: Trial) -> None:
    class Swapped(Method):
        def augment(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            return images, targets.roll(1, 1)

    net, data = network(), batch(4)
    expected = float(F.cross_entropy(net.train()(data.images).logits, (data.labels + 1) % CLASSES).detach())

    assert float(trainer(net, trial, made=Swapped()).step(data)) == pytest.approx(expected)


def test_step_leaves_its_batch_alone(trial: Trial) -> None:
    data = batch(4)
    before = data.images.clone()

    trainer(network("adl", points=["conv2"]), trial, made=plugins.make(methods, "has", {"patch": 4})).step(data)

    assert torch.equal(data.images, before)


def test_bf16_trains_weights_that_stay_float32(trial: Trial) -> None:
    net = network()
    before = weights(net)

    loss = trainer(net, trial, "bf16").step(batch(4))

    assert torch.isfinite(loss)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(net), strict=True))


def test_bf16_and_fp32_differ_in_precision_only(trial: Trial) -> None:
    losses = [float(trainer(network(), trial, precision).step(batch(4))) for precision in ("fp32", "bf16")]

    assert losses[0] == pytest.approx(losses[1], rel=0.02)


# Evaluation


def test_prediction_is_the_evaluated_network() -> None:
    net, data = network(), batch(5)
    with torch.no_grad():
        expected = net.eval()(data.images, data.labels)
        maps = net.head.score_maps(expected, data.labels)

    ((logits, score_maps),) = loop.predict(net, [data], CPU)

    assert torch.equal(logits, expected.logits)
    assert torch.equal(score_maps, maps)


def test_prediction_is_one_forward_pass_a_batch() -> None:
    net, passes = network(), []
    net.backbone.register_forward_hook(lambda *_: passes.append(1))

    list(loop.predict(net, [batch(2), batch(2, 2)], CPU))

    assert len(passes) == 2


def test_prediction_is_float32_and_has_no_gradient() -> None:
    ((logits, maps),) = loop.predict(network(), [batch(2)], CPU)

    assert (logits.dtype, maps.dtype) == (torch.float32, torch.float32)
    assert [logits.requires_grad, maps.requires_grad] == [False, False]


def test_prediction_changes_no_weight() -> None:
    net = network("adl", points=["conv2"]).train()
    before = weights(net)

    list(loop.predict(net, [batch(2)], CPU))

    assert all(torch.equal(a, b) for a, b in zip(before, weights(net), strict=True))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_name_their_batch(value: float) -> None:
    data = [batch(2), batch(2, 2)]
    data[1] = replace(data[1], images=torch.full_like(data[1].images, value))

    with pytest.raises(DivergedError, match=r"^the scores are not finite in the batch of images 2\.jpg, 3\.jpg$"):
        list(loop.predict(network(), data, CPU))
