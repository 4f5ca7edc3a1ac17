"""What the desk answers of times to come: demand, exhaustion, waits, and what would be if."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation

import polars as pl

from analytics.demand import hourly_demand
from analytics.exhaustion import judge_exhaustion
from analytics.forecast import panel_of, refresh
from analytics.job_frames import idle_shares, queue_at, quotas_of, read_jobs, recent_waits, workspaces_of
from analytics.queue_replay import Rules
from analytics.wait_time import LEVELS, Ask, QueueNow, quote_wait
from analytics.what_if import Drain, Scenario, compare
from fleet.errors import BadInput
from steward.compose import House
from steward.report import Report

Parameters = Mapping[str, object]
Question = Callable[[House, Parameters, datetime], Report]
BY = ("workspace", "model", "pool", "cluster", "all")
_SPAN = re.compile(r"(\d+)\s*(h|d)")
_HORIZON_MAX_H = 30 * 24


def forecast_report(house: House, parameters: Parameters, now: datetime) -> Report:
    """Forecast demand now, with bands and the back-test's score beside each series."""
    by = _one_of(parameters, "by", BY, "workspace")
    horizon_h = span_h(str(parameters.get("horizon", "24h")))
    policy = replace(house.settings.forecast, horizon_h=horizon_h)
    hourly = house.store.engine.run(hourly_demand(house.store.engine, now - timedelta(days=policy.context_days), now))
    made = refresh(hourly, policy, now)
    rows = _of_kind(made.forecasts, by)
    keys = ["cluster", "workspace", "pool", "model"]
    used = made.scores.filter("is_used").select(*keys, "mase_seasonal", "wql", "coverage_95")
    summed = rows.sort("ts").group_by(keys, maintain_order=True).agg(
        pl.col("gpus").max().alias("gpus_max"),
        pl.col("gpus", "gpus_lower_80", "gpus_upper_80", "capacity_gpus", "forecaster", "mase", "coverage_80", "note")
        .last(),
        pl.struct("ts", "gpus", "gpus_lower_80", "gpus_upper_80", "gpus_lower_95", "gpus_upper_95").alias("hours"),
    )  # fmt: skip
    items = summed.join(used, on=keys, how="left", nulls_equal=True, maintain_order="left").to_dicts()
    if _flag(parameters, "detail") is not True:
        items = [{key: value for key, value in item.items() if key != "hours"} for item in items]
    notes = () if items else ("no demand is stored, so there is nothing to forecast",)
    shown = {"workspace": "workspace", "model": "model", "pool": "pool"}.get(by)
    columns = ("cluster", *((shown,) if shown else ()), *_FORECAST_COLUMNS)
    summary = {"horizon_h": horizon_h, "series": len(items), "below 1 is better than the last value": "mase"}
    return Report("ForecastReport", now, summary, items, columns, notes)


_FORECAST_COLUMNS = (
    "gpus", "gpus_lower_80", "gpus_upper_80", "gpus_max", "capacity_gpus", "forecaster", "mase", "mase_seasonal", "wql",
    "coverage_80", "coverage_95", "note",
)  # fmt: skip


def capacity_report(house: House, _parameters: Parameters, now: datetime) -> Report:
    """Say how likely each series is to pass its quota, or what there is, within 1, 7 and 30 days."""
    policy = replace(house.settings.forecast, step_h=1)
    hourly = house.store.engine.run(hourly_demand(house.store.engine, now - timedelta(days=policy.context_days), now))
    panel = panel_of(hourly, policy, now)
    if panel is None:
        return Report("CapacityReport", now, notes=("no demand is stored, so nothing can be said",))
    odds = judge_exhaustion(panel, house.store.read("quota"), now, policy.history_min_days)
    keys = ["cluster", "workspace", "pool", "model"]
    items = []
    for group in odds.partition_by(keys, maintain_order=True):
        first = group.row(0, named=True)
        chances = dict(group.select("window_hours", "probability").iter_rows())
        month = group.filter(pl.col("window_hours") == group["window_hours"].max()).row(0, named=True)
        item = {key: first[key] for key in (*keys, "limit_kind", "limit_gpus")}
        item |= {f"within_{hours // 24}_days": chance for hours, chance in chances.items()}
        item |= {key: month[key] for key in ("peak_gpus", "peak_gpus_upper_80", "earliest_at", "likely_at", "note")}
        items.append(item)
    notes = ("no series has a quota or a known capacity",) if not items else ()
    shown = tuple(name for name in items[0] if name != "model" or any(item["model"] for item in items)) if items else ()
    return Report("CapacityReport", now, {"series": len(items)}, items, shown, notes)


