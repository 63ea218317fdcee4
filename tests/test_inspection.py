import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tests import fake_data
from tests.conftest import QUICK, Command
from wsolbench import backbones, checkpoint, images, inspection, job, methods, network, plugins, recipe
from wsolbench.backbone import Backbone
from wsolbench.errors import InputError
from wsolbench.inspection import Inspection, Point
from wsolbench.method import Method, Net, build
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial

Trained = tuple[Trial, Place, dict[str, Any]]
MAPS = ["self-attention map", "importance map", "drop mask"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An image file, not square."""
    fake_data.save(tmp_path / "photo.png", 3, 48, 30)
    return tmp_path / "photo.png"


def untrained(method: str, **options: Any) -> Net:
    torch.manual_seed(0)
    return build(plugins.make(methods, method, options), plugins.make(backbones, "tiny", {}).build(), 3)


def maps_of(found: tuple[Point, ...]) -> dict[str, Mapping[str, NDArray[np.float32]]]:
    return {point.name: point.maps for point in found}


# The maps


def test_the_maps_of_adl_are_those_of_the_feature_map_of_an_evaluation_pass() -> None:
    image = torch.randn(1, 3, 32, 32)
    net, plain = untrained("adl", points=("pool2", "conv4"), gamma=0.6), untrained("cam")
    plain.load_state_dict(net.state_dict())
    plain.backbone.tap("pool2", "conv4")

    found = maps_of(inspection.points(net.train(), image))

    features = plain.eval().backbone(image)
    assert list(found) == ["pool2", "conv4"]
    for point, maps in found.items():
        attention = features[point][0].detach().numpy().mean(0)
        assert list(maps) == MAPS
        np.testing.assert_allclose(maps["self-attention map"], attention, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(maps["importance map"], 1 / (1 + np.exp(-attention)), rtol=1e-5)
        assert np.array_equal(maps["drop mask"], maps["self-attention map"] < 0.6 * maps["self-attention map"].max())


def test_a_component_that_is_switched_off_changes_nothing_anywhere() -> None:
    (point,) = inspection.points(untrained("adl", points=("conv4",), importance_map=False), torch.randn(1, 3, 32, 32))

    assert (point.maps["importance map"] == 1).all()
    assert (point.maps["drop mask"] == 0).any()


def test_max_drop_shows_the_share_of_channels_that_it_drops() -> None:
    features = torch.tensor([[[[1.0, 5.0], [3.0, 4.0]], [[2.0, 2.0], [0.0, 1.0]]]])
    layer = plugins.load(methods, "max_drop").MaximumDropout(0.5)

    assert layer.maps(features)["share dropped"].tolist() == [[[0.25, 0.5], [0.0, 0.0]]]  # of two equal maxima both


class Doubled(nn.Module):
    """A layer of one's own."""

    def forward(self, features: Tensor) -> Tensor:
        return 2 * features

    def maps(self, features: Tensor) -> dict[str, Tensor]:
        return {"doubled": 2 * features[:, 0]}


class Own(Method):
    def prepare(self, backbone: Backbone) -> None:
        backbone.insert("conv4", Doubled())
        backbone.insert("pool1", Doubled())
        backbone.insert("conv2", nn.Identity())


def test_layers_of_ones_own_are_shown_in_forward_order_and_those_without_maps_left_out() -> None:
    net = build(Own(), plugins.make(backbones, "tiny", {}).build(), 3)

    found = inspection.points(net, torch.randn(1, 3, 32, 32))

    assert [(point.name, list(point.maps)) for point in found] == [("pool1", ["doubled"]), ("conv4", ["doubled"])]
    assert all(point.maps["doubled"].shape == point.shape[1:] for point in found)


def test_a_point_with_a_dot_is_called_by_its_name() -> None:
    net = build(
        plugins.make(methods, "adl", {"points": ("conv2.dw",)}), plugins.make(backbones, "mobilenet_v1", {}).build(), 2
    )

    (point,) = inspection.points(net, torch.randn(1, 3, 32, 32))

    assert (point.name, point.shape) == ("conv2.dw", (32, 16, 16))


# A finished trial


def test_the_network_is_the_trained_one(trained: Trained) -> None:
    trial, place, record = trained

    net = network.trained(trial, place, images.class_names(trial, place), torch.device("cpu"))

    assert checkpoint.digest(net) == record["weights_digest"]


def test_an_image_is_seen_as_a_test_image_is(trained: Trained, photo: Path) -> None:
    trial, place, _ = trained
    whole = np.asarray(Image.open(photo).resize((32, 32), Image.Resampling.BILINEAR))
    larger = np.asarray(Image.open(photo).resize((37, 37), Image.Resampling.BILINEAR))

    assert np.array_equal(inspection.inspect(trial.id, photo, place).image, whole)
    cropped = inspection.inspect(trial.id, photo, replace(place, protocol="adl2019")).image
    assert np.array_equal(cropped, larger[2:34, 2:34])


def test_a_trial_without_epochs_needs_no_checkpoint(place: Place, photo: Path) -> None:
    trial = recipe.complete({**QUICK, "epochs": 0})
    job.run(trial, place)

    found = inspection.inspect(trial.id[:6], photo, place)

    assert not Store(place.results).path(trial.id, "checkpoint").exists()
    assert [point.name for point in found.points] == list(trial.method_options["points"])


# The command


def test_inspect_writes_one_picture_and_prints_the_maps_in_numbers(
    wsolbench: Command, trained: Trained, photo: Path, tmp_path: Path
) -> None:
    trial, place, _ = trained
    words = (trial.id[:5], f"data={place.data}", "--results", place.results, "--image", photo)

    ended = wsolbench("inspect", *words, "--out", tmp_path / "new" / "a.png", "--json")

    found = json.loads(ended.out)
    assert ended.code == 0
    assert (found["id"], found["picture"]) == (trial.id, str(tmp_path / "new" / "a.png"))
    assert [(row["point"], row["map"]) for row in found["maps"]] == [
        (point, name) for point in trial.method_options["points"] for name in MAPS
    ]
    with Image.open(tmp_path / "new" / "a.png") as picture:
        assert (picture.format, picture.info.keys() & {"Software", "Date"}) == ("PNG", set())
        assert picture.width > picture.height  # four columns, three rows


def test_a_picture_without_a_place_lies_here_and_the_table_is_plain(
    wsolbench: Command, trained: Trained, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, place, _ = trained
    monkeypatch.chdir(tmp_path)

    ended = wsolbench("inspect", trial.id, f"data={place.data}", "--results", place.results, "--image", photo)

    lines = ended.out.splitlines()
    assert (tmp_path / f"{trial.id}_photo_inspect.png").is_file()
    assert lines[0].split() == ["Point", "Size", "Map", "Min", "Mean", "Max", "At", "0,", "%"]
    assert len(lines) == 2 + 3 * len(trial.method_options["points"])


def refused(wsolbench: Command, trained: Trained, *words: object) -> str:
    """What the command says when it refuses."""
    ended = wsolbench("inspect", *words, f"data={trained[1].data}", "--results", trained[1].results)

    assert (ended.code, ended.out) == (2, "")
    return ended.err


def test_an_unknown_trial_and_a_missing_image_are_told_at_once(wsolbench: Command, trained: Trained) -> None:
    said = refused(wsolbench, trained, "zzz", "--image", "nowhere.png")

    assert f"no trial 'zzz' in '{trained[1].results}'; there are: {trained[0].id}" in said
    assert "cannot read the image 'nowhere.png'" in said


def test_a_file_that_is_no_image_is_refused(wsolbench: Command, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no image", encoding="utf-8")

    assert "cannot read the image" in refused(wsolbench, trained, trained[0].id, "--image", tmp_path / "a.jpg")


@pytest.mark.parametrize("out", ["a.jpg", "folder.png"])
def test_a_picture_is_a_png(wsolbench: Command, trained: Trained, photo: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "folder.png").mkdir()

    said = refused(wsolbench, trained, trained[0].id, "--image", photo, "--out", tmp_path / out)

    assert "--out must be a .png file, not " in said


def test_a_setting_of_trials_is_refused(wsolbench: Command, trained: Trained, photo: Path) -> None:
    said = refused(wsolbench, trained, trained[0].id, "gamma=0.5", "--image", photo)

    assert "no field or option 'gamma'. There are: data, weights, device, protocol" in said


def test_a_beginning_of_several_ids_is_refused(tmp_path: Path) -> None:
    for name in ("abcdef000000", "abcdef000001"):
        (tmp_path / name).mkdir()

    with pytest.raises(InputError, match=r"2 trials begin with 'abc' in .* there are: abcdef000000, abcdef000001"):
        inspection.finished(Store(tmp_path), "abc")


def test_an_unfinished_trial_is_refused(tmp_path: Path) -> None:
    trial = recipe.complete(QUICK)
    store = Store(tmp_path)
    store.add(trial)
    store.attempt(trial.id).end("interrupted")

    with pytest.raises(InputError, match=f"trial {trial.id} is not finished but interrupted"):
        inspection.finished(store, trial.id)


@pytest.mark.parametrize("options", [{"method": "cam"}, {"method": "spatial_dropout"}])
def test_a_method_without_maps_is_named(place: Place, photo: Path, options: dict[str, Any]) -> None:
    trial = recipe.complete({**QUICK, "epochs": 0, **options})
    job.run(trial, place)

    with pytest.raises(InputError, match=f"{trial.id} has no map to show: its method, {trial.method}, inserts no"):
        inspection.inspect(trial.id, photo, place)


def test_a_trial_without_its_checkpoint_is_not_shown_as_if_it_were_trained(
    trained: Trained, photo: Path, tmp_path: Path
) -> None:
    trial, place, _ = trained
    shutil.copytree(place.results, tmp_path / "results")
    shutil.rmtree(tmp_path / "results" / trial.id / "checkpoint")

    with pytest.raises(InputError, match=f"no checkpoint of trial {trial.id} .* run it with --fresh"):
        inspection.inspect(trial.id, photo, replace(place, results=tmp_path / "results"))


def test_a_data_set_of_other_classes_is_refused(trained: Trained, photo: Path, tmp_path: Path) -> None:
    trial, place, _ = trained
    shutil.copytree(place.data or "", tmp_path / "fewer")
    shutil.rmtree(next((tmp_path / "fewer" / "images").glob("003.*")))
    shutil.copytree(place.results, tmp_path / "results")
    (Store(tmp_path / "results").arrays_folder(trial.id) / "predictions.npz").unlink()  # where the classes' names are

    with pytest.raises(InputError, match=f"other classes than trial {trial.id} was trained on"):
        inspection.inspect(trial.id, photo, replace(place, data=tmp_path / "fewer", results=tmp_path / "results"))


def test_a_trained_trial_is_shown_without_its_data_set(trained: Trained, photo: Path) -> None:
    trial, place, _ = trained

    found = inspection.inspect(trial.id, photo, replace(place, data=None))

    assert [point.name for point in found.points] == list(trial.method_options["points"])


# Numbers and picture, of maps by hand


def by_hand(points: int = 1) -> Inspection:
    mask = np.array([[0, 1], [1, 1]], np.float32)
    heat = np.array([[1, 2], [3, 6]], np.float32)
    found = [Point(f"conv{n}", (8, 2, 2), {"heat": heat, "mask": mask}) for n in range(points)]
    return Inspection(recipe.complete(QUICK), np.full((32, 32, 3), 255, np.uint8), tuple(found))


def test_numbers_of_a_map() -> None:
    heat, mask = by_hand().rows()

    size = {"point": "conv0", "channels": 8, "height": 2, "width": 2}
    assert heat == {**size, "map": "heat", "min": 1, "mean": 3, "max": 6, "zero_pct": 0}
    assert mask == {**size, "map": "mask", "min": 0, "mean": 0.75, "max": 1, "zero_pct": 25}


def pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_a_picture_has_the_same_bytes_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    first = inspection.picture(by_hand())
    monkeypatch.setitem(mpl.rcParams, "font.size", 30.0)  # what a user's own settings say

    assert inspection.picture(by_hand()) == first


def test_a_picture_grows_by_a_row_for_each_point() -> None:
    heights = [len(pixels(inspection.picture(by_hand(points)))) for points in (1, 2, 3)]

    assert heights[1] - heights[0] == heights[2] - heights[1] > 300


def test_a_mask_is_black_where_it_drops() -> None:
    shown = pixels(inspection.picture(by_hand()))

    panel = shown[:, int(0.72 * shown.shape[1]) :]  # the last of three
    black = (panel == 0).all(2)
    rows, columns = black[:, : panel.shape[1] // 2], black[:, panel.shape[1] // 2 :]
    assert rows.sum() > 10_000  # a quarter of a panel of 300 x 300 pixels and more
    assert columns.sum() < 5_000  # frame and words
