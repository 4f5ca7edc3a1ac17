"""The desk's questions of idleness and use: who holds what for nothing, how busy is what is held, what would fit."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType

import polars as pl

from analytics.activity import SECONDS_PER_HOUR
from analytics.idle import judge_idle
from analytics.idle_runs import idle_spells
from analytics.idle_signals import idle_signals
from analytics.packing import (
    Room,
    defragment,
    freed_by,
    held_now,
    mig_devices,
    mig_leftovers,
    rooms,
    what_fits,
)
from analytics.rightsizing import HOURS_PER_MONTH, held_use, rightsize
from analytics.usage import USAGE_BY, charged_hours, live, usage_hours, usage_summary
from analytics.use_pattern import NextUse, next_uses, use_pattern
from analytics.utilisation import LOSSES, STEPS, fragmented_time, funnel, funnel_lines, shared_holds
from fleet.errors import BadInput
from fleet.verdict import Verdict
from steward.compose import House
from steward.judge import prior_of
from steward.moments import as_of
from steward.report import Report
from steward.sharing_desk import answer_sharing

KINDS = ("workload", "pod", "replica", "gpu", "slice", "workspace")
_QUIET = ("idle", "idle_held", "stalled", "under_used", "bursty")
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DAY = timedelta(days=1)
_CHARGED = (
    "the ledger charges holders for {:,.1f} GPU-hours: not for a failed GPU that was held and not used (unhealthy), not"
    " twice for what was given away twice, and only for clock hours that are over and booked"
)
_NO_TELEMETRY = "unknown: no telemetry; no GPU was ever collected into this store"

IDLE_COLUMNS = (
    "subject", "workspace", "owner", "state", "rule", "action", "since", "gpu_hours", "cost_usd", "next_use", "frees",
)  # fmt: skip


def answer_idle(house: House, parameters: Mapping[str, object]) -> Report:
    """Return what idles, whose it is, since when, what it costs, when it will be used and what a reclaim would free."""
    now = as_of(house, str(parameters.get("as_of", "now")))
    kind = str(parameters.get("kind", "workload"))
    if kind not in KINDS:
        message = f"kind: {kind!r} is not one of {', '.join(KINDS)}"
        raise BadInput(message, field="kind")
    engine, policy = house.store.engine, house.settings.idle
    verdicts = judge_idle(engine.run(idle_signals(engine, now, policy)), policy, now, prior_of(house, now))
    places = rooms_of(house, now)
    uses = next_uses(engine.run(use_pattern(engine, now)), now)
    wasted = _wasted(engine.run(idle_spells(engine, now - _DAY, now, policy)))
    told = [v for v in verdicts if v.subject_kind == kind and v.rule != "unallocated"]
    shown = told if _is_set(parameters.get("all")) else [v for v in told if v.state in _QUIET]
    reclaim = [v for v in verdicts if v.subject_kind == "workload" and v.action == "reclaim"]
    freed = freed_by(places, [v.subject for v in reclaim])
    costs = [v.cost_usd for v in reclaim if v.cost_usd is not None]
    summary: dict[str, object] = {
        **_counted(told, kind),
        "reclaimable": f"{len(reclaim)} workloads, {_hours(reclaim):,.1f} GPU-hours idle so far, "
        + (f"{sum(costs, Decimal(0)):,.2f} USD" if costs or not reclaim else "unpriced"),
        "a_reclaim_frees": f"{freed.gpus} whole GPUs, {len(freed.nodes)} whole nodes, {_gangs(freed.gangs)}",
    }
    notes = () if verdicts else (_NO_TELEMETRY,)
    items = [_item(v, places, uses, wasted) for v in sorted(shown, key=_dearest)]
    return Report("IdleReport", now, summary, items, IDLE_COLUMNS, notes)


def answer_usage(house: House, parameters: Mapping[str, object]) -> Report:
    """Return how busy what each group held was, by hour or over the whole time."""
    now = as_of(house, str(parameters.get("as_of", "data")))
    by = str(parameters.get("by", "workspace"))
    if by not in USAGE_BY:
        message = f"--by: {by!r} is not one of {', '.join(USAGE_BY)}"
        raise BadInput(message, field="by")
    since = now - length_of(str(parameters.get("since", "7d")))
    hours = house.store.engine.run(usage_hours(house.store.engine, since, now, by))
    is_hourly = _is_set(parameters.get("hourly"))
    shown = hours.sort("hour_at", by, nulls_last=True) if is_hourly else usage_summary(hours, by)
    nobody = "unknown: nobody held a GPU in that time, as far as is recorded"
    notes: tuple[str, ...] = () if hours.height else (nobody,)
    held = hours["gpu_hours"].sum() if hours.height else None
    charged = house.store.engine.run(charged_hours(house.store.engine, since, now)).item()
    if held is not None and charged is not None and round(held, 1) != round(charged, 1):
        notes += (_CHARGED.format(charged),)
    summary = {"since": since, "until": now, "gpu_hours_held": held, "gpu_hours_charged": charged}
    return Report("UsageReport", now, summary, shown.to_dicts(), tuple(shown.columns), notes)


def answer_funnel(house: House, parameters: Mapping[str, object]) -> Report:
    """Return where the GPU-hours of the ledger went, by any of its dimensions, each step and each loss."""
    now = as_of(house, str(parameters.get("as_of", "data")))
    since = now - length_of(str(parameters.get("since", "7d")))
    by = [name for name in str(parameters.get("by", "cluster")).split(",") if name]
    engine = house.store.engine
    lines = engine.run(funnel_lines(engine, since, now))
    rows = funnel(lines, by, fragmented_time(engine.run(shared_holds(engine, since, now))))
    names = [*STEPS, *LOSSES]
    shown = rows.select(
        *by,
        *((pl.col(f"{name}_gpu_seconds") / SECONDS_PER_HOUR).alias(f"{name}_gpu_hours") for name in names),
        "allocated_share", "active_share", "effective_share",
    )  # fmt: skip
    notes = () if lines.height else ("unknown: no ledger yet; `steward analyse` writes it",)
    columns = (*by, *(f"{name}_gpu_hours" for name in ("total", *LOSSES, "effective")), "active_share")
    return Report("FunnelReport", now, {"since": since, "until": now}, shown.to_dicts(), columns, notes)


def answer_top(house: House, parameters: Mapping[str, object]) -> Report:
    """Return the newest sample of every GPU and slice and who holds it, busiest first; what tells nothing is last."""
    now = as_of(house, str(parameters.get("as_of", "now")))
    frame = house.store.engine.run(live(house.store.engine, now))
    workspace = parameters.get("workspace")
    if workspace is not None:
        frame = frame.filter(pl.col("workspace") == str(workspace))
    ordered = frame.sort(
        "activity", "cluster", "node", "gpu_index", "device", descending=[True, *[False] * 4], nulls_last=True
    )
    held = ordered.filter(pl.col("pod_count") > 0)
    known = held["activity"].drop_nulls()
    summary: dict[str, object] = {
        "devices": ordered.height,
        "held": held.height,
        "active": int((known > house.settings.idle.active_above).sum()) if len(known) else None,
        "unknown": ordered["activity"].null_count(),
        "activity_mean_of_held": known.mean() if len(known) else None,
    }
    notes = ("a device without a sample in the last 15 minutes is unknown",) if ordered["activity"].null_count() else ()
    if ordered.is_empty():
        notes = (_NO_TELEMETRY if workspace is None else f"workspace {workspace} holds nothing that is known now",)
    return Report("TopReport", now, summary, ordered.to_dicts(), TOP_COLUMNS, notes)


TOP_COLUMNS = (
    "node", "gpu_index", "device", "model", "activity", "signal", "memory_used_mib", "power_w", "temperature_c",
    "workspace", "workload",
)  # fmt: skip


def answer_rightsize(house: House, parameters: Mapping[str, object]) -> Report:
    """Return what each workload should hold by how it used what it holds, and what that would save."""
    now = as_of(house, str(parameters.get("as_of", "data")))
    since = now - length_of(str(parameters.get("since", "7d")))
    engine, policy = house.store.engine, house.settings.idle
    used = engine.run(held_use(engine, since, now))
    interval_s = policy.interval_s or _interval_of(used) or house.settings.collect.interval_s
    found = rightsize(used, policy, interval_s, prior_of(house, now).usd_per_gpu_hour)
    savings = [each.saving_usd_per_hour for each in found if each.saving_usd_per_hour is not None]
    total = sum(savings, Decimal(0))
    items = [{name: getattr(each, name) for name in each.__slots__} for each in found]
    summary = {
        "workloads": used["workload"].n_unique(),
        "recommendations": len(found),
        "saving": f"{total:,.2f} USD/h, {total * HOURS_PER_MONTH:,.0f} USD a month" if savings else None,
    }
    columns = (
        "kind",
        "workload",
        "workspace",
        "gpus_held",
        "gpus_wanted",
        "device",
        "saving_usd_per_hour",
        "risk",
        "reason",
    )
    notes = () if used.height else ("unknown: nobody held a GPU in that time, as far as is recorded",)
    return Report("RightsizeReport", now, summary, items, columns, notes)


def answer_packing(house: House, parameters: Mapping[str, object]) -> Report:
    """Return which gangs fit now, what is stranded, and the moves that would make room for a gang of `size`."""
    now = as_of(house, str(parameters.get("as_of", "now")))
    size = int(str(parameters.get("size", 8)))
    places = rooms_of(house, now)
    moves = defragment(places, size)
    engine = house.store.engine
    waste = mig_leftovers(engine.run(mig_devices(engine, now - _DAY)))
    fits = what_fits(places)
    of_size = fits.filter(pl.col("size") == size)
    summary = {
        "free_gpus": sum(room.free for room in places),
        "free_beside_holders": sum(room.part_free for room in places),
        f"gangs_of_{size}_that_fit": of_size["fits"].sum()
        if of_size.height
        else sum(room.free // size for room in places),
        "mig_waste_gpus": waste["wasted"].sum() if waste.height else None,
        "moves": [f"{m.pod} from {m.from_node} to {m.to_node} ({m.gpus} GPUs)" for m in moves] or "none would help",
    }
    notes = () if places else ("unknown: no node with GPUs was ever collected into this store",)
    return Report("PackingReport", now, summary, fits.to_dicts(), tuple(fits.columns), notes)


def rooms_of(house: House, now: datetime) -> list[Room]:
    """Return the fleet's nodes with who holds what, without the GPUs that the latest health verdicts call failed."""
    engine = house.store.engine
    verdict = engine.table("verdict")
    health = verdict.filter(
        verdict.topic == "health",
        verdict.subject_kind == "gpu",
        verdict.made_at <= now,
        verdict.made_at > now - _DAY,
    )
    newest = engine.run(health.select("subject", "state", "made_at"))
    failed = newest.filter(pl.col("made_at") == pl.col("made_at").max().over("subject"), pl.col("state") == "failed")
    return rooms(engine.run(held_now(engine, now)), failed["subject"].to_list())


