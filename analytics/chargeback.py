"""Chargeback: what each name of a view pays, with what nobody held and the overhead shared out or apart."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

import polars as pl

from analytics.allocation import Allocation, Sharing, in_micro_dollars, share_out
from analytics.cost_views import NOBODY

HELD = ("used", "allocated_idle", "unknown")
APART = ("unattributed", "unallocated", "fragmentation", "unhealthy", "overhead")
ShareIdle = Literal["none", "even", "weighted"]
Scope = Literal["cluster", "node"]
_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Bill:
    """What one name pays. Dollars are None where nothing of it has a price; they sum to the ledger's."""

    names: tuple[str, ...]
    gpu_us: int
    used_us: int
    idle_us: int
    unknown_us: int
    own_usd: Decimal | None
    used_usd: Decimal | None
    idle_usd: Decimal | None
    shared_usd: Decimal | None
    unpriced_us: int

    @property
    def total_usd(self) -> Decimal | None:
        """Return what is paid in all."""
        if self.own_usd is None and self.shared_usd is None:
            return None
        return (self.own_usd or Decimal(0)) + (self.shared_usd or Decimal(0))

    @property
    def efficiency(self) -> float | None:
        """Return used over what is known of held; None where nothing is known."""
        known = self.used_us + self.idle_us
        return self.used_us / known if known > 0 else None


def bills(
    rows: pl.DataFrame, by: Sequence[str], share_idle: ShareIdle = "none", scope: Scope = "cluster"
) -> list[Bill]:
    """Return a bill for each name of a view, largest first.

    `rows` are tidy rows of `spend` by `by`, and by cluster (and node, for that scope) where idle is shared. Without
    sharing, what nobody held stands under `(nobody)` and its category. Micro-dollars are apportioned by largest
    remainder, so that the bills sum to the ledger whatever is shared.
    """
    own: defaultdict[tuple[str, ...], defaultdict[str, list[int | None]]] = defaultdict(
        lambda: defaultdict(lambda: [0, None, 0])
    )
    for row in rows.iter_rows(named=True):
        held = row["category"] in HELD
        if share_idle != "none" and not held:
            continue
        names = tuple(str(row[name]) for name in by)
        key = names if held or "category" in by else (*names[:-1], f"({row['category']})") if names else names
        _count(own[key][row["category"]], row)
    shared = _shared(rows, by, share_idle, scope) if share_idle != "none" else {}
    keys = sorted({*own, *shared})
    found = [_bill(key, own.get(key, {}), shared.get(key)) for key in keys]
    return sorted(found, key=lambda bill: (-(bill.total_usd or Decimal(0)), -bill.gpu_us, bill.names))


def _count(cell: list[int | None], row: Mapping[str, object]) -> None:
    us, cost, unpriced = row["gpu_us"], row["cost_usd"], row["unpriced_us"]
    cell[0] = (cell[0] or 0) + _whole(us)
    cell[2] = (cell[2] or 0) + _whole(unpriced)
    if isinstance(cost, Decimal):
        cell[1] = (cell[1] or 0) + int(cost * _MICRO)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _bill(names: tuple[str, ...], cells: Mapping[str, list[int | None]], shared: int | None) -> Bill:
    def us(*categories: str) -> int:
        return sum(cells[name][0] or 0 for name in categories if name in cells)

    def usd(*categories: str) -> Decimal | None:
        known = [cells[name][1] for name in categories if name in cells]
        priced = [amount for amount in known if amount is not None]
        return _dollars(sum(priced)) if priced else None

    return Bill(
        names, us(*cells), us("used"), us("allocated_idle"), us("unknown"), usd(*cells), usd("used"),
        usd("allocated_idle"), None if shared is None else _dollars(shared),
        sum(cell[2] or 0 for cell in cells.values()),
    )  # fmt: skip


def _dollars(micro: int) -> Decimal:
    return (Decimal(micro) / _MICRO).quantize(Decimal("0.000001"))


def _shared(rows: pl.DataFrame, by: Sequence[str], share_idle: ShareIdle, scope: Scope) -> dict[tuple[str, ...], int]:
    """Return the micro-dollars of what nobody held, and of the overhead, by who pays for them."""
    holders: defaultdict[tuple[tuple[str, ...], str, str], Fraction] = defaultdict(Fraction)
    idle: defaultdict[tuple[str, str], Fraction] = defaultdict(Fraction)
    for row in rows.iter_rows(named=True):
        cost = row["cost_usd"]
        if not isinstance(cost, Decimal):
            continue
        place = (str(row["cluster"]), str(row["node"]) if scope == "node" else "")
        if row["category"] in HELD:
            holders[tuple(str(row[name]) for name in by), *place] += Fraction(cost)
        else:
            idle[place] += Fraction(cost)
    if not holders:
        return {(NOBODY,) * len(by): int(sum(idle.values(), Fraction(0)) * _MICRO)} if idle else {}
    keys = {f"k{place}": key for place, key in enumerate(sorted({key for key, _, _ in holders}))}
    number = {key: name for name, key in keys.items()}
    allocations = [
        Allocation({"gpu": cost}, {"cluster": cluster, "node": node, "pod": number[key]})
        for (key, cluster, node), cost in sorted(holders.items())
    ]
    idles = [
        Allocation({"gpu": cost}, {"cluster": cluster, "node": node}) for (cluster, node), cost in sorted(idle.items())
    ]
    how = Sharing(("pod",), share_idle, idle_by_node=scope == "node")
    outcome = share_out(allocations, idles, how)
    before: defaultdict[str, Fraction] = defaultdict(Fraction)
    for each in allocations:
        before[each.names["pod"]] += each.total()
    extra = {name: sum(costs.values(), -before[name]) for name, costs in outcome.rows.items()}
    whole = in_micro_dollars(extra)
    return {keys.get(name, (NOBODY,) * len(by)): micro for name, micro in whole.items() if micro}
