"""Guards over our own source: what the house has promised of its files."""

import ast
import json
import re
import runpy
from pathlib import Path

import pytest

from store.migrate import migrations

ROOT = Path(__file__).parents[1]
ROOMS = (
    "fleet",
    "store",
    "collectors",
    "analytics",
    "actions",
    "controller",
    "api",
    "dashboards",
    "simulator",
    "steward",
)
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
FOLDERS = ("docs", "deploy", "benchmarks", "scripts")
WRITTEN = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
TEXTS = [
    *SOURCES,
    *(path for path in WRITTEN if path.suffix != ".png" and "__pycache__" not in path.parts),
    *sorted([*ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "requirements.lock"]),
]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_file_says_what_it_is_and_every_public_function_what_it_does(path: Path) -> None:
    tree = ast.parse(path.read_text())
    named = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    public = [node for node in named if not node.name.startswith("_") and node in tree.body]
    assert ast.get_docstring(tree)
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_is_long_and_none_takes_missing_for_zero(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 400
    # Where nothing is zero seconds or zero rows, the line says so.
    assert [
        line for line in lines if re.search(r"fill_null\(0|fill_nan\(0|filter\(None", line) and "  # " not in line
    ] == []


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_nothing_names_a_machine_or_leaves_work_for_later(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"/(?:home|root|work|opt)/\w|\bTODO\b|\bFIXME\b|--index-url|--find-links", text)


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.number for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_the_page_of_tables_is_the_one_that_the_code_would_write() -> None:
    written = runpy.run_path(str(ROOT / "scripts" / "tables"))["page"]()
    assert (ROOT / "docs" / "tables.md").read_text() == written


def test_every_page_of_the_docs_is_in_the_menu_and_every_link_leads_somewhere() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in menu
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_what_ci_tests_with_is_what_the_readme_says() -> None:
    assert "readme_block 2" in (ROOT / ".ci" / "run").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "steward demo" in blocks[0]
    assert "pytest" in blocks[1]


def test_the_readme_shows_settings_that_are_accepted(tmp_path: Path) -> None:
    from steward.config import load_settings  # noqa: PLC0415 - the only test here that needs the roof

    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "steward.toml").write_text(block)
    assert json.loads(load_settings(tmp_path / "steward.toml", {}).model_dump_json())["collect"]["contexts"] == ["lab"]
