import pytest

from dashboards import port
from fleet.errors import BadConfig
from store.store import Store


def test_each_look_has_a_session_of_its_own_and_gives_it_back(full: Store) -> None:
    with port.current() as first, port.current() as second:
        assert first.engine is not second.engine
        assert first.engine.run(first.engine.table("gpu")).height == 16
    assert full.read("gpu").height == 16


def test_without_a_store_it_is_told_how_to_start() -> None:
    port.withdraw()
    with pytest.raises(BadConfig, match="steward serve"), port.current():
        pytest.fail("there is no store")


@pytest.mark.usefixtures("full")
def test_a_store_that_was_withdrawn_is_asked_no_more() -> None:
    port.withdraw()
    with pytest.raises(BadConfig), port.current():
        pytest.fail("there is no store")
