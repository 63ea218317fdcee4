"""Anybody's score maps against the truth, and baselines."""

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsolbench import map_files, protocols
from wsolbench import score as scoring
from wsolbench.dataset import NoSplitError, Split, SplitName
from wsolbench.errors import InputError
from wsolbench.evaluation import Scores
from wsolbench.geometry import Window
from wsolbench.score import baseline, choosing
from wsolbench.score import save as save_scores
from wsolbench.truth import Truth, of_network

SIZES = ((40, 30), (50, 60), (64, 64))
BOXES = ((4.0, 6.0, 30.0, 21.0), (10.0, 10.0, 40.0, 55.0), (0.0, 0.0, 64.0, 32.0))


def split_of() -> Split:
    """Three images of different sizes, one box each."""
    return Split(
        ids=("a/one.jpg", "a/two.jpg", "b/three.jpg"),
        labels=np.zeros(3, np.int64),
        classes=("bird",),
        read=lambda index: np.zeros((*SIZES[index][::-1], 3), np.uint8),
        sizes=np.array(SIZES),
        boxes=tuple(np.array([box]) for box in BOXES),
    )


def perfect(size: tuple[int, int], box: tuple[float, ...]) -> NDArray[np.float32]:
    """The true box filled."""
    score_map = np.zeros(size[::-1], np.float32)
    x0, y0, x1, y1 = map(round, box)
    score_map[y0:y1, x0:x1] = 1
    return score_map


def in_input(side: int) -> list[NDArray[np.float32]]:
    scaled = [tuple(np.array(box) * side / np.tile(size, 2)) for size, box in zip(SIZES, BOXES, strict=True)]
    return [perfect((side, side), box) for box in scaled]


def save(folder: Path, maps: list[NDArray[Any]]) -> Path:
    for name, score_map in zip(split_of().ids, maps, strict=True):
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, score_map)
    return folder


def score(*asked: Any) -> Scores:
    """What is scored, whether the maps were scaled or not."""
    return scoring.score(*asked)[0]


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return save(tmp_path, [perfect(size, box) for size, box in zip(SIZES, BOXES, strict=True)])


def test_perfect_maps_score_100_under_our_protocol(original: Path) -> None:
    rule = protocols.protocol(protocols.DEFAULT)

    metrics = score(original, split_of(), rule, "original", (original, split_of())).metrics

    assert {metrics[name] for name in ("gt_known_loc", "mean_iou", "max_box_acc", "max_box_acc_v2")} == {100}


@pytest.mark.parametrize(
    ("name", "mean_iou"),
    [
        # each true box as inclusive pixels over the same box found with x1, y1 exclusive: nothing is lost ...
        ("adl2019", 100.0),
        ("adl2019_rect", 100.0),
        ("acol_spg", 100.0),
        # ... but where boxes end at W - 1, the third loses its last column: 65 x 33 pixels, 64 x 33 of them found
        ("wsolevaluation", 100 * (1 + 1 + 64 / 65) / 3),
        ("wsolbench_fixed", 100.0),
    ],
)
def test_what_perfect_maps_score_under_each_protocol(original: Path, name: str, mean_iou: float) -> None:
    found = score(original, split_of(), protocols.protocol(name), "original", None)

    assert found.metrics["gt_known_loc"] == 100
    assert found.metrics["mean_iou"] == pytest.approx(mean_iou)


def test_maps_in_the_space_of_a_networks_input(tmp_path: Path) -> None:
    found = score(save(tmp_path, in_input(60)), split_of(), protocols.protocol("wsolbench_fixed"), "input", None)

    assert found.metrics["gt_known_loc"] == 100


def test_all_maps_in_one_archive(tmp_path: Path) -> None:
    names = [name.removesuffix(".jpg") for name in split_of().ids]
    np.savez(tmp_path / "maps.npz", **dict(zip(names, in_input(60), strict=True)))

    found = score(tmp_path / "maps.npz", split_of(), protocols.protocol("wsolbench_fixed"), "input", None)

    assert found.metrics["gt_known_loc"] == 100


