"""How many GPUs are there, and how far does each get: present, healthy, held, active?"""

from dataclasses import dataclass
from datetime import datetime

import ibis
import polars as pl

from dashboards.port import Engine
from dashboards.scope import Scope, latest

# A GPU that several rules spoke of counts once, by the worst of them; "unknown" only where no rule knew better.
_WORST_FIRST = ("failed", "failing", "degraded", "probation", "healthy", "unknown")


@dataclass(frozen=True, slots=True)
class Funnel:
    """How far the GPUs get; None = not known, which is never 0.

    `told_by` names the table that `gpus` comes from: "gpu", "node" (what nodes should have) or "demand_sample"
    (what queues say they could have had). `activity_at` is the hour that `active` was counted in, and
    `activity_known` the GPUs that had any activity signal in it.
    """

    gpus: int | None
    told_by: str | None
    health: dict[str, int]
    healthy: int | None
    allocated: int | None
    allocated_by: str | None
    active: int | None
    activity_known: int
    activity_at: datetime | None


def find_funnel(engine: Engine, scope: Scope) -> Funnel:
    """Return the funnel at the end of the window."""
    gpus, told_by = _present(engine, scope)
    health = _health(engine, scope)
    judged = sum(count for state, count in health.items() if state != "unknown")
    allocated, allocated_by = _allocated(engine, scope)
    activity_at = latest(engine, "gpu_hour", "hour_at")
    active, known = _active(engine, scope, activity_at)
    return Funnel(
        gpus=gpus,
        told_by=told_by,
        health=health,
        healthy=health.get("healthy", 0) if judged else None,
        allocated=allocated,
        allocated_by=allocated_by,
        active=active if known else None,
        activity_known=known,
        activity_at=activity_at,
    )


def find_idle(engine: Engine, scope: Scope) -> dict[str, int]:
    """Return how many GPUs the latest turn found in each idle state."""
    return _states(engine, scope, "idle")


def _present(engine: Engine, scope: Scope) -> tuple[int | None, str | None]:
    gpu, node = scope.seen(engine.table("gpu")), scope.here(engine.table("node"))
    counted = int(engine.run(gpu.aggregate(gpus=gpu.count())).item())
    if counted:
        return counted, "gpu"
    should = engine.run(node.aggregate(gpus=node["gpus"].sum())).item()
    if should is not None:
        return int(should), "node"
    could = _queue_sum(engine, scope, "capacity_gpus")
    return (None, None) if could is None else (round(could), "demand_sample")


def _health(engine: Engine, scope: Scope) -> dict[str, int]:
    return _states(engine, scope, "health")


def _states(engine: Engine, scope: Scope, topic: str) -> dict[str, int]:
    if scope.turn is None:
        return {}
    verdict = scope.here(engine.table("verdict"))
    spoken = verdict.filter(
        verdict["made_at"] == ibis.literal(scope.turn), verdict["topic"] == topic, verdict["subject_kind"] == "gpu"
    )
    rows = engine.run(spoken.select("subject", "state").distinct())
    place = {state: number for number, state in enumerate(_WORST_FIRST)}
    worst = rows.sort(pl.col("state").replace_strict(place, default=len(place), return_dtype=pl.Int32)).unique(
        "subject", keep="first", maintain_order=True
    )
    counts = worst.group_by("state").len().sort("state")
    return dict(zip(counts["state"].to_list(), counts["len"].to_list(), strict=True))


def _allocated(engine: Engine, scope: Scope) -> tuple[int | None, str | None]:
    held = scope.here(engine.table("pod_allocation"))
    end = ibis.literal(scope.until)
    is_open = (held["starts_at"] < end) & (held["ends_at"].isnull() | (held["ends_at"] >= end))
    counted = held.aggregate(rows=held.count(), gpus=held["gpu"].nunique(where=is_open))
    rows, gpus = engine.run(counted).row(0)
    if rows:
        return int(gpus), "pod_allocation"
    running = _queue_sum(engine, scope, "running_gpus")
    return (None, None) if running is None else (round(running), "demand_sample")


def _queue_sum(engine: Engine, scope: Scope, column: str) -> float | None:
    """Return the sum over workspaces of a column of `demand_sample` at the last moment that has it."""
    demand = scope.within(engine.table("demand_sample"), "ts").filter(ibis._[column].notnull())
    last = demand.filter(demand["ts"] == demand["ts"].max())
    value = engine.run(last.aggregate(gpus=last[column].sum())).item()
    return None if value is None else float(value)


def _active(engine: Engine, scope: Scope, hour_at: datetime | None) -> tuple[int, int]:
    if hour_at is None:
        return 0, 0
    hours, gpu = engine.table("gpu_hour"), scope.here(engine.table("gpu"))
    last = hours.filter(hours["hour_at"] == ibis.literal(hour_at)).semi_join(gpu, "gpu")
    counted = last.aggregate(
        active=(last["active_sample_count"] > 0).sum(), known=(last["known_sample_count"] > 0).sum()
    )
    active, known = engine.run(counted).row(0)
    return int(active or 0), int(known or 0)
