"""How many GPUs are wanted, how many are there, and how will that go on?"""

from datetime import timedelta

import ibis
import polars as pl

from dashboards.port import Engine
from dashboards.scope import Scope, latest
from fleet.frames import UTC_MICROSECONDS, conform
from fleet.tables import FORECAST

_DAY = timedelta(days=1)
_SERIES = ("cluster", "workspace", "pool", "model")
_GPUS = ("running_gpus", "pending_gpus", "capacity_gpus")


def find_workspaces(engine: Engine, scope: Scope) -> list[str]:
    """Return the workspaces that demand is known of in the window, sorted."""
    demand = scope.within(engine.table("demand_sample"), "ts")
    return sorted(engine.run(demand.select("workspace").distinct())["workspace"].to_list())


def find_demand(engine: Engine, scope: Scope, workspace: str | None) -> pl.DataFrame:
    """Return ts, running_gpus, pending_gpus, capacity_gpus by the hour (a quarter of it in a window of two days).

    Each series (workspace, pool, model) is averaged over the step, then the series are added up. Steps that
    nothing was recorded in are there with nulls, so that a gap stays a gap.
    """
    step_s = 900 if scope.until - scope.since <= 2 * _DAY else 3600
    demand = scope.within(engine.table("demand_sample"), "ts")
    if workspace is not None:
        demand = demand.filter(demand["workspace"] == workspace)
    demand = demand.mutate(step=demand["ts"].epoch_seconds() // step_s)
    means = demand.group_by("step", *_SERIES).aggregate(**{name: demand[name].mean() for name in _GPUS})
    rows = _without_parts(engine.run(means))
    summed = rows.group_by("step").agg(
        pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name) for name in _GPUS
    )
    return _on_grid(summed, step_s)


def find_forecast(engine: Engine, scope: Scope, workspace: str | None) -> pl.DataFrame:
    """Return the latest forecast of one series; empty where nobody forecast that series.

    Medians of clusters are added up hour by hour where all of them are looked at at once; quantiles do not add up, so
    there is no band then.
    """
    made_at = latest(engine, "forecast", "made_at")
    if made_at is None:
        return FORECAST.empty()
    forecast = engine.table("forecast")
    wanted = forecast.filter(
        forecast["made_at"] == ibis.literal(made_at),
        forecast["workspace"] == ("*" if workspace is None else workspace),
        forecast["pool"].isnull(),
        forecast["model"].isnull(),
    )
    rows = engine.run(wanted.order_by("ts"))
    whole = rows.filter(pl.col("cluster") == (scope.cluster or "*"))
    if not whole.is_empty() or scope.cluster is not None:
        return whole
    return rows if rows["cluster"].n_unique() <= 1 else _added_up(rows)


def _added_up(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the sum over clusters of each hour that all of them were forecast for."""
    clusters = rows["cluster"].n_unique()
    summed = rows.group_by("ts").agg(
        pl.col("made_at").first(),
        pl.col("forecaster").unique().sort().str.join(" and "),
        *(
            pl.when(pl.col(name).is_not_null().sum() == clusters).then(pl.col(name).sum()).alias(name)
            for name in ("gpus", "capacity_gpus")
        ),
    )
    note = f"the medians of {clusters} clusters added up; bands do not add up, choose a cluster to see its own"
    named = summed.with_columns(cluster=pl.lit("*"), workspace=pl.lit(rows["workspace"][0]), note=pl.lit(note))
    return conform(named.sort("ts"), FORECAST, "stored")


def _without_parts(rows: pl.DataFrame) -> pl.DataFrame:
    """Drop the series by pool or model of a workspace that is also told of as a whole."""
    is_whole = pl.col("pool").is_null() & pl.col("model").is_null()
    return rows.filter(is_whole | ~is_whole.any().over("step", "cluster", "workspace"))


def _on_grid(rows: pl.DataFrame, step_s: int) -> pl.DataFrame:
    rows = rows.with_columns(pl.col("step").cast(pl.Int64))
    if not rows.is_empty():
        first, last = rows.select(pl.col("step").min().alias("first"), pl.col("step").max().alias("last")).row(0)
        grid = pl.DataFrame({"step": pl.int_range(first, last + 1, eager=True)})
        rows = grid.join(rows, on="step", how="left").sort("step")
    return rows.select(pl.from_epoch(pl.col("step") * step_s).cast(UTC_MICROSECONDS).alias("ts"), *_GPUS)
