import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests import fake_data
from tests.conftest import BACKBONES
from wsolbench import backbones, datasets, documents, files, method, methods, plugins, recipe, recommended
from wsolbench.errors import InputError
from wsolbench.trial import FIELDS, LATER, OPTION_GROUPS, Trial

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"dataset": datasets, "backbone": backbones, "method": methods}
COMBINATIONS = list(itertools.product(plugins.names(datasets), BACKBONES, plugins.names(methods)))


def completed(*names: str, **settings: Any) -> Trial:
    return recipe.complete({**dict(zip(KINDS, names, strict=True)), **settings})


def adl(**settings: Any) -> Trial:
    return completed("shapes", "tiny", "adl", **settings)


def problems_of(settings: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        recipe.complete(settings)
    return caught.value.problems


ADL = {"dataset": "shapes", "backbone": "tiny", "method": "adl"}
STAGES = ("pool1", "pool2", "conv4")  # of tiny


# The recipe


@pytest.mark.parametrize(("dataset", "backbone", "name"), COMBINATIONS)
def test_recipe_is_complete_for_every_combination(dataset: str, backbone: str, name: str) -> None:
    trial = completed(dataset, backbone, name, weights="none", **fake_data.OPTIONS.get(dataset, {}))

    declared = plugins.option_names(methods, name)
    assert list(trial.method_options) == declared
    assert set(trial.spec()) == {*FIELDS, *OPTION_GROUPS} - LATER.keys()


def test_recipe_names_only_what_there_is() -> None:
    known = {kind: {"any", *plugins.names(package)} for kind, package in KINDS.items()}
    content = documents.read(ROOT / "wsolbench" / "recipe.yaml").data

    assert content.keys() <= known["dataset"]
    for blocks in content.values():
        assert blocks.keys() <= known["backbone"]
        for settings in blocks.values():
            assert settings.keys() <= known["method"]


@pytest.mark.parametrize(("dataset", "backbone", "name"), COMBINATIONS)
def test_no_option_is_called_like_another(dataset: str, backbone: str, name: str) -> None:
    names = [
        plugins.option_names(package, one)
        for package, one in zip(KINDS.values(), (dataset, backbone, name), strict=True)
    ]
    every = [*FIELDS, *itertools.chain(*names), "data", "device", "workers", "protocol", "id", "stages"]

    assert len(every) == len(set(every))


@pytest.mark.parametrize("name", plugins.names(methods))
def test_every_placement_of_the_recipe_exists(name: str) -> None:
    options = method.feature_points(plugins.option_class(methods, name))

    for backbone in BACKBONES:
        trial = completed("cub", backbone, name, weights="none")
        points = recipe.blueprint(backbone, dict(trial.backbone_options)).points
        assert all(trial.method_options[option] for option in options)
        assert all(point in points for option in options for point in trial.method_options[option])


def test_particular_wins_over_general(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {
        "any": {
            "any": {"any": {"lr": 1, "epochs": 1, "seed": 1, "threads": 1}, "cam": {"epochs": 2}},
            "vgg16": {"any": {"lr": 3}},
        },
        "cub": {"any": {"any": {"seed": 5}}, "vgg16": {"cam": {"threads": 7}}},
    }
    monkeypatch.setattr(recommended, "_recipe", lambda: layers)

    assert recommended.settings("cub", "vgg16", "cam") == {"lr": 3, "epochs": 2, "seed": 5, "threads": 7}
    assert recommended.settings("cub", "tiny", "adl") == {"lr": 1, "epochs": 1, "seed": 5, "threads": 1}


def test_settings_win_over_the_recipe() -> None:
    trial = adl(epochs=3, gamma=0.5, points=["conv2"])

    assert (trial.epochs, trial.method_options["gamma"], trial.method_options["points"]) == (3, 0.5, ("conv2",))


def test_options_are_complete_before_the_id_is_made() -> None:
    default = plugins.option_class(methods, "adl").drop_rate

    assert adl(drop_rate=default) == adl()


@pytest.mark.parametrize(("one", "same"), [(1, 1.0), (0, 0.0), (0, -0.0)])
def test_whole_and_real_numbers_are_one_trial(one: float, same: float) -> None:
    assert adl(drop_rate=one, weight_decay=one).id == adl(drop_rate=same, weight_decay=same).id


def test_order_of_settings_does_not_change_the_id() -> None:
    settings = {**ADL, "gamma": 0.5, "epochs": 1, "drop_rate": 0.25}

    assert recipe.complete(dict(reversed(settings.items()))).id == recipe.complete(settings).id


def test_path_of_the_weights_does_not_change_the_id(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    paths = [tmp_path / "one.pt", tmp_path / "a" / "two.pt"]
    for path in paths:
        path.write_bytes(b"the same")

    one, two = (recipe.complete(ADL, path) for path in paths)

    assert one == two
    assert one.weights == files.sha256(paths[0])


def test_file_of_weights_asks_for_options_of_the_backbone(tmp_path: Path) -> None:
    metadata = {"kwargs": json.dumps({"bn_eps": 0.001, "pad_type": "same"})}
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", metadata)

    trial = recipe.complete({**ADL, "backbone": "mobilenet_v1"}, tmp_path / "w.safetensors")

    assert (trial.backbone_options["padding"], trial.backbone_options["bn_eps"]) == ("same", 0.001)


def test_settings_win_over_what_the_file_of_weights_asks_for(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", {"kwargs": json.dumps({"pad_type": "same"})})

    settings = {**ADL, "backbone": "mobilenet_v1", "padding": "symmetric"}
    trial = recipe.complete(settings, tmp_path / "w.safetensors")

    assert trial.backbone_options["padding"] == "symmetric"


# Feature points


@pytest.mark.parametrize(
    ("given", "points"), [("stages", STAGES), ("stages[-1:]", STAGES[-1:]), (["conv3", "pool1"], ("conv3", "pool1"))]
)
def test_points_are_written_out_in_the_trial(given: Any, points: tuple[str, ...]) -> None:
    assert adl(points=given).method_options["points"] == points


def test_stages_and_their_names_are_one_trial() -> None:
    assert adl(points="stages").id == adl(points=list(STAGES)).id


def test_no_points_are_a_placement_too() -> None:
    assert adl(points=[]).method_options["points"] == ()


@pytest.mark.parametrize(
    ("points", "messages"),
    [
        (["pool5"], ["no feature point 'pool5'; this backbone has: conv1, pool1, conv2, pool2, conv3, conv4, conv5"]),
        (["pool1", "pool1"], ["feature point 'pool1' is named 2 times"]),
        ("stages[7:]", ["stages[7:] takes none of the backbone's stages"]),
        ("pool1", ["points must be a list, not 'pool1'"]),
        ("stages[-:]", ["points must be a list, not 'stages[-:]'"]),
        (3, ["points must be a list, not 3"]),
    ],
)
def test_wrong_points_are_told(points: Any, messages: list[str]) -> None:
    assert list(problems_of({**ADL, "points": points})) == messages


# Mistakes


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"method": "adll"}, "no method 'adll', did you mean 'adl'? There are: acol, adl, "),
        ({"backbone": "vgg"}, "no backbone 'vgg', did you mean 'vgg16'? There are: "),
        ({"dataset": 3}, "no dataset '3'. There are: "),
        ({"drop_rate": 1.5}, "drop_rate must be at most 1, not 1.5"),
        ({"gamma": -0.1}, "gamma must be at least 0, not -0.1"),
        ({"gama": 0.8}, "no field or option 'gama', did you mean 'gamma'? There are: dataset, backbone, method, "),
        ({"lr": "fast"}, "lr must be a number, not 'fast'"),
        ({"image_size": 0}, "image_size must be more than 0, not 0"),
        ({"weights": "imagenet"}, "tiny has no imagenet weights; say weights=none, give a file, or take another backb"),
        ({"weights": "my.pth"}, "weights must be none, imagenet or the sha256 of a file, not 'my.pth'"),
    ],
)
def test_mistake_is_told(changes: dict[str, Any], start: str) -> None:
    (problem,) = problems_of({**ADL, **changes})

    assert problem.startswith(start)


