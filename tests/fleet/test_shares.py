"""The law of shared devices: the parts never sum to more than the device did, and nobody measured is made up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.shares import split_activity

RATIOS = st.floats(0.0, 1.0)


@pytest.mark.parametrize(
    ("activity", "own", "parts"),
    [
        pytest.param(0.99, [None] * 4, [0.2475] * 4, id="four pods that nobody measured share 99 %"),
        pytest.param(0.99, [0.99] * 4, [0.2475] * 4, id="four pods that each carry the device's value"),
        pytest.param(0.9, [0.3, 0.1], [0.3, 0.1], id="what is known stays, the rest is nobody's"),
        pytest.param(0.9, [0.3, None, None], [0.3, 0.3, 0.3], id="the rest goes to those not measured"),
        pytest.param(0.0, [None, None], [0.0, 0.0], id="a device at rest is at rest for all"),
        pytest.param(0.5, [0.0, None], [0.0, 0.5], id="zero is a measurement"),
        pytest.param(0.0, [0.4, None], [0.0, 0.0], id="a device at rest had no busy process"),
        pytest.param(None, [0.4, None], [0.4, None], id="a device that was not measured"),
        pytest.param(0.5, [], [], id="nobody"),
    ],
)
def test_a_device_is_split_over_its_holders(
    activity: float | None, own: list[float | None], parts: list[float | None]
) -> None:
    found = split_activity(activity, dict(enumerate(own)))
    assert [each if each is None else round(each, 9) for each in found.values()] == parts


@given(activity=RATIOS, own=st.lists(st.none() | RATIOS))
def test_the_parts_never_sum_to_more_than_the_device(activity: float, own: list[float | None]) -> None:
    parts = split_activity(activity, dict(enumerate(own)))
    measured = [each for each in parts.values() if each is not None]
    assert len(measured) == len(own)
    assert all(each >= 0 for each in measured)
    assert sum(measured) <= activity + 1e-9


@given(activity=RATIOS, count=st.integers(1, 50))
def test_what_nobody_measured_is_split_evenly_and_whole(activity: float, count: int) -> None:
    parts = split_activity(activity, dict.fromkeys(range(count)))
    measured = [each for each in parts.values() if each is not None]
    assert max(measured) - min(measured) < 1e-12
    assert math.isclose(sum(measured), activity, abs_tol=1e-9)
