import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions.fair_share import Queue, decayed_usage, fair_shares
from fleet.errors import BadInput

whole = st.integers(0, 40).map(float)
queues = st.builds(
    Queue,
    name=st.text("abcdef", min_size=1, max_size=3),
    deserved=st.none() | whole,
    request=whole,
    weight=st.integers(0, 5).map(float),
    limit=st.none() | whole,
    priority=st.integers(0, 2),
    usage=st.floats(0, 1),
)


@given(st.integers(0, 100), st.lists(queues, max_size=7, unique_by=lambda queue: queue.name), st.floats(0, 4))
def test_shares_never_pass_a_request_and_what_is_left_adds_up(total: int, rows: list[Queue], k: float) -> None:
    got = fair_shares(float(total), rows, k)
    deserved = sum(min(total if row.deserved is None else row.deserved, row.requestable) for row in rows)
    assert all(got.by_queue[row.name] <= row.requestable + 1e-9 for row in rows)
    assert sum(got.by_queue.values()) + got.left == pytest.approx(max(total, deserved))
    assert fair_shares(float(total), reversed(rows), k) == got


def test_a_queue_that_used_much_lately_gets_less_of_what_is_over() -> None:
    def two(usage: float, k: float) -> float:
        rows = [Queue("a", 0, 100, usage=usage), Queue("b", 0, 100, usage=0.1)]
        return fair_shares(20, rows, k).by_queue["a"]

    assert two(0.1, 1.0) == 10
    assert two(0.4, 1.0) == 8
    assert two(0.9, 0.0) == 10
    assert two(1.0, 100.0) == 0


def test_a_weight_of_zero_gets_what_it_deserves_and_nothing_more() -> None:
    got = fair_shares(10, [Queue("a", 2, 9, weight=0.0)])
    assert (got.by_queue["a"], got.left) == (2, 8)


def test_an_equal_remainder_goes_to_the_older_queue_then_by_name() -> None:
    old = [Queue("b", 0, 9, created=1.0), Queue("a", 0, 9, created=2.0)]
    assert fair_shares(3, old).by_queue == {"a": 1, "b": 2}
    assert fair_shares(3, [Queue("b", 0, 9), Queue("a", 0, 9)]).by_queue == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"request": math.nan}, "request"),
        ({"request": -1.0}, "request"),
        ({"deserved": math.nan}, "deserved"),
        ({"limit": -1.0}, "limit"),
        ({"weight": math.nan}, "weight"),
    ],
)
def test_amounts_that_are_none_are_refused_by_name(changes: dict[str, float], field: str) -> None:
    with pytest.raises(BadInput, match=field):
        Queue(**{"name": "a", "deserved": 1.0, "request": 1.0, **changes})  # type: ignore[arg-type] # mixed on purpose


def test_a_name_may_not_stand_twice() -> None:
    with pytest.raises(BadInput, match="twice"):
        fair_shares(1, [Queue("a", 1, 1), Queue("a", 1, 1)])


def test_no_hours_are_no_use() -> None:
    assert decayed_usage([], 10.0) == 0.0
