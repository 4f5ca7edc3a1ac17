"""Ask what each GPU and slice did in a window, and who holds it: the heavy half of the topic `idle`."""

from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir

from analytics.activity import Tables, hour_start, strongest_activity, strongest_signal
from analytics.idle_policy import IdlePolicy
from analytics.workload_kinds import NOTEBOOK_KINDS, SERVING_KINDS


def idle_signals(tables: Tables, now: datetime, policy: IdlePolicy) -> ir.Table:
    """Return what `judge_idle` reads: a row for each GPU and slice, and for each pod that holds it at `now`.

    Reads gpu, slice, gpu_sample, slice_sample, gpu_hour and pod_allocation. A GPU without samples has a row with
    counts of zero; one that nobody holds has a null `pod_uid`. The window is that of the holder's kind of workload,
    the longest where several hold it. `known_count` is of the window, `active_count` of the window and the grace
    before it: what worked just before has not been still for the whole window.
    """
    gpu = tables["gpu"]
    is_mig = gpu.mig_enabled.coalesce(False)
    gpus = gpu.select("gpu", "uuid", "cluster", "node", "model", "memory_mib", is_mig=is_mig)
    of_gpus = _gpu_signals(gpus, tables, now, policy)
    of_slices = _slice_signals(gpus, tables, now, policy)
    return ibis.union(of_gpus, of_slices.select(*of_gpus.columns))


_READ = ("gr_activity", "sm_activity", "tensor_activity", "dram_activity", "memory_used_mib", "process_count")
_OF_BOARDS = ("utilization", "power_w", "energy_j")


def _gpu_signals(gpus: ir.Table, tables: Tables, now: datetime, policy: IdlePolicy) -> ir.Table:
    near_since = samples_since(now, policy)
    held = _held(tables["pod_allocation"], now)
    held = held.filter(held.slice.isnull()).drop("slice")
    keys = gpus.select("gpu", "is_mig").left_join(_windows(held, "gpu", policy), "gpu").drop("gpu_right")
    samples = tables["gpu_sample"]
    near = samples.filter(samples.ts >= near_since, samples.ts < now)
    near = near.select("gpu", "ts", *_READ, *_OF_BOARDS).join(keys, "gpu")
    signals = _signals(near, "gpu", now, policy)
    joined = gpus.left_join(signals, "gpu").drop("gpu_right")
    joined = joined.left_join(_hours(tables["gpu_hour"], near_since, now, policy), "gpu").drop("gpu_right")
    joined = joined.left_join(held, "gpu").drop("gpu_right")
    return _subjects(joined, "gpu", joined.uuid)


def _slice_signals(gpus: ir.Table, tables: Tables, now: datetime, policy: IdlePolicy) -> ir.Table:
    """Give slices that have samples or a holder; one with neither was carved away long ago."""
    near_since = samples_since(now, policy)
    held = _held(tables["pod_allocation"], now)
    held = held.filter(held.slice.notnull()).drop("gpu")
    samples = tables["slice_sample"]
    near = (
        samples.filter(samples.ts >= near_since, samples.ts < now)
        .select("slice", "ts", *_READ)
        .mutate(
            utilization=ibis.null("float32"), power_w=ibis.null("float32"), energy_j=ibis.null("float64"), is_mig=True
        )
    )
    near = near.left_join(_windows(held, "slice", policy), "slice").drop("slice_right")
    signals = _signals(near, "slice", now, policy)
    slices = tables["slice"].select("slice", "gpu", slice_uuid=tables["slice"].uuid)
    joined = slices.join(gpus.select("gpu", "uuid", "cluster", "node", "model", "memory_mib", "is_mig"), "gpu")
    joined = joined.left_join(signals, "slice").drop("slice_right")
    joined = joined.left_join(held, "slice").drop("slice_right")
    joined = joined.filter(joined.near_first_at.notnull() | joined.pod_uid.notnull())
    moment = ibis.null(joined.near_first_at.type())
    joined = joined.mutate(
        hour_active_at=moment,
        hour_gap_end_at=moment,
        last_hour_at=moment,
        wake_count=ibis.null("int64"),
        quiet_hours=ibis.null("int64"),
    )
    return _subjects(joined, "slice", joined.slice_uuid)


def samples_since(now: datetime, policy: IdlePolicy) -> datetime:
    """Return the moment since when single samples are read; what was before it is told by the roll-up."""
    longest_s = policy.longest_window_s + policy.grace_s
    return hour_start(now - timedelta(seconds=max(policy.near_s, longest_s)))


