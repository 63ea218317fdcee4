import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from wsolbench import methods, plugins, recipe, recommended
from wsolbench.defaults import defaults
from wsolbench.errors import InputError

HEAD = """from typing import ClassVar
from pydantic.dataclasses import dataclass
from wsolbench.method import Method
from wsolbench.plugins import OPTIONS

print("imported")

"""
"""Of a file that says when it is imported."""

PLAIN = """@dataclass(frozen=True, config=OPTIONS)
class Mine(Method):
    points: tuple[str, ...]
    share: float = 0.25
    pair: tuple[float, float] = (0.5, -1.0)
    flag: bool = False

METHOD = Mine
"""
SAID = {"points": "none", "share": 0.25, "pair": (0.5, -1.0), "flag": False}

CODE = """
import sys
from dataclasses import MISSING
from wsolbench import defaults, methods
for method in sys.argv[1:]:
    found = defaults.defaults(methods, method)
    print({name: "none" if default is MISSING else default for name, default in found.items()})
"""


def told(folder: Path, *texts: str) -> list[str]:
    """What another process prints that asks for the defaults of methods with these texts."""
    names = [f"mine_{number}" for number in range(len(texts))]
    for name, text in zip(names, texts, strict=True):
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    command, env = [sys.executable, "-c", CODE, *names], {"WSOLBENCH_METHODS": str(folder)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("name", plugins.names(methods))
def test_defaults_are_those_of_the_class(name: str) -> None:
    own = {field.name: field.default for field in fields(plugins.option_class(methods, name))}

    assert defaults(methods, name) == own


def test_defaults_are_read_without_importing(tmp_path: Path) -> None:
    assert told(tmp_path, HEAD + PLAIN) == [str(SAID)]


def test_plain_method_has_none(tmp_path: Path) -> None:
    assert told(tmp_path, HEAD + "METHOD = Method\n") == ["{}"]


IN_PART = {
    "base of its own": (PLAIN.replace("(Method)", "(Base)").replace("@", "class Base(Method): ...\n\n@", 1), SAID),
    "computed": (PLAIN.replace("0.25", "1 / 4"), SAID),
    "class variable": (PLAIN.replace("    flag", "    kinds: ClassVar[int] = 3\n    flag"), SAID),
    "found": (PLAIN.replace("METHOD = Mine", "METHOD = [Mine][0]"), SAID),
    "said twice": ("METHOD = Method\n" + PLAIN, SAID),
    "set again": (PLAIN.replace("share: float = 0.25", "share: float = 0.5\n    share = 0.25"), SAID),
    "two classes": (
        PLAIN.replace("class Mine", "class Mine(Method): ...\n\n@dataclass(frozen=True, config=OPTIONS)\nclass Mine"),
        SAID,
    ),
    "another's": (
        "from wsolbench.methods.cutmix import CutMix as METHOD\n",
        {"beta": 1.0, "mix_probability": 1.0},
    ),
}
"""Of files that do not tell their class in full, and the defaults."""


@pytest.fixture(scope="module")
def of_one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What it prints for each of them: importing torch takes longer than all else."""
    lines = told(tmp_path_factory.mktemp("methods"), *(HEAD + text for text, _ in IN_PART.values()))
    return {case: lines[2 * place : 2 * place + 2] for place, case in enumerate(IN_PART)}


@pytest.mark.parametrize("case", IN_PART)
def test_class_that_its_file_does_not_tell_in_full_is_imported(case: str, of_one_process: dict[str, list[str]]) -> None:
    assert of_one_process[case] == ["imported", str(IN_PART[case][1])]


def test_file_that_is_no_python_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torn.py").write_text("class (", encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [str(tmp_path)])

    with pytest.raises(InputError, match="method torn cannot be imported: SyntaxError"):
        defaults(methods, "torn")


def test_method_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match="no method 'adll', did you mean 'adl'"):
        defaults(methods, "adll")


def test_nothing_is_recommended_where_an_option_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(HEAD + PLAIN, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [str(tmp_path)])

    assert recommended.options("shapes", "tiny", "mine", stages=["a"]) == {}


def test_nothing_is_recommended_without_stages() -> None:
    assert recommended.options("shapes", "tiny", "adl", stages=[]) == {}
    assert recommended.options("shapes", "tiny", "cam", stages=[]) == {}
    assert recommended.options("shapes", "tiny", "has", stages=[]) == {"patch": 8, "hide_probability": 0.5}


@pytest.mark.parametrize("backbone", ["tiny", "resnet50", "mobilenet_v1"])
@pytest.mark.parametrize("name", plugins.names(methods))
def test_recommended_options_are_those_of_a_trial_that_names_none(backbone: str, name: str) -> None:
    trial = recipe.complete({"dataset": "shapes", "backbone": backbone, "method": name})
    stages = recipe.blueprint(backbone, dict(trial.backbone_options)).stages

    found = recommended.options("shapes", backbone, name, stages=stages)

    assert asdict(plugins.make(methods, name, found)) == dict(trial.method_options)
