import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from wsolbench import catalogue, shipped, source

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("wsolbench", "methods", *shipped.KINDS, "pyproject.toml", "README.md", "LICENSE")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "out", "published", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building leaves files behind."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=LEFT_OUT)
        else:
            shutil.copy(ROOT / name, copy / name)
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(out)]
    subprocess.run([sys.executable, *build, str(copy)], check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """The files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was unpacked into."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a user's own project, which has modules called like ours."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("methods", "sweeps", "reports", "figures", "tests"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise RuntimeError('not ours')\n", encoding="utf-8")
    (folder / "methods" / "adl.py").write_text("raise RuntimeError('not ours')\n", encoding="utf-8")
    return folder


def wsolbench(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line of the unpacked wheel, run in a folder."""
    return ran(installed, folder, "from wsolbench import cli; cli.main()", *words)


def ran(installed: Path, folder: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """What a process says that runs code with the unpacked wheel, in a folder."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("WSOLBENCH_")}
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {code}", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_wheel_holds_one_package_and_its_metadata(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}

    assert sorted(top.partition("-")[0] for top in tops) == ["wsolbench", "wsolbench"]
    assert {top for top in tops if not top.endswith(".dist-info")} == {"wsolbench"}


@pytest.mark.parametrize(
    ("folder", "pattern", "target"),
    [
        ("wsolbench", "*.py", "wsolbench"),
        ("wsolbench", "*.yaml", "wsolbench"),
        ("wsolbench", "py.typed", "wsolbench"),
        ("wsolbench/backbones", "*.py", "wsolbench/backbones"),
        ("wsolbench/formats", "*.py", "wsolbench/formats"),
        ("wsolbench/formats", "*.html", "wsolbench/formats"),
        ("wsolbench/site", "*.py", "wsolbench/site"),
        ("wsolbench/site", "*.j2", "wsolbench/site"),
        ("wsolbench/site", "*.css", "wsolbench/site"),
        ("wsolbench/site", "*.js", "wsolbench/site"),
        ("wsolbench/datasets", "*.py", "wsolbench/datasets"),
        ("methods", "*.py", "wsolbench/_methods"),
        *((kind, "*.yaml", f"wsolbench/_{kind}") for kind in shipped.KINDS),
    ],
)
def test_wheel_holds_all_files_of(names: set[str], folder: str, pattern: str, target: str) -> None:
    files = {f"{target}/{path.name}" for path in (ROOT / folder).glob(pattern)}

    assert files
    assert files <= names


def test_wheel_holds_no_other_folders(names: set[str]) -> None:
    folders = {str(Path(name).parent) for name in names if name.startswith("wsolbench/")}

    inside = (
        "",
        "/backbones",
        "/commands",
        "/datasets",
        "/formats",
        "/site",
        "/_methods",
        *(f"/_{kind}" for kind in shipped.KINDS),
    )
    assert folders == {f"wsolbench{name}" for name in inside}


def test_methods_are_no_package_of_their_own() -> None:
    assert not (ROOT / "methods" / "__init__.py").exists()


def test_wheel_has_the_licence_and_the_command(installed: Path) -> None:
    (info,) = installed.glob("*.dist-info")

    assert (info / "licenses" / "LICENSE").read_text(encoding="utf-8").strip().startswith("Apache License")
    assert "wsolbench = wsolbench.cli:main" in (info / "entry_points.txt").read_text(encoding="utf-8")


def test_wheel_has_the_digest_of_the_checkout(installed: Path, users: Path) -> None:
    ended = ran(
        installed, users, "import wsolbench; from wsolbench import source as s; print(wsolbench.__file__, s.digest())"
    )

    assert ended.stdout.split() == [str(installed / "wsolbench" / "__init__.py"), source.digest()], ended.stderr


@pytest.mark.parametrize("where", ["users", pytest.param("checkout", marks=pytest.mark.full)])
def test_wheel_lists_what_there_is_in(installed: Path, users: Path, where: str) -> None:
    ended = wsolbench(installed, users if where == "users" else ROOT, "list", "--json")

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == catalogue.everything()


@pytest.mark.parametrize("where", ["users", "checkout"])
def test_wheel_has_help_in(installed: Path, users: Path, where: str) -> None:
    ended = wsolbench(installed, users if where == "users" else ROOT, "run", "--help")

    assert ended.returncode == 0, ended.stderr
    assert "KEY=VALUE" in ended.stdout


def test_checkout_works_where_it_is_the_current_folder() -> None:
    command = [sys.executable, "-m", "wsolbench", "run", "--help"]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "KEY=VALUE" in ended.stdout
