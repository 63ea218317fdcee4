"""What stands in the repository: published records and tables, and what the README says."""

import re
from pathlib import Path

import pytest

from wsolbench import formats, plugins, report, store, table_file
from wsolbench.asked import Asked
from wsolbench.formats import txt
from wsolbench.table import Report

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = sorted((ROOT / "reports" / "published").glob("*/*.md"))
"""reports/published/X/Y.md is reports/Y.yaml of the records in results/published/X."""

FORMATS = ("md", "tex", "html", "csv")


def made(path: Path) -> Report:
    """The report that a published table is, of its records."""
    results = Path("results") / "published" / path.parent.name
    table = table_file.read(ROOT / "reports" / path.with_suffix(".yaml").name)
    return report.report(table, rows(path.parent.name), Asked(str(results)))


def rows(name: str) -> list[dict[str, object]]:
    return store.rows(store.Store(ROOT / "results" / "published" / name).records())


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("ending", FORMATS)
def test_published_tables_come_of_the_published_records(path: Path, ending: str) -> None:
    text = plugins.load(formats, ending).render(made(path))

    assert text.encode() == path.with_suffix(f".{ending}").read_bytes()


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_published_tables_are_complete(path: Path) -> None:
    assert made(path).complete


def test_every_table_in_the_documents_is_a_published_one() -> None:
    published = {txt.render(made(path)).strip() for path in PUBLISHED}
    titles = "|".join({re.escape(text.split("\n")[0]) for text in published})
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "docs" / "cub.md"))
    shown = re.findall(rf"^(?:{titles})\n.*?(?=\n```)", pages, re.DOTALL | re.MULTILINE)

    assert len(shown) >= 2
    assert set(shown) <= published


def coverages(**where: object) -> list[float]:
    found = [row for row in rows("shapes") if all(row.get(key) == value for key, value in where.items())]
    return [float(str(row["body_coverage"])) for row in found]


def test_cam_looks_at_part_of_the_body_on_the_embedded_data() -> None:
    """The field's problem is there: CAM covers clearly less than the body, in every seed."""
    found = coverages(dataset="shapes", method="cam")

    assert len(found) == 3
    assert all(40 < coverage < 70 for coverage in found)


def test_dropping_covers_more_of_the_body_than_cam_in_every_seed() -> None:
    dropped = coverages(dataset="shapes", method="adl", drop_rate=0.75, drop_mask=True, importance_map=True)

    assert min(dropped) > max(coverages(dataset="shapes", method="cam")) + 5


def test_the_documents_name_the_grid_that_patches_were_on() -> None:
    """HaS on CUB was run with patches that are made for larger images: who reads its numbers has to know."""
    text = (ROOT / "docs" / "cub.md").read_text(encoding="utf-8")
    found = {(row["patch"], row["image_size"]) for row in rows("cub") if "patch" in row}

    for patch, size in found:
        grid = -(-int(str(size)) // int(str(patch)))
        assert f"patches of {patch} pixels" in text
        assert f"at {size} they are one of {grid} x {grid}" in text
    assert found
