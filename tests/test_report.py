import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsolbench import documents, formats, plugins, report, table_file
from wsolbench.asked import Asked
from wsolbench.errors import InputError
from wsolbench.formats import md, txt
from wsolbench.protocols import METRICS
from wsolbench.store import COUNTED
from wsolbench.table import Cell, Report, Row, Table

TABLE1 = Path(__file__).parents[1] / "reports" / "table1.yaml"
STAGES = ["early", "middle", "late"]

SMALL = """\
title: Masks
per: [dataset]
caption: [dataset, epochs]
sweep: masks
labels: [Rate]
columns:
  - {header: Loc, metric: top1_loc, mark: bold}
  - {header: Clas, metric: top1_clas, mark: italic}
  - {header: Coverage, metric: body_coverage, optional: true}
marks: {bold: best localization, italic: best classification}
note: "N/A: no layer."
blocks:
  - name: with
    where: {method: masked, points: "stages[-2:]"}
    rows:
      - {labels: [75], where: {rate: 0.75}}
      - {labels: [0], where: {rate: 0}}
  - name: without
    sweep: none
    rows:
      - {labels: [N/A], where: {method: bare}}
"""


def table(text: str = SMALL) -> table_file.TableFile:
    return table_file.table_file(documents.parse(text, Path("reports/small.yaml")))


def record(loc: float, clas: float, seed: int, rate: float | None = None, **others: Any) -> dict[str, Any]:
    """A finished trial of the small table's rows: of the method with a mask if there is a rate."""
    method = {"method": "bare"} if rate is None else {"method": "masked", "rate": rate, "points": STAGES[-2:]}
    trial = {"dataset": "birds", "epochs": 30, "stages": STAGES, "seed": seed, "id": f"{rate}-{seed}", **method}
    return {**trial, "top1_loc": loc, "top1_clas": clas, **others}


def full() -> list[dict[str, Any]]:
    """Every row of the small table with seeds 0, 1, 2."""
    return [
        *(record(loc, clas, seed, 0.75) for seed, (loc, clas) in enumerate([(48, 60), (50, 61), (52, 62)])),
        *(record(loc, clas, seed, 0.0) for seed, (loc, clas) in enumerate([(30, 70), (30, 70), (33, 70)])),
        *(record(loc, clas, seed) for seed, (loc, clas) in enumerate([(40, 69), (40, 70), (40, 71)])),
    ]


def built(records: list[dict[str, Any]], text: str = SMALL, **filters: Any) -> Report:
    return report.report(table(text), records, Asked("results", filters))


def only(records: list[dict[str, Any]], text: str = SMALL, **filters: Any) -> Table:
    (one,) = built(records, text, **filters).tables
    return one


def rows(of: Table) -> list[Row]:
    return [row for block in of.blocks for row in block]


def lacks(of: Table) -> list[tuple[str, str]]:
    return [(item.row, item.lack) for item in of.missing]


def problems(text: str) -> list[str]:
    with pytest.raises(InputError) as refused:
        table(text)
    return str(refused.value).split("\n")


GOLDEN_MARKDOWN = """\
# Masks

## dataset birds

Dataset birds, epochs 30. In % after the last epoch, mean ± SD (ddof 1) over 3 seeds. \
Marked: **best localization**, *best classification*.

|   Rate |              Loc |           Clas |
|-------:|-----------------:|---------------:|
|     75 | **50.00 ± 2.00** |   61.00 ± 1.00 |
|      0 |     31.00 ± 1.73 | *70.00 ± 0.00* |
|        |                  |                |
|    N/A |     40.00 ± 0.00 | *70.00 ± 1.00* |

N/A: no layer.
"""

GOLDEN_PLAIN = """\
Masks

dataset birds

Dataset birds, epochs 30. In % after the last epoch, mean ± SD (ddof 1) over 3 seeds. \
Marked: *best localization*, _best classification_.

  Rate             Loc            Clas
------  --------------  --------------
    75  *50.00 ± 2.00*    61.00 ± 1.00
     0    31.00 ± 1.73  _70.00 ± 0.00_
------  --------------  --------------
   N/A    40.00 ± 0.00  _70.00 ± 1.00_

N/A: no layer.
"""


def test_a_complete_table_in_markdown() -> None:
    complete = built(full())

    assert md.render(complete) == GOLDEN_MARKDOWN
    assert complete.complete


def test_a_complete_table_on_a_terminal() -> None:
    assert txt.render(built(full())) == GOLDEN_PLAIN


def test_a_cell_is_the_mean_and_the_sample_deviation_over_seeds() -> None:
    cell = rows(only(full()))[0].cells[0]

    assert cell == Cell(mean=50.0, sd=2.0, n=3, ids=("0.75-0", "0.75-1", "0.75-2"), marks=("bold",))


