from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions.quota_check import Standing, why_unsound

CALM = [Standing("a", 3, 10, 6), Standing("b", 4, 4, 8)]


def test_quota_that_is_not_held_may_go() -> None:
    assert why_unsound(CALM) is None


@pytest.mark.parametrize(
    ("standings", "words"),
    [
        ([Standing("a", 3, 10, 6), Standing("b", 4, 4, 5)], "would not sum to what they do"),
        ([Standing("a", 3, 10, 8), Standing("b", 4, 4, 8)], "would not sum to what they do"),
        ([Standing("a", 7, 10, 6), Standing("b", 4, 4, 8)], "workspace a would borrow more"),
        ([Standing("a", 7, 6, 5), Standing("b", 0, 4, 5)], "workspace a would borrow more"),
        (
            [Standing("a", 5, 5, 6), Standing("b", 10, 0, 0), Standing("c", 0, 7, 6, weight=5.0)],
            None,
        ),
        (
            # what b borrows of c's spare quota is covered by its fair share, until a is given that quota
            [Standing("a", 12, 5, 9), Standing("b", 2, 0, 0), Standing("c", 0, 5, 1)],
            "running work of workspace b would pass its fair share",
        ),
    ],
    ids=["less than there is", "more than there is", "held", "borrowed already", "lent as before", "over-admitted"],
)
def test_a_change_that_would_touch_running_work_is_told(standings: list[Standing], words: str | None) -> None:
    found = why_unsound(standings)
    assert found is None if words is None else found is not None and words in found


held = st.floats(0, 20)
standings = st.lists(st.tuples(held, st.integers(0, 20), st.integers(-5, 5)), min_size=1, max_size=5).map(
    lambda rows: [
        Standing(f"w{place}", gpus, float(quota), float(max(0, quota + change)))
        for place, (gpus, quota, change) in enumerate(rows)
    ]
)


@given(standings)
def test_who_gives_what_it_holds_is_always_told(rows: list[Standing]) -> None:
    gives = any(each.held > each.after + 1e-6 and each.after < each.before for each in rows)
    is_kept = sum(each.after for each in rows) == sum(each.before for each in rows)
    if gives or not is_kept:
        assert why_unsound(rows) is not None


@given(standings)
def test_what_stays_as_it_is_is_sound(rows: list[Standing]) -> None:
    assert why_unsound([replace(each, after=each.before) for each in rows]) is None
