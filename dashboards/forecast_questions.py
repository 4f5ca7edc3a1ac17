"""What was forecast of each series, how wrong such forecasts were, and how likely a limit is passed?"""

from dataclasses import dataclass
from datetime import datetime

import ibis
import polars as pl

from dashboards.port import Engine
from dashboards.scope import latest
from fleet.frames import UTC_MICROSECONDS, Table
from fleet.tables import EXHAUSTION, FORECAST, FORECAST_SCORE, JOB

_KEYS = ("cluster", "workspace", "pool", "model")


@dataclass(frozen=True, slots=True)
class Series:
    """One series: cluster, workspace ("*" = all), pool and model (None = all)."""

    cluster: str
    workspace: str
    pool: str | None
    model: str | None

    def label(self) -> str:
        """Return its name as people read it."""
        where = "All clusters" if self.cluster == "*" else self.cluster
        parts = [name for name in (self.pool, self.model) if name is not None]
        who = [] if self.workspace == "*" else [self.workspace]
        return " / ".join([where, *who, *parts])

    def of(self, table: ibis.Table) -> ibis.Table:
        """Return the rows of this series."""
        for name in _KEYS:
            value = getattr(self, name)
            table = table.filter(table[name].isnull() if value is None else table[name] == value)
        return table

    def covers(self, table: ibis.Table) -> ibis.Table:
        """Return the rows of all parts of this series."""
        for name in _KEYS:
            value = getattr(self, name)
            if value not in {None, "*"}:
                table = table.filter(table[name] == value)
        return table


def find_series(engine: Engine) -> list[Series]:
    """Return the series of the latest forecast, sums of clusters first, then by name."""
    made_at = latest(engine, "forecast", "made_at")
    if made_at is None:
        return []
    forecast = engine.table("forecast")
    rows = engine.run(forecast.filter(forecast["made_at"] == ibis.literal(made_at)).select(*_KEYS).distinct())
    found = [Series(*row) for row in rows.iter_rows()]
    return sorted(found, key=lambda each: (each.workspace != "*", each.pool or "", each.model or "", each.label()))


def find_forecast_of(engine: Engine, series: Series) -> pl.DataFrame:
    """Return the latest forecast of a series, hour by hour."""
    return _latest_of(engine, FORECAST, series).sort("ts")


def find_history_of(engine: Engine, series: Series, days: int) -> pl.DataFrame:
    """Return ts, running_gpus, pending_gpus and capacity_gpus by the hour, up to the last hour that is known."""
    numbers = ("running_gpus", "pending_gpus", "capacity_gpus")
    parts = series.covers(engine.table("demand_sample"))
    hourly = parts.mutate(hour=parts["ts"].epoch_seconds() // 3600)
    means = hourly.group_by(*_KEYS, "hour").aggregate(**{name: hourly[name].mean() for name in numbers})
    rows = engine.run(means).with_columns(ts=pl.from_epoch(pl.col("hour").cast(pl.Int64) * 3600).cast(UTC_MICROSECONDS))
    if rows.is_empty():
        return rows.select("ts", *numbers)
    recent = rows.filter(pl.col("ts") > pl.col("ts").max() - pl.duration(days=days))
    summed = recent.group_by("ts").agg(
        pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name) for name in numbers
    )
    return summed.sort("ts").upsample("ts", every="1h")


def find_scores_of(engine: Engine, series: Series) -> pl.DataFrame:
    """Return the latest scores of all forecasters of a series."""
    return _latest_of(engine, FORECAST_SCORE, series).sort("mase", nulls_last=True)


def find_exhaustion(engine: Engine) -> pl.DataFrame:
    """Return the latest odds that limits are passed, the most likely within a week first."""
    return _latest_of(engine, EXHAUSTION)


def _latest_of(engine: Engine, table: Table, series: Series | None = None) -> pl.DataFrame:
    """Return the rows of a table that were made last, of one series where it is given."""
    made_at = latest(engine, table.name, "made_at")
    if made_at is None:
        return table.empty()
    rows = engine.table(table.name)
    rows = rows if series is None else series.of(rows)
    return engine.run(rows.filter(rows["made_at"] == ibis.literal(made_at)))


def find_jobs(engine: Engine, cluster: str) -> pl.DataFrame:
    """Return the recorded jobs of a cluster."""
    jobs = engine.table("job")
    return engine.run(jobs.filter(jobs["cluster"] == cluster).select(*JOB.names()))


def find_job_clusters(engine: Engine) -> list[str]:
    """Return the clusters that jobs are recorded of, sorted."""
    return sorted(engine.run(engine.table("job").select("cluster").distinct())["cluster"].to_list())


def count_gpus(engine: Engine, cluster: str) -> int:
    """Return the GPUs seen in a cluster, else those its nodes should have; 0 where neither is known."""
    gpus, nodes = engine.table("gpu"), engine.table("node")
    gpus, nodes = gpus.filter(gpus["cluster"] == cluster), nodes.filter(nodes["cluster"] == cluster)
    seen = engine.run(gpus.aggregate(count=gpus.count())).item()
    told = engine.run(nodes.aggregate(count=nodes["gpus"].sum())).item()
    return int(seen or told or 0)


def find_quotas(engine: Engine, cluster: str, now: datetime) -> dict[str, float]:
    """Return the quota (GPUs) in force of each workspace of a cluster that has one."""
    quota = engine.table("quota")
    moment = ibis.literal(now)
    held = quota.filter(
        quota["cluster"] == cluster,
        quota["starts_at"] <= moment,
        quota["ends_at"].isnull() | (quota["ends_at"] > moment),
    )
    rows = engine.run(held.group_by("workspace").aggregate(gpus=held["gpus"].sum()))
    return {str(name): float(gpus) for name, gpus in rows.iter_rows()}


def find_racks(engine: Engine, cluster: str) -> dict[str, float]:
    """Return the GPUs of each rack of a cluster whose nodes tell how many they have."""
    node = engine.table("node")
    known = node.filter(node["cluster"] == cluster, node["rack"].notnull(), node["gpus"] > 0)
    rows = engine.run(known.group_by("rack").aggregate(gpus=known["gpus"].sum()))
    return {str(name): float(gpus) for name, gpus in rows.iter_rows()}
