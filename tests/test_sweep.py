from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsolbench import files, recipe, recommended, shipped, sweep
from wsolbench.errors import InputError
from wsolbench.plugins import frozen
from wsolbench.sweep import Sweep

BASE = "base: {dataset: shapes, backbone: tiny, method: adl}\n"
STAGES = ("pool1", "pool2", "conv4")  # of tiny
LR = "mine.yaml:4: lr must be a number, not 'no'"  # YAML 1.1 would read it as false


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def read(file: Path, text: str, overrides: dict[str, Any] | None = None, **arguments: Any) -> Sweep:
    file.write_text(text, encoding="utf-8")
    return sweep.read(file, overrides or {}, **arguments)


def problems_of(file: Path, text: str, overrides: dict[str, Any] | None = None) -> list[str]:
    """The problems, without the folder of the file."""
    with pytest.raises(InputError) as caught:
        read(file, text, overrides)
    return [problem.replace(f"{file.parent}/", "") for problem in caught.value.problems]


# What a file says


def test_grid_is_crossed(file: Path) -> None:
    found = read(file, BASE + "grid: {drop_rate: [0.25, 0.75], gamma: [0.7, 0.8, 0.9]}")

    pairs = [(t.method_options["drop_rate"], t.method_options["gamma"]) for t in found.trials]
    assert pairs == [(0.25, 0.7), (0.25, 0.8), (0.25, 0.9), (0.75, 0.7), (0.75, 0.8), (0.75, 0.9)]


def test_explicit_trials_come_after_the_grid(file: Path) -> None:
    found = read(file, BASE + "grid: {epochs: [1, 2]}\ntrials: [{method: cam, epochs: 3}, {epochs: 4}]")

    assert [(trial.method, trial.epochs) for trial in found.trials] == [("adl", 1), ("adl", 2), ("cam", 3), ("adl", 4)]


def test_each_trial_is_there_once_for_each_seed(file: Path) -> None:
    found = read(file, BASE + "seeds: [3, 1]\ngrid: {epochs: [1]}\ntrials: [{method: cam}]")

    assert [(trial.method, trial.seed) for trial in found.trials] == [("adl", 3), ("adl", 1), ("cam", 3), ("cam", 1)]


def test_seed_of_a_trial_wins_over_the_axis(file: Path) -> None:
    found = read(file, BASE + "seeds: [0, 1]\ntrials: [{seed: 7}]")

    assert [trial.seed for trial in found.trials] == [7]


def test_seeds_of_the_caller_stand_for_those_of_the_file(file: Path) -> None:
    found = read(file, BASE + "seeds: [0, 1]\ntrials: [{epochs: 1}]", seeds=[8, 9])

    assert [trial.seed for trial in found.trials] == [8, 9]


def test_equal_trials_are_run_once(file: Path) -> None:
    found = read(file, BASE + "grid: {drop_rate: [1, 1.0, 0.75]}\ntrials: [{drop_rate: 0.75}, {points: stages}]")

    assert len(found.trials) == len(set(found.trials)) == 2


def test_grid_may_hold_lists(file: Path) -> None:
    found = read(file, BASE + 'grid: {points: [stages, "stages[-1:]", [conv2, conv3], []]}')

    assert [trial.method_options["points"] for trial in found.trials] == [STAGES, ("conv4",), ("conv2", "conv3"), ()]


def test_sweep_is_called_as_its_file(file: Path) -> None:
    found = read(file, BASE + "trials: [{epochs: 1}]\nreport: table1")

    assert (found.name, found.report) == ("mine", "table1")


def test_trials_are_those_of_the_recipe(file: Path) -> None:
    found = read(file, BASE + "trials: [{gamma: 0.5}]")

    settings = {"dataset": "shapes", "backbone": "tiny", "method": "adl", "gamma": 0.5}
    assert found.trials == (recipe.complete(settings),)


@settings(max_examples=25)
@given(
    rates=st.lists(st.sampled_from([0, 0.25, 0.5, 1.0]), min_size=1, unique=True),
    gammas=st.lists(st.sampled_from([0.7, 0.8, 0.9]), min_size=1, unique=True),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
)
def test_sweep_has_as_many_trials_as_its_axes_say(
    tmp_path_factory: pytest.TempPathFactory, rates: list[float], gammas: list[float], seeds: list[int]
) -> None:
    file = tmp_path_factory.getbasetemp() / "counted.yaml"

    found = read(file, BASE + f"seeds: {seeds}\ngrid: {{drop_rate: {rates}, gamma: {gammas}}}")

    options = [trial.method_options for trial in found.trials]
    assert len(found.trials) == len({trial.id for trial in found.trials}) == len(rates) * len(gammas) * len(seeds)
    assert {(o["drop_rate"], o["gamma"]) for o in options} == {(rate, gamma) for rate in rates for gamma in gammas}


