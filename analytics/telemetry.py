"""Telemetry about telemetry: how late each source is, how much of what it should give came, what it refused and lost.

What a source should give is told by its own cadence: the middle gap between samples of its GPUs. An outage makes no
cadence longer, so it shows as samples that are missing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables

# What was not seen for a day is taken for gone, and is no longer expected.
EXPECTED_FOR = timedelta(days=1)
# So many GPUs of a source, those with the most samples, tell its cadence.
_TELL_CADENCE = 64
# What keeps a watermark or tells troubles in the store and is no source of telemetry.
NOT_SOURCES = frozenset({"gpu-steward", "identity", "prices", "upkeep"})


@dataclass(frozen=True, slots=True)
class Policy:
    """From when on a source is late, and below which coverage ratio it is called partial."""

    window: timedelta = timedelta(hours=1)
    late_after: timedelta = timedelta(minutes=15)
    partial_below: float = 0.9


def samples_by_gpu(tables: Tables, since: datetime, until: datetime) -> ir.Table:
    """Return what each source gave of each GPU in `[since, until)`.

    Columns: source, gpu, uuid, cluster, node, first_seen_at (by this source), samples (null = none), gap_s (the middle
    gap between two, of the source's GPUs with the most samples). A GPU that no source told of for a day before `until`
    is not there.
    """
    sample = tables["gpu_sample"]
    here = sample.filter(sample.ts >= ibis.literal(since), sample.ts < ibis.literal(until)).select("gpu", "ts")
    counted = here.group_by("gpu").aggregate(samples=here.count())
    by_source = tables["source_gpu"].inner_join(counted, "gpu")
    place = ibis.row_number().over(ibis.window(group_by=by_source.source, order_by=by_source.samples.desc()))
    fullest = by_source.mutate(place=place).filter(lambda row: row.place < _TELL_CADENCE).select("gpu").distinct()
    timed = here.semi_join(fullest, "gpu")
    at_s = timed.ts.epoch_seconds()
    before_s = at_s.lag().over(ibis.window(group_by=timed.gpu, order_by=timed.ts))
    gaps = timed.mutate(gap_s=at_s - before_s).group_by("gpu").aggregate(gap_s=lambda row: row.gap_s.median())
    gpu = tables["gpu"]
    expected = gpu.filter(gpu.last_seen_at.isnull() | (gpu.last_seen_at >= ibis.literal(until - EXPECTED_FOR)))
    told = tables["source_gpu"].inner_join(expected.select("gpu", "uuid", "cluster", "node"), "gpu")
    columns = ("source", "gpu", "uuid", "cluster", "node", "first_seen_at", "samples", "gap_s")
    return told.left_join(counted, "gpu").drop("gpu_right").left_join(gaps, "gpu").select(*columns)


def coverage(by_gpu: pl.DataFrame, since: datetime, until: datetime) -> pl.DataFrame:
    """Add `expected` samples and the coverage `ratio` (at most 1) to rows of `samples_by_gpu`.

    Each source is held to its own cadence; one that gave no two samples of any GPU in the window has none, and null
    says that nobody knows. A GPU is expected from its first sample on.
    """
    cadence_s = pl.col("gap_s").filter(pl.col("gap_s") > 0).median().over("source")
    begin = pl.max_horizontal("first_seen_at", pl.lit(since))
    lasted_s = ((pl.lit(until) - begin).dt.total_microseconds() / 1e6).clip(0)
    got = pl.when(pl.col("samples").is_null()).then(0).otherwise(pl.col("samples"))
    counted = by_gpu.with_columns(samples=got, expected=lasted_s / cadence_s)
    ratio = (pl.col("samples") / pl.when(pl.col("expected") >= 1).then("expected")).clip(0, 1)
    return counted.with_columns(ratio=ratio)


def by_group(covered: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """Return coverage summed by `keys`: gpus, samples, expected and their ratio (at most 1; null = unknown)."""
    known = pl.col("ratio").is_not_null()
    capped = pl.min_horizontal("samples", "expected").filter(known).sum()
    total = pl.col("expected").filter(known).sum()
    return covered.group_by(*keys).agg(
        pl.len().alias("gpus"),
        pl.col("samples").sum(),
        total.alias("expected"),
        pl.when(total > 0).then(capped / total).alias("ratio"),
    ).sort(*keys)  # fmt: skip


def troubles_by_source(tables: Tables, since: datetime) -> ir.Table:
    """Return what each source failed to give since a moment: failures, rejected_rows, last_error (a failure first)."""
    failure = tables["source_failure"]
    here = failure.filter(failure.ts >= ibis.literal(since), failure.kind != "noticed")
    return here.group_by("source").aggregate(
        failures=(here.kind == "failed").sum(),
        rejected_rows=here.row_count.sum(where=here.kind == "rejected"),
        last_error_at=ibis.coalesce(here.ts.max(where=here.kind == "failed"), here.ts.max()),
        last_error=ibis.coalesce(here.reason.argmax(here.ts, where=here.kind == "failed"), here.reason.argmax(here.ts)),
        last_failed_at=here.ts.max(where=here.kind == "failed"),
    )


def judge_sources(
    marks: pl.DataFrame, troubles: pl.DataFrame, covered: pl.DataFrame, policy: Policy, now: datetime
) -> pl.DataFrame:
    """Return a row per source: state, lag_s, coverage, failures, rejected_rows, last_error, last_error_at.

    `marks` has source and read_until (null: never read) of all sources there should be. States: never_read, failing
    (the last failure is after what was read), late, partial, ok.
    """
    totals = by_group(covered, "source").select("source", coverage="ratio")
    joined = marks.join(troubles, on="source", how="left").join(totals, on="source", how="left")
    lag_s = (pl.lit(now) - pl.col("read_until")).dt.total_microseconds() / 1e6
    is_failing = (pl.col("last_failed_at") > pl.col("read_until")) | (
        pl.col("read_until").is_null() & pl.col("last_failed_at").is_not_null()
    )
    state = (
        pl.when(is_failing)
        .then(pl.lit("failing"))
        .when(pl.col("read_until").is_null())
        .then(pl.lit("never_read"))
        .when(lag_s > policy.late_after.total_seconds())
        .then(pl.lit("late"))
        .when(pl.col("coverage") < policy.partial_below)
        .then(pl.lit("partial"))
        .otherwise(pl.lit("ok"))
    )
    # A source without a row of troubles had none: that is a count of 0, not an unknown.
    counts = [
        pl.when(pl.col(name).is_null()).then(0).otherwise(pl.col(name)).cast(pl.Int64).alias(name)
        for name in ("failures", "rejected_rows")
    ]
    return (
        joined.with_columns(state=state, lag_s=lag_s)
        .with_columns(counts)
        .select("source", "state", "lag_s", "coverage", "failures", "rejected_rows", "last_error", "last_error_at")
        .sort("source")
    )
