"""What "active" means, said once: the strongest signal of a sample, and how many samples there should be."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import ibis
import ibis.expr.types as ir

Tables = Mapping[str, ir.Table]

SIGNALS = ("sm_activity", "gr_activity", "utilization")
ACTIVE_ABOVE = 0.05
SECONDS_PER_HOUR = 3600


def strongest_activity(samples: ir.Table) -> ir.FloatingValue:
    """Return the greatest activity ratio that each row measured: SM, GR engine or NVML utilization; null = none.

    Idleness needs every signal to be still: small kernels keep the GR engine busy all day with 1 % of the SMs, and
    a device that is read by SM activity alone would be called idle under them. NVML's utilization is left out
    where the row's `is_mig` is true: exporters write 0 there whatever runs (NVIDIA/dcgm-exporter issue 216). A NaN
    counts as not measured.
    """
    return ibis.greatest(*(_measured(samples, name) for name in SIGNALS if name in samples.columns))


def strongest_signal(samples: ir.Table) -> ir.StringValue:
    """Return the name of the signal that `strongest_activity` took; null = none was measured."""
    strongest = strongest_activity(samples)
    names = [
        ibis.ifelse(_measured(samples, name) == strongest, name, None) for name in SIGNALS if name in samples.columns
    ]
    return ibis.coalesce(*names)


def is_above(samples: ir.Table, line: float) -> ir.BooleanValue:
    """Return whether any signal of a row is above `line`: `strongest_activity(samples) > line`; null = none measured.

    Said by comparisons, for the reason that `is_still` gives.
    """
    return ibis.or_(*(_measured(samples, name) > line for name in SIGNALS if name in samples.columns))


def is_still(samples: ir.Table, line: float) -> ir.BooleanValue:
    """Return whether a row measured something and nothing above `line`: `strongest_activity(samples) <= line`.

    Said by comparisons, because DuckDB takes fifteen times as long for the greatest of three columns.
    """
    signals = [_measured(samples, name) for name in SIGNALS if name in samples.columns]
    none_above = ibis.and_(*((signal <= line) | signal.isnull() for signal in signals))
    return none_above & ibis.or_(*(signal <= line for signal in signals))


def _measured(samples: ir.Table, name: str) -> ir.FloatingValue:
    value = samples[name]
    trusted = ~value.isnan()
    if name == "utilization" and "is_mig" in samples.columns:
        trusted &= ~samples.is_mig
    return ibis.ifelse(trusted, value, None)


def with_previous(samples: ir.Table, key: str) -> ir.Table:
    """Add `previous_ts` and `gap_s`: the sample before of the same `key`, and the seconds since; null at the first."""
    lagged = samples.mutate(previous_ts=samples.ts.lag().over(group_by=samples[key], order_by=samples.ts))
    return lagged.mutate(gap_s=lagged.ts.epoch_seconds() - lagged.previous_ts.epoch_seconds())


def hour_start(moment: datetime) -> datetime:
    """Return the start of the clock hour (UTC) that `moment` is in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def coverage(known_count: int, interval_s: float | None, window_s: float) -> float | None:
    """Return samples had over samples expected in `window_s`, at most 1; None where the interval is not known."""
    if interval_s is None or interval_s <= 0:
        return None
    expected = max(1, int(window_s // interval_s))
    return min(1.0, known_count / expected)


def seconds(duration: timedelta) -> float:
    """Return a duration in seconds."""
    return duration.total_seconds()
