import csv
import io
import json
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import BACKBONES, Command
from wsolbench import documents, methods, overhead, plugins, recipe
from wsolbench.backbone import Backbone
from wsolbench.errors import InputError
from wsolbench.measure import Measured, Plan
from wsolbench.method import Method
from wsolbench.overhead import Cost, Overhead, Overheads

SHIPPED = Path(__file__).parents[1] / "reports" / "overhead.yaml"
CLASSES = 1000

WIDTHS = (3, 8, 16, 32, 32, 64)  # channels of the images of a small network and after conv1 .. conv5
SIDES = (32, 16, 8, 8, 8)  # of the maps of conv1 .. conv5, for images of 32 pixels
BODY = sum(9 * a * b * side**2 for (a, b), side in list(zip(pairwise(WIDTHS), SIDES, strict=True))[:4])
NECK = 9 * 32 * 64 * 8**2
HEAD = 64 * 10  # 10 classes
SCORE_MAP = 64 * 8**2  # the classifier's weights of one class at every position


def small() -> Backbone:
    """Four convolutions, pooling after the first two, and a neck."""
    body = nn.Sequential()
    for number, (before, after) in enumerate(pairwise(WIDTHS[:-1]), start=1):
        body.add_module(f"conv{number}", nn.Conv2d(before, after, 3, padding=1))
        if number <= 2:
            body.add_module(f"pool{number}", nn.MaxPool2d(2))
    points = {name: f"body.{name}" for name, _ in body.named_children()}
    neck = {"conv5": nn.Conv2d(32, 64, 3, padding=1)}
    return Backbone(body, points, ("pool1", "pool2", "conv4"), (32, 64), neck=neck).to("meta")


def made(method: str, **options: Any) -> Method:
    return plugins.make(methods, method, options)


def counted(method: Method) -> Cost:
    return overhead.cost(method, small(), 10, 32)


def convolution(before: int, after: int, side: int, kernel: int = 3) -> int:
    return kernel**2 * before * after * side**2


def vgg_body(last: int) -> int:
    """MACs of VGG16's 13 convolutions, the last three at `last` x `last`."""
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    sides = [224] * 2 + [112] * 2 + [56] * 3 + [28] * 3 + [last] * 3
    return sum(convolution(*channels, side) for channels, side in zip(pairwise(widths), sides, strict=True))


def vgg_gap(last: int) -> int:
    return vgg_body(last) + convolution(512, 1024, last) + 1024 * CLASSES


def mobilenet() -> int:
    """MACs of MobileNetV1 with stride 1 in conv13: a depthwise and a pointwise convolution a layer."""
    widths = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    sides = [112, 56, 56, 28, 28, *[14] * 8]
    layers = zip(pairwise(widths), sides, strict=True)
    return (
        convolution(3, 32, 112) + sum((9 * before + before * after) * s**2 for (before, after), s in layers) + 1024_000
    )


