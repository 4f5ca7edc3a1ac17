from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from dashboards import charts
from fleet.tables import FORECAST

START = datetime(2026, 3, 2, tzinfo=UTC)


def series(figure: charts.Figure) -> list[dict[str, Any]]:
    found = figure["series"]
    assert isinstance(found, list)
    return found


def test_a_step_that_is_not_known_has_no_bar_but_its_word() -> None:
    figure: dict[str, Any] = charts.funnel([("In the fleet", 8), ("Healthy", None), ("Held", 0)])
    assert [bar["value"] for bar in series(figure)[0]["data"]] == [8, None, 0]
    assert figure["yAxis"]["data"] == ["In the fleet", "Healthy: unknown", "Held"]


def test_nothing_known_at_all_is_still_a_figure() -> None:
    assert series(charts.funnel([("In the fleet", None)]))[0]["data"][0]["value"] is None


@pytest.mark.parametrize("measure", ["cost_usd", "gpu_hours"])
def test_costs_stack_by_category_in_a_fixed_order(measure: str) -> None:
    amounts = pl.DataFrame(
        {
            "ts": [START, START, START + timedelta(days=1)],
            "category": ["unallocated", "used", "used"],
            "gpu_hours": [1.0, 2.0, 3.0],
            "cost_usd": [Decimal(1), Decimal(2), Decimal(3)],
        }
    )
    figure: dict[str, Any] = charts.costs(amounts, measure)
    assert [each["name"] for each in series(figure)] == ["used", "not held"]
    assert figure["dataset"]["source"].rows() == [("02 Mar", 1.0, 2.0), ("03 Mar", None, 3.0)]


def test_hours_are_labelled_with_their_time() -> None:
    amounts = pl.DataFrame({"ts": [START, START + timedelta(hours=1)], "category": "used", "gpu_hours": 1.0})
    figure: dict[str, Any] = charts.costs(amounts, "gpu_hours")
    assert figure["dataset"]["source"]["ts"].to_list() == ["02 Mar 00:00", "02 Mar 01:00"]


def test_demand_without_a_forecast_draws_no_band() -> None:
    figure = charts.demand(history([1.0, None, 3.0]), FORECAST.empty())
    assert [each["name"] for each in series(figure)] == ["running", "waiting", "capacity"]


def test_a_gap_in_demand_stays_a_gap() -> None:
    figure: dict[str, Any] = charts.demand(history([1.0, None, 3.0]), FORECAST.empty())
    assert figure["dataset"][0]["source"]["running"].to_list() == [1.0, None, 3.0]
    assert all(each["connectNulls"] is False for each in series(figure))


def test_the_band_stands_on_its_lower_edge() -> None:
    row = {"gpus": 12.0, "gpus_lower_80": 10.0, "gpus_upper_80": 15.0, "ts": START}
    future = pl.DataFrame([row], schema_overrides={"ts": pl.Datetime("us", "UTC")})
    figure: dict[str, Any] = charts.demand(history([1.0]), future)
    assert figure["dataset"][1]["source"].rows(named=True) == [
        {"ts": START, "forecast": 12.0, "low": 10.0, "80 % band": 5.0}
    ]
    stacked = [each["name"] for each in series(figure) if each.get("stack") == "band"]
    assert stacked == ["low", "80 % band"]
    assert "low" not in figure["legend"]["data"]


def history(running: list[float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "ts": [START + timedelta(hours=place) for place in range(len(running))],
            "running_gpus": running,
            "pending_gpus": running,
            "capacity_gpus": running,
        }
    )
