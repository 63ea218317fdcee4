import hashlib
import json
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsolbench import trial
from wsolbench.errors import InputError, Problem
from wsolbench.trial import Trial

SPEC: dict[str, Any] = {
    "dataset": "cub",
    "backbone": "vgg16",
    "method": "adl",
    "dataset_options": {},
    "backbone_options": {},
    "method_options": {"points": ["pool3", "pool4", "conv5_3"], "drop_rate": 0.75, "gamma": 0.8},
    "weights": "imagenet",
    "seed": 0,
    "epochs": 50,
    "batch_size": 32,
    "image_size": 224,
    "lr": 0.001,
    "head_lr": 0.01,
    "lr_steps": [15, 30, 45],
    "lr_factor": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "held_out": 0.1,
    "precision": "fp32",
    "extract": "cam",
    "threads": 2,
}
GOLDEN = "8ae16ec47725"
MOVED = "the ids of all trials have changed: every stored result is orphaned; say so in CHANGELOG.md under Results"

finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def made(**changes: Any) -> Trial:
    return trial.from_spec({**SPEC, **changes})


def problems_of(spec: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        trial.from_spec(spec)
    return caught.value.problems


def shuffled(data: Any) -> Any:
    """The same data, its keys the other way round."""
    if isinstance(data, dict):
        return {key: shuffled(data[key]) for key in reversed(list(data))}
    return [shuffled(item) for item in data] if isinstance(data, list) else data


def test_id_of_a_trial_never_changes() -> None:
    assert made().id == GOLDEN, MOVED


def test_id_is_the_digest_of_the_specification_as_sorted_json() -> None:
    text = json.dumps(SPEC, sort_keys=True).replace(", ", ",").replace(": ", ":")

    assert made().id == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_id_is_the_same_in_another_process() -> None:
    code = "import json, sys; from wsolbench import trial; print(trial.from_spec(json.load(sys.stdin)).id)"
    other = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(SPEC), capture_output=True, text=True, check=True
    )

    assert other.stdout.strip() == made().id


def test_id_does_not_depend_on_the_order_of_keys() -> None:
    assert trial.from_spec(shuffled(SPEC)).id == made().id


@pytest.mark.parametrize("field", ["lr", "head_lr", "lr_factor", "weight_decay"])
def test_1_and_1_point_0_are_one_trial(field: str) -> None:
    assert made(**{field: 1}).id == made(**{field: 1.0}).id


def test_0_and_minus_0_are_one_trial() -> None:
    assert made(weight_decay=-0.0).id == made(weight_decay=0).id


def test_list_and_tuple_are_one_trial() -> None:
    assert made(lr_steps=(15, 30, 45)) == made(lr_steps=[15, 30, 45])


OTHERS: dict[str, Any] = {
    "dataset": "shapes",
    "backbone": "tiny",
    "method": "cam",
    "dataset_options": {"version": 2},
    "backbone_options": {"padding": "same"},
    "method_options": {"points": ["pool4"]},
    "weights": "none",
    "lr_steps": [15, 30],
    "held_out": 0.2,
    "momentum": 0.8,
    "precision": "bf16",
    "extract": "layercam",
    "compile": True,
}


@pytest.mark.parametrize("field", [f.name for f in fields(Trial)])
def test_every_field_is_part_of_the_id(field: str) -> None:
    value = OTHERS.get(field) or SPEC[field] + 1

    assert made(**{field: value}).id != made().id


def test_no_field_has_a_hidden_default() -> None:
    groups: dict[str, Any] = {group: {} for group in trial.OPTION_GROUPS}

    assert problems_of(groups) == tuple(f"{name} is missing" for name in trial.FIELDS if name not in trial.LATER)


def test_a_field_newer_than_the_ids_is_in_no_specification_that_does_not_use_it() -> None:
    assert "compile" not in made(compile=False).spec()
    assert made(compile=True).spec()["compile"] is True
    assert made(compile=False).id == made().id == GOLDEN
    assert trial.from_spec(made(compile=True).spec()) == made(compile=True)


def test_a_field_newer_than_the_ids_is_in_every_row() -> None:
    assert [trial.flat(SPEC)["compile"], made().row()["compile"], made(compile=True).row()["compile"]] == [
        False,
        False,
        True,
    ]


def test_no_field_is_a_path_a_device_or_a_number_of_workers() -> None:
    assert not {"data", "results", "path", "device", "workers", "host"} & {f.name for f in fields(Trial)}


def test_specification_makes_the_trial_again() -> None:
    one = made()

    assert trial.from_spec(one.spec()) == one


def test_specification_is_plain_json() -> None:
    assert json.loads(json.dumps(made().spec())) == made().spec() == SPEC


def test_equal_trials_are_one_key() -> None:
    assert len({made(), made(lr=0.001), trial.from_spec(shuffled(SPEC))}) == 1


def test_trial_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        made().seed = 1  # type: ignore[misc]


