"""Choose the quotas of one pool: those that leave the least demand unmet, reached by moving few GPUs.

The expected unmet demand of a workspace is convex in its quota, and the quotas of a pool meet only in their sum. So the
best plan of m moved GPUs takes the m GPUs that are missed least and gives them where they are missed most, one by one;
no other plan of m GPUs is better (`benchmarks/rebalance.py` compares it with HiGHS and with trying all plans).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from actions.quota_demand import Floats

_Reach = Sequence[tuple[int, int]]  # GPUs that each claim may get, and give
_HAIR = 1e-9  # so that 3.0000000000000004 GPUs are three
_DIGITS = 9  # gains that differ by less are equal, and shared out
_TRIFLE = 0.01  # GPUs; a plan for less is a move for nothing
_LEAST_GAIN = 0.001  # GPUs; what the last GPU moved must gain, so that noise of the forecast moves none


@dataclass(frozen=True, slots=True)
class Claim:
    """One workspace's claim on the quota of a pool, in GPUs.

    `scenarios` are equally likely demands. `least` is what it may not be lowered below; one that may neither get nor
    give keeps its quota. `borrowing` None borrows without limit. `cost` is what a GPU that it lacks costs.
    """

    name: str
    quota: float
    scenarios: Floats
    least: float = 0.0
    borrowing: float | None = 0.0
    cost: float = 1.0
    may_get: bool = True
    may_give: bool = True


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a pool's plan must gain to be made: more than `share` of what it leaves unmet, or more than `gpus`.

    Less than a hundredth of a GPU never counts, unless `gpus` asks for nothing at all.
    """

    gpus: float = 0.0
    share: float = 0.0
    min_gpus: int = 1

    def is_passed(self, gain: float, before: float) -> bool:
        """Return whether a gain is worth a plan where `before` is unmet now (both weighted by cost)."""
        return gain > min(self.gpus, max(_TRIFLE, self.share * (before - gain)))


@dataclass(frozen=True, slots=True)
class Choice:
    """How each claim's quota changes, in whole GPUs that sum to zero, and what each moved GPU gains, falling."""

    changes: tuple[int, ...]
    gains: tuple[float, ...] = ()

    @property
    def moved(self) -> int:
        """Return how many GPUs move."""
        return len(self.gains)


def choose(claims: Sequence[Claim], limit: int, thresholds: Thresholds, lent: float = 0.0) -> Choice:
    """Return the best change of quotas that moves at most `limit` GPUs; claims in the order of their names.

    `lent` is how far a GPU that may be borrowed counts as met. No quota passes what the best choice of all would give
    it if all could get and give without limit: what goes further would be taken back. A claim that would change by less
    than `thresholds.min_gpus` keeps its quota, and the others are chosen anew.
    """
    reach = _reach(claims, limit, thresholds, lent)
    tried = list(claims)
    while True:
        choice = _best(tried, limit, thresholds, lent, reach)
        small = [0 < abs(change) < thresholds.min_gpus for change in choice.changes]
        if not any(small):
            return choice
        tried = [_fixed(claim) if is_small else claim for claim, is_small in zip(tried, small, strict=True)]


def _fixed(claim: Claim) -> Claim:
    return replace(claim, may_get=False, may_give=False)


def changed(claims: Sequence[Claim], choice: Choice) -> list[Claim]:
    """Return the claims as they are after a choice."""
    return [replace(claim, quota=claim.quota + change) for claim, change in zip(claims, choice.changes, strict=True)]


def unmet(claim: Claim, quotas: Floats, lent: float = 0.0) -> Floats:
    """Return the expected unmet demand in GPUs at each of some quotas (cost aside).

    What is above the quota is unmet, less `lent` of it as far as it may be borrowed.
    """
    beyond = np.maximum(claim.scenarios[:, None] - quotas[None, :], 0.0)
    if claim.borrowing is None:
        found: Floats = (1.0 - lent) * beyond.mean(axis=0)
    else:
        found = beyond.mean(axis=0) - lent * np.minimum(beyond, claim.borrowing).mean(axis=0)
    return found