def test_one_seed_has_no_spread() -> None:
    text = md.render(built([r for r in full() if r["seed"] == 1]))

    assert "In % after the last epoch, one seed, no spread." in text
    assert "|     75 | **50.00** |   61.00 |" in text


def test_the_number_of_seeds_is_a_column_where_it_differs() -> None:
    records = [r for r in full() if r["method"] == "masked" or r["seed"] == 0]

    text = md.render(built(records))

    assert "In % after the last epoch, mean ± SD (ddof 1) over n seeds, no SD where n is 1." in text
    assert "|    N/A |            40.00 |          69.00 |   1 |" in text


def test_a_cell_of_fewer_seeds_keeps_its_spread() -> None:
    records = [r for r in full() if (r["method"], r["seed"]) != ("bare", 0)]

    text = md.render(built(records))

    assert "In % after the last epoch, mean ± SD (ddof 1) over n seeds. Marked" in text
    assert "|    N/A |     40.00 ± 0.00 | *70.50 ± 0.71* |   2 |" in text


def test_the_best_is_of_the_means_and_not_of_what_is_printed() -> None:
    records = [record(50.001, 60, 0, 0.75), record(50.002, 60, 0, 0.0), record(10, 60, 0)]

    marks = [row.cells[0].marks for row in rows(only(records))]

    assert marks == [(), ("bold",), ()]


def test_ties_share_the_mark() -> None:
    records = [record(loc, 60, seed, 0.75) for seed, loc in enumerate((0.1, 0.2, 0.3))]
    records += [record(loc, 61, seed, 0.0) for seed, loc in enumerate((0.3, 0.2, 0.1))]

    marks = [row.cells[0].marks for row in rows(only(records))]

    assert marks == [("bold",), ("bold",), ()]


def test_a_mark_nobody_wins_is_not_explained() -> None:
    records = [{**r, "top1_clas": None} for r in full()]

    assert "Marked: **best localization**.\n" in md.render(built(records))


def test_an_optional_column_is_shown_when_some_record_has_it() -> None:
    records = full()
    records[0]["body_coverage"] = 12.345

    shown = only(records)

    assert shown.headers == ("Loc", "Clas", "Coverage")
    assert [row.cells[2].mean for row in rows(shown)] == [12.345, None, None]


def test_an_optional_column_without_values_is_not_shown() -> None:
    records = [{**r, "body_coverage": None} for r in full()]

    assert only(records).headers == ("Loc", "Clas")


def test_rows_without_a_trial_are_named_with_the_command() -> None:
    incomplete = built([r for r in full() if r.get("rate") != 0.75])

    text = md.render(incomplete)

    assert not incomplete.complete
    assert "|     75 |                — |              — |" in text
    assert "Missing:\n\n- Rate 75: no trial (seeds 0, 1, 2)\n\n" in text
    assert text.endswith("To fill:\n\n- `make sweep-masks DATASET=birds ARGS='--seeds 0-2 epochs=30'`\n")


def test_rows_with_fewer_seeds_than_others_are_named_with_the_seeds() -> None:
    incomplete = only([r for r in full() if (r["method"], r["seed"]) not in {("bare", 0), ("bare", 2)}])

    assert lacks(incomplete) == [("Rate N/A", "seeds 0, 2")]
    assert incomplete.commands == ("make sweep-none DATASET=birds ARGS='--seeds 0-2 epochs=30'",)


def test_seeds_without_a_metric_are_named() -> None:
    records = full()
    records[1]["top1_clas"] = None
    del records[2]["top1_loc"]

    assert lacks(only(records)) == [("Rate 75", "seed 1 has no top1_clas"), ("Rate 75", "seed 2 has no top1_loc")]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_missing(value: float) -> None:
    records = full()
    records[0]["top1_loc"] = value

    shown = only(records)

    assert rows(shown)[0].cells[0].n == 2
    assert lacks(shown) == [("Rate 75", "seed 0 has no top1_loc")]


def test_a_row_in_two_blocks_is_missing_once() -> None:
    again = "      - {labels: [75], where: {method: masked, points: 'stages[-2:]', rate: 0.75}, sweep: masks}\n"

    shown = only([r for r in full() if r.get("rate") != 0.75], SMALL + again)

    assert len(rows(shown)) == 4
    assert lacks(shown) == [("Rate 75", "no trial (seeds 0, 1, 2)")]


def test_a_seed_that_is_there_twice_counts_once() -> None:
    records = full()

    assert built([*records, dict(records[0]), dict(records[4])]) == built(records)


