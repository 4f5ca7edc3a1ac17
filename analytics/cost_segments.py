"""The stretches of time that the ledger bills: a GPU, an hour or the part of it with one price, and what it costs."""

import polars as pl

from analytics.prices import with_rates
from fleet.frames import MONEY, UTC_MICROSECONDS

MICROSECONDS_PER_HOUR = 3_600_000_000
_WIDE = pl.Int128()
_OF_GPU = ("uuid", "cluster", "node", "model", "capacity_type", "region")


def cut_at_prices(hours: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `ledger_hours` with each hour cut where any price begins or ends inside it.

    `hour_at` is added first, so that a piece still knows the hour that its activity was counted over.
    """
    rows = hours.with_columns(hour_at=pl.col("starts_at"), hour_ends_at=pl.col("ends_at"))
    moments = pl.concat([prices.get_column("starts_at"), prices.get_column("ends_at")]).drop_nulls().unique().sort()
    if rows.is_empty() or moments.is_empty():
        return rows
    first, last = rows.get_column("starts_at").min(), rows.get_column("ends_at").max()
    for moment in moments.filter(moments.is_between(first, last, closed="none")).to_list():
        at = pl.lit(moment, UTC_MICROSECONDS)
        is_cut = (pl.col("starts_at") < at) & (pl.col("ends_at") > at)
        whole, parts = rows.filter(~is_cut), rows.filter(is_cut)
        if parts.height:
            before, after = parts.with_columns(ends_at=at), parts.with_columns(starts_at=at)
            rows = pl.concat([whole, before, after])
    return rows


def find_segments(rows: pl.DataFrame, prices: pl.DataFrame, unhealthy: pl.DataFrame) -> pl.DataFrame:
    """Return one row a GPU and stretch, numbered by `seg` in order of GPU and time.

    `capacity` and `unhealthy` are microseconds, `rate` and `bill` micro-dollars (an hour; the whole stretch).
    """
    columns = [name for name in _OF_GPU if name in rows.columns]
    segments = rows.select("gpu", "starts_at", "ends_at", *columns).unique(["gpu", "starts_at"], keep="any")
    segments = segments.sort("gpu", "starts_at").with_row_index("seg")
    segments = segments.with_columns(capacity=(pl.col("ends_at") - pl.col("starts_at")).dt.total_microseconds())
    segments = with_rates(segments, prices, "starts_at")
    segments = segments.with_columns(rate=(pl.col("usd_per_gpu_hour") * 1_000_000).cast(pl.Int64))
    segments = segments.join(_unhealthy_time(segments, unhealthy), on="seg", how="left", maintain_order="left")
    return segments.with_columns(
        pl.col("unhealthy").fill_null(0),  # no interval there: no such time
        bill=bill(pl.col("rate")),
    )


def bill(rate: pl.Expr) -> pl.Expr:
    """Return what the stretch `[starts_at, ends_at)` costs at a rate in micro-dollars an hour, in micro-dollars.

    It is the rounded cost up to its end less that up to its start, both since the clock hour began: a whole hour
    costs its rate exactly, and however a stretch is divided, the parts sum to the whole.
    """
    since_hour = (pl.col("starts_at") - pl.col("starts_at").dt.truncate("1h")).dt.total_microseconds()
    until = since_hour + (pl.col("ends_at") - pl.col("starts_at")).dt.total_microseconds()
    is_whole = (since_hour == 0) & (until == MICROSECONDS_PER_HOUR)
    return pl.when(is_whole).then(rate).otherwise((_rounded(rate, until) - _rounded(rate, since_hour)).cast(pl.Int64))


def _rounded(rate: pl.Expr, microseconds: pl.Expr) -> pl.Expr:
    doubled = rate.cast(_WIDE) * microseconds.cast(_WIDE) * 2
    return (doubled + MICROSECONDS_PER_HOUR) // (2 * MICROSECONDS_PER_HOUR)


def _unhealthy_time(segments: pl.DataFrame, unhealthy: pl.DataFrame) -> pl.DataFrame:
    bad = merged(unhealthy.select("gpu_uuid", bad_from="starts_at", bad_until="ends_at"))
    met = segments.select("seg", "uuid", "starts_at", "ends_at").join(bad, left_on="uuid", right_on="gpu_uuid")
    met = met.filter((pl.col("bad_from") < pl.col("ends_at")) & (pl.col("bad_until") > pl.col("starts_at")))
    overlap = pl.min_horizontal("bad_until", "ends_at") - pl.max_horizontal("bad_from", "starts_at")
    return met.group_by("seg").agg(unhealthy=overlap.dt.total_microseconds().sum())


def merged(intervals: pl.DataFrame) -> pl.DataFrame:
    """Return intervals (gpu_uuid, bad_from, bad_until) with overlapping ones of one GPU joined."""
    ordered = intervals.filter(pl.col("bad_from") < pl.col("bad_until")).sort("gpu_uuid", "bad_from", "bad_until")
    reached = pl.col("bad_until").cum_max().shift().over("gpu_uuid")
    island = (reached.is_null() | (pl.col("bad_from") > reached)).cum_sum().over("gpu_uuid")
    grouped = ordered.with_columns(island=island).group_by("gpu_uuid", "island")
    return grouped.agg(pl.col("bad_from").min(), pl.col("bad_until").max()).drop("island")


def to_dollars(micro: str) -> pl.Expr:
    """Return a column of whole micro-dollars as exact money."""
    return (pl.col(micro).cast(pl.Decimal(38, 6)) / 1_000_000).cast(MONEY)