def wait_report(house: House, parameters: Parameters, now: datetime) -> Report:
    """Quote the wait of a request for GPUs of a workspace, as quantiles."""
    cluster, jobs = _jobs_of(house, parameters)
    names = workspaces_of(jobs)
    workspace = str(parameters.get("workspace", ""))
    if workspace not in names:
        message = f"workspace: {workspace!r} has no recorded jobs in {cluster}; those that have: {', '.join(names)}"
        raise BadInput(message, field="workspace")
    running, waiting, history = queue_at(jobs, names, now)
    gpus = _gpus_of(house, cluster, parameters)
    rules = Rules(gpus, quotas_of(house.store.read("quota"), cluster, names, now))
    waits = recent_waits(jobs, workspace, now)
    queue = QueueNow(now.timestamp(), rules, running, waiting, history, waits)
    ask = Ask(_number(parameters, "gpus", 1.0), names.index(workspace), int(_number(parameters, "priority", 0.0)))
    made = quote_wait(queue, ask, seed=0)
    items = [
        {"share_started_by_then": float(level), "wait_hours": float(wait) / 3600 if math.isfinite(wait) else None}
        for level, wait in zip(LEVELS, made, strict=True)
    ]
    summary = {"cluster": cluster, "workspace": workspace, "gpus": ask.gpus, "gpus_there": gpus}
    summary |= {"running_jobs": running.gpus.size, "waiting_jobs": waiting.count, "jobs_learnt_from": history.count}
    never = () if math.isfinite(made[0]) else ("it can never start: it asks for more GPUs than it may ever have",)
    notes = (*never, "waits beyond 30 days are told as 30 days; GPUs are counted, not placed")
    return Report("WaitReport", now, summary, items, notes=notes)


def what_if_report(house: House, parameters: Parameters, now: datetime) -> Report:
    """Replay the recorded jobs of a cluster as things were and as they would be."""
    cluster, frame = _jobs_of(house, parameters)
    names = workspaces_of(frame)
    jobs = read_jobs(frame, names, now.timestamp())
    if jobs.count == 0:
        message = f"cluster: no job of {cluster} has a recorded run time to replay"
        raise BadInput(message, field="cluster")
    window = (float(jobs.submitted_s[0]), float(jobs.submitted_s[-1]))
    rules = Rules(_gpus_of(house, cluster, parameters), quotas_of(house.store.read("quota"), cluster, names, now))
    scenario = _scenario(house, cluster, names, parameters, window[0])
    price = _price(parameters)
    before, after, each = compare(jobs, rules, scenario, window, price)
    items = [{**row, "workspace": names[int(row["workspace"])]} for row in each.to_dicts()]
    summary = {"cluster": cluster, "gpus_there": rules.gpus, "now": asdict(before), "then": asdict(after)}
    notes = (
        "waits are those of a replay by a best-effort first-come queue, in both worlds; GPUs are counted, not placed",
        *(("no price given: --price says what a GPU-hour costs",) if price is None else ()),
    )
    return Report("WhatIfReport", now, summary, items, notes=notes)


def span_h(text: str) -> int:
    """Return the hours that a span such as 24h or 7d stands for."""
    match = _SPAN.fullmatch(text.strip())
    hours = int(match[1]) * (24 if match[2] == "d" else 1) if match else 0
    if not 1 <= hours <= _HORIZON_MAX_H:
        message = f"horizon: {text!r} is not a span between 1h and 30d, such as 24h or 7d"
        raise BadInput(message, field="horizon")
    return hours


def _of_kind(forecasts: pl.DataFrame, by: str) -> pl.DataFrame:
    is_total = pl.col("workspace") == "*"
    whole = pl.col("pool").is_null() & pl.col("model").is_null()
    kinds = {
        "workspace": ~is_total & whole,
        "model": is_total & pl.col("model").is_not_null(),
        "pool": is_total & pl.col("pool").is_not_null(),
        "cluster": is_total & whole,
        "all": pl.lit(value=True),
    }
    return forecasts.filter(kinds[by])


