"""Keep the ledger: every GPU-second and every dollar in one category, and the parts sum to the whole.

Of a GPU's hour, what pods held is `used` (the share of samples that were active), `allocated_idle` or, where
samples are missing, `unknown`. Of the rest, activity that nobody is known to have asked for is `unattributed`, what
no MIG device covers is `fragmentation`, and what is left is `unallocated`. Of all that was not used, the time a
verdict called the GPU failed is `unhealthy` instead, and nobody's. `overhead` is what a cluster costs beside its
nodes. Everything is counted in whole microseconds and micro-dollars.

Activity is told by the clock hour. Where more of a GPU was given away than there is, everybody's part is scaled
down for as long as that lasts.
"""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from analytics.apportion import apportion
from analytics.cost_pods import activity_of_nobody, cover, find_pods, mig_parts
from analytics.cost_policy import LedgerPolicy
from analytics.cost_segments import cut_at_prices, find_segments, to_dollars
from fleet.errors import BadInput
from fleet.frames import MONEY, UTC_MICROSECONDS, check
from fleet.money_tables import CATEGORIES, COST_LINE, HELD

__all__ = ["CATEGORIES", "ledger", "no_devices", "no_intervals", "summarise", "unhealthy_intervals"]

_WIDE = pl.Int128()
_FREE = ("unallocated", "fragmentation", "unattributed", "unhealthy")
_NAMES = ("workspace", "namespace", "pod_uid", "workload")


