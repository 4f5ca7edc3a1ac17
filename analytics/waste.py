"""What money was lost beside idle GPUs: waiting in queues, quota that nobody uses, GPUs that were slowed down."""

from datetime import datetime

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import SECONDS_PER_HOUR, Tables

_SLOWED = (
    "slowed_by_power_cap_s", "slowed_by_sync_boost_s", "slowed_by_software_thermal_s", "slowed_by_hardware_thermal_s",
    "slowed_by_power_brake_s",
)  # fmt: skip
_US_PER_HOUR = 3_600_000_000


def waiting(tables: Tables, since: datetime, until: datetime) -> ir.Table:
    """Return by cluster and workspace the GPUs that waited, in the mean of the window's samples: waiting_gpus."""
    samples = tables["demand_sample"]
    within = samples.filter(samples.ts >= ibis.literal(since), samples.ts < ibis.literal(until))
    is_whole = within.pool.isnull() & within.model.isnull()
    by_moment = within.group_by("cluster", "workspace", "ts").aggregate(
        # A workspace that is told of as a whole is not added to its parts by pool or model.
        pending=ibis.coalesce(within.pending_gpus.sum(where=is_whole), within.pending_gpus.sum())
    )
    return by_moment.group_by("cluster", "workspace").aggregate(waiting_gpus=by_moment.pending.mean())


def slowed(tables: Tables, since: datetime, until: datetime) -> ir.Table:
    """Return by GPU the seconds of the window that it was slowed by power, heat or its boost group; null: not told.

    Counters that go back to zero with the driver count what they grew since; reasons that overlap count by the longest.
    """
    samples = tables["gpu_sample"]
    within = samples.filter(samples.ts >= ibis.literal(since), samples.ts < ibis.literal(until))
    within = within.filter(ibis.or_(*(within[name].notnull() for name in _SLOWED)))
    window = ibis.window(group_by="gpu", order_by="ts")
    grown = within.select(
        "gpu", **{name: within[name] - within[name].lag().over(window) for name in _SLOWED}
    )  # fmt: skip
    sums = grown.group_by("gpu").aggregate(
        **{name: grown[name].sum(where=grown[name] >= 0) for name in _SLOWED}
    )  # fmt: skip
    return sums.select("gpu", slowed_s=ibis.greatest(*(sums[name] for name in _SLOWED)))


def rates(spent: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Return the mean price of a GPU-hour by some columns of tidy rows of `spend`: usd_per_gpu_hour."""
    priced = pl.col("gpu_us") - pl.col("unpriced_us")
    summed = spent.group_by(by).agg(pl.col("cost_usd").sum().cast(pl.Float64), priced.sum().alias("us"))
    known = summed.filter(pl.col("us") > 0)
    return known.select(*by, usd_per_gpu_hour=pl.col("cost_usd") / (pl.col("us") / _US_PER_HOUR))


def quota_left(quotas: pl.DataFrame, held: pl.DataFrame, since: datetime, until: datetime) -> pl.DataFrame:
    """Return by cluster and workspace the GPU-hours of quota that nobody held: guaranteed less held, never below zero.

    `quotas` is the table `quota`, `held` has cluster, workspace and gpu_hours.
    """
    start, end = pl.lit(since), pl.lit(until)
    inside = quotas.filter((pl.col("starts_at") < end) & (pl.col("ends_at").is_null() | (pl.col("ends_at") > start)))
    length = pl.min_horizontal(pl.col("ends_at").fill_null(until), end) - pl.max_horizontal("starts_at", start)
    hours = pl.col("gpus") * length.dt.total_seconds() / SECONDS_PER_HOUR
    granted = inside.group_by("cluster", "workspace").agg(quota_gpu_hours=hours.sum())
    both = granted.join(held, on=["cluster", "workspace"], how="left")
    used = pl.col("gpu_hours").fill_null(0.0)  # no line: held nothing
    return both.with_columns(unused_gpu_hours=(pl.col("quota_gpu_hours") - used).clip(lower_bound=0.0))
