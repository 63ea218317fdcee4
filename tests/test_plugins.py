import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
from annotated_types import MinLen
from pydantic.dataclasses import dataclass

from wsolbench import backbones, datasets, methods, plugins
from wsolbench.errors import InputError
from wsolbench.plugins import OPTIONS, Count, NotNegative, Positive, Share

ROOT = Path(__file__).resolve().parents[1]
PLAIN = "from wsolbench.method import Method\n\nMETHOD = Method\n"


@dataclass(frozen=True, config=OPTIONS)
class Every:
    """One option of each kind."""

    points: tuple[str, ...]
    share: Share = 0.5
    count: Count = 1
    positive: Positive = 1.0
    not_negative: NotNegative = 0.0
    flag: bool = False
    pair: tuple[float, float] = (0.0, 1.0)
    filled: Annotated[tuple[str, ...], MinLen(1)] = ("a",)


@pytest.fixture
def every(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package of methods, with `every` in it."""
    (tmp_path / "every.py").write_text("from tests.test_plugins import Every as METHOD\n", encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [str(tmp_path), *methods.__path__])
    monkeypatch.setattr(plugins, "import_module", lambda _: ModuleType("every"))
    monkeypatch.setattr(plugins, "option_class", lambda *_: Every)
    return methods


def problems_of(package: ModuleType, options: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        plugins.make(package, "every", options)
    return caught.value.problems


@pytest.mark.parametrize(
    ("package", "folder"),
    [(methods, "methods"), (backbones, "wsolbench/backbones"), (datasets, "wsolbench/datasets")],
    ids=["methods", "backbones", "datasets"],
)
def test_names_are_the_files_of_the_folder(package: ModuleType, folder: str) -> None:
    files = sorted(path.stem for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("_"))

    assert plugins.names(package) == files


def test_names_are_found_without_importing(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError", encoding="utf-8")
    code = (
        "import sys; from wsolbench import methods, plugins;"
        "print('broken' in plugins.names(methods), 'torch' in sys.modules)"
    )
    env = {"WSOLBENCH_METHODS": str(tmp_path)}

    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)

    assert found.stdout.split() == ["True", "False"]


def test_files_that_begin_with_an_underscore_are_no_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_shared.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [str(tmp_path)])

    assert plugins.names(methods) == []


@pytest.mark.parametrize(
    ("package", "name", "start"),
    [
        (methods, "adll", "no method 'adll', did you mean 'adl'? There are: acol, adl, cam, cutmix, "),
        (methods, "zzz", "no method 'zzz'. There are: acol, adl, cam, cutmix, "),
        (methods, "", "no method ''. There are: acol, "),
        (methods, "../adl", "no method '../adl', did you mean 'adl'? There are: "),
        (backbones, "vgg61", "no backbone 'vgg61', did you mean 'vgg16'? There are: inception_v3, "),
        (datasets, "cup", "no dataset 'cup', did you mean 'cub'? There are: cub, "),
    ],
)
def test_unknown_name_is_told_with_the_nearest_and_all(package: ModuleType, name: str, start: str) -> None:
    with pytest.raises(InputError) as caught:
        plugins.load(package, name)

    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(", ".join(plugins.names(package)))


def test_file_that_declares_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "declares_nothing.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [str(tmp_path)])

    with pytest.raises(InputError) as caught:
        plugins.make(methods, "declares_nothing", {})

    assert str(caught.value) == f"{tmp_path}/declares_nothing.py declares no METHOD, such as METHOD = ADL"


def test_first_folder_wins(tmp_path: Path) -> None:
    (tmp_path / "cam.py").write_text("METHOD = int\n", encoding="utf-8")
    code = "from wsolbench import methods, plugins; print(plugins.load(methods, 'cam').METHOD)"

    env = {"WSOLBENCH_METHODS": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "<class 'int'>"


@pytest.mark.parametrize("separator", ["", ":"])
def test_empty_folder_names_are_passed_over(tmp_path: Path, separator: str) -> None:
    (tmp_path / "stray.py").write_text(PLAIN, encoding="utf-8")
    code = "from wsolbench import methods, plugins; print('stray' in plugins.names(methods))"

    env = {"WSOLBENCH_METHODS": separator}
    found = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("share", 1.5, "share must be at most 1, not 1.5"),
        ("share", -0.1, "share must be at least 0, not -0.1"),
        ("share", "0.5", "share must be a number, not '0.5'"),
        ("share", True, "share must be a number, not True"),
        ("count", 0, "count must be more than 0, not 0"),
        ("count", 2.0, "count must be a whole number, not 2.0"),
        ("positive", 0, "positive must be more than 0, not 0"),
        ("not_negative", -1, "not_negative must be at least 0, not -1"),
        ("flag", 1, "flag must be true or false, not 1"),
        ("flag", "no", "flag must be true or false, not 'no'"),
        ("points", "conv4", "points must be a list, not 'conv4'"),
        ("points", [3], "points[0] must be text, not 3"),
        ("filled", [], "filled must have at least 1 value, not ()"),
        ("pair", [0.5], "pair[1] is missing"),
        ("pair", [0.1, 0.2, 0.3], "pair must have at most 2 values, not (0.1, 0.2, 0.3)"),
        (
            "gama",
            0.8,
            "every has no option gama; it has: points, share, count, positive, not_negative, flag, pair, filled",
        ),
    ],
)
def test_wrong_option_is_told(every: ModuleType, option: str, value: Any, message: str) -> None:
    assert problems_of(every, {"points": ["a"], option: value}) == (message,)


def test_missing_option_is_told(every: ModuleType) -> None:
    assert problems_of(every, {}) == ("points is missing",)


def test_all_wrong_options_are_told_at_once(every: ModuleType) -> None:
    problems = problems_of(every, {"points": [], "share": 2.0, "count": 0, "gama": 1})

    assert [problem.split()[0] for problem in problems] == ["share", "count", "every"]


def test_whole_numbers_become_what_the_option_declares(every: ModuleType) -> None:
    made = plugins.make(every, "every", {"points": ["a"], "share": 1, "positive": 2})

    assert [type(value) for value in (made.share, made.positive)] == [float, float]


def test_minus_0_becomes_0(every: ModuleType) -> None:
    assert str(plugins.make(every, "every", {"points": [], "share": -0.0}).share) == "0.0"


def test_frozen_makes_tuples_all_the_way_down() -> None:
    assert plugins.frozen([1, [2, (3, [])], "a"]) == (1, (2, (3, ())), "a")


MANY = """
from typing import ClassVar
from pydantic.dataclasses import dataclass
from wsolbench.method import Method
from wsolbench.plugins import OPTIONS, Share

@dataclass(frozen=True, config=OPTIONS)
class Many(Method):
    variant: ClassVar[str] = "one"
    share: Share = 0.5

METHOD = Many
"""


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package of methods, with `many` in it, and `own`, which has an option of that name."""
    (tmp_path / "many.py").write_text(MANY, encoding="utf-8")
    (tmp_path / "own.py").write_text(MANY.replace("ClassVar[str]", "str"), encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [str(tmp_path), *methods.__path__])
    for name in ("many", "own"):
        monkeypatch.delitem(sys.modules, f"wsolbench.methods.{name}", raising=False)
    return methods


def test_what_stands_after_the_colon_is_the_variant(many: ModuleType) -> None:
    made = plugins.make(many, "many:two:three", {"share": 0.25})

    assert (made.variant, made.share) == ("two:three", 0.25)
    assert asdict(made) == {"share": 0.25}
    assert plugins.option_names(many, "many:two") == ["share"]
    assert plugins.example(many, "many") == "many:one"


@pytest.mark.parametrize(
    ("name", "whole"), [("many", "many:one"), ("many:", "many:one"), ("own:one", "own"), ("own:", "own")]
)
def test_name_with_too_much_or_too_little_is_told_with_a_whole_one(many: ModuleType, name: str, whole: str) -> None:
    with pytest.raises(InputError) as caught:
        plugins.make(many, name, {})

    assert caught.value.problems == (f"no method {name!r}, did you mean one such as {whole!r}?",)


def test_option_may_be_called_variant(many: ModuleType) -> None:
    assert plugins.make(many, "own", {"variant": "two"}).variant == "two"
    assert plugins.option_names(many, "own") == ["variant", "share"]
