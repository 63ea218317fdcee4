"""Results of one data set are never taken for those of another that has its name."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import fake_data
from tests.conftest import QUICK, Command, words
from tests.test_compare import ADL, CAM
from tests.test_compare import record as compared
from tests.test_report import built, full
from wsolbench import images, job, pairing, recipe, store
from wsolbench.dataset import Split
from wsolbench.errors import InputError
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial

Trained = tuple[Trial, Place, dict[str, Any]]
ONE = Split(
    ids=("a", "b"),
    labels=np.array([0, 1]),
    classes=("cat", "dog"),
    read=lambda _: np.zeros((4, 4, 3), np.uint8),
    sizes=np.array([[4, 4], [4, 4]]),
    boxes=(np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 0, 2, 2], [1, 1, 3, 3]])),
)


@pytest.fixture
def fewer(tmp_path: Path) -> Path:
    """A folder of CUB with fewer images of each class than `cub` has."""
    return fake_data.cub(tmp_path / "fewer", per_class=6)


def forget_the_digest(place: Place, trial: Trial) -> None:
    """Make the record one that was written before records told of which data they are."""
    path = Store(place.results).path(trial.id, "record.json")
    body = json.loads(path.read_bytes())
    del body["digest"], body[store.DATA]
    path.write_bytes(store.sealed(body))


# The digest


def test_equal_images_have_one_digest() -> None:
    assert replace(ONE, read=lambda _: np.ones((4, 4, 3), np.uint8), notes=("clipped",)).digest == ONE.digest
    assert ONE.only([0, 1]).digest == ONE.digest


@pytest.mark.parametrize(
    "other",
    [
        {"ids": ("a", "c")},
        {"labels": np.array([0, 0])},
        {"classes": ("cat", "cow")},
        {"sizes": np.array([[4, 4], [4, 5]])},
        {"boxes": (ONE.boxes[0], ONE.boxes[1] + 1)},
        {"boxes": (ONE.boxes[1], ONE.boxes[0])},
        {"boxes": (np.zeros((0, 4)), ONE.boxes[1])},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_is_said_of_images_changes_the_digest(other: Mapping[str, Any]) -> None:
    assert replace(ONE, **other).digest != ONE.digest


def test_fewer_images_or_another_order_are_another_digest() -> None:
    assert len({ONE.digest, ONE.only([0]).digest, ONE.only([1, 0]).digest}) == 3


# Finished trials


def test_a_record_is_not_taken_for_one_of_other_images(trained: Trained, fewer: Path) -> None:
    trial, place, record = trained

    with pytest.raises(InputError) as refused:
        job.run(trial, replace(place, data=fewer))

    found = images.splits(trial, replace(place, data=fewer)).digest
    assert str(refused.value) == (
        f"{fewer} holds other images, classes or boxes (data digest {found[:12]}) than trial {trial.id} in "
        f"{place.results} ({record['data_digest'][:12]}): "
        "choose another --results, or run such a trial again with --fresh"
    )


def test_a_copy_of_the_data_serves_as_well(trained: Trained, tmp_path: Path) -> None:
    trial, place, record = trained
    assert place.data is not None
    shutil.copytree(place.data, tmp_path / "copy")

    assert job.run(trial, replace(place, data=tmp_path / "copy")) == record


def test_a_record_that_does_not_tell_its_images_is_believed(trained: Trained, tmp_path: Path, fewer: Path) -> None:
    trial, place, _ = trained
    shutil.copytree(place.results, tmp_path / "results")
    older = Place(tmp_path / "results", data=fewer)
    forget_the_digest(older, trial)

    assert "data_digest" not in job.run(trial, older)


def test_run_and_sweep_end_with_usage_where_the_data_are_others(
    wsolbench: Command, trained: Trained, tmp_path: Path, fewer: Path
) -> None:
    trial, place, _ = trained
    shutil.copytree(place.results, tmp_path / "results")
    file = tmp_path / "mine.yaml"
    base = ", ".join(f"{key}: {value}" for key, value in QUICK.items())
    file.write_text(f"base: {{{base}}}\ngrid: {{seed: [0, 1]}}\n", encoding="utf-8")
    asked = ("--results", tmp_path / "results")

    one = wsolbench("run", *words(), f"data={fewer}", *asked)
    all_of_them = wsolbench("sweep", file, f"data={fewer}", "--cluster", "debug", *asked)

    for ended in (one, all_of_them):
        assert ended.code == 2
        assert f"error: {fewer} holds other images, classes or boxes" in ended.err
        assert trial.id in ended.err
    assert [record["id"] for record in Store(tmp_path / "results").records()] == [trial.id]


def test_fresh_trains_on_the_other_images(wsolbench: Command, trained: Trained, tmp_path: Path, fewer: Path) -> None:
    trial, place, record = trained
    shutil.copytree(place.results, tmp_path / "results")

    ended = wsolbench("run", *words(), f"data={fewer}", "--fresh", "--results", tmp_path / "results")

    new = Store(tmp_path / "results").record(trial.id)
    assert ended.code == 0
    assert new is not None
    assert new["data_digest"] != record["data_digest"]


# Trials begun


@pytest.mark.parametrize("per_class", [4, 6, 10])
def test_training_does_not_go_on_with_other_images(place: Place, tmp_path: Path, per_class: int) -> None:
    trial = recipe.complete({**QUICK})

    def stop(_: Mapping[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(trial, place, stop)
    checkpoints = sorted(Store(place.results).path(trial.id, "checkpoint").iterdir())
    other = replace(place, data=fake_data.cub(tmp_path / "other", per_class))

    with pytest.raises(InputError, match=r"was trained on other images, classes or boxes .* start again with --fresh"):
        job.run(trial, other)

    assert sorted(Store(place.results).path(trial.id, "checkpoint").iterdir()) == checkpoints
    assert job.run(trial, place)["data_digest"] == images.splits(trial, place).digest


# Tables and comparisons


def test_rows_tell_the_data_where_there_are_several_of_one_name(trained: Trained) -> None:
    record = trained[2]
    other = {**record, "id": "0" * 12, "data_digest": "b" * 64}
    untold = {key: value for key, value in record.items() if key != "data_digest"}

    def told(*records: dict[str, Any]) -> list[str | None]:
        return [row.get("data_digest") for row in store.rows(list(records))]

    assert told(record, {**record, "id": "0" * 12}) == [None, None]
    assert told(record, untold) == [None, None]
    assert told(record, other) == [record["data_digest"][:12], "b" * 12]


def test_trials_of_other_images_stand_in_tables_of_their_own() -> None:
    digests = ("0ac1", "0bd2", "0bd2")  # of seeds 0, 1 and 2
    records = full()[:-1]  # without seed 2 of the last row

    made = built([{**record, "data_digest": digests[record["seed"]]} for record in records])

    assert [one.name for one in made.tables] == ["dataset birds, data digest 0ac1", "dataset birds, data digest 0bd2"]
    assert [one.blocks[0][0].cells[0].mean for one in made.tables] == [48.0, 51.0]  # of 48, 50, 52
    assert made.tables[1].commands == ("make sweep-none DATASET=birds ARGS='--seeds 1-2 epochs=30'",)


def test_trials_of_other_images_are_no_pair() -> None:
    records = [compared("adl", 0, 40.0, data_digest="0ac1"), compared("cam", 0, 30.0, data_digest="0bd2")]

    with pytest.raises(InputError, match="differs in data_digest"):
        pairing.paired(records, (ADL, CAM))