def ledger(
    hours: pl.DataFrame,
    prices: pl.DataFrame,
    unhealthy: pl.DataFrame,
    policy: LedgerPolicy,
    devices: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Return the rows of `ledger_hours` as cost lines of GPUs.

    `prices` is the table `price`, `unhealthy` has gpu_uuid, starts_at, ends_at (see `unhealthy_intervals`),
    `devices` are the rows of `mig_devices`. The seconds of a GPU sum to the time it was there; its dollars to rate
    times time, rounded at the edges of clock hours; a GPU without price has null dollars in every line, never zero.
    """
    rows = cut_at_prices(hours, prices)
    segments = find_segments(rows, prices, unhealthy)
    parts = mig_parts(no_devices() if devices is None else devices, policy)
    pods = find_pods(rows, segments, parts, policy)
    lines = pl.concat([_held_lines(pods, segments), _free_lines(rows, pods, segments, parts, policy)], how="diagonal")
    lines = lines.filter(pl.col("us") > 0)
    lines = lines.join(segments.select("seg", "bill"), on="seg").sort("seg", "place", "category", nulls_last=True)
    lines = apportion(lines, ["seg"], "bill", "us", "micro_usd")
    return _named(lines, rows, segments)


def _held_lines(pods: pl.DataFrame, segments: pl.DataFrame) -> pl.DataFrame:
    healthy = _healthy(pods, segments, ("allocated_idle", "unknown"))
    # The place of a pod in the order of keys, so that odd micro-dollars fall the same way however rows came in.
    healthy = healthy.with_row_index("place")
    lines = healthy.unpivot(HELD, index=["seg", "row", "slice", "place"], variable_name="category", value_name="us")
    return lines.cast({"us": pl.Int64})


def _free_lines(
    rows: pl.DataFrame, pods: pl.DataFrame, segments: pl.DataFrame, parts: pl.DataFrame, policy: LedgerPolicy
) -> pl.DataFrame:
    """Return the lines that no pod pays for."""
    kept = _healthy(pods, segments, ("allocated_idle", "unknown"))
    summed = kept.group_by("seg").agg(pl.col("held").sum(), kept=pl.sum_horizontal(HELD).sum())
    free = segments.select("seg", "gpu", "starts_at", "ends_at", "capacity", "unhealthy")
    free = free.join(summed, on="seg", how="left").join(cover(segments, parts), on="seg", how="left")
    active = activity_of_nobody(rows, policy)
    free = free.join(active, on=["gpu", "starts_at"], how="left").sort("seg")
    free = free.with_columns(pl.col("held", "kept").fill_null(0))  # no pod: no seconds
    left = pl.col("capacity") - pl.col("held")
    active_us = (pl.col("capacity") * pl.col("active_share")).round().cast(pl.Int64)
    free = free.with_columns(unattributed=pl.min_horizontal(active_us.fill_null(0), left))  # no activity: no seconds
    left -= pl.col("unattributed")
    bare = (pl.col("capacity") * (1 - pl.col("covered"))).round().cast(pl.Int64).clip(lower_bound=0)
    free = free.with_columns(fragmentation=pl.min_horizontal(bare.fill_null(0), left))  # not cut up: nothing bare
    free = free.with_columns(unallocated=left - pl.col("fragmentation"))
    free = free.with_columns(_healthy_part("unallocated"), _healthy_part("fragmentation"))
    told = pl.sum_horizontal("kept", "unattributed", "unallocated", "fragmentation")
    free = free.with_columns(unhealthy=pl.col("capacity") - told)
    return free.unpivot(_FREE, index="seg", variable_name="category", value_name="us").cast({"us": pl.Int64})


def _healthy(pods: pl.DataFrame, segments: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """Return the pods' rows with the stretch's unhealthy share taken out of some categories."""
    bad = segments.filter(pl.col("unhealthy") > 0).select("seg", "unhealthy")
    if bad.is_empty():
        return pods
    joined = pods.join(bad, on="seg", how="left", maintain_order="left")
    joined = joined.with_columns(pl.col("unhealthy").fill_null(0))  # no interval there: no such time
    return joined.with_columns(_healthy_part(name) for name in names).drop("unhealthy")


def _healthy_part(column: str) -> pl.Expr:
    """Return what is left of a category when the stretch's unhealthy share is taken out of it."""
    left = pl.col("capacity") - pl.col("unhealthy")
    part = (pl.col(column).cast(_WIDE) * left.cast(_WIDE) // pl.col("capacity").cast(_WIDE)).cast(pl.Int64)
    return pl.when(pl.col("unhealthy") == 0).then(pl.col(column)).otherwise(part).alias(column)


def _named(lines: pl.DataFrame, rows: pl.DataFrame, segments: pl.DataFrame) -> pl.DataFrame:
    """Return lines with the names of their GPU and of whoever held it."""
    owned = pl.col("workload_kind").is_not_null() & pl.col("workload").is_not_null()
    owner = pl.when(owned).then(pl.format("{}/{}/{}", "workload_kind", "namespace", "workload"))
    held = rows.select(
        "workspace", "namespace", "pod_uid", workload=owner.otherwise(pl.format("Pod/{}/{}", "namespace", "pod"))
    )
    of_stretch = segments.select("seg", "gpu", "starts_at", "ends_at", "cluster", "rate")
    taken = lines.get_column("row")
    names = [held.get_column(name).gather(taken) for name in _NAMES]
    where = lines.get_column("seg")
    stretch = [of_stretch.get_column(name).gather(where) for name in ("gpu", "starts_at", "ends_at", "cluster", "rate")]
    whole = lines.select("category", "us", "micro_usd", "slice").with_columns(*names, *stretch)
    table = COST_LINE.schema()
    return check(
        whole.select(
            pl.col("gpu").cast(pl.UInt32), "starts_at", "ends_at", "cluster", *(_NAMES[each] for each in (0, 1, 3, 2)),
            "category", gpu_seconds=pl.col("us") / 1e6, usd_per_gpu_hour=to_dollars("rate"),
            cost_usd=to_dollars("micro_usd"), slice=pl.col("slice").cast(pl.UInt32),
            node=pl.lit(None, pl.String()), resource=pl.lit("gpu"), adjustment=pl.lit(0, table["adjustment"]),
            booked_at=pl.lit(None, UTC_MICROSECONDS), billed_at=pl.lit(None, UTC_MICROSECONDS),
        ),
        COST_LINE,
    )  # fmt: skip


def unhealthy_intervals(verdicts: pl.DataFrame, until: datetime) -> pl.DataFrame:
    """Return when GPUs were failed, from rows of the table `verdict`: gpu_uuid, starts_at, ends_at.

    A failure lasts from its `since` (else the verdict's own time) until the GPU's next health verdict that says
    otherwise, or `until`. "Unknown" says nothing otherwise: a dead exporter repairs nobody.
    """
    health = verdicts.filter(
        (pl.col("topic") == "health") & (pl.col("subject_kind") == "gpu") & (pl.col("state") != "unknown")
    ).sort("subject", "made_at")
    spans = health.with_columns(ends_at=pl.col("made_at").shift(-1).over("subject").fill_null(until))
    failed = spans.filter(pl.col("state") == "failed")
    return failed.select(
        gpu_uuid="subject",
        starts_at=pl.min_horizontal("since", "made_at").cast(UTC_MICROSECONDS),
        ends_at=pl.col("ends_at").cast(UTC_MICROSECONDS),
    )


def no_intervals() -> pl.DataFrame:
    """Return the empty frame of unhealthy intervals."""
    return pl.DataFrame(schema={"gpu_uuid": pl.String(), "starts_at": UTC_MICROSECONDS, "ends_at": UTC_MICROSECONDS})


def no_devices() -> pl.DataFrame:
    """Return the empty frame of `mig_devices`."""
    key, moment = pl.UInt32(), UTC_MICROSECONDS
    return pl.DataFrame(
        schema={"slice": key, "gpu": key, "profile": pl.String(), "model": pl.String(), "memory_mib": pl.Int64(),
                "first_seen_at": moment, "last_seen_at": moment}
    )  # fmt: skip


def summarise(cost_lines: pl.DataFrame, by: Sequence[str] = ("workspace",)) -> pl.DataFrame:
    """Return GPU-seconds and dollars of cost lines by the columns `by` and category, largest bill first.

    `cost_usd` sums the priced lines and is null where there are none; `unpriced_gpu_seconds` says what it leaves out.
    """
    for name in by:
        if name not in COST_LINE.names():
            message = f"by: {name} is no column of a cost line; the columns are {', '.join(COST_LINE.names())}"
            raise BadInput(message, field="by")
    keys = [*dict.fromkeys([*by, "category"])]
    counted = cost_lines.with_columns(us=(pl.col("gpu_seconds") * 1e6).round().cast(pl.Int64))
    is_unpriced = pl.col("cost_usd").is_null()
    return (
        counted.group_by(keys)
        .agg(
            gpu_seconds=pl.col("us").sum() / 1e6,
            cost_usd=pl.when(is_unpriced.all()).then(None).otherwise(pl.col("cost_usd").sum()).cast(MONEY),
            unpriced_gpu_seconds=pl.col("us").filter(is_unpriced).sum() / 1e6,
        )
        .sort("cost_usd", "gpu_seconds", *keys, descending=[True, True, *[False] * len(keys)], nulls_last=True)
    )
