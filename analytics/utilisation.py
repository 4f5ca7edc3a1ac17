"""Show where the fleet's GPU-hours go: from all there were, through those healthy and those held, to those at work."""

from collections.abc import Sequence

import polars as pl

from analytics.cost import CATEGORIES
from fleet.errors import BadInput
from fleet.tables import COST_LINE

STEPS = ("total", "healthy", "allocated", "known", "active")
"""Each step is the one before less what was lost there: unhealthy, unallocated, unknown, allocated_idle."""

LOSSES = ("unhealthy", "unallocated", "unknown", "allocated_idle")
_NOT_HELD = ("unallocated", "fragmentation", "unattributed", "overhead")


def funnel(cost_lines: pl.DataFrame, by: Sequence[str] = ("cluster",)) -> pl.DataFrame:
    """Return GPU-seconds at each step and what is lost between steps, by the columns `by` of cost lines.

    Columns: `by`, then `<step>_gpu_seconds` and `<loss>_gpu_seconds`, and the ratios `allocated_share` (of
    healthy) and `active_share` (of what is known of allocated), null where there is nothing to divide by. Counted
    in microseconds from the ledger: every step is exactly the next one and the loss between them. With no columns
    there is one row.
    """
    for name in by:
        if name not in COST_LINE.names():
            message = f"by: {name} is no column of a cost line; the columns are {', '.join(COST_LINE.names())}"
            raise BadInput(message, field="by")
    microseconds = (pl.col("gpu_seconds") * 1e6).round().cast(pl.Int64)
    sums = [microseconds.filter(pl.col("category") == name).sum().alias(name) for name in CATEGORIES]
    parts = cost_lines.group_by(by).agg(sums).sort(by, nulls_last=True) if by else cost_lines.select(sums)
    # What nobody is known to hold is one loss here; the ledger tells its parts.
    parts = parts.with_columns(unallocated=pl.sum_horizontal(_NOT_HELD))
    steps = parts.with_columns(
        active=pl.col("used"),
        known=pl.col("used") + pl.col("allocated_idle"),
        allocated=pl.col("used") + pl.col("allocated_idle") + pl.col("unknown"),
    )
    steps = steps.with_columns(healthy=pl.col("allocated") + pl.col("unallocated"))
    steps = steps.with_columns(total=pl.col("healthy") + pl.col("unhealthy"))
    return steps.select(
        *by,
        *((pl.col(name) / 1e6).alias(f"{name}_gpu_seconds") for name in (*STEPS, *LOSSES)),
        allocated_share=_ratio("allocated", "healthy"),
        active_share=_ratio("active", "known"),
    )


def _ratio(part: str, whole: str) -> pl.Expr:
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole))
