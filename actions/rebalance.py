"""The rule that moves guaranteed quota to where it leaves the least demand unmet.

In each pool, whole GPUs go from the workspaces that would miss them least to those that lack them most, by their
forecasts' distributions (`quota_choice.py`), never below what the giver holds, was promised, or is likely to want. The
sum of a pool stays what it was, and no plan takes back what the one before it gave on the same forecasts.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from actions.budget import Made, Spending, gpus_left
from actions.evidence import Draft, Proposal, hold, is_below, why_unfit
from actions.index import FleetIndex
from actions.policy import ActionPolicy
from actions.quota_check import Standing, why_unsound
from actions.quota_choice import Choice, Claim, Thresholds, choose, lending_odds, share_out
from actions.quota_demand import MEDIAN, QUANTILES, UPPER, Outlook, number, outlook_of
from actions.quota_held import HeldGpus
from actions.quota_moves import Weighed, drafts_of
from actions.quota_rest import Rests, rests_of
from actions.rebalance_policy import RebalancePolicy
from fleet.move import HeldBack
from fleet.state import Quota
from fleet.verdict import Verdict

__all__ = ["MEDIAN", "QUANTILES", "TOPIC", "UPPER", "propose_rebalance", "share_out"]

TOPIC = "demand"
QUOTA = "quota_gpus"
_Group = tuple[str, str | None, str | None]  # cluster, pool, model
_HAIR = 1e-9  # so that 3.0000000000000004 GPUs are three


@dataclass(frozen=True, slots=True)
class _Need:
    """One workspace's quota beside its outlook, whether it may change now, and why it has to stay, where it has to."""

    verdict: Verdict
    quota: Quota
    outlook: Outlook
    may_get: bool
    may_give: bool
    why_fixed: str | None


@dataclass(frozen=True, slots=True)
class _Books:
    """What the rule looks up again and again, made once a turn."""

    quotas: Mapping[str, Sequence[Quota]]
    pools: Mapping[_Group, Sequence[Quota]]
    rests: Rests
    held: HeldGpus


