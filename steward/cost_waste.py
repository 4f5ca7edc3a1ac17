"""What was lost: idle, unhealthy and fragmented hours, waiting, quota that nobody used, GPUs that were slowed down."""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from analytics.cost_views import spend, tidy
from analytics.waste import quota_left, rates, slowed, waiting
from fleet.tables import QUOTA
from steward.compose import House
from steward.cost_desk import RULES, window_of
from steward.report import Report
from store.engine import Engine

_US_PER_HOUR = 3_600_000_000
_HELD = ("used", "allocated_idle", "unknown")
_LOST = ("allocated_idle", "unattributed", "unallocated", "fragmentation", "unhealthy")
_PLACE = ["cluster", "workspace"]


def waste_report(house: House, parameters: Mapping[str, object]) -> Report:
    """Return GPU-hours and dollars lost in a window, by cause and who; waiting and quota are no part of the bill."""
    with house.store.snapshot() as engine:
        since, until = window_of(engine, parameters, house.clock.now())
        spent = tidy(engine.run(spend(engine, since, until, _PLACE)), _PLACE)
        price = rates(spent, ["cluster"])
        items = _of_ledger(spent) + _slowed(engine, since, until)
        hours = (until - since).total_seconds() / 3600
        queues = engine.run(waiting(engine, since, until)).with_columns(gpu_hours=pl.col("waiting_gpus") * hours)
        items += _valued(queues, price, "waiting", "GPUs that were asked for and not given, in the mean of the window")
        held = spent.filter(pl.col("category").is_in(_HELD)).group_by(_PLACE)
        by_holder = held.agg(gpu_hours=pl.col("gpu_us").sum() / _US_PER_HOUR)
        quotas = engine.run(engine.table("quota")).cast(pl.Schema(QUOTA.schema()))
        unused = quota_left(quotas, by_holder, since, until).with_columns(gpu_hours="unused_gpu_hours")
        items += _valued(unused, price, "quota_unused", "guaranteed GPU-hours less those that were held")
    columns = ("cause", "cluster", "workspace", "gpu_hours", "cost_usd", "rule")
    summary = {"since": since, "until": until}
    return Report("WasteReport", until, summary, sorted(items, key=_largest), columns)


def _of_ledger(spent: pl.DataFrame) -> list[dict[str, object]]:
    lost = spent.filter(pl.col("category").is_in(_LOST), pl.col("gpu_us") > 0)
    return [
        {"cause": row["category"], "cluster": row["cluster"], "workspace": row["workspace"],
         "gpu_hours": row["gpu_us"] / _US_PER_HOUR, "cost_usd": row["cost_usd"], "rule": RULES[row["category"]]}
        for row in lost.iter_rows(named=True)
    ]  # fmt: skip


def _slowed(engine: Engine, since: datetime, until: datetime) -> list[dict[str, object]]:
    by = ["cluster", "gpu_uuid"]
    found = engine.run(slowed(engine, since, until)).filter(pl.col("slowed_s") > 0)
    if found.is_empty():
        return []
    gpus = engine.run(engine.table("gpu").select("gpu", "cluster", gpu_uuid="uuid"))
    named = found.join(gpus, on="gpu").with_columns(gpu_hours=pl.col("slowed_s") / 3600)
    price = rates(tidy(engine.run(spend(engine, since, until, by)), by), by)
    joined = named.join(price, on=by, how="left")
    by_cluster = joined.group_by("cluster").agg(
        pl.col("gpu_hours").sum(), usd=(pl.col("gpu_hours") * pl.col("usd_per_gpu_hour")).sum(), gpus=pl.len()
    )
    return [
        {"cause": "throttled", "cluster": row["cluster"], "workspace": None, "gpu_hours": row["gpu_hours"],
         "cost_usd": row["usd"], "rule": f"time that {row['gpus']} GPUs were slowed by power, heat or boost group"}
        for row in by_cluster.iter_rows(named=True)
    ]  # fmt: skip


def _valued(rows: pl.DataFrame, price: pl.DataFrame, cause: str, rule: str) -> list[dict[str, object]]:
    joined = rows.filter(pl.col("gpu_hours") > 0).join(price, on="cluster", how="left")
    valued = joined.with_columns(usd=pl.col("gpu_hours") * pl.col("usd_per_gpu_hour"))
    return [
        {"cause": cause, "cluster": row["cluster"], "workspace": row["workspace"], "gpu_hours": row["gpu_hours"],
         "cost_usd": row["usd"], "rule": f"{rule}; at the cluster's mean price"}
        for row in valued.iter_rows(named=True)
    ]  # fmt: skip


def _largest(item: Mapping[str, object]) -> tuple[float, str, str]:
    hours = item["gpu_hours"]
    return (-hours if isinstance(hours, float) else 0.0, str(item["cause"]), str(item["workspace"]))


QUESTIONS = {"cost-waste": waste_report}
