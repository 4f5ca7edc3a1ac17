"""The rule that lets pools grow before they run out, and takes back limits that nothing will need.

Two thresholds of the odds lie apart, and a limit never falls below what would make it grow again, so it does not swing.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from actions.budget import Made
from actions.evidence import Draft, Proposal, carried, hold, why_unfit
from actions.index import FleetIndex
from actions.policy import ActionPolicy
from actions.rule_policies import PoolPolicy
from fleet.move import HeldBack, Move, MoveKind
from fleet.state import PoolLimit
from fleet.verdict import Verdict

TOPIC = "capacity"
ODDS, PEAK = "probability", "peak_gpus_upper"
_BUFFER = "CapacityBuffer"
_HAIR = 1e-9


def calls_for_pool(verdict: Verdict) -> bool:
    """Return whether a verdict tells how likely a pool is to run out."""
    return verdict.topic == TOPIC and verdict.subject_kind == "pool"


def propose_pools(
    index: FleetIndex, verdicts: Sequence[Verdict], policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> Proposal:
    """Return new limits for the pools whose odds call for one, and why others stay."""
    drafts: list[Draft] = []
    held: list[HeldBack] = []
    for verdict in verdicts:
        if not calls_for_pool(verdict):
            continue
        limits = [each for each in index.state.pools if (each.pool or each.ref.name) == verdict.subject
                  and verdict.cluster in {None, each.cluster}]  # fmt: skip
        if not limits and verdict.action not in {None, "none"}:
            held.append(hold(verdict, "no pool of this name has a limit that can be set"))
        for limit in limits:
            step = _why_cooling(limit, policy.pool, recent, now) or _step(verdict, limit, index, policy, now)
            if isinstance(step, Draft):
                drafts.append(step)
            elif verdict.action not in {None, "none"}:
                held.append(hold(verdict, f"{limit.ref}: {step}"))
    return Proposal(tuple(drafts), tuple(held))


def _step(verdict: Verdict, limit: PoolLimit, index: FleetIndex, policy: ActionPolicy, now: datetime) -> Draft | str:
    evidence = policy.evidence
    reason = why_unfit(verdict, evidence, now, max_sample_age_s=evidence.max_event_age_s, needs_coverage=False)
    odds, peak = _number(verdict, ODDS), _number(verdict, PEAK)
    if reason is not None or odds is None or peak is None:
        return reason or "its evidence lacks the odds, or the peak"
    if limit.limit is None:
        return "it has no limit"
    becomes = _wanted(limit, odds, peak, _held(limit, index), policy.pool)
    if becomes == limit.limit:
        return f"odds of {odds:.0%} and a peak of {peak:g} GPUs leave its limit of {limit.limit:g} as it is"
    return _set(verdict, limit, becomes, odds, peak)


def wanted_gpus(limit: float, odds: float, peak: float, held: float, policy: PoolPolicy) -> float:
    """Return the limit in GPUs that a pool should have: as it is between the two odds, else a bounded step."""
    step = policy.step_gpus
    kept = max(peak * (1 + policy.headroom), held)
    wanted = math.ceil(kept / step - _HAIR) * step
    if odds >= policy.grow_odds and wanted > limit:
        most = math.ceil(limit * (1 + policy.max_step_share) / step - _HAIR) * step
        return min(float(wanted), float(max(most, limit)), max(policy.max_gpus, limit))
    if odds <= policy.shrink_odds and wanted < limit:
        least = math.floor(limit * (1 - policy.max_step_share) / step + _HAIR) * step
        return min(max(float(wanted), float(least), policy.min_gpus), limit)
    return limit


def _wanted(limit: PoolLimit, odds: float, peak: float, held: float, policy: PoolPolicy) -> float:
    current = limit.limit if limit.limit is not None else 0.0
    if limit.ref.kind != _BUFFER:
        return wanted_gpus(current, odds, peak, held, policy)
    # spare replicas come and go one by one: nobody says how many GPUs one is
    if odds >= policy.grow_odds:
        return current + 1
    return max(0.0, current - 1) if odds <= policy.shrink_odds else current


def _held(limit: PoolLimit, index: FleetIndex) -> float:
    place = (limit.cluster, limit.pool or limit.ref.name)
    mine = {gpu.uuid for gpu in index.gpus_by_pool.get(place, ())}
    busy = {uuid for pod in index.state.pods for uuid in pod.gpu_uuids if uuid in mine}
    return float(len(busy))


def _why_cooling(limit: PoolLimit, policy: PoolPolicy, recent: Sequence[Made], now: datetime) -> str | None:
    is_recent = any(
        made.move.kind is MoveKind.SET_POOL_LIMIT
        and (made.move.cluster, made.move.target) == (limit.cluster, limit.ref)
        and now - made.at < timedelta(hours=policy.cooldown_h)
        for made in recent
    )
    return f"it was set within the last {policy.cooldown_h:g} h" if is_recent else None


def _set(verdict: Verdict, limit: PoolLimit, becomes: float, odds: float, peak: float) -> Draft:
    before = limit.limit if limit.limit is not None else 0.0
    is_growth = becomes > before
    unit = "spare replicas" if limit.ref.kind == _BUFFER else "GPUs"
    move = Move(
        move_id="",
        kind=MoveKind.SET_POOL_LIMIT,
        cluster=limit.cluster,
        target=limit.ref,
        cause=verdict.rule,
        reason=f"pool {verdict.subject} runs out with a probability of {odds:.0%} (peak {peak:g} GPUs); "
        f"{before:g} {unit} become {becomes:g}",
        gpus=abs(becomes - before) if limit.ref.kind != _BUFFER else 0.0,
        pool=limit.pool,
        arguments={"limit": becomes},
        resource_version=limit.resource_version,
        risk="it may cost more: nodes come as they are asked for" if is_growth else "a later burst waits for growth",
        evidence=carried((verdict,), {"limit": limit.limit}),
        rule="pool",
    )
    return Draft(move, (verdict,), (5.0, 0.0 if is_growth else 1.0, -odds))


def _number(verdict: Verdict, name: str) -> float | None:
    value = verdict.evidence.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