def test_unknown_option_is_told_with_all_that_there_are() -> None:
    (problem,) = problems_of({**ADL, "gama": 0.8})

    assert problem.endswith(", ".join([*FIELDS, "points", "drop_rate", "gamma", "drop_mask", "importance_map"]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_is_told_with_what_there_is(kind: str) -> None:
    (problem,) = problems_of({key: value for key, value in ADL.items() if key != kind})

    assert problem == f"{kind} is missing; there are: {', '.join(plugins.names(KINDS[kind]))}"


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_fields_are_told_with_what_is_missing(kind: str) -> None:
    wrong = {"epochs": -1, "precision": "fp64"}

    problems = problems_of({key: value for key, value in (ADL | wrong).items() if key != kind})

    starts = [f"{kind} is missing; ", "epochs must be at least 0, not -1", "precision must be 'fp32' or 'bf16'"]
    assert all(problem.startswith(start) for problem, start in zip(problems, starts, strict=True))


def test_all_problems_are_told_at_once() -> None:
    wrong = {"points": ["pool9"], "gama": 1, "epochs": -1, "lr": 0.0, "colour": "red"}

    problems = problems_of({**ADL, **wrong})

    starts = (
        "no field or option 'gama'",
        "no field or option 'colour'",
        "no feature point 'pool9'",
        "epochs must",
        "lr must",
    )
    assert len(problems) == len(starts)
    assert all(problem.startswith(start) for problem, start in zip(problems, starts, strict=True))


def test_wrong_option_beside_a_wrong_point_is_told_too() -> None:
    problems = problems_of({**ADL, "points": ["pool9"], "drop_rate": 1.5})

    assert [problem.split()[0] for problem in problems] == ["no", "drop_rate"]


def test_unknown_names_are_told_together() -> None:
    problems = problems_of({"dataset": "cup", "backbone": "tyni", "method": "cem"})

    assert [problem.split()[1:3] for problem in problems] == [
        ["dataset", "'cup',"],
        ["backbone", "'tyni'."],
        ["method", "'cem',"],
    ]


def test_problem_of_the_backbone_is_told_once() -> None:
    problems = problems_of({**ADL, "backbone": "mobilenet_v1", "padding": "round"})

    assert len(problems) == 1
    assert problems[0].startswith("padding must be ")


def test_wrong_point_is_refused_without_building_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[torch.device] = []
    original = torch.nn.Conv2d.reset_parameters

    def note(layer: torch.nn.Conv2d) -> None:
        built.append(layer.weight.device)
        original(layer)

    recipe._blueprint.cache_clear()
    monkeypatch.setattr(torch.nn.Conv2d, "reset_parameters", note)

    problems_of({**ADL, "backbone": "vgg16", "points": ["pool5"]})

    assert {device.type for device in built} == {"meta"}


def test_a_sweep_of_the_embedded_data_is_planned_without_torchs_compiler() -> None:
    plan = "recipe.complete({'dataset': 'shapes', 'backbone': 'tiny', 'method': 'adl'})"
    words = f"import sys; from wsolbench import recipe; {plan}; sys.exit('torch._dynamo' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0


def test_weights_whose_metadata_asks_for_what_the_backbone_has_not_are_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"kwargs": '{"pad_type": "same", "bn_eps": 0.001}'})

    with pytest.raises(InputError) as caught:
        recipe.complete(ADL, path)

    asked = "its metadata asks for bn_eps, padding, which tiny has not"
    assert caught.value.problems == (f"other.safetensors has the weights of another network: {asked}",)
