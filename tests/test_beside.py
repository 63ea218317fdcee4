"""Published numbers and differences to a baseline, beside ours."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wsolbench import documents, published, report, shipped, table_file
from wsolbench.asked import Asked
from wsolbench.errors import InputError
from wsolbench.protocols import METRICS
from wsolbench.store import COUNTED
from wsolbench.table import Cell, Table

STAGES = ["pool1", "pool2", "pool3", "pool4", "conv5_3"]
PAPER = Asked(paper=True)
QUOTE = Asked(quote=True)


def record(loc: float, method: str, seed: int = 0, protocol: str = "adl2019", **others: Any) -> dict[str, Any]:
    """A finished trial on CUB with VGG-GAP."""
    trial = {"dataset": "cub", "backbone": "vgg16", "method": method, "stages": STAGES, "seed": seed}
    metrics = {"top1_loc": loc, "top1_clas": 70.0, "gt_known_loc": loc + 20}
    return {**trial, "protocol": protocol, "id": f"{method}-{seed}", **metrics, **others}


def made(name: str, records: list[dict[str, Any]], asked: Asked) -> Table:
    (table,) = report.report(table_file.read(shipped.find("reports", name)), records, asked).tables
    return table


def cell(table: Table, label: str, header: str) -> Cell:
    (row, *_) = (row for row in table.rows if " ".join(row.labels) == label)
    return row.cells[table.headers.index(header)]


# The registry


def test_the_registry_has_only_what_was_read_and_marks_what_is_second_hand() -> None:
    numbers = published.numbers()

    assert Counter(number.second_hand for number in numbers) == {False: 604, True: 148}
    assert all(number.source and number.names["table"] and number.names["protocol"] for number in numbers)


def test_the_papers_tables_are_whole() -> None:
    """Rows times columns of Tables 1 to 3 of Choe & Shim (CVPR 2019); Table 3 does not report two classifications."""
    tables = Counter(n.names["table"] for n in published.numbers() if n.names["paper"] == "adl2019")

    assert tables == {"Table 1": 8 * 3, "Table 2": 6 * 3, "Table 3": 11 * 3 + 11 * 4 - 4}


def test_the_best_of_table_2_by_hand() -> None:
    names = {"paper": "adl2019", "table": "Table 2", "metric": "top1_loc"}
    settings = {"points": STAGES[2:], "gamma": 0.8, "drop_rate": 0.75, "drop_mask": True, "importance_map": True}

    (found,) = (n for n in published.numbers() if n.settings and n.fits(names, settings))

    assert (found.value, found.second_hand) == (52.36, False)
    assert found.told == "Choe & Shim, CVPR 2019, Table 2 (protocol adl2019)"


# Beside ours


DROP = {"points": STAGES, "gamma": 0.8, "drop_mask": True, "importance_map": True}
TABLE1 = [
    *(record(loc, "adl", drop_rate=rate, **DROP) for rate, loc in ((1.0, 44.0), (0.75, 50.0), (0.5, 49.0))),
    *(record(loc, "adl", drop_rate=rate, **DROP) for rate, loc in ((0.25, 48.0), (0.0, 32.5))),
    record(34.0, "cam"),
    record(47.0, "adl", drop_rate=0.75, **{**DROP, "importance_map": False}),
    record(35.0, "adl", drop_rate=0.75, **{**DROP, "drop_mask": False}),
]
OF_PAPER = [44.11, 49.69, 49.33, 47.98, 32.24, 34.41, 47.67, 33.91, 49.69]
"""Top-1 Loc of Table 1 of Choe & Shim (CVPR 2019), from the top."""


def test_every_row_of_table_1_has_the_papers_number_beside_it() -> None:
    table = made("table1", TABLE1, PAPER)

    column = table.headers.index("Top-1 Loc")
    ours, theirs, more = ([row.cells[column + i].mean for row in table.rows] for i in range(3))
    assert theirs == OF_PAPER
    assert more == [a - b for a, b in zip(ours, OF_PAPER, strict=True) if a is not None]
    assert table.headers[column + 1 : column + 3] == ("Top-1 Loc, published", "Δ published Top-1 Loc")
    assert "Published: Choe & Shim, CVPR 2019, Table 1 (protocol adl2019)." in table.notes
    assert not any("Ours is by protocol" in note for note in table.notes)


def test_published_numbers_stand_there_only_when_asked_for() -> None:
    assert made("table1", TABLE1, Asked()).headers == ("GT-known Acc", "Top-1 Clas", "Top-1 Loc")


def test_another_protocol_is_told() -> None:
    table = made("table1", [{**r, "protocol": "wsolbench"} for r in TABLE1], PAPER)

    assert "Ours is by protocol wsolbench: not all of a difference is the method's." in table.notes


def test_no_number_stands_beside_another_data_set() -> None:
    table = made("table1", [{**r, "dataset": "shapes"} for r in TABLE1], PAPER)

    assert table.headers == ("GT-known Acc", "Top-1 Clas", "Top-1 Loc")
    assert "No published number is of these trials." in table.notes


@pytest.mark.parametrize(("backbone", "points", "placed"), [("vgg16", STAGES[3:], 48.02), ("vgg16", STAGES[4:], 41.73)])
def test_table_2_finds_its_number_by_the_placement(backbone: str, points: list[str], placed: float) -> None:
    settings = {"gamma": 0.8, "drop_rate": 0.75, "drop_mask": True, "importance_map": True}
    table = made("table2", [record(50.0, "adl", backbone=backbone, points=points, **settings)], PAPER)

    label = "conv5_3" if len(points) == 1 else "+ pool4"
    assert cell(table, label, "Top-1 Loc, published").mean == placed
    assert cell(table, label, "Δ published Top-1 Loc").mean == 50.0 - placed


def test_a_number_that_the_paper_itself_quotes_is_marked_and_one_that_it_lacks_is_a_hyphen() -> None:
    table = made("table3", [record(40.0, name) for name in ("cam", "acol", "cutmix")], PAPER)

    assert cell(table, "vgg16 ACoL", "Top-1 Loc, published") == Cell(mean=45.92, quoted=True)
    assert cell(table, "vgg16 CAM", "Top-1 Loc, published") == Cell(mean=34.41)
    assert cell(table, "vgg16 CutMix", "Top-1 Loc, published") == Cell(text="-")
    assert "* in a published column: the source itself has the number from another paper." in table.notes


def test_overheads_stand_beside_the_papers() -> None:
    records = [record(40.0, "acol", dataset="imagenet", params_mib=172.0, param_overhead_pct=120.3)]

    table = made("table3", records, PAPER)

    assert cell(table, "vgg16 ACoL", "Parameters (MiB), published").mean == 181
    assert cell(table, "vgg16 ACoL", "Δ published Parameters (MiB)").mean == -9
    assert cell(table, "vgg16 ACoL", "Parameter overhead (%), published").mean == 132.05


def test_fields_that_fit_several_numbers_are_refused() -> None:
    text = shipped.find("reports", "table1").read_text(encoding="utf-8")
    loose = text.replace("{paper: adl2019, table: Table 1}", "{paper: ivr, dataset: cub, metric: max_box_acc_v2}")

    with pytest.raises(InputError, match="several published numbers are of dataset cub, backbone vgg16, method adl"):
        report.report(table_file.table_file(documents.parse(loose, Path("t.yaml"))), TABLE1, PAPER)


# Quoted


def test_a_row_without_a_trial_is_quoted_marked_and_not_missing() -> None:
    table = made("table3", [record(40.0, "cam"), record(41.0, "adl")], replace(QUOTE, more=True))

    acol = cell(table, "vgg16 ACoL", "Top-1 Loc")
    assert (acol.mean, acol.quoted, acol.sign, acol.marks) == (45.92, True, "*", ("bold", "underline"))
    assert cell(table, "vgg16 ACoL", "GT-known Loc") == Cell(text="-")
    lacking = [item.row.removeprefix("cub: Backbone vgg16, Method ") for item in table.missing]
    assert lacking == ["HaS", "SPG", "CutMix"]
    assert "*: quoted from the paper, not run here; -: not reported." in table.notes


def test_nothing_is_quoted_of_another_protocol() -> None:
    table = made("table3", [record(40.0, "cam", protocol="wsolbench")], QUOTE)

    assert not any(cell.quoted for row in table.rows for cell in row.cells)
    assert len(table.missing) == 5
    assert any(note.startswith("No number is quoted") for note in table.notes)


# Table 3's marks


def test_table_3_marks_the_best_of_each_backbone_and_of_each_data_set() -> None:
    records = [
        record(loc, method, backbone=backbone, dataset=dataset)
        for dataset, shift in (("cub", 0.0), ("imagenet", 5.0))
        for backbone, method, loc in (
            *(("vgg16", "cam", 30.0 + shift), ("vgg16", "adl", 40.0 - shift)),
            *(("resnet50_se", "cam", 41.0 - shift), ("resnet50_se", "adl", 40.999)),
        )
    ]

    table = made("table3", records, replace(PAPER, paper=False))

    marks = {
        (row.labels, heading.group): cell.marks
        for row in table.rows
        for heading, cell in zip(table.headings, row.cells, strict=True)
        if heading.text == "Top-1 Loc" and cell.mean is not None
    }
    assert {key: value for key, value in marks.items() if value} == {
        (("vgg16", "ADL"), "cub"): ("bold",),
        (("resnet50_se", "CAM"), "cub"): ("bold", "underline"),
        (("vgg16", "CAM"), "imagenet"): ("bold",),
        (("vgg16", "ADL"), "imagenet"): ("bold",),
        (("resnet50_se", "ADL"), "imagenet"): ("bold", "underline"),
    }


def test_costs_stand_once_for_the_last_data_set_that_has_them() -> None:
    records = [
        record(40.0, "cam", dataset=dataset, params_mib=mib) for dataset, mib in (("cub", 75.0), ("imagenet", 78.0))
    ]

    table = made("table3", records, Asked())

    assert table.headers[:2] == ("imagenet: Parameters (MiB)", "cub: Top-1 Loc")
    assert table.rows[0].cells[0].mean == 78.0


# Differences


DIFFERENCE = """\
title: Masks
per: [dataset]
caption: [dataset]
labels: [Method]
columns:
  - {header: Loc, metric: top1_loc, difference: true}
  - {header: Clas, metric: top1_clas}
