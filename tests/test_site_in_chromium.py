"""The site as a reader sees it, in Debian's Chromium; hostile names stand on every page of it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest

from tests import fake_site
from wsolbench.place import Place
from wsolbench.site import build
from wsolbench.store import Store
from wsolbench.trial import Trial

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
INSTALL = "the tests of the site need Chromium (apt-get install chromium) and pip install 'wsolbench[browser]'"
SCREENSHOTS = Path(os.environ.get("WSOLBENCH_SCREENSHOTS", Path(tempfile.gettempdir()) / "wsolbench-screenshots"))
"""Where pictures of the pages are kept, to be looked at."""

CARDS = 2_000
PAGES = ("index", "trial", "gallery")
Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415  an extra
    except ImportError:
        pytest.fail(INSTALL)
    if CHROMIUM is None:
        pytest.fail(INSTALL)
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium has no sandbox for it
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def store(trained: tuple[Trial, Place, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fake_site.store(tmp_path_factory.mktemp("store") / "results", trained)


@pytest.fixture(scope="module")
def made(store: Store, cub: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, build.Site]:
    """The folder of a site, and what is on it."""
    out = tmp_path_factory.mktemp("made") / "site"
    return out, fake_site.site(out, store, cub)


class Watched:
    """A page, and everything it asks for or complains about."""

    def __init__(self, browser: Any, folder: Path, **options: Any) -> None:
        self.folder = folder.resolve()
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def go(self, name: str) -> Any:
        self.page.goto((self.folder / name).as_uri())
        return self.page

    @property
    def outside(self) -> list[str]:
        """What was asked for that is not in the folder."""
        inside = (self.folder.as_uri() + "/", "data:,")
        return [url for url in self.requests if not url.startswith(inside)]


@pytest.fixture
def watched(chromium: Any, made: tuple[Path, build.Site]) -> Iterator[Watched]:
    """A page of 1280 x 900 pixels."""
    found = Watched(chromium, made[0], viewport={"width": 1280, "height": 900})
    yield found
    found.context.close()


def names(site: build.Site) -> dict[str, str]:
    """A page of each kind; the trial is one of hostile names."""
    hostile = next(page for page in site.pages if page.state == "done" and page.spec["method"] == fake_site.METHOD)
    return {"index": "index.html", "trial": f"trials/{hostile.id}.html", "gallery": "gallery.html"}


def test_no_page_complains_asks_outside_or_runs_a_name(watched: Watched, made: tuple[Path, build.Site]) -> None:
    folder, _ = made

    for path in sorted(folder.rglob("*.html")):
        page = watched.go(str(path.relative_to(folder)))
        page.mouse.wheel(0, 20_000)
        for element in page.query_selector_all("td, th, li, img")[:200]:
            element.dispatch_event("mouseover")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("window.PWNED") is None, path.name

    assert watched.complaints == []
    assert watched.outside == []
    assert any(url.endswith(".jpg") for url in watched.requests)


def test_hostile_names_are_shown_as_they_are(watched: Watched, made: tuple[Path, build.Site]) -> None:
    page = watched.go(names(made[1])["trial"])

    assert fake_site.METHOD.replace("\N{RIGHT-TO-LEFT OVERRIDE}", "\N{REPLACEMENT CHARACTER}") in page.inner_text("h1")
    assert [page.inner_text(f"[aria-label='By class'] tbody tr:nth-child({n}) th") for n in (1, 2, 3)] == [
        *fake_site.HOSTILE
    ]


@pytest.mark.parametrize("injected", ["<script>window.PWNED = 9</script>", "<img src=x onerror='window.PWNED = 9'>"])
def test_a_script_that_got_into_a_page_does_not_run(
    chromium: Any, made: tuple[Path, build.Site], tmp_path: Path, injected: str
) -> None:
    shutil.copytree(made[0], tmp_path / "site")
    index = tmp_path / "site" / "index.html"
    index.write_text(fake_site.said(index).replace("<main", f"{injected}<main"), encoding="utf-8")
    watched = Watched(chromium, tmp_path / "site")

    page = watched.go("index.html")
    page.wait_for_load_state("networkidle")

    assert page.evaluate("window.PWNED") is None
    assert any("content security policy" in said.lower() for said in watched.complaints)
    watched.context.close()


def column_of(table: Any, column: int) -> list[Any]:
    """What stands in a column, from top to bottom: numbers, words, and None where a number is missing."""
    return table.evaluate(
        """(table, column) => [...table.tBodies].flatMap(body => [...body.rows]).map(row => {
            const cell = row.cells[column];
            if ("v" in cell.dataset) return Number(cell.dataset.v);
            return cell.classList.contains("number") ? null : cell.textContent.trim();
        })""",
        column,
    )


def in_order(values: list[Any], page: Any, *, falling: bool) -> bool:
    """Whether they are in order, those that are missing last; words as people sort them, numbers in them by size."""
    there = [value for value in values if value is not None]
    if values[: len(there)] != there:
        return False
    compare = """([a, b]) => typeof a === "number" && typeof b === "number" ? a - b
        : String(a).localeCompare(String(b), "en", {numeric: true})"""
    found = [page.evaluate(compare, list(pair)) for pair in pairwise(there)]
    return all(each >= 0 if falling else each <= 0 for each in found)


@pytest.mark.parametrize("name", ["index", "trial"])
def test_every_column_sorts_up_down_and_back(watched: Watched, made: tuple[Path, build.Site], name: str) -> None:
    page = watched.go(names(made[1])[name])
    state = "button => button.closest('th').getAttribute('aria-sort')"
    buttons = [
        (table, button)
        for table in page.query_selector_all("table")
        for button in table.query_selector_all("thead button")
    ]

    for table, button in buttons:
        column = button.evaluate("button => button.closest('th').cellIndex")
        before = column_of(table, column)
        for wanted in ("ascending", "descending"):
            button.click()
            assert button.evaluate(state) == wanted
            assert in_order(column_of(table, column), page, falling=wanted == "descending")
            assert len(table.query_selector_all("thead [aria-sort]")) == 1
        button.click()
        assert (button.evaluate(state), column_of(table, column)) == (None, before)
    assert len(buttons) > 10


def test_a_table_is_sorted_and_the_gallery_filtered_by_keyboard_alone(
    watched: Watched, made: tuple[Path, build.Site]
) -> None:
    page = watched.go("index.html")
    focused = "document.activeElement.closest('th')?.textContent ?? document.activeElement.className"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "skip"
    for _ in range(200):
        page.keyboard.press("Tab")
        if "GT-known" in page.evaluate(focused):
            break
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"

    page = watched.go("gallery.html")
    while page.evaluate("document.activeElement.name") != "words":
        page.keyboard.press("Tab")
    page.keyboard.type("onerror")
    wanted = sum("onerror" in card.label for card in made[1].cards)
    assert page.inner_text("output") == f"{wanted} of {len(made[1].cards)}"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.value") == "hit"


def test_the_filter_counts_what_it_shows(watched: Watched, made: tuple[Path, build.Site]) -> None:
    cards = made[1].cards
    page = watched.go("gallery.html")

    def shown() -> int:
        return sum(element.is_visible() for element in page.query_selector_all("#cards > li"))

    for kind, words in [
        ("", ""),
        ("hit", ""),
        ("miss", ""),
        ("", "onerror"),
        ("miss", "ONERROR img"),
        ("", "no such thing"),
    ]:
        page.fill("input[name=words]", words)
        page.select_option("select[name=kind]", kind)
        expected = [
            card
            for card in cards
            if (not kind or card.hit == (kind == "hit")) and all(word in card.label for word in words.lower().split())
        ]
        assert page.inner_text("output") == f"{len(expected)} of {len(cards)}"
        assert shown() == len(expected)
    assert shown() == 0


def test_the_filter_takes_a_phrase_in_quotes(watched: Watched, made: tuple[Path, build.Site]) -> None:
    page = watched.go("gallery.html")

    page.fill("input[name=words]", 'img "seed 1" onerror')

    expected = [card for card in made[1].cards if card.seed == 1 and "img" in card.label and "onerror" in card.label]
    assert expected
    assert page.inner_text("output") == f"{len(expected)} of {len(made[1].cards)}"


def test_all_links_open_a_page_and_reach_their_place(watched: Watched, made: tuple[Path, build.Site]) -> None:
    for path in sorted(made[0].rglob("*.html")):
        page = watched.go(str(path.relative_to(made[0])))
        broken = page.evaluate(
            """() => [...document.querySelectorAll('a[href]')].filter(a => a.hash && a.pathname === location.pathname
            && !document.getElementById(decodeURIComponent(a.hash.slice(1)))).map(a => a.href)"""
        )
        links = page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href.split('#')[0])")
        assert broken == []
        assert all(Path(link.removeprefix("file://")).is_file() for link in links)
    page = watched.go("index.html")
    page.click("table .trials a")
    assert "/trials/" in page.url
    page.click("main p a[href*='index.html#']")
    assert page.evaluate("document.querySelector(':target') !== null")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(chromium: Any, made: tuple[Path, build.Site], name: str, scheme: Scheme) -> None:
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415  an extra

    watched = Watched(chromium, made[0], viewport={"width": 1280, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = watched.go(names(made[1])[name])

    found = Axe().run(page).response["violations"]

    grave = [each for each in found if each["impact"] in {"serious", "critical"}]
    serious = {each["id"]: [node["html"] for node in each["nodes"][:3]] for each in grave}
    assert serious == {}
    watched.context.close()


@pytest.mark.parametrize("width", [1280, 800, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_scrolls_sideways_and_a_picture_is_kept(
    chromium: Any, made: tuple[Path, build.Site], name: str, scheme: Scheme, width: int
) -> None:
    watched = Watched(chromium, made[0], viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = watched.go(names(made[1])[name])
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{scheme}.png")

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(", "))
    assert (brightness > 600) == (scheme == "light")
    watched.context.close()


def test_on_paper_there_is_ink_on_white_and_nothing_to_click(watched: Watched) -> None:
    page = watched.go("gallery.html")
    page.emulate_media(media="print", color_scheme="dark")

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert not page.is_visible("form.filter")
    assert not page.is_visible("nav")
    assert page.is_visible("#cards img")
    assert len(page.pdf()) > 10_000


def test_two_thousand_cards_open_without_loading_them_all(
    chromium: Any, made: tuple[Path, build.Site], tmp_path: Path
) -> None:
    folder, site = made
    shutil.copytree(folder, tmp_path / "site")
    card = tmp_path / "site" / "cards" / site.cards[0].trial / f"{site.cards[0].index}.jpg"
    many = tuple(replace(site.cards[0], index=1_000 + number) for number in range(CARDS))
    for one in many:
        shutil.copy(card, card.with_name(f"{one.index}.jpg"))
    text = build._page("gallery", replace(site, cards=many), title="Gallery")
    (tmp_path / "site" / "gallery.html").write_text(text, encoding="utf-8")
    watched = Watched(chromium, tmp_path / "site", viewport={"width": 1280, "height": 900})

    page = watched.go("gallery.html")

    asked = sum(url.endswith(".jpg") for url in watched.requests)
    took = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    print(f"{CARDS} cards: {took:.0f} ms to load, {asked} pictures asked for")
    assert page.inner_text("output") == f"{CARDS} of {CARDS}"
    assert 0 < asked < CARDS / 10
    assert watched.complaints == []
    watched.context.close()
