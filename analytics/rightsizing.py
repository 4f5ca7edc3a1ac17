"""Recommend a size for each workload: fewer GPUs, a MIG profile, a share of a GPU's time, or none at all.

From how it used what it held over days: memory at its 99th part and activity at its 95th, each with a margin. What it
is called follows Kubecost: *Optimize* where some of several GPUs did nothing, *Remove* where all did, *Share* where a
part of a GPU would do.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import ACTIVE_ABOVE, Tables, strongest_activity
from analytics.idle_policy import IdlePolicy
from analytics.sizes import smaller_size

HOURS_PER_MONTH = 730
_LEAST_DAYS = timedelta(days=1)
_MICRO = Decimal("0.000001")
_HIGH, _MEDIUM, _LOW = "high", "medium", "low"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What a workload should hold, why, what it saves an hour (null = unpriced) and at which risk.

    `kind` is Optimize, Remove or Share; `gpus_wanted` are whole GPUs or parts of one; `device` is the MIG profile or
    "1/n" of a shared GPU, null for whole ones.
    """

    cluster: str
    workload: str
    workspace: str | None
    owner: str | None
    kind: str
    gpus_held: float
    gpus_wanted: float
    device: str | None
    memory_mib_p99: float | None
    activity_p95: float | None
    saving_usd_per_hour: Decimal | None
    risk: str
    reason: str


def held_use(tables: Tables, since: datetime, now: datetime) -> ir.Table:
    """Return how each GPU that is held at `now` was used by the pod that holds it, since `since` or the pod's start.

    Columns: cluster, workload (kind/namespace/name), workspace, owner, gpu_uuid, model, memory_mib, fraction,
    is_mig, pod_count (that share it), pod_gpus (that its pod holds), held_s, sample_count, known_count, active_count,
    memory_mib_p99, activity_p95.
    """
    held = tables["pod_allocation"]
    is_open = (held.starts_at <= now) & (held.ends_at.isnull() | (held.ends_at > now))
    held = held.filter(is_open, held.slice.isnull()).mutate(
        name=ibis.coalesce(
            held.workload_kind + "/" + held.namespace + "/" + held.workload,
            ibis.literal("Pod/") + held.namespace + "/" + held.pod,
        ),
        from_at=ibis.greatest(held.starts_at, ibis.literal(since)),
    )
    holds = held.group_by("cluster", "name", "gpu").agg(
        workspace=held.workspace.max(),
        owner=held.owner.max(),
        fraction=held.fraction.sum(),
        from_at=held.from_at.min(),
        pod_uid=held.pod_uid.max(),
    )
    holds = holds.mutate(
        pod_count=holds.count().over(ibis.window(group_by="gpu")),
        pod_gpus=holds.count().over(ibis.window(group_by="pod_uid")),
    )
    gpus = tables["gpu"].select("gpu", "model", "memory_mib", "mig_enabled", gpu_uuid=tables["gpu"].uuid)
    holds = holds.join(gpus, "gpu").mutate(is_mig=ibis._.mig_enabled.coalesce(False))
    samples = tables["gpu_sample"]
    samples = samples.filter(samples.ts >= since, samples.ts < now)
    met = samples.join(holds.select("gpu", "is_mig", "from_at").distinct(), "gpu")
    met = met.filter(met.ts >= met.from_at)
    met = met.mutate(strongest=strongest_activity(met), best=ibis.coalesce(met.sm_activity, met.gr_activity))
    used = met.group_by("gpu", "from_at").agg(
        sample_count=met.count(),
        known_count=met.strongest.count(),
        active_count=met.strongest.count(where=met.strongest > ACTIVE_ABOVE),
        memory_mib_p99=met.memory_used_mib.cast("float64").quantile(0.99),
        activity_p95=met.best.cast("float64").quantile(0.95),
    )
    joined = holds.left_join(used, ["gpu", "from_at"])
    return joined.select(
        "cluster", "workspace", "owner", "gpu_uuid", "model", "memory_mib", "fraction", "pod_count", "pod_gpus",
        "is_mig",
        workload=joined.name,
        held_s=ibis.literal(now).epoch_seconds() - joined.from_at.epoch_seconds(),
        **{name: joined[name].coalesce(0) for name in ("sample_count", "known_count", "active_count")},
        memory_mib_p99=joined.memory_mib_p99,
        activity_p95=joined.activity_p95,
    )  # fmt: skip


def rightsize(
    used: pl.DataFrame, policy: IdlePolicy, interval_s: float, rates: Mapping[str, Decimal] | None = None
) -> list[Recommendation]:
    """Return recommendations from a frame that `held_use` made, largest saving first.

    Only workloads held for a day at least, and only from samples that cover `coverage_min` of it: what is not known
    is recommended nothing. `interval_s` is the sampling interval, `rates` the price of each GPU in USD an hour.
    """
    groups: dict[tuple[str, str], list[dict[str, object]]] = defaultdict(list)
    for row in used.iter_rows(named=True):
        groups[row["cluster"], row["workload"]].append(row)
    found = [_of_workload(rows, policy, interval_s, rates or {}) for _, rows in sorted(groups.items())]
    kept = [recommendation for recommendation in found if recommendation is not None]
    return sorted(kept, key=lambda each: (-(each.saving_usd_per_hour or Decimal(0)), each.cluster, each.workload))


