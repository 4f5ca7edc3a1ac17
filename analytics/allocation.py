"""Share out what nobody asked for: idle and shared costs, by the rules of OpenCost, exactly.

Idle is shared over whoever used its cluster or node, by resource, in proportion to what they cost. What is shared
(whole namespaces, an overhead an hour) goes to the others evenly or by their cost. All coefficients come from the
whole set, before any filter: a view of one tenant shows what a view of all shows of it. Their own known bug, that
idle is counted too often where costs are shared, filtered and idle is not, is not repeated.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from fleet.errors import BadInput

IDLE, UNALLOCATED, FILTERED, SHARED = "__idle__", "__unallocated__", "__filtered__", "__shared__"
IDLE_RESOURCES = ("cpu", "gpu", "ram")
KINDS = ("deployment", "daemonset", "statefulset", "job")
Split = Literal["even", "weighted", "none"]
Costs = dict[str, Fraction]


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one holder cost, by resource (cpu, gpu, ram, pv, network, lb, ...), and the names it may be grouped by."""

    costs: Mapping[str, Fraction]
    names: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    services: Sequence[str] = ()

    def total(self) -> Fraction:
        """Return what it cost in all."""
        return sum(self.costs.values(), Fraction(0))


Predicate = Callable[[Allocation], bool]


@dataclass(frozen=True, slots=True)
class Sharing:
    """How an allocation set is grouped and shared; the names are those of OpenCost's API.

    `share` and `keep` are asked of each allocation: whether it is shared out, and whether it is shown.
    """

    aggregate: Sequence[str] = ("namespace",)
    share_idle: Split = "none"
    share_split: Split = "weighted"
    idle_by_node: bool = False
    split_idle: bool = False
    share: Predicate | None = None
    keep: Predicate | None = None
    overhead: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Shared:
    """The outcome: dollars by name and resource, what the filter left out, and what each name used of each scope.

    `rows` and `filtered` sum to everything that went in. `scopes` is OpenCost's proportional asset resource cost.
    """

    rows: Mapping[str, Mapping[str, Fraction]]
    filtered: Fraction
    scopes: Mapping[str, Mapping[tuple[str, str], Mapping[str, Fraction]]] = field(default_factory=dict)


