"""A real trace of pods and nodes, counted whole: every GPU's day is exact."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from benchmarks.cost_openb import START, count_days, fill, find_traces, place
from fleet.clock import FixedClock
from store.store import Store

DAYS = 1
PODS = 1500


def first(pods: pl.DataFrame) -> pl.DataFrame:
    return pods.filter(pl.col("scheduled_time").is_not_null()).sort("scheduled_time", "name").head(PODS)


def test_the_ledger_of_a_real_trace_sums_exactly(data_root: Path) -> None:
    traces = find_traces(data_root / "traces")
    if traces is None:
        pytest.skip("there is no trace of pods with GPU fractions and of nodes")
    nodes, pods = traces[0], first(traces[1])
    with Store.open(None, clock=FixedClock(START + timedelta(days=400))) as store:
        fill(store, nodes, pods)
        totals, unpriced, _, _ = count_days(store, DAYS)  # stops with an error where any GPU's day is not exact
    hours = int(nodes["gpu"].sum()) * 24 * DAYS
    assert sum(us for us, _ in totals.values()) == hours * 3_600_000_000
    assert 0 <= unpriced <= hours * 3_600_000_000
    assert set(totals) <= {"unknown", "unallocated"}
    assert all(usd >= Decimal(0) for _, usd in totals.values())


def test_no_gpu_is_given_away_twice_by_the_placement(data_root: Path) -> None:
    traces = find_traces(data_root / "traces")
    if traces is None:
        pytest.skip("there is no trace of pods with GPU fractions and of nodes")
    _, allocations, _ = place(traces[0], first(traces[1]))
    edges: dict[int, list[tuple[object, float]]] = {}
    for gpu, start, end, part in allocations.select("gpu", "starts_at", "ends_at", "fraction").iter_rows():
        edges.setdefault(gpu, []).extend([(start, part), (end, -part)])
    for changes in edges.values():
        held = 0.0
        for _, part in sorted(changes, key=lambda change: (change[0], change[1])):
            held += part
            assert held <= 1 + 1e-9
