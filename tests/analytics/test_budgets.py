"""Where budgets will end: by forecast demand where there is one, else at the rate so far."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from analytics.budgets import Budget, Spent, judge_ended, latest_forecasts, stand
from fleet.clock import FixedClock
from fleet.tables import FORECAST
from store.store import Store

MONTH = datetime(2026, 4, 1, tzinfo=UTC)
NOW = MONTH + timedelta(days=10)
HOUR = timedelta(hours=1)
LEFT = 20 * 24


def forecasts(
    gpus: float | None, workspace: str = "research", cluster: str = "east", at: datetime = NOW
) -> pl.DataFrame:
    rows = [
        {"made_at": at, "cluster": cluster, "workspace": workspace, "ts": NOW + HOUR * hour, "forecaster": "f",
         "gpus": gpus}
        for hour in range(LEFT)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=FORECAST.schema())


def standing(rows: pl.DataFrame | None, usd: str | None = "480") -> tuple[object, ...]:
    spent = Spent(240.0, None if usd is None else Decimal(usd), NOW)
    found = stand(Budget("research", Decimal(2000), 1000.0), spent, NOW, rows)
    return found.basis, found.expected_usd, found.expected_gpu_hours, found.expected_share


def test_without_a_forecast_the_month_goes_on_as_it_did() -> None:
    expected = ("run rate", Decimal("1440.00"), 720.0, pytest.approx(0.72))
    assert standing(None) == expected
    assert standing(FORECAST.empty()) == expected
    assert standing(forecasts(3.0, workspace="serving")) == expected
    assert standing(forecasts(None)) == expected


def test_forecast_gpus_are_charged_at_the_mean_price_of_the_month_so_far() -> None:
    assert standing(forecasts(3.0)) == ("forecast", Decimal("3360.00"), 240.0 + 3 * LEFT, pytest.approx(1.68))


def test_nothing_wanted_any_more_costs_nothing_more() -> None:
    assert standing(forecasts(0.0)) == ("forecast", Decimal("480.00"), 240.0, pytest.approx(0.24))


def test_clusters_add_up_and_a_forecast_of_them_all_is_not_added_to_them() -> None:
    parts = pl.concat([forecasts(1.0), forecasts(2.0, cluster="west")])
    assert standing(parts) == standing(forecasts(3.0))
    assert standing(pl.concat([parts, forecasts(3.0, cluster="*")])) == standing(forecasts(3.0))


def test_dollars_without_any_price_stay_unknown_while_hours_are_forecast() -> None:
    assert standing(forecasts(1.0), usd=None) == ("forecast", None, 240.0 + LEFT, pytest.approx(0.72))


def test_only_the_forecast_made_last_counts() -> None:
    with Store.open(None, clock=FixedClock(NOW)) as store:
        store.append_stored("forecast", pl.concat([forecasts(9.0, at=NOW - HOUR), forecasts(1.0)]))
        rows = store.engine.run(latest_forecasts(store.engine))
    assert rows.get_column("gpus").unique().to_list() == [1.0]


def test_only_a_workspace_without_any_budget_left_is_told_of_as_not_limited() -> None:
    rows = [
        ("gone", NOW - 9 * HOUR, NOW - 5 * HOUR), ("gone", NOW - 5 * HOUR, NOW),
        ("renewed", NOW - 9 * HOUR, NOW - HOUR), ("renewed", NOW - HOUR, None),
        ("ends later", NOW - 9 * HOUR, NOW + HOUR), ("not yet", NOW + HOUR, NOW + 2 * HOUR),
    ]  # fmt: skip
    found = judge_ended(pl.DataFrame(rows, schema=["workspace", "starts_at", "ends_at"], orient="row"), NOW)
    assert [(each.workspace, each.state, each.since) for each in found] == [("gone", "unlimited", NOW)]
