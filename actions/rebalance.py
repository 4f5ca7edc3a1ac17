"""The rule that moves guaranteed quota from workspaces that will not use it to workspaces that lack it.

A first, plain version: who gives keeps its upper forecast and a headroom, who gets is raised to its median
forecast, whole GPUs only, the sum of a pool stays what it was. Neither side of a transfer calls for the opposite
one under the same forecasts, so plans do not swing.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from actions.budget import Made, Spending, gpus_left
from actions.evidence import Draft, Proposal, carried, hold, is_below, why_unfit
from actions.index import FleetIndex
from actions.policy import ActionPolicy, RebalancePolicy
from fleet.move import HeldBack, Move, MoveKind
from fleet.state import ObjectRef, Quota
from fleet.verdict import Verdict

TOPIC = "demand"
MEDIAN, UPPER, QUOTA = "forecast_gpus", "forecast_upper_gpus", "quota_gpus"
_Group = tuple[str, str | None, str | None]  # cluster, pool, model
_HAIR = 1e-9  # so that 3.0000000000000004 GPUs are three


@dataclass(frozen=True, slots=True)
class _Need:
    """One workspace's quota beside its forecast; `spare` and `short` are whole GPUs, one of them zero."""

    verdict: Verdict
    quota: Quota
    spare: int = 0
    short: int = 0


def propose_rebalance(
    index: FleetIndex, verdicts: Sequence[Verdict], policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> Proposal:
    """Return quota moves that keep each pool's sum, and the workspaces that stay short and why."""
    held: list[HeldBack] = []
    found: dict[_Group, dict[str, list[_Need]]] = defaultdict(lambda: defaultdict(list))
    for verdict in verdicts:
        if verdict.topic != TOPIC or verdict.subject_kind != "workspace" or MEDIAN not in verdict.evidence:
            continue
        need = _need(verdict, index, policy, now, recent)
        if isinstance(need, str):
            held.append(hold(verdict, need))
        else:
            found[need.quota.cluster, need.quota.pool, need.quota.model][need.quota.workspace].append(need)
    left = gpus_left("rebalance", Spending(tuple(recent)), policy.budget, now)
    drafts: list[Draft] = []
    for key in sorted(found, key=str):
        by_workspace = [found[key][workspace] for workspace in sorted(found[key])]
        needs = [only[0] for only in by_workspace if len(only) == 1]
        several = [need for many in by_workspace if len(many) > 1 for need in many]
        held.extend(hold(need.verdict, "several verdicts speak of the same quota") for need in several)
        changes = _changes(needs, _limit(key, index, policy.rebalance, left))
        left -= sum(change for change in changes if change > 0)
        drafts.extend(_drafts(needs, changes))
        held.extend(_short(needs, changes))
    return Proposal(tuple(drafts), tuple(held))


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """Divide `total` by `weights` into whole parts that sum to it (largest remainder, ties to the first)."""
    whole = sum(weights)
    if whole == 0:
        return [0 for _ in weights]
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda place: (-(total * weights[place] % whole), place))
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts


