"""Chargeback: what each name of a view pays, with what nobody held and the overhead shared out or apart."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

import polars as pl

from analytics.allocation import Allocation, Sharing, in_micro_dollars, share_out
from analytics.cost_views import NOBODY

HELD = ("used", "allocated_idle", "unknown")
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
    own = _own(rows if share_idle == "none" else rows.filter(pl.col("category").is_in(HELD)), by)
    shared = _shared(rows, by, share_idle, scope) if share_idle != "none" else {}
    found = []
    for names, gpu_us, used_us, idle_us, unknown_us, own_usd, used_usd, idle_usd, unpriced_us in own.iter_rows():
        extra = shared.pop(tuple(names), None)
        shared_usd = None if extra is None else _dollars(extra)
        found.append(
            Bill(tuple(names), gpu_us, used_us, idle_us, unknown_us, own_usd, used_usd, idle_usd, shared_usd,
                 unpriced_us)
        )  # fmt: skip
    found += [Bill(names, 0, 0, 0, 0, None, None, None, _dollars(extra), 0) for names, extra in shared.items()]
    return sorted(found, key=lambda bill: (-(bill.total_usd or Decimal(0)), -bill.gpu_us, bill.names))


def _own(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return what each name has of its own: names, then the amounts of a `Bill` in its order, without the shared."""
    names = [pl.col(name).cast(pl.String()) for name in by]
    if names and "category" not in by:
        apart = pl.format("({})", "category")
        names[-1] = pl.when(pl.col("category").is_in(HELD)).then(names[-1]).otherwise(apart)
    key = pl.concat_list(names) if names else pl.lit([], pl.List(pl.String()))

    def us(*categories: str) -> pl.Expr:
        return pl.col("gpu_us").filter(pl.col("category").is_in(categories)).sum()

    def usd(*categories: str) -> pl.Expr:
        cost = pl.col("cost_usd").filter(pl.col("category").is_in(categories) if categories else pl.lit(value=True))
        return pl.when(cost.is_not_null().any()).then(cost.sum())

    return rows.group_by(key.alias("names")).agg(
        pl.col("gpu_us").sum(), us("used").alias("used_us"), us("allocated_idle").alias("idle_us"),
        us("unknown").alias("unknown_us"), usd().alias("own_usd"), usd("used").alias("used_usd"),
        usd("allocated_idle").alias("idle_usd"), pl.col("unpriced_us").sum(),
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
