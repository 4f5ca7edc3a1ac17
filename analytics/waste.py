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
SLOWING_BITS = 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80
"""Clock event reasons that slow a GPU (see clock_events.csv): power, heat, brake, group; not idleness or settings."""
_SPEAKS_FOR_S = 300.0
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
    Where a GPU has no counters, its clock event reasons tell: a sample with one of `SLOWING_BITS` speaks for the time
    since the sample before, five minutes at most.
    """
    samples = tables["gpu_sample"]
    within = samples.filter(samples.ts >= ibis.literal(since), samples.ts < ibis.literal(until))
    within = within.filter(ibis.or_(*(within[name].notnull() for name in (*_SLOWED, "clock_event_bits"))))
    window = ibis.window(group_by="gpu", order_by="ts")
    at_s = within.ts.epoch_seconds()
    grown = within.select(
        "gpu",
        "clock_event_bits",
        step_s=(at_s - at_s.lag().over(window)).cast("float64"),
        **{name: within[name] - within[name].lag().over(window) for name in _SLOWED},
    )
    is_slow = (grown.clock_event_bits & SLOWING_BITS) != 0
    spoken = ibis.cases((grown.step_s > _SPEAKS_FOR_S, _SPEAKS_FOR_S), else_=grown.step_s)  # null stays null
    sums = grown.group_by("gpu").aggregate(
        by_bits=ibis.cases((is_slow, spoken), (grown.clock_event_bits.notnull(), 0.0)).sum(),
        **{name: grown[name].sum(where=grown[name] >= 0) for name in _SLOWED},
    )
    counted = ibis.greatest(*(sums[name] for name in _SLOWED))
    return sums.select("gpu", slowed_s=ibis.coalesce(counted, sums.by_bits))


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