def _windows(held: ir.Table, key: str, policy: IdlePolicy) -> ir.Table:
    """Return each held `key` with the longest window of its holders' kinds, in seconds."""
    window_s = ibis.cases(
        (held.workload_kind.isin(NOTEBOOK_KINDS), policy.notebook_window_s),
        (held.workload_kind.isin(SERVING_KINDS), policy.serving_window_s),
        else_=policy.window_s,
    )
    return held.group_by(key).agg(window_s=window_s.max())


def _signals(near: ir.Table, key: str, now: datetime, policy: IdlePolicy) -> ir.Table:
    """Return one row a `key`: the window's counts, and where its unbroken idleness may have begun.

    Gaps are measured between samples that have an activity: an unmeasured sample is as good as none.
    """
    since_s = ibis.literal(now).epoch_seconds() - near.window_s.coalesce(policy.window_s)
    timed = near.mutate(is_in=near.ts.epoch_seconds() >= since_s)
    timed = timed.mutate(is_graced=timed.ts.epoch_seconds() >= since_s - policy.grace_s)
    of_known = _of_known(timed, key, policy)
    of_all = timed.group_by(key).agg(
        sample_count=timed.count(where=timed.is_in),
        memory_used_mib=timed.memory_used_mib.argmax(timed.ts, where=timed.is_in & timed.memory_used_mib.notnull()),
        memory_mib_max=timed.memory_used_mib.max(),
        power_w_mean=timed.power_w.mean(where=timed.is_in),
        last_sample_at=timed.ts.max(),
        process_count=timed.process_count.argmax(timed.ts, where=timed.is_in & timed.process_count.notnull()),
    )
    return of_all.left_join(of_known, key).drop(f"{key}_right")


def _of_known(timed: ir.Table, key: str, policy: IdlePolicy) -> ir.Table:
    """Return what the samples tell that measured an activity, one row a `key`."""
    measured = timed.mutate(activity=strongest_activity(timed), signal=strongest_signal(timed))
    measured = measured.filter(measured.activity.notnull())
    order = ibis.window(group_by=key, order_by="ts")
    # All that is looked up in the sample before in one step, so that the samples are sorted once.
    lagged = measured.mutate(
        seconds=measured.ts.epoch_seconds(),
        **{f"previous_{name}": measured[name].lag().over(order) for name in ("ts", "energy_j", "memory_used_mib")},
    )
    rows = lagged.mutate(
        gap_s=lagged.seconds - lagged.previous_ts.epoch_seconds(),
        energy_step_j=lagged.energy_j - lagged.previous_energy_j,
        memory_step_mib=lagged.memory_used_mib - lagged.previous_memory_used_mib,
        is_spinning=_is_spinning(lagged, policy),
    )
    is_in, is_graced, is_active = rows.is_in, rows.is_graced, rows.activity > policy.active_above
    # A counter that went back was reset with its driver: nothing is known of that step.
    step_w = ibis.ifelse(rows.energy_step_j >= 0, rows.energy_step_j / rows.gap_s.nullif(0), None)
    return rows.group_by(key).agg(
        known_count=rows.count(where=is_in),
        active_count=rows.count(where=is_graced & is_active),
        traffic_count=rows.count(where=is_graced & _moves_data(rows, policy)),
        last_active_at=rows.ts.max(where=is_graced & is_active),
        last_known_at=rows.ts.max(),
        activity_max=rows.activity.max(where=is_in),
        activity_mean=rows.activity.mean(where=is_in),
        signal=rows.signal.argmax(rows.activity, where=is_in),
        own_interval_s=rows.gap_s.median(),
        active_before_at=rows.ts.max(where=~is_graced & is_active),
        near_first_at=rows.ts.min(),
        near_gap_end_at=rows.ts.max(where=rows.gap_s > policy.gap_s),
        near_count=rows.count(),
        sm_p95=ibis.coalesce(rows.sm_activity, rows.gr_activity).quantile(0.95),
        spinning_count=rows.count(where=is_in & rows.is_spinning),
        profiled_count=rows.count(where=is_in & rows.dram_activity.notnull()),
        spun_from_at=rows.ts.max(where=~rows.is_spinning),
        profiled_max=ibis.coalesce(rows.gr_activity, rows.sm_activity).max(where=is_graced),
        step_w_max=step_w.max(where=is_graced),
        step_w_median=step_w.median(where=is_graced),
        step_w_low=step_w.quantile(0.1, where=is_graced),
        memory_rise_mib=rows.memory_step_mib.max(where=is_graced),
    )


