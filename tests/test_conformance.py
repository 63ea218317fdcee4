"""What every method must do on every backbone; a new file is tested by existing.

Adapters of your own: `WSOLBENCH_METHODS=/their/folder pytest tests/test_conformance.py -k their_name`.
"""

import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import MISSING, asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import BACKBONES, QUICK
from wsolbench import backbones, loop, methods, plugins, recipe
from wsolbench.backbone import Backbone
from wsolbench.batches import Batch
from wsolbench.errors import InputError
from wsolbench.folding import folded
from wsolbench.method import Method, Net, build, feature_points

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 3
TRIAL = recipe.complete({**QUICK, "lr": 0.1, "head_lr": 0.2})
SMALL = "tiny"
"""The backbone of the default suite; the others are marked `full`."""
NETWORKS = [*BACKBONES, "timm:convnext_atto"]

# Tests of one network follow each other (scope), so that it is built once.
every_backbone = pytest.mark.parametrize(
    "backbone",
    [pytest.param(name, marks=[] if name == SMALL else pytest.mark.full) for name in NETWORKS],
    scope="module",
)
every_method = pytest.mark.parametrize("method", plugins.names(methods), scope="module")


def has_own_network(name: str) -> bool:
    """Whether it is plain CAM, or changes more of it than the images."""
    cls = plugins.option_class(methods, name)
    return cls is Method or (cls.prepare, cls.head) != (Method.prepare, Method.head)


every_network = pytest.mark.parametrize("method", [*filter(has_own_network, plugins.names(methods))], scope="module")
"""For what does not train: a method that only changes images has the network of CAM."""


def backbone_of(name: str) -> Backbone:
    return plugins.make(backbones, name, {}).build()


def method_of(name: str, backbone: Backbone) -> Method:
    """The method with its defaults; its feature points, where it has none, are as many last stages as it takes."""
    cls = plugins.option_class(methods, name)
    given = {f.name for f in fields(cls) if f.default is not MISSING or f.default_factory is not MISSING}
    open_points = [option for option in feature_points(cls) if option not in given]
    for count in (3, 2, 1):
        try:
            return plugins.make(methods, name, dict.fromkeys(open_points, backbone.stages[-count:]))
        except InputError:
            continue
    raise AssertionError(f"{name} takes neither 3 nor 2 nor 1 feature points, or has another option without default")


def built(method: str, backbone: str) -> tuple[Method, Net]:
    torch.manual_seed(0)
    body = backbone_of(backbone)
    made = method_of(method, body)
    return made, build(made, body, CLASSES)


kept = lru_cache(maxsize=1)(built)


def network(method: str, backbone: str) -> tuple[Method, Net]:
    """A method and its network, as built."""
    made, net = kept(method, backbone)
    return made, deepcopy(net)


