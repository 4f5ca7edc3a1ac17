"""Ask when devices worked: the moments that tell whether what was taken for idle was wanted again."""

from datetime import datetime

import ibis
import ibis.expr.types as ir

from analytics.activity import Tables, is_above

BUCKET_S = 600
NEAR_S = 3600


def work_moments(tables: Tables, since: datetime, until: datetime, active_above: float) -> ir.Table:
    """Return when each GPU and slice worked in `[since, until)`: kind ("gpu", "slice"), key, ts; first of 10 minutes.

    Work is an active sample whose active sample before is at most an hour old: one alone is a probe or a health
    check, as it is to the rule of idleness. A device that is sampled less than once an hour never tells of work.
    """
    gpus = tables["gpu"].select("gpu", is_mig=tables["gpu"].mig_enabled.coalesce(False))
    of_gpus = _within(tables["gpu_sample"], since, until).join(gpus, "gpu")
    of_slices = _within(tables["slice_sample"], since, until)
    return ibis.union(
        _moments(of_gpus, "gpu", active_above),
        _moments(of_slices.mutate(is_mig=True), "slice", active_above),
    )


def _within(samples: ir.Table, since: datetime, until: datetime) -> ir.Table:
    return samples.filter(samples.ts >= ibis.literal(since), samples.ts < ibis.literal(until))


def _moments(samples: ir.Table, key: str, active_above: float) -> ir.Table:
    active = samples.filter(is_above(samples, active_above)).select(key, "ts")
    before = active.ts.lag().over(group_by=key, order_by="ts")
    told = active.mutate(gap_s=active.ts.epoch_seconds() - before.epoch_seconds())
    worked = told.filter(told.gap_s <= NEAR_S)
    bucket = worked.ts.epoch_seconds() // BUCKET_S
    found = worked.group_by(key=worked[key], bucket=bucket).agg(ts=worked.ts.min())
    return found.select("key", "ts", kind=ibis.literal(key))
