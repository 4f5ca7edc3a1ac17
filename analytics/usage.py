"""Ask how busy what each workspace (or workload, owner, model, cluster) holds is: by hour, and at this moment."""

from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import ACTIVE_ABOVE, SECONDS_PER_HOUR, Tables, strongest_activity, strongest_signal
from fleet.errors import BadInput
from fleet.money_tables import HELD

USAGE_BY = ("workspace", "namespace", "workload", "owner", "cluster", "node", "model")
_OF_HOLDER = ("workspace", "namespace", "workload", "owner")


def usage_hours(tables: Tables, since: datetime, until: datetime, by: str = "workspace") -> ir.Table:
    """Return how busy held GPUs and slices were: `by`, hour_at, activity_p50, _p95 and _mean, counts and share.

    A sample counts for whoever held its device at that moment, a device that several of one group shared once. The
    activity is the best signal of the sample: SM activity, else GR engine, else NVML's utilization (never that of a
    MIG parent). `active_share` is of the samples above 5 %. `gpu_hours` adds up what was held, by fractions.
    """
    if by not in USAGE_BY:
        message = f"by: {by} is not one of {', '.join(USAGE_BY)}"
        raise BadInput(message, field="by")
    # Numbered, because grouping a week of samples by a number takes half as long as by a name.
    named = _holds(tables, since, until, by)
    holds = named.mutate(number=ibis.dense_rank().over(ibis.window(order_by=named.holder)))
    rows = _samples_held(tables, holds, since, until)
    summed = rows.group_by("hour", "number").agg(
        quantiles=rows.activity.quantile([0.5, 0.95]),
        activity_mean=rows.activity.mean(),
        known_count=rows.activity.count(),
        active_count=rows.activity.count(where=rows.activity > ACTIVE_ABOVE),
    )
    held = holds.group_by("hour", "holder", "number").agg(
        gpu_hours=(holds.fraction * holds.lasts_s).sum() / SECONDS_PER_HOUR
    )
    both = held.left_join(summed, ["hour", "number"])
    return both.select(
        both.holder.name(by),
        hour_at=(both.hour * SECONDS_PER_HOUR).as_timestamp("s").cast("timestamp('UTC')"),
        gpu_hours=both.gpu_hours,
        activity_p50=both.quantiles[0].cast("float64"),
        activity_p95=both.quantiles[1].cast("float64"),
        activity_mean=both.activity_mean.cast("float64"),
        active_share=both.active_count / both.known_count.nullif(0),
        known_count=both.known_count.coalesce(0),
    )


def charged_hours(tables: Tables, since: datetime, until: datetime) -> ir.Table:
    """Return one row, `gpu_hours`: what the ledger has as held in its hours that start in the time; null = no line.

    Less than what pods held by what a failed GPU did not do (nobody pays for it), by what was given away twice, and
    by the hour that is not booked yet.
    """
    lines = tables["cost_line"]
    inside = lines.filter(lines.starts_at >= since, lines.starts_at < until, lines.gpu.notnull())
    is_held = inside.category.isin(HELD)
    return inside.aggregate(gpu_hours=inside.gpu_seconds.sum(where=is_held) / SECONDS_PER_HOUR)


def usage_summary(hours: pl.DataFrame, by: str = "workspace") -> pl.DataFrame:
    """Return one row a group of what `usage_hours` gave: GPU-hours held, mean, active share, busiest hour's p95.

    Means are weighted by samples, so that an hour with one GPU does not count as much as one with a hundred; a group
    without any sample has nulls.
    """
    weight = pl.col("known_count")
    known = weight.sum() > 0

    def weighted(name: str) -> pl.Expr:
        return pl.when(known).then((pl.col(name) * weight).sum() / weight.sum())

    return (
        hours.group_by(by)
        .agg(
            pl.col("gpu_hours").sum(),
            weighted("activity_mean").alias("activity_mean"),
            weighted("active_share").alias("active_share"),
            pl.col("activity_p50").median(),
            pl.col("activity_p95").max().alias("activity_p95_max"),
            hour_count=pl.len(),
        )
        .sort("gpu_hours", by, descending=[True, False], nulls_last=True)
    )


def _holds(tables: Tables, since: datetime, until: datetime, by: str) -> ir.Table:
    """Return each hold by clock hour: gpu, slice, hour (number since 1970), from_s, until_s, holder, fraction."""
    held = tables["pod_allocation"]
    held = held.filter(held.starts_at < until, held.ends_at.isnull() | (held.ends_at > since))
    if by not in _OF_HOLDER:
        gpus = tables["gpu"].select("gpu", holder=by)
        held = held.join(gpus, "gpu")
    elif by == "workload":
        held = held.mutate(
            holder=ibis.coalesce(
                held.workload_kind + "/" + held.namespace + "/" + held.workload,
                ibis.literal("Pod/") + held.namespace + "/" + held.pod,
            )
        )
    else:
        held = held.mutate(holder=held[by])
    cut = held.mutate(
        from_s=ibis.greatest(held.starts_at, ibis.literal(since)).epoch_seconds(),
        until_s=ibis.least(held.ends_at, ibis.literal(until)).epoch_seconds(),
    )
    cut = cut.filter(cut.from_s < cut.until_s)
    first = (cut.from_s / SECONDS_PER_HOUR).floor().cast("int64")
    after = (cut.until_s / SECONDS_PER_HOUR).ceil().cast("int64")
    by_hour = cut.select(
        "gpu", "slice", "holder", "fraction", "from_s", "until_s", hour=ibis.range(first, after).unnest()
    )
    by_hour = by_hour.mutate(
        from_s=ibis.greatest(by_hour.from_s, by_hour.hour * SECONDS_PER_HOUR),
        until_s=ibis.least(by_hour.until_s, (by_hour.hour + 1) * SECONDS_PER_HOUR),
    )
    return by_hour.mutate(lasts_s=by_hour.until_s - by_hour.from_s)