def resnet(third: int, fourth: int, *, se: bool = False) -> int:
    """MACs of ResNet50 with layer3 and layer4 at these sides; the stride is on the 3 x 3 convolution."""
    total, channels, side = convolution(3, 64, 112, kernel=7), 64, 56
    for blocks, width, after in ((3, 64, 56), (4, 128, 28), (6, 256, third), (3, 512, fourth)):
        for block in range(blocks):
            total += convolution(channels, width, side, 1) + convolution(width, width, after)
            total += convolution(width, 4 * width, after, 1)
            total += convolution(channels, 4 * width, after, 1) if block == 0 else 0
            total += 2 * 4 * width * (4 * width // 16) if se else 0
            channels, side = 4 * width, after
    return total + 2048 * CLASSES


def acol_branches(channels: int, last: int) -> int:
    each = convolution(channels, 1024, last) + convolution(1024, 1024, last) + convolution(1024, CLASSES, last, 1)
    return 2 * each


def spg_guides(first: tuple[int, int], second: tuple[int, int], last: tuple[int, int], width: int = 512) -> int:
    """B1, B2, twice the shared layers, and C; channels and side of the maps that they begin with."""
    shared = [convolution(width, width, side) + width * side**2 for _, side in (first, second)]
    return (
        convolution(first[0], width, first[1])
        + convolution(second[0], width, second[1])
        + sum(shared)
        + convolution(last[0], 512, last[1])
        + 512 * last[1] ** 2
    )


def replaced_neck(channels: int, last: int) -> int:
    """Two 3 x 3 convolutions as wide as their input, and a classifier at every position."""
    return 2 * convolution(channels, channels, last) + convolution(channels, CLASSES, last, 1)


def adl_operations(*shapes: tuple[int, int]) -> int:
    return sum(2 * channels * side**2 + 6 * side**2 + 1 for channels, side in shapes)


@pytest.fixture(scope="module")
def shipped() -> Overheads:
    return overhead.overheads(SHIPPED)


def row(table: Overheads, *labels: str) -> Overhead:
    return next(row for row in table.rows if (row.backbone, row.method) == labels)


def test_cost_of_plain_cam_by_arithmetic() -> None:
    cost = counted(Method())

    assert cost.params == sum(9 * a * b + b for a, b in pairwise(WIDTHS)) + HEAD + 10
    assert cost.macs == BODY + NECK + HEAD
    assert cost.inference_macs == cost.macs + SCORE_MAP
    assert (cost.operations, cost.inference_operations) == (0, 0)


def test_adl_counts_both_maps_and_the_blend_at_each_point_in_training_only() -> None:
    cost = counted(made("adl", points=["pool1", "conv5"]))

    assert cost.operations == (2 * 8 * 256 + 6 * 256 + 1) + (2 * 64 * 64 + 6 * 64 + 1)
    assert cost.inference_operations == 0
    assert (cost.macs, cost.inference_macs) == (BODY + NECK + HEAD, BODY + NECK + HEAD + SCORE_MAP)


def test_has_counts_the_image_times_the_mask_in_training_only() -> None:
    cost = counted(made("has", patch=8))

    assert (cost.operations, cost.inference_operations) == (3 * 32 * 32, 0)


def test_acol_needs_both_branches_in_training_and_for_a_score_map() -> None:
    cost = counted(made("acol"))

    branch = convolution(32, 1024, 8) + convolution(1024, 1024, 8) + convolution(1024, 10, 8, 1)
    assert cost.macs == cost.inference_macs == BODY + 2 * branch
    assert cost.operations == 0


def test_spg_needs_its_guides_in_training_only() -> None:
    cost = counted(made("spg", points=["conv3", "conv4"]))

    classes = convolution(64, 10, 8, 1)
    assert cost.inference_macs == BODY + NECK + classes
    assert cost.macs == cost.inference_macs + spg_guides((32, 8), (32, 8), (64, 8))


class Bare(Method):
    """A method that inserts a layer and says nothing of its operations."""

    layer: nn.Module

    def prepare(self, backbone: Backbone) -> None:
        backbone.insert("conv4", self.layer)


def inserting(layer: nn.Module) -> Method:
    method = Bare()
    object.__setattr__(method, "layer", layer)
    return method


class Arithmetic(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * features.mean(1, keepdim=True).sigmoid().reshape(1, 1, 64).view(1, 1, 8, 8)


def test_operations_that_a_method_does_not_say_are_counted_as_they_run() -> None:
    cost = counted(inserting(Arithmetic()))

    assert cost.operations == 32 * 64 + 64 + 32 * 64  # mean, sigmoid, times
    assert cost.inference_operations == cost.operations


def test_one_image_whose_last_map_is_one_value_is_counted_in_spite_of_batch_normalisation() -> None:
    plain, normalised = (
        overhead.cost(method, small(), 10, 4) for method in (Method(), inserting(nn.BatchNorm2d(32, device="meta")))
    )

    assert normalised.macs == plain.macs == 9 * (3 * 8 * 16 + 8 * 16 * 4 + 16 * 32 + 32 * 32 + 32 * 64) + HEAD


def test_a_layer_with_parameters_counts_as_macs_and_not_as_operations() -> None:
    cost = counted(inserting(nn.Conv2d(32, 32, 1, bias=False)))

    assert cost.macs == BODY + NECK + HEAD + convolution(32, 32, 8, 1)
    assert cost.params == counted(Method()).params + 32 * 32
    assert cost.operations == 0


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("spatial_dropout", {"points": ["conv4"]}, 32 * 64 + 32),  # times; the draws by 1 - drop_rate
        ("max_drop", {"points": ["conv4"]}, 4 * 32 * 64 + 32),  # maximum, equal, and, fill; the draws below drop_rate
    ],
)
def test_operations_of_methods_that_say_nothing(method: str, options: dict[str, Any], expected: int) -> None:
    assert counted(made(method, **options)).operations == expected


