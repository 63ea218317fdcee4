"""One more protocol on a finished trial, without training."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import fake_data
from tests.conftest import QUICK
from wsolbench import evaluator, job, loop, protocols, recipe
from wsolbench.errors import InputError
from wsolbench.images import splits
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial

Trained = tuple[Trial, Place, dict[str, Any]]


@pytest.fixture
def copied(trained: Trained, tmp_path: Path) -> tuple[Trial, Place, dict[str, Any]]:
    """A finished trial to write to."""
    trial, place, record = trained
    shutil.copytree(place.results, tmp_path / "results")
    return trial, replace(place, results=tmp_path / "results"), record


@pytest.fixture
def no_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the stored score maps serve")

    monkeypatch.setattr(loop, "predict", refuse)


def test_a_trial_has_every_protocol_of_its_geometry(trained: Trained) -> None:
    assert set(trained[2]["results"]) == {"wsolbench", "wsolbench_fixed", "wsolevaluation"}


@pytest.mark.usefixtures("no_forward_pass")
@pytest.mark.parametrize("name", ["wsolbench", "wsolbench_fixed", "wsolevaluation"])
def test_scoring_the_stored_maps_again_equals_the_record_bit_for_bit(copied: Trained, name: str) -> None:
    trial, place, record = copied

    assert evaluator.rescore(trial, replace(place, protocol=name)).metrics == record["results"][name]


@pytest.mark.parametrize("name", ["adl2019", "adl2019_rect", "acol_spg"])
def test_another_geometry_takes_one_forward_pass_and_no_training(copied: Trained, name: str) -> None:
    trial, place, record = copied

    found = job.run(trial, replace(place, protocol=name))

    assert found["results"].keys() == {*record["results"], name}
    assert found["weights_digest"] == record["weights_digest"]
    assert len(Store(place.results).attempts(trial.id)) == 1
    geometry = protocols.protocol(name).geometry
    assert f"{geometry}/test" in Store(place.results).arrays(trial.id, "scoremaps.npz")


def test_protocols_of_one_geometry_share_its_forward_pass(copied: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, place, _ = copied
    job.run(trial, replace(place, protocol="adl2019"))
    monkeypatch.setattr(loop, "predict", None)

    assert "adl2019_rect" in job.run(trial, replace(place, protocol="adl2019_rect"))["results"]


@pytest.mark.parametrize(
    ("lost", "key"), [("scoremaps.npz", "resize224/test"), ("predictions.npz", "resize224/test/probabilities")]
)
def test_the_network_that_is_scored_is_the_trained_one(copied: Trained, lost: str, key: str) -> None:
    """The forward pass for a new geometry, made for the old one, gives what was stored."""
    trial, place, _ = copied
    stored = Store(place.results).arrays(trial.id, lost)[key]
    (Store(place.results).arrays_folder(trial.id) / lost).unlink()

    evaluator.rescore(trial, replace(place, protocol="wsolevaluation"))

    assert np.array_equal(Store(place.results).arrays(trial.id, lost)[key], stored)


def test_a_trial_without_its_last_checkpoint_is_not_scored_as_if_it_were_trained(copied: Trained) -> None:
    trial, place, _ = copied
    shutil.rmtree(Store(place.results).path(trial.id, "checkpoint"))

    with pytest.raises(InputError, match=f"no checkpoint of trial {trial.id} .* run it with --fresh"):
        job.run(trial, replace(place, protocol="adl2019"))


@pytest.mark.parametrize("name", ["wsolbench", "wsolevaluation"])
def test_stored_maps_need_neither_checkpoint_nor_network(copied: Trained, name: str) -> None:
    trial, place, record = copied
    shutil.rmtree(Store(place.results).path(trial.id, "checkpoint"))

    assert evaluator.rescore(trial, replace(place, protocol=name)).metrics == record["results"][name]


def test_stored_maps_are_not_scored_against_other_images(copied: Trained, tmp_path: Path) -> None:
    trial, place, _ = copied
    other = fake_data.cub(tmp_path / "other", per_class=4)

    with pytest.raises(InputError, match=f"other images or labels than trial {trial.id} was tested on"):
        evaluator.rescore(trial, replace(place, data=other, protocol="adl2019"))


def test_held_out_images_are_not_trained_on(trained: Trained) -> None:
    trial, place, _ = trained

    images = splits(trial, place)

    assert images.train is not None
    assert images.held_out is not None
    assert set(images.train.ids).isdisjoint(images.held_out.ids)
    assert sorted(images.held_out.labels.tolist()) == [0, 1, 2]  # a tenth of four images a class, at least one


def test_without_held_out_images_the_fixed_threshold_is_the_default(place: Place) -> None:
    trial = recipe.complete({**QUICK, "epochs": 1, "held_out": 0.0})

    record = job.run(trial, place)

    assert record["protocol"] == "wsolbench_fixed"
    assert "wsolbench" not in record["results"]


def test_a_protocol_without_its_images_is_refused_before_training(place: Place) -> None:
    trial = recipe.complete({**QUICK, "held_out": 0.0})

    with pytest.raises(InputError, match="protocol wsolbench chooses its threshold on held-out images"):
        job.run(trial, replace(place, protocol="wsolbench"))

    assert Store(place.results).epochs(trial.id) == []


def test_the_protocol_is_no_part_of_the_trial() -> None:
    with pytest.raises(InputError, match="no field or option 'protocol'"):
        recipe.complete({**QUICK, "protocol": "adl2019"})
