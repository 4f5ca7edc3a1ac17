"""Ask how many GPUs each workspace wanted and had, hour by hour: from demand samples, else from the jobs themselves.

Demand is what runs plus what waits. An hour without samples is missing, not zero. Where a cluster has no demand
samples its jobs are laid over the hours; there an hour without a job is zero, for a queue records all it has.
"""

from datetime import datetime

import ibis
import ibis.expr.types as ir

from analytics.activity import SECONDS_PER_HOUR, Tables, hour_start

MEASURED = "measured"
FROM_JOBS = "jobs"
AS_IF_AT_ONCE = "jobs, as if started at once"
"""What an hour rests on (`basis`): samples, jobs with their starts, or jobs whose starts nobody recorded."""

UNATTRIBUTED = "unattributed"
"""The workspace of jobs that name none: they are shown, never dropped."""

_SERIES = ("cluster", "workspace", "pool", "model")
_OPEN = ("running", "pending")
_RAN = ("succeeded", "failed")


def hourly_demand(tables: Tables, since: datetime, until: datetime) -> ir.Table:
    """Return GPUs wanted and had by series (cluster, workspace, pool, model) and clock hour `ts` of the window.

    Columns: the series, ts, running_gpus_mean, pending_gpus_mean (null = nobody knows what waited),
    capacity_gpus_max, queue_share (samples with somebody waiting over samples that know, null from jobs),
    sample_count (0 from jobs) and basis. Jobs count where their cluster has no samples in the window: from start
    to end, or, where no start is recorded, for their run time from the moment they were submitted.
    """
    sampled = _from_samples(tables["demand_sample"], since, until)
    jobs = _from_jobs(tables, since, until)
    measured = tables["demand_sample"]
    measured = measured.filter(measured.ts >= since, measured.ts < until).select("cluster").distinct()
    return ibis.union(sampled, jobs.anti_join(measured, "cluster").select(*sampled.columns))


def _from_samples(samples: ir.Table, since: datetime, until: datetime) -> ir.Table:
    within = samples.filter(samples.ts >= since, samples.ts < until)
    step = _step(within.ts, since)
    known = within.mutate(
        step=step, running_gpus=_finite(within.running_gpus), pending_gpus=_finite(within.pending_gpus)
    )
    hours = known.group_by(*_SERIES, "step").agg(
        running_gpus_mean=known.running_gpus.mean(),
        pending_gpus_mean=known.pending_gpus.mean(),
        capacity_gpus_max=_finite(known.capacity_gpus).max(),
        queue_share=(known.pending_gpus > 0).cast("float64").mean(),
        sample_count=known.count(),
    )
    return hours.select(
        *_SERIES, "running_gpus_mean", "pending_gpus_mean", "capacity_gpus_max", "queue_share", "sample_count",
        ts=_hour(hours.step, since), basis=ibis.literal(MEASURED),
    )  # fmt: skip


def _from_jobs(tables: Tables, since: datetime, until: datetime) -> ir.Table:
    """Return the hours of every series that jobs make, zero where none ran, over what is recorded of its cluster."""
    whole_until = hour_start(until)
    spans = job_spans(tables["job"], until)
    grid = _recorded_hours(spans, since, whole_until)
    running = _gpu_hours(spans, "running_from", "running_until", since, whole_until)
    pending = _gpu_hours(spans, "pending_from", "running_from", since, whole_until)
    joined = grid.left_join(running, [*_JOB_SERIES, "step"])
    joined = joined.select(*grid.columns, running=joined.gpus)
    joined = joined.left_join(pending, [*_JOB_SERIES, "step"])
    joined = joined.select(*grid.columns, "running", pending=joined.gpus)
    knows_waiting = joined.basis == FROM_JOBS
    return joined.select(
        "cluster", "workspace", "basis",
        pool=ibis.null("string"),
        model=joined.model.nullif(""),
        running_gpus_mean=joined.running.coalesce(0.0).cast("float64"),
        pending_gpus_mean=ibis.ifelse(knows_waiting, joined.pending.coalesce(0.0).cast("float64"), None),
        capacity_gpus_max=ibis.null("float64"),
        queue_share=ibis.null("float64"),
        sample_count=ibis.literal(0, "int64"),
        ts=_hour(joined.step, since),
    )  # fmt: skip


_JOB_SERIES = ("cluster", "workspace", "model")


