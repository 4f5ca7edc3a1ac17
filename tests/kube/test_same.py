"""The same requests are refused alike by our server and, marked `cluster`, by a real one."""

from collections.abc import Iterator

import pytest

from tests.kube.answers import Refusal
from tests.kube.boxes import boxes
from tests.kube.cases import Case
from tests.kube.places import Place, place
from tests.kube.refused import REFUSED

pytestmark = pytest.mark.enable_socket


@pytest.fixture(scope="module", params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(request.param, tmp_path_factory.mktemp("kube")) as made, boxes(made):
        yield made


@pytest.fixture
def at(here: Place) -> Iterator[Place]:
    yield here
    here.clean()


def ask(where: Place, case: Case) -> Refusal:
    """Arrange what stands before, ask, and return the refusal."""
    for path, body in case.before:
        where.put(path, body)
    with pytest.raises(Refusal) as caught:
        where.client.ask(case.verb, where.path(case.path), where.fill(case.body), kind=case.kind, **case.query)
    return caught.value


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_what_is_refused_is_refused_for_its_reason(at: Place, case: Case) -> None:
    error = ask(at, case)
    causes = {(each.get("reason"), each.get("field")) for each in error.causes}
    assert (error.code, error.reason) == (case.code, case.reason), error.message
    assert causes == set(case.fields), error.message