def test_a_map_that_fills_its_image_is_found(tmp_path: Path) -> None:
    split = replace(split_of(), boxes=tuple(np.array([[0.0, 0.0, *size]]) for size in SIZES))
    folder = save(tmp_path, [np.ones(size[::-1], np.float32) for size in SIZES])

    found = score(folder, split, protocols.protocol("wsolbench"), "original", (folder, split))

    assert found.metrics["mean_iou"] == 100


def test_maps_within_the_unit_interval_are_scored_as_they_are(tmp_path: Path) -> None:
    """0.5 around a block of 1: at 20 % of the maximum the whole map is above, which scaling would undo."""
    maps = [np.maximum(perfect(size, box), 0.5) for size, box in zip(SIZES, BOXES, strict=True)]

    found = score(save(tmp_path, maps), split_of(), protocols.protocol("wsolbench_fixed"), "original", None)

    assert found.images["box"].tolist() == [[0, 0, *size] for size in SIZES]


def test_maps_outside_the_unit_interval_are_scaled_to_it(original: Path, tmp_path: Path) -> None:
    shifted = save(tmp_path / "shifted", [5 * np.load(original / f"{name}.npy") - 3 for name in split_of().ids])

    found = score(shifted, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)

    assert found.metrics["gt_known_loc"] == 100


def blob(size: tuple[int, int], box: tuple[float, ...], peak: float) -> NDArray[np.float64]:
    """The true box on a pedestal of 0.5."""
    return 0.5 + (peak - 0.5) * perfect(size, box)


@pytest.mark.parametrize(
    ("peaks", "normalise", "scaled"),
    [
        ((0.99, 0.99, 0.99), "auto", False),
        ((0.99, 1.01, 0.99), "auto", True),  # one that leaves [0, 1] decides for all
        ((0.99, 0.99, 0.99), "always", True),
        ((0.99, 0.99, 0.99), "never", False),
    ],
)
def test_all_maps_of_a_folder_are_scaled_or_none(
    tmp_path: Path, peaks: tuple[float, ...], normalise: Any, scaled: bool
) -> None:
    folder = save(tmp_path, [blob(*each) for each in zip(SIZES, BOXES, peaks, strict=True)])
    rule = protocols.protocol("wsolbench_fixed")  # at 20 % of its maximum a map on a pedestal is all above

    found, said = scoring.score(folder, split_of(), rule, "original", None, normalise=normalise)

    whole = [[0, 0, *size] for size in SIZES]
    assert (said, found.images["box"].tolist()) == (scaled, [list(box) for box in BOXES] if scaled else whole)


@pytest.mark.parametrize("outside", ["own", "held_out"])
def test_maps_to_choose_on_are_scaled_as_those_that_are_scored(tmp_path: Path, outside: str) -> None:
    """On a pedestal of 0.5 the true box is found at 50 % and more, when scaled at 0 %."""
    peaks = {name: 1.01 if name == outside else 0.99 for name in ("own", "held_out")}
    own, chosen_on = (
        save(tmp_path / name, [blob(size, box, peak) for size, box in zip(SIZES, BOXES, strict=True)])
        for name, peak in peaks.items()
    )
    rule = protocols.protocol("wsolbench")

    found, scaled = scoring.score(own, split_of(), rule, "original", (chosen_on, split_of()))

    assert (scaled, found.metrics["threshold"], found.metrics["gt_known_loc"]) == (True, 0, 100)


def test_a_map_outside_the_unit_interval_is_named_where_none_may_be_scaled(tmp_path: Path) -> None:
    peaks = (0.9, 1.5, -2.0)
    folder = save(tmp_path, [blob(*each) for each in zip(SIZES, BOXES, peaks, strict=True)])
    rule = protocols.protocol("wsolbench_fixed")

    with pytest.raises(InputError, match=r"outside \[0, 1\] \(2\): .*two.jpg.npy \(0.5 to 1.5\), .*three.jpg.npy"):
        scoring.score(folder, split_of(), rule, "original", None, normalise="never")


