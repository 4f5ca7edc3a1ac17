"""Lines of the ledger that no GPU has: what clusters cost beside their nodes, storage, network, licences."""

from datetime import datetime, timedelta

import polars as pl

from analytics.cost_policy import LedgerPolicy
from analytics.cost_segments import MICROSECONDS_PER_HOUR, to_dollars
from fleet.frames import UTC_MICROSECONDS, check
from fleet.money_tables import COST_LINE

_WIDE = pl.Int128()
_HOUR = timedelta(hours=1)


def overhead_lines(gpu_lines: pl.DataFrame, policy: LedgerPolicy) -> pl.DataFrame:
    """Return a line a cluster and clock hour that any GPU was there: the overhead an hour, for that long."""
    rate = int(policy.overhead_usd_per_hour * 1_000_000)
    if rate == 0 or gpu_lines.is_empty():
        return COST_LINE.empty()
    there = gpu_lines.group_by("cluster", hour=pl.col("starts_at").dt.truncate("1h")).agg(
        pl.col("starts_at").min(), pl.col("ends_at").max()
    )
    length = (pl.col("ends_at") - pl.col("starts_at")).dt.total_microseconds().cast(_WIDE)
    cost = (length * rate * 2 + MICROSECONDS_PER_HOUR) // (2 * MICROSECONDS_PER_HOUR)
    return _lines(
        there.with_columns(micro_usd=cost.cast(pl.Int64), resource=pl.lit("overhead"), category=pl.lit("overhead"))
    )


def charge_lines(charges: pl.DataFrame, members: pl.DataFrame, since: datetime, until: datetime) -> pl.DataFrame:
    """Return charges (the table `charge`) by the clock hours of `[since, until)` that they are for.

    A charge is spread evenly over its time and its hours sum to it exactly. One that names a workspace, or a
    namespace that `members` (the table `workspace_member`) knows at that hour, is that workspace's; one that names
    neither is overhead.
    """
    within = charges.filter((pl.col("starts_at") < until) & (pl.col("ends_at") > since))
    if within.is_empty():
        return COST_LINE.empty()
    first, last = pl.lit(since, UTC_MICROSECONDS), pl.lit(until, UTC_MICROSECONDS)
    spread = within.rename({"starts_at": "charge_from", "ends_at": "charge_until"}).with_columns(
        hour=pl.datetime_ranges(
            pl.max_horizontal("charge_from", first).dt.truncate("1h"), pl.min_horizontal("charge_until", last), "1h",
            closed="left",
        )
    )  # fmt: skip
    hours = spread.explode("hour").with_columns(pl.col("hour").cast(UTC_MICROSECONDS))
    hours = hours.with_columns(
        starts_at=pl.max_horizontal("hour", "charge_from", first),
        ends_at=pl.min_horizontal(pl.col("hour") + _HOUR, "charge_until", last),
    )
    total = (pl.col("cost_usd") * 1_000_000).cast(_WIDE)
    length = _us("charge_from", "charge_until")
    parts = hours.with_columns(
        micro_usd=(_upto(total, "ends_at", length) - _upto(total, "starts_at", length)).cast(pl.Int64)
    )
    owned = _with_workspace(parts, members)
    is_owned = pl.col("workspace").is_not_null() | pl.col("namespace").is_not_null()
    owned = owned.with_columns(category=pl.when(is_owned).then(pl.lit("used")).otherwise(pl.lit("overhead")))
    names = ["cluster", "resource", "workspace", "namespace", "category", "starts_at", "ends_at"]
    return _lines(owned.group_by(names).agg(pl.col("micro_usd").sum()))


def _us(start: str, end: str) -> pl.Expr:
    return (pl.col(end) - pl.col(start)).dt.total_microseconds().cast(_WIDE)


def _upto(total: pl.Expr, moment: str, length: pl.Expr) -> pl.Expr:
    return (total * _us("charge_from", moment) * 2 + length) // (length * 2)


def _with_workspace(parts: pl.DataFrame, members: pl.DataFrame) -> pl.DataFrame:
    numbered = parts.with_row_index("line")
    of = members.select("cluster", "namespace", member="workspace", member_from="starts_at", member_until="ends_at")
    met = numbered.join(of, on=["cluster", "namespace"]).filter(
        (pl.col("member_from") <= pl.col("starts_at"))
        & (pl.col("member_until").is_null() | (pl.col("member_until") > pl.col("starts_at")))
    )
    found = met.sort("member_from", descending=True).unique("line", keep="first", maintain_order=True)
    joined = numbered.join(found.select("line", "member"), on="line", how="left")
    return joined.with_columns(workspace=pl.coalesce("workspace", "member")).drop("line", "member")


def _lines(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with cluster, starts_at, ends_at, micro_usd, resource and category as cost lines without a GPU."""
    schema = COST_LINE.schema()
    given = set(rows.columns)
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in given]
    lines = rows.with_columns(missing).with_columns(
        gpu_seconds=pl.lit(0.0), cost_usd=to_dollars("micro_usd"), adjustment=pl.lit(0, pl.Int32())
    )
    return check(lines.filter(pl.col("micro_usd") != 0).select(list(schema)), COST_LINE)
