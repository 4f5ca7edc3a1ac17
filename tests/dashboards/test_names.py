"""Streamlit puts the pages' folder first on `sys.path`: a file of ours there would stand in for a package."""

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import dashboards

FOLDER = Path(dashboards.__path__[0])
ROOMS = {path.parent.name for path in FOLDER.parent.glob("*/py.typed")}


def test_no_file_of_the_pages_hides_a_package_or_a_room() -> None:
    ours = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    theirs = set(packages_distributions()) | set(sys.stdlib_module_names) | ROOMS
    assert "fleet" in theirs
    assert ours & theirs == set()


def test_every_file_that_is_a_page_is_named_as_one_and_in_the_navigation() -> None:
    pages = {path.name for path in FOLDER.glob("*_page.py")}
    navigation = (FOLDER / "app.py").read_text()
    assert pages
    assert {page for page in pages if f'st.Page("{page}"' not in navigation} == set()