def test_maps_are_not_kept_while_they_are_looked_at() -> None:
    alive: list[int] = []

    def load(_index: int) -> NDArray[Any]:
        array = np.zeros((4, 4))
        alive.append(1)
        weakref.finalize(array, alive.pop)
        assert len(alive) <= 2  # the one that is looked at, and the one before until it is replaced
        return array

    map_files.look(map_files.MapFiles(split_of(), ["a"] * 50, load), [])


def test_a_map_of_another_size_is_refused_not_resized(original: Path) -> None:
    np.save(original / "a/two.jpg.npy", np.zeros((224, 224)))

    with pytest.raises(InputError, match=r"a/two.jpg: 224 x 224, not 60 x 50\n1 of 3 score maps have the wrong size"):
        score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)


def test_a_missing_map_is_named(original: Path) -> None:
    (original / "b/three.jpg.npy").unlink()

    with pytest.raises(InputError, match=r"for 1 images \(such as three.jpg.npy or three.npy\): b/three.jpg"):
        score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)


def test_a_map_that_is_not_finite_is_named(original: Path) -> None:
    score_map = np.load(original / "a/two.jpg.npy")
    score_map[0, 0] = np.inf
    np.save(original / "a/two.jpg.npy", score_map)

    with pytest.raises(InputError, match=r"not finite everywhere.*\(1\): .*a/two.jpg.npy \(float32"):
        score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)


def test_a_torn_file_is_named(original: Path) -> None:
    path = original / "a/two.jpg.npy"
    path.write_bytes(path.read_bytes()[:40])

    with pytest.raises(InputError, match=r"two.jpg.npy holds no score map"):
        score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)


def test_pickled_maps_are_not_loaded(original: Path) -> None:
    np.save(original / "a/two.jpg.npy", np.array([{"a": 1}], object), allow_pickle=True)

    with pytest.raises(InputError, match=r"two.jpg.npy holds no score map"):
        score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)


def test_all_maps_that_cannot_be_used_are_told_at_once(original: Path) -> None:
    (original / "a/one.jpg.npy").write_bytes(b"no array")
    np.save(original / "a/two.jpg.npy", np.full(SIZES[1][::-1], np.nan))
    np.save(original / "b/three.jpg.npy", np.zeros((1, 64, 64)))

    with pytest.raises(InputError) as told:
        score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)

    assert [problem.partition(str(original))[0] for problem in told.value.problems] == [
        "",
        "score maps that are not finite everywhere, or of an endless range (1): ",
        "score maps that are not of rows and columns (1): ",
    ]


def test_maps_that_are_missing_unreadable_of_another_size_or_out_of_range_are_told_at_once(original: Path) -> None:
    maps = save(original / "held_out", [np.zeros((7, 7)), np.zeros(SIZES[1][::-1]), np.zeros(SIZES[2][::-1])])
    (original / "a/one.jpg.npy").unlink()
    (original / "a/two.jpg.npy").write_bytes(b"no array")
    np.save(original / "b/three.jpg.npy", np.full((64, 64), 2.0))
    (maps / "b/three.jpg.npy").unlink()

    with pytest.raises(InputError) as told:
        scoring.score(
            original, split_of(), protocols.protocol("wsolbench"), "original", (maps, split_of()), normalise="never"
        )

    begin = [
        f"no score map in '{original}' for 1 images",
        f"no score map in '{maps}' for 1 images",
        f"{original}/a/two.jpg.npy holds no score map: ",
        "a/one.jpg: 7 x 7, not 30 x 40",
        "1 of 2 score maps have the wrong size",
        "score maps with scores outside [0, 1] (1): ",
        "--normalise always",
    ]
    assert len(told.value.problems) == len(begin), told.value
    assert all(said.startswith(start) for said, start in zip(told.value.problems, begin, strict=True)), told.value


