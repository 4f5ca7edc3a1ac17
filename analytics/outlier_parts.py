"""Ask what each GPU did in each part of a window: the heavy half of fleet-relative health."""

from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir

from analytics.activity import SECONDS_PER_HOUR, Tables, strongest_activity
from analytics.outliers import OutlierPolicy

GANGS = (
    "Job", "JobSet", "PyTorchJob", "MPIJob", "TFJob", "JAXJob", "PaddleJob", "XGBoostJob", "TrainJob", "RayJob",
    "LeaderWorkerSet", "FineTuneJob",
)  # fmt: skip


def outlier_parts(tables: Tables, now: datetime, policy: OutlierPolicy) -> ir.Table:
    """Return a row for each GPU and part of the window: its phase, its job and its medians.

    Reads gpu, gpu_sample and pod_allocation. Phase: "work" where the part's mean activity is above the policy's line,
    else "rest"; null where no activity was measured. Counters become rates an hour; one that went back was reset and
    gives none. `job` is the gang that held the GPU whole and alone at the end of the window, of a kind whose parts do
    the same work: replicas of a service get the traffic they get.
    """
    samples, gpus = tables["gpu_sample"], tables["gpu"]
    since = now - timedelta(seconds=policy.window_s)
    part_s = policy.window_s / policy.parts
    within = samples.filter(samples.ts >= since, samples.ts < now)
    within = within.join(gpus.select("gpu", is_mig=gpus.mig_enabled.coalesce(False)), "gpu")
    part = ((within.ts.epoch_seconds() - int(since.timestamp())) / part_s).floor().cast("int64")
    slim = within.select(
        "gpu", "ts", "power_w", "sm_clock_mhz", "sm_activity", "temperature_c", "ecc_corrected_count",
        "pcie_replay_count", part=part, activity=strongest_activity(within),
    )  # fmt: skip
    told = slim.group_by("gpu", "part").agg(
        activity=slim.activity.mean(),
        # The mean of a part spans many steps, which is what makes it free of their length.
        power_w=slim.power_w.mean(),
        sm_clock_mhz=slim.sm_clock_mhz.mean(),
        sm_activity=slim.sm_activity.mean(),
        temperature_c=slim.temperature_c.mean(),
        corrected_rise=slim.ecc_corrected_count.max() - slim.ecc_corrected_count.min(),
        corrected_fell=slim.ecc_corrected_count.argmax(slim.ts) < slim.ecc_corrected_count.max(),
        replay_rise=slim.pcie_replay_count.max() - slim.pcie_replay_count.min(),
        replay_fell=slim.pcie_replay_count.argmax(slim.ts) < slim.pcie_replay_count.max(),
    )
    per_hour = SECONDS_PER_HOUR / part_s
    told = told.mutate(
        phase=ibis.cases((told.activity > policy.active_above, "work"), (told.activity <= policy.active_above, "rest")),
        corrected_per_hour=ibis.ifelse(told.corrected_fell, None, told.corrected_rise * per_hour),
        replays_per_hour=ibis.ifelse(told.replay_fell, None, told.replay_rise * per_hour),
    )
    joined = told.join(gpus.select("gpu", "uuid", "cluster", "node", "model"), "gpu")
    joined = joined.left_join(_jobs(tables["pod_allocation"], now), "gpu").drop("gpu_right")
    return joined.select(
        "uuid", "cluster", "node", "model", "part", "phase", "job", "workload", "power_w", "sm_clock_mhz",
        "sm_activity", "temperature_c", "corrected_per_hour", "replays_per_hour",
    )  # fmt: skip


def gangs(tables: Tables, now: datetime) -> ir.Table:
    """Return uuid and job of each GPU that a gang holds whole and alone just before `now`."""
    held = _jobs(tables["pod_allocation"], now)
    named = held.join(tables["gpu"].select("gpu", "uuid"), "gpu")
    return named.filter(named.job.notnull()).select("uuid", "job")


def _jobs(allocations: ir.Table, now: datetime) -> ir.Table:
    """Return one row for each GPU that one workload holds whole just before `now`."""
    moment = now - timedelta(microseconds=1)
    is_open = (allocations.starts_at <= moment) & (allocations.ends_at.isnull() | (allocations.ends_at > moment))
    held = allocations.filter(is_open, allocations.workload.notnull())
    name = held.workload_kind.coalesce("") + "/" + held.namespace + "/" + held.workload
    whole = held.mutate(job=held.cluster + "/" + name, name=name)
    is_gang = whole.workload_kind.isin(GANGS)
    by_gpu = whole.group_by("gpu").agg(
        jobs=whole.job.nunique(),
        slices=whole.slice.count(),
        job=whole.job.max(where=is_gang),
        workload=whole.name.max(),
    )
    alone = by_gpu.filter(by_gpu.jobs == 1, by_gpu.slices == 0)
    return alone.select("gpu", "job", "workload")
