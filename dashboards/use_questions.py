"""Who uses what they hold: verdicts for a chosen line, the heat of nodes, the funnel in GPU-hours, what fits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import ibis
import polars as pl

from analytics.idle import IdlePolicy, Prior, judge_idle
from analytics.idle_signals import idle_signals
from analytics.packing import held_now, rooms, what_fits
from analytics.prices import priced_gpus, rates_by_uuid
from analytics.utilisation import fragmented_time, funnel, funnel_lines, shared_holds
from dashboards.port import Engine
from dashboards.scope import Scope
from fleet.tables import TABLES
from fleet.verdict import Verdict

_IDLE = ("idle", "idle_held")
_DAY = timedelta(days=1)
_NODES_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Caught:
    """What a line catches: GPUs and slices that idle, their GPU-hours and dollars (None = unpriced), all verdicts."""

    devices: int
    unknown: int
    gpu_hours: float
    cost_usd: float | None
    workloads: tuple[Verdict, ...]


def find_caught(engine: Engine, scope: Scope, active_above: float) -> Caught:
    """Judge the end of the window afresh with another line between idle and active."""
    tables = _tables(engine)
    policy = IdlePolicy(active_above=active_above)
    rates = rates_by_uuid(engine.run(priced_gpus(tables)), engine.run(engine.table("price")), scope.until)
    signals = engine.run(idle_signals(tables, scope.until, policy))
    if scope.cluster is not None:
        signals = signals.filter(pl.col("cluster") == scope.cluster)
    verdicts = judge_idle(signals, policy, scope.until, Prior(usd_per_gpu_hour=rates))
    mig = set(signals.filter("is_mig", pl.col("subject_kind") == "gpu")["subject"])
    devices = [
        v for v in verdicts if v.subject_kind in {"gpu", "slice"} and v.rule != "unallocated" and v.subject not in mig
    ]
    idle = [v for v in devices if v.state in _IDLE]
    costs = [float(v.cost_usd) for v in idle if v.cost_usd is not None]
    return Caught(
        devices=len(idle),
        unknown=sum(v.state == "unknown" for v in devices),
        gpu_hours=sum(v.gpu_hours for v in idle if v.gpu_hours is not None),
        cost_usd=sum(costs) if costs else None,
        workloads=tuple(v for v in verdicts if v.subject_kind == "workload"),
    )


def by_state(caught: Caught, scope: Scope) -> dict[str, list[Verdict]]:
    """Return the workloads of each state, `zombie` being those that idle for more than a day, dearest first."""
    found: dict[str, list[Verdict]] = {
        name: [] for name in ("idle", "idle_held", "zombie", "stalled", "under_used", "bursty", "unknown")
    }
    for verdict in sorted(caught.workloads, key=_dearest):
        is_zombie = verdict.state in _IDLE and verdict.since is not None and scope.until - verdict.since > _DAY
        name = "zombie" if is_zombie else verdict.state
        if name in found:
            found[name].append(verdict)
    return found


def find_heat(engine: Engine, scope: Scope) -> pl.DataFrame:
    """Return node, hour_at and mean activity (null: nothing known) of the window, of the nodes that idled most."""
    hours = scope_hours(engine, scope)
    gpus = scope.here(engine.table("gpu")).select("gpu", "node")
    met = hours.join(gpus, "gpu")
    weight = met.known_sample_count
    mean = (met.activity_mean * weight).sum() / weight.sum().nullif(0)
    cells = engine.run(met.group_by("node", "hour_at").agg(activity=mean.cast("float64")))
    shown = (
        cells.group_by("node")
        .agg(pl.col("activity").mean())
        .sort("activity", "node", nulls_last=True)
        .head(_NODES_SHOWN)
    )
    return cells.join(shown.select("node"), on="node", how="semi").sort("node", "hour_at")


def scope_hours(engine: Engine, scope: Scope) -> ibis.Table:
    """Return the rows of `gpu_hour` in the window."""
    hours = engine.table("gpu_hour")
    return hours.filter(hours.hour_at >= ibis.literal(scope.since), hours.hour_at < ibis.literal(scope.until))


def find_hours_funnel(engine: Engine, scope: Scope) -> Callable[[tuple[str, ...]], pl.DataFrame]:
    """Return the funnel of the window in GPU-seconds, to be asked by any columns; no rows where there is no ledger."""
    tables = _tables(engine)
    lines = engine.run(funnel_lines(tables, scope.since, scope.until))
    if scope.cluster is not None:
        lines = lines.filter(pl.col("cluster") == scope.cluster)
    if lines.is_empty():
        return lambda by: funnel(lines, by or ("cluster",))
    fragments = fragmented_time(engine.run(shared_holds(tables, scope.since, scope.until)))
    return lambda by: funnel(lines, by, fragments)


def find_fits(engine: Engine, scope: Scope) -> pl.DataFrame:
    """Return which gangs fit at the end of the window, by pool, and what is stranded."""
    held = engine.run(held_now(_tables(engine), scope.until))
    if scope.cluster is not None:
        held = held.filter(pl.col("cluster") == scope.cluster)
    verdict = engine.table("verdict")
    failed: list[str] = []
    if scope.turn is not None:
        bad = verdict.filter(
            verdict["made_at"] == ibis.literal(scope.turn), verdict["topic"] == "health", verdict["state"] == "failed"
        )
        failed = engine.run(bad.select("subject"))["subject"].to_list()
    return what_fits(rooms(held, failed))


def _tables(engine: Engine) -> Mapping[str, ibis.Table]:
    return {name: engine.table(name) for name in TABLES}


def _dearest(verdict: Verdict) -> tuple[float, float, str]:
    cost = 0.0 if verdict.cost_usd is None else float(verdict.cost_usd)
    hours = 0.0 if verdict.gpu_hours is None else verdict.gpu_hours
    return -cost, -hours, verdict.subject