def _need(
    verdict: Verdict, index: FleetIndex, policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> _Need | str:
    reason = _why_not_judged(verdict, policy, now)
    if reason is not None:
        return reason
    quota = _quota(verdict, index)
    if isinstance(quota, str):
        return quota
    median = _number(verdict.evidence, MEDIAN)
    if median is None:
        return f"its {MEDIAN} is not a number of GPUs"
    believed = _number(verdict.evidence, QUOTA)
    if believed is not None and believed != quota.gpus:
        return f"its quota was {believed:g} when it was judged and is {quota.gpus:g} now"
    if _is_cooling(quota, policy.rebalance, recent, now):
        return f"its quota was moved within the last {policy.rebalance.cooldown_h:g} h"
    short = max(0, math.ceil(median - quota.gpus - _HAIR))
    spare = _spare(verdict, quota, median, index, policy.rebalance)
    minimum = policy.rebalance.min_gpus
    return _Need(verdict, quota, spare if spare >= minimum else 0, short if short >= minimum else 0)


def _why_not_judged(verdict: Verdict, policy: ActionPolicy, now: datetime) -> str | None:
    if not policy.rebalance.is_enabled:
        return "rebalancing is off"
    reason = why_unfit(verdict, policy.evidence, now, max_sample_age_s=policy.evidence.max_age_s, needs_coverage=False)
    if reason is not None:
        return reason
    if is_below(verdict.coverage, policy.evidence.min_coverage):
        return f"its evidence covers {verdict.coverage}; {policy.evidence.min_coverage:g} is needed"
    if verdict.subject in policy.rebalance.protected_workspaces:
        return f"workspace {verdict.subject} is protected"
    return None


def _quota(verdict: Verdict, index: FleetIndex) -> Quota | str:
    pool, model = verdict.evidence.get("pool"), verdict.evidence.get("model")
    found = [
        quota
        for quota in index.state.quotas
        if quota.workspace == verdict.subject
        and verdict.cluster in {None, quota.cluster}
        and pool in {None, quota.pool}
        and model in {None, quota.model}
    ]
    if len(found) == 1:
        return found[0]
    return "it has several quotas and the forecast does not say which" if found else "it has no quota here"


def _spare(verdict: Verdict, quota: Quota, median: float, index: FleetIndex, policy: RebalancePolicy) -> int:
    upper = _number(verdict.evidence, UPPER)
    if upper is None or upper < median:
        return 0
    held = sum(
        index.gpus_held(workload)
        for workload in index.state.workloads
        if (workload.cluster, workload.workspace) == (quota.cluster, quota.workspace) and not workload.is_suspended
    )
    kept = max(math.ceil(upper * (1 + policy.headroom) - _HAIR), math.ceil(held - _HAIR))
    return max(0, math.floor(quota.gpus - kept + _HAIR))


def _is_cooling(quota: Quota, policy: RebalancePolicy, recent: Sequence[Made], now: datetime) -> bool:
    return any(
        made.move.kind is MoveKind.SET_QUOTA
        and (made.move.cluster, made.move.target.name) == (quota.cluster, quota.workspace)
        and (made.move.arguments.get("pool"), made.move.arguments.get("model")) == (quota.pool, quota.model)
        and now - made.at < timedelta(hours=policy.cooldown_h)
        for made in recent
    )


def _limit(key: _Group, index: FleetIndex, policy: RebalancePolicy, left: float) -> int:
    whole = sum(each.gpus for each in index.state.quotas if (each.cluster, each.pool, each.model) == key)
    return max(0, math.floor(min(policy.max_churn_share * whole, left) + _HAIR))


def _changes(needs: Sequence[_Need], limit: int) -> list[int]:
    spare, short = [need.spare for need in needs], [need.short for need in needs]
    total = min(sum(spare), sum(short), limit)
    given, got = share_out(total, spare), share_out(total, short)
    return [more - less for more, less in zip(got, given, strict=True)]


def _drafts(needs: Sequence[_Need], changes: Sequence[int]) -> list[Draft]:
    # who gives comes first: the sum of a pool must not exceed what it was at any moment
    pairs = sorted(zip(needs, changes, strict=True), key=lambda pair: pair[1] > 0)
    return [_set(need, change, place) for place, (need, change) in enumerate(pairs) if change != 0]


def _set(need: _Need, change: int, place: int) -> Draft:
    quota, verdict = need.quota, need.verdict
    becomes = quota.gpus + change
    forecast = f"forecast {verdict.evidence[MEDIAN]} GPUs, at most {verdict.evidence.get(UPPER, 'unknown')}"
    move = Move(
        move_id="",
        kind=MoveKind.SET_QUOTA,
        cluster=quota.cluster,
        target=ObjectRef("Quota", "", quota.workspace),
        cause=f"rebalance {quota.pool or 'any pool'} {quota.model or 'any model'}",
        reason=f"workspace {quota.workspace} has a quota of {quota.gpus:g} and {forecast}",
        gpus=float(abs(change)),
        workspace=quota.workspace,
        pool=quota.pool,
        arguments={
            "gpus": becomes,
            "pool": quota.pool,
            "model": quota.model,
            "borrowing_gpus": quota.borrowing_gpus,
        },
        resource_version=quota.resource_version,
        risk="a burst above the upper forecast waits longer" if change < 0 else "none: it may only use more",
        evidence=carried((verdict,), {"gpus": quota.gpus, "borrowing_gpus": quota.borrowing_gpus}),
    )
    return Draft(move, (verdict,), (2.0, float(place)))


def _short(needs: Sequence[_Need], changes: Sequence[int]) -> list[HeldBack]:
    return [
        hold(
            need.verdict,
            f"{need.short - max(change, 0)} GPUs short: no more spare quota, churn or budget in its pool",
            float(need.short - max(change, 0)),
        )
        for need, change in zip(needs, changes, strict=True)
        if need.short > max(change, 0)
    ]


def _number(evidence: Mapping[str, object], name: str) -> float | None:
    value = evidence.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
