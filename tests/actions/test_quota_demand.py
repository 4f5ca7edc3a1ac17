import math
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions.quota_demand import SCENARIOS, Outlook, outlook_of


def read(evidence: dict[str, object]) -> Outlook:
    found = outlook_of(MappingProxyType(evidence))
    assert isinstance(found, Outlook)
    return found


def test_a_median_and_an_upper_end_are_a_straight_line_of_quantiles() -> None:
    outlook = read({"forecast_gpus": 8, "forecast_upper_gpus": 12.0})
    assert [outlook.at(level) for level in (0.1, 0.5, 0.7, 0.9, 1.0)] == pytest.approx([4, 8, 10, 12, 13])
    assert outlook.scenarios().size == SCENARIOS
    assert outlook.scenarios().mean() == pytest.approx(8)


def test_demand_is_never_below_zero() -> None:
    assert read({"forecast_gpus": 1, "forecast_upper_gpus": 9}).scenarios().min() == 0


def test_quantiles_are_read_where_they_are_told_in_any_order() -> None:
    outlook = read({"forecast_gpus": 5, "forecast_quantiles": {"0.9": 9, "0.1": 4, "0.5": 5}})
    assert (outlook.median, outlook.at(0.3), outlook.at(0.95)) == pytest.approx((5, 4.5, 9.5))


@pytest.mark.parametrize("upper", [None, math.nan, math.inf, -1, 4.9, "9", True], ids=str)
def test_without_an_honest_upper_end_only_the_median_is_known(upper: object) -> None:
    outlook = read({"forecast_gpus": 5, "forecast_upper_gpus": upper})
    assert not outlook.has_spread
    assert set(outlook.scenarios().tolist()) == {5.0}


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ({}, "forecast_gpus is not a number"),
        ({"forecast_gpus": None}, "forecast_gpus is not a number"),
        ({"forecast_gpus": math.inf}, "forecast_gpus is not a number"),
        ({"forecast_gpus": True}, "forecast_gpus is not a number"),
        ({"forecast_gpus": 1, "forecast_quantiles": {"0.5": 3, "0.9": 2}}, "rise with their levels"),
        ({"forecast_gpus": 1, "forecast_quantiles": {"0.5": math.nan}}, "rise with their levels"),
        ({"forecast_gpus": 1, "forecast_quantiles": {"0.5": -1}}, "rise with their levels"),
        ({"forecast_gpus": 1, "forecast_quantiles": {"0": 1}}, "rise with their levels"),
        ({"forecast_gpus": 1, "forecast_quantiles": {"high": 1}}, "rise with their levels"),
        ({"forecast_gpus": 1, "forecast_quantiles": {"nan": 1}}, "rise with their levels"),
        ({"forecast_gpus": 1, "forecast_quantiles": {"0.5": 1, "0.50": 2}}, "rise with their levels"),
        ({"forecast_gpus": 1, "forecast_quantiles": {}}, "rise with their levels"),
        ({"forecast_gpus": 1, "forecast_quantiles": [1, 2]}, "rise with their levels"),
    ],
)
def test_what_is_no_forecast_is_said_to_be_none(evidence: dict[str, object], words: str) -> None:
    found = outlook_of(evidence)
    assert isinstance(found, str)
    assert words in found


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_scenarios_rise_and_their_quantiles_are_those_told(median: float, more: float) -> None:
    outlook = read({"forecast_gpus": median, "forecast_upper_gpus": median + more})
    scenarios = outlook.scenarios()
    assert (np.diff(scenarios) >= -1e-6).all()
    assert outlook.at(0.9) == pytest.approx(median + more)
