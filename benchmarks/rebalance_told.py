"""Who tells the demand ahead in `rebalance.py`: the past alone, the product's own analysis, or perfect foresight.

A teller takes the hour and the quotas of then, and gives the demand verdicts of every pool, by workspace.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from actions.quota_demand import Floats
from analytics.demand_verdicts import SOON_H, DemandPolicy, judge_demand
from analytics.forecast import refresh
from analytics.forecast_policy import ForecastPolicy
from benchmarks.rebalance_fleets import LEVELS, Pool, forecast
from benchmarks.rebalance_verdicts import demand_verdict
from fleet.frames import conform
from fleet.tables import QUOTA
from fleet.verdict import Verdict

NOW = datetime(2026, 3, 2, tzinfo=UTC)
HISTORY = 168
Told = list[list[Verdict]]
Teller = Callable[[int, Sequence[Floats]], Told]
_HOUR, _DAY_H = timedelta(hours=1), 24


def by_analogues(pools: Sequence[Pool], every: int) -> Teller:
    """Return who tells what followed the hours of the last week that were most like now."""

    def tell(hour: int, _quotas: Sequence[Floats]) -> Told:
        ahead = max(SOON_H, every)
        return [_told(pool, forecast(pool.demand[:, hour - HISTORY : hour], ahead), hour) for pool in pools]

    return tell


def by_foresight(pools: Sequence[Pool], every: int) -> Teller:
    """Return who tells what the hours until the next turn will want."""

    def tell(hour: int, _quotas: Sequence[Floats]) -> Told:
        return [_told(pool, np.quantile(pool.demand[:, hour : hour + every], LEVELS, axis=1).T, hour) for pool in pools]

    return tell


def by_analysis(pools: Sequence[Pool], _every: int) -> Teller:
    """Return who tells what `steward analyse` would, from all hours before; its back-test is made once a day."""
    hourly = pl.concat([_hourly(pool, place) for pool in pools for place in range(len(pool.workspaces))])
    scores: list[pl.DataFrame] = []

    def tell(hour: int, quotas: Sequence[Floats]) -> Told:
        now = NOW + hour * _HOUR
        known = hourly.filter(pl.col("ts") < now)
        made = refresh(known, ForecastPolicy(), now, scores[-1] if scores and hour % _DAY_H != 0 else None)
        if not made.scores.is_empty():
            scores.append(made.scores)
        granted = conform(pl.concat([_granted(*pair, now) for pair in zip(pools, quotas, strict=True)]), QUOTA)
        verdicts = judge_demand(made.forecasts, granted, known, DemandPolicy(), now)
        found = {(verdict.cluster, verdict.subject): verdict for verdict in verdicts}
        return [[found[pool.name, workspace] for workspace in pool.workspaces] for pool in pools]

    return tell


TELLERS = {"analogues": by_analogues, "analysis": by_analysis, "foresight": by_foresight}


def _told(pool: Pool, quantiles: Floats, hour: int) -> list[Verdict]:
    pairs = zip(pool.workspaces, quantiles, strict=True)
    return [demand_verdict(pool.name, workspace, levels, NOW + hour * _HOUR) for workspace, levels in pairs]


def _hourly(pool: Pool, place: int) -> pl.DataFrame:
    hours = pool.demand.shape[1]
    last = NOW + (hours - 1) * _HOUR
    return pl.DataFrame(
        {
            "ts": pl.datetime_range(NOW, last, "1h", time_unit="us", time_zone="UTC", eager=True),
            "running_gpus_mean": pool.demand[place],
            "pending_gpus_mean": np.zeros(hours),
        }
    ).with_columns(
        cluster=pl.lit(pool.name),
        workspace=pl.lit(pool.workspaces[place]),
        pool=pl.lit(None, dtype=pl.String),
        model=pl.lit(None, dtype=pl.String),
        capacity_gpus_max=pl.lit(float(pool.quotas.sum())),
    )


def _granted(pool: Pool, quotas: Floats, now: datetime) -> pl.DataFrame:
    rows = pl.DataFrame({"workspace": pool.workspaces, "gpus": quotas, "borrowing_gpus": pool.borrowing})
    return rows.with_columns(cluster=pl.lit(pool.name), starts_at=pl.lit(now).dt.cast_time_unit("us"))