def test_row_has_options_beside_fields() -> None:
    row = made().row()

    assert (row["dataset"], row["drop_rate"], row["gamma"]) == ("cub", 0.75, 0.8)
    assert not row.keys() & set(trial.OPTION_GROUPS)


EXTRACT = "extract must be cam, gradcam, gradcam++ or layercam, not {!r}"
WEIGHTS = "weights must be none, imagenet or the sha256 of a file, not {!r}"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", -1, "seed must be at least 0, not -1"),
        ("seed", True, "seed must be a whole number, not True"),
        ("seed", "0", "seed must be a whole number, not '0'"),
        ("epochs", 2.0, "epochs must be a whole number, not 2.0"),
        ("epochs", -1, "epochs must be at least 0, not -1"),
        ("batch_size", 0, "batch_size must be more than 0, not 0"),
        ("image_size", -224, "image_size must be more than 0, not -224"),
        ("lr", 0.0, "lr must be more than 0, not 0.0"),
        ("lr", "1e-4", "lr must be a number, not '1e-4'"),
        ("lr", math.nan, "lr must be a finite number, not nan"),
        ("lr", math.inf, "lr must be a finite number, not inf"),
        ("lr", None, "lr must be a number, not None"),
        ("lr_steps", 15, "lr_steps must be a list, not 15"),
        ("lr_steps", [15, 0], "lr_steps[1] must be more than 0, not 0"),
        ("momentum", 1.0, "momentum must be less than 1, not 1.0"),
        ("weight_decay", -0.1, "weight_decay must be at least 0, not -0.1"),
        ("precision", "fp16", "precision must be 'fp32' or 'bf16', not 'fp16'"),
        ("extract", "gradcm", EXTRACT.format("gradcm")),
        ("extract", "GradCAM", EXTRACT.format("GradCAM")),
        ("extract", None, "extract must be text, not None"),
        ("threads", 0, "threads must be at least 1, not 0"),
        ("threads", 100_000, "threads must be at most 1024, not 100000"),
        ("weights", "imagenet21k", WEIGHTS.format("imagenet21k")),
        ("weights", "A" * 64, WEIGHTS.format("A" * 64)),
        ("weights", "none\n", WEIGHTS.format("none\n")),
        ("drop_rate", 0.5, "a trial has no field drop_rate"),
    ],
)
def test_wrong_value_is_told_with_what_it_must_be(field: str, value: Any, message: str) -> None:
    assert problems_of({**SPEC, field: value}) == (message,)


def test_all_wrong_values_are_told_at_once() -> None:
    problems = problems_of({**SPEC, "seed": -1, "lr": 0.0, "threads": 0})

    assert [problem.partition(" ")[0] for problem in problems] == ["seed", "lr", "threads"]


def test_problem_knows_its_key() -> None:
    (problem,) = problems_of({**SPEC, "lr_steps": [0]})

    assert isinstance(problem, Problem)
    assert problem.key == "lr_steps"


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_canonical_text_does_not_depend_on_the_order_of_keys(data: dict[str, Any]) -> None:
    assert trial.canonical(shuffled(data)) == trial.canonical(data)


@given(st.dictionaries(st.text(), plain, max_size=4), st.dictionaries(st.text(), plain, max_size=4))
def test_canonical_texts_are_equal_only_for_equal_json(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert (trial.canonical(a) == trial.canonical(b)) == (
        json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    )


@given(
    seed=st.integers(0),
    lr=st.floats(1e-300, 1e300),
    weight_decay=st.floats(0, 1e300),
    steps=st.lists(st.integers(1), max_size=4),
    options=st.dictionaries(
        st.text(), finite | st.integers() | st.text() | st.lists(st.text(), max_size=3), max_size=4
    ),
)
def test_any_trial_survives_its_specification(
    seed: int, lr: float, weight_decay: float, steps: list[int], options: dict[str, Any]
) -> None:
    one = made(seed=seed, lr=lr, weight_decay=weight_decay, lr_steps=steps, method_options=options)

    again = trial.from_spec(json.loads(json.dumps(one.spec())))

    assert again == one
    assert again.id == one.id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages", ("a", "b", "c", "d")),
        ("stages[:]", ("a", "b", "c", "d")),
        ("stages[-3:]", ("b", "c", "d")),
        ("stages[:2]", ("a", "b")),
        ("stages[1:-1]", ("b", "c")),
        ("stages[9:]", ()),
    ],
)
def test_stages_are_written_out(text: str, expected: tuple[str, ...]) -> None:
    assert trial.expand_stages(text, ["a", "b", "c", "d"]) == expected


@pytest.mark.parametrize("value", ["stages[-:]", "stages[1]", "stages[::2]", "stages ", "a", 3, ["stages"], None])
def test_what_is_no_slice_of_stages_stays(value: Any) -> None:
    assert trial.expand_stages(value, ["a", "b"]) == value
