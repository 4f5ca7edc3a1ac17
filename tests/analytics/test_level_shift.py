"""A level that changed is told from a burst, from noise and from a gap."""

import numpy as np
import pytest

from analytics.level_shift import LevelShift, find_shift

NAN = float("nan")


def test_a_step_that_stayed_is_found_where_it_was() -> None:
    assert find_shift(np.array([40.0] * 300 + [80.0] * 60)) == LevelShift(60, 40.0, 80.0)
    assert find_shift(np.array([40.0] * 300 + [0.0] * 71)) == LevelShift(71, 40.0, 0.0)


@pytest.mark.parametrize(
    "values",
    [
        np.full(400, 7.0),
        np.zeros(400),
        np.array([5.0] * 300 + [60.0] * 12 + [5.0] * 88),
        np.random.default_rng(1).normal(50, 5, 400),
        np.array([5.0] * 200 + [NAN] * 168 + [5.0] * 32),
        np.array([1.0, 2.0, 3.0]),
        np.full(400, NAN),
    ],
    ids=["constant", "zeros", "a burst", "noise", "a missing week", "three points", "nothing known"],
)
def test_what_is_no_step_is_not_called_one(values: np.ndarray) -> None:
    assert find_shift(values) is None
