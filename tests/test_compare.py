"""Two sets of trials, paired by seed and by image."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Command
from wsolbench.compare import Side, compare
from wsolbench.errors import InputError
from wsolbench.formats import json as json_format
from wsolbench.table import Report

ADL, CAM = Side("method=adl", {"method": "adl"}), Side("method=cam", {"method": "cam"})


def record(method: str, seed: int, loc: float, **others: Any) -> dict[str, Any]:
    """A finished trial; only `adl` has a gamma."""
    options = {"gamma": 0.8} if method == "adl" else {}
    trial = {"dataset": "birds", "lr": 0.1, "protocol": "wsolbench", "stages": ["a"], "method": method, "seed": seed}
    return {**trial, "id": f"{method}{seed}", "top1_loc": loc, "top1_clas": 70.0, **options, **others}


THREE = [
    *(record("adl", seed, loc) for seed, loc in enumerate((50.0, 52.0, 57.0))),
    *(record("cam", seed, loc) for seed, loc in enumerate((48.0, 51.0, 51.0))),
]


def unknown(_: str) -> Mapping[str, Any]:
    return {}


def compared(records: list[dict[str, Any]], ours: Side = ADL, theirs: Side = CAM) -> tuple[Report, list[str]]:
    return compare(records, (ours, theirs), ["top1_loc", "top1_clas"], unknown)


def test_trials_are_paired_by_seed() -> None:
    made, alone = compared(THREE[::-1])

    (table,) = made.tables
    (loc, clas) = table.rows
    assert alone == []
    limits = ("95 % from", "95 % to", "BCa 95 % from", "BCa 95 % to")
    assert table.headers == ("method=adl", "method=cam", "Difference", *limits, "p", "p (Holm)")
    assert [cell.mean for cell in loc.cells[:3]] == [53.0, 50.0, 3.0]
    assert [cell.mean for cell in loc.cells[7:]] == [0.25, 0.5]  # all three positive: 2 of 8; two rows
    assert loc.cells[0].ids == ("adl0", "adl1", "adl2")
    assert [cell.mean for cell in clas.cells] == [70.0, 70.0, 0.0, None, None, None, None, 1.0, 1.0]
    assert table.caption == "Seeds 0, 1, 2. Equal: dataset birds, lr 0.1, protocol wsolbench. In %."
    assert "With fewer than 6 pairs no difference is called significant." in table.notes


def test_both_intervals_stand_there_and_how_far_bca_is_to_be_believed() -> None:
    made, _ = compared(THREE)

    (table,) = made.tables
    low, high, bca_low, bca_high = (cell.mean or 0.0 for cell in table.rows[0].cells[3:7])
    half = 4.3027 * math.sqrt(7 / 3)  # t of 2 degrees of freedom; differences 2, 1, 6
    assert (low, high) == pytest.approx((3 - half, 3 + half), abs=1e-3)
    assert 1 <= bca_low < 3 < bca_high <= 6
    assert "Difference: paired by seed, with its 95 % interval by Student's t." in table.notes
    said = "The BCa interval is too narrow over few pairs: over 3 it holds the mean about 72 % of the time."
    assert said in table.notes


def test_six_seeds_may_be_significant_and_five_never_are() -> None:
    def mark(count: int) -> bool:
        pairs = [record(m, s, 40.0 + s + (1 + s / 10) * (m == "adl")) for m in ("adl", "cam") for s in range(count)]
        made, _ = compare(pairs, (ADL, CAM), ["top1_loc"], unknown)
        return made.tables[0].rows[0].cells[2].significant

    assert (mark(5), mark(6)) == (False, True)


def test_a_seed_of_one_side_is_told_and_left_out() -> None:
    made, alone = compared([*THREE, record("adl", 7, 99.0)])

    assert made.tables[0].rows[0].cells[0].mean == 53.0
    assert alone == ["'method=adl', seed 7: no partner, the other side has no such seed"]


def test_a_trial_that_diverged_is_told_and_left_out() -> None:
    lost = {key: value for key, value in record("cam", 2, 0).items() if not key.startswith("top1")}

    made, alone = compared([*THREE[:5], {**lost, "diverged": True}])

    assert made.tables[0].rows[0].cells[2].n == 2
    assert alone == [
        "'method=adl', seed 2: no partner, the other side has no such seed",
        "'method=cam', seed 2: diverged, trial cam2",
    ]


def test_a_side_of_which_all_diverged_is_refused() -> None:
    with pytest.raises(InputError, match="all trials that fit 'method=cam' diverged"):
        compared([*THREE[:3], {**record("cam", 0, 0), "diverged": True}])


def test_trials_that_differ_in_another_setting_do_not_pair() -> None:
    with pytest.raises(InputError) as refused:
        compared([r if r["method"] == "adl" else {**r, "lr": 0.01} for r in THREE])

    assert refused.value.problems == (
        "'method=adl', seeds 0, 1, 2: no partner, the other side differs in lr (0.1, there 0.01)",
        "'method=cam', seeds 0, 1, 2: no partner, the other side differs in lr (0.01, there 0.1)",
    )


def test_a_setting_named_on_both_sides_need_not_be_equal() -> None:
    records = [r if r["method"] == "adl" else {**r, "lr": 0.01} for r in THREE]
    ours, theirs = Side("adl, .1", {"method": "adl", "lr": 0.1}), Side("cam, .01", {"method": "cam", "lr": 0.01})

    made, alone = compared(records, ours, theirs)

    assert (made.tables[0].rows[0].cells[2].mean, alone) == (3.0, [])


def test_settings_that_both_sides_have_are_compared_apart() -> None:
    made, _ = compared([*THREE, *({**r, "dataset": "flowers", "top1_loc": 10.0} for r in THREE)])

    assert [table.rows[0].cells[2].mean for table in made.tables] == [3.0, 0.0]


def test_several_trials_of_one_seed_are_refused_with_what_they_differ_in() -> None:
    others = [{**r, "gamma": 0.9, "id": f"{r['id']}x"} for r in THREE[:3]]

    with pytest.raises(InputError, match=r"'method=adl' fits several .* differ in gamma \(0.8, 0.9\); say which"):
        compared([*THREE, *others])


@pytest.mark.parametrize(
    ("ours", "problem"),
    [
        (Side("method=has", {"method": "has"}), "no finished trial fits 'method=has'"),
        (Side("metod=adl", {"metod": "adl"}), "no record has a field or option 'metod', did you mean 'method'"),
        (CAM, "choose some of the same trials"),
    ],
)
def test_a_side_that_cannot_be_compared_is_refused(ours: Side, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        compared(THREE, ours)


def predictions(classes: list[bool], ious: list[float], first: str = "a") -> dict[str, Any]:
    """What is known of four images of class 0."""
    top5 = np.array([[0 if right else 1, 2] for right in classes])
    ids = np.array([first, "b", "c", "d"])
    return {"ids": ids, "labels": np.zeros(4, int), "wsolbench/iou": np.array(ious), "resize224/test/top5": top5}


KNOWN = {
    "adl0": predictions([True, True, True, False], [0.5, 0.9, 0.6, 0.9]),  # a, b, c
    "cam0": predictions([True, True, False, True], [0.7, 0.49, 0.9, 0.1]),  # a
    "adl1": predictions([True] * 4, [0.9] * 4),
    "cam1": predictions([True] * 4, [0.9] * 4, first="z"),
}


def test_images_of_equal_seeds_are_paired() -> None:
    made, _ = compare(THREE, (ADL, CAM), ["top1_loc"], lambda trial: KNOWN.get(trial, {}))

    _, table = made.tables
    (row,) = table.rows
    assert table.headers == ("only method=adl", "only method=cam", "both", "neither", "p", "p (Holm)")
    assert row.labels == ("0",)
    assert [cell.mean for cell in row.cells] == [2, 0, 1, 1, 0.5, 0.5]  # two of two on one side: 2 x 1/4
    assert "Seeds without predictions of the same images: 1, 2." in table.notes


def test_json_has_the_numbers_as_they_are() -> None:
    made, _ = compared(THREE)

    data = json.loads(json_format.render(made))

    assert data["title"] == "method=adl against method=cam"
    assert data["tables"][0]["blocks"][0][0]["cells"][2]["mean"] == 3.0


PUBLISHED = Path(__file__).parents[1] / "results" / "published" / "cub"


def test_the_command_reports_in_every_format(wsolbench: Command, tmp_path: Path) -> None:
    words = ("--format", "md,tex,csv,html,txt,json", "--out", str(tmp_path), "--json")

    ended = wsolbench("report", "methods", "--results", str(PUBLISHED), *words)

    (made,) = json.loads(ended.out)
    assert (ended.code, made["title"]) == (0, "Methods")
    assert {path.name for path in tmp_path.iterdir()} == {f"methods.{end}" for end in words[1].split(",")}
    assert json.loads((tmp_path / "methods.json").read_text(encoding="utf-8"))["tables"] == made["tables"]


def test_the_command_compares_published_trials(wsolbench: Command) -> None:
    ended = wsolbench("compare", "method=acol", "method=cam", "--results", str(PUBLISHED), "--json")

    (table,) = json.loads(ended.out)["tables"]
    difference = table["blocks"][0][0]["cells"][2]
    assert (ended.code, difference["n"], difference["significant"]) == (0, 3, False)
    assert difference["mean"] == pytest.approx(27.95 - 25.66, abs=0.01)


def test_the_command_prints_markdown(wsolbench: Command) -> None:
    ended = wsolbench("compare", "method=acol", "method=cam", "--results", str(PUBLISHED), "--format", "md")

    assert ended.out.startswith("# method=acol against method=cam\n\n## Over seeds\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("method=acol", "method=cam", "--metric", "loc"), "no metric loc; there are: top1_clas, "),
        (("method=acol", "method=cam", "--format", "pdf"), "no format 'pdf'"),
        (("method=acol", "method"), "'method' is no KEY=VALUE"),
        (("method='acol", "method=cam"), "is not KEY=VALUE words: no closing quotation"),
    ],
)
def test_the_command_refuses(wsolbench: Command, words: tuple[str, ...], problem: str) -> None:
    ended = wsolbench("compare", *words, "--results", str(PUBLISHED))

    assert ended.code == 2
    assert problem in ended.err


def test_the_command_says_what_does_not_pair(wsolbench: Command) -> None:
    ended = wsolbench("compare", "method=acol seed=0", "method=cam", "--results", str(PUBLISHED))

    assert ended.code == 3
    assert "not paired: 'method=cam', seeds 1, 2: no partner, the other side has no such seed" in ended.err


def test_the_command_says_which_records_it_left_out(wsolbench: Command, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(PUBLISHED, results)
    broken = next(path for path in sorted(results.glob("*/record.json")) if '"adl"' in path.read_text(encoding="utf-8"))
    broken.write_text("{", encoding="utf-8")

    ended = wsolbench("compare", "method=acol", "method=cam", "--results", str(results))

    assert ended.code == 3
    assert f"left out: {broken}" in ended.err
