"""One look at the fleet's health: rules, peers, silence and record become one verdict each, with risk and stakes."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import polars as pl

from analytics.failure_risk import GPU_RATES, NODE_RATES, RiskModel, fit_risk, predict_risk, without_bursts
from analytics.fault_history import (
    gpu_exposure,
    gpu_faults,
    history_events,
    node_exposure,
    node_faults,
    service,
    slices_now,
)
from analytics.health import judge_health
from analytics.health_records import charts, judge_states, slice_verdicts
from analytics.health_signals import health_events, health_signals
from analytics.health_stake import Stakes, with_stakes
from analytics.outlier_parts import gangs, outlier_parts
from analytics.outliers import judge_outliers
from analytics.risk_rows import risk_frame, with_risks
from analytics.shared_causes import Causes, with_causes
from analytics.telemetry_loss import judge_telemetry, telemetry_signals
from fleet.verdict import Verdict
from steward.config import Settings
from store.engine import Engine

HISTORY_DAYS = 400.0  # as long as hours are kept: risk wants all the past there is


@dataclass(frozen=True, slots=True)
class HealthTurn:
    """The verdicts of one moment, the rows of the table `risk`, and the models behind them."""

    verdicts: tuple[Verdict, ...]
    risk: pl.DataFrame
    gpu_model: RiskModel
    node_model: RiskModel


def judge_fleet_health(engine: Engine, settings: Settings, rates: Mapping[str, Decimal], now: datetime) -> HealthTurn:
    """Ask everything there is to ask of the fleet's health at one moment; `rates` are USD an hour by GPU."""
    # 1. What rules, silence and peers say now.
    signs = engine.ask(("signs",), lambda: health_signals(engine, now, settings.health))
    events = engine.ask(("events",), lambda: health_events(engine, now, settings.health))
    with ThreadPoolExecutor(1) as beside:  # the engine works on these while the rules, which are Python, hold one core
        hears = beside.submit(engine.ask, ("heard",), lambda: telemetry_signals(engine, now, settings.telemetry))
        compares = beside.submit(engine.ask, ("parts",), lambda: outlier_parts(engine, now, settings.outliers))
        ruled = judge_health(signs, events, settings.health, now)
        heard, parts = hears.result(), compares.result()
    silent = judge_telemetry(heard, settings.telemetry, now)
    odd = judge_outliers(parts, settings.outliers, now)
    # 2. What happened before, and the state that all of it makes.
    overrides = settings.health.overrides
    history = engine.ask(("history",), lambda: history_events(engine, now, HISTORY_DAYS, overrides))
    recent = history.filter(pl.col("ts") >= now - timedelta(days=settings.states.history_days))
    found = [*(verdict for verdict in ruled if not _is_told_twice(verdict)), *silent, *odd]
    judged = judge_states(
        found, charts(heard, recent, settings.states, settings.health.overrides), settings.states, now
    )
    slices = engine.ask(("slices",), lambda: slices_now(engine, now, settings.telemetry.forget_s))
    judged += slice_verdicts(slices, judged, now)
    # 3. What may come, and what is at stake.
    gpus = engine.ask(("service",), lambda: service(engine))
    risk, gpu_model, node_model = predict_fleet(history, gpus, settings, now)
    stakes = Stakes.of(gpus, engine.ask(("gangs",), lambda: gangs(engine, now)), rates)
    staked = with_stakes(judged, stakes, settings.stakes)
    # 4. What those that fail may have in common: the breaker looks at it before anything is fenced.
    told = with_causes(with_risks(staked, risk, gpu_model), Causes.of(gpus, history))
    return HealthTurn(tuple(told), risk, gpu_model, node_model)


def predict_fleet(
    history: pl.DataFrame, gpus: pl.DataFrame, settings: Settings, now: datetime
) -> tuple[pl.DataFrame, RiskModel, RiskModel]:
    """Return the rows of the table `risk` for all GPUs and nodes, and the two models."""
    policy, gone = settings.risk, now - timedelta(seconds=settings.telemetry.forget_s)
    of_gpus, of_nodes = (
        without_bursts(faults(history, settings.health.overrides), policy.burst_s)
        for faults in (gpu_faults, node_faults)
    )
    gpu_model = fit_risk(of_gpus, gpu_exposure(gpus, gone), now, policy, GPU_RATES)
    node_model = fit_risk(of_nodes, node_exposure(gpus, gone), now, policy, NODE_RATES)
    named = gpus.select("cluster", "node", key="uuid", subject="uuid").sort("key")
    nodes = (
        gpus.select("cluster", "node", key=pl.format("{}/{}", "cluster", "node"), subject="node").unique().sort("key")
    )
    rows = [
        risk_frame(predict_risk(model, faults, places["key"], now), places, kind, model, now)
        for kind, places, faults, model in (("gpu", named, of_gpus, gpu_model), ("node", nodes, of_nodes, node_model))
    ]
    return pl.concat(rows), gpu_model, node_model


def _is_told_twice(verdict: Verdict) -> bool:
    """Return whether a rule's verdict on a silent node is left to `judge_telemetry`, which counts in scrapes."""
    return verdict.subject_kind == "node" and verdict.rule == "exporter_lost"