def job_spans(jobs: ir.Table, until: datetime) -> ir.Table:
    """Return each job that wants GPUs with when it waited and ran, as far as that is recorded.

    From `pending_from` to `running_from` it waited, from `running_from` to `running_until` it ran; null where nobody
    knows. A job still open ends at `until`. `is_start_known` is false where a job ran but only its submission is
    recorded: it is taken to have started at once. Model "" means none was recorded.
    """
    wanted = jobs.filter(_finite(jobs.gpus) > 0, jobs.submitted_at < until)
    is_open = wanted.status.isin(_OPEN).coalesce(False) & wanted.ended_at.isnull()
    ran_for = (_finite(wanted.duration_s) * 1000).round().cast("int64").as_interval("ms")
    has_run = wanted.duration_s.notnull() | (wanted.ended_at.notnull() & wanted.status.isin(_RAN).coalesce(False))
    is_start_known = wanted.started_at.notnull() | ~has_run
    began = ibis.coalesce(wanted.started_at, ibis.ifelse(has_run, wanted.submitted_at, None))
    ended = ibis.coalesce(wanted.ended_at, began + ran_for, ibis.ifelse(is_open, ibis.literal(until), None))
    return wanted.select(
        "cluster", "job_id", "gpus", "status",
        workspace=wanted.workspace.coalesce(UNATTRIBUTED),
        model=wanted.model.coalesce(""),
        is_start_known=is_start_known,
        pending_from=wanted.submitted_at,
        running_from=ibis.coalesce(began, ended),
        running_until=ended,
    )  # fmt: skip


def _recorded_hours(spans: ir.Table, since: datetime, until: datetime) -> ir.Table:
    """Return the hours of the window between a cluster's first and last recorded job event, for each series in it.

    Where starts are not recorded the last event is the last submission: later runs are tails, not demand.
    """
    clusters = spans.group_by("cluster").agg(
        first_at=spans.pending_from.min(),
        last_submitted_at=spans.pending_from.max(),
        last_ended_at=spans.running_until.max(where=spans.is_start_known),
        start_share=spans.is_start_known.cast("float64").mean(),
    )
    basis = ibis.ifelse(clusters.start_share > 0.5, FROM_JOBS, AS_IF_AT_ONCE)  # noqa: PLR2004 - the greater part
    first = ibis.greatest(_step(clusters.first_at, since), 0)
    after_end = ((clusters.last_ended_at.epoch_seconds() - _base(since)) / SECONDS_PER_HOUR).ceil().cast("int64")
    last = ibis.greatest(_step(clusters.last_submitted_at, since) + 1, after_end)
    after = ibis.least(last, _step(ibis.literal(until), since))
    steps = clusters.select("cluster", basis=basis, step=ibis.range(first, ibis.greatest(after, first)).unnest())
    return spans.select(*_JOB_SERIES).distinct().join(steps, "cluster").select(*_JOB_SERIES, "basis", "step")


def _gpu_hours(spans: ir.Table, start: str, end: str, since: datetime, until: datetime) -> ir.Table:
    """Return the mean GPUs of each series and hour that spans lay over it."""
    begin = hour_start(since)
    met = spans.filter(spans[start] < spans[end], spans[start] < until, spans[end] > begin)
    cut = met.mutate(
        span_from=ibis.greatest(met[start], ibis.literal(begin)),
        span_until=ibis.least(met[end], ibis.literal(until)),
    )
    after = ((cut.span_until.epoch_seconds() - _base(since)) / SECONDS_PER_HOUR).ceil().cast("int64")
    each = cut.select(
        *_JOB_SERIES, "gpus",
        from_s=cut.span_from.epoch_seconds() - _base(since), until_s=cut.span_until.epoch_seconds() - _base(since),
        step=ibis.range(_step(cut.span_from, since), after).unnest(),
    )  # fmt: skip
    inside_s = ibis.least(each.until_s, (each.step + 1) * SECONDS_PER_HOUR) - ibis.greatest(
        each.from_s, each.step * SECONDS_PER_HOUR
    )
    weighed = each.mutate(gpu_hours=each.gpus * inside_s / SECONDS_PER_HOUR)
    return weighed.group_by(*_JOB_SERIES, "step").agg(gpus=weighed.gpu_hours.sum())


def _finite(value: ir.FloatingValue) -> ir.FloatingValue:
    return ibis.ifelse(value.isnan() | value.isinf(), None, value)


def _base(since: datetime) -> float:
    return hour_start(since).timestamp()


def _step(moment: ir.TimestampValue, since: datetime) -> ir.IntegerValue:
    """Return the number of whole clock hours from the window's first to `moment`."""
    return ((moment.epoch_seconds() - _base(since)) / SECONDS_PER_HOUR).floor().cast("int64")


def _hour(step: ir.IntegerValue, since: datetime) -> ir.TimestampValue:
    return ibis.literal(hour_start(since)) + step.as_interval("h")
