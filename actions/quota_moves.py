"""A choice of quotas as moves: who gives comes first, and each carries what it is expected to cost or gain."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from actions.evidence import Draft, carried
from actions.quota_choice import Choice, Claim, unmet
from actions.quota_demand import MEDIAN, UPPER, number
from fleet.move import Move, MoveKind
from fleet.state import ObjectRef, Quota
from fleet.verdict import Verdict

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Weighed:
    """One quota, its verdict and its claim."""

    verdict: Verdict
    quota: Quota
    claim: Claim


@dataclass(frozen=True, slots=True)
class _Effect:
    """What a change does to one workspace's expected unmet demand (GPUs), and what one GPU more or less would do."""

    before: float
    after: float
    one_more: float
    one_less: float


def drafts_of(weighed: Sequence[Weighed], choice: Choice, lent: float, pool: int) -> list[Draft]:
    """Return the moves of one pool, the `pool`-th of the plan; its sum never exceeds what it was at any moment."""
    pairs = sorted(zip(weighed, choice.changes, strict=True), key=lambda pair: pair[1] > 0)
    effects = [_effect(each.claim, change, lent) for each, change in pairs]
    whole = {
        "moved_gpus": choice.moved,
        "gain_of_first_gpu": round(choice.gains[0], _DIGITS) if choice.gains else 0.0,
        "gain_of_last_gpu": round(choice.gains[-1], _DIGITS) if choice.gains else 0.0,
        "pool_unmet_gpus_before": round(sum(effect.before for effect in effects), _DIGITS),
        "pool_unmet_gpus_after": round(sum(effect.after for effect in effects), _DIGITS),
        "borrowed_counts_as_met": round(lent, _DIGITS),
    }
    return [
        _draft(each, change, effect, whole, (2.0, float(pool), float(place)))
        for place, ((each, change), effect) in enumerate(zip(pairs, effects, strict=True))
        if change != 0
    ]


def _effect(claim: Claim, change: int, lent: float) -> _Effect:
    becomes = claim.quota + change
    at = unmet(claim, np.array([claim.quota, becomes, becomes + 1, max(0.0, becomes - 1)]), lent)
    before, after, more, less = (float(value) for value in at)
    return _Effect(before, after, after - more, less - after)


def _draft(weighed: Weighed, change: int, effect: _Effect, whole: dict[str, float], order: tuple[float, ...]) -> Draft:
    quota, verdict = weighed.quota, weighed.verdict
    median, upper = number(verdict.evidence[MEDIAN]), number(verdict.evidence.get(UPPER))
    most = "" if upper is None else f", at most {upper:.1f}"
    forecast = "an unknown forecast" if median is None else f"a forecast of {median:.1f} GPUs{most}"
    expected = f"expected unmet demand {effect.before:.1f} -> {effect.after:.1f} GPUs"
    becomes = quota.gpus + change
    lends = _lends(quota, becomes)
    before = {"gpus": quota.gpus, "borrowing_gpus": quota.borrowing_gpus} | dict.fromkeys(lends, quota.lending_gpus)
    weighing = {
        **whole,
        "unmet_gpus_before": round(effect.before, _DIGITS),
        "unmet_gpus_after": round(effect.after, _DIGITS),
        "one_gpu_more_gains": round(effect.one_more, _DIGITS),
        "one_gpu_less_costs": round(effect.one_less, _DIGITS),
        "cost": weighed.claim.cost,
    }
    move = Move(
        move_id="",
        kind=MoveKind.SET_QUOTA,
        cluster=quota.cluster,
        target=ObjectRef("Quota", "", quota.workspace),
        cause=f"rebalance {quota.pool or 'any pool'} {quota.model or 'any model'}",
        reason=f"workspace {quota.workspace} has a quota of {quota.gpus:g} and {forecast}; {expected}",
        gpus=float(abs(change)),
        workspace=quota.workspace,
        pool=quota.pool,
        arguments={
            "gpus": becomes,
            "pool": quota.pool,
            "model": quota.model,
            "borrowing_gpus": quota.borrowing_gpus,
            **lends,
        },
        resource_version=quota.resource_version,
        risk=(f"a burst above {becomes:g} GPUs waits or borrows" if change < 0 else "none: it may only use more"),
        evidence=MappingProxyType({**carried((verdict,), before), "weighing": weighing}),
    )
    return Draft(move, (verdict,), order)


def _lends(quota: Quota, becomes: float) -> dict[str, float]:
    """Return what may be lent where less is left than that: Kueue lets no queue lend more than it has."""
    is_less = quota.lending_gpus is not None and becomes < quota.lending_gpus
    return {"lending_gpus": becomes} if is_less else {}
