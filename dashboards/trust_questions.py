"""Can the numbers be trusted: how much was collected, how old is it, what was refused?"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis
import polars as pl

from dashboards.port import Engine
from dashboards.scope import Scope, latest

_MICROSECONDS_PER_HOUR = 3.6e9


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the telemetry of the window is there.

    `samples` of the `samples_expected` in whole hours; `samples_per_hour` is what a GPU usually gives.
    """

    gpus: int
    samples: int
    samples_per_hour: float
    samples_expected: float

    @property
    def ratio(self) -> float:
        """Return samples had over samples expected."""
        return min(1.0, self.samples / self.samples_expected)


def find_coverage(engine: Engine, scope: Scope) -> Coverage | None:
    """Return the coverage of the whole hours of the window; None where there is no telemetry in them.

    What a GPU should give an hour is not a setting but the median of what GPUs gave, so a source of any cadence
    is judged by its own. Every GPU seen in the window is expected from when it was first seen on, silent ones too.
    """
    start, end = _next_hour(scope.since), scope.until.replace(minute=0, second=0, microsecond=0)
    gpu = scope.seen(engine.table("gpu"))
    hours = engine.table("gpu_hour")
    whole = hours.filter(hours["hour_at"] >= ibis.literal(start), hours["hour_at"] < ibis.literal(end)).semi_join(
        gpu, "gpu"
    )
    found = engine.run(whole.aggregate(samples=whole["sample_count"].sum(), usual=whole["sample_count"].median()))
    samples, usual = found.row(0)
    if samples is None or not usual > 0:
        return None
    seen = engine.run(gpu.select("gpu", "first_seen_at"))
    since = pl.max_horizontal(pl.col("first_seen_at"), pl.lit(start))
    waited = ((pl.lit(end) - since).dt.total_microseconds() / _MICROSECONDS_PER_HOUR).clip(0)
    expected = float(usual) * float(seen.select(waited.sum()).item())
    return Coverage(seen.height, int(samples), float(usual), expected) if expected > 0 else None


def _next_hour(moment: datetime) -> datetime:
    floor = moment.replace(minute=0, second=0, microsecond=0)
    return floor if floor == moment else floor + timedelta(hours=1)


def last_sample_at(engine: Engine) -> datetime | None:
    """Return the moment of the newest sample of a GPU or, where there is none, of a queue."""
    return latest(engine, "gpu_sample", "ts") or latest(engine, "demand_sample", "ts")


def find_sources(engine: Engine) -> pl.DataFrame:
    """Return a row per source: read_until, failures, rejected_rows, last_trouble, last_trouble_at.

    Counted over everything that is kept, not over the window: troubles carry the time they were noticed, which
    for a recorded trace is not the time it tells of.
    """
    failure, watermark = engine.table("source_failure"), engine.table("watermark")
    troubles = engine.run(
        failure.group_by("source").aggregate(
            failures=(failure["kind"] == "failed").sum(),
            rejected_rows=failure["row_count"].sum(where=failure["kind"] == "rejected"),
            last_trouble_at=failure["ts"].max(),
            last_trouble=failure["reason"].argmax(failure["ts"]),
        )
    )
    read = engine.run(watermark.select("source", read_until=watermark["ts"]))
    # A source without a row in source_failure had no trouble: that is a count of 0, not an unknown.
    counts = [
        pl.when(pl.col(name).is_null()).then(0).otherwise(pl.col(name)).cast(pl.Int64).alias(name)
        for name in ("failures", "rejected_rows")
    ]
    return (
        read.join(troubles, on="source", how="full", coalesce=True)
        .with_columns(counts)
        .select("source", "read_until", "failures", "rejected_rows", "last_trouble", "last_trouble_at")
        .sort("source")
    )