def length_of(text: str) -> timedelta:
    """Return a length of time written as 90s, 15m, 6h, 7d or 2w, or raise `BadInput`."""
    match = _LENGTH.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        message = f"--since: {text!r} is no length of time; write 6h, 7d or 2w"
        raise BadInput(message, field="since")
    return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])


def _wasted(spells: pl.DataFrame) -> dict[str, float]:
    """Return the GPU-hours of the last day's idle spells by workload, pod and workspace."""
    owned = pl.col("workload_kind").is_not_null() & pl.col("workload").is_not_null()
    rows = spells.with_columns(
        hours=(pl.col("ends_at") - pl.col("starts_at")).dt.total_seconds() / SECONDS_PER_HOUR * pl.col("fraction"),
        pod=pl.format("{}/{}", "namespace", "pod"),
        workload=pl.when(owned)
        .then(pl.format("{}/{}/{}", "workload_kind", "namespace", "workload"))
        .otherwise(pl.format("Pod/{}/{}", "namespace", "pod")),
    )
    found: dict[str, float] = {}
    for name in ("workload", "pod", "workspace"):
        found |= dict(rows.drop_nulls(name).group_by(name).agg(pl.col("hours").sum()).iter_rows())
    return found


def _item(
    verdict: Verdict, places: Sequence[Room], uses: Mapping[tuple[str, str], NextUse], wasted: Mapping[str, float]
) -> dict[str, object]:
    use = uses.get((verdict.cluster or "", verdict.workload or ""))
    owners = verdict.evidence.get("owners")
    owner = verdict.evidence.get("owner") or (owners[0] if isinstance(owners, list) and len(owners) == 1 else None)
    is_reclaim = verdict.subject_kind == "workload" and verdict.action == "reclaim"
    freed = freed_by(places, [verdict.subject]) if is_reclaim else None
    return {
        "subject": verdict.subject,
        "subject_kind": verdict.subject_kind,
        "cluster": verdict.cluster,
        "node": verdict.node,
        "workspace": verdict.workspace,
        "owner": owner,
        "workload": verdict.workload,
        "state": verdict.state,
        "rule": verdict.rule,
        "action": verdict.action,
        "since": verdict.since,
        "last_active_at": verdict.evidence.get("last_active_at"),
        "coverage": verdict.coverage,
        "gpu_hours": verdict.gpu_hours,
        "cost_usd": verdict.cost_usd,
        "idle_gpu_hours_24h": wasted.get(verdict.subject),
        "next_use": None if use is None else use.at,
        "next_use_chance": None if use is None else use.chance,
        "frees": None if freed is None else f"{freed.gpus} GPUs, {len(freed.nodes)} nodes",
        "frees_nodes": None if freed is None else list(freed.nodes),
        "frees_gangs": None if freed is None else {str(size): count for size, count in freed.gangs.items()},
        "evidence": dict(verdict.evidence),
    }