@pytest.mark.parametrize("shape", [(), (0, 0), (0,), (30, 40, 1)])
@pytest.mark.parametrize("space", ["original", "input"])
def test_an_array_that_is_no_map_is_named(original: Path, shape: tuple[int, ...], space: str) -> None:
    np.save(original / "a/one.jpg.npy", np.zeros(shape))

    with pytest.raises(InputError, match=r"not of rows and columns \(1\): .*one.jpg.npy"):
        score(original, split_of(), protocols.protocol("wsolbench_fixed"), space, None)


def test_a_map_whose_range_no_number_holds_is_named(original: Path) -> None:
    score_map = np.zeros(SIZES[0][::-1])
    score_map[0, :2] = -1.7e308, 1.7e308
    np.save(original / "a/one.jpg.npy", score_map)

    with pytest.raises(InputError, match=r"of an endless range \(1\): .*one.jpg.npy"):
        score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)


def test_a_map_that_two_images_would_be_given_is_refused(tmp_path: Path) -> None:
    """By the name without folder, one.npy is for both."""
    split = replace(split_of(), ids=("a/one.jpg", "b/one.jpg", "b/three.jpg"))
    for stem in ("one", "three"):
        np.save(tmp_path / f"{stem}.npy", np.zeros((32, 32)))

    with pytest.raises(InputError, match=r"go to two images \(1\): .*one.npy to a/one.jpg and b/one.jpg"):
        score(tmp_path, split, protocols.protocol("wsolbench_fixed"), "input", None)


def test_a_map_that_an_image_and_a_held_out_one_would_be_given_is_refused(tmp_path: Path) -> None:
    own, held_out = (replace(split_of().only([0]), ids=(f"{folder}/one.jpg",)) for folder in ("test", "train"))
    np.save(tmp_path / "one.npy", np.zeros((32, 32)))

    with pytest.raises(InputError, match=r"go to two images \(1\): .*one.npy to test/one.jpg and train/one.jpg"):
        score(tmp_path, own, protocols.protocol("wsolbench"), "input", (tmp_path, held_out))


@pytest.mark.parametrize("keep", [0, 30, 0.5, 0.9])
def test_a_torn_archive_is_named(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "maps.npz"
    np.savez_compressed(path, **dict(zip(split_of().ids, in_input(60), strict=True)))
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if keep > 1 else int(keep * len(whole))])

    with pytest.raises(InputError, match=r"maps.npz holds no score map"):
        score(path, split_of(), protocols.protocol("wsolbench_fixed"), "input", None)


def test_a_damaged_map_in_an_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "maps.npz"
    np.savez(path, **dict(zip(split_of().ids, in_input(60), strict=True)))
    content = bytearray(path.read_bytes())
    content[5000] ^= 4  # in the first map's pixels
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"maps.npz: a/one.jpg holds no score map"):
        score(path, split_of(), protocols.protocol("wsolbench_fixed"), "input", None)


@pytest.mark.parametrize("damage", [b"[[[[[[[[", b"\0\0\0\0\0\0\0\0"])
def test_a_map_with_a_damaged_head_is_named(original: Path, damage: bytes) -> None:
    path = original / "a/one.jpg.npy"
    content = path.read_bytes()
    path.write_bytes(content[:10] + damage + content[18:])

    with pytest.raises(InputError, match=r"one.jpg.npy holds no score map"):
        score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_of_one_image_must_hold_one_map(original: Path, count: int) -> None:
    (original / "a/one.jpg.npy").unlink()
    np.savez(original / "a/one.jpg.npz", **{f"map_{k}": perfect(SIZES[0], BOXES[0]) for k in range(count)})

    with pytest.raises(InputError, match=rf"one.jpg.npz holds no score map: it holds {count} arrays"):
        score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)


