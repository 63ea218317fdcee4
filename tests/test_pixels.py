"""Decoded images, kept in a file that all trials share."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from wsolbench import datasets, pixels, plugins
from wsolbench.annotations import read_image
from wsolbench.dataset import Split
from wsolbench.errors import InputError
from wsolbench.pixels import Pixels
from wsolbench.protocols import Geometry


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSOLBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pixels"


@pytest.fixture
def read() -> Counter[int]:
    """How often each image was decoded."""
    return Counter()


@pytest.fixture
def split(cub: Path, read: Counter[int]) -> Split:
    found: Split = plugins.make(datasets, "cub", {}).split("train", cub)

    def counted(index: int) -> np.ndarray:
        read[index] += 1
        return found.read(index)

    return replace(found, read=counted)


def all_of(whole: Pixels) -> np.ndarray:
    """Every square, in groups of five."""
    groups = [range(start, min(start + 5, len(whole))) for start in range(0, len(whole), 5)]
    return np.concatenate([squares[rows] for squares, rows in whole.groups(groups)])


def decoded(split: Split, side: int, geometry: Geometry = "resize224") -> np.ndarray:
    whole = Pixels(split, side, geometry)
    return np.stack([whole[index] for index in range(len(whole))])


def files_of(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


@pytest.mark.parametrize("geometry", ["resize224", "resize256_crop224", "short256_crop224"])
def test_cache_holds_what_decoding_gives(cache: Path, split: Split, geometry: Geometry) -> None:
    found = all_of(Pixels(split, 32, geometry))

    assert np.array_equal(found, decoded(split, 32, geometry))
    assert [path.suffix for path in files_of(cache)] == [".crc32", ".npy"]


def test_images_are_decoded_once_for_all_trials(cache: Path, split: Split, read: Counter[int]) -> None:
    for _ in range(3):
        all_of(Pixels(split, 32))

    assert set(read.values()) == {1}
    assert len(files_of(cache)) == 2


@pytest.mark.parametrize("other", ["side", "geometry", "images"])
def test_other_squares_are_another_file(cache: Path, split: Split, other: str) -> None:
    all_of(Pixels(split, 32))
    if other == "side":
        all_of(Pixels(split, 33))
    elif other == "geometry":
        all_of(Pixels(split, 32, "short256_crop224"))
    else:
        all_of(Pixels(split.only(range(3)), 32))

    assert len(files_of(cache)) == 4


@pytest.mark.parametrize("name", ["jpg", "libjpeg_turbo"])
def test_another_decoder_is_another_file(cache: Path, split: Split, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    all_of(Pixels(split, 32))
    version = features.version
    monkeypatch.setattr(features, "version", lambda asked: "0.1" if asked == name else version(asked))
    all_of(Pixels(split, 32))

    assert len(files_of(cache)) == 4


WRITTEN = {
    "1": ([[0, 255]], [[0, 255]]),
    "L": ([[7, 200]], [[7, 200]]),
    "I;16": ([[255, 40_000]], [[0, 156]]),
    "LA": ([[7, 200]], [[7, 200]]),
}
"""Greys of a file by its mode, and the bytes that they become."""


@pytest.mark.parametrize("mode", WRITTEN)
def test_bytes_of_layout_2_are_these_and_other_ones_are_another_layout(tmp_path: Path, mode: str) -> None:
    values, expected = (np.array(grey) for grey in WRITTEN[mode])
    deep = np.uint16 if mode == "I;16" else np.uint8
    Image.fromarray(values.astype(deep)).convert(mode).save(tmp_path / "image.png")

    assert pixels.LAYOUT == 2, "write here what the new layout reads"
    assert read_image(tmp_path / "image.png").tolist() == np.stack([expected] * 3, 2).tolist(), "raise pixels.LAYOUT"


def test_each_epoch_says_that_the_cache_is_used(cache: Path, split: Split) -> None:
    whole = Pixels(split, 32)
    all_of(whole)
    for path in files_of(cache):
        os.utime(path, (0, 0))

    all_of(whole)

    assert all(path.stat().st_mtime > 0 for path in files_of(cache))


def test_a_cache_of_somebody_else_is_used_all_the_same(
    cache: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = all_of(Pixels(split, 32))

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refused)

    assert np.array_equal(all_of(Pixels(split, 32)), expected)
    assert len(files_of(cache)) == 2


def test_a_replaced_image_is_decoded_anew(cache: Path, split: Split, cub: Path) -> None:
    path = cub / "images" / split.ids[0]
    before, was = all_of(Pixels(split, 32)), path.stat()
    try:
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
        after = all_of(Pixels(split, 32))
    finally:
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))

    assert np.array_equal(before, after)
    assert len(files_of(cache)) == 4


@pytest.mark.parametrize("place", [0, 1, 7, 100, -1])
def test_a_flipped_bit_is_found_and_the_image_decoded_anew(
    cache: Path, split: Split, read: Counter[int], place: int
) -> None:
    expected = all_of(Pixels(split, 32))
    path = files_of(cache)[1]
    content = bytearray(path.read_bytes())
    content[place if place < 0 else len(content) - 12 * 32 * 32 * 3 + place * 100] ^= 4
    path.write_bytes(content)
    read.clear()

    assert np.array_equal(all_of(Pixels(split, 32)), expected)
    assert sum(read.values()) == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("which", [0, 1])
def test_a_torn_file_is_written_anew(cache: Path, split: Split, which: int, share: float) -> None:
    expected = all_of(Pixels(split, 32))
    path = files_of(cache)[which]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole)) // 4 * 4])

    assert np.array_equal(all_of(Pixels(split, 32)), expected)
    assert path.read_bytes() == whole


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pixels, "SHARE", 0.0)
    return iter(())


@pytest.mark.usefixtures("full")
def test_what_does_not_fit_is_decoded_each_time(cache: Path, split: Split, read: Counter[int]) -> None:
    found = [all_of(Pixels(split, 32)) for _ in range(2)]

    assert np.array_equal(*found)
    assert set(read.values()) == {2}
    assert files_of(cache) == []


def test_without_a_place_to_write_it_goes_on_and_says_so(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WSOLBENCH_CACHE", str(tmp_path / "file"))

    assert np.array_equal(all_of(Pixels(split, 32)), decoded(split, 32))
    assert "no cache of decoded images" in capfd.readouterr().err


def test_an_image_that_cannot_be_decoded_is_named_and_leaves_nothing(cache: Path, cub: Path, split: Split) -> None:
    path = cub / "images" / split.ids[3]
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=path.name):
            all_of(Pixels(split, 32))
    finally:
        path.write_bytes(whole)

    assert files_of(cache) == []


def test_processes_that_fill_it_at_once_find_the_same(cache: Path, split: Split) -> None:
    expected = decoded(split, 32)
    context = get_context("fork")

    def work() -> None:
        sys.exit(not np.array_equal(all_of(Pixels(split, 32)), expected))

    processes = [context.Process(target=work) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * 8
    assert len(files_of(cache)) == 2


def test_no_images_need_no_cache(cache: Path, split: Split) -> None:
    assert list(Pixels(split.only([]), 32).groups([])) == []
    assert not cache.exists()
