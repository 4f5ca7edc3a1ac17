"""What did the GPU-hours of the window cost, and who held the idle ones?"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import ibis
import polars as pl

from dashboards.port import Engine
from dashboards.scope import Scope
from fleet.frames import UTC_MICROSECONDS
from fleet.money_tables import CATEGORIES

__all__ = ["CATEGORIES", "Amount", "find_amounts", "find_amounts_over_time", "find_idle_holders"]

_SECONDS_PER_HOUR = 3600.0
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Amount:
    """GPU-hours and what they cost; `cost_usd` None = none of them has a price, `unpriced_gpu_hours` those without."""

    gpu_hours: float
    cost_usd: Decimal | None
    unpriced_gpu_hours: float


def find_amounts(engine: Engine, scope: Scope) -> dict[str, Amount]:
    """Return the ledger of the window by category; empty where there is none."""
    lines = scope.within(engine.table("cost_line"), "starts_at")
    rows = engine.run(_summed(lines, "category"))
    return {
        row["category"]: Amount(row["gpu_hours"], row["cost_usd"], row["unpriced_gpu_hours"] or 0.0)
        for row in rows.iter_rows(named=True)
    }


def find_amounts_over_time(engine: Engine, scope: Scope) -> pl.DataFrame:
    """Return ts, category, gpu_hours, cost_usd: by day, or by hour where the window is two days at most."""
    step_s = 3600 if scope.until - scope.since <= 2 * _DAY else 86400
    lines = scope.within(engine.table("cost_line"), "starts_at")
    lines = lines.mutate(step=lines["starts_at"].epoch_seconds() // step_s)
    rows = engine.run(_summed(lines, "step", "category"))
    return rows.select(
        pl.from_epoch(pl.col("step").cast(pl.Int64) * step_s).cast(UTC_MICROSECONDS).alias("ts"),
        "category",
        "gpu_hours",
        "cost_usd",
    ).sort("ts", "category")


def find_idle_holders(engine: Engine, scope: Scope, limit: int = 8) -> pl.DataFrame:
    """Return workspace, gpu_hours, cost_usd of what was held and idle, the most hours first."""
    lines = scope.within(engine.table("cost_line"), "starts_at")
    idle = lines.filter(lines["category"] == "allocated_idle")
    rows = engine.run(_summed(idle, "workspace"))
    named = rows.with_columns(pl.col("workspace").fill_null("(no workspace)"))
    return named.select("workspace", "gpu_hours", "cost_usd").sort("gpu_hours", descending=True).head(limit)


def _summed(lines: ibis.Table, *keys: str) -> ibis.Table:
    seconds = lines["gpu_seconds"]
    return lines.group_by(*keys).aggregate(
        gpu_hours=seconds.sum() / _SECONDS_PER_HOUR,
        cost_usd=lines["cost_usd"].sum(),
        unpriced_gpu_hours=seconds.sum(where=lines["cost_usd"].isnull()) / _SECONDS_PER_HOUR,
    )
