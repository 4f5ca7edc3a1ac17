"""Say when a workload will likely be used next, from the hours of the last two weeks in which it was.

Working days and weekends are told apart. An hour of the day counts as usual where the workload was active in at least
half of the like days it was held in that hour, on two days at least; without such an hour nothing is expected that is
known of, which is null and not "never".
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables, hour_start

LOOK_BACK = timedelta(days=14)
_LOOK_AHEAD_HOURS = 7 * 24
_DAYS_LEAST = 2
_USUAL = 0.5
_SATURDAY = 5


@dataclass(frozen=True, slots=True)
class NextUse:
    """When a workload is expected to be used next, and how often it was used in such hours (ratio of days)."""

    at: datetime
    chance: float


def use_pattern(tables: Tables, now: datetime) -> ir.Table:
    """Return, for each workload held at `now`, the days it was held and active by hour of day and kind of day.

    Columns: cluster, workload (kind/namespace/name), hour (0 to 23, UTC), is_weekend, day_count, active_day_count.
    """
    since = hour_start(now - LOOK_BACK)
    held = tables["pod_allocation"]
    named = held.mutate(
        name=ibis.coalesce(
            held.workload_kind + "/" + held.namespace + "/" + held.workload,
            ibis.literal("Pod/") + held.namespace + "/" + held.pod,
        )
    )
    is_open = (named.starts_at <= now) & (named.ends_at.isnull() | (named.ends_at > now))
    current = named.filter(is_open).select("cluster", "name").distinct()
    past = named.filter(named.starts_at < now, named.ends_at.isnull() | (named.ends_at > since))
    past = past.semi_join(current, ["cluster", "name"]).select("cluster", "name", "gpu", "starts_at", "ends_at")
    hours = tables["gpu_hour"]
    hours = hours.filter(hours.hour_at >= since, hours.hour_at < now, hours.known_sample_count > 0)
    met = past.join(hours.select("gpu", "hour_at", "active_sample_count"), "gpu")
    met = met.filter(
        met.hour_at >= met.starts_at, met.ends_at.isnull() | (met.hour_at + ibis.interval(hours=1) <= met.ends_at)
    )
    by_hour = met.group_by("cluster", "name", "hour_at").agg(is_active=(met.active_sample_count > 1).any())
    by_hour = by_hour.mutate(hour=by_hour.hour_at.hour(), is_weekend=by_hour.hour_at.day_of_week.index() >= _SATURDAY)
    return (
        by_hour.group_by("cluster", "name", "hour", "is_weekend")
        .agg(day_count=by_hour.count(), active_day_count=by_hour.count(where=by_hour.is_active))
        .rename(workload="name")
    )


def next_uses(pattern: pl.DataFrame, now: datetime) -> dict[tuple[str, str], NextUse]:
    """Return the next usual hour of each (cluster, workload) after `now`, within a week; those without are left out."""
    usual: dict[tuple[str, str], dict[tuple[int, bool], float]] = defaultdict(dict)
    for row in pattern.iter_rows(named=True):
        chance = row["active_day_count"] / row["day_count"]
        if row["day_count"] >= _DAYS_LEAST and chance >= _USUAL:
            usual[row["cluster"], row["workload"]][row["hour"], row["is_weekend"]] = chance
    found = {key: _next(hours, now) for key, hours in usual.items()}
    return {key: use for key, use in found.items() if use is not None}


def _next(hours: Mapping[tuple[int, bool], float], now: datetime) -> NextUse | None:
    first = hour_start(now) + timedelta(hours=1)
    for ahead in range(_LOOK_AHEAD_HOURS):
        at = first + timedelta(hours=ahead)
        chance = hours.get((at.hour, at.weekday() >= _SATURDAY))
        if chance is not None:
            return NextUse(at, chance)
    return None