def _moves_data(rows: ir.Table, policy: IdlePolicy) -> ir.BooleanValue:
    """Return whether memory or tensor cores were at work: copies go past the SMs and the graphics engine."""
    at_work = [rows[name] > policy.active_above for name in ("dram_activity", "tensor_activity")]
    return ibis.or_(*at_work).coalesce(False)


def _is_spinning(rows: ir.Table, policy: IdlePolicy) -> ir.BooleanValue:
    """Return whether kernels ran all the time while nothing else did that work would need, as far as was measured."""
    runs = ibis.coalesce(ibis.ifelse(rows.is_mig, None, rows.utilization), rows.gr_activity)
    low = [
        rows[name].isnull() | (rows[name] <= line)
        for name, line in (
            ("sm_activity", policy.stalled_sm_activity),
            ("dram_activity", policy.stalled_dram_activity),
            ("tensor_activity", policy.stalled_dram_activity),
        )
    ]
    return (runs >= policy.stalled_utilization).coalesce(False) & ibis.and_(*low)


def _hours(gpu_hour: ir.Table, near_since: datetime, now: datetime, policy: IdlePolicy) -> ir.Table:
    """Return one row a GPU of the roll-up before `near_since`: last activity, last gap, wakes in the last day."""
    since = hour_start(now - timedelta(seconds=policy.look_back_s))
    known = gpu_hour.filter(gpu_hour.hour_at >= since, gpu_hour.hour_at < near_since, gpu_hour.known_sample_count > 0)
    order = ibis.window(group_by="gpu", order_by="hour_at")
    hours = known.mutate(
        previous_at=known.hour_at.lag().over(order), before=known.active_sample_count.lag().over(order)
    )
    follows = hours.hour_at == hours.previous_at + ibis.interval(hours=1)
    is_today = hours.hour_at >= now - timedelta(days=1)
    is_active = hours.active_sample_count > 0
    return hours.group_by("gpu").agg(
        hour_active_at=hours.hour_at.max(where=is_active),
        hour_gap_end_at=hours.hour_at.max(where=follows.isnull() | ~follows),
        last_hour_at=hours.hour_at.max(),
        wake_count=hours.count(where=is_today & is_active & follows & (hours.before == 0)),
        quiet_hours=hours.count(where=is_today & ~is_active),
    )


def _held(allocations: ir.Table, now: datetime) -> ir.Table:
    """Return one row a pod, GPU and slice held at `now`; a pod's containers are one holder."""
    is_open = (allocations.starts_at <= now) & (allocations.ends_at.isnull() | (allocations.ends_at > now))
    held = allocations.filter(is_open)
    return held.group_by("gpu", "slice", "namespace", "pod", "pod_uid", "workload_kind", "workload", "workspace").agg(
        owner=held.owner.max(), fraction=held.fraction.sum(), pod_started_at=held.starts_at.min()
    )


_COUNTS = (
    "sample_count",
    "known_count",
    "active_count",
    "traffic_count",
    "near_count",
    "spinning_count",
    "profiled_count",
)
_REALS = (
    "activity_max", "activity_mean", "power_w_mean", "sm_p95", "profiled_max", "step_w_max", "step_w_median",
    "step_w_low",
)  # fmt: skip


def _subjects(joined: ir.Table, kind: str, subject: ir.StringValue) -> ir.Table:
    """Give every subject the same columns, counts of zero where it has no samples, and its node's interval."""
    node = ibis.window(group_by=["cluster", "node"])
    told = joined.mutate(subject_kind=ibis.literal(kind), subject=subject, gpu_uuid=joined.uuid)
    return told.select(
        "subject_kind", "subject", "gpu_uuid", "cluster", "node", "model", "is_mig", "memory_mib",
        *(told[name].coalesce(0).name(name) for name in _COUNTS),
        *(told[name].cast("float64").name(name) for name in _REALS),
        "signal", "memory_used_mib", "memory_mib_max", "memory_rise_mib", "process_count",
        told.own_interval_s.median().over(node).name("interval_s"),
        "last_sample_at", "last_known_at", "last_active_at", "active_before_at", "near_first_at", "near_gap_end_at",
        "spun_from_at", "hour_active_at", "hour_gap_end_at", "last_hour_at", "wake_count", "quiet_hours",
        "namespace", "pod", "pod_uid", "workload_kind", "workload", "workspace", "owner", "fraction",
        "pod_started_at",
    )  # fmt: skip
