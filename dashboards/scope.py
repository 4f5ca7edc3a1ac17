"""What a page looks at: which stretch of time, which clusters, which turn of the analysis."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis
import polars as pl

from dashboards.port import Engine

# The moment up to which each of these tables tells of the fleet.
_DATA_UNTIL = {"gpu_hour": "hour_at", "demand_sample": "ts", "gpu_sample": "ts", "pod_allocation": "starts_at"}


@dataclass(frozen=True, slots=True)
class Scope:
    """`[since, until)` of the window, the cluster (None = all), and the latest turn (None = none yet)."""

    since: datetime
    until: datetime
    cluster: str | None
    turn: datetime | None

    def within(self, table: ibis.Table, time: str) -> ibis.Table:
        """Return the table's rows of this window and cluster."""
        moment = table[time]
        return self.here(table.filter(moment >= ibis.literal(self.since), moment < ibis.literal(self.until)))

    def here(self, table: ibis.Table) -> ibis.Table:
        """Return the table's rows of this cluster."""
        return table if self.cluster is None else table.filter(table["cluster"] == self.cluster)

    def seen(self, gpu: ibis.Table) -> ibis.Table:
        """Return the GPUs of this cluster that a source told of in the window, or at an unknown time."""
        last = gpu["last_seen_at"]
        return self.here(gpu.filter(last.isnull() | (last >= ibis.literal(self.since))))


def latest(engine: Engine, table: str, column: str) -> datetime | None:
    """Return the greatest value of a time column; None where the table has no rows."""
    found = engine.table(table)
    return moment(engine.run(found.aggregate(latest=found[column].max())))


def moment(frame: pl.DataFrame) -> datetime | None:
    """Return the only cell of a frame as a moment."""
    value = frame.item()
    return value if isinstance(value, datetime) else None


def find_scope(engine: Engine, window: timedelta, cluster: str | None) -> Scope | None:
    """Return the window that ends where the data ends; None where nothing was collected yet.

    It ends at the data and not at the clock, so that a recorded week can be looked at in any year.
    """
    turn = latest(engine, "verdict", "made_at")
    ends = [latest(engine, table, column) for table, column in _DATA_UNTIL.items()]
    known = [end for end in ends if end is not None] or ([] if turn is None else [turn])
    if not known:
        return None
    # One microsecond on, because the window is open at its end and the last row belongs to it.
    until = max(known) + timedelta(microseconds=1)
    return Scope(until - window, until, cluster, turn)


def clusters(engine: Engine) -> list[str]:
    """Return the names of the clusters that any row tells of, sorted."""
    names: set[str] = set()
    for table in ("cluster", "gpu", "node", "demand_sample"):
        rows = engine.table(table)
        names.update(engine.run(rows.select("cluster").distinct())["cluster"].to_list())
    return sorted(names)