def test_pasting_is_no_arithmetic() -> None:
    operations = counted(made("cutmix")).operations

    assert 3 * 10 <= operations < 3 * 10 + 10  # the shares times the targets, and their sum; drawing a box


def test_what_adl_says_is_near_what_it_runs() -> None:
    method = made("adl", points=["conv4"], drop_rate=1)
    backbone = small()
    method.prepare(backbone)

    ran = counted(inserting(backbone.inserted["conv4"])).operations

    assert ran == pytest.approx(counted(method).operations, rel=0.05)


@pytest.mark.parametrize("method", plugins.names(methods))
def test_every_method_is_counted(method: str) -> None:
    backbone = small()
    wanted = "points" in plugins.option_names(methods, method)

    cost = counted(made(method, **({"points": list(backbone.stages[-2:])} if wanted else {})))

    assert cost.macs >= BODY


def test_cost_draws_nothing_from_the_generator_of_its_caller() -> None:
    backbone = small()
    before = torch.get_rng_state()

    overhead.cost(made("cutmix"), backbone, 10, 32)

    assert torch.equal(torch.get_rng_state(), before)


def test_counting_makes_no_weights() -> None:
    backbone = overhead.without_weights("vgg16", {})

    overhead.cost(made("has"), backbone, 10, 64)

    assert {parameter.device.type for parameter in backbone.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("labels", "macs"),
    [
        (("vgg16", "cam"), vgg_gap(14)),
        (("vgg16", "acol"), vgg_body(14) + acol_branches(512, 14)),
        (("vgg16", "acol_released_28x28"), vgg_body(28) + acol_branches(512, 28)),
        (
            ("vgg16", "spg_wsolevaluation"),
            vgg_body(14) + replaced_neck(512, 14) + spg_guides((512, 14), (512, 14), (512, 14)),
        ),
        (("vgg16_28x28", "cam"), vgg_gap(28)),
        (("vgg16_28x28", "acol"), vgg_body(28) + acol_branches(512, 28)),
        (
            ("vgg16_28x28", "spg_wsolevaluation"),
            vgg_body(28) + replaced_neck(512, 28) + spg_guides((512, 28), (512, 28), (512, 28)),
        ),
        (("mobilenet_v1", "cam"), mobilenet()),
        (("resnet50_se", "cam"), resnet(14, 14, se=True)),
        (("resnet50", "cam"), resnet(14, 14)),
        (("resnet50_28x28", "cam"), resnet(28, 28)),
        (("resnet50", "acol"), resnet(14, 14) - 2048 * CLASSES + acol_branches(2048, 14)),
        (("resnet50_28x28", "acol"), resnet(28, 28) - 2048 * CLASSES + acol_branches(2048, 28)),
        (
            ("resnet50", "spg"),
            resnet(14, 14) + 2048 * CLASSES * (14**2 - 1) + spg_guides((1024, 14), (1024, 14), (2048, 14), width=1024),
        ),
        (
            ("resnet50_28x28", "spg"),
            resnet(28, 28) + 2048 * CLASSES * (28**2 - 1) + spg_guides((1024, 28), (1024, 28), (2048, 28), width=1024),
        ),
    ],
)
def test_macs_of_the_shipped_table_by_arithmetic(shipped: Overheads, labels: tuple[str, str], macs: int) -> None:
    assert row(shipped, *labels).macs == macs