def test_a_map_in_place_of_a_folder_is_told(original: Path) -> None:
    with pytest.raises(InputError, match=r"one.jpg.npy' is one array; name the folder"):
        score(original / "a/one.jpg.npy", split_of(), protocols.protocol("wsolbench_fixed"), "original", None)


@pytest.mark.parametrize("name", ["A B/ONE.JPG", "vögel/ein s.v2.jpeg", "鳥.png", "no_ending"])
def test_maps_of_images_of_any_name_are_found(tmp_path: Path, name: str) -> None:
    split = replace(split_of().only([0]), ids=(name,))
    path = tmp_path / "maps" / f"{name}.npy"
    path.parent.mkdir(parents=True)
    np.save(tmp_path / "elsewhere.npy", perfect(SIZES[0], BOXES[0]))
    path.symlink_to(tmp_path / "elsewhere.npy")

    found = score(tmp_path / "maps", split, protocols.protocol("wsolbench_fixed"), "original", None)

    assert found.metrics["gt_known_loc"] == 100


def test_the_whole_image_overlaps_by_the_share_of_the_object() -> None:
    rule = protocols.protocol("wsolbench_fixed")

    found = baseline("whole", split_of(), 224, rule)

    shares = [390 / 1200, 1350 / 3000, 2048 / 4096]
    assert found.images["iou"].tolist() == pytest.approx(shares)
    assert found.metrics["gt_known_loc"] == pytest.approx(100 / 3)


def test_the_centre_box_has_half_the_area() -> None:
    centred = replace(split_of(), boxes=tuple(np.array([[0.0, 0.0, *size]]) for size in SIZES))

    found = baseline("centre", centred, 224, protocols.protocol("wsolbench_fixed"))

    assert found.images["iou"].tolist() == pytest.approx([158 * 158 / 224**2] * 3)


def test_random_maps_are_the_same_each_time() -> None:
    rule = protocols.protocol("wsolbench_fixed")

    first, second = (baseline("random", split_of(), 64, rule).images["box"].tolist() for _ in range(2))

    assert first == second


class HalfHeldOut:
    """A data set whose training images have boxes; it has a held-out split if it is given one."""

    def __init__(self, held_out: Split | None = None) -> None:
        self.held_out = held_out

    def split(self, name: SplitName, _data: Path | None) -> Split:
        if name == "held_out" and self.held_out is None:
            raise NoSplitError("none")
        return self.held_out if name == "held_out" and self.held_out is not None else split_of()


def test_a_threshold_is_chosen_on_the_held_out_split_where_there_is_one() -> None:
    name, chosen = choosing(HalfHeldOut(split_of().only([1])), None, None)

    assert (name, chosen.ids) == ("held_out", ("a/two.jpg",))


def test_else_on_a_share_of_the_training_images() -> None:
    name, chosen = choosing(HalfHeldOut(), None, 0.1)

    assert (name, len(chosen)) == ("train", 1)
    assert chosen.ids == split_of().held_out(0.1)[1].ids


def test_a_held_out_split_without_boxes_is_not_chosen_on() -> None:
    bare = replace(split_of(), boxes=(np.empty((0, 4)),) * 3)

    assert choosing(HalfHeldOut(bare), None, 0.1)[0] == "train"


def test_without_any_boxes_nothing_can_be_chosen() -> None:
    bare = replace(split_of(), boxes=(np.empty((0, 4)),) * 3)

    class Bare(HalfHeldOut):
        def split(self, _name: SplitName, _data: Path | None) -> Split:
            return bare

    with pytest.raises(InputError, match="there are none with boxes"):
        choosing(Bare(), None, 0.1)


