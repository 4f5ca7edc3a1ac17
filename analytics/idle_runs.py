"""Ask for runs of idle samples, and for the spells in which pods held idle GPUs: exact intervals, never over a gap."""

from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir

from analytics.activity import Tables, is_still, with_previous
from analytics.idle_policy import IdlePolicy

_FALLBACK_INTERVAL_S = 60.0  # where no GPU at all has two samples to measure it by


def idle_runs(samples: ir.Table, since: datetime, until: datetime, policy: IdlePolicy) -> ir.Table:
    """Return the runs of consecutive idle samples in `[since, until)`: gpu, starts_at, ends_at, sample_count.

    `ends_at` is the moment of the run's last sample. A run ends at an active or unmeasured sample and at a missing
    one: a gap is not bridged. Where the policy gives no interval, it is each GPU's median over the window's last
    hour (else the fleet's, else a minute). Give samples of MIG parents a true `is_mig`: NVML's utilization says
    nothing of them.

    Only idle samples are sorted, and only by two columns: one that comes more than 1.5 intervals after the idle
    sample before it begins a run, and that sample before is where the last run ended.
    """
    within = samples.filter(samples.ts >= since, samples.ts < until)
    idle = within.filter(is_still(within, policy.active_above)).select("gpu", "ts")
    order = ibis.window(group_by="gpu", order_by="ts")
    numbered = idle.mutate(previous_ts=idle.ts.lag().over(order), ordinal=ibis.row_number().over(order))
    starts = _run_starts(numbered, within.filter(within.ts >= until - timedelta(hours=1)), policy)
    chained = starts.mutate(run_end=starts.previous_ts.lead().over(order), next=starts.ordinal.lead().over(order))
    joined = chained.join(idle.group_by("gpu").agg(last_ts=idle.ts.max(), idle_count=idle.count()), "gpu")
    return joined.select(
        "gpu",
        starts_at=joined.ts,
        ends_at=ibis.coalesce(joined.run_end, joined.last_ts),
        sample_count=ibis.coalesce(joined.next, joined.idle_count) - joined.ordinal,
    )


def _run_starts(numbered: ir.Table, recent: ir.Table, policy: IdlePolicy) -> ir.Table:
    if policy.interval_s is not None:
        allowed = ibis.interval(milliseconds=round(policy.interval_s * 1500))
        return numbered.filter(numbered.previous_ts.isnull() | (numbered.ts > numbered.previous_ts + allowed))
    gaps = with_previous(recent.select("gpu", "ts"), "gpu")
    own = gaps.group_by("gpu").agg(interval_s=gaps.gap_s.median())
    timed = numbered.left_join(own, "gpu").drop("gpu_right")
    interval_s = ibis.coalesce(timed.interval_s, own.interval_s.median().as_scalar(), _FALLBACK_INTERVAL_S)
    allowed = (interval_s * 1500).cast("int64").as_interval("ms")
    starts = timed.filter(timed.previous_ts.isnull() | (timed.ts > timed.previous_ts + allowed))
    return starts.drop("interval_s")


def idle_spells(tables: Tables, since: datetime, until: datetime, policy: IdlePolicy) -> ir.Table:
    """Return when whose pods held an idle GPU: the runs of idle samples, cut to the time that each pod held it.

    Columns: cluster, namespace, pod, pod_uid, workload_kind, workload, workspace, gpu, fraction, starts_at, ends_at,
    sample_count (of the whole run). A spell is closed: from its first idle sample, or the pod's start, to its last
    one, or the pod's end. Within `skew_s` of a change of hands nothing is charged to anybody: exporters and the API
    server go by clocks of their own. Pods on slices have none here; their slices' samples tell of them.
    """
    gpus = tables["gpu"].select("gpu", is_mig=tables["gpu"].mig_enabled.coalesce(False))
    runs = idle_runs(tables["gpu_sample"].join(gpus, "gpu"), since, until, policy)
    skew = ibis.interval(milliseconds=round(policy.skew_s * 1000))
    held = tables["pod_allocation"]
    held = held.filter(held.slice.isnull(), held.starts_at < until, held.ends_at.isnull() | (held.ends_at > since))
    held = held.mutate(held_from=held.starts_at + skew, held_until=held.ends_at - skew).drop("starts_at", "ends_at")
    met = runs.join(held, "gpu")
    spells = met.mutate(
        starts_at=ibis.greatest(met.starts_at, met.held_from), ends_at=ibis.least(met.ends_at, met.held_until)
    )
    return spells.filter(spells.starts_at < spells.ends_at).select(
        "cluster", "namespace", "pod", "pod_uid", "workload_kind", "workload", "workspace", "gpu", "fraction",
        "starts_at", "ends_at", "sample_count",
    )  # fmt: skip
