import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import QUICK, Command
from wsolbench import images, job, prediction, protocols, recipe
from wsolbench.errors import InputError
from wsolbench.geometry import window
from wsolbench.place import Place
from wsolbench.protocols import Geometry
from wsolbench.store import Store
from wsolbench.trial import Trial

Trained = tuple[Trial, Place, dict[str, Any]]
GEOMETRIES: list[Geometry] = ["resize224", "resize256_crop224", "short256_crop224"]


@pytest.fixture
def photo(trained: Trained, tmp_path: Path) -> Path:
    """The first test image of the data that the trial was trained on."""
    trial, place, _ = trained
    test = images.splits(trial, place).test
    Image.fromarray(test.read(0)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def stored(trained: Trained) -> Mapping[str, Any]:
    return Store(trained[1].results).arrays(trained[0].id, "predictions.npz")


@pytest.mark.parametrize("protocol", ["wsolbench", "wsolbench_fixed", "wsolevaluation"])
def test_the_box_of_a_test_image_is_that_of_the_evaluation(trained: Trained, photo: Path, protocol: str) -> None:
    trial, place, _ = trained
    known = stored(trained)

    found = prediction.predict(trial.id, photo, replace(place, protocol=protocol), label=str(known["labels"][0]))

    height, width = found.pixels.shape[:2]
    in_input = np.array(found.boxes[protocol]) * np.tile([32 / width, 32 / height], 2)
    assert in_input == pytest.approx(known[f"{protocol}/box"][0], abs=1e-6)


def test_the_likeliest_classes_are_those_of_the_evaluation(trained: Trained, photo: Path) -> None:
    trial, place, _ = trained
    known = stored(trained)

    found = prediction.predict(trial.id, photo, place)

    assert [guess.label for guess in found.guesses] == known["resize224/test/top5"][0].tolist()
    assert [guess.probability for guess in found.guesses] == pytest.approx(known["resize224/test/probabilities"][0])
    assert [guess.name for guess in found.guesses] == [known["classes"][guess.label] for guess in found.guesses]
    assert found.mapped == found.guesses[0].name


def test_neither_data_nor_weights_are_needed(trained: Trained, photo: Path) -> None:
    trial, place, _ = trained

    without = prediction.predict(trial.id, photo, Place(place.results))

    assert without.data() == prediction.predict(trial.id, photo, place).data()


def test_every_protocol_of_a_known_threshold_has_a_box_within_the_image(trained: Trained, photo: Path) -> None:
    trial, place, record = trained

    found = prediction.predict(trial.id, photo, place)

    assert list(found.boxes) == protocols.names()
    assert found.thresholds["wsolbench"] == pytest.approx(record["results"]["wsolbench"]["threshold"] / 100)
    for x0, y0, x1, y1 in found.boxes.values():
        assert 0 <= x0 <= x1 <= found.pixels.shape[1]
        assert 0 <= y0 <= y1 <= found.pixels.shape[0]


def test_a_class_is_asked_for_by_name_or_number(trained: Trained, photo: Path) -> None:
    trial, place, _ = trained
    name = str(stored(trained)["classes"][2])

    by_name, by_number = (prediction.predict(trial.id, photo, place, label=asked) for asked in (name, "2"))

    assert by_name.mapped == by_number.mapped == name
    assert by_name.boxes == by_number.boxes


@pytest.mark.parametrize("asked", ["3", "parrot", "-1"])
def test_an_unknown_class_is_refused(trained: Trained, photo: Path, asked: str) -> None:
    trial, place, _ = trained

    with pytest.raises(InputError, match=f"no class '{asked}'.* There are: .* or 0 to 2"):
        prediction.predict(trial.id, photo, place, label=asked)


def test_a_protocol_that_never_chose_its_threshold_is_refused(place: Place, photo: Path) -> None:
    trial = recipe.complete({**QUICK, "epochs": 0, "held_out": 0.0})
    job.run(trial, place)

    with pytest.raises(InputError, match="has no threshold of protocol wsolbench; run it with protocol=wsolbench"):
        prediction.predict(trial.id, photo, replace(place, protocol="wsolbench"))


@given(
    st.sampled_from(GEOMETRIES),
    st.integers(20, 400),
    st.integers(20, 400),
    st.tuples(*[st.integers(0, 32)] * 4),
)
def test_what_is_seen_goes_back_to_where_it_is_in_the_image(
    geometry: Geometry, width: int, height: int, corners: tuple[int, int, int, int]
) -> None:
    size, box = np.array((width, height)), np.array([corners], np.float64)
    view = window(geometry, size, 32)

    there_and_back = view.boxes(view.in_image(box, size), size)

    assert there_and_back == pytest.approx(box, abs=1e-6)


def test_the_picture_is_the_image_with_a_box_in_vermilion(trained: Trained, photo: Path, tmp_path: Path) -> None:
    trial, place, _ = trained
    found = replace(prediction.predict(trial.id, photo, place), boxes={"wsolbench": (5.0, 8.0, 25.0, 20.0)})

    (tmp_path / "o.png").write_bytes(prediction.picture(found))

    with Image.open(tmp_path / "o.png") as file:
        drawn = np.asarray(file)
    vermilion = np.argwhere((drawn == (213, 94, 0)).all(2))
    assert drawn.shape == found.pixels.shape
    assert vermilion.min(0).tolist() == [8, 5]
    assert vermilion.max(0).tolist() == [19, 24]  # half-open: the last row and column are inside


def test_predict_writes_the_picture_and_prints_json(
    wsolbench: Command, trained: Trained, photo: Path, tmp_path: Path
) -> None:
    trial, place, _ = trained
    out = tmp_path / "new" / "o.png"

    ended = wsolbench("predict", photo, "--trial", trial.id[:6], "--results", place.results, "--out", out, "--json")

    found = json.loads(ended.out)
    assert (ended.code, ended.err) == (0, f"written: {out}\n")
    assert (found["id"], found["picture"], found["image"]) == (trial.id, str(out), str(photo))
    assert {len(each["box"]) for each in found["boxes"].values()} == {4}
    assert sum(guess["probability"] for guess in found["probabilities"]) == pytest.approx(1)  # of three classes
    assert out.read_bytes().startswith(b"\x89PNG")


def test_predict_prints_classes_and_boxes(
    wsolbench: Command, trained: Trained, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, place, _ = trained
    monkeypatch.chdir(tmp_path)

    ended = wsolbench("predict", photo, "--trial", trial.id, "--results", place.results, "--class", "1")

    assert ended.code == 0
    assert f"Boxes of {stored(trained)['classes'][1]}, in pixels of the image" in ended.out
    assert all(name in ended.out for name in protocols.names())
    assert (tmp_path / f"{trial.id}_photo.png").is_file()


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", None])
def test_an_image_that_cannot_be_read_is_told(
    wsolbench: Command, trained: Trained, tmp_path: Path, photo: Path, content: bytes | None
) -> None:
    torn = photo.read_bytes()[: photo.stat().st_size // 2] if content is None else content
    (tmp_path / "bad.png").write_bytes(torn)

    ended = wsolbench("predict", tmp_path / "bad.png", "--trial", trained[0].id, "--results", trained[1].results)

    assert (ended.code, ended.out) == (2, "")
    assert f"error: cannot read the image '{tmp_path / 'bad.png'}'" in ended.err
    assert list(tmp_path.glob("*_bad.png")) == []


def test_an_unknown_trial_and_a_missing_image_are_told_at_once(wsolbench: Command, trained: Trained) -> None:
    ended = wsolbench("predict", "nowhere.png", "--trial", "zzz", "--results", trained[1].results)

    assert ended.code == 2
    assert "no trial 'zzz'" in ended.err
    assert "cannot read the image 'nowhere.png'" in ended.err