def _counted(verdicts: Sequence[Verdict], kind: str) -> dict[str, object]:
    counts: dict[str, object] = {f"{kind}s": len(verdicts)}
    for state in sorted({verdict.state for verdict in verdicts}):
        counts[state] = sum(verdict.state == state for verdict in verdicts)
    return counts


def _interval_of(used: pl.DataFrame) -> float | None:
    """Return the sampling interval that the best covered devices show, in seconds; None without any sample."""
    told = used.filter(pl.col("sample_count") > 0).select(each=pl.col("held_s") / pl.col("sample_count"))["each"]
    least = told.quantile(0.25) if len(told) else None
    return None if least is None else float(round(least))


def _gangs(gangs: Mapping[int, int]) -> str:
    return ", ".join(f"{count} more gangs of {size}" for size, count in gangs.items() if size > 1)


def _hours(verdicts: Sequence[Verdict]) -> float:
    return sum(verdict.gpu_hours for verdict in verdicts if verdict.gpu_hours is not None)


def _dearest(verdict: Verdict) -> tuple[float, float, str]:
    cost = Decimal(0) if verdict.cost_usd is None else verdict.cost_usd
    hours = 0.0 if verdict.gpu_hours is None else verdict.gpu_hours
    return -float(cost), -hours, verdict.subject


def _is_set(value: object) -> bool:
    return str(value).lower() == "true"


IDLE_QUESTIONS: Mapping[str, Callable[[House, Mapping[str, object]], Report]] = MappingProxyType(
    {
        "idle": answer_idle,
        "usage": answer_usage,
        "funnel": answer_funnel,
        "top": answer_top,
        "rightsize": answer_rightsize,
        "packing": answer_packing,
        "sharing": answer_sharing,
    }
)
