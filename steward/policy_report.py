"""Policies side by side: each measure of what they would have done, and the rows behind the measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from statistics import median

from actions.kinds import rule_of
from steward.policy_effects import Fence, Reclaim, read_faults, reckon_fences, reckon_reclaims, unfenced
from steward.policy_jobs import JobShift, shift_jobs
from steward.policy_replay import Past, Replayed
from store.store import Store

_HOUR = timedelta(hours=1)
_REASONS_SHOWN = 10
Number = float | Decimal | None


@dataclass(frozen=True, slots=True)
class Limits:
    """When a reclaim counts as wrong: wanted again within `grace`, or within `within`."""

    grace: timedelta = timedelta(hours=1)
    within: timedelta = timedelta(hours=4)


@dataclass(frozen=True, slots=True)
class Worth:
    """Everything that is reckoned of one replayed policy."""

    run: Replayed
    reclaims: tuple[Reclaim, ...]
    fences: tuple[Fence, ...]
    unfenced_gpus: Mapping[str, tuple[object, str]]
    on_freed: JobShift
    on_fenced: JobShift
    days: float


def reckon(store: Store, past: Past, run: Replayed) -> Worth:
    """Hold a replayed policy against the record."""
    reclaims, faults = reckon_reclaims(run, past), read_faults(store, past)
    fences = reckon_fences(run, faults)
    return Worth(
        run,
        tuple(reclaims),
        tuple(fences),
        unfenced(fences, faults, past),
        shift_jobs(store, past, reclaims, []),
        shift_jobs(store, past, [], fences),
        (past.stretch.until - past.stretch.since) / timedelta(days=1),
    )


def measures(worth: Worth, limits: Limits) -> dict[str, Number]:
    """Return every measure by name; None is "not known", never nothing."""
    reclaims, fences = worth.reclaims, worth.fences
    priced = [each.usd for each in reclaims if each.usd is not None]
    early = [each for each in reclaims if is_wrong(each, limits.grace)]
    wrong = [each for each in reclaims if is_wrong(each, limits.within)]
    wanted = [each for each in reclaims if each.worked_at is not None]
    leads = [fence.lead_h for fence in fences if fence.lead_h is not None]
    return {
        "moves": float(len(worth.run.made)),
        "moves a day": len(worth.run.made) / worth.days,
        "workloads reclaimed": float(len(reclaims)),
        "GPU-hours reclaimed": sum(each.gpu_hours for each in reclaims),
        "USD reclaimed": sum(priced, Decimal(0)) if priced or not reclaims else None,
        "reclaims without a price": float(len(reclaims) - len(priced)),
        f"wrong: wanted within {_span(limits.grace)}": float(len(early)),
        f"wrong: wanted within {_span(limits.within)}": float(len(wrong)),
        "wrong share": len(wrong) / len(reclaims) if reclaims else None,
        "wanted later": float(len(wanted) - len(wrong)),
        "never wanted again": float(len(reclaims) - len(wanted)),
        "workspaces hurt": float(len({each.workspace for each in wrong})),
        "jobs started earlier": _count(worth.on_freed.earlier),
        "hours of waiting saved": worth.on_freed.saved_h,
        "jobs later for GPUs taken back": _count(worth.on_freed.later),
        "GPUs and nodes fenced": float(len(fences)),
        "fenced before the fault": float(sum(lead > 0 for lead in leads)),
        "fenced after the fault": float(sum(lead <= 0 for lead in leads)),
        "median hours, fault to fence": -median(lag) if (lag := [each for each in leads if each <= 0]) else None,
        "fenced without a fault event": float(len(fences) - len(leads)),
        "faulty GPUs not fenced in a day": float(len(worth.unfenced_gpus)),
        "jobs later for fences": _count(worth.on_fenced.later),
        "quota moves": float(sum(rule_of(each.move) == "rebalance" for each in worth.run.made)),
        "peak of the hourly budget": _peak(worth.run),
        "held back, subjects": float(len(set().union(*worth.run.held_subjects.values()))),
    }


def side_by_side(worths: Sequence[Worth], limits: Limits) -> list[dict[str, object]]:
    """Return a row a measure with a column a policy, and the difference of the second from the first."""
    columns = [measures(worth, limits) for worth in worths]
    rows = []
    for name in columns[0]:
        row: dict[str, object] = {"measure": name}
        values = [column[name] for column in columns]
        row |= {worth.run.candidate.name: value for worth, value in zip(worths, values, strict=True)}
        if len(values) > 1:
            row["difference"] = _difference(values[0], values[1])
        rows.append(row)
    return rows


def is_wrong(reclaim: Reclaim, within: timedelta) -> bool:
    """Return whether what was reclaimed was wanted again so soon."""
    return reclaim.wanted_after is not None and reclaim.wanted_after <= within


def detail_of(worth: Worth, limits: Limits) -> dict[str, object]:
    """Return the rows behind the measures: reclaims, fences, GPUs that were missed, and what was held back and why."""
    return {
        "policy": worth.run.candidate.name,
        "steps": worth.run.steps,
        "verdicts": {f"{topic} {by}": count for (topic, by), count in sorted(worth.run.known_by.items())},
        "reclaims": [_reclaim_row(each, limits) for each in worth.reclaims],
        "fences": [_fence_row(each) for each in worth.fences],
        "not_fenced": [
            {"gpu": uuid, "fault_at": at, "fault": fault} for uuid, (at, fault) in sorted(worth.unfenced_gpus.items())
        ],
        "held_back": held_rows(worth.run),
        "peak_gpus_an_hour": {rule: gpus for rule, gpus in worth.run.peak_gpus.items() if gpus > 0},
    }


def held_rows(run: Replayed) -> list[dict[str, object]]:
    """Return the reasons for which most was held back: subjects, and at how many steps in sum."""
    return [
        {"action": action, "reason": reason, "subjects": len(run.held_subjects[action, reason]), "times": times}
        for (action, reason), times in run.held.most_common(_REASONS_SHOWN)
    ]


def _reclaim_row(each: Reclaim, limits: Limits) -> dict[str, object]:
    after = each.wanted_after
    return {
        "at": each.at,
        "workload": each.workload,
        "cluster": each.cluster,
        "workspace": each.workspace,
        "owner": each.owner,
        "gpus": each.gpus,
        "gpu_hours": each.gpu_hours,
        "usd": each.usd,
        "freed_until": each.freed_until,
        "worked_at": each.worked_at,
        "wanted_after_h": None if after is None else after / _HOUR,
        "is_wrong": is_wrong(each, limits.within),
        "within_grace": is_wrong(each, limits.grace),
    }


def _fence_row(each: Fence) -> dict[str, object]:
    return {
        "at": each.at,
        "kind": each.kind,
        "cluster": each.cluster,
        "node": each.node,
        "gpus": list(each.gpu_uuids),
        "rule": each.rule,
        "fault_at": each.fault_at,
        "fault": each.fault,
        "lead_h": each.lead_h,
        "given_back_at": each.ends_at,
    }


def _peak(run: Replayed) -> float | None:
    limit = run.candidate.settings.actions.budget.max_gpus_per_hour
    return max(run.peak_gpus.values(), default=0.0) / limit if limit > 0 else None


def _count(number: int | None) -> float | None:
    return None if number is None else float(number)


def _difference(one: Number, other: Number) -> Number:
    if one is None or other is None:
        return None
    if isinstance(one, Decimal) or isinstance(other, Decimal):
        return Decimal(str(other)) - Decimal(str(one))
    return other - one


def _span(length: timedelta) -> str:
    hours = length / _HOUR
    return f"{hours:g} h" if hours >= 1 else f"{hours * 60:g} min"
