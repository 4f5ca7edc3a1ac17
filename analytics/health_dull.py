"""Leave out events that say nothing new: of a program's error that goes on and on, first and last speak for all.

A million lines of one program's errors a day are usual, and no rule reads more of them than when they began, what the
last one said and how many there were; except where they may speak for the hardware, and there all are kept.
"""

import polars as pl

from analytics.health_policy import HealthPolicy
from analytics.xid import FOLLOW_MESSAGE, catalogue
from fleet.severity import Severity

_PLACE = r"(GPC ?\d{1,3}(?:, TPC \d{1,3})?|GPCCLIENT_\w{1,20})"
_KEYS = ("cluster", "node", "gpu_uuid", "slice_uuid", "gpu_instance", "kind", "code")


def without_dull(events: pl.DataFrame, policy: HealthPolicy) -> pl.DataFrame:
    """Return the events of `health_events` with `times`: how many each stands for, the last for those left out.

    Left out are XIDs that ask for no more than a restart of the program, between the first and the last of one GPU,
    slice and code, where all came from one workload and no place on the chip comes again in another minute.
    """
    dull = pl.col("code").is_in(_dull_codes(policy)) & (pl.col("kind") == "xid")
    rare = events.filter(~dull.fill_null(value=False)).with_columns(times=pl.lit(1, dtype=pl.Int64))
    many = events.filter(dull.fill_null(value=False))
    if many.is_empty():
        return rare
    grouped = many.group_by(_KEYS).agg(
        first=pl.col("ts").min(), last=pl.col("ts").max(), workloads=pl.col("workload").n_unique(), count=pl.len()
    )
    placed = (
        many.select(*_KEYS, place=pl.col("message").str.extract(_PLACE), minute=pl.col("ts").dt.truncate("1m"))
        .filter(pl.col("place").is_not_null())
        .group_by(*_KEYS, "place")
        .agg(minutes=pl.col("minute").n_unique())
        .group_by(_KEYS)
        .agg(again=pl.col("minutes").max() > 1)
    )
    told = grouped.join(placed, on=_KEYS, how="left", nulls_equal=True)
    is_vivid = (pl.col("workloads") > 1) | pl.col("again").fill_null(value=False)
    joined = many.join(told.with_columns(is_vivid=is_vivid), on=_KEYS, how="left", nulls_equal=True)
    is_edge = (pl.col("ts") == pl.col("first")) | (pl.col("ts") == pl.col("last"))
    kept = joined.filter(pl.col("is_vivid") | is_edge)
    stands_for = (
        pl.when(pl.col("is_vivid") | (pl.col("ts") != pl.col("last")))
        .then(1)
        .otherwise(pl.when(pl.col("first") == pl.col("last")).then(1).otherwise(pl.col("count").cast(pl.Int64) - 1))
    )
    return pl.concat([rare, kept.with_columns(times=stands_for.cast(pl.Int64)).select(rare.columns)])


def _dull_codes(policy: HealthPolicy) -> list[int]:
    """Return the XIDs that ask for no more than a restart of the program, but those that the settings change."""
    changed = {override.code for override in policy.overrides}
    mild = {"none", "restart_application"}
    return [
        code
        for code, xid in catalogue().items()
        if xid.action in mild and xid.action != FOLLOW_MESSAGE and xid.severity is not Severity.CRITICAL
        and code not in changed and code not in _TOLD_BY_ANOTHER
    ]  # fmt: skip


_TOLD_BY_ANOTHER = frozenset({74, 154, 162, 163})
"""Codes whose message, or whose company, decides: each one of them is read."""
