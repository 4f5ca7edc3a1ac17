"""Peaks and the odds that they pass a limit."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from analytics.backtest import Floats
from analytics.exhaustion import PeakForecast, PeakPolicy, judge_exhaustion
from analytics.forecast_series import Panel
from fleet.tables import QUOTA

NAN = float("nan")
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def panel(values: Floats, capacity: float | None = 100.0) -> Panel:
    count = values.shape[0]
    series = pl.DataFrame(
        {
            "cluster": ["c"] * count, "workspace": [f"w{place}" for place in range(count)], "pool": [None] * count,
            "model": [None] * count, "capacity_gpus": [capacity] * count, "steps": [values.shape[1]] * count,
            "steps_without_pending": [0] * count,
        },
        schema_overrides={"pool": pl.String(), "model": pl.String(), "capacity_gpus": pl.Float64()},
    )  # fmt: skip
    places = np.arange(count)
    return Panel(series, places, values, tuple((place,) for place in range(count)), np.zeros(count, bool))


def quota(gpus: float, workspace: str = "w0") -> pl.DataFrame:
    row = {"cluster": "c", "workspace": workspace, "gpus": gpus, "starts_at": NOW - timedelta(days=9)}
    return pl.DataFrame([row], schema={name: QUOTA.schema()[name] for name in row}).select(
        *(pl.col(name) if name in row else pl.lit(None, kind).alias(name) for name, kind in QUOTA.schema().items())
    )


def test_a_limit_never_reached_is_safe_and_one_passed_every_day_is_not() -> None:
    values = 50 + 10 * np.sin(np.arange(24 * 40) * 2 * np.pi / 24)[None]
    made = PeakForecast(PeakPolicy(windows_h=(48,))).fit(values)
    assert made.probability_above(np.array([90.0]))[0, 0] == 0
    assert made.probability_above(np.array([55.0]))[0, 0] > 0.9
    assert np.isnan(made.probability_above(np.array([NAN]))[0, 0])


@pytest.mark.parametrize(
    ("row", "low", "high"),
    [
        (np.full(600, 7.0), 7, 7),
        (np.zeros(600), 0, 0),
        (np.array([0.0] * 300 + [50.0] + [0.0] * 299), 0, 50),
        (np.array([5.0] * 400 + [20.0] * 200), 15, 40),
        (np.array([8.0] * 300 + [NAN] * 168 + [8.0] * 132), 8, 8),
        (np.array([1.0, 2.0, 3.0]), NAN, NAN),
        (np.full(600, NAN), NAN, NAN),
    ],
    ids=["constant", "zeros", "one spike", "level shift", "missing week", "three points", "nothing known"],
)
def test_odd_series_give_no_nonsense(row: Floats, low: float, high: float) -> None:
    found = PeakForecast(PeakPolicy(windows_h=(24, 168))).fit(row[None]).quantiles(np.array([0.1, 0.5, 0.9]))
    if np.isnan(low):
        assert np.isnan(found).all()
    else:
        assert found.min() >= 0
        assert low <= np.median(found) <= high
        assert found.max() <= 3 * np.nanmax(row) + 1e-9


def test_a_longer_window_is_never_safer_and_dates_are_in_order() -> None:
    generator = np.random.default_rng(3)
    values = np.clip(50 + np.cumsum(generator.normal(0, 3, (6, 24 * 50)), axis=1), 0, 100)
    odds = judge_exhaustion(panel(values, 90.0), QUOTA.empty(), NOW)
    wide = odds.pivot(on="window_hours", index="workspace", values="probability")
    assert (wide["24"] <= wide["168"]).all()
    assert (wide["168"] <= wide["720"]).all()
    both = odds.drop_nulls(["earliest_at", "likely_at"])
    assert (both["earliest_at"] <= both["likely_at"]).all()
    assert odds["probability"].is_between(0, 1).all()


def test_a_quota_comes_before_the_capacity_and_without_either_nothing_is_said() -> None:
    values = np.tile(40 + np.arange(24 * 30) % 24, (2, 1)).astype(np.float64)
    odds = judge_exhaustion(panel(values), quota(20.0), NOW)
    kinds = dict(odds.select("workspace", "limit_kind").unique().iter_rows())
    assert kinds == {"w0": "quota", "w1": "capacity"}
    assert odds.filter(workspace="w0", window_hours=24)["probability"].item() == 1.0
    assert judge_exhaustion(panel(values, None), quota(20.0), NOW)["workspace"].unique().to_list() == ["w0"]


def test_a_short_history_is_noted() -> None:
    odds = judge_exhaustion(panel(np.full((1, 24 * 5), 3.0)), QUOTA.empty(), NOW)
    assert "history under 14 days: 5.0" in odds["note"][0]