compare_to: {method: bare}
blocks:
  - name: methods
    rows:
      - {labels: [bare], where: {method: bare}}
      - {labels: [one], where: {method: one}}
      - {labels: [two], where: {method: two}}
  - name: again
    rows:
      - {labels: [two], where: {method: two}}
"""


def differences(values: dict[str, list[float]], *, more: bool = False) -> Table:
    records = [record(loc, method, seed) for method, locs in values.items() for seed, loc in enumerate(locs)]
    table = table_file.table_file(documents.parse(DIFFERENCE, Path("d.yaml")))
    return report.report(table, records, Asked(more=more)).tables[0]


def test_differences_to_the_baseline_are_paired_by_seed() -> None:
    table = differences({"bare": [30, 31, 32], "one": [31, 33, 35], "two": [31, 31, 29]})

    one = cell(table, "one", "Δ Loc")
    assert (one.mean, one.sd, one.n, one.significant) == (2, 1, 3, False)
    assert cell(table, "one", "Δ Loc, p (Holm)").mean == 0.5  # 2 of 8 sign changes, times 2 rows, one of them twice
    assert cell(table, "two", "Δ Loc").mean == -2 / 3
    assert cell(table, "bare", "Δ Loc") == Cell()
    low, high = (cell(table, "one", f"Δ Loc, 95 % {end}").mean for end in ("from", "to"))
    assert (low, high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-3)
    assert "Δ: less method bare, paired by seed, with its 95 % interval by Student's t." in table.notes
    assert not any("BCa" in text for text in (*table.headers, *table.notes))
    assert "With fewer than 6 pairs no difference is called significant." in table.notes


def test_the_bca_interval_stands_among_the_further_columns_with_how_far_it_is_to_be_believed() -> None:
    table = differences({"bare": [30, 31, 32], "one": [31, 33, 35], "two": [31, 31]}, more=True)

    low, high = (cell(table, "one", f"Δ Loc, BCa 95 % {end}").mean for end in ("from", "to"))
    assert low is not None
    assert high is not None
    assert 1 <= low < 2 < high <= 3
    assert cell(table, "bare", "Δ Loc, BCa 95 % from") == Cell()
    said = "The BCa interval is too narrow over few pairs: over 2 it holds the mean about 50 % of the time."
    assert said in table.notes


def test_six_seeds_may_be_significant() -> None:
    bare = [30.0, 31, 32, 33, 34, 35]
    table = differences({"bare": bare, "one": [v + 1 + v / 100 for v in bare], "two": bare})

    assert cell(table, "one", "Δ Loc, p (Holm)").mean == 2 * 2 / 64
    assert not cell(table, "one", "Δ Loc").significant  # .0625
    alone = differences({"bare": bare, "one": [v + 1 + v / 100 for v in bare]})
    assert cell(alone, "one", "Δ Loc").significant
    assert "†: significant at 5 %." in alone.notes


def test_only_seeds_of_both_are_paired() -> None:
    table = differences({"bare": [30, 31, 32], "one": [40], "two": []})

    assert (cell(table, "one", "Δ Loc").mean, cell(table, "one", "Δ Loc").n) == (10, 1)
    assert cell(table, "one", "Δ Loc, 95 % from") == Cell()


def test_a_difference_needs_a_baseline() -> None:
    with pytest.raises(InputError, match=r"d.yaml:6: a difference to what\? Say it under compare_to"):
        table_file.table_file(documents.parse(DIFFERENCE.replace("compare_to: {method: bare}\n", ""), Path("d.yaml")))


def test_a_published_number_is_asked_for_by_known_keys() -> None:
    text = DIFFERENCE.replace("compare_to:", "published: {papers: adl2019}\ncompare_to:")

    with pytest.raises(InputError, match=r"d.yaml:8: published.papers must be 'paper', 'table', "):
        table_file.table_file(documents.parse(text, Path("d.yaml")))


def test_metrics_of_the_registry_are_ours_where_we_have_them() -> None:
    theirs = {number.names["metric"] for number in published.numbers()}

    assert theirs & {*METRICS, *COUNTED} >= {"top1_loc", "top1_clas", "gt_known_loc", *COUNTED}
