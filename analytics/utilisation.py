"""Show where the fleet's GPU-hours go: from all there were, through those healthy and those held, to those at work."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables, hour_start, strongest_activity
from fleet.errors import BadInput
from fleet.tables import COST_LINE

STEPS = ("total", "healthy", "usable", "allocated", "known", "active", "effective")
"""Each step is the one before less what was lost there; `effective` counts an active second by how busy it was."""

LOSSES = ("unhealthy", "fragmented", "unallocated", "unknown", "allocated_idle", "partly_used")

DIMENSIONS = ("cluster", "pool", "model", "workspace", "namespace", "workload", "hour")
_PARTS = ("unhealthy", "fragmented", "unallocated", "unknown", "allocated_idle", "used", "effective")
# What the ledger calls otherwise, and what of it nobody is known to hold; overhead has no seconds.
_RENAMED = {"fragmentation": "fragmented", "unattributed": "unallocated", "overhead": "unallocated"}
_EVEN = 1e-9


def funnel_lines(tables: Tables, since: datetime, until: datetime) -> ir.Table:
    """Return the ledger's lines that start in `[since, until)`, each with its pool, model, hour and mean activity.

    `activity_mean` is that of the pod's slices where it held some, else of the GPU; null where nothing was measured.
    Reads cost_line, gpu, node, gpu_hour, slice_sample and pod_allocation.
    """
    lines = tables["cost_line"]
    lines = lines.filter(lines.starts_at >= since, lines.starts_at < until)
    lines = lines.mutate(hour=lines.starts_at.truncate("h"))
    nodes = tables["node"].select("cluster", "node", "pool", node_model="model")
    gpus = tables["gpu"].select("gpu", "cluster", "node", "model").left_join(nodes, ["cluster", "node"])
    gpus = gpus.select("gpu", "pool", model=gpus.model.coalesce(gpus.node_model))
    hours = tables["gpu_hour"]
    hours = hours.filter(hours.hour_at >= hour_start(since), hours.hour_at < until)
    hours = hours.select("gpu", "activity_mean", hour=hours.hour_at)
    of_slices = _slice_means(tables, since, until)
    joined = lines.left_join(gpus, "gpu").drop("gpu_right")
    joined = joined.left_join(hours, ["gpu", "hour"]).drop("gpu_right", "hour_right")
    joined = joined.left_join(of_slices, ["pod_uid", "gpu", "hour"])
    return joined.select(
        "gpu", "starts_at", "cluster", "pool", "model", "workspace", "namespace", "workload", "pod_uid", "hour",
        "category", "gpu_seconds", activity_mean=joined.slice_mean.coalesce(joined.activity_mean.cast("float64")),
    )  # fmt: skip


def _slice_means(tables: Tables, since: datetime, until: datetime) -> ir.Table:
    held = tables["pod_allocation"]
    held = held.filter(held.slice.notnull(), held.starts_at < until, held.ends_at.isnull() | (held.ends_at > since))
    held = held.select("slice", "gpu", "pod_uid", "starts_at", "ends_at")
    samples = tables["slice_sample"]
    samples = samples.filter(samples.ts >= hour_start(since), samples.ts < until)
    samples = samples.select("slice", "ts", activity=strongest_activity(samples))
    joined = samples.join(held, "slice")
    joined = joined.filter(
        joined.ts >= joined.starts_at, joined.ends_at.isnull() | (joined.ts < joined.ends_at)
    ).mutate(hour=joined.ts.truncate("h"))
    return joined.group_by("pod_uid", "gpu", "hour").agg(slice_mean=joined.activity.mean().cast("float64"))


def shared_holds(tables: Tables, since: datetime, until: datetime) -> ir.Table:
    """Return the holds of parts of GPUs in the window: gpu, starts_at, ends_at (cut to the window), fraction."""
    held = tables["pod_allocation"]
    inside = held.filter(held.fraction < 1, held.starts_at < until, held.ends_at.isnull() | (held.ends_at > since))
    return inside.select(
        "gpu",
        "fraction",
        starts_at=ibis.greatest(inside.starts_at, ibis.literal(since)),
        ends_at=ibis.least(inside.ends_at, ibis.literal(until)),
    )


def fragmented_time(holds: pl.DataFrame) -> pl.DataFrame:
    """Return gpu, hour and `fragmented_us`: how long GPUs of which a part was held had another part free.

    A part left beside a holder can't be had as a whole GPU. Counted in GPU-microseconds, by a sweep over the moments
    at which anybody came or went, cut at the hours.
    """
    pieces = _by_hour(holds)
    edges = pl.concat(
        [
            pieces.select("gpu", "hour", at="starts_at", step="fraction"),
            pieces.select("gpu", "hour", at="ends_at", step=-pl.col("fraction")),
        ]
    )
    steps = edges.group_by("gpu", "hour", "at").agg(pl.col("step").sum()).sort("gpu", "hour", "at")
    by_hour = ["gpu", "hour"]
    spans = steps.with_columns(
        load=pl.col("step").cum_sum().over(by_hour), lasts=pl.col("at").shift(-1).over(by_hour) - pl.col("at")
    ).filter((pl.col("load") > _EVEN) & pl.col("lasts").is_not_null())
    free = (1 - pl.col("load")).clip(lower_bound=0.0)
    lost = (free * pl.col("lasts").dt.total_microseconds()).round().cast(pl.Int64)
    return spans.group_by(by_hour).agg(fragmented_us=lost.sum())


def _by_hour(holds: pl.DataFrame) -> pl.DataFrame:
    hour = timedelta(hours=1)
    starts = pl.datetime_ranges(pl.col("starts_at").dt.truncate("1h"), pl.col("ends_at"), "1h", closed="left")
    pieces = holds.filter(pl.col("starts_at") < pl.col("ends_at")).with_columns(hour=starts).explode("hour")
    return pieces.with_columns(
        starts_at=pl.max_horizontal("starts_at", "hour"), ends_at=pl.min_horizontal("ends_at", pl.col("hour") + hour)
    ).filter(pl.col("starts_at") < pl.col("ends_at"))


def funnel(
    lines: pl.DataFrame, by: Sequence[str] = ("cluster",), fragmented: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Return GPU-seconds at each step and what is lost between steps, by the columns `by` of the lines.

    `lines` are cost lines, or what `funnel_lines` made of them: without an `activity_mean` nothing is effective that
    is known of, so `effective` is null and with it what was partly used. `fragmented` is what `fragmented_time`
    gives; it is taken out of what was unallocated. Columns: `by`, then `<step>_gpu_seconds` and
    `<loss>_gpu_seconds`, and the ratios `allocated_share` (of healthy), `active_share` (of what is known of
    allocated) and `effective_share` (of active), null where there is nothing to divide by. Counted in microseconds
    from the ledger: every step is exactly the next one and the loss between them. With no columns there is one row.
    """
    known = {*COST_LINE.names(), *(name for name in DIMENSIONS if name in lines.columns)}
    for name in by:
        if name not in known:
            message = f"by: {name} is no column of these lines; the columns are {', '.join(sorted(known))}"
            raise BadInput(message, field="by")
    parts = _parts(lines, by, fragmented)
    summed = [pl.col(name).sum().alias(name) for name in _PARTS]
    told = (pl.col("used").sum() == pl.col("told").sum()).alias("is_told")
    rows = parts.group_by(by).agg(*summed, told).sort(by, nulls_last=True) if by else parts.select(*summed, told)
    effective = pl.when("is_told").then("effective")
    steps = rows.with_columns(
        effective=effective,
        partly_used=pl.col("used") - effective,
        active=pl.col("used"),
        known=pl.sum_horizontal("used", "allocated_idle"),
        allocated=pl.sum_horizontal("used", "allocated_idle", "unknown"),
    )
    steps = steps.with_columns(usable=pl.col("allocated") + pl.col("unallocated"))
    steps = steps.with_columns(healthy=pl.col("usable") + pl.col("fragmented"))
    steps = steps.with_columns(total=pl.col("healthy") + pl.col("unhealthy"))
    return steps.select(
        *by,
        *((pl.col(name) / 1e6).alias(f"{name}_gpu_seconds") for name in (*STEPS, *LOSSES)),
        allocated_share=_ratio("allocated", "healthy"),
        active_share=_ratio("active", "known"),
        effective_share=_ratio("effective", "active"),
    )