def test_different_records_of_one_seed_are_told() -> None:
    shown = only([*full(), record(99, 99, 0, 0.75, id="1-other")])

    assert rows(shown)[0].cells[0].mean == 50.0
    assert shown.notes[0] == "Rate 75: seed 0 has several records (0.75-0, 1-other); 0.75-0 counts"


def test_each_data_set_has_its_own_table() -> None:
    flowers = [{**r, "dataset": "flowers", "top1_loc": 1.0} for r in full()]

    found = built([*flowers, *full()]).tables

    assert [one.name for one in found] == ["dataset birds", "dataset flowers"]
    assert [rows(one)[0].cells[0].mean for one in found] == [50.0, 1.0]


def test_data_sets_are_apart_even_if_no_row_has_both() -> None:
    records = [record(50, 60, 0, 0.75), record(40, 70, 0, dataset="flowers")]

    assert [one.name for one in built(records).tables] == ["dataset birds", "dataset flowers"]


def test_records_of_a_cell_that_differ_in_a_field_are_apart_and_the_caption_names_it() -> None:
    quick = [{**r, "epochs": 2, "lr_steps": [1]} for r in full()]

    found = built([*full(), *quick]).tables

    assert [one.name for one in found] == ["dataset birds, epochs 2", "dataset birds, epochs 30"]
    assert found[0].caption.startswith("Dataset birds, epochs 2. In %")


def test_a_field_that_the_caption_does_not_list_is_told_when_it_sets_tables_apart() -> None:
    records = [*full(), *({**r, "lr": 0.1} for r in full()), *({**r, "lr": 0.01} for r in full())]

    captions = [one.caption.partition(" In %")[0] for one in built(records).tables]

    assert captions == [
        "Dataset birds, epochs 30, lr 0.01.",
        "Dataset birds, epochs 30, lr 0.1.",
        "Dataset birds, epochs 30, lr not given.",
    ]


def test_a_row_that_lacks_an_option_of_other_methods_is_in_every_table() -> None:
    masked = [{**r, "gamma": gamma} for gamma in (0.7, 0.8) for r in full() if r["method"] == "masked"]
    bare = [r for r in full() if r["method"] == "bare"]

    found = built([*masked, *bare]).tables

    assert [one.name for one in found] == ["dataset birds, gamma 0.7", "dataset birds, gamma 0.8"]
    assert [rows(one)[2].cells[0].mean for one in found] == [40.0, 40.0]


def test_settings_may_differ_between_rows() -> None:
    records = [{**r, "epochs": 60} if r["method"] == "bare" else r for r in full()]

    assert "epochs 30 or 60 (differs between rows)." in only(records).caption


def test_the_command_repeats_what_sets_the_table_apart_and_what_was_asked() -> None:
    records = [{**r, "epochs": epochs, "lr": 0.1} for epochs in (2, 30) for r in full() if r.get("rate") != 0.75]

    commands = [one.commands for one in built(records, lr=0.1).tables]

    assert commands == [
        ("make sweep-masks DATASET=birds ARGS='--seeds 0-2 epochs=2 lr=0.1'",),
        ("make sweep-masks DATASET=birds ARGS='--seeds 0-2 epochs=30 lr=0.1'",),
    ]


def test_the_command_repeats_where_the_user_looked_and_the_whole_budget() -> None:
    records = [{**r, "lr": 0.1, "lr_steps": [3, 5]} for r in full() if r.get("rate") != 0.75]
    asked = Asked("my results", {"dataset": "birds"}, {"data": "/data/birds", "weights": "w.safetensors"})

    (shown,) = report.report(table(), records, asked).tables

    (command,) = shown.commands
    assert shlex.split(command) == [
        *("make", "sweep-masks", "DATASET=birds", "DATA=/data/birds", "WEIGHTS=w.safetensors"),
        "ARGS=--results 'my results' --seeds 0-2 epochs=30 lr=0.1 'lr_steps=[3, 5]'",
    ]


def test_filters_choose_the_records() -> None:
    flowers = [{**r, "dataset": "flowers"} for r in full()]

    shown = only([*flowers, *full()], dataset="flowers", epochs=30)

    assert shown.name == "dataset flowers"


def test_a_filter_on_a_field_that_no_record_has_is_refused() -> None:
    with pytest.raises(InputError, match="no record has a field or option 'datset', did you mean 'dataset'"):
        built(full(), datset="birds")


def test_stages_stand_for_those_of_the_records_own_backbone() -> None:
    wide = [{**r, "stages": ["a", "b", "c", "d"], "points": ["c", "d"]} for r in full() if "rate" in r]
    wrong = [{**r, "points": STAGES} for r in full() if "rate" in r]

    assert only(wide).missing[0].row == "Rate N/A"
    assert built(wrong).tables == ()


