"""How far a queue lives on what others lend it: Kueue's dominant resource share, and its rules of borrowing.

Restated from Kueue's `fair_sharing.go` and `resource_node.go`. A tree of cohorts with queues as leaves; every node has
quotas by flavour and resource, of which a lending limit keeps a part at home. A node's share is what its subtree holds
above its quota over what could be lent to it, of the resource where that is most, in thousandths, over its weight.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fleet.bounds import require_between
from fleet.errors import BadInput

FlavorResource = tuple[str, str]  # flavour, resource
_NOTHING: Mapping[FlavorResource, float] = MappingProxyType({})
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class NodeQuota:
    """What one node may hold of one resource of one flavour; limits of None limit nothing."""

    nominal: float
    borrowing: float | None = None
    lending: float | None = None

    def __post_init__(self) -> None:
        """Refuse amounts that are none."""
        for name, value in (("nominal", self.nominal), ("borrowing", self.borrowing), ("lending", self.lending)):
            if value is not None:
                require_between(name, value, 0.0, math.inf)


@dataclass(frozen=True, slots=True)
class QuotaNode:
    """A queue or a cohort; `parent` None stands alone or is the root."""

    name: str
    parent: str | None = None
    weight: float = 1.0
    quotas: Mapping[FlavorResource, NodeQuota] = field(default_factory=lambda: MappingProxyType({}))
    is_cohort: bool = False

    def __post_init__(self) -> None:
        """Refuse weights that are none."""
        require_between("weight", self.weight, 0.0, math.inf)


@dataclass(frozen=True, slots=True)
class DominantShare:
    """A node's share: `ratio` in thousandths of what is lendable, before the weight."""

    ratio: float = 0.0
    weight: float = 1.0
    resource: str = ""
    is_borrowing: bool = False

    @property
    def weighted(self) -> float:
        """Return the share over the weight; infinite where a weight of zero borrows."""
        if self.ratio == 0:
            return 0.0
        return math.inf if self.weight == 0 else self.ratio / self.weight

    @property
    def rounded(self) -> int:
        """Return the weighted share as Kueue shows it: rounded up, at most the largest 64-bit integer."""
        return _INT64_MAX if math.isinf(self.weighted) else min(_INT64_MAX, math.ceil(self.weighted))

    @property
    def key(self) -> tuple[bool, float]:
        """Return what shares are compared by: who borrows at a weight of zero comes last, by its ratio."""
        is_last = math.isinf(self.weighted)
        return is_last, self.ratio if is_last else self.weighted