def _jobs_of(house: House, parameters: Parameters) -> tuple[str, pl.DataFrame]:
    jobs = house.store.read("job")
    clusters = jobs["cluster"].unique().sort().to_list()
    given = parameters.get("cluster")
    if given is None and len(clusters) == 1:
        return clusters[0], jobs
    if given not in clusters:
        told = ", ".join(clusters) if clusters else "none: no jobs are stored"
        message = f"cluster: {given!r} has no recorded jobs; those that have: {told}"
        raise BadInput(message, field="cluster")
    return str(given), jobs.filter(pl.col("cluster") == given)


def _gpus_of(house: House, cluster: str, parameters: Parameters) -> float:
    """Return the GPUs there are: those given, else those seen, else those nodes should have."""
    if parameters.get("gpus_there") is not None:
        return _number(parameters, "gpus_there", 0.0)
    seen = house.store.read("gpu").filter(pl.col("cluster") == cluster).height
    nodes = house.store.read("node").filter(pl.col("cluster") == cluster)["gpus"].drop_nulls()
    if seen == 0 and len(nodes) == 0:
        message = f"gpus_there: how many GPUs {cluster} has is not stored; say it with --gpus-there"
        raise BadInput(message, field="gpus_there")
    return float(seen or nodes.sum())


def _scenario(house: House, cluster: str, names: tuple[str, ...], parameters: Parameters, begin_s: float) -> Scenario:
    moves = str(parameters.get("moves", ""))
    pairs = [move for text in moves.split(",") if text for move in _move(text, names)]
    drained = parameters.get("drain")
    hours = _number(parameters, "drain_hours", 24.0)
    gone = () if drained is None else (Drain(_drained(house, cluster, str(drained)), begin_s, begin_s + 3600 * hours),)
    is_reclaiming = _flag(parameters, "reclaim_idle") is True
    shares = idle_shares(house.store.read("cost_line"), cluster, names) if is_reclaiming else ()
    if is_reclaiming and not shares:
        message = f"reclaim_idle: the ledger says nothing of what {cluster} held idle"
        raise BadInput(message, field="reclaim_idle")
    more = _number(parameters, "add", 0.0) - _number(parameters, "remove", 0.0)
    return Scenario(more, tuple(pairs), _flag(parameters, "lend"), shares, gone)


def _move(text: str, names: tuple[str, ...]) -> list[tuple[int, float]]:
    source, _, rest = text.partition(":")
    target, _, gpus = rest.partition(":")
    try:
        count = float(gpus)
        return [(names.index(source), -count), (names.index(target), count)]
    except ValueError as error:
        message = f"moves: {text!r} is not FROM:TO:GPUS with two of the workspaces {', '.join(names)}"
        raise BadInput(message, field="moves") from error


def _drained(house: House, cluster: str, what: str) -> float:
    if what.isdigit():
        return float(what)
    nodes = house.store.read("node").filter(
        pl.col("cluster") == cluster, (pl.col("rack") == what) | (pl.col("node") == what)
    )
    gpus = nodes["gpus"].drop_nulls()
    if len(gpus) == 0:
        message = f"drain: {what!r} is neither a number of GPUs nor a rack or node of {cluster} with known GPUs"
        raise BadInput(message, field="drain")
    return float(gpus.sum())


def _price(parameters: Parameters) -> Decimal | None:
    given = parameters.get("price")
    try:
        return None if given is None else Decimal(str(given))
    except InvalidOperation as error:
        message = f"price: {given!r} is not an amount of dollars"
        raise BadInput(message, field="price") from error


def _number(parameters: Parameters, name: str, otherwise: float) -> float:
    given = parameters.get(name)
    try:
        number = otherwise if given is None else float(str(given))
    except ValueError:
        number = float("nan")
    if not 0 <= number < float("inf"):
        message = f"{name}: {given!r} is not a number from 0 on"
        raise BadInput(message, field=name)
    return number


def _flag(parameters: Parameters, name: str) -> bool | None:
    """Return what a parameter says, which is text where it came over the network; None where it says nothing."""
    given = parameters.get(name)
    return None if given is None else str(given).lower() == "true"


def _one_of(parameters: Parameters, name: str, known: tuple[str, ...], otherwise: str) -> str:
    given = str(parameters.get(name, otherwise))
    if given not in known:
        message = f"{name}: {given!r} is not one of {', '.join(known)}"
        raise BadInput(message, field=name)
    return given


QUESTIONS: Mapping[str, Question] = {
    "forecast": forecast_report,
    "capacity": capacity_report,
    "wait": wait_report,
    "what_if": what_if_report,
}
