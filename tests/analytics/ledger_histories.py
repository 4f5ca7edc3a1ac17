"""Histories of a small fleet for the ledger's tests: whatever was held, failed, repriced or cut into MIG devices."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import strategies as st

from analytics.cost import no_devices, no_intervals
from fleet.tables import PRICE

MOMENT = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
GPUS = (1, 2, 3)
HOURS = 3
_US = HOURS * 3_600_000_000

_moment, _text, _count = pl.Datetime("us", "UTC"), pl.String(), pl.Int64()
SCHEMA = {
    "gpu": pl.UInt32(), "uuid": _text, "cluster": _text, "model": _text, "capacity_type": _text, "region": _text,
    "starts_at": _moment, "ends_at": _moment, "interval_s": pl.Float64(), "known_count": _count,
    "active_count": _count, "held_from": _moment, "held_until": _moment, "pod_uid": _text, "namespace": _text,
    "workload_kind": _text, "workload": _text, "pod": _text, "workspace": _text, "slice": pl.UInt32(),
    "fraction": pl.Float64(),
}  # fmt: skip

# gpu, pod, start and length in microseconds, fraction, MIG device
pods = st.tuples(
    st.sampled_from(GPUS), st.integers(0, 4), st.integers(0, _US), st.integers(1, _US), st.floats(0.01, 1.3),
    st.sampled_from([None, None, 11, 12]),
)  # fmt: skip
activity = st.dictionaries(
    st.tuples(st.sampled_from(GPUS), st.integers(0, HOURS - 1)), st.tuples(st.integers(0, 60), st.integers(0, 60))
)
failures = st.lists(st.tuples(st.sampled_from(GPUS), st.integers(0, 11000), st.integers(1, 9000)), max_size=3)
rates = st.decimals("0.000001", "2999", places=6)
changes = st.lists(st.tuples(st.integers(1, _US - 1), rates), max_size=2, unique_by=lambda change: change[0])


def hours_of(
    held: list[tuple[int, int, int, int, float, int | None]],
    active: dict[tuple[int, int], tuple[int, int]],
    hours: range = range(HOURS),
) -> pl.DataFrame:
    """Give what `ledger_hours` would of these hours."""
    rows = []
    for gpu in GPUS:
        for hour in hours:
            start, end = MOMENT + HOUR * hour, MOMENT + HOUR * (hour + 1)
            known, busy = active.get((gpu, hour), (None, None))
            empty = {
                "gpu": gpu, "uuid": f"GPU-{gpu}", "cluster": "c1", "model": "A100", "capacity_type": "on_demand",
                "starts_at": start, "ends_at": end, "interval_s": 60.0, "known_count": known,
                "active_count": None if known is None or busy is None else min(known, busy),
            }  # fmt: skip
            found = [
                {**empty, **_held(each, start, end)}
                for each in held
                if each[0] == gpu and MOMENT + timedelta(microseconds=each[2]) < end
                and MOMENT + timedelta(microseconds=each[2] + each[3]) > start
            ]  # fmt: skip
            rows += found or [empty]
    return pl.DataFrame(rows, schema=SCHEMA)


def _held(drawn: tuple[int, int, int, int, float, int | None], start: datetime, end: datetime) -> dict[str, Any]:
    _, pod, offset, length, fraction, device = drawn
    begin = MOMENT + timedelta(microseconds=offset)
    return {
        "held_from": max(begin, start), "held_until": min(begin + timedelta(microseconds=length), end),
        "pod_uid": f"uid-{pod}", "namespace": "team", "workload_kind": "Job", "workload": f"w{pod}", "pod": f"p{pod}",
        "workspace": f"s{pod % 2}" if pod else None, "slice": device, "fraction": fraction,
    }  # fmt: skip


def prices_of(first: Decimal, later: list[tuple[int, Decimal]]) -> pl.DataFrame:
    """Give a price from long ago, and others from moments of the window on."""
    starts = [(datetime(2020, 1, 1, tzinfo=UTC), first)]
    starts += [(MOMENT + timedelta(microseconds=at), rate) for at, rate in sorted(later)]
    ends: list[datetime | None] = [*(at for at, _ in starts[1:]), None]
    rows = [
        {"model": "A100", "capacity_type": "on_demand", "usd_per_gpu_hour": rate, "starts_at": at, "ends_at": end}
        for (at, rate), end in zip(starts, ends, strict=True)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=PRICE.schema())


def failures_of(drawn: list[tuple[int, int, int]]) -> pl.DataFrame:
    """Give the stretches in which GPUs were failed."""
    rows = [
        (f"GPU-{gpu}", MOMENT + timedelta(seconds=start), MOMENT + timedelta(seconds=start + length))
        for gpu, start, length in drawn
    ]
    return pl.DataFrame(rows, schema=no_intervals().schema, orient="row")


def devices() -> pl.DataFrame:
    """Give a layout of GPU 3 that leaves a part of it bare: 3g.20gb and 2g.10gb of an A100 of 40 GB."""
    rows: list[dict[str, Any]] = [
        {"slice": number, "gpu": 3, "profile": profile, "model": "A100-SXM4-40GB", "memory_mib": 40960,
         "first_seen_at": MOMENT - HOUR, "last_seen_at": MOMENT + HOUR * HOURS}
        for number, profile in ((11, "3g.20gb"), (12, "2g.10gb"))
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=no_devices().schema)
