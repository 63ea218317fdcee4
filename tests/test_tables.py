"""The tables that come with it: each is filled by the sweep it names."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK, method_folder
from wsolbench import documents, job, methods, recipe, report, shipped, store, sweep, table_file
from wsolbench.asked import Asked
from wsolbench.place import Place
from wsolbench.protocols import METRICS
from wsolbench.store import COUNTED
from wsolbench.table import Table
from wsolbench.trial import Trial

TABLES = [name for name in shipped.names("reports") if "columns" in documents.read(shipped.find("reports", name)).data]
SWEEPS = {sweep.read(shipped.find("sweeps", name), {}).report: name for name in shipped.names("sweeps")}
CUB = {"dataset": "cub", "weights": "imagenet"}


def finished(trial: Trial) -> dict[str, Any]:
    """The row of a finished trial, every metric of it the same."""
    stages = recipe.blueprint(trial.backbone, dict(trial.backbone_options)).stages
    facts = {"id": trial.id, "stages": list(stages), "protocol": "wsolbench"}
    return {**trial.row(), **facts, **dict.fromkeys((*METRICS, *COUNTED), 50.0)}


def filled(name: str, **overrides: Any) -> list[Table]:
    """The tables of a report with all trials of its sweep."""
    trials = sweep.read(shipped.find("sweeps", SWEEPS[name]), overrides).trials
    table = table_file.read(shipped.find("reports", name))
    return list(report.report(table, [finished(trial) for trial in trials], Asked()).tables)


def labels(table: Table) -> list[list[str]]:
    return [[" ".join(row.labels) for row in block] for block in table.blocks]


@pytest.mark.parametrize(
    "overrides", [{}, {"backbone": "vgg16"}, {"backbone": "mobilenet_v1", **CUB}, {**CUB, "weights": "none"}], ids=str
)
@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_table_is_filled_by_its_sweep(name: str, overrides: dict[str, Any]) -> None:
    (table,) = filled(name, **overrides)

    assert table.missing == ()
    headers = {column.heading for column in table_file.read(shipped.find("reports", name)).columns}
    own = [index for index, heading in enumerate(table.headings) if heading.text in headers]
    assert all(row.cells[index].n for row in table.rows for index in own)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_names_the_sweep_that_names_it(name: str) -> None:
    table = table_file.read(shipped.find("reports", name))

    assert {line.sweep for block in table.lines() for line in block} == {SWEEPS[name]}


@pytest.mark.parametrize(
    ("backbone", "rows"),
    [
        ("vgg16", ["conv5_3", "+ pool4", "+ pool3", "+ pool2", "+ pool1"]),  # as the paper prints them
        ("inception_v3", ["Mixed_6e", "+ Mixed_5d", "+ Conv2d_4a", "+ Conv2d_2b"]),
        ("tiny", ["conv4", "+ pool2", "+ pool1"]),
    ],
)
def test_table_2_has_a_row_for_each_stage_of_the_backbone(backbone: str, rows: list[str]) -> None:
    (table,) = filled("table2", backbone=backbone)

    assert labels(table) == [["N/A"], rows]


def test_table_3_has_a_block_for_each_backbone_and_columns_for_each_data_set() -> None:
    path = shipped.find("sweeps", "table3")
    trials = [*sweep.read(path, {}).trials, *sweep.read(path, CUB).trials]

    (table,) = report.report(
        table_file.read(shipped.find("reports", "table3")), [finished(trial) for trial in trials], Asked()
    ).tables

    names = ("inception_v3", "mobilenet_v1", "resnet50_se", "vgg16")
    assert labels(table) == [
        [f"{name} {method}" for method in ("CAM", "HaS", "ACoL", "SPG", "ADL", "CutMix")] for name in names
    ]
    costs = ("Parameters (MiB)", "Parameter overhead (%)", "Computation overhead (%)")
    scores = ("Top-1 Loc", "Top-1 Clas")
    assert table.headers == (
        *(f"shapes: {header}" for header in costs),
        *(f"{dataset}: {header}" for dataset in ("cub", "shapes") for header in scores),
    )


@pytest.mark.parametrize("name", ["table1", "table2", "gamma", "methods"])
def test_a_store_of_several_sweeps_fills_each_table_as_its_own_sweep_does(name: str) -> None:
    plans = (sweep.read(shipped.find("sweeps", each), {}) for each in ("drop-rate", "placement", "gamma", "methods"))
    records = {trial.id: finished(trial) for plan in plans for trial in plan.trials}

    made = report.report(table_file.read(shipped.find("reports", name)), list(records.values()), Asked())

    (own,) = filled(name)
    assert [table.rows for table in made.tables] == [own.rows]
    assert made.complete


# What is counted


def test_a_record_says_what_its_network_costs(trained: tuple[Trial, Place, dict[str, Any]]) -> None:
    trial, place, record = trained

    weights = sum(9 * a * b + b for a, b in ((3, 16), (16, 16), (16, 32), (32, 32), (32, 64)))  # of the convolutions
    classifier = 3 * 64 + 3
    counted = record["overhead"]
    assert set(counted) == set(COUNTED)
    assert counted["params_mib"] == pytest.approx(4 * (weights + classifier) / 2**20)
    assert counted["param_overhead_pct"] == 0
    assert 0 < counted["compute_overhead_pct"] < 5
    (row,) = store.rows([store.Store(place.results).record(trial.id) or {}])
    assert {name: row[name] for name in COUNTED} == counted


LOOKS = '''
"""Hides an image's bright half: it needs to know the values."""

from pydantic.dataclasses import dataclass

from wsolbench.method import Method
from wsolbench.plugins import OPTIONS


@dataclass(frozen=True, config=OPTIONS)
class Looks(Method):
    """Plain CAM of darker images."""

    def augment(self, images, targets):
        return images - float(images.mean()), targets


METHOD = Looks
'''


def test_a_method_that_cannot_be_counted_runs_all_the_same(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = method_folder(tmp_path / "methods", looks_at_values=LOOKS)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])

    record = job.run(recipe.complete({**QUICK, "method": "looks_at_values", "epochs": 1}), place)

    assert record["overhead"] == {}
    assert record["results"]


@pytest.mark.parametrize(
    ("seeds", "said"), [((2, 0, 1), "0-2"), ((0, 2), "0,2"), ((0, 0, 2), "0,2"), ((0, 10**23), f"0,{10**23}")]
)
def test_a_command_names_seeds_as_a_range_where_they_are_one(seeds: tuple[int, ...], said: str) -> None:
    assert Asked().command("methods", {}, seeds) == f"make sweep-methods ARGS='--seeds {said}'"