@pytest.mark.parametrize("told", ["trials: [{weights: none}]", "grid: {weights: [none, imagenet, some.pt]}"])
def test_a_file_of_weights_wins_over_the_sweep(file: Path, told: str) -> None:
    (file.parent / "net.pt").write_bytes(b"of a network")
    digest = files.sha256(file.parent / "net.pt")

    found = read(file, BASE + told, weights_file=file.parent / "net.pt")

    assert [trial.weights for trial in found.trials] == [digest]


def test_a_file_of_weights_is_one_among_others_where_the_sweep_has_its_digest(file: Path) -> None:
    (file.parent / "net.pt").write_bytes(b"of a network")
    digest = files.sha256(file.parent / "net.pt")

    found = read(file, BASE + f"grid: {{weights: [none, {digest}]}}", weights_file=file.parent / "net.pt")

    assert [trial.weights for trial in found.trials] == ["none", digest]


# The files that come with it


SIZES = {"drop-rate": 24, "gamma": 18, "placement": 12, "methods": 18, "backbone": 10, "table3": 24}


@pytest.mark.parametrize("name", shipped.names("sweeps"))
def test_shipped_sweep_has_its_trials_a_table_and_a_comment(name: str) -> None:
    path = shipped.find("sweeps", name)

    found = sweep.read(path, {})

    assert len(found.trials) == len({trial.id for trial in found.trials}) == SIZES[name]
    assert found.report in shipped.names("reports")
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_drop_rate_sweep_is_table_1_with_three_seeds() -> None:
    trials = sweep.read(shipped.find("sweeps", "drop-rate"), {}).trials

    adl = [trial.method_options for trial in trials if trial.method == "adl"]
    rows = [(o["drop_rate"], o["drop_mask"], o["importance_map"]) for o in adl]
    grid = [(rate, True, True) for rate in (1.0, 0.75, 0.5, 0.25, 0.0)]
    assert sorted(rows) == sorted(3 * [*grid, (0.75, True, False), (0.75, False, True)])
    assert [trial.seed for trial in trials if trial.method == "cam"] == [0, 1, 2]
    assert {(o["points"], o["gamma"]) for o in adl} == {(STAGES, 0.8)}


@pytest.mark.parametrize(
    ("backbone", "placements"),
    [
        ("vgg16", ["conv5_3", "pool4 conv5_3", "pool3 pool4 conv5_3", "pool2 pool3 pool4 conv5_3"]),
        ("inception_v3", ["Mixed_6e", "Mixed_5d Mixed_6e", "Conv2d_4a Mixed_5d Mixed_6e"]),
        ("tiny", ["conv4", "pool2 conv4"]),
    ],
)
def test_placement_sweep_is_table_2_on_the_stages_of_any_backbone(backbone: str, placements: list[str]) -> None:
    trials = sweep.read(shipped.find("sweeps", "placement"), {"backbone": backbone}, seeds=[0]).trials

    stages = recipe.blueprint(backbone, {}).stages
    assert [" ".join(t.method_options.get("points", ["N/A"])) for t in trials] == [*placements, " ".join(stages), "N/A"]
    assert {(t.method_options["gamma"], t.method_options["drop_rate"]) for t in trials[:-1]} == {(0.8, 0.75)}


def test_table_3_sweep_is_all_methods_on_the_papers_backbones() -> None:
    trials = sweep.read(shipped.find("sweeps", "table3"), {}).trials

    found = {
        backbone: {t.method for t in trials if t.backbone == backbone} for backbone in {t.backbone for t in trials}
    }
    methods = {"cam", "has", "acol", "spg", "adl", "cutmix"}
    assert found == dict.fromkeys(("vgg16", "mobilenet_v1", "resnet50_se", "inception_v3"), methods)


@pytest.mark.parametrize("name", shipped.names("sweeps"))
def test_shipped_sweep_runs_on_other_data_by_overrides(name: str) -> None:
    overrides = {"dataset": "cub", "backbone": "mobilenet_v1", "weights": "imagenet"}

    trials = sweep.read(shipped.find("sweeps", name), overrides).trials

    assert {(t.dataset, t.backbone, t.weights) for t in trials} == {("cub", "mobilenet_v1", "imagenet")}
    for setting in ("epochs", "image_size", "batch_size", "lr_steps"):
        asked = recommended.settings("cub", "mobilenet_v1", "adl")[setting]
        assert {getattr(t, setting) for t in trials} == {frozen(asked)}


