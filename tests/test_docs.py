"""What README.md and docs/ say: complete, of what there is, and with commands that can be typed."""

import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from wsolbench import (
    catalogue,
    cli,
    datasets,
    documents,
    extract,
    figures,
    plugins,
    protocols,
    recipe,
    resources,
    trial,
    words,
)
from wsolbench import sweep as sweeps
from wsolbench import table_file as tables

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "RESULTS.md",
    *(ROOT / "docs").glob("*.md"),
]
GLOSSARY = documents.read(catalogue.GLOSSARY).data
PLUGINS = [(package, name) for package in recipe.KINDS.values() for name in plugins.names(package)]
KEYS: dict[str, type[Any]] = {
    "sweep": sweeps._File,
    "table": tables.TableFile,
    "column": tables.Column,
    "block": tables.Block,
    "row": tables.Line,
    "figure": figures.FigureFile,
    "x": figures.Across,
    "y": figures.Up,
    "job": resources.Resources,
}


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def plain(text: str) -> str:
    """In one line, without what markdown needs around HTML's brackets."""
    return " ".join(text.replace("&lt;", "<").replace("&gt;", ">").split())


def named(*pages: str) -> set[str]:
    """What stands in backticks in pages of docs/, beside blocks of code, word by word."""
    prose = " ".join(re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL) for page in pages)
    return set(" ".join(re.findall(r"`([^`]+)`", prose)).split())


def typed(page: Path) -> Iterator[str]:
    """The command lines of a page's shell blocks, continued lines joined."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines())


def lines_of(program: str) -> list[str]:
    return sorted({found[1] for page in PAGES for line in typed(page) if (found := _called(program).match(line))})


def _called(program: str) -> re.Pattern[str]:
    return re.compile(rf"(?:[A-Z_]+=\S+ )*{program} (.*)")


def anchors(page: Path) -> set[str]:
    """What a link may name after #, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_has_something_left_to_fill_in(page: Path) -> None:
    assert not re.search(r"@[A-Z0-9]+@|TODO", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8"))

    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("line", lines_of("wsolbench"))
def test_every_command_line_can_be_typed(line: str) -> None:
    group: Any = typer.main.get_command(cli.app)
    name, *args = shlex.split(line, comments=True)
    command = group.commands[name]
    if isinstance(command, click.Group) or hasattr(command, "commands"):
        command = command.commands[args.pop(0)]

    assert command.make_context(name, args).params


@pytest.mark.parametrize("line", lines_of("make"))
def test_every_target_can_be_made(line: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = [word for word in shlex.split(line, comments=True) if not word.startswith("-") and "=" not in word]

    for target in wanted:
        kind, _, name = target.partition("-")
        files = {"sweep": "sweeps", "report": "reports", "figure": "figures"}
        is_file = kind in files and (name.startswith("$") or (ROOT / files[kind] / f"{name}.yaml").exists())
        assert is_file or re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("name", plugins.names(datasets))
def test_the_layout_of_every_data_set_is_in_the_docs(name: str) -> None:
    said = inspect.getdoc(plugins.option_class(datasets, name)) or ""

    assert plain(said) in plain(text_of("data.md"))
    assert f"\n## {name}\n" in text_of("data.md")


@pytest.mark.parametrize(("package", "name"), PLUGINS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_plugin_and_its_options_are_in_the_reference(package: Any, name: str) -> None:
    known = named("reference.md", "data.md")

    assert {name, f"{name}:NAME"} & known
    assert set(plugins.option_names(package, plugins.example(package, name))) <= known


@pytest.mark.parametrize("name", [*trial.FIELDS, *words.PLACE, *protocols.names(), *extract.choices()])
def test_every_setting_and_protocol_is_in_the_reference(name: str) -> None:
    assert name in named("reference.md")


@pytest.mark.parametrize("name", GLOSSARY)
def test_every_metric_is_defined_in_the_reference(name: str) -> None:
    assert f"| `{name}` | {GLOSSARY[name]} |" in text_of("reference.md")


@pytest.mark.parametrize("kind", KEYS)
def test_every_key_of_a_file_is_in_the_docs(kind: str) -> None:
    words_of_page = set(re.findall(r"\w+", text_of("files.md")))

    assert {field.name for field in fields(KEYS[kind])} <= words_of_page


def test_every_variable_of_the_environment_is_in_the_reference() -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "wsolbench").rglob("*.py"))
    read = {name for source in sources for name in re.findall(r"WSOLBENCH_[A-Z]+", source)}

    assert len(read) > 3
    assert read - {"WSOLBENCH_FAULT"} <= named("reference.md")  # which only tests set
