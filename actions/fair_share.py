"""What each queue may hold at this moment: the instantaneous fair share, as the KAI scheduler computes it.

Rules restated from KAI's `resource_division.go`: first everybody gets what it deserves and asks for; what is left goes
by priority, in rounds, by weight against recent use, in whole units; units that rounding left go by largest remainder.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleet.bounds import require_between, require_positive
from fleet.errors import BadInput


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue's claim on one resource.

    `deserved` None deserves all there is; `limit` None has no limit. `weight` shares what is over the deserved.
    `usage` is its recent use over the capacity of the same time (ratio). `created` orders queues whose remainders are
    equal: the older one (the smaller value) first, then by name.
    """

    name: str
    deserved: float | None
    request: float
    weight: float = 1.0
    limit: float | None = None
    priority: int = 0
    usage: float = 0.0
    created: float = 0.0

    def __post_init__(self) -> None:
        """Refuse amounts that are none."""
        for field, value in (("request", self.request), ("weight", self.weight), ("usage", self.usage)):
            require_between(field, value, 0.0, math.inf)
        for field, bound in (("deserved", self.deserved), ("limit", self.limit)):
            if bound is not None:
                require_between(field, bound, 0.0, math.inf)

    @property
    def requestable(self) -> float:
        """Return what it asks for, up to its limit."""
        return self.request if self.limit is None else min(self.limit, self.request)

    def is_satisfied(self, share: float) -> bool:
        """Return whether `share` gives it all that it asks for or may have."""
        return self.request <= share or (self.limit is not None and self.limit <= share)


@dataclass(frozen=True, slots=True)
class Shares:
    """The fair share of each queue, and what nobody took."""

    by_queue: Mapping[str, float]
    left: float


def fair_shares(total: float, queues: Iterable[Queue], usage_factor: float = 0.0) -> Shares:
    """Divide `total` units of one resource among queues.

    `usage_factor` (KAI's k) is how much recent use counts against a queue. The deserved amounts are given even where
    they sum to more than there is: who then waits is a matter of order, not of share. A queue whose remainder is paid
    out gets a whole unit, so a request with a fraction may be passed by less than one.
    """
    require_between("total", total, 0.0, math.inf)
    require_between("usage_factor", usage_factor, 0.0, math.inf)
    ordered = sorted(queues, key=lambda queue: queue.name)
    names = [queue.name for queue in ordered]
    if len(set(names)) < len(names):
        message = f"queues: a name stands twice in {names}"
        raise BadInput(message, field="queues")
    shares = {
        queue.name: min(total if queue.deserved is None else queue.deserved, queue.requestable) for queue in ordered
    }
    left = max(0.0, total - sum(shares.values()))
    remainders: list[dict[str, float]] = []
    for priority in sorted({queue.priority for queue in ordered}, reverse=True):
        same = [queue for queue in ordered if queue.priority == priority]
        left, owed = _divide(left, same, shares, usage_factor)
        remainders.append(owed)
    by_name = {queue.name: queue for queue in ordered}
    for owed in remainders:
        left = _pay(left, owed, by_name, shares)
    return Shares(shares, left)


def decayed_usage(used: Sequence[tuple[float, float]], gpus: float, half_life_h: float | None = None) -> float:
    """Return recent use over capacity (ratio): `used` holds pairs of an hour's age in hours and its GPU-hours.

    An hour counts 0.5 ** (age / half-life) on both sides; without a half-life all count alike. No hours, no use.
    """
    require_positive("gpus", gpus)
    if half_life_h is not None:
        require_positive("half_life_h", half_life_h)
    counts = [1.0 if half_life_h is None else 0.5 ** (age_h / half_life_h) for age_h, _ in used]
    there = gpus * sum(counts)
    spent = sum(count * gpu_hours for count, (_, gpu_hours) in zip(counts, used, strict=True))
    return spent / there if there > 0 else 0.0


def admission_alpha(sampling_s: float, half_life_s: float) -> float:
    """Return the part of a new sample in Kueue's moving average of usage: 1 - 0.5 ** (sampling / half-life)."""
    return 0.0 if half_life_s == 0 else 1.0 - 0.5 ** (sampling_s / half_life_s)


def admission_usage(old: Mapping[str, float], now: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Return the moving average of usage by resource after one more sample."""
    return {name: old.get(name, 0.0) * (1 - alpha) + now.get(name, 0.0) * alpha for name in sorted({*old, *now})}


def admission_score(usage: Mapping[str, float], queue_weight: float, weights: Mapping[str, float]) -> float:
    """Return by what Kueue orders queues of one workspace (the lowest goes first); infinite at a weight of zero."""
    whole = sum(weights.get(name, 1.0) * amount for name, amount in sorted(usage.items()))
    return math.inf if queue_weight <= 0 else whole / queue_weight


def entry_penalty(requests: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Return what is counted as used at once when a workload is admitted."""
    return {name: amount * alpha for name, amount in requests.items()}


def _divide(
    total: float, queues: Sequence[Queue], shares: dict[str, float], usage_factor: float
) -> tuple[float, dict[str, float]]:
    """Give out rounds among queues of one priority; return what is left, and the part of a unit owed to each."""
    owed: dict[str, float] = {}
    is_another_due = True
    while is_another_due and total > 0:
        is_another_due = False
        weights = _weights(queues, shares, usage_factor)
        whole = sum(weights.values())
        if whole == 0:
            break
        in_this_round = total
        for queue in queues:
            if total <= 0:
                break
            if queue.name not in weights or queue.weight == 0:
                continue
            asked = max(0.0, queue.requestable - shares[queue.name])
            due = in_this_round * (weights[queue.name] / whole)
            given = asked if asked <= due else float(math.floor(due))
            if asked <= due:
                owed.pop(queue.name, None)
            elif due > given:
                owed[queue.name] = due - given
            shares[queue.name] += given
            total -= given
            is_another_due = is_another_due or (given > 0 and asked < due)
    return total, owed


def _weights(queues: Sequence[Queue], shares: Mapping[str, float], usage_factor: float) -> dict[str, float]:
    """Return the weight of each queue that is not satisfied, recent use counted against it."""
    whole = sum(queue.weight for queue in queues if queue.requestable > shares[queue.name])
    if whole == 0:
        return {}
    parts = {queue.name: queue.weight / whole for queue in queues if not queue.is_satisfied(shares[queue.name])}
    usages = {queue.name: queue.usage for queue in queues}
    return {name: max(0.0, part + usage_factor * (part - usages[name])) for name, part in parts.items()}


def _pay(left: float, owed: Mapping[str, float], queues: Mapping[str, Queue], shares: dict[str, float]) -> float:
    for name in sorted(owed, key=lambda each: (-owed[each], queues[each].created, each)):
        if left <= 0:
            break
        given = min(1.0, left)
        shares[name] += given
        left -= given
    return max(0.0, left)