# Overrides


def test_override_wins_over_base_grid_and_trials(file: Path) -> None:
    text = BASE + "grid: {epochs: [1, 2]}\ntrials: [{epochs: 3, gamma: 0.5}]"

    found = read(file, text, {"epochs": 9, "seed": 4})

    assert {(trial.epochs, trial.seed) for trial in found.trials} == {(9, 4)}


def test_override_of_an_option_applies_to_the_methods_that_have_it(file: Path) -> None:
    found = read(file, BASE + "trials: [{method: adl}, {method: cam}, {method: has}]", {"gamma": 0.5})

    assert [trial.method_options.get("gamma") for trial in found.trials] == [0.5, None, None]


def test_override_of_the_method_decides_which_options_apply(file: Path) -> None:
    found = read(file, "base: {dataset: shapes, backbone: tiny}\ntrials: [{epochs: 1}]", {"method": "has", "patch": 4})

    assert found.trials[0].method_options["patch"] == 4


def test_override_that_no_trial_understands_is_refused(file: Path) -> None:
    assert problems_of(file, BASE + "trials: [{method: cam}]", {"gamma": 0.5}) == [
        "no trial of mine.yaml has a field or option 'gamma'"
    ]


def test_wrong_override_is_not_blamed_on_a_line_of_the_file(file: Path) -> None:
    text = BASE + "grid: {drop_rate: [0.5, 0.75]}"

    assert problems_of(file, text, {"drop_rate": 1.5}) == ["drop_rate must be at most 1, not 1.5"]


def test_unknown_override_and_wrong_value_are_told_together(file: Path) -> None:
    problems = problems_of(file, BASE + "trials: [{epochs: 1}]", {"gama": 0.5, "lr": -1.0})

    assert problems == [
        "lr must be more than 0, not -1.0",
        "no trial of mine.yaml has a field or option 'gama', did you mean 'gamma'?",
    ]


def test_unknown_kind_in_an_override_is_told_alone(file: Path) -> None:
    (problem,) = problems_of(file, BASE + "trials: [{epochs: 1}]", {"method": "adll", "gamma": 0.5})

    assert problem.startswith("no method 'adll', did you mean 'adl'?")


def test_a_mistake_that_an_override_mends_is_not_told(file: Path) -> None:
    problems = problems_of(file, "base: {dataset: shapes, epochs: -1}\ntrials: [{method: cam}]", {"epochs": 2})

    assert [problem.partition(";")[0] for problem in problems] == ["mine.yaml:1: backbone is missing"]


# Mistakes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.yaml:1: a sweep is a mapping with base, grid, trials, seeds, report and resources"),
        ("- base", "mine.yaml:1: a sweep is a mapping with base, grid, trials, seeds, report and resources"),
        (BASE, "mine.yaml:1: a sweep needs a grid, a list of trials, or both"),
        (BASE + "grid: {}", "mine.yaml:1: a sweep needs a grid, a list of trials, or both"),
        (
            BASE + "gird: {}",
            "mine.yaml:2: a sweep has no key gird; it has: base, grid, trials, seeds, report, resources",
        ),
        (
            BASE + "grid: {gamma: [0.8]}\nresources:\n  mem_gb: 3\n  timeout_min: 0",
            "mine.yaml:5: timeout_min must be more than 0, not 0",
        ),
        (BASE + "grid: {gamma: 0.8}", "mine.yaml:2: grid.gamma must be a list, not 0.8"),
        (BASE + "grid:\n  gamma: []", "mine.yaml:3: grid.gamma must have at least 1 value, not []"),
        (BASE + "trials: {method: cam}", "mine.yaml:2: trials must be a list, not {'method': 'cam'}"),
        (BASE + "trials: [{}]\nseeds: []", "mine.yaml:3: seeds must have at least 1 value, not []"),
        (BASE + "trials: [{}]\nseeds: [0, -1]", "mine.yaml:3: seeds[1] must be at least 0, not -1"),
        (BASE + "trials: [{}]\nseeds: 3", "mine.yaml:3: seeds must be a list, not 3"),
        (BASE + "base: {}", "mine.yaml:2: repeated key 'base', first on line 1"),
        (BASE + "trials:\n- {}\n- {gamma: 0.5,\n   gamma: 0.6}", "mine.yaml:5: repeated key 'gamma', first on line 4"),
        (BASE + "trials:\n- {}\n- {gamma: 5}", "mine.yaml:4: gamma must be at most 1, not 5"),
        (BASE + "grid:\n  drop_rate: [0.5, 1.5]", "mine.yaml:3: drop_rate must be at most 1, not 1.5"),
        ("base:\n  dataset: shapes\n  backbone: tiny\n  lr: no\ntrials: [{method: cam}]", LR),
    ],
)  # fmt: skip
def test_mistake_is_told_with_file_and_line(file: Path, text: str, message: str) -> None:
    assert problems_of(file, text) == [message]


