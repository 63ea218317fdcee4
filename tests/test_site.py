import base64
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests import fake_site
from tests.conftest import Command
from wsolbench import files
from wsolbench.errors import InputError
from wsolbench.place import Place
from wsolbench.site import build, curve, trials
from wsolbench.store import Store
from wsolbench.trial import Trial

Trained = tuple[Trial, Place, dict[str, Any]]


class Page(HTMLParser):
    """What a page refers to, its ids and its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        self.ids += [value for key, value in attrs if key == "id" and value]
        self.links += [value for key, value in attrs if key in {"href", "src"} and value and value != "data:,"]


@pytest.fixture(scope="module")
def store(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fake_site.store(tmp_path_factory.mktemp("store") / "results", trained)


@pytest.fixture(scope="module")
def made(store: Store, cub: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, build.Site]:
    """The folder of a site, and what is on it."""
    out = tmp_path_factory.mktemp("made") / "site"
    return out, fake_site.site(out, store, cub)


@pytest.fixture
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds to draw."""
    monkeypatch.setattr(build, "_figures", lambda *_: ())


def pages(folder: Path) -> dict[Path, Page]:
    return {path: Page(fake_site.said(path)) for path in folder.rglob("*.html")}


def test_all_links_lead_to_what_is_there_and_none_outside(made: tuple[Path, build.Site]) -> None:
    folder, _ = made
    known = pages(folder)

    for path, page in known.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            there = (path.parent / target).resolve() if target else path
            assert there.is_relative_to(folder.resolve()) or there == path, link
            assert there.is_file(), f"{path.name}: {link}"
            assert not anchor or anchor in known[folder / there.relative_to(folder.resolve())].ids if target else True
    assert len(known) == 2 + 5  # index, gallery, and each trial


def test_no_id_stands_twice_on_a_page(made: tuple[Path, build.Site]) -> None:
    for path, page in pages(made[0]).items():
        assert len(page.ids) == len(set(page.ids)), path.name


def test_names_are_text_never_markup(made: tuple[Path, build.Site]) -> None:
    for path, page in pages(made[0]).items():
        scripts = [tag for tag, _ in page.elements if tag == "script"]
        handlers = [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]

        assert (len(scripts), handlers) == (1, []), path.name
        assert "{{" in fake_site.said(path) or "49" not in fake_site.METHOD
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in fake_site.said(path)
    assert fake_site.HOSTILE[0].replace("<", "&lt;").replace(">", "&gt;") in fake_site.said(made[0] / "gallery.html")


def test_the_policy_allows_the_one_script_and_style_and_nothing_else(made: tuple[Path, build.Site]) -> None:
    for path in made[0].rglob("*.html"):
        text = fake_site.said(path)
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
        assert policy is not None
        rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
        for tag in ("script", "style"):
            inline = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in inline]
            assert rules[f"{tag}-src"] == f"'sha256-{digests[0]}'"
            assert len(digests) == 1
        assert rules["default-src"] == "'none'"
        assert " style=" not in text


def test_a_site_has_the_same_bytes_every_time(
    made: tuple[Path, build.Site], store: Store, cub: Path, tmp_path: Path
) -> None:
    fake_site.site(tmp_path / "again", store, cub)

    assert fake_site.files(tmp_path / "again") == fake_site.files(made[0])


def test_a_card_for_each_image_that_is_asked_for(made: tuple[Path, build.Site]) -> None:
    folder, site = made
    gallery = Page(fake_site.said(folder / "gallery.html"))
    images = [attrs for tag, attrs in gallery.elements if tag == "img"]

    assert len(site.cards) == len(images) == 3 * 6  # three finished trials
    assert {image["loading"] for image in images} == {"lazy"}
    assert {(image["width"], image["height"]) for image in images} == {("224", "224")}
    with Image.open(folder / str(images[0]["src"])) as card:
        assert (card.format, card.size) == ("JPEG", (224, 224))
    boxes = [attrs for tag, attrs in gallery.elements if tag == "rect" and attrs.get("class") == "found"]
    assert len(boxes) == 1 + len(images)  # and one in the key