def share_out(allocations: Sequence[Allocation], idle: Sequence[Allocation], how: Sharing) -> Shared:
    """Return the costs of allocations and of idle scopes (their names give cluster and node) grouped and shared."""
    coefficients = _idle_coefficients(allocations, how)
    idle_of = _idle_by_scope(idle, how)
    shared_ones = [each for each in allocations if how.share is not None and how.share(each)]
    own = [each for each in allocations if how.share is None or not how.share(each)]
    kept = [each for each in own if how.keep is None or how.keep(each)]
    parts = _share_coefficients(own, kept, how)
    rows: defaultdict[str, defaultdict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    for each in kept:
        key = key_of(each, how.aggregate)
        _add(rows[key], each.costs)
        _give_idle(rows, key, _idle_of(each, coefficients, idle_of, how), how, Fraction(1))
    for each in shared_ones:
        costs = _idle_of(each, coefficients, idle_of, how)
        for key, part in parts.items():
            rows[key]["shared"] += each.total() * part
            _give_idle(rows, key, costs, how, part, into="shared")
    for key, part in parts.items() if how.overhead else ():
        rows[key]["shared"] += how.overhead * part
    _give_unused(rows, idle, coefficients, how)
    whole = sum((each.total() for each in (*allocations, *idle)), how.overhead)
    shown = sum((sum(costs.values(), Fraction(0)) for costs in rows.values()), Fraction(0))
    return Shared({key: dict(costs) for key, costs in rows.items()}, whole - shown, _scopes(kept, how))


def key_of(allocation: Allocation, aggregate: Sequence[str]) -> str:
    """Return the name an allocation is grouped under; what it does not have is `__unallocated__`."""
    if not aggregate:
        return "/".join(allocation.names.get(name, "") for name in ("cluster", "node", "namespace", "pod", "container"))
    return "/".join(_word(allocation, by) for by in aggregate)


def _word(allocation: Allocation, by: str) -> str:
    kind, _, label = by.partition(":")
    names = allocation.names
    if label and kind in {"label", "annotation"}:
        return (allocation.labels if kind == "label" else allocation.annotations).get(label) or UNALLOCATED
    if by == "all":
        return "all"
    if by == "service":
        return next(iter(allocation.services), UNALLOCATED)
    if by == "controller" and names.get("controllerKind"):
        return f"{names['controllerKind']}:{names['controller']}" if names.get("controller") else UNALLOCATED
    if by.lower() in KINDS:
        return names.get("controller") or UNALLOCATED if names.get("controllerKind") == by.lower() else UNALLOCATED
    if by not in names and by not in KNOWN_NAMES:
        message = f"aggregate: {by!r} is not one of {', '.join(sorted(KNOWN_NAMES))}, label:NAME or annotation:NAME"
        raise BadInput(message, field="aggregate")
    return names.get(by) or UNALLOCATED


KNOWN_NAMES = frozenset(
    {"cluster", "node", "namespace", "workspace", "controllerKind", "controller", "service", "pod", "container", "all",
     "workload", "owner", "team", "model", "pool", *KINDS}
)  # fmt: skip


def _scope(allocation: Allocation, how: Sharing) -> tuple[str, str]:
    return allocation.names.get("cluster", ""), allocation.names.get("node", "") if how.idle_by_node else ""


def _idle_coefficients(allocations: Iterable[Allocation], how: Sharing) -> dict[tuple[tuple[str, str], str], Fraction]:
    """Return by scope and resource what one dollar of use (or, where idle is shared evenly, one allocation) gets."""
    totals: defaultdict[tuple[tuple[str, str], str], Fraction] = defaultdict(Fraction)
    for each in allocations:
        for name in IDLE_RESOURCES:
            totals[_scope(each, how), name] += _weight(each, name, how)
    return {key: 1 / total for key, total in totals.items() if total > 0}


def _weight(allocation: Allocation, resource: str, how: Sharing) -> Fraction:
    return Fraction(1) if how.share_idle == "even" else allocation.costs.get(resource, Fraction(0))


def _idle_by_scope(idle: Iterable[Allocation], how: Sharing) -> dict[tuple[str, str], Costs]:
    found: defaultdict[tuple[str, str], Costs] = defaultdict(dict)
    for each in idle:
        for name in IDLE_RESOURCES:
            scope = found[_scope(each, how)]
            scope[name] = scope.get(name, Fraction(0)) + each.costs.get(name, Fraction(0))
    return found


def _idle_of(
    allocation: Allocation,
    coefficients: Mapping[tuple[tuple[str, str], str], Fraction],
    idle_of: Mapping[tuple[str, str], Costs],
    how: Sharing,
) -> tuple[tuple[str, str], Costs]:
    scope = _scope(allocation, how)
    costs = {
        name: _weight(allocation, name, how) * coefficients.get((scope, name), Fraction(0)) * amount
        for name, amount in idle_of.get(scope, {}).items()
    }
    return scope, costs


def _give_idle(  # noqa: PLR0917 - the five that every giving needs, and where it goes
    rows: defaultdict[str, defaultdict[str, Fraction]],
    key: str,
    given: tuple[tuple[str, str], Costs],
    how: Sharing,
    part: Fraction,
    into: str | None = None,
) -> None:
    scope, costs = given
    for name, amount in costs.items():
        if not amount:
            continue
        if how.share_idle == "none":
            rows[_idle_name(scope, how)][name] += amount * part
        else:
            rows[key][into or name] += amount * part


def _idle_name(scope: tuple[str, str], how: Sharing) -> str:
    if not how.split_idle:
        return IDLE
    return f"{scope[1] if how.idle_by_node else scope[0]}/{IDLE}"


def _give_unused(
    rows: defaultdict[str, defaultdict[str, Fraction]],
    idle: Iterable[Allocation],
    coefficients: Mapping[tuple[tuple[str, str], str], Fraction],
    how: Sharing,
) -> None:
    """Keep idle of a resource that nobody in its scope used as idle, where the filter lets its scope through."""
    for each in idle:
        if how.keep is not None and not how.keep(each):
            continue
        for name, amount in each.costs.items():
            if amount and (_scope(each, how), name) not in coefficients:
                rows[_idle_name(_scope(each, how), how)][name] += amount


def _share_coefficients(own: Sequence[Allocation], kept: Sequence[Allocation], how: Sharing) -> dict[str, Fraction]:
    """Return which part of what is shared each shown name gets; the rest is of names that the filter leaves out."""
    totals, shown = _totals(own, how), _totals(kept, how)
    whole = sum(totals.values(), Fraction(0))
    if not totals:
        return {SHARED: Fraction(1)}
    if how.share_split == "even" or whole == 0:
        return {
            key: Fraction(1, len(totals)) * (amount / totals[key] if totals[key] else 1)
            for key, amount in shown.items()
        }
    return {key: amount / whole for key, amount in shown.items()}


def _totals(allocations: Iterable[Allocation], how: Sharing) -> dict[str, Fraction]:
    found: defaultdict[str, Fraction] = defaultdict(Fraction)
    for each in allocations:
        found[key_of(each, how.aggregate)] += each.total()
    return found


def _scopes(kept: Iterable[Allocation], how: Sharing) -> dict[str, dict[tuple[str, str], Mapping[str, Fraction]]]:
    found: defaultdict[str, defaultdict[tuple[str, str], defaultdict[str, Fraction]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(Fraction))
    )
    for each in kept:
        _add(found[key_of(each, how.aggregate)][_scope(each, how)], each.costs)
    return {key: {scope: dict(costs) for scope, costs in scopes.items()} for key, scopes in found.items()}


def _add(row: defaultdict[str, Fraction], costs: Mapping[str, Fraction]) -> None:
    for name, amount in costs.items():
        row[name] += amount


def quota_overhead(quota: Fraction, asked: Fraction, usd_per_hour: Fraction, hours: Fraction) -> Fraction:
    """Return what a reserved but unused quota costs: what was asked beyond it takes nothing back."""
    return max(Fraction(0), quota - asked) * usd_per_hour * hours


def in_micro_dollars(amounts: Mapping[str, Fraction]) -> dict[str, int]:
    """Return exact dollars as whole micro-dollars that sum to the rounded sum: the largest remainder, by name."""
    scaled = {name: amount * 1_000_000 for name, amount in amounts.items()}
    floors = {name: amount.numerator // amount.denominator for name, amount in scaled.items()}
    left = round(sum(scaled.values(), Fraction(0))) - sum(floors.values())
    order = sorted(scaled, key=lambda name: (floors[name] - scaled[name], name))
    odd = frozenset(order[:left])
    return {name: floor + (name in odd) for name, floor in floors.items()}