def _parts(lines: pl.DataFrame, by: Sequence[str], fragmented: pl.DataFrame | None) -> pl.DataFrame:
    """Return a row a GPU, hour, pod and value of `by`, with the microseconds of each part."""
    if "activity_mean" not in lines.columns:
        lines = lines.with_columns(activity_mean=pl.lit(None, dtype=pl.Float64))
    keys = list(dict.fromkeys(["gpu", "starts_at", "pod_uid", *by]))
    microseconds = (pl.col("gpu_seconds") * 1e6).round().cast(pl.Int64)
    category = pl.col("category").replace(_RENAMED)
    rows = lines.group_by(keys).agg(
        *(microseconds.filter(category == name).sum().alias(name) for name in _PARTS if name != "effective"),
        pl.col("activity_mean").first(),
    )
    busy = ((pl.col("used") + pl.col("allocated_idle")) * pl.col("activity_mean")).round().cast(pl.Int64)
    is_told = pl.col("activity_mean").is_not_null()
    rows = rows.with_columns(
        effective=pl.when(is_told).then(pl.min_horizontal("used", busy)).otherwise(0),
        told=pl.when(is_told).then("used").otherwise(0),
    )
    return rows if fragmented is None else _with_fragments(rows, fragmented)


def _with_fragments(rows: pl.DataFrame, fragmented: pl.DataFrame) -> pl.DataFrame:
    """Move from unallocated to fragmented, GPU by hour, what was free beside a holder of a part.

    What the ledger itself calls fragmentation is part of that, and is not counted twice.
    """
    hour = pl.col("starts_at").dt.truncate("1h").alias("fragment_hour")
    of_hour = ["gpu", "fragment_hour"]
    lost = fragmented.select(pl.col("gpu").cast(rows.schema["gpu"]), "fragmented_us", fragment_hour="hour")
    joined = rows.with_columns(hour).join(lost, on=of_hour, how="left").sort("gpu", "starts_at", "pod_uid")
    wanted = pl.col("fragmented_us").fill_null(0) - pl.col("fragmented").sum().over(of_hour)  # no row: none is lost
    before = pl.col("unallocated").cum_sum().over(of_hour) - pl.col("unallocated")
    moved = pl.min_horizontal("unallocated", (wanted - before).clip(lower_bound=0))
    return joined.with_columns(unallocated=pl.col("unallocated") - moved, fragmented=pl.col("fragmented") + moved).drop(
        "fragment_hour", "fragmented_us"
    )


def _ratio(part: str, whole: str) -> pl.Expr:
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole))