def propose_rebalance(
    index: FleetIndex, verdicts: Sequence[Verdict], policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> Proposal:
    """Return quota moves that keep each pool's sum, and the workspaces that stay short and why."""
    held: list[HeldBack] = []
    found: dict[_Group, list[_Need]] = defaultdict(list)
    books = _books(index, policy.rebalance, recent, now)
    for verdict in verdicts:
        if verdict.topic != TOPIC or verdict.subject_kind != "workspace" or MEDIAN not in verdict.evidence:
            continue
        need = _need(verdict, books, policy, now)
        if isinstance(need, str):
            held.append(hold(verdict, need))
        else:
            found[need.quota.cluster, need.quota.pool, need.quota.model].append(need)
    pools = []
    for key in sorted(found, key=str):
        needs, doubled = _alone(found[key])
        held.extend(hold(need.verdict, "several verdicts speak of the same quota") for need in doubled)
        pools.append(_weigh(key, needs, books, policy.rebalance))
    left = gpus_left("rebalance", Spending(tuple(recent)), policy.budget, now)
    drafts: list[Draft] = []
    for place, (pool, choice) in enumerate(_within(pools, left, policy.rebalance)):
        reason = why_unsound(_standings(pool, choice, books, policy.rebalance)) if choice.moved > 0 else None
        if reason is not None:
            held.extend(hold(need.verdict, reason) for need, change in _pairs(pool, choice) if change != 0)
            continue
        drafts.extend(drafts_of(pool.weighed, choice, pool.lent, place))
        held.extend(_short(pool, choice, policy.rebalance))
    return Proposal(tuple(drafts), tuple(held))


@dataclass(frozen=True, slots=True)
class _Pool:
    """The quotas of one group, weighed."""

    key: _Group
    needs: tuple[_Need, ...]
    weighed: tuple[Weighed, ...]
    limit: int
    lent: float

    @property
    def claims(self) -> list[Claim]:
        """Return the claims in the order of their workspaces."""
        return [each.claim for each in self.weighed]


def _books(index: FleetIndex, policy: RebalancePolicy, recent: Sequence[Made], now: datetime) -> _Books:
    quotas: dict[str, list[Quota]] = defaultdict(list)
    pools: dict[_Group, list[Quota]] = defaultdict(list)
    for quota in index.state.quotas:
        quotas[quota.workspace].append(quota)
        if number(quota.gpus) is not None:
            pools[quota.cluster, quota.pool, quota.model].append(quota)
    return _Books(quotas, pools, rests_of(recent, policy, now), HeldGpus(index))


def _need(verdict: Verdict, books: _Books, policy: ActionPolicy, now: datetime) -> _Need | str:
    reason = _why_not_judged(verdict, policy, now)
    if reason is not None:
        return reason
    quota = _quota(verdict, books)
    if isinstance(quota, str):
        return quota
    outlook = outlook_of(verdict.evidence)
    if isinstance(outlook, str):
        return outlook
    if number(quota.gpus) is None or (quota.borrowing_gpus is not None and number(quota.borrowing_gpus) is None):
        return f"its quota of {quota.gpus}, borrowing {quota.borrowing_gpus}, is not a number of GPUs"
    believed = number(verdict.evidence.get(QUOTA))
    if believed is not None and believed != quota.gpus:
        return f"its quota was {believed:g} when it was judged and is {quota.gpus:g} now"
    rests, hours = books.rests, policy.rebalance.cooldown_h
    is_still = rests.is_still(quota)
    why = f"its quota was set by others, taken back, or perhaps moved within the last {hours:g} h" if is_still else None
    may_get, may_give = not is_still and rests.may_get(quota), not is_still and rests.may_give(quota)
    return _Need(verdict, quota, outlook, may_get, may_give, why)


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


def _quota(verdict: Verdict, books: _Books) -> Quota | str:
    pool, model = verdict.evidence.get("pool"), verdict.evidence.get("model")
    found = [
        quota
        for quota in books.quotas.get(verdict.subject, ())
        if verdict.cluster in {None, quota.cluster} and pool in {None, quota.pool} and model in {None, quota.model}
    ]
    if len(found) == 1:
        return found[0]
    return "it has several quotas and the forecast does not say which" if found else "it has no quota here"


def _alone(needs: Sequence[_Need]) -> tuple[list[_Need], list[_Need]]:
    """Return the needs of quotas that one verdict speaks of, by workspace, and the others."""
    counts = Counter(need.quota.workspace for need in needs)
    ordered = sorted(needs, key=lambda need: need.quota.workspace)
    return (
        [need for need in ordered if counts[need.quota.workspace] == 1],
        [need for need in ordered if counts[need.quota.workspace] > 1],
    )


def _weigh(key: _Group, needs: Sequence[_Need], books: _Books, policy: RebalancePolicy) -> _Pool:
    claims = [_claim(need, books.held.of(need.quota), policy) for need in needs]
    lent = policy.borrowed_worth * lending_odds(claims)
    whole = sum(quota.gpus for quota in books.pools[key])
    limit = max(0, math.floor(policy.max_churn_share * whole + _HAIR))
    weighed = tuple(Weighed(need.verdict, need.quota, claim) for need, claim in zip(needs, claims, strict=True))
    return _Pool(key, tuple(needs), weighed, limit, lent)


def _claim(need: _Need, held: float, policy: RebalancePolicy) -> Claim:
    quota, outlook, terms = need.quota, need.outlook, policy.terms_of(need.quota.workspace)
    kept = math.ceil(outlook.at(policy.keep_level) * (1 + policy.headroom) - _HAIR)
    return Claim(
        quota.workspace,
        quota.gpus,
        outlook.scenarios(),
        least=max(kept, terms.guarantee_gpus, held) if outlook.has_spread else quota.gpus,
        borrowing=quota.borrowing_gpus,
        cost=terms.cost,
        may_get=need.may_get,
        may_give=need.may_give,
    )


def _within(pools: Sequence[_Pool], left: float, policy: RebalancePolicy) -> list[tuple[_Pool, Choice]]:
    """Return each pool with its choice; where the hour's budget is short it goes to the moves that gain most."""
    bounds = Thresholds(policy.min_gain_gpus, policy.min_gain_share, policy.min_gpus)
    chosen = [choose(pool.claims, pool.limit, bounds, pool.lent) for pool in pools]
    there = max(0, math.floor(left + _HAIR))
    if sum(choice.moved for choice in chosen) > there:
        gains = [(-gain, place, rank) for place, one in enumerate(chosen) for rank, gain in enumerate(one.gains)]
        counts = Counter(place for _, place, _ in sorted(gains)[:there])
        cut = Thresholds(min_gpus=policy.min_gpus)  # that a plan is worth it was seen before it was cut
        chosen = [choose(pool.claims, counts[place], cut, pool.lent) for place, pool in enumerate(pools)]
    return list(zip(pools, chosen, strict=True))


def _pairs(pool: _Pool, choice: Choice) -> list[tuple[_Need, int]]:
    return list(zip(pool.needs, choice.changes, strict=True))


def _standings(pool: _Pool, choice: Choice, books: _Books, policy: RebalancePolicy) -> list[Standing]:
    """Return how every workspace with a quota in the pool stands, those that nothing was forecast of too."""
    changes = {need.quota.workspace: change for need, change in _pairs(pool, choice)}
    by_workspace: dict[str, list[Quota]] = defaultdict(list)
    for quota in books.pools[pool.key]:
        by_workspace[quota.workspace].append(quota)
    standings = []
    for workspace, quotas in sorted(by_workspace.items()):
        before = sum(quota.gpus for quota in quotas)
        standings.append(
            Standing(
                workspace,
                books.held.of(quotas[0]),
                before,
                before + changes.get(workspace, 0),
                None if quotas[0].borrowing_gpus is None else number(quotas[0].borrowing_gpus),
                policy.terms_of(workspace).weight,
            )
        )
    return standings


def _short(pool: _Pool, choice: Choice, policy: RebalancePolicy) -> list[HeldBack]:
    held = [hold(need.verdict, need.why_fixed) for need in pool.needs if need.why_fixed is not None]
    for need, change in _pairs(pool, choice):
        lacking = math.ceil(need.outlook.median - need.quota.gpus - _HAIR)
        short = lacking - max(change, 0)
        if need.why_fixed is None and lacking >= policy.min_gpus and short > 0:
            rests = f"it gave quota within the last {policy.turn_round_h:g} h"
            why = "no more spare quota, churn or budget in its pool" if need.may_get else rests
            held.append(hold(need.verdict, f"{short} GPUs short: {why}", float(short)))
    return held
