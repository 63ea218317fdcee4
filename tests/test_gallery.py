"""Which test images a gallery shows, and what it says of each."""

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from tests import fake_data
from tests.conftest import QUICK, Command
from wsolbench import drawing, gallery, job, recipe
from wsolbench.errors import InputError
from wsolbench.gallery import CARD, Seen
from wsolbench.mosaic import mosaic
from wsolbench.place import Place
from wsolbench.store import Store, rows
from wsolbench.trial import Trial

Trained = tuple[Trial, Place, dict[str, Any]]
HOSTILE = "$x_1$ </td><script>alert(1)</script>"


@pytest.fixture(scope="module")
def pair(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Seen, Seen, Place]:
    """A trial and its baseline of the same seed."""
    trial, shared, _ = trained
    place = replace(shared, results=tmp_path_factory.mktemp("pair") / "results")
    shutil.copytree(shared.results, place.results)
    bare = recipe.complete({**QUICK, "method": "cam"})
    job.run(bare, place)
    return gallery.of_trial(trial.id, place), gallery.of_trial(bare.id, place), place


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as opened:
        return opened.size


def with_iou(trial: Seen, iou: list[float]) -> Seen:
    """The trial as if its boxes had these IoUs, on its first images."""
    count = len(iou)
    arrays = {name: values[:count] for name, values in trial.arrays.items()}
    return replace(trial, split=trial.split.only(range(count)), arrays={**arrays, "iou": np.array(iou)})


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The IoU of two half-open boxes, written out."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


# One image


def test_an_item_says_what_the_trial_stored(pair: tuple[Seen, Seen, Place], cub: Path) -> None:
    ours, _, place = pair
    said = Store(place.results).arrays(ours.id, "predictions.npz")

    for index in range(len(ours.split)):
        item = ours.item(index)
        assert item.image == said["ids"][index]
        assert item.label == ours.split.classes[said["labels"][index]]
        assert item.predicted == ours.split.classes[said["resize224/test/top5"][index, 0]]
        assert item.correct == (item.label == item.predicted)
        assert item.hit == (said["wsolbench/iou"][index] >= 0.5)
        assert max(overlap(item.box, truth) for truth in item.truths) == pytest.approx(item.iou, abs=0.01)
        width, height = size(cub / "images" / item.image)
        scale = np.array([CARD / width, CARD / height] * 2)
        assert item.truths[0] == pytest.approx(ours.split.boxes[index][0] * scale, abs=0.06)


def test_numbers_of_a_trial_are_those_of_its_items(pair: tuple[Seen, Seen, Place]) -> None:
    ours, _, _ = pair
    items = [ours.item(index) for index in range(len(ours.split))]
    metrics = ours.record["results"]["wsolbench"]

    assert 100 * np.mean([item.hit for item in items]) == pytest.approx(metrics["gt_known_loc"])
    assert 100 * np.mean([item.hit and item.correct for item in items]) == pytest.approx(metrics["top1_loc"])
    assert 100 * np.mean([item.error == "part" for item in items]) == pytest.approx(metrics["error_part"])


def test_an_overlay_is_half_the_image_and_half_the_colour_of_the_score() -> None:
    image = fake_data.picture(3, 16, 12)
    score_map = np.linspace(0, 1, 12 * 16, dtype=np.float32).reshape(12, 16)

    found = gallery.overlaid(image, score_map)

    colours = colormaps["viridis"]((score_map * 255).astype(int))[:, :, :3] * 255
    np.testing.assert_allclose(found, 0.5 * image + 0.5 * colours, atol=2)


def test_a_card_is_a_small_jpeg_of_the_overlay(pair: tuple[Seen, Seen, Place]) -> None:
    ours, _, _ = pair

    content = ours.card(0)

    opened = Image.open(io.BytesIO(content))
    assert (opened.format, opened.size) == ("JPEG", (CARD, CARD))
    assert len(content) < 30_000
    assert content == ours.card(0)