@pytest.mark.parametrize(("name", "last"), [("inception_v3", 28), ("inception_v3_14x14", 14)])
def test_macs_beyond_the_inception_body_by_arithmetic(shipped: Overheads, name: str, last: int) -> None:
    plain = row(shipped, name, "cam").macs
    necks = convolution(768, 1024, last) + convolution(1024, 1024, last) + convolution(1024, CLASSES, last, 1)

    assert row(shipped, name, "spg").macs == plain + spg_guides((288, last), (768, last), (1024, last))
    assert row(shipped, name, "acol").macs == plain - necks + acol_branches(768, last)


@pytest.mark.parametrize(
    ("labels", "operations"),
    [
        (("vgg16", "has"), 3 * 224**2),
        (("mobilenet_v1", "has"), 3 * 224**2),
        (("vgg16", "adl"), adl_operations((256, 28), (512, 14), (512, 14))),
        (("vgg16", "adl_pool1-4_conv5_3"), adl_operations((64, 112), (128, 56), (256, 28), (512, 14), (512, 14))),
        (("vgg16", "adl_wsolevaluation"), adl_operations((256, 28), (512, 28), (512, 14))),
        (("vgg16_28x28", "adl_wsolevaluation"), adl_operations((256, 28), (512, 28), (512, 28))),
        (("mobilenet_v1", "adl"), adl_operations((512, 14), (1024, 14), (1024, 14))),
        (("resnet50_se", "adl"), adl_operations((1024, 14), (2048, 14), (2048, 14))),
        (("resnet50", "adl"), adl_operations((1024, 14), (2048, 14), (2048, 14))),
        (("resnet50_28x28", "adl"), adl_operations((1024, 28), (2048, 28), (2048, 28))),
        (("inception_v3", "adl"), adl_operations((288, 28), (768, 28), (1024, 28))),
        (("inception_v3_14x14", "adl_wsolevaluation"), adl_operations((288, 28), (768, 14), (1024, 14))),
    ],
)
def test_operations_of_the_shipped_table_by_arithmetic(
    shipped: Overheads, labels: tuple[str, str], operations: int
) -> None:
    assert row(shipped, *labels).operations == operations


def test_overhead_is_over_plain_cam_on_the_same_backbone(shipped: Overheads) -> None:
    adl, acol = row(shipped, "vgg16", "adl"), row(shipped, "vgg16", "acol_released_28x28")

    assert adl.compute_overhead_pct == pytest.approx(100 * adl.operations / (2 * vgg_gap(14)), abs=1e-9)
    assert acol.compute_overhead_pct == pytest.approx(100 * (acol.macs / vgg_gap(14) - 1), abs=1e-9)
    assert acol.param_overhead_pct == pytest.approx(
        100 * (acol.params / row(shipped, "vgg16", "cam").params - 1), abs=1e-9
    )


def test_plain_cam_and_what_has_no_layers_cost_nothing_more(shipped: Overheads) -> None:
    for each in shipped.rows:
        if each.method == "cam":
            assert (each.param_overhead_pct, each.compute_overhead_pct, each.inference_overhead_pct) == (0, 0, 0)
        if each.method == "has" or each.method.startswith("adl"):
            assert (each.param_overhead_pct, each.inference_overhead_pct) == (0, 0)
            assert 0 < each.compute_overhead_pct < 0.1


def test_whole_mib_are_those_that_the_paper_prints_but_for_acol(shipped: Overheads) -> None:
    told = [each for each in shipped.rows if each.reported_params_mib is not None]

    differing = [each.method for each in told if str(int(each.params_mib)) != each.reported_params_mib]

    assert len(told) == 11  # the rows of Table 3
    assert differing == ["acol"]