def test_failed_and_broken_trials_are_named_with_their_reasons(made: tuple[Path, build.Site]) -> None:
    folder, site = made
    index = fake_site.said(folder / "index.html")

    assert [page.state for page in site.failed] == ["failed"]
    assert [page.state for page in site.broken] == ["broken"]
    assert site.broken[0].id in index
    assert "RuntimeError: &lt;/td&gt;" in index
    assert "record.json" in site.broken[0].note
    assert "make sweep-drop-rate" in index


def test_a_trial_page_shows_what_is_stored(made: tuple[Path, build.Site], trained: Trained, store: Store) -> None:
    trial, _, record = trained
    (page,) = [page for page in made[1].pages if page.id == trial.id]
    arrays = store.arrays(trial.id, "predictions.npz")

    assert page.metric("gt_known_loc") == record["results"]["wsolbench"]["gt_known_loc"]
    assert [one.images for one in page.per_class] == np.bincount(arrays["labels"]).tolist()
    assert [one.values[0] for one in page.per_class] == arrays["wsolbench/class/gt_known_loc"].tolist()
    assert sum(one.images for one in page.outcomes) == len(arrays["ids"])
    assert sum(one.share for one in page.outcomes) == pytest.approx(100)
    assert page.outcomes[0].images == int((arrays["wsolbench/error"] == 0).sum())
    assert page.settings["gamma"] == "0.8"
    assert page.provenance["Software"].startswith("python ")
    assert [one.kind for one in page.tries] == ["done"]
    assert page.curve is not None
    assert [dot.text for dot in page.curve.dots] == [f"epoch {r['epoch']}: {r['loss']:.4f}" for r in record["epochs"]]


def test_a_number_leads_to_its_trial_and_the_trial_back(made: tuple[Path, build.Site]) -> None:
    folder, site = made
    index = Page(fake_site.said(folder / "index.html"))
    anchors = {one.anchor for one in site.reports}

    assert anchors <= set(index.ids)
    for trial_id, places in site.places.items():
        assert f"trials/{trial_id}.html" in index.links
        back = Page(fake_site.said(folder / "trials" / f"{trial_id}.html")).links
        assert {f"../index.html#{anchor}" for anchor in places} <= set(back)
    assert site.places


def test_a_site_is_made_without_torch_and_without_the_images(store: Store, tmp_path: Path) -> None:
    code = "import sys; from wsolbench.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    words = ["site", "--results", str(store.folder), "--out", str(tmp_path / "site")]

    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)

    assert ended.returncode == 3, ended.stderr  # a record is broken
    assert ended.stdout.split() == [str(tmp_path / "site" / "index.html"), "False"]
    assert "no cards of 3 trials: " in ended.stderr
    assert not (tmp_path / "site" / "gallery.html").exists()


