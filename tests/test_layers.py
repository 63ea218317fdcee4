"""What may import what, and what no file may name."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsolbench import backbones, methods, plugins

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "wsolbench"
ADAPTERS = ROOT / "methods"

LAYERS = [
    "errors memory plugins defaults documents extract trial files place stop shipped slurm executor arithmetic",
    "_compiled _segments _scores _pixels",
    "index",
    "backbone dataset metrics attempts store boxes geometry scoremaps protocols words annotations checkpoint",
    "table statistics published fsck garbage map_files",
    "method mirror weights batches pixels trace truth claims watch resources backbones backbones.* datasets datasets.*",
    "methods recommended recipe source looks known table_file formats formats.*",
    "loop folding overhead machine measure evaluation score selection pairing",
    "images network endings",
    "evaluator",
    "job asked submission beside sheet",
    "worker",
    "workers packing",
    "crew",
    "launch sweep report compare verify catalogue inspection prediction export figures drawing gallery mosaic",
    "entry cluster doctor",
    "console site site.*",
    "commands commands.*",
    "cli __main__",
]
"""Modules of wsolbench by layer, the lowest first; a module imports from lower layers and from its own."""

INTERFACE = {"method", "backbone", "scoremaps", "plugins", "errors"}
"""What a file of methods/ may import from wsolbench."""

WITHOUT_TORCH = [
    "errors",
    "plugins",
    "documents",
    "extract",
    "trial",
    "attempts",
    "worker",
    "workers",
    "crew",
    "store",
    "watch",
    "cluster",
    "recommended",
    "report",
    "figures",
    "drawing",
    "gallery",
    "mosaic",
    "cli",
]
"""Modules that must not cost the seconds that importing torch takes."""

LONGEST = 50
"""Lines of a function."""


def layer_of(module: str) -> int | None:
    """The number of a module's layer, its name without `wsolbench.`; None where it is not listed."""
    package, dot, _ = module.partition(".")
    for number, line in enumerate(LAYERS):
        if {module, f"{package}.*" if dot else module} & set(line.split()):
            return number
    return None


def module_name(path: Path) -> str:
    """`wsolbench/backbones/tiny.py` -> `backbones.tiny`."""
    return ".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The modules of wsolbench that a file imports, without `wsolbench.`, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name.removeprefix("wsolbench.") for a in node.names if a.name.startswith("wsolbench."))
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").partition(".")[0] == "wsolbench"):
            assert node.level == 0, f"{package}: import by full name"
            inside = (node.module or "").removeprefix("wsolbench").removeprefix(".")
            for alias in node.names:
                deeper = f"{inside}.{alias.name}".removeprefix(".")
                yield deeper if (CORE / f"{deeper.replace('.', '/')}.py").exists() or not inside else inside


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


core_files = sorted(path for path in CORE.rglob("*.py") if path.name != "__init__.py" or path.parent != CORE)
adapter_files = sorted(ADAPTERS.glob("*.py"))
benchmark_files = sorted((CORE.parent / "benchmarks").glob("*.py"))
every_file = [*core_files, *adapter_files, *benchmark_files]


@pytest.mark.parametrize("path", core_files, ids=module_name)
def test_imports_go_down_the_layers(path: Path) -> None:
    name = module_name(path)
    own = layer_of(name)
    assert own is not None, f"wsolbench.{name} is in no layer: add it to LAYERS in tests/test_layers.py"

    for imported in set(imports(parsed(path), name)) - {name}:
        layer = layer_of(imported)
        assert layer is not None, f"wsolbench.{imported} is in no layer: add it to LAYERS in tests/test_layers.py"
        assert layer <= own, f"wsolbench.{name} (layer {own}) imports wsolbench.{imported} (layer {layer})"


@pytest.mark.parametrize("path", adapter_files, ids=lambda path: path.stem)
def test_a_method_knows_only_the_interface(path: Path) -> None:
    known = {name.partition(".")[0] for name in imports(parsed(path), path.stem)}

    assert known <= INTERFACE, f"{path.name} imports wsolbench.{', '.join(sorted(known - INTERFACE))}"


@pytest.mark.parametrize("path", every_file, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_file_names_a_method_or_backbone_but_its_own(path: Path) -> None:
    named = set(plugins.names(methods)) | set(plugins.names(backbones))
    strings = {n.value for n in ast.walk(parsed(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}

    others = (strings & named) - ({path.stem} if path.parent in (ADAPTERS, CORE / "backbones") else set())
    assert not others, f"{path.name} has the names {', '.join(sorted(others))} as strings"


@pytest.mark.parametrize("path", every_file, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_methods_are_imported_only_through_wsolbench(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []

        assert "methods" not in {name.partition(".")[0] for name in names}, (
            "write wsolbench.methods: a second copy else"
        )


@pytest.mark.parametrize("path", every_file, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_function_is_long(path: Path) -> None:
    functions = [n for n in ast.walk(parsed(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [n.name for n in functions if (n.end_lineno or 0) - n.lineno + 1 > LONGEST]

    assert not long, f"more than {LONGEST} lines: {', '.join(long)}"


def test_importing_does_not_import_torch() -> None:
    """One process imports all, one after the other, and names the one that brings torch."""
    modules = [f"wsolbench.{m}" for m in WITHOUT_TORCH if (CORE / f"{m}.py").exists()]
    program = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    program += "    if 'torch' in sys.modules: sys.exit(f'{name} imports torch')"

    finished = subprocess.run(
        [sys.executable, "-c", program, *modules], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (finished.returncode, finished.stderr) == (0, "")


def test_an_upward_import_is_found() -> None:
    upward = ast.parse("def late():\n    from wsolbench import job\n    from wsolbench.loop import Trainer\n")

    assert set(imports(upward, "trial")) == {"job", "loop"}
    assert layer_of("trial") == 0
    assert layer_of("backbones.anything") == layer_of("batches")
    assert layer_of("unheard_of") is None
