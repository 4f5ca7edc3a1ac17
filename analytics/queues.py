"""Say how demand, capacity and queues stood by workspace, and how long jobs waited."""

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import SECONDS_PER_HOUR, Tables
from analytics.demand import UNATTRIBUTED


def demand_report(hourly: pl.DataFrame) -> pl.DataFrame:
    """Return demand, capacity and queue by cluster and workspace from the rows of `hourly_demand`.

    Pools and models are summed in each hour first. `queue_share` is the part of the hours in which something
    waited, `full_share` the part that ran at capacity; each is null where its measure was never recorded.
    """
    by_hour = hourly.group_by("cluster", "workspace", "ts").agg(
        _sum("running_gpus_mean"), _sum("pending_gpus_mean"), _sum("capacity_gpus_max"), pl.col("basis").min()
    )
    return (
        by_hour.sort("ts")
        .group_by("cluster", "workspace")
        .agg(
            hours=pl.len(),
            running_gpus_mean=pl.col("running_gpus_mean").mean(),
            running_gpus_p95=pl.col("running_gpus_mean").quantile(0.95),
            running_gpus_max=pl.col("running_gpus_mean").max(),
            capacity_gpus=pl.col("capacity_gpus_max").drop_nulls().last(),
            pending_gpus_mean=pl.col("pending_gpus_mean").mean(),
            queue_share=(pl.col("pending_gpus_mean") > 0).mean(),
            full_share=(pl.col("running_gpus_mean") >= pl.col("capacity_gpus_max")).mean(),
            basis=pl.col("basis").min(),
        )
        .sort("cluster", "workspace", nulls_last=True)
    )


def job_report(tables: Tables) -> ir.Table:
    """Return jobs by cluster and workspace: how many, their GPU-hours, and how long they waited.

    GPU-hours go by start and end, else by the recorded duration; waits are null where no start is recorded.
    """
    jobs = tables["job"]
    between_s = (jobs.ended_at.epoch_seconds() - jobs.started_at.epoch_seconds()).cast("float64")
    waited_s = (jobs.started_at.epoch_seconds() - jobs.submitted_at.epoch_seconds()).cast("float64")
    hours = jobs.gpus * ibis.coalesce(between_s, jobs.duration_s) / SECONDS_PER_HOUR
    workspace = jobs.workspace.coalesce(UNATTRIBUTED)
    told = jobs.mutate(workspace=workspace, gpu_hours=hours, waited_s=waited_s)
    return (
        told.group_by("cluster", "workspace")
        .aggregate(
            job_count=told.count(),
            gpu_hours=told.gpu_hours.sum(),
            started_count=told.started_at.count(),
            wait_s_p50=told.waited_s.quantile(0.5),
            wait_s_p95=told.waited_s.quantile(0.95),
        )
        .order_by("cluster", "workspace")
    )


def _sum(name: str) -> pl.Expr:
    """Return the sum of what is known of a column; null, not zero, where nothing is."""
    return pl.when(pl.col(name).is_not_null().any()).then(pl.col(name).sum()).alias(name)