@pytest.mark.usefixtures("_no_figures")
@pytest.mark.parametrize("content", ["folder", "file"])
def test_what_is_no_site_is_replaced_only_on_demand(
    wsolbench: Command, store: Store, tmp_path: Path, content: str
) -> None:
    out = tmp_path / "mine"
    if content == "folder":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work", encoding="utf-8")
    else:
        out.write_text("years of work", encoding="utf-8")
    words = ("site", "--results", store.folder, "--out", out, "--cards", 0)

    refused = wsolbench(*words)
    assert (refused.code, refused.out) == (2, "")
    assert f"error: {str(out)!r} is there and no site of wsolbench" in refused.err
    assert out.is_file() or fake_site.files(out) == {"thesis.tex": b"years of work"}

    assert wsolbench(*words, "-y").code == 3
    assert "thesis.tex" not in fake_site.files(out)
    assert wsolbench(*words).code == 3  # a site is replaced by the next one
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_a_folder_that_one_stands_in_is_never_replaced(
    wsolbench: Command, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")

    refused = wsolbench("site", "--results", store.folder, "--out", out, "--cards", 0, "-y")

    assert refused.code == 2
    assert "is the folder you are in, or holds it" in refused.err
    assert (tmp_path / "in").is_dir()


@pytest.mark.usefixtures("_no_figures")
def test_a_site_that_fails_leaves_the_old_one(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_site.site(tmp_path / "site", store, None)
    before = fake_site.files(tmp_path / "site")

    def full(_folder: Path, _site: build.Site) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        fake_site.site(tmp_path / "site", store, None)

    assert fake_site.files(tmp_path / "site") == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.usefixtures("_no_figures")
def test_trials_are_chosen_by_field(wsolbench: Command, store: Store, tmp_path: Path) -> None:
    ended = wsolbench("site", "seed=1", "--results", store.folder, "--out", tmp_path / "site", "--cards", 0)

    assert "1 trial: 1 done" in ended.err
    assert fake_site.marker(tmp_path / "site")["trials"] == 1


@pytest.mark.usefixtures("_no_figures")
def test_a_site_that_lacks_rows_is_made_and_says_so(wsolbench: Command, trained: Trained, tmp_path: Path) -> None:
    ended = wsolbench("site", "--results", trained[1].results, "--out", tmp_path / "site", "--cards", 0)

    assert ended.code == 0
    assert "missing: Methods: " in ended.err


def test_trials_are_in_the_order_of_what_they_are_of() -> None:
    specs = {
        name: {"dataset": "birds", "backbone": "net", "method": method, "method_options": {"rate": rate}, "seed": seed}
        for name, method, rate, seed in [("a", "b", 0.5, 10), ("b", "b", 0.5, 9), ("c", "b", 0.1, 11), ("d", "a", 1, 0)]
    }

    assert trials.in_order({**specs, "e": {}}) == ["e", "d", "c", "b", "a"]


def test_a_filter_on_a_field_that_no_trial_has_is_refused(wsolbench: Command, trained: Trained, tmp_path: Path) -> None:
    _, place, _ = trained

    ended = wsolbench("site", "methd=adl", "--results", place.results, "--out", tmp_path / "site")

    assert (ended.code, "'methd', did you mean 'method'?" in ended.err) == (2, True)
    assert not (tmp_path / "site").exists()


@pytest.mark.usefixtures("_no_figures")
def test_an_empty_store_makes_a_site_that_says_how_to_fill_it(wsolbench: Command, tmp_path: Path) -> None:
    ended = wsolbench("site", "--results", tmp_path / "none", "--out", tmp_path / "site")

    assert ended.code == 0
    index = fake_site.said(tmp_path / "site" / "index.html")
    assert "No trial yet" in index
    assert "make sweep-drop-rate" in index


def test_a_record_that_cannot_be_read_now_is_named(
    trained: Trained, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(_path: Path, *_: object) -> bytes:
        raise files.UnreadableError("record.json: stale file handle")

    monkeypatch.setattr(files, "read", stale)
    monkeypatch.setattr(Store, "attempts", lambda *_: [])
    monkeypatch.setattr(Store, "spec", lambda *_: {})
    page = trials.trial_page(store, trained[0].id, None)

    assert (page.state, page.note) == ("unreadable", "record.json: stale file handle")


def test_a_folder_without_a_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    build.refuse_other(tmp_path / "out")  # empty

    (tmp_path / "out" / "a").touch()
    with pytest.raises(InputError, match="say -y to replace it"):
        build.refuse_other(tmp_path / "out")


# The curve


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.integers(1, 30))
def test_a_curve_stays_within_its_picture(losses: list[float], first: int) -> None:
    made = curve.curve([{"epoch": first + n, "loss": loss} for n, loss in enumerate(losses)], [first + 1])

    assert made is not None
    places = [(dot.x, dot.y) for dot in made.dots] + [(x, 0.0) for x, _ in made.across] + [(0.0, y) for y, _ in made.up]
    assert all(0 <= x <= curve.WIDTH and 0 <= y <= curve.HEIGHT for x, y in places)
    assert [dot.x for dot in made.dots] == sorted(dot.x for dot in made.dots)
    assert 1 <= len(made.up) <= 6


def test_a_curve_by_hand() -> None:
    made = curve.curve([{"epoch": 1, "loss": 2.0}, {"epoch": 3, "loss": 1.0}], [3])

    assert made is not None
    assert made.line == "48.0,12.0 628.0,110.0"  # of 640 x 240 without the margins
    assert made.up == ((208.0, "0"), (159.0, "0.5"), (110.0, "1"), (61.0, "1.5"), (12.0, "2"))
    assert made.across == ((48.0, "1"), (338.0, "2"), (628.0, "3"))
    assert made.resumed == (483.0,)
    assert made.told == "Training loss, epoch 1: 2.0000 to epoch 3: 1.0000"


def test_no_epoch_is_no_curve() -> None:
    assert curve.curve([]) is None


def test_every_kind_of_error_has_words() -> None:
    assert set(trials._KINDS) == set(trials.ERRORS)