def _of_workload(
    rows: Sequence[Mapping[str, object]], policy: IdlePolicy, interval_s: float, rates: Mapping[str, Decimal]
) -> Recommendation | None:
    if any(not _is_known(row, policy, interval_s) or _number(row["pod_count"]) != 1 for row in rows):
        return None
    still = [row for row in rows if _number(row["active_count"]) <= policy.active_samples_max]
    if len(still) == len(rows):
        advice = _Advice("Remove", 0.0, None, _saved(still, 1.0, rates), _LOW, f"none of {len(rows)} GPUs worked")
        return _recommendation(rows, advice)
    if still:
        reason = f"{len(still)} of {len(rows)} GPUs never worked"
        wanted = float(len(rows) - len(still))
        return _recommendation(rows, _Advice("Optimize", wanted, None, _saved(still, 1.0, rates), _MEDIUM, reason))
    # Pods of several GPUs work through NVLink and shared memory, which parts of GPUs do not have.
    shared = _shared(rows, policy, rates) if all(_number(row["pod_gpus"]) == 1 for row in rows) else None
    return None if shared is None else _recommendation(rows, shared)


@dataclass(frozen=True, slots=True)
class _Advice:
    """What is recommended, without what it is recommended for."""

    kind: str
    gpus_wanted: float
    device: str | None
    saving_usd_per_hour: Decimal | None
    risk: str
    reason: str


def _shared(rows: Sequence[Mapping[str, object]], policy: IdlePolicy, rates: Mapping[str, Decimal]) -> _Advice | None:
    row = rows[0]
    memories = [value for each in rows if isinstance(value := each["memory_mib_p99"], float)]
    activities = [value for each in rows if isinstance(value := each["activity_p95"], float)]
    total = row["memory_mib"]
    alike = {(each["model"], each["memory_mib"], each["is_mig"]) for each in rows}
    if len(memories) < len(rows) or len(activities) < len(rows) or len(alike) > 1 or row["is_mig"] is True:
        return None
    memory, activity = max(memories), max(activities)
    size = smaller_size(
        row["model"] if isinstance(row["model"], str) else None,
        total if isinstance(total, int) else None,
        memory * policy.memory_margin,
        activity * policy.activity_margin,
    )
    if size is None:
        return None
    risk = _LOW if size.way == "mig" and activity * 2 <= size.part else _MEDIUM
    if size.way == "time_slicing":
        risk = _HIGH  # nothing keeps those that share a GPU's time out of each other's memory
    reason = f"99 % of the time under {memory:,.0f} MiB, 95 % of the time under {activity:.0%} of the GPU"
    saving = _saved(rows, 1 - size.part, rates)
    return _Advice("Share", size.part * len(rows), size.name, saving, risk, reason)


def _recommendation(rows: Sequence[Mapping[str, object]], advice: _Advice) -> Recommendation:
    first = rows[0]
    memory = [value for row in rows if isinstance(value := row["memory_mib_p99"], float)]
    activity = [value for row in rows if isinstance(value := row["activity_p95"], float)]
    return Recommendation(
        cluster=str(first["cluster"]),
        workload=str(first["workload"]),
        workspace=first["workspace"] if isinstance(first["workspace"], str) else None,
        owner=first["owner"] if isinstance(first["owner"], str) else None,
        kind=advice.kind,
        gpus_held=sum(_number(row["fraction"]) for row in rows),
        gpus_wanted=advice.gpus_wanted,
        device=advice.device,
        memory_mib_p99=max(memory, default=None),
        activity_p95=max(activity, default=None),
        saving_usd_per_hour=advice.saving_usd_per_hour,
        risk=advice.risk,
        reason=advice.reason,
    )


def _is_known(row: Mapping[str, object], policy: IdlePolicy, interval_s: float) -> bool:
    held_s = _number(row["held_s"])
    if held_s < _LEAST_DAYS.total_seconds() or interval_s <= 0:
        return False
    return _number(row["known_count"]) >= policy.coverage_min * (held_s // interval_s)


def _saved(rows: Sequence[Mapping[str, object]], part: float, rates: Mapping[str, Decimal]) -> Decimal | None:
    """Return the price of `part` of these GPUs an hour; None where one of them is unpriced."""
    prices = [rates.get(str(row["gpu_uuid"])) for row in rows]
    known = [price for price in prices if price is not None]
    if len(known) < len(prices):
        return None
    return (sum(known, Decimal(0)) * Decimal(repr(part))).quantize(_MICRO)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
