"""Forecasts: what competes, what is chosen, and intervals that hold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.backtest import (
    LAST_VALUE,
    ORIGINS_MAX,
    Floats,
    back_test,
    choose_origins,
    conformal_offsets,
    coverage,
    roll,
    scaled_error,
)
from analytics.forecast import make_forecasts, refresh
from analytics.forecast_policy import ForecastPolicy, forecasters
from analytics.points import FadingBlend, LastValue, SeasonalNaive
from fleet.errors import BadFrame, BadInput

NOW = datetime(2026, 3, 2, 12, 30, tzinfo=UTC)
HOUR0 = NOW.replace(minute=0)
SMALL = ForecastPolicy(horizon_h=6, history_min_days=1, context_days=10, season_h=24)


def array(*values: float) -> Floats:
    return np.array([values], dtype=np.float64)


NAN = float("nan")


@pytest.mark.parametrize(
    ("forecaster", "values", "expected"),
    [
        (LastValue(), array(1, 2, 3), [3, 3]),
        (LastValue(), array(1, 2, NAN), [2, 2]),
        (LastValue(), array(NAN, NAN), [NAN, NAN]),
        (SeasonalNaive(2, 2), array(1, 2, 3, 4), [3, 4]),
        (SeasonalNaive(2, 2), array(1, 2, NAN, 4), [1, 4]),
        (SeasonalNaive(2, 2), array(NAN, 2, NAN, 4), [4, 4]),
        (SeasonalNaive(4, 2), array(7), [7, 7]),
        (FadingBlend(), array(5, 5, 5), [5, 5]),
        (FadingBlend(), array(0, 0, 0), [0, 0]),
        (FadingBlend(), array(NAN, 4, NAN), [4, 4]),
    ],
    ids=["last", "last before a gap", "nothing known", "season", "season with a gap", "hour never known",
         "shorter than a season", "constant", "zero is a measurement", "gaps have no weight"],
)  # fmt: skip
def test_forecasters_predict_from_what_was_known(forecaster: Any, values: Floats, expected: list[float]) -> None:
    np.testing.assert_allclose(forecaster.fit(values).predict(2)[0], expected)


def test_a_blend_begins_at_the_last_value_and_ends_at_the_mean() -> None:
    values = array(*([0.0] * 500), 100.0)
    made = FadingBlend(fade=24, memory=72).fit(values).predict(400)[0]
    assert 90 < made[0] < 100
    assert made[-1] < 3
    assert (np.diff(made) <= 0).all()


def test_a_back_test_never_sees_what_lies_ahead() -> None:
    seen: list[int] = []

    class Spy(LastValue):
        def fit(self, values: Floats) -> "Spy":
            seen.append(values.shape[-1])
            super().fit(values)
            return self

    origins = choose_origins(100, 5, 48, 24)
    residuals = roll(Spy(), np.arange(100.0)[None], 5, origins)
    assert seen == origins.tolist()
    np.testing.assert_allclose(residuals[0, 0], [1, 2, 3, 4, 5])


@pytest.mark.parametrize("length", [10, 53, 100, 5000])
def test_origins_leave_room_for_training_and_horizon(length: int) -> None:
    origins = choose_origins(length, 5, 48, 24)
    assert origins.size <= ORIGINS_MAX
    assert origins.size == 0 or (origins.min() >= 48 and origins.max() == length - 5)
    assert (origins.size == 0) == (length < 53)


def test_an_error_is_scaled_by_the_reference_over_what_both_were_scored_on() -> None:
    own = np.array([[[1.0], [NAN], [3.0]]])
    other = np.array([[[2.0], [5.0], [2.0]]])
    assert scaled_error(own, other)[0] == 1.0
    assert np.isnan(scaled_error(own * 0, other * 0)[0])
    assert np.isinf(scaled_error(own, other * 0)[0])
    assert scaled_error(own * 0, other)[0] == 0.0


def test_intervals_need_enough_residuals_and_then_hold() -> None:
    generator = np.random.default_rng(5)
    few = conformal_offsets(generator.normal(size=(1, 8, 1)), 0.8)
    assert np.isinf(few[0][0, 0])
    nine = conformal_offsets(np.arange(9.0).reshape(1, 9, 1), 0.8)
    assert (nine[0][0, 0], nine[1][0, 0]) == (0.0, 8.0)
    many = generator.normal(size=(50, 400, 3))
    covered = coverage(many, 0.8, np.arange(400))
    assert abs(float(covered.mean()) - 0.8) < 0.03


def test_a_season_beats_the_last_value_on_seasonal_demand_and_only_there() -> None:
    hours = np.arange(24 * 20)
    seasonal = 50 + 40 * np.sin(hours * 2 * np.pi / 24)
    walk = np.cumsum(np.random.default_rng(3).normal(size=hours.size)) + 100
    scores = back_test(forecasters(SMALL), np.stack([seasonal, walk]), 6, 24)
    assert scores["seasonal_naive"].mase[0] < 0.1
    assert scores["seasonal_naive"].mase[1] > 1.0
    np.testing.assert_allclose(scores[LAST_VALUE].mase, 1.0)


def hourly(values: list[float | None], workspace: str = "a", model: str | None = None, **more: object) -> pl.DataFrame:
    steps = len(values)
    rows = [
        {
            "cluster": "c", "workspace": workspace, "pool": None, "model": model,
            "ts": HOUR0 - timedelta(hours=steps - place), "running_gpus_mean": value, "pending_gpus_mean": 0.0,
            "capacity_gpus_max": 64.0, **more,
        }
        for place, value in enumerate(values)
    ]  # fmt: skip
    texts = dict.fromkeys(("cluster", "workspace", "pool", "model"), pl.String())
    numbers = dict.fromkeys(("running_gpus_mean", "pending_gpus_mean", "capacity_gpus_max"), pl.Float64())
    return pl.DataFrame(rows, schema={**texts, "ts": pl.Datetime("us", "UTC"), **numbers})


def of(frame: pl.DataFrame, workspace: str) -> pl.DataFrame:
    return frame.filter(pl.col("workspace") == workspace, pl.col("pool").is_null(), pl.col("model").is_null()).sort(
        "ts"
    )


def test_each_workspace_and_the_total_get_a_row_an_hour_from_the_hour_in_progress_on() -> None:
    made = make_forecasts(pl.concat([hourly([4.0] * 100), hourly([6.0] * 100, "b")]), SMALL, NOW)
    assert made.height == 3 * 6
    assert of(made, "a").get_column("ts").to_list() == [HOUR0 + timedelta(hours=step) for step in range(6)]
    assert of(made, "*").get_column("gpus").to_list() == [10.0] * 6
    assert of(made, "*").get_column("capacity_gpus").to_list() == [128.0] * 6


def test_demand_is_what_runs_and_what_waits_and_models_of_one_workspace_add_up() -> None:
    parts = [hourly([4.0] * 50, model="x", pending_gpus_mean=3.0), hourly([1.0] * 50, model="y")]
    made = make_forecasts(pl.concat(parts), SMALL, NOW)
    assert of(made, "a").get_column("gpus").to_list() == [8.0] * 6


def test_where_waiting_was_not_measured_the_note_says_so() -> None:
    made = make_forecasts(hourly([4.0] * 50, pending_gpus_mean=None), SMALL, NOW)
    assert "waiting GPUs not measured in 50 of 50 steps" in of(made, "a").row(0, named=True)["note"]


def test_a_part_that_left_is_gone_and_a_part_in_a_gap_is_not_known() -> None:
    left = hourly([2.0] * 40 + [None] * 60, "b")
    gap = hourly([2.0] * 90 + [None] * 10, "b")
    stays = hourly([4.0] * 100)
    assert of(make_forecasts(pl.concat([stays, left]), SMALL, NOW), "*").get_column("gpus")[0] == pytest.approx(
        4.0, abs=0.5
    )
    with_gap = of(make_forecasts(pl.concat([stays, gap]), SMALL, NOW), "*").row(0, named=True)
    assert with_gap["gpus"] == pytest.approx(6.0)
    assert "the last 10 h are not known" in with_gap["note"]


@pytest.mark.parametrize(
    ("values", "gpus"),
    [([7.0], 7.0), ([0.0] * 60, 0.0), ([None] * 60, None), ([5.0] + [None] * 60, 5.0), ([NAN] * 60, None)],
    ids=["one value", "zero is a measurement", "nothing known", "a long gap", "NaN"],
)
def test_little_is_enough_and_nothing_is_nothing(values: list[float | None], gpus: float | None) -> None:
    made = make_forecasts(hourly(values), SMALL, NOW)
    if gpus is None:
        assert made.height == 0
    else:
        assert of(made, "a").get_column("gpus").to_list() == [gpus] * 6


def test_the_hour_in_progress_and_what_lies_ahead_are_not_learnt_from() -> None:
    ahead = hourly([4.0] * 50).with_columns(pl.col("ts") + timedelta(hours=3))
    past = ahead.filter(pl.col("ts") < HOUR0)
    assert make_forecasts(ahead, SMALL, NOW).equals(make_forecasts(past, SMALL, NOW))


def test_the_order_of_rows_does_not_matter() -> None:
    frame = pl.concat([hourly([float(n % 7) for n in range(200)]), hourly([3.0] * 200, "b")])
    assert make_forecasts(frame, SMALL, NOW).equals(make_forecasts(frame.reverse(), SMALL, NOW))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(BadFrame, match="running_gpus_mean"):
        make_forecasts(hourly([1.0]).drop("running_gpus_mean"), SMALL, NOW)


@pytest.mark.parametrize(
    "wrong", [{"horizon_h": 0}, {"step_h": 5}, {"context_days": 3}, {"season_h": 23, "step_h": 2}], ids=str
)
def test_a_policy_that_means_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        ForecastPolicy(**wrong)


@settings(max_examples=25)
@given(st.lists(st.one_of(st.none(), st.floats(0, 500)), min_size=1, max_size=150), st.sampled_from([1, 2, 6]))
def test_medians_are_never_negative_and_lie_within_their_intervals(values: list[float | None], step_h: int) -> None:
    policy = ForecastPolicy(horizon_h=12, history_min_days=1, context_days=10, step_h=step_h)
    made = make_forecasts(hourly(values), policy, NOW)
    assert made.height in {0, 2 * 12 // step_h}
    for row in made.iter_rows(named=True):
        for width in ("80", "95"):
            low, high = row[f"gpus_lower_{width}"], row[f"gpus_upper_{width}"]
            assert (low is None) == (high is None)
            if low is not None:
                assert 0 <= low <= row["gpus"] <= high
        assert row["gpus"] is None or row["gpus"] >= 0


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([7.0] * 400, 7, 7),
        ([0.0] * 400, 0, 0),
        ([0.0] * 200 + [50.0] + [0.0] * 199, 0, 50),
        ([5.0] * 300 + [20.0] * 100, 5, 60),
        ([8.0] * 150 + [None] * 168 + [8.0] * 82, 8, 8),
        ([1.0, 2.0, 3.0], 1, 9),
        ([4.0, NAN] * 200, 4, 4),
    ],
    ids=["constant", "zeros", "one spike", "level shift", "missing week", "three points", "NaN"],
)
def test_odd_histories_neither_fail_nor_explode(values: list[float | None], low: float, high: float) -> None:
    policy = ForecastPolicy(horizon_h=24, context_days=20)
    rows = of(make_forecasts(hourly(values), policy, NOW), "a")
    assert rows.height == 24
    assert rows["gpus"].is_between(low, high).all()
    for end in ("gpus_lower_95", "gpus_upper_95"):
        known = rows[end].drop_nulls()
        assert known.is_between(0, 3 * max(high, 1)).all()


def test_medians_of_workspaces_add_up_to_their_cluster_at_every_hour() -> None:
    generator = np.random.default_rng(5)
    parts = [
        hourly(np.clip(30 + np.cumsum(generator.normal(0, 3, 300)), 0, 90).tolist(), name, model=model)
        for name, model in (("a", "x"), ("b", "x"), ("b", "y"))
    ]
    made = make_forecasts(pl.concat(parts), SMALL, NOW)
    sums = made.filter(pl.col("workspace") != "*", pl.col("model").is_null()).group_by("ts").agg(pl.col("gpus").sum())
    both = of(made, "*").join(sums, on="ts").sort("ts")
    np.testing.assert_allclose(both["gpus"], both["gpus_right"])
    models = made.filter(pl.col("workspace") == "*", pl.col("model").is_not_null())
    np.testing.assert_allclose(models.group_by("ts").agg(pl.col("gpus").sum()).sort("ts")["gpus"], both["gpus"])


def test_scores_of_the_same_day_are_kept_and_those_of_others_are_not() -> None:
    policy = ForecastPolicy(horizon_h=24, context_days=20)
    values = (20 + 10 * np.sin(np.arange(480) * 2 * np.pi / 24)).tolist()
    frame = pl.concat([hourly(values), hourly(values[::-1], "b")])
    first = refresh(frame, policy, NOW)
    assert set(first.scores["forecaster"]) == {LAST_VALUE, "seasonal_naive", "fading_blend", "combination"}
    assert first.scores.filter("is_used").height == 3
    known = first.scores.filter(pl.col("forecaster") == LAST_VALUE)["mase"].drop_nulls().to_list()
    assert known == pytest.approx([1.0] * len(known))
    again = refresh(frame, policy, NOW + timedelta(minutes=5), first.scores)
    assert again.scores.is_empty()
    assert again.forecasts["gpus"].to_list() == pytest.approx(first.forecasts["gpus"].to_list())
    assert not refresh(frame, policy, NOW + timedelta(hours=25), first.scores).scores.is_empty()
    assert not refresh(hourly(values, "c"), policy, NOW, first.scores).scores.is_empty()


def test_where_nothing_beats_the_last_value_the_note_says_so() -> None:
    walk = np.cumsum(np.random.default_rng(3).normal(size=480)) + 500
    row = of(make_forecasts(hourly(walk.tolist()), ForecastPolicy(context_days=20), NOW), "a").row(0, named=True)
    assert (row["forecaster"] == LAST_VALUE) == ("nothing beats the last value" in (row["note"] or ""))
    short = of(make_forecasts(hourly([3.0] * 30), ForecastPolicy(context_days=20), NOW), "a").row(0, named=True)
    assert "history under two weeks" in short["note"]
