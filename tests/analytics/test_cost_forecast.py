"""The month's end: what is spent and what demand will cost, to the cent."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl

from analytics.cost_forecast import forecast_month_end
from fleet.frames import conform
from fleet.tables import FORECAST

NEXT = datetime(2026, 4, 1, tzinfo=UTC)
NOW = NEXT - timedelta(hours=10)


def rows(hours: int, gpus: float | None, capacity: float | None = None, low: float | None = None) -> pl.DataFrame:
    frame = pl.DataFrame(
        [
            {
                "made_at": NOW, "cluster": "c", "workspace": "w", "ts": NOW + timedelta(hours=place),
                "forecaster": "last_value", "gpus": gpus, "capacity_gpus": capacity, "gpus_lower_80": low,
                "gpus_upper_80": low,
            }
            for place in range(hours)
        ],
        schema={name: FORECAST.schema()[name] for name in (
            "made_at", "cluster", "workspace", "ts", "forecaster", "gpus", "capacity_gpus", "gpus_lower_80",
            "gpus_upper_80",
        )},
    )  # fmt: skip
    return conform(frame, FORECAST, "stored")


RATES = {"w": Decimal("2.50")}
SPENT = {"w": Decimal("100.00")}


def test_what_is_spent_and_what_will_be_add_up() -> None:
    made = forecast_month_end(rows(10, 4.0, low=2.0), RATES, SPENT, NOW, NEXT)[0]
    assert made.usd == Decimal("200.00")
    assert made.usd_lower_80 == made.usd_upper_80 == Decimal("150.00")
    assert made.reaches


def test_hours_beyond_the_forecast_go_on_at_the_last_and_that_is_said() -> None:
    made = forecast_month_end(rows(4, 4.0), RATES, SPENT, NOW, NEXT)[0]
    assert made.usd == Decimal("200.00")
    assert not made.reaches
    assert made.usd_lower_80 is None


def test_more_than_there_is_is_not_charged() -> None:
    assert forecast_month_end(rows(10, 9.0, 4.0), RATES, SPENT, NOW, NEXT)[0].usd == Decimal("200.00")


def test_without_a_rate_or_a_forecast_nothing_is_said() -> None:
    assert forecast_month_end(rows(10, 4.0), {}, SPENT, NOW, NEXT) == []
    assert forecast_month_end(rows(10, None), RATES, SPENT, NOW, NEXT) == []
    assert forecast_month_end(FORECAST.empty(), RATES, SPENT, NOW, NEXT) == []