@pytest.mark.parametrize(
    ("labels", "figures"),
    [
        (("vgg16", "acol"), ("181", "132.05", "37.63")),
        (("inception_v3", "spg"), ("146", "44.55", "30.05")),
        (("resnet50_se", "adl"), ("107", "0", "0.00")),
    ],
)
def test_reported_figures_stand_as_printed_with_a_note(
    shipped: Overheads, labels: tuple[str, str], figures: tuple[str, ...]
) -> None:
    found = row(shipped, *labels)

    reported = (found.reported_params_mib, found.reported_param_overhead_pct, found.reported_compute_overhead_pct)
    assert reported == figures
    assert "no published code" in (found.note or "")


def test_where_the_recipe_drops_in_mobilenet_is_told_with_what_it_costs(shipped: Overheads) -> None:
    trial = recipe.complete({"dataset": "imagenet", "backbone": "mobilenet_v1", "method": "adl", "weights": "none"})
    points = trial.method_options["points"]
    network = recipe.blueprint("mobilenet_v1", {})
    maps = [network.shapes(224, 224)[point] for point in points]

    operations = sum(2 * c * h * w + 6 * h * w + 1 for c, h, w in maps)
    told = row(shipped, "mobilenet_v1", "adl").note or ""
    assert sum(c * h * w for c, h, w in maps) == 501_760  # as at conv7, conv13 and conv14
    assert f"{', '.join(points[:-1])} and {points[-1]}: as many values there" in told
    assert f"+{100 * operations / (2 * 801_983_488):.4f} %" in told


def test_labels_of_the_shipped_table_are_unique(shipped: Overheads) -> None:
    assert len({(each.backbone, each.method) for each in shipped.rows}) == len(shipped.rows) == 35


def test_csv_has_a_column_for_each_figure(shipped: Overheads) -> None:
    rows = list(csv.DictReader(io.StringIO(overhead.FORMATS["csv"](shipped))))

    assert len(rows) == len(shipped.rows)
    assert (rows[0]["backbone"], rows[0]["method"], int(rows[0]["macs"])) == ("vgg16", "cam", vgg_gap(14))
    assert rows[0]["compute_overhead_pct"] == "0.000000"
    assert rows[1]["reported_params_mib"] == ""


def test_json_is_the_table_as_plain_data(shipped: Overheads) -> None:
    data = json.loads(overhead.FORMATS["json"](shipped))

    assert data["title"] == shipped.title
    assert [Overhead(**each) for each in data["rows"]] == list(shipped.rows)


def test_markdown_has_the_digits_of_both_and_the_notes(shipped: Overheads) -> None:
    text = overhead.FORMATS["md"](shipped)

    cells = [cell.strip() for line in text.splitlines() if "| resnet50_se" in line for cell in line.split("|")]
    assert "107.15" in cells
    assert "0.0162" in cells  # 100 * 2,010,571 / (2 * 6,211,133,440)
    assert "0.00" in cells
    assert "- resnet50_se, adl: The paper's text says 0.003 %" in text


HEADER = "title: T\nnum_classes: 10\nimage_size: 32\nrows:\n"


def problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "o.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        overhead.overheads(path)
    return [problem.removeprefix(f"{tmp_path}/") for problem in refused.value.problems]


def test_every_unknown_key_and_wrong_value_is_told_with_its_line(tmp_path: Path) -> None:
    text = (
        "titel: T\nnum_classes: many\nimage_size: 0\nrows:\n"
        "  - {labels: [a, b], backbone: tiny, metod: cam}\n"
        "  - labels: [a]\n    backbone: tiny\n    method: cam\n    reported: {param_mib: 3}\n"
    )

    found = problems(tmp_path, text)

    keys = "title, num_classes, image_size, rows"
    assert f"o.yaml:1: unknown key 'titel', did you mean 'title'? There are: {keys}" in found
    assert "o.yaml:1: title is missing" in found
    assert "o.yaml:2: num_classes must be a whole number, not 'many'" in found
    assert "o.yaml:3: image_size must be more than 0, not 0" in found
    assert any(one.startswith("o.yaml:5: unknown key 'metod', did you mean 'method'?") for one in found)
    assert "o.yaml:5: rows[0].method is missing" in found
    assert "o.yaml:6: rows[1].labels[1] is missing" in found
    assert any(one.startswith("o.yaml:9: unknown key 'param_mib', did you mean 'params_mib'?") for one in found)
    assert len(found) == 8


