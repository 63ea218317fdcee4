"""The code's own digest, and copies of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NAN_METHOD, method_folder
from wsolbench import methods, source

GIT = shutil.which("git") or "git"
SAY = "import wsolbench, wsolbench.source as s; print(wsolbench.__file__, s.digest(), s.commit())"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the code, which `source` takes for its own."""
    package = Path(source.__file__).parent
    target = tmp_path / "code" / "wsolbench"
    shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__"))
    own = tmp_path / "code" / "methods"
    shutil.copytree(methods.__path__[-1], own, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(source, "_PACKAGE", target)
    monkeypatch.setattr(methods, "__path__", [str(own)])
    return tmp_path / "code"


def test_digest_does_not_depend_on_the_place(copy: Path) -> None:
    here = source.digest()
    moved = copy.rename(copy.with_name("moved"))

    source._PACKAGE = moved / "wsolbench"  # put back by the fixture
    methods.__path__ = [str(moved / "methods")]

    assert source.digest() == here


@pytest.mark.parametrize(
    "name", ["wsolbench/loop.py", "wsolbench/recipe.yaml", "wsolbench/backbones/vgg16.py", "methods/adl.py"]
)
def test_digest_tells_a_changed_letter(copy: Path, name: str) -> None:
    before = source.digest()
    path = copy / name
    path.write_text(path.read_text(encoding="utf-8").replace("e", "a", 1), encoding="utf-8")

    assert source.digest() != before


def test_digest_tells_a_new_file_that_is_not_committed(copy: Path) -> None:
    before = source.digest()
    (copy / "methods" / "new.py").touch()

    assert source.digest() != before


def test_digest_passes_over_what_python_leaves(copy: Path) -> None:
    before = source.digest()
    (copy / "wsolbench" / "__pycache__").mkdir()
    (copy / "wsolbench" / "__pycache__" / "loop.cpython-311.pyc").touch()

    assert source.digest() == before


def ran(variables: dict[str, str], folder: Path) -> tuple[str, str, str]:
    """Where a process with these variables has the package from, its digest and its commit."""
    said = subprocess.run(
        [sys.executable, "-c", SAY],
        env={**os.environ, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    package, digest, commit = said.stdout.split()
    return package, digest, commit


def test_snapshot_is_what_runs_and_has_the_same_digest(tmp_path: Path) -> None:
    variables = source.snapshot(tmp_path / "snapshots")

    package, digest, commit = ran(variables, tmp_path)

    assert package == f"{variables['PYTHONPATH']}/wsolbench/__init__.py"
    assert Path(variables["PYTHONPATH"]).parent == tmp_path / "snapshots"
    assert (digest, commit) == (source.digest(), "None")


def test_snapshot_takes_methods_of_ones_own_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = method_folder(tmp_path / "own", mine=NAN_METHOD)
    monkeypatch.setattr(methods, "__path__", [str(own), *methods.__path__])

    variables = source.snapshot(tmp_path / "snapshots")
    shutil.rmtree(own)

    assert ran(variables, tmp_path)[1].startswith(Path(variables["PYTHONPATH"]).name)
    assert (Path(variables["WSOLBENCH_METHODS"]) / "mine.py").read_text(encoding="utf-8") == NAN_METHOD


def test_snapshot_does_not_change_with_the_code(copy: Path, tmp_path: Path) -> None:
    variables = source.snapshot(tmp_path / "snapshots")
    before, path = source.digest(), copy / "methods" / "cam.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")

    assert ran(variables, tmp_path)[1] == before != source.digest()


def test_snapshot_of_the_same_code_is_the_same_folder(tmp_path: Path) -> None:
    first, second = (source.snapshot(tmp_path) for _ in range(2))

    assert first == second
    assert len(list(tmp_path.iterdir())) == 1


def test_commit_is_of_this_checkout() -> None:
    said = [
        subprocess.run([GIT, "-C", source._PACKAGE, *words], capture_output=True, text=True, check=False)
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
    ]

    head, changed = (ended.stdout.strip() for ended in said)
    assert source.commit() == (None if said[0].returncode else f"{head}{'+' * bool(changed)}")