class QuotaTree:
    """Cohorts and queues with what is used in them. A cohort that is only named as a parent is an empty root."""

    def __init__(self, nodes: Iterable[QuotaNode], usage: Mapping[str, Mapping[FlavorResource, float]]) -> None:
        """Lay the tree out; raises `BadInput` for names that stand twice, circles and use of what is not there."""
        self._nodes = _named(nodes)
        self._children: dict[str, list[str]] = defaultdict(list)
        for node in self._nodes.values():
            if node.parent is not None:
                self._children[node.parent].append(node.name)
        self._subtree: dict[str, dict[FlavorResource, float]] = {}
        self._usage: dict[str, dict[FlavorResource, float]] = {}
        for name in sorted(usage):
            if name not in self._nodes or self._nodes[name].is_cohort:
                message = f"usage: there is no queue {name}"
                raise BadInput(message, field="usage")
        for name, node in self._nodes.items():
            if node.parent is None:
                self._add_up(name, usage)

    def share(self, name: str, request: Mapping[FlavorResource, float] = _NOTHING) -> DominantShare:
        """Return the dominant share of a node, as if it also held `request`."""
        node = self._nodes[name]
        if node.parent is None:
            return DominantShare(weight=node.weight)
        borrowed: dict[str, float] = defaultdict(float)
        for key, quota in self._subtree[name].items():
            above = request.get(key, 0.0) + self._usage[name].get(key, 0.0) - quota
            if above > 0:
                borrowed[key[1]] += above
        lendable = self.lendable(node.parent)
        ratios = {
            resource: amount * 1000.0 / lendable[resource]
            for resource, amount in borrowed.items()
            if lendable.get(resource, 0.0) > 0
        }
        ratio = max(ratios.values(), default=0.0)
        dominant = min((resource for resource, each in ratios.items() if each == ratio and each > 0), default="")
        return DominantShare(ratio, node.weight, dominant, bool(borrowed))

    def lendable(self, name: str) -> dict[str, float]:
        """Return what could be had at a node if nothing were used, by resource, flavours summed."""
        root = name
        while (parent := self._nodes[root].parent) is not None:
            root = parent
        found: dict[str, float] = defaultdict(float)
        for key in self._subtree[root]:
            found[key[1]] = _saturated(found[key[1]] + self.most(name, key))
        return dict(found)

    def most(self, name: str, key: FlavorResource) -> float:
        """Return the most a node could hold if nothing else were used: nominal and the least of what it may borrow."""
        node = self._nodes[name]
        own = self._subtree[name].get(key, 0.0)
        if node.parent is None:
            return own
        found = self._at_home(name, key) + self.most(node.parent, key)
        return _saturated(min(found, self._with_borrowing(name, key)))

    def available(self, name: str, key: FlavorResource) -> float:
        """Return what a node may still take; below zero where more is held than there is."""
        node = self._nodes[name]
        used = self._usage[name].get(key, 0.0)
        if node.parent is None:
            return self._subtree[name].get(key, 0.0) - used
        home = self._at_home(name, key)
        beyond = self.available(node.parent, key)
        limit = self._quota(name, key).borrowing
        if limit is not None:
            stored = self._subtree[name].get(key, 0.0) - home
            beyond = min(stored - max(0.0, used - home) + limit, beyond)
        return max(0.0, home - used) + beyond

    def _quota(self, name: str, key: FlavorResource) -> NodeQuota:
        return self._nodes[name].quotas.get(key, NodeQuota(0.0))

    def _at_home(self, name: str, key: FlavorResource) -> float:
        """Return the part of a node's quota that its lending limit keeps from its parent."""
        limit = self._quota(name, key).lending
        return 0.0 if limit is None else max(0.0, self._subtree[name].get(key, 0.0) - limit)

    def _with_borrowing(self, name: str, key: FlavorResource) -> float:
        limit = self._quota(name, key).borrowing
        return math.inf if limit is None else self._subtree[name].get(key, 0.0) + limit

    def _add_up(self, name: str, usage: Mapping[str, Mapping[FlavorResource, float]]) -> None:
        """Sum quota and use of a subtree; use that fits into what is kept at home does not reach the parent."""
        node = self._nodes[name]
        quota = {key: _saturated(each.nominal) for key, each in node.quotas.items()}
        used = dict(usage.get(name, {}))
        for child in self._children[name]:
            self._add_up(child, usage)
            for key, amount in self._subtree[child].items():
                quota[key] = _saturated(quota.get(key, 0.0) + amount - self._at_home(child, key))
            for key, amount in self._usage[child].items():
                used[key] = used.get(key, 0.0) + max(0.0, amount - self._at_home(child, key))
        self._subtree[name], self._usage[name] = quota, used


def may_preempt(preemptor_after: DominantShare, victim_before: DominantShare) -> bool:
    """Return whether fair sharing lets one queue take from another: its new share must stay below the victim's old one.

    No loop can come of it: to take back, the victim would have to end below a share that is already above its own.
    """
    return preemptor_after.key < victim_before.key


def may_preempt_to_equal(preemptor_after: DominantShare, victim_after: DominantShare) -> bool:
    """Return whether the stricter rule lets it: afterwards the victim must still hold no smaller share."""
    return preemptor_after.key <= victim_after.key


def may_take_back(nominal: float, usage: float, gpus: float) -> bool:
    """Return whether a workload of a queue may be evicted for what others lent it: only while all of it is borrowed."""
    return usage - gpus >= nominal


def _named(nodes: Iterable[QuotaNode]) -> dict[str, QuotaNode]:
    found: dict[str, QuotaNode] = {}
    for node in nodes:
        if node.name in found:
            message = f"nodes: {node.name!r} stands twice"
            raise BadInput(message, field="nodes")
        found[node.name] = node
    for parent in [node.parent for node in found.values()]:
        if parent is not None and parent not in found:
            found[parent] = QuotaNode(parent, is_cohort=True)
    for node in found.values():
        seen = {node.name}
        above = node.parent
        while above is not None:
            if above in seen:
                message = f"nodes: {node.name!r} stands above itself"
                raise BadInput(message, field="nodes")
            seen.add(above)
            above = found[above].parent
    return found


def _saturated(amount: float) -> float:
    return min(amount, float(_INT64_MAX))