def test_every_wrong_name_option_and_point_is_told_with_its_line(tmp_path: Path) -> None:
    text = HEADER + (
        "  - {labels: [a, b], backbone: tinny, method: cma}\n"
        "  - labels: [a, c]\n"
        "    backbone: vgg16\n"
        "    backbone_options:\n"
        "      output_stride: 4\n"
        "    method: adl\n"
        "    method_options:\n"
        "      gama: 0.5\n"
        "      points: [pool3]\n"
        "  - labels: [a, d]\n"
        "    backbone: tiny\n"
        "    method: adl\n"
        "    method_options:\n"
        "      points: [conv4, pool8, pool9]\n"
    )

    found = problems(tmp_path, text)

    there = "this backbone has: conv1, pool1, conv2, pool2, conv3, conv4, conv5"
    assert [one.partition(";")[0] for one in found[2:4]] == [
        "o.yaml:9: output_stride must be 8 or 16, not 4",
        "o.yaml:12: adl has no option gama",
    ]
    assert found[0].startswith("o.yaml:5: no backbone 'tinny', did you mean 'tiny'?")
    assert found[1].startswith("o.yaml:5: no method 'cma'")
    assert found[4:] == [
        f"o.yaml:18: no feature point 'pool8'; {there}",
        f"o.yaml:18: no feature point 'pool9'; {there}",
    ]


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, "- 1\n") == ["o.yaml:1: the file must be a mapping, not [1]"]


def test_every_backbone_can_be_built_without_weights() -> None:
    for name in BACKBONES:
        assert overhead.without_weights(name, {}).points


def test_the_shipped_file_is_valid() -> None:
    file = overhead.overhead_file(documents.read(SHIPPED))

    assert (file.num_classes, file.image_size) == (1000, 224)


# A part of the table, measured

TINY = HEADER + (
    "  - {labels: [tiny, plain], backbone: tiny, method: cam}\n"
    "  - {labels: [tiny, layers], backbone: tiny, method: adl, method_options: {points: [pool1, conv4]}}\n"
    "  - {labels: [other, branches], backbone: tiny, method: acol}\n"
)
ONCE = Plan(pairs=1, batch_size=2, device="cpu")


@pytest.fixture
def tiny_table(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ([], ["plain", "layers", "branches"]),
        (["tiny"], ["plain", "layers"]),
        (["branches", "tiny/plain"], ["plain", "branches"]),
    ],
)
def test_only_the_rows_of_these_labels(tiny_table: Path, only: list[str], expected: list[str]) -> None:
    assert [row.method for row in overhead.overheads(tiny_table, only).rows] == expected


