"""How does each source do, and of which node in which hour are samples missing?"""

from datetime import datetime, timedelta

import ibis
import polars as pl

from analytics.source_hints import hint
from analytics.telemetry import (
    NOT_SOURCES,
    Policy,
    by_group,
    coverage,
    judge_sources,
    samples_by_gpu,
    troubles_by_source,
)
from dashboards.port import Engine
from dashboards.scope import Scope
from fleet.frames import UTC_MICROSECONDS

_TABLES = ("gpu", "gpu_sample", "source_gpu", "source_failure")
MOST_NODES = 40
_HEAT = {"cluster": pl.String(), "node": pl.String(), "hour_at": UTC_MICROSECONDS, "ratio": pl.Float64()}


def find_covered(engine: Engine, now: datetime) -> pl.DataFrame:
    """Return each GPU's samples of the last hour, those expected and their ratio, by source."""
    since = now - Policy().window
    return coverage(engine.run(samples_by_gpu(_tables(engine), since, now)), since, now)


def find_states(engine: Engine, covered: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Return a row per source that was ever read or told a trouble: as `judge_sources`, with a hint."""
    watermark = engine.table("watermark")
    marks = engine.run(watermark.select("source", read_until=watermark["ts"]))
    troubles = engine.run(troubles_by_source(_tables(engine), now - timedelta(days=1)))
    names = pl.concat([marks.select("source"), troubles.select("source")]).unique()
    there = names.filter(~pl.col("source").is_in(list(NOT_SOURCES))).join(marks, on="source", how="left")
    judged = judge_sources(there, troubles, covered, Policy(), now)
    hints = [hint(*row) for row in judged.select("source", "state", "last_error").iter_rows()]
    return judged.with_columns(pl.Series("hint", hints, pl.String()))


def find_gaps(covered: pl.DataFrame) -> pl.DataFrame:
    """Return the nodes that gave less than they should in the last hour, the worst first."""
    nodes = by_group(covered, "source", "cluster", "node")
    return nodes.filter(pl.col("ratio") < Policy().partial_below).sort("ratio", "cluster", "node")


def find_heat(engine: Engine, scope: Scope) -> pl.DataFrame:
    """Return coverage by cluster, node and hour of the window: columns cluster, node, hour_at, ratio.

    An hour's GPUs should each give what GPUs usually give in an hour; an hour without a sample is 0, and one before
    a node's first GPU was seen is not there. Only the worst nodes where there are many.
    """
    gpu = scope.seen(engine.table("gpu")).select("gpu", "cluster", "node", "first_seen_at")
    hours = engine.table("gpu_hour")
    start, end = _whole(scope.since) + timedelta(hours=1), _whole(scope.until)
    within = hours.filter(hours["hour_at"] >= ibis.literal(start), hours["hour_at"] < ibis.literal(end))
    counted = engine.run(within.semi_join(gpu, "gpu").select("gpu", "hour_at", "sample_count"))
    if counted.is_empty():
        return pl.DataFrame(schema=_HEAT)
    usual = pl.lit(counted.get_column("sample_count").median())
    moments = pl.datetime_range(start, end, "1h", closed="left", eager=True).cast(UTC_MICROSECONDS)
    is_there = pl.col("first_seen_at").is_null() | (pl.col("first_seen_at") < pl.col("hour_at") + timedelta(hours=1))
    wanted = engine.run(gpu).join(pl.DataFrame({"hour_at": moments}), how="cross").filter(is_there)
    # An hour of a GPU without a row had no samples: that is a count of 0, not an unknown.
    had = pl.when(pl.col("sample_count").is_null()).then(0).otherwise(pl.min_horizontal("sample_count", usual)).sum()
    cells = (
        wanted.join(counted, on=["gpu", "hour_at"], how="left")
        .group_by("cluster", "node", "hour_at")
        .agg(ratio=had / (pl.len() * usual))
    )
    nodes = cells.group_by("cluster", "node").agg(pl.col("ratio").mean())
    worst = nodes.sort("ratio", "cluster", "node").head(MOST_NODES)
    return cells.join(worst, on=["cluster", "node"], how="semi").sort("cluster", "node", "hour_at")


def _tables(engine: Engine) -> dict[str, ibis.Table]:
    return {name: engine.table(name) for name in _TABLES}


def _whole(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