def test_a_baseline_has_its_threshold_chosen_on_held_out_images() -> None:
    """A map of the centre box is the same at every threshold: the lowest that finds it is taken."""
    rule = protocols.protocol(protocols.DEFAULT)
    centred = replace(split_of(), boxes=tuple(np.array([[0.1 * w, 0.1 * h, 0.9 * w, 0.9 * h]]) for w, h in SIZES))

    found = baseline("centre", centred, 224, rule, centred)

    assert (found.metrics["threshold"], found.metrics["gt_known_loc"], found.metrics["optimism"]) == (0, 100, 0)


def test_errors_and_classes_are_counted_without_predicted_classes(original: Path) -> None:
    """One map shows a corner of its object: a part; the other two are hits."""
    np.save(original / "a/two.jpg.npy", perfect(SIZES[1], (10, 10, 25, 25)))
    split = replace(split_of(), labels=np.array([0, 1, 1]), classes=("one", "two"))

    found = score(original, split, protocols.protocol("wsolbench_fixed"), "original", None)

    assert found.metrics["error_part"] == pytest.approx(100 / 3)
    assert found.classes["gt_known_loc"].tolist() == [100, 50]


def test_what_is_known_of_each_image_can_be_written(original: Path, tmp_path: Path) -> None:
    found = score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)

    save_scores(tmp_path / "out.npz", split_of(), found)

    with np.load(tmp_path / "out.npz") as written:
        assert written["ids"].tolist() == list(split_of().ids)
        assert written["iou"].tolist() == [1, 1, 1]
        assert written["errors"][written["error"]].tolist() == ["none"] * 3
        assert written["class/gt_known_loc"].tolist() == [100]
        assert len(written["curve"]) == 1000


def test_a_file_of_another_kind_is_refused(original: Path, tmp_path: Path) -> None:
    found = score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)

    with pytest.raises(InputError, match=r"out.csv must end in .npz"):
        save_scores(tmp_path / "out.csv", split_of(), found)
    with pytest.raises(InputError, match=r"no folder '.*none' to write out.npz into"):
        save_scores(tmp_path / "none" / "out.npz", split_of(), found)


@pytest.mark.parametrize("kind", [np.complex64, np.dtype("<U1"), np.dtype("datetime64[s]")])
def test_maps_that_are_no_real_numbers_are_refused(original: Path, kind: Any) -> None:
    np.save(original / "a/two.jpg.npy", np.zeros(SIZES[1][::-1], kind))

    with pytest.raises(InputError, match=r"hold no real numbers \(1\): .*a/two.jpg.npy"):
        score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)


def test_maps_are_scored_in_the_precision_they_have(original: Path) -> None:
    """In float32 the maximum would be the whole map: the peak stands out by 1e-9 only."""
    score_map = np.zeros(SIZES[1][::-1])
    score_map[10:55, 10:40] = 1e-9
    np.save(original / "a/two.jpg.npy", 1e3 + score_map)

    found = score(original, split_of(), protocols.protocol("wsolbench_fixed"), "original", None)

    assert found.metrics["gt_known_loc"] == 100


@given(st.integers(1, 3), st.sampled_from(["original", "input"]))
def test_masks_are_decoded_once(chunk: int, space: str) -> None:
    asked: list[int] = []

    def mask(index: int) -> NDArray[np.uint8]:
        asked.append(index)
        return perfect(SIZES[index], BOXES[index]).astype(np.uint8)

    split = replace(split_of(), mask=mask)
    whole = Truth(split, [Window(w, h, 0, 0, w, h) for w, h in SIZES])
    truth = whole if space == "original" else of_network(split, "resize224", 32)
    chunks = range(0, 3, chunk if space == "input" else 1)

    for _ in range(2):
        seen = [truth.masks(range(start, min(start + chunks.step, 3))) for start in chunks]

    assert sorted(asked) == [0, 1, 2]
    flat = [plane for found in seen if found is not None for plane in found]
    expected = [truth.views[index].mask(perfect(SIZES[index], BOXES[index])) for index in range(3)]
    assert all(np.array_equal(*pair) for pair in zip(flat, expected, strict=True))