def test_labels_without_a_row_are_all_told(tiny_table: Path) -> None:
    with pytest.raises(InputError) as refused:
        overhead.overheads(tiny_table, ["tiny/layer", "plain", "nothing"])

    there = "There are: tiny/plain, tiny/layers, other/branches"
    assert refused.value.problems == (
        f"no row 'tiny/layer', did you mean 'tiny/layers'? {there}",
        f"no row 'nothing'. {there}",
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Overheads:
    path = tmp_path_factory.mktemp("tables") / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return overhead.overheads(path, plan=ONCE)


def test_memory_of_a_step_is_more_where_more_is_kept(measured: Overheads) -> None:
    plain, layers, branches = (row.measured for row in measured.rows)

    assert plain is not None
    assert layers is not None
    assert branches is not None
    assert (plain.train_memory_ratio, plain.inference_memory_ratio, layers.inference_memory_ratio) == (1, 1, 1)
    assert 1 < layers.train_memory_ratio < branches.train_memory_ratio
    assert branches.inference_memory_ratio > 1  # their weights
    assert all(row.measured and row.measured.train_time_ratio > 0 and row.measured.pairs == 1 for row in measured.rows)


def test_what_is_counted_is_the_same_where_it_is_measured_too(tiny_table: Path, measured: Overheads) -> None:
    larger = overhead.overheads(tiny_table, ["layers"], replace(ONCE, image_size=40))
    counted = overhead.overheads(tiny_table)

    assert [replace(row, measured=None) for row in measured.rows] == list(counted.rows)
    assert replace(larger.rows[0], measured=None) == counted.rows[1]
    assert "batches of 2 random images of 40 x 40 pixels" in larger.caption


def test_columns_of_what_is_measured_are_there_only_where_it_is(tiny_table: Path, measured: Overheads) -> None:
    names = [f.name for f in fields(Measured)]
    with_them, without = measured, overhead.overheads(tiny_table)

    for table, expected in ((with_them, names), (without, [])):
        row = next(csv.DictReader(io.StringIO(overhead.FORMATS["csv"](table))))
        data = json.loads(overhead.FORMATS["json"](table))["rows"][0]
        assert list(row) == list(data)
        assert [name for name in row if name in names] == expected
        assert "measured" not in row
        assert ("Time of a step" in overhead.FORMATS["md"](table)) == bool(expected)


def test_markdown_has_the_spread_beside_the_ratio(measured: Overheads) -> None:
    found = measured.rows[1].measured

    assert found is not None
    spread = f"{found.train_time_ratio_min:.3f} to {found.train_time_ratio_max:.3f}"
    assert f"{found.train_time_ratio:.3f} ({spread})" in overhead.FORMATS["md"](measured)


def test_options_of_the_plain_network_are_its_own(tmp_path: Path) -> None:
    path = tmp_path / "o.yaml"
    row = "  - {labels: [a, b], backbone: mobilenet_v1, method: cam, against: {output_stride: 32}}\n"
    path.write_text(HEADER.replace("32", "64") + row, encoding="utf-8")

    found = overhead.overheads(path, plan=ONCE).rows[0].measured

    assert found is not None
    assert found.train_memory_ratio > 1  # a last map of four times the size


def test_images_that_are_too_small_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "o.yaml"
    path.write_text(HEADER + "  - {labels: [a, b], backbone: tiny, method: cam}\n", encoding="utf-8")
    told: list[str] = []

    with pytest.raises(InputError, match=r"o\.yaml:5: image_size 2 is too small for tiny"):
        overhead.overheads(path, plan=replace(ONCE, image_size=2), say=told.append)
    assert told == []


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, "title: T\nnum_classes: 10\nimage_size: 32\nrows: []\n")

    assert found == ["o.yaml:4: rows is empty; it lists networks"]


def test_the_command_measures_and_says_which_row(wsolbench: Command, tiny_table: Path) -> None:
    words = ("--measure", "--pairs", 2, "--batch-size", 2, "--device", "cpu", "--only", "tiny/layers")

    ended = wsolbench("overhead", tiny_table, *words, "--format", "json")

    (row,) = json.loads(ended.out)["rows"]
    assert (ended.code, row["pairs"]) == (0, 2)
    assert row["train_time_ratio_min"] <= row["train_time_ratio"] <= row["train_time_ratio_max"]
    assert ended.err == "measuring 1 of 1: tiny, layers\n"


def test_an_option_of_measuring_alone_is_refused(wsolbench: Command, tiny_table: Path) -> None:
    ended = wsolbench("overhead", tiny_table, "--pairs", 2, "--batch-size", 2)

    assert (ended.code, ended.out) == (2, "")
    assert "--pairs, --batch-size is for what is measured; say --measure too" in ended.err
