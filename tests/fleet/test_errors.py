import inspect
import re

import pytest

from fleet import errors
from fleet.errors import BadConfig, BadFrame, BadInput, BadTrace, StewardError

FOUND = inspect.getmembers(errors, inspect.isclass)
MEMBERS = inspect.getmembers(errors, inspect.isclass)
CLASSES = {name: kind for name, kind in MEMBERS if kind.__module__ == errors.__name__}


def drawn() -> dict[str, str]:
    """Return the parent of every exception below the root, as the docstring draws the tree."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in str(errors.__doc__).splitlines():
        match = re.match(r"([│├└─ ]*)([A-Z]\w+)  +\S", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        path[depth:] = [match[2]]
        if depth:
            parents[match[2]] = path[depth - 1]
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    real = {name: kind.__mro__[1].__name__ for name, kind in CLASSES.items() if kind is not StewardError}
    assert drawn() == real


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_every_exception_can_be_caught_as_ours(kind: type[Exception]) -> None:
    assert issubclass(kind, StewardError)
    assert kind.__doc__


@pytest.mark.parametrize("kind", [BadInput, BadConfig, BadFrame, BadTrace])
def test_bad_input_keeps_the_place_and_the_field_beside_its_words(kind: type[BadInput]) -> None:
    error = kind("a.csv, column b: is empty", place="a.csv", field="b")
    assert (str(error), error.place, error.field) == ("a.csv, column b: is empty", "a.csv", "b")
    assert isinstance(error, ValueError)
    assert (kind("is empty").place, kind("is empty").field) == (None, None)
