"""The analysis of one moment: every question, its policy, its verdicts and the frames to be kept."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

import polars as pl

from analytics.activity import SECONDS_PER_HOUR
from analytics.cost import summarise
from analytics.demand import hourly_demand
from analytics.demand_verdicts import judge_demand
from analytics.exhaustion import judge_exhaustion
from analytics.forecast import Refresh, panel_of, refresh
from analytics.forecast_scores import KEPT_FOR
from analytics.idle import Prior, judge_idle
from analytics.idle_signals import idle_signals
from analytics.prices import priced_gpus, rates_by_uuid
from analytics.queues import demand_report, job_report
from fleet.frames import MONEY
from fleet.models import idle_power_w
from fleet.verdict import Verdict, verdict_frame
from steward.booking import charge
from steward.compose import House
from steward.cost_desk import budget_verdicts
from steward.health_turn import judge_fleet_health
from steward.packing_turn import packing_verdicts, pool_verdicts


@dataclass(frozen=True, slots=True)
class Findings:
    """Verdicts, and the frames (in stored form) that an analysis adds to the store."""

    now: datetime
    verdicts: tuple[Verdict, ...]
    frames: Mapping[str, pl.DataFrame]
    unpriced_gpus: int = 0
    facts: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    items: tuple[Mapping[str, object], ...] = ()
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge(house: House, now: datetime) -> Findings:
    """Ask all questions of one moment."""
    engine, settings = house.store.engine, house.settings
    signals = engine.run(idle_signals(engine, now, settings.idle))
    prior = prior_of(house, now)
    idle = judge_idle(signals, settings.idle, now, prior)
    health = judge_fleet_health(engine, settings, prior.usd_per_gpu_hour, now)
    since = now - timedelta(days=settings.forecast.context_days)
    hourly = engine.run(hourly_demand(engine, since, now))
    made = refresh(hourly, settings.forecast, now, recent_scores(house, now))
    forecasts = made.forecasts
    demand = judge_demand(forecasts, house.store.read("quota"), hourly, settings.demand, now)
    verdicts = (
        *idle,
        *health.verdicts,
        *demand,
        *budget_verdicts(house, now),
        *_capacity(house, health.verdicts, now),
    )
    frame = verdict_frame(verdicts)
    frames = {
        "verdict": frame,
        "risk": health.risk,
        "forecast": forecasts,
        **_records(house, made, hourly, now),
        "cost_line": charge(house, frame, now),
    }
    unpriced = house.store.read("gpu").height - len(prior.usd_per_gpu_hour)
    report = demand_report(hourly)
    jobs = engine.run(job_report(engine))
    facts, notes = _facts(house, frames, report, jobs), _notes(frames["forecast"])
    return Findings(now, verdicts, frames, unpriced, facts, _items(report, jobs), COLUMNS, notes)


def _capacity(house: House, health: Iterable[Verdict], now: datetime) -> list[Verdict]:
    failed = [each.subject for each in health if each.subject_kind == "gpu" and each.state in {"failing", "failed"}]
    return [*packing_verdicts(house, now, failed), *pool_verdicts(house, now)]


def recent_scores(house: House, now: datetime) -> pl.DataFrame:
    """Return the scores of forecasters that may still hold."""
    engine = house.store.engine
    scores = engine.table("forecast_score")
    return engine.run(scores.filter(scores.made_at > now - KEPT_FOR, scores.made_at <= now))


def _records(house: House, made: Refresh, hourly: pl.DataFrame, now: datetime) -> dict[str, pl.DataFrame]:
    """Return new scores with the odds of exhaustion, which are made as often as they are: once a day."""
    policy = house.settings.forecast
    panel = None if made.scores.is_empty() else panel_of(hourly, policy, now)
    if panel is None or policy.step_h != 1:
        return {"forecast_score": made.scores}
    odds = judge_exhaustion(panel, house.store.read("quota"), now, policy.history_min_days)
    return {"forecast_score": made.scores, "exhaustion": odds}


def prior_of(house: House, now: datetime) -> Prior:
    """Return what is known beside the signals: power at rest by model and price by GPU."""
    engine = house.store.engine
    gpus = engine.run(priced_gpus(engine))
    models = gpus.get_column("model").drop_nulls().unique()
    known = {model: watts for model in models if (watts := idle_power_w(model)) is not None}
    return Prior(known, rates_by_uuid(gpus, house.store.read("price"), now))


_UNKNOWN = "unknown: not recorded"
COLUMNS = (
    "cluster", "workspace", "running_gpus_mean", "running_gpus_p95", "running_gpus_max", "capacity_gpus",
    "pending_gpus_mean", "queue_share", "full_share", "basis", "jobs", "job_gpu_hours", "wait_s_p50", "wait_s_p95",
)  # fmt: skip


def _items(report: pl.DataFrame, jobs: pl.DataFrame) -> tuple[dict[str, object], ...]:
    """Return demand, capacity, queue and jobs by workspace, one row each."""
    of_jobs = jobs.select(
        "cluster", "workspace", "wait_s_p50", "wait_s_p95", jobs="job_count", job_gpu_hours="gpu_hours"
    )
    both = report.join(of_jobs, on=["cluster", "workspace"], how="full", coalesce=True, nulls_equal=True)
    return tuple(both.sort("cluster", "workspace", nulls_last=True).to_dicts())


def _facts(
    house: House, frames: Mapping[str, pl.DataFrame], report: pl.DataFrame, jobs: pl.DataFrame
) -> dict[str, object]:
    stored = house.store.engine.table("cost_line")
    summed = stored.group_by("category").aggregate(gpu_seconds=stored.gpu_seconds.sum(), cost_usd=stored.cost_usd.sum())
    rows = house.store.engine.run(summed).with_columns(pl.col("cost_usd").cast(MONEY))
    new = summarise(frames["cost_line"], by=()).select(rows.columns)
    dollars = pl.when(pl.col("cost_usd").is_not_null().any()).then(pl.col("cost_usd").sum())
    both = pl.concat([rows, new.cast(rows.schema)]).group_by("category").agg(pl.col("gpu_seconds").sum(), dollars)
    cost = {
        row["category"]: f"{row['gpu_seconds'] / SECONDS_PER_HOUR:,.0f} GPU-h, " + _dollars(row["cost_usd"])
        for row in both.sort("cost_usd", "category", descending=[True, False], nulls_last=True).to_dicts()
    }
    capacity = report.get_column("capacity_gpus").drop_nulls()
    queue = report.get_column("queue_share").drop_nulls()
    return {
        "cost": cost or "unknown: no telemetry",
        "demand": _spread(report),
        "capacity": f"{capacity.sum():,.0f} GPUs over {len(capacity)} workspaces"
        if len(capacity)
        else "unknown: not recorded",
        "queue": f"{(queue > 0).sum()} of {len(queue)} workspaces had one" if len(queue) else "unknown: not recorded",
        "jobs": f"{jobs.get_column('job_count').sum():,} recorded" if jobs.height else "none recorded",
        "forecast": _outlook(frames["forecast"]),
    }


def _spread(report: pl.DataFrame) -> str:
    running = report.get_column("running_gpus_mean").drop_nulls()
    return f"{running.sum():,.0f} GPUs running in the mean" if len(running) else _UNKNOWN


def _dollars(amount: object) -> str:
    return "unpriced" if amount is None else f"{amount:,.2f} USD"


def _outlook(forecasts: pl.DataFrame) -> str:
    total = _whole(forecasts).filter(pl.col("gpus").is_not_null())
    if total.is_empty():
        return "none: too little demand is stored"
    last = total.sort("ts").group_by("cluster", maintain_order=True).last()
    return "; ".join(
        f"{row['cluster']} {row['gpus']:,.0f} GPUs at {row['ts']:%d %b %H:%M} ({_band(row)}, {row['forecaster']})"
        for row in last.sort("cluster").to_dicts()
    )


def _whole(forecasts: pl.DataFrame) -> pl.DataFrame:
    """Return the forecasts of whole clusters."""
    is_whole = (pl.col("workspace") == "*") & pl.col("pool").is_null() & pl.col("model").is_null()
    return forecasts.filter(is_whole, pl.col("cluster") != "*")


def _band(row: Mapping[str, object]) -> str:
    low, high = row["gpus_lower_80"], row["gpus_upper_80"]
    return "no interval yet" if low is None or high is None else f"80 %: {low:,.0f} to {high:,.0f}"


def _notes(forecasts: pl.DataFrame) -> tuple[str, ...]:
    notes = _whole(forecasts).get_column("note").drop_nulls().unique().sort()
    return tuple(f"forecast: {note}" for note in notes)