def _samples_held(tables: Tables, holds: ir.Table, since: datetime, until: datetime) -> ir.Table:
    """Return hour, number and activity of every sample of a device at the time that somebody held it."""
    gpus = tables["gpu"]
    mig = gpus.filter(gpus.mig_enabled).select("gpu")
    whole = holds.filter(holds.slice.isnull()).select("gpu", "hour", "number", "from_s", "until_s").distinct()
    parts = holds.filter(holds.slice.notnull()).select("slice", "hour", "number", "from_s", "until_s").distinct()
    samples = tables["gpu_sample"]
    within = samples.filter(samples.ts >= since, samples.ts < until)
    profiled = ibis.coalesce(within.sm_activity, within.gr_activity)
    second = within.ts.epoch_seconds()
    measured = within.select("gpu", s=second, activity=ibis.coalesce(profiled, within.utilization))
    of_gpus = _met(measured, whole.anti_join(mig, "gpu"), "gpu")
    of_parents = _met(within.select("gpu", s=second, activity=profiled), whole.semi_join(mig, "gpu"), "gpu")
    slices = tables["slice_sample"]
    within = slices.filter(slices.ts >= since, slices.ts < until)
    best = ibis.coalesce(within.sm_activity, within.gr_activity)
    of_slices = _met(within.select("slice", s=within.ts.epoch_seconds(), activity=best), parts, "slice")
    return ibis.union(of_gpus, of_parents, of_slices)


def _met(samples: ir.Table, holds: ir.Table, key: str) -> ir.Table:
    """Return the samples of each hold: by device and clock hour first, which is a hash join, then by the second."""
    samples = samples.filter(samples.activity.notnull())
    samples = samples.mutate(hour=samples.s // SECONDS_PER_HOUR)
    joined = samples.join(holds, [key, "hour"])
    inside = joined.filter(joined.s >= joined.from_s, joined.s < joined.until_s)
    return inside.select("hour", "number", "activity")


def live(tables: Tables, now: datetime, stale_s: float = 900.0) -> ir.Table:
    """Return the newest sample of each GPU and slice not older than `stale_s`, and who holds it: what `top` shows.

    A device whose samples are older is there with nulls. Pods that share a device are counted in `pod_count`.
    """
    since = now - timedelta(seconds=stale_s)
    held = tables["pod_allocation"]
    is_open = (held.starts_at <= now) & (held.ends_at.isnull() | (held.ends_at > now))
    open_now = held.filter(is_open)
    gpus = tables["gpu"].mutate(is_mig=tables["gpu"].mig_enabled.coalesce(False))
    whole = _newest(tables["gpu_sample"], gpus, "gpu", since, now)
    holders = _holders(open_now.filter(open_now.slice.isnull()), "gpu")
    of_gpus = gpus.left_join(whole, "gpu").drop("gpu_right").left_join(holders, "gpu")
    columns = (
        "cluster", "node", "gpu_index", "model", "ts", "activity", "signal", "memory_used_mib", "memory_mib", "power_w",
        "temperature_c", "workspace", "workload", "pod_count",
    )  # fmt: skip
    slices = tables["slice"].select("slice", "gpu", "memory_mib", slice_uuid=tables["slice"].uuid)
    carved = slices.join(gpus.drop("memory_mib"), "gpu")
    newest = _newest(tables["slice_sample"].mutate(power_w=ibis.null("float32"), temperature_c=ibis.null("float32")),
                     slices.mutate(is_mig=True), "slice", since, now)  # fmt: skip
    parts = _holders(open_now.filter(open_now.slice.notnull()), "slice")
    of_slices = carved.join(newest, "slice").left_join(parts, "slice")
    return ibis.union(
        of_gpus.select(of_gpus.uuid.name("device"), *columns),
        of_slices.select(of_slices.slice_uuid.name("device"), *columns),
    )


def _newest(samples: ir.Table, devices: ir.Table, key: str, since: datetime, now: datetime) -> ir.Table:
    recent = samples.filter(samples.ts >= since, samples.ts <= now).join(devices.select(key, "is_mig"), key)
    rows = recent.mutate(activity=strongest_activity(recent), signal=strongest_signal(recent))
    names = ("activity", "signal", "memory_used_mib", "power_w", "temperature_c")
    newest = {name: rows[name].argmax(rows.ts) for name in names}
    return rows.group_by(key).agg(ts=rows.ts.max(), **newest)


def _holders(held: ir.Table, key: str) -> ir.Table:
    name = ibis.coalesce(
        held.workload_kind + "/" + held.namespace + "/" + held.workload, held.namespace + "/" + held.pod
    )
    only = held.workspace.nunique() <= 1
    return held.group_by(key).agg(
        workspace=ibis.ifelse(only, held.workspace.max(), None),
        workload=ibis.ifelse(name.nunique() <= 1, name.max(), None),
        pod_count=held.pod_uid.nunique(),
    )