def lending_odds(claims: Sequence[Claim]) -> float:
    """Return the probability that the pool's claims together want no more than their quotas.

    Demands are taken as independent and their sum as normal. The sum of quotas decides, not who has them, so the odds
    are the same before a plan and after it.
    """
    there = sum(claim.quota for claim in claims)
    wanted = sum(float(claim.scenarios.mean()) for claim in claims)
    variance = sum(float(claim.scenarios.var()) for claim in claims)
    if variance <= 0:
        return 1.0 if wanted <= there else 0.0
    return 0.5 * (1.0 + math.erf((there - wanted) / math.sqrt(2.0 * variance)))


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


def _reach(claims: Sequence[Claim], limit: int, thresholds: Thresholds, lent: float) -> _Reach:
    """Return how many GPUs each claim may get and give: where all are free, the limit says it."""
    if thresholds.min_gpus == 1 and all(claim.may_get and claim.may_give for claim in claims):
        return [(limit, limit) for _ in claims]
    free = [replace(claim, may_get=True, may_give=True) for claim in claims]
    there = math.ceil(sum(claim.quota for claim in claims))
    best = _best(free, there, Thresholds(), lent, [(there, there) for _ in claims])
    return [(min(limit, max(0, change)), min(limit, max(0, -change))) for change in best.changes]


def _best(claims: Sequence[Claim], limit: int, thresholds: Thresholds, lent: float, reach: _Reach) -> Choice:
    gained = [_gained(claim, up, lent) for claim, (up, _) in zip(claims, reach, strict=True)]
    missed = [_missed(claim, down, lent) for claim, (_, down) in zip(claims, reach, strict=True)]
    most, least = np.sort(np.concatenate([*gained, np.zeros(0)]))[::-1], np.sort(np.concatenate([*missed, np.zeros(0)]))
    size = min(limit, most.size, least.size)
    pairs = most[:size] - least[:size]
    count = int(np.searchsorted(-pairs, -_LEAST_GAIN, side="left"))
    before = sum(float(unmet(claim, np.array([claim.quota]), lent)[0]) * claim.cost for claim in claims)
    if count == 0 or not thresholds.is_passed(float(pairs[:count].sum()), before):
        return Choice(tuple(0 for _ in claims))
    got = _counts([-values for values in gained], -float(most[count - 1]), count)
    given = _counts(missed, float(least[count - 1]), count)
    return Choice(
        tuple(more - less for more, less in zip(got, given, strict=True)), tuple(float(gain) for gain in pairs[:count])
    )


def _counts(values: Sequence[Floats], last: float, count: int) -> list[int]:
    """Return how many of each claim's values are among the `count` smallest; those equal to the last are shared out."""
    below = [int((each < last).sum()) for each in values]
    equal = [int((each == last).sum()) for each in values]
    shared = share_out(count - sum(below), equal)
    return [sure + more for sure, more in zip(below, shared, strict=True)]


def _gained(claim: Claim, limit: int, lent: float) -> Floats:
    """Return what each GPU more would gain, falling."""
    top = float(claim.scenarios[-1])
    count = 0 if not claim.may_get else max(0, min(limit, math.ceil(top - claim.quota - _HAIR)))
    return _falling(claim, claim.quota + np.arange(count + 1, dtype=np.float64), lent)


def _missed(claim: Claim, limit: int, lent: float) -> Floats:
    """Return how much each GPU less would be missed, rising."""
    count = 0 if not claim.may_give else max(0, min(limit, math.floor(claim.quota - claim.least + _HAIR)))
    return _falling(claim, claim.quota - count + np.arange(count + 1, dtype=np.float64), lent)[::-1]


def _falling(claim: Claim, quotas: Floats, lent: float) -> Floats:
    steps = -np.diff(unmet(claim, quotas, lent)) * claim.cost
    found: Floats = np.minimum.accumulate(np.round(steps, _DIGITS)) if steps.size else steps
    return found