def test_a_score_map_is_highest_where_the_stored_one_is(pair: tuple[Seen, Seen, Place]) -> None:
    ours, _, _ = pair

    found, stored = ours.score_map(2), ours.arrays["score_maps"][2]

    row, column = np.unravel_index(found.argmax(), found.shape)
    cell = CARD / stored.shape[0]
    assert (int(row // cell), int(column // cell)) == np.unravel_index(stored.argmax(), stored.shape)
    assert (found.min(), found.max()) == (0, 1)


# Which images


def test_groups_are_in_the_order_of_their_names(pair: tuple[Seen, Seen, Place]) -> None:
    ours, theirs = with_iou(pair[0], [0.6, 0.9, 0.1, 0.7, 0.4]), with_iou(pair[1], [0.7, 0.1, 0.8, 0.4, 0.3])

    found = gallery.chosen(ours, theirs, ["best", "worst", "fixes", "breaks"], 9, 0)

    assert found == {"best": [1, 3, 0, 4, 2], "worst": [2, 4, 0, 3, 1], "fixes": [1, 3], "breaks": [2]}


def test_equal_ious_keep_the_order_of_the_test_split(pair: tuple[Seen, Seen, Place]) -> None:
    same = with_iou(pair[0], [0.5, 0.9, 0.5, 0.9])

    assert gallery.chosen(same, None, ["best", "worst"], 4, 0) == {"best": [1, 3, 0, 2], "worst": [0, 2, 1, 3]}


def test_what_we_fix_the_baseline_breaks(pair: tuple[Seen, Seen, Place]) -> None:
    ours, theirs, _ = pair
    ious = np.linspace(0, 1, len(ours.split))
    a, b = with_iou(ours, ious.tolist()), with_iou(theirs, ious[::-1].tolist())

    assert gallery.fixes(a, b, 0).tolist() == gallery.breaks(b, a, 0).tolist()
    assert set(gallery.fixes(a, b, 0)) == {
        i for i, (x, y) in enumerate(zip(ious, ious[::-1], strict=True)) if x >= 0.5 > y
    }


def test_random_images_depend_on_the_seed_and_on_nothing_else(pair: tuple[Seen, Seen, Place]) -> None:
    ours, theirs, _ = pair

    drawn = [gallery.random(trial, None, seed).tolist() for trial, seed in ((ours, 0), (theirs, 0), (ours, 1))]

    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(drawn[0]) == list(range(len(ours.split)))


def test_the_first_image_of_each_class(pair: tuple[Seen, Seen, Place]) -> None:
    ours, _, _ = pair

    assert [ours.item(int(index)).label for index in gallery.first(ours, None, 0)] == list(ours.split.classes)


def test_a_pair_needs_a_baseline_and_the_same_images(pair: tuple[Seen, Seen, Place]) -> None:
    ours, theirs, _ = pair

    with pytest.raises(InputError, match="fixes and breaks need a baseline"):
        gallery.chosen(ours, None, ["fixes"], 1, 0)
    with pytest.raises(InputError, match="different images"):
        gallery.chosen(ours, with_iou(theirs, [0.1]), ["best"], 1, 0)


# Which trials


def row(trial: str, method: str, seed: int, **others: Any) -> dict[str, Any]:
    return {"id": trial * 12, "method": method, "seed": seed, "stages": [], **others}


ROWS = [
    row("a", "x", 0),
    row("b", "x", 1),
    row("c", "y", 1, rate=1),
    row("d", "y", 2, rate=1),
    row("e", "y", 2, rate=2),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "where", "found"),
    [
        ("method=y rate=1", "method=x", {}, "cb"),
        ("method=y rate=2", None, {}, "e"),
        ("method=x", None, {"seed": 1}, "b"),
        ("cccccccccccc", "method=x", {}, "cb"),
        ("aaaaaaaaaaaa", "bbbbbbbbbbbb", {}, None),
    ],
)
def test_trials_are_named_by_id_or_fields_and_paired_by_seed(
    ours: str, theirs: str | None, where: Mapping[str, Any], found: str | None
) -> None:
    if found is None:
        with pytest.raises(InputError, match="no partner, the other side has no such seed"):
            gallery.pair(ROWS, ours, theirs, where)
        return
    assert [i and i[0] for i in gallery.pair(ROWS, ours, theirs, where)] == [found[0], found[1] if theirs else None]


def test_several_trials_of_one_seed_are_told_by_what_they_differ_in() -> None:
    with pytest.raises(InputError, match=r"'method=y' fits several trials of one seed: they differ in rate \(1, 2\)"):
        gallery.pair(ROWS[3:], "method=y", None, {})
    with pytest.raises(InputError, match="method is said of 'method=y' and again of both"):
        gallery.pair(ROWS, "method=y", None, {"method": "x"})
    with pytest.raises(InputError, match="no finished trial fits 'method=z'"):
        gallery.pair(ROWS, "method=z", None, {})


def test_a_pair_is_equal_in_all_that_chose_neither() -> None:
    two = [row(trial, "xy"[n % 2], 0, epochs=1 + n // 2) for n, trial in enumerate("abcd")]

    with pytest.raises(InputError, match="pair in 2 settings; say which epochs"):
        gallery.pair(two, "method=y", "method=x", {})
    with pytest.raises(InputError, match=r"no partner, the other side differs in epochs \(1, there 2\)"):
        gallery.pair(two[1:3], "method=y", "method=x", {})
    assert gallery.pair(two, "method=y", "method=x", {"epochs": 2}) == ("d" * 12, "c" * 12)
    assert gallery.pair(two, "b" * 12, "c" * 12, {}) == (
        "b" * 12,
        "c" * 12,
    )  # by id anything may be put beside anything


def test_what_a_gallery_needs_and_is_not_there_is_told(trained: Trained, tmp_path: Path, cub: Path) -> None:
    trial, place, _ = trained
    bare = Store(tmp_path / "bare")
    bare.add(trial)
    shutil.copytree(Store(place.results).path(trial.id), bare.path(trial.id), dirs_exist_ok=True)
    folder = bare.arrays_folder(trial.id)
    (folder / "scoremaps.npz").unlink()
    other = fake_data.cub(tmp_path / "other", per_class=10)

    with pytest.raises(InputError, match=r"no scoremaps.npz in .*: `wsolbench run --fresh` makes them again"):
        gallery.of_trial(trial.id, Place(bare.folder, cub))
    shutil.copy(Store(place.results).arrays_folder(trial.id) / "scoremaps.npz", folder)
    (folder / "predictions.npz").unlink()
    with pytest.raises(InputError, match=r"no predictions.npz in .*: `wsolbench run --fresh` makes them again"):
        gallery.of_trial(trial.id, Place(bare.folder, cub))
    with pytest.raises(InputError, match="other images or labels"):
        gallery.of_trial(trial.id, replace(place, data=other))
    with pytest.raises(InputError, match="not scored by adl2019"):
        gallery.of_trial(trial.id, replace(place, protocol="adl2019"))
    with pytest.raises(InputError, match="not finished"):
        gallery.of_trial("0" * 12, place)


# The picture


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]  # type: ignore[attr-defined]


def frames(figure: Figure, colour: str) -> list[Rectangle]:
    return [
        p
        for axes in figure.axes
        for p in axes.patches
        if isinstance(p, Rectangle) and to_hex(p.get_edgecolor()) == colour
    ]


def test_the_picture_has_a_row_for_each_image_and_a_true_and_a_predicted_box_for_each_trial(
    pair: tuple[Seen, Seen, Place],
) -> None:
    ours, theirs, _ = pair

    drawn = mosaic([theirs, ours], {"best": [0, 3], "random": [5]})

    assert len(drawn.axes) == 3 * 5
    true, predicted = frames(drawn, gallery.TRUE.lower()), frames(drawn, gallery.PREDICTED.lower())
    assert len(true) == sum(2 * len(ours.item(i).truths) for i in (0, 3, 5))
    assert len(predicted) == 6
    assert all(p.get_linestyle() != "-" for p in true)
    assert all(p.get_linestyle() in {"-", "solid"} for p in predicted)
    assert {"CAM: score map", "ADL: score map", "ADL: best", "ADL: random"} <= set(texts(drawn))
    assert sum(text.startswith("IoU") for text in texts(drawn)) == 6


def test_hostile_class_names_are_text_in_the_picture_and_the_data(pair: tuple[Seen, Seen, Place]) -> None:
    ours, _, _ = pair
    renamed = replace(ours, split=replace(ours.split, classes=(HOSTILE, *ours.split.classes[1:])))

    drawn = mosaic([renamed], {"first": [0]})

    assert renamed.item(0).label == HOSTILE
    assert HOSTILE[:25] + "\N{HORIZONTAL ELLIPSIS}" in texts(drawn)
    assert drawing.rendered(drawn, "png").startswith(b"\x89PNG")


# The command


def test_the_command_writes_picture_cards_and_data(
    wsolbench: Command, pair: tuple[Seen, Seen, Place], tmp_path: Path
) -> None:
    ours, theirs, place = pair
    words = ("method=adl", "method=cam", f"data={place.data}", "dataset=cub", "--results", place.results)

    ended = wsolbench("gallery", *words, "--choose", "best,random", "--count", 2, "--out", tmp_path, "--json")

    assert ended.code == 0, ended.err
    data = json.loads(ended.out)
    assert data == json.loads((tmp_path / "gallery.json").read_text(encoding="utf-8"))
    assert [(d["group"], d["trial"]) for d in data] == [
        (g, t.id) for g in ("best", "random") for _ in "ab" for t in (theirs, ours)
    ]
    assert all(size(tmp_path / d["card"]) == (d["size"], d["size"]) for d in data)
    assert size(tmp_path / "gallery.png")[0] > 500
    assert max(d["iou"] for d in data if d["trial"] == ours.id) == round(float(ours.arrays["iou"].max()), 4)


def test_the_same_command_writes_the_same_bytes(
    wsolbench: Command, pair: tuple[Seen, Seen, Place], tmp_path: Path
) -> None:
    ours, _, place = pair
    for name in "ab":
        wsolbench(
            "gallery", ours.id, f"data={place.data}", "--results", place.results, "--out", tmp_path / name, "--count", 1
        )

    written = [{p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.*")} for name in "ab"]
    assert written[0] == written[1]
    assert {"gallery.png", "gallery.json"} < written[0].keys()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("data=x",), "name a trial"),
        (("method=adl", "--choose", "bst"), "no group 'bst', did you mean 'best'"),
        (("z", "method=adl"), "no trial 'z' in "),
        (("method=adl", "method=nn"), "no finished trial fits 'method=nn'"),
        (("method=adl", "--choose", "fixes"), "need a baseline"),
    ],
)
def test_the_command_refuses_what_there_is_not(
    wsolbench: Command, pair: tuple[Seen, Seen, Place], words: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    place = pair[2]

    ended = wsolbench("gallery", *words, f"data={place.data}", "--results", place.results, "--out", tmp_path / "out")

    assert ended.code == 2
    assert problem in ended.err
    assert not (tmp_path / "out").exists()


def test_the_rows_of_the_store_pair(pair: tuple[Seen, Seen, Place]) -> None:
    ours, theirs, place = pair

    assert gallery.pair(rows(Store(place.results).records()), "method=adl", "method=cam", {}) == (ours.id, theirs.id)