@pytest.mark.parametrize(
    ("written", "points"),
    [
        ("stages", STAGES),
        ("stages[-1:]", ["late"]),
        ("stages[:2]", ["early", "middle"]),
        ("stages[1:2]", ["middle"]),
        (["early"], ["early"]),
    ],
)
def test_a_filter_may_name_a_slice_of_the_stages(written: object, points: list[str]) -> None:
    records = [{**r, "points": points} for r in full()]
    text = SMALL.replace(', points: "stages[-2:]"', "")

    assert only(records, text, points=written).missing == ()


def test_true_is_not_one() -> None:
    text = SMALL.replace("where: {method: bare}", "where: {method: bare, on: true}")
    records = [{**r, "on": 1} for r in full()]

    assert lacks(only(records, text)) == [("Rate N/A", "no trial (seeds 0, 1, 2)")]


def test_an_empty_store_is_named_with_the_commands() -> None:
    empty = built([], dataset="birds")

    assert not empty.complete
    assert md.render(empty) == (
        "# Masks\n\nNo finished trial in 'results' fits a row of this table with dataset=birds.\n\n"
        "To fill:\n\n- `make sweep-masks DATASET=birds`\n- `make sweep-none DATASET=birds`\n"
    )


HOSTILE = [
    "<script>alert(1)</script>",
    "a|b",
    "</td><img src=x onerror=alert(1)>",
    "![x](y)",
    "*a*",
    "_a_",
    "`a`",
    "&lt;",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_out_of_records_are_no_markup(name: str) -> None:
    text = md.render(built([{**r, "dataset": name} for r in full()][:4]))

    assert name not in text
    assert "<" not in text
    assert not any(line.count("|") not in {0, 5} for line in text.splitlines() if line.startswith("|"))


@pytest.mark.parametrize("character", ["\n", "\x1b", "\u202e", "\u2028", "\r"])
def test_characters_that_move_what_follows_are_replaced(character: str) -> None:
    found = built([{**r, "dataset": f"a{character}b"} for r in full()])

    assert f"dataset a{character}b" not in txt.render(found)
    assert "dataset a\N{REPLACEMENT CHARACTER}b" in txt.render(found)
    assert "dataset a\N{REPLACEMENT CHARACTER}b" in md.render(found)


def test_a_hostile_name_is_one_word_of_the_command() -> None:
    (command,) = only(
        [record(1, 1, 0, 0.75, dataset="a; rm -rf $HOME"), record(1, 1, 0, dataset="a; rm -rf $HOME")]
    ).commands

    assert command == "make sweep-masks DATASET='a; rm -rf $$HOME' ARGS='--seeds 0 epochs=30'"


def test_a_name_with_an_underscore_stays_legible() -> None:
    assert "dataset tiny_birds" in md.render(built([{**r, "dataset": "tiny_birds"} for r in full()]))


@settings(max_examples=25)
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 40), max_size=8))
def test_the_bytes_do_not_depend_on_the_order_of_records(random: Any, repeated: list[int]) -> None:
    records = [
        *full(),
        *({**r, "dataset": "flowers", "top1_loc": r["top1_loc"] / 3} for r in full()),
        *({**r, "epochs": 2, "id": "9"} for r in full()[:5]),
        record(12.3, 45.6, 0, 0.75, id="0.75-0"),
    ]
    expected = every_format(built(records))
    shuffled = [dict(random.sample(list(r.items()), len(r))) for r in records]
    shuffled += [dict(shuffled[i % len(shuffled)]) for i in repeated]
    random.shuffle(shuffled)

    assert every_format(built(shuffled)) == expected


def every_format(of: Report) -> dict[str, str]:
    return {ending: plugins.load(formats, ending).render(of) for ending in plugins.names(formats)}


def test_both_forms_carry_the_same_numbers() -> None:
    found = built(full())
    cells = {f"{c.mean:.2f} ± {c.sd:.2f}" for one in found.tables for row in rows(one) for c in row.cells}

    assert all(cell in md.render(found) and cell in txt.render(found) for cell in cells)


def test_names_that_no_trial_has_are_told_with_their_lines_and_the_nearest() -> None:
    text = SMALL.replace("per: [dataset]", "per: [datset]").replace("rate: 0.75", "epoch: 30").replace("epochs]", "x9]")
    document = documents.parse(text.replace("sweep: none", "sweep: gama"), Path("reports/small.yaml"))

    with pytest.raises(InputError) as refused:
        table_file.table_file(document, [record(50, 50, 0, rate=0.5)])

    assert [problem.partition(" The sweeps")[0].partition("; there")[0] for problem in refused.value.problems] == [
        "reports/small.yaml:2: no trial has a field or option 'datset', did you mean 'dataset'?",
        "reports/small.yaml:3: no trial has a field or option 'x9'",
        "reports/small.yaml:4: no file 'masks'.",
        "reports/small.yaml:16: no trial has a field or option 'epoch', did you mean 'epochs'?",
        "reports/small.yaml:19: no file 'gama', did you mean 'gamma'?",
    ]


