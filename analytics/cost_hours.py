"""Ask who held each GPU in each clock hour and how much of it was active: the heavy half of the ledger."""

from datetime import datetime

import ibis
import ibis.expr.types as ir

from analytics.activity import ACTIVE_ABOVE, SECONDS_PER_HOUR, Tables, hour_start, strongest_activity
from analytics.cost_policy import LedgerPolicy
from analytics.prices import priced_gpus

__all__ = ["LedgerPolicy", "ledger_hours", "mig_devices"]

_POD = ("pod_uid", "namespace", "workload_kind", "workload", "pod", "workspace", "slice", "fraction")


def ledger_hours(tables: Tables, since: datetime, until: datetime, policy: LedgerPolicy) -> ir.Table:
    """Return what `ledger` reads: a row for each GPU and clock hour of `[since, until)`, and each pod that held it.

    The first and last hour are cut to the window, and to the time the GPU was there. `held_from` and `held_until`
    are the pod's part of the hour; an hour nobody held has one row with a null `pod_uid`. Activity is that of the
    pod's slice where it held one. Reads gpu, node, gpu_hour, slice_sample and pod_allocation.
    """
    hours = _hours(tables, since, until, policy)
    held = _held(tables["pod_allocation"], since, until)
    rows = hours.left_join(held, ["gpu", "step"]).drop("gpu_right", "step_right")
    rows = rows.mutate(
        held_from=ibis.greatest(rows.held_from, rows.starts_at), held_until=ibis.least(rows.held_until, rows.ends_at)
    )
    of_slices = _slice_hours(tables["slice_sample"], since, until)
    rows = rows.left_join(of_slices, ["slice", "hour_at"]).drop("slice_right", "hour_at_right")
    is_slice = rows.slice.notnull()
    return rows.mutate(
        known_count=ibis.ifelse(is_slice, rows.slice_known_count, rows.known_sample_count),
        active_count=ibis.ifelse(is_slice, rows.slice_active_count, rows.active_sample_count),
    ).select(
        "gpu", "uuid", "cluster", "model", "capacity_type", "region", "starts_at", "ends_at", "interval_s",
        "known_count", "active_count", "held_from", "held_until", *_POD,
    )  # fmt: skip


def mig_devices(tables: Tables) -> ir.Table:
    """Return every MIG device with what its part of the GPU goes by: profile, the GPU's model and memory, its time."""
    gpus = tables["gpu"].select("gpu", "model", "memory_mib")
    slices = tables["slice"].select("slice", "gpu", "profile", "first_seen_at", "last_seen_at")
    return slices.join(gpus, "gpu").select(
        "slice", "gpu", "profile", "model", "memory_mib", "first_seen_at", "last_seen_at"
    )


def _hours(tables: Tables, since: datetime, until: datetime, policy: LedgerPolicy) -> ir.Table:
    """Return a row for each GPU and clock hour that it was there, with its activity."""
    first_hour = hour_start(since)
    of_hour = tables["gpu_hour"]
    rolled = of_hour.filter(of_hour.hour_at >= first_hour, of_hour.hour_at < until).select(
        "gpu", "hour_at", "sample_count", "known_sample_count", "active_sample_count"
    )
    gpus = _presence(tables, rolled, since, until, policy)
    step_count = -int((first_hour - until).total_seconds() // SECONDS_PER_HOUR)
    steps = ibis.range(0, max(step_count, 0)).unnest().name("step").as_table()
    all_hours = gpus.cross_join(steps)
    all_hours = all_hours.mutate(hour_at=ibis.literal(first_hour) + all_hours.step.as_interval("h"))
    hour = ibis.interval(hours=1)
    cut = all_hours.mutate(
        starts_at=ibis.greatest(all_hours.hour_at, all_hours.here_from),
        ends_at=ibis.least(all_hours.hour_at + hour, all_hours.here_until),
    )
    return (
        cut.filter(cut.starts_at < cut.ends_at).left_join(rolled, ["gpu", "hour_at"]).drop("gpu_right", "hour_at_right")
    )


def _presence(tables: Tables, rolled: ir.Table, since: datetime, until: datetime, policy: LedgerPolicy) -> ir.Table:
    """Return each GPU with the part of the window that it was there, and its node's sampling interval."""
    told = tables["gpu"].select("gpu", "cluster", "node", "first_seen_at", "last_seen_at")
    gpus = told.join(priced_gpus(tables), "gpu")
    heard = rolled.group_by("gpu").agg(
        first_hour_at=rolled.hour_at.min(),
        last_hour_end_at=(rolled.hour_at + ibis.interval(hours=1)).max(),
        samples_an_hour=rolled.sample_count.median(),
    )
    joined = gpus.left_join(heard, "gpu").drop("gpu_right")
    node = ibis.window(group_by=["cluster", "node"])
    gone_after = ibis.interval(seconds=int(policy.gone_after_s))
    last = ibis.greatest(joined.last_seen_at, joined.last_hour_end_at)
    return joined.mutate(
        here_from=ibis.ifelse(
            joined.first_seen_at.isnull(),
            ibis.literal(since),
            ibis.greatest(ibis.literal(since), ibis.least(joined.first_seen_at, joined.first_hour_at)),
        ),
        here_until=ibis.least(ibis.literal(until), last + gone_after),
        interval_s=SECONDS_PER_HOUR / joined.samples_an_hour.median().over(node).nullif(0),
    )


def _held(allocations: ir.Table, since: datetime, until: datetime) -> ir.Table:
    """Return a row for each allocation and clock hour that it touches in the window, numbered by `step`."""
    first_hour = hour_start(since)
    inside = allocations.filter(
        allocations.starts_at < until, allocations.ends_at.isnull() | (allocations.ends_at > since)
    )
    cut = inside.mutate(
        held_from=ibis.greatest(inside.starts_at, ibis.literal(since)),
        held_until=ibis.least(inside.ends_at, ibis.literal(until)),
    )
    cut = cut.filter(cut.held_from < cut.held_until)
    base = ibis.literal(first_hour).epoch_seconds()
    first = ((cut.held_from.epoch_seconds() - base) / SECONDS_PER_HOUR).floor().cast("int64")
    after = ((cut.held_until.epoch_seconds() - base) / SECONDS_PER_HOUR).ceil().cast("int64")
    return cut.select("gpu", *_POD, "held_from", "held_until", step=ibis.range(first, after).unnest())


def _slice_hours(samples: ir.Table, since: datetime, until: datetime) -> ir.Table:
    within = samples.filter(samples.ts >= hour_start(since), samples.ts < until)
    within = within.mutate(activity=strongest_activity(within), hour_at=within.ts.truncate("h"))
    return within.group_by("slice", "hour_at").agg(
        slice_known_count=within.activity.count(),
        slice_active_count=within.activity.count(where=within.activity > ACTIVE_ABOVE),
    )
