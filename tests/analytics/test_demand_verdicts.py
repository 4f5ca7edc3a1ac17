"""Does a quota fit what its workspace will want?"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from analytics.demand_verdicts import DemandPolicy, judge_demand
from fleet.errors import BadInput
from fleet.tables import FORECAST, QUOTA
from fleet.verdict import Severity, Verdict

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def forecast(medians: Sequence[float | None], uppers: Sequence[float | None], workspace: str = "a") -> pl.DataFrame:
    rows = [
        {
            "made_at": NOW,
            "cluster": "c",
            "workspace": workspace,
            "ts": NOW + step * HOUR,
            "forecaster": "last_value",
            "gpus": median,
            "gpus_upper_80": upper,
        }
        for step, (median, upper) in enumerate(zip(medians, uppers, strict=True))
    ]
    return pl.DataFrame(rows, schema=FORECAST.schema())


def quota(gpus: float, workspace: str = "a", ends_at: datetime | None = None, pool: str | None = None) -> pl.DataFrame:
    row = {
        "cluster": "c",
        "workspace": workspace,
        "gpus": gpus,
        "pool": pool,
        "starts_at": NOW - HOUR,
        "ends_at": ends_at,
    }
    return pl.DataFrame([row], schema=QUOTA.schema())


def hourly(hours: list[int], workspace: str = "a") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "cluster": ["c"] * len(hours),
            "workspace": [workspace] * len(hours),
            "ts": [NOW - hour * HOUR for hour in hours],
            "running_gpus_mean": [1.0] * len(hours),
        },
        schema_overrides={"ts": pl.Datetime("us", "UTC"), "running_gpus_mean": pl.Float64()},
    )


KNOWN = hourly(list(range(1, 25)))
POLICY = DemandPolicy()


def judge(forecasts: pl.DataFrame, quotas: pl.DataFrame, known: pl.DataFrame = KNOWN) -> Verdict:
    (verdict,) = judge_demand(forecasts, quotas, known, POLICY, NOW)
    return verdict


@pytest.mark.parametrize(
    ("medians", "uppers", "gpus", "state", "gpu_hours"),
    [
        ([4.0, 10.0], [6.0, 12.0], 8.0, "short", 2.0),
        ([4.0, 8.0], [6.0, 12.0], 8.0, "fits", 0.0),
        ([1.0, 2.0], [3.0, 4.0], 8.0, "spare", 9.0),
        ([0.0, 0.0], [0.0, 0.0], 8.0, "spare", 16.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0, "fits", 0.0),
        ([1.0, 2.0], [None, None], 8.0, "fits", 0.0),
    ],
    ids=["peak above quota", "upper end above quota", "upper end below", "zero is a measurement", "zero of zero",
         "no interval is never spare"],
)  # fmt: skip
def test_a_quota_is_held_against_the_forecast(
    medians: list[float | None], uppers: list[float | None], gpus: float, state: str, gpu_hours: float
) -> None:
    verdict = judge(forecast(medians, uppers), quota(gpus))
    assert (verdict.state, verdict.gpu_hours) == (state, gpu_hours)
    assert verdict.evidence["forecast_gpus"] == max(median for median in medians if median is not None)
    assert verdict.evidence["quota_gpus"] == gpus


@pytest.mark.parametrize(
    ("known", "rule"),
    [
        (hourly([]), "too_little_demand_known"),
        (hourly([100]), "too_little_demand_known"),
        (hourly([1000]), "too_little_demand_known"),
    ],
    ids=["no demand", "one hour long ago", "nothing recent"],
)
def test_a_forecast_without_known_demand_behind_it_is_unknown(known: pl.DataFrame, rule: str) -> None:
    verdict = judge(forecast([1.0], [2.0]), quota(8.0), known)
    assert (verdict.state, verdict.rule, verdict.severity) == ("unknown", rule, Severity.UNKNOWN)


def test_an_hour_whose_forecast_is_not_known_makes_the_whole_unknown() -> None:
    assert judge(forecast([1.0, None], [2.0, None]), quota(8.0)).state == "unknown"


def test_a_quota_without_a_forecast_is_unknown_and_a_forecast_without_a_quota_unbounded() -> None:
    assert judge(FORECAST.empty(), quota(8.0)).rule == "no_forecast"
    assert judge(forecast([1.0], [2.0]), QUOTA.empty()).state == "unbounded"


def test_a_quota_that_has_ended_is_no_quota() -> None:
    assert judge(forecast([1.0], [2.0]), quota(8.0, ends_at=NOW)).state == "unbounded"


def test_the_parts_of_a_quota_add_up_and_the_pool_is_told_only_where_there_is_one() -> None:
    both = pl.concat([quota(4.0, pool="x"), quota(4.0, pool="y")])
    verdict = judge(forecast([6.0], [7.0]), both)
    assert verdict.evidence["quota_gpus"] == 8.0
    assert "pool" not in verdict.evidence
    assert judge(forecast([6.0], [7.0]), quota(8.0, pool="x")).evidence["pool"] == "x"


def test_the_window_bounds_what_is_looked_at() -> None:
    far = forecast([1.0, 100.0], [2.0, 100.0])
    (verdict,) = judge_demand(far, quota(8.0), KNOWN, DemandPolicy(window_h=1), NOW)
    assert verdict.state == "spare"


def test_the_order_of_rows_does_not_matter_and_totals_are_left_out() -> None:
    frame = pl.concat([forecast([4.0, 10.0], [6.0, 12.0]), forecast([1.0], [1.0], "*"), forecast([1.0], [2.0], "b")])
    quotas = pl.concat([quota(8.0), quota(2.0, "b")])
    known = pl.concat([KNOWN, hourly([1, 2], "b")])
    verdicts = judge_demand(frame, quotas, known, POLICY, NOW)
    assert [verdict.subject for verdict in verdicts] == ["a", "b"]
    assert judge_demand(frame.reverse(), quotas.reverse(), known.reverse(), POLICY, NOW) == verdicts


@pytest.mark.parametrize("name", ["window_h", "history_h"])
def test_a_window_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=name):
        DemandPolicy(**{name: 0})


def test_an_hour_soon_is_told_by_its_levels_where_all_are_known_and_they_never_cross() -> None:
    wide = {"gpus_lower_95": 1.0, "gpus_lower_80": 2.0, "gpus_upper_95": 5.9}
    ahead = forecast([4.0] * 6 + [90.0], [6.0] * 6 + [99.0]).with_columns(
        pl.lit(value, pl.Float64).alias(name) for name, value in wide.items()
    )
    told = judge(ahead, quota(8.0)).evidence["forecast_quantiles"]
    assert told == {"0.025": 1.0, "0.1": 2.0, "0.5": 4.0, "0.9": 6.0, "0.975": 6.0}
    lost = ahead.with_columns(pl.when(pl.col("ts") > NOW).then(pl.col("gpus_lower_80")).alias("gpus_lower_80"))
    assert "forecast_quantiles" not in judge(lost, quota(8.0)).evidence
    assert "forecast_quantiles" not in judge(forecast([4.0], [6.0]), quota(8.0)).evidence
