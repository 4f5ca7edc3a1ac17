"""Who spent what in the window, why, and how budgets stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import ibis
import polars as pl

from analytics.budgets import Standing, find_standings, latest_forecasts, month_of
from analytics.chargeback import Bill, ShareIdle, bills
from analytics.cost_views import spend, tidy
from analytics.focus import Account, as_text, focus, focus_lines
from dashboards.port import Engine
from dashboards.scope import Scope, latest
from fleet.money_tables import BUDGET, CATEGORIES

_US_PER_HOUR = 3_600_000_000
_TABLES = ("cost_line", "cost_day", "gpu", "node", "pod")


@dataclass(frozen=True, slots=True)
class Whole:
    """The ledger of a window: dollars (None: nothing priced) and GPU-hours by category, and hours without a price."""

    usd: Mapping[str, Decimal | None]
    gpu_hours: Mapping[str, float]
    unpriced_gpu_hours: float

    @property
    def total_usd(self) -> Decimal | None:
        """Return the bill; None where nothing has a price."""
        known = [amount for amount in self.usd.values() if amount is not None]
        return sum(known, Decimal(0)) if known else None


def find_rows(engine: Engine, scope: Scope, by: Sequence[str], *, is_by_node: bool = False) -> pl.DataFrame:
    """Return the ledger's sums by a view, category and place."""
    places = ("cluster", "node") if is_by_node else ("cluster",)
    keys = [*dict.fromkeys([*by, *places])]
    rows = tidy(engine.run(spend(_tables(engine), scope.since, scope.until, keys)), keys)
    return rows if scope.cluster is None else rows.filter(pl.col("cluster") == scope.cluster)


def find_bills(
    engine: Engine, scope: Scope, by: Sequence[str], share_idle: ShareIdle, *, is_by_node: bool = False
) -> list[Bill]:
    """Return what each name of a view pays."""
    rows = find_rows(engine, scope, by, is_by_node=is_by_node)
    return bills(rows, by, share_idle, "node" if is_by_node else "cluster")


def find_whole(engine: Engine, scope: Scope) -> Whole:
    """Return the ledger of the window by category."""
    rows = find_rows(engine, scope, ("category",))
    sums = rows.group_by("category").agg(
        pl.when(pl.col("cost_usd").is_not_null().any()).then(pl.col("cost_usd").sum()).alias("cost_usd"),
        pl.col("gpu_us", "unpriced_us").sum(),
    )
    order = {name: place for place, name in enumerate(CATEGORIES)}
    found = sorted(sums.iter_rows(named=True), key=lambda row: order.get(row["category"], len(order)))
    return Whole(
        {row["category"]: row["cost_usd"] for row in found},
        {row["category"]: row["gpu_us"] / _US_PER_HOUR for row in found},
        sum(row["unpriced_us"] for row in found) / _US_PER_HOUR,
    )


def bill_frame(found: Sequence[Bill], by: Sequence[str]) -> pl.DataFrame:
    """Return bills as a table; money stays exact."""
    rows = [
        {**dict(zip(by, bill.names, strict=True)), "gpu_hours": bill.gpu_us / _US_PER_HOUR, "used_usd": bill.used_usd,
         "allocated_idle_usd": bill.idle_usd, "own_usd": bill.own_usd, "shared_usd": bill.shared_usd,
         "total_usd": bill.total_usd, "efficiency": bill.efficiency,
         "unpriced_gpu_hours": bill.unpriced_us / _US_PER_HOUR}
        for bill in found
    ]  # fmt: skip
    money = dict.fromkeys(("used_usd", "allocated_idle_usd", "own_usd", "shared_usd", "total_usd"), pl.Decimal(18, 6))
    return pl.DataFrame(rows, schema_overrides={**money, "efficiency": pl.Float64()}, infer_schema_length=None)


def explain_bill(engine: Engine, scope: Scope, view: str, name: str) -> pl.DataFrame:
    """Return the lines behind one name of a view of the ledger's own columns: by category, model, rate, corrections."""
    lines = scope.within(engine.table("cost_line"), "starts_at")
    lines = lines.filter(lines[view].isnull() if name.startswith("(") else lines[view] == name)
    gpus = engine.table("gpu").select("gpu", "model")
    joined = lines.left_join(gpus, "gpu").drop("gpu_right")
    joined = joined.mutate(is_correction=joined["adjustment"].coalesce(0) > 0)
    keys = ("category", "resource", "model", "usd_per_gpu_hour", "is_correction")
    grouped = joined.group_by(keys).aggregate(
        lines=joined.count(), gpu_hours=joined["gpu_seconds"].sum() / 3600.0, cost_usd=joined["cost_usd"].sum()
    )
    return engine.run(grouped).sort("cost_usd", descending=True, nulls_last=True)


def find_lines(engine: Engine, scope: Scope, view: str, name: str, limit: int = 200) -> pl.DataFrame:
    """Return the largest lines behind one name."""
    lines = scope.within(engine.table("cost_line"), "starts_at")
    lines = lines.filter(lines[view].isnull() if name.startswith("(") else lines[view] == name)
    joined = lines.left_join(engine.table("gpu").select("gpu", "uuid"), "gpu")
    shown = joined.select(
        "starts_at", "category", "uuid", "workload", "gpu_seconds", "usd_per_gpu_hour", "cost_usd", "adjustment"
    )
    return engine.run(shown.order_by(shown["cost_usd"].desc(), shown["starts_at"]).limit(limit))


def find_budgets(engine: Engine, now: datetime) -> list[Standing]:
    """Return how the budgets of the month of `now` stand."""
    budgets = engine.run(engine.table("budget")).cast(pl.Schema(BUDGET.schema()))
    if budgets.is_empty():
        return []
    start, end = month_of(now)
    spent = tidy(engine.run(spend(_tables(engine), start, end, ["workspace"])), ["workspace"])
    forecasts = engine.run(latest_forecasts({"forecast": engine.table("forecast")}))
    return find_standings(budgets, spent, latest(engine, "cost_line", "ends_at"), now, forecasts)


def focus_csv(engine: Engine, scope: Scope, share_idle: ShareIdle) -> str:
    """Return the window as FOCUS 1.2 CSV."""
    rows = engine.run(focus_lines(_tables(engine), scope.since, scope.until))
    rows = rows if scope.cluster is None else rows.filter(pl.col("cluster") == scope.cluster)
    return as_text(focus(rows, Account(), "none" if share_idle == "none" else "weighted")).write_csv()


def _tables(engine: Engine) -> dict[str, ibis.Table]:
    return {name: engine.table(name) for name in _TABLES}