def test_options_of_plug_ins_are_known_without_a_record(tmp_path: Path) -> None:
    text = SMALL.replace("rate: 0", "drop_rate: 0").replace("sweep: masks\n", "").replace("    sweep: none\n", "")
    path = tmp_path / "t.yaml"
    path.write_text(text, encoding="utf-8")

    assert table_file.read(path).blocks[0].rows[0].where == {"drop_rate": 0.75}


def test_all_problems_of_a_file_are_told_with_their_lines() -> None:
    metrics = ", ".join(map(repr, (*METRICS, *COUNTED[:-1]))) + f" or {COUNTED[-1]!r}"
    keys = "title, labels, columns, blocks, per, caption, below, beside, marks, where, sweep"
    keys += ", published, options, compare_to, note"
    text = SMALL.replace("{header: Loc, metric: top1_loc", "{header: Loc, metric: top1").replace("note:", "notes:")
    text = (
        text.replace("labels: [0]", "labels: [[0]]").replace("name: without", "name: 3").replace("bold: b", "bolt: b")
    )

    assert problems(text) == [
        f"reports/small.yaml:7: columns[0].metric must be {metrics}, not 'top1'",
        "reports/small.yaml:17: blocks[0].rows[1].labels[0] must be text, not [0]",
        "reports/small.yaml:18: blocks[1].name must be text, not 3",
        "reports/small.yaml:10: marks.bolt must be 'bold', 'italic' or 'underline', not 'bolt'",
        f"reports/small.yaml:11: unknown key 'notes', did you mean 'note'? There are: {keys}",
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("labels: [75]", "labels: [75, 25]", ":16: as many labels as label columns, 1, not 2"),
        (", italic: best classification", "", ":8: mark 'italic' has no meaning; say it under marks"),
        ("title: Masks\n", "", ":1: title is missing"),
        ("optional: true", "optional: yes", ":9: columns[2].optional must be true or false, not 'yes'"),
        ("{method: bare}", "[bare]", ":21: blocks[1].rows[0].where must be a mapping, not ['bare']"),
        ("{labels: [N/A], where", "{label: N/A, where", ":21: unknown key 'label', did you mean 'labels'?"),
        ("labels: [Rate]", "labels: []", ":5: labels must not be empty"),
        ("header: Clas", "header: Loc", ":8: two columns have the header 'Loc'"),
        ("per: [dataset]", "per: dataset", ":2: per must be a list, not 'dataset'"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_line(old: str, new: str, problem: str) -> None:
    assert any(problem in found for found in problems(SMALL.replace(old, new)))


def test_a_file_that_is_no_mapping_is_refused() -> None:
    assert problems("- 1\n") == ["reports/small.yaml:1: the file must be a mapping, not [1]"]


# Units, and columns and settings that are not always shown


def test_a_unit_stands_in_the_heading_with_an_arrow_to_what_is_better() -> None:
    text = SMALL.replace("metric: top1_loc,", 'metric: top1_loc, unit: "%", difference: true,')
    text = text.replace("metric: body_coverage,", "metric: optimism, unit: points, better: lower,")

    shown = only([{**r, "optimism": 1.0} for r in full()], text.replace("labels:", "compare_to: {rate: 0}\nlabels:", 1))

    assert shown.headers == (
        *("Loc (%) ↑", "Δ Loc (points) ↑", "Δ Loc, 95 % from", "Δ Loc, 95 % to", "Δ Loc, p (Holm)"),
        *("Clas", "Coverage (points) ↓"),
    )


def test_further_columns_and_their_notes_are_shown_when_they_are_asked_for() -> None:
    text = SMALL.replace("optional: true", "optional: true, more: true, note: Of the body.")
    records = [{**r, "body_coverage": 12.5} for r in full()]

    usual, more = (report.report(table(text), records, Asked(more=asked)).tables[0] for asked in (False, True))

    assert (usual.headers, usual.notes) == (("Loc", "Clas"), ("N/A: no layer.",))
    assert (more.headers, more.notes) == (("Loc", "Clas", "Coverage"), ("N/A: no layer.", "Of the body."))


RECOMMENDED = """\
title: Methods
per: [dataset]
caption: [dataset, epochs]
options: recommended
labels: [Method]
columns: [{header: Loc, metric: top1_loc}]
blocks: [{name: all, rows: [{labels: [ADL], where: {method: adl}}]}]
"""


def adl(loc: float, **changes: Any) -> dict[str, Any]:
    """A trial of ADL with the recipe's settings for a backbone of three stages, but for the changes."""
    own = {"points": STAGES, "drop_rate": 0.75, "gamma": 0.8, "drop_mask": True, "importance_map": True}
    trial = {"dataset": "birds", "backbone": "net", "method": "adl", "epochs": 30, "stages": STAGES, "seed": 0, **own}
    return {**trial, "top1_loc": loc, **changes, "id": json.dumps(changes)}


def test_trials_with_other_options_than_the_recipes_are_left_out_where_there_are_both() -> None:
    shown = only([adl(10, gamma=0.6), adl(50), adl(20, points=STAGES[:1]), adl(30, drop_mask=False)], RECOMMENDED)

    assert [cell.mean for row in rows(shown) for cell in row.cells] == [50]
    assert shown.notes == (
        "Of a method that was run with several options, those of the recipe count here; name others to see them.",
    )


def test_options_that_were_asked_for_are_shown_although_the_recipe_has_others() -> None:
    records = [adl(10, gamma=0.6), adl(50), adl(20, points=STAGES[:1])]

    shown = only(records, RECOMMENDED, gamma=0.6)

    assert [cell.mean for row in rows(shown) for cell in row.cells] == [10]
    assert shown.notes == ()


def test_of_each_budget_the_recommended_trials_count_or_the_only_ones() -> None:
    records = [adl(50), adl(10, gamma=0.6), adl(20, gamma=0.6, epochs=5)]
    records += [adl(30, gamma=0.6, epochs=2), adl(40, gamma=0.7, epochs=2)]

    found = [(one.name, one.rows[0].cells[0].mean) for one in built(records, RECOMMENDED).tables]

    assert found == [
        ("dataset birds, epochs 5", 20),
        ("dataset birds, epochs 30", 50),
    ]


def test_a_baseline_alone_makes_no_table_beside_one_of_several_rows() -> None:
    alone = [record(40, 70, 0, dataset="flowers")]

    assert [one.name for one in built([*full(), *alone]).tables] == ["dataset birds"]
    assert [one.name for one in built(alone).tables] == ["dataset flowers"]


def test_a_baseline_alone_that_diverged_has_its_table() -> None:
    assert len(built([*full(), {**diverged(0), "dataset": "flowers"}]).tables) == 2


# Trials that diverged


def diverged(seed: int, rate: float | None = None) -> dict[str, Any]:
    """A trial whose loss was no number any more: all but metrics."""
    known = record(0, 0, seed, rate, diverged=True)
    return {key: value for key, value in known.items() if key not in {"top1_loc", "top1_clas"}}


def but(records: list[dict[str, Any]], rate: float | None, *seeds: int) -> list[dict[str, Any]]:
    """The records, those seeds of a row diverged."""
    kept = [r for r in records if r.get("rate") != rate or r["seed"] not in seeds]
    return [*kept, *(diverged(seed, rate) for seed in seeds)]


GOLDEN_DIVERGED = """\
# Masks

## dataset birds

Dataset birds, epochs 30. In % after the last epoch, mean ± SD (ddof 1) over n seeds. \
Marked: **best localization**, *best classification*.

|   Rate |               Loc |           Clas |   n |
|-------:|------------------:|---------------:|----:|
|     75 | **51.00 ± 1.41‡** |  61.50 ± 0.71‡ |   2 |
|      0 |              div. |           div. |   0 |
|        |                   |                |     |
|    N/A |      40.00 ± 0.00 | *70.00 ± 1.00* |   3 |

Rate 75: 1 of 3 trials diverged (seed 0).
Rate 0: 3 of 3 trials diverged (seeds 0, 1, 2).
div., ‡: loss or scores were no numbers any more; no mean counts such a seed.
N/A: no layer.
"""


def test_a_trial_that_diverged_is_shown_and_in_no_mean() -> None:
    shown = built(but(but(full(), 0.75, 0), 0.0, 0, 1, 2))

    assert md.render(shown) == GOLDEN_DIVERGED
    assert shown.complete


@pytest.mark.parametrize("ending", plugins.names(formats))
def test_every_format_shows_what_diverged(ending: str) -> None:
    text = every_format(built(but(full(), 0.0, 0, 1, 2)))[ending]

    assert text.count("div.") >= 2


def test_a_cell_leads_to_the_trials_that_diverged_too() -> None:
    some, none, _ = rows(only(but(but(full(), 0.75, 1), 0.0, 0, 1, 2)))

    assert (some.cells[0].ids, some.cells[0].diverged, some.seeds) == (("0.75-0", "0.75-1", "0.75-2"), 1, (0, 2))
    assert (none.cells[0].ids, none.cells[0].diverged, none.seeds) == (("0.0-0", "0.0-1", "0.0-2"), 3, ())


def test_a_seed_that_only_diverged_is_one_that_other_rows_lack() -> None:
    shown = only([*full(), diverged(3, 0.75)])

    assert lacks(shown) == [("Rate 0", "seed 3"), ("Rate N/A", "seed 3")]


def test_a_table_of_which_all_diverged_says_so() -> None:
    shown = only([diverged(0, 0.75), diverged(0, 0.0), diverged(0)])

    assert {cell.text for row in rows(shown) for cell in row.cells} == {"div."}
    assert shown.missing == ()


def test_what_is_counted_of_a_network_does_not_diverge() -> None:
    counted = [r if "diverged" in r else {**r, "params_mib": 12.5} for r in but(full(), 0.0, 0, 1, 2)]

    assert [row.cells[0].text for row in rows(only(counted, COUNTING)) if row.cells[0].mean is None] == ["—"]


# Blocks and columns for the values of a field


GRID = (
    SMALL.replace("per: [dataset]", "per: [protocol]\nbelow: net\nbeside: dataset")
    .replace("  - {header: Coverage, metric: body_coverage, optional: true}\n", "")
    .replace("caption: [dataset, epochs]", "caption: [dataset, net, epochs]")
)


def grid() -> list[dict[str, Any]]:
    """Every row of the small table: birds on two networks, flowers on one."""
    return [
        {**r, "protocol": "p", "net": net, "dataset": dataset, "top1_loc": r["top1_loc"] + shift}
        for net, dataset, shift in (("wide", "birds", 0), ("deep", "birds", 10), ("deep", "flowers", -20))
        for r in full()
    ]


GOLDEN_GRID = """\
# Masks

## protocol p

Epochs 30, protocol p. In % after the last epoch, mean ± SD (ddof 1) over 3 seeds. \
Marked: **best localization**, *best classification*.

|   Net |   Rate |       birds: Loc |    birds: Clas |     flowers: Loc |   flowers: Clas |
|------:|-------:|-----------------:|---------------:|-----------------:|----------------:|
|  deep |     75 | **60.00 ± 2.00** |   61.00 ± 1.00 | **30.00 ± 2.00** |    61.00 ± 1.00 |
|  deep |      0 |     41.00 ± 1.73 | *70.00 ± 0.00* |     11.00 ± 1.73 |  *70.00 ± 0.00* |
|       |        |                  |                |                  |                 |
|  deep |    N/A |     50.00 ± 0.00 | *70.00 ± 1.00* |     20.00 ± 0.00 |  *70.00 ± 1.00* |
|       |        |                  |                |                  |                 |
|  wide |     75 | **50.00 ± 2.00** |   61.00 ± 1.00 |                — |               — |
|  wide |      0 |     31.00 ± 1.73 | *70.00 ± 0.00* |                — |               — |
|       |        |                  |                |                  |                 |
|  wide |    N/A |     40.00 ± 0.00 | *70.00 ± 1.00* |                — |               — |

N/A: no layer.
"""


def test_a_table_with_blocks_for_one_field_and_columns_for_another() -> None:
    assert md.render(built(grid(), GRID)) == GOLDEN_GRID


def test_one_value_of_the_field_beside_needs_no_headers_of_its_own() -> None:
    shown = only([r for r in grid() if r["dataset"] == "birds"], GRID)

    assert (*shown.labels, *shown.headers) == ("Net", "Rate", "Loc", "Clas")
    assert shown.name == "dataset birds, protocol p"
    assert shown.caption.startswith("Dataset birds, epochs 30, protocol p. In %")


def test_what_a_part_lacks_is_named_with_its_block_and_its_columns() -> None:
    records = [r for r in grid() if (r["net"], r["dataset"], r.get("rate")) != ("deep", "flowers", 0.75)]

    shown = only(records, GRID)

    assert lacks(shown) == [("flowers: Net deep, Rate 75", "no trial (seeds 0, 1, 2)")]
    assert shown.commands == ("make sweep-masks DATASET=flowers ARGS='--seeds 0-2 net=deep protocol=p epochs=30'",)


def test_parts_that_differ_in_another_setting_too_are_tables_apart() -> None:
    quick = [{**r, "epochs": 2} for r in grid() if (r["net"], r["dataset"]) == ("wide", "birds")]

    found = built([*grid(), *quick], GRID).tables

    assert [(one.name, len(one.blocks)) for one in found] == [
        ("net deep, protocol p", 2),
        ("dataset birds, net wide, protocol p, epochs 2", 2),
        ("dataset birds, net wide, protocol p, epochs 30", 2),
    ]


# What is counted


COUNTING = SMALL.replace("columns:\n", "columns:\n  - {header: MiB, metric: params_mib, optional: true}\n")


def test_what_is_counted_has_no_spread() -> None:
    cell = rows(only([{**r, "params_mib": 12.5} for r in full()], COUNTING))[0].cells[0]

    assert (cell.mean, cell.sd, cell.n) == (12.5, None, 3)


def test_what_is_counted_sets_no_tables_apart() -> None:
    records = [{**r, "params_mib": 12.5 + r["seed"]} for r in full()]

    assert len(built(records, COUNTING).tables) == 1


# Stages


CUMULATIVE = """\
title: Placement
per: [net]
caption: []
labels: [Placement]
columns: [{header: Loc, metric: top1_loc}]
blocks:
  - name: cumulative
    rows:
      - {labels: ["stages[-1]"], where: {points: "stages[-1:]"}}
      - {labels: ["+ stages[-2]"], where: {points: "stages[-2:]"}}
      - {labels: ["+ stages[-3]"], where: {points: "stages[-3:]"}}
      - {labels: ["+ stages[-4]"], where: {points: "stages[-4:]"}}
"""


def placed(stages: list[str], count: int, loc: float) -> dict[str, Any]:
    points = {"net": "n", "stages": stages, "points": stages[-count:], "seed": 0, "id": f"{count}"}
    return {**points, "top1_loc": loc}


def test_a_row_of_more_stages_than_there_are_is_left_out_and_labels_name_the_stages() -> None:
    shown = only([placed(STAGES, count, count) for count in (1, 2, 3)], CUMULATIVE)

    assert [(row.labels, row.cells[0].mean) for row in rows(shown)] == [
        (("late",), 1),
        (("+ middle",), 2),
        (("+ early",), 3),
    ]
    assert shown.missing == ()


def test_a_row_of_all_stages_is_missing_once() -> None:
    shown = only([placed(STAGES, 1, 50)], CUMULATIVE)

    assert [row for row, _ in lacks(shown)] == ["Placement + middle", "Placement + early"]


def test_a_label_with_a_stage_that_is_not_there_stays_as_it_is() -> None:
    shown = only([placed(STAGES, 3, 50)], CUMULATIVE.replace("+ stages[-3]", "+ stages[-9]"))

    assert rows(shown)[2].labels == ("+ stages[-9]",)


PAPER = [  # drop mask %, importance map %, GT-known Loc, Top-1 Clas, Top-1 Loc (Choe & Shim, CVPR 2019, Table 1)
    (("100", "0"), (72.43, 57.37, 44.11)),
    (("75", "25"), (74.78, 62.25, 49.69)),
    (("50", "50"), (71.51, 64.93, 49.33)),
    (("25", "75"), (67.29, 68.99, 47.98)),
    (("0", "100"), (47.51, 67.78, 32.24)),
    (("N/A", "N/A"), (51.09, 67.55, 34.41)),
    (("75", "N/A"), (73.23, 61.55, 47.67)),
    (("N/A", "25"), (50.62, 68.50, 33.91)),
    (("75", "25"), (74.78, 62.25, 49.69)),
]


def paper_record(where: Mapping[str, Any], numbers: tuple[float, float, float]) -> dict[str, Any]:
    trial = {name: STAGES if name == "points" else value for name, value in where.items()}
    place = {
        "dataset": "birds",
        "backbone": "net",
        "protocol": "p",
        "seed": 0,
        "stages": STAGES,
        "id": json.dumps(trial),
    }
    return {**trial, **place, **dict(zip(("gt_known_loc", "top1_clas", "top1_loc"), numbers, strict=True))}


def test_table_1_has_the_papers_rows_columns_and_marks() -> None:
    file = table_file.read(TABLE1)
    lines = [line for block in file.lines() for line in block]
    records = [paper_record(line.where, numbers) for line, (_, numbers) in zip(lines, PAPER, strict=True)]

    (shown,) = report.report(file, records, Asked()).tables

    assert [len(block) for block in shown.blocks] == [5, 1, 3]
    assert (*shown.labels, *shown.headers) == (
        "Drop mask (%)",
        "Importance map (%)",
        "GT-known Acc",
        "Top-1 Clas",
        "Top-1 Loc",
    )
    assert [(row.labels, tuple(cell.mean for cell in row.cells)) for row in rows(shown)] == PAPER
    assert [[cell.marks for cell in row.cells] for row in rows(shown)] == [
        [(), (), ()],
        [("bold",), (), ("bold",)],
        [(), (), ()],
        [(), ("italic",), ()],
        [(), (), ()],
        [(), (), ()],
        [(), (), ()],
        [(), (), ()],
        [("bold",), (), ("bold",)],
    ]
    assert shown.missing == ()


def test_reports_need_no_torch() -> None:
    code = "import sys, wsolbench.report; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