def batch(count: int = 2, height: int = 64, width: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((count, 3, height, width), generator=generator)
    return images, torch.arange(count) % CLASSES


def training_loss(made: tuple[Method, Net], images: Tensor, labels: Tensor) -> Tensor:
    method, net = made
    changed, targets = method.augment(images, F.one_hot(labels, CLASSES).float())
    net.train()
    return net.head.loss(net(changed, labels), targets)


def predicted(net: Net, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and score maps in evaluation."""
    net.eval()
    with torch.inference_mode():
        output = net(images, labels)
        return output.logits, net.head.score_maps(output, labels)


def groups(net: Net) -> list[list[nn.Parameter]]:
    return [list(net.pretrained_parameters()), list(net.new_parameters())]


@every_backbone
@every_network
def test_layers_of_the_backbone_stay_as_they_are(method: str, backbone: str) -> None:
    bare, changed = backbone_of(backbone), network(method, backbone)[1].backbone

    assert repr(changed.body) == repr(bare.body)
    assert repr(changed.neck) in {repr(bare.neck), repr(nn.Sequential())}


@every_backbone
@every_network
def test_the_body_trains_at_the_base_rate_and_all_that_is_new_at_the_heads(method: str, backbone: str) -> None:
    _, net = network(method, backbone)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    published = {f"backbone.body.{name}" for name, _ in backbone_of(backbone).body.named_parameters()}

    base, head = loop.optimizer(net, TRIAL).param_groups

    assert (base["lr"], head["lr"]) == (0.1, 0.2)
    assert {names[id(parameter)] for parameter in base["params"]} == published
    assert {names[id(parameter)] for parameter in head["params"]} == {*names.values()} - published != set()


@every_backbone
@every_method
def test_a_step_waits_for_no_value_of_the_device(method: str, backbone: str) -> None:
    """On the device `meta` there are no values: to read one, as `.item()`, `.cpu()` or an `if` does, is an error."""
    made, net = network(method, backbone)
    meta = torch.device("meta")
    sgd = torch.optim.SGD(net.to(meta).train().parameters(), lr=0.1, momentum=0.9)
    images, labels = batch()

    loss = loop.Trainer(net, made, sgd, meta, "fp32").step(Batch(images, labels, ("a.jpg", "b.jpg")))

    assert (loss.device, loss.shape) == (meta, ())


@pytest.mark.full
@every_method
def test_compiled_steps_are_those_of_the_network(method: str) -> None:
    """Two sizes of a batch, as an epoch has; what is drawn in the network is drawn alike."""
    made, net = network(method, SMALL)
    images, labels = batch(4, 32, 32)
    losses = []
    for compiled in (False, True):
        copy = deepcopy(net).to(memory_format=torch.channels_last)
        trainer = loop.Trainer(copy, made, loop.optimizer(copy, TRIAL), torch.device("cpu"), "fp32", compiled)
        torch.manual_seed(0)
        batches = [Batch(images[:size], labels[:size], tuple(map(str, range(size)))) for size in (4, 4, 3)]
        losses.append([trainer.epoch([each]).loss for each in batches])

    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@every_backbone
@every_method
def test_gradient_reaches_every_group_of_parameters(method: str, backbone: str) -> None:
    made = network(method, backbone)
    reached = [False, False]

    for seed in range(4):  # one draw may leave nothing of a feature map
        torch.manual_seed(seed)
        training_loss(made, *batch()).backward()
        gradients = [[parameter.grad for parameter in group] for group in groups(made[1])]
        assert all(each is not None and each.isfinite().all() for group in gradients for each in group)
        reached = [any(each is not None and each.any() for each in group) for group in gradients]
        if all(reached):
            break

    assert reached == [True, True]


@every_method
def test_one_step_changes_the_weights_of_every_group(method: str) -> None:
    made = network(method, SMALL)
    before = deepcopy(groups(made[1]))
    optimizer = torch.optim.SGD(made[1].parameters(), lr=0.1)

    for seed in range(4):
        torch.manual_seed(seed)
        training_loss(made, *batch()).backward()
    optimizer.step()

    for new, old in zip(groups(made[1]), before, strict=True):
        assert any(not torch.equal(*pair) for pair in zip(new, old, strict=True))


@every_backbone
@every_network
def test_evaluation_is_deterministic(method: str, backbone: str) -> None:
    _, net = network(method, backbone)

    first, second = predicted(net, *batch()), predicted(net, *batch())

    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@every_backbone
@every_network
def test_scores_are_the_same_while_normalisations_are_folded(method: str, backbone: str) -> None:
    _, net = network(method, backbone)
    for norm in (layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)):
        for values in (norm.running_mean, norm.running_var, *norm.parameters()):
            assert values is not None
            nn.init.uniform_(values, 0.5, 1.5)
    before = predicted(net, *batch())

    with folded(net, 64):
        found = predicted(net, *batch())

    for scores, expected in zip(found, before, strict=True):
        torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    for scores, expected in zip(predicted(net, *batch()), before, strict=True):
        assert torch.equal(scores, expected)


@every_backbone
@every_network
@pytest.mark.parametrize("size", [(64, 64), (64, 96)], ids=str)
def test_score_maps_are_finite_and_of_the_last_map_size(method: str, backbone: str, size: tuple[int, int]) -> None:
    _, net = network(method, backbone)
    images, labels = batch(2, *size)
    net.eval()
    with torch.inference_mode():
        last = net.backbone(images)["last"]

    logits, maps = predicted(net, images, labels)

    assert logits.shape == (2, CLASSES)
    assert maps.shape == (2, *last.shape[2:])
    assert logits.isfinite().all()
    assert maps.isfinite().all()


@every_backbone
@every_network
def test_scores_need_no_labels(method: str, backbone: str) -> None:
    net = network(method, backbone)[1].eval()
    images, labels = batch()

    with torch.inference_mode():
        unknown, known = net(images).logits, net(images, labels).logits

    assert torch.equal(unknown, known)


@every_backbone
@every_method
@pytest.mark.parametrize("size", [(1, 64, 64), (2, 96, 64)], ids=str)
def test_trains_on_one_image_and_on_images_that_are_not_square(
    method: str, backbone: str, size: tuple[int, int, int]
) -> None:
    loss = training_loss(network(method, backbone), *batch(*size))

    assert loss.shape == ()
    assert loss.isfinite()


@every_backbone
@every_method
def test_the_same_seed_gives_the_same_loss(method: str, backbone: str) -> None:
    losses = []
    for make in (network, built):
        made = make(method, backbone)
        torch.manual_seed(5)
        losses.append(training_loss(made, *batch()))

    assert torch.equal(*losses)


@every_backbone
@every_method
def test_constant_images_give_numbers(method: str, backbone: str) -> None:
    made = network(method, backbone)
    images, labels = torch.zeros(2, 3, 64, 64), torch.tensor([0, 1])

    loss = training_loss(made, images, labels)
    loss.backward()
    logits, maps = predicted(made[1], images, labels)

    assert all(p.grad is not None and p.grad.isfinite().all() for p in made[1].parameters())
    assert all(found.isfinite().all() for found in (loss, logits, maps))


@every_backbone
@every_method
def test_half_precision_is_near_full_precision(method: str, backbone: str) -> None:
    made = network(method, backbone)
    images, labels = batch()
    with torch.no_grad():
        training_loss(made, *batch(8))  # so that the statistics of batch normalisation are those of the images
    full, _ = predicted(made[1], images, labels)

    with torch.autocast("cpu", torch.bfloat16):
        half, maps = predicted(made[1], images, labels)
        loss = training_loss(made, images, labels)
    loss.backward()

    assert loss.isfinite()
    assert maps.isfinite().all()
    assert (half - full).abs().max() <= 0.05 * full.abs().max() + 0.01


@every_backbone
@every_network
def test_compiles_to_one_graph(method: str, backbone: str) -> None:
    _, net = network(method, backbone)
    images, labels = batch()
    expected = predicted(net, images, labels)[0]
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")

    with torch.no_grad():
        found = compiled(images, labels).logits
    net.train()
    loss = net.head.loss(compiled(images, labels), F.one_hot(labels, CLASSES).float())

    torch.testing.assert_close(found, expected)
    assert loss.isfinite()


@every_method
def test_augment_leaves_its_input_untouched(method: str) -> None:
    made = method_of(method, backbone_of(SMALL))
    images, labels = batch(4, 64, 96)
    targets = F.one_hot(labels, CLASSES).float()
    originals = images.clone(), targets.clone()

    for seed in range(5):
        torch.manual_seed(seed)
        changed, mixed = made.augment(images, targets)

        assert torch.equal(images, originals[0])
        assert torch.equal(targets, originals[1])
        assert changed.shape == images.shape
        assert changed.dtype == images.dtype
        torch.testing.assert_close(mixed.sum(1), torch.ones(4))


@every_method
def test_options_survive_becoming_plain_data(method: str) -> None:
    made = method_of(method, backbone_of(SMALL))

    again = plugins.make(methods, method, asdict(made))

    assert again == made


@every_method
def test_an_unknown_option_is_refused(method: str) -> None:
    options: dict[str, Any] = {"no_such_option": 1}

    with pytest.raises(InputError, match="has no option no_such_option"):
        plugins.make(methods, method, options)


@every_method
def test_networks_of_a_method_have_the_same_names_of_weights(method: str) -> None:
    (_, first), (_, second) = built(method, SMALL), built(method, SMALL)

    second.load_state_dict(first.state_dict())

    assert torch.equal(predicted(first, *batch())[0], predicted(second, *batch())[0])


OWN_ADAPTER = '''
"""An adapter outside of the checkout."""
from pydantic.dataclasses import dataclass
from torch import nn
from wsolbench.backbone import Backbone
from wsolbench.method import FeaturePoints, Method
from wsolbench.plugins import OPTIONS, Share

@dataclass(frozen=True, config=OPTIONS)
class Own(Method):
    points: FeaturePoints
    drop_rate: Share = 0.1

    def prepare(self, backbone: Backbone) -> None:
        for point in self.points:
            backbone.insert(point, nn.Dropout(self.drop_rate))

METHOD = Own
'''


@pytest.mark.full
def test_the_suite_tests_an_adapter_in_a_folder_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "own_dropout.py").write_text(OWN_ADAPTER)
    environment = {**os.environ, "WSOLBENCH_METHODS": str(tmp_path), "PYTHONPATH": str(ROOT)}

    options = ["-q", "-p", "no:cacheprovider", "-k", f"own_dropout and {SMALL}"]
    command = [sys.executable, "-m", "pytest", *options, __file__]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert finished.returncode == 0, finished.stdout
    assert "passed" in finished.stdout