@pytest.mark.parametrize("text", ["trials: [{%s: 2}]", "grid: {%s: [2, 2]}", "trials: [{}]\n%s: 2"])
@pytest.mark.parametrize(
    "word", ["data=FOLDER", "device=auto|cpu|cuda", "workers=N", "protocol=NAME", "tensorboard=FOLDER"]
)
def test_what_only_the_command_line_says_is_told_so(file: Path, word: str, text: str) -> None:
    key = word.partition("=")[0]

    (problem,) = problems_of(file, BASE + text % key)

    assert problem.endswith(f": {key} says where a trial runs, not what it is: give {word} on the command line")


def test_weights_by_a_path_are_told_to_be_given_on_the_command_line(file: Path) -> None:
    (problem,) = problems_of(file, BASE + "trials: [{weights: some/path.pt}]")

    wanted = "mine.yaml:2: weights must be none, imagenet or the sha256 of a file, not 'some/path.pt'"
    assert problem == f"{wanted}; a file is given on the command line: weights=FILE"


GRIDS = {
    "a square": (f"grid:\n  seed: {list(range(101))}\n  epochs: {list(range(101))}\n", "10,201"),
    "a grid of grids": (
        "grid:\n" + "".join(f"  k{n}: [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" for n in range(500)),
        "about 10^477",
    ),
    "seeds of a grid": (f"grid:\n  epochs: {list(range(9_000))}\nseeds: {list(range(9_000))}\n", "81,000,000"),
    "seeds of trials": (f"trials:\n  - lr: 1\n  - lr: 2\n  - seed: 1\nseeds: {list(range(5_000))}\n", "10,001"),
}


@pytest.mark.parametrize("name", GRIDS)
def test_sweep_without_end_is_refused_before_a_trial_is_made(
    name: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, count = GRIDS[name]
    monkeypatch.delattr(recipe, "complete")

    problems = problems_of(file, BASE + text)

    assert problems == [f"mine.yaml:2: {count} trials, more than 10,000; split the sweep"]


def test_seed_that_is_given_is_not_multiplied(file: Path) -> None:
    file.write_text(BASE + f"trials: [{{method: cam}}]\nseeds: {list(range(10_001))}\n", encoding="utf-8")

    assert [trial.seed for trial in sweep.read(file, {"seed": 5}).trials] == [5]


def test_missing_file_is_told_with_the_nearest_name(file: Path) -> None:
    file.write_text("", encoding="utf-8")

    with pytest.raises(InputError) as caught:
        sweep.read(file.with_name("mime.yaml"), {})

    assert str(caught.value) == f"no file '{file.parent}/mime.yaml', did you mean 'mine.yaml'?"


def test_unknown_report_is_told_before_the_first_trial(file: Path) -> None:
    (problem,) = problems_of(file, BASE + "trials: [{}]\nreport: tabel1")

    assert problem.startswith("mine.yaml:3: no file 'tabel1', did you mean 'table1'? The reports here are: ")


def test_all_mistakes_are_told_at_once_each_with_its_line(file: Path) -> None:
    text = (
        "base: {dataset: shapes, backbone: tiny, seeed: 1}\n"
        "grid:\n"
        "  method: [adl, adll]\n"
        "  gamma: [1.5]\n"
        "trials:\n"
        "- {method: cam, epochs: -1}\n"
        "- {method: adl, points: [pool9]}\n"
    )

    problems = problems_of(file, text)

    assert sorted({problem.partition(": ")[0] for problem in problems}) == [f"mine.yaml:{k}" for k in (1, 3, 4, 6, 7)]
    assert len(problems) == len(set(problems))


def test_wrong_seeds_do_not_hide_the_other_mistakes(file: Path) -> None:
    text = "grid:\n  drop_rate: [2]\nseeds: [-1, a]\nreport: tabel1\nresources: 3\n"

    problems = problems_of(file, BASE + text)

    assert sorted(problem.partition(": ")[0] for problem in problems) == [f"mine.yaml:{k}" for k in (3, 4, 4, 5, 6)]
