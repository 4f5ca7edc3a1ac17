"""Demand, capacity and queue by workspace: what was never recorded stays unknown."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from analytics.queues import demand_report, job_report
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.tables import JOB
from store.store import Store

T0 = datetime(2026, 3, 1, tzinfo=UTC)


def hour(number: int, running: float | None, pending: float | None, capacity: float | None = 8.0) -> dict[str, Any]:
    return {
        "cluster": "c", "workspace": "w", "ts": T0 + timedelta(hours=number), "running_gpus_mean": running,
        "pending_gpus_mean": pending, "capacity_gpus_max": capacity, "basis": "measured",
    }  # fmt: skip


def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    floats = dict.fromkeys(("running_gpus_mean", "pending_gpus_mean", "capacity_gpus_max"), pl.Float64())
    (row,) = demand_report(pl.DataFrame(rows, schema_overrides=floats)).to_dicts()
    return row


def test_pools_are_summed_before_a_workspace_is_judged() -> None:
    row = report([hour(0, 4.0, 0.0), hour(0, 12.0, 2.0), hour(1, 2.0, 0.0, 16.0)])
    assert (row["running_gpus_max"], row["queue_share"], row["full_share"]) == (16.0, 0.5, 0.5)


def test_a_queue_that_was_never_recorded_is_unknown_and_so_is_a_capacity() -> None:
    row = report([hour(0, 4.0, None, None), hour(1, 0.0, None, None)])
    assert (row["queue_share"], row["pending_gpus_mean"], row["full_share"]) == (None, None, None)
    assert row["running_gpus_mean"] == 2.0


def test_jobs_tell_waits_only_where_their_start_is_recorded() -> None:
    started = {
        "job_id": "1", "cluster": "c", "workspace": "w", "gpus": 2.0, "submitted_at": T0,
        "started_at": T0 + timedelta(minutes=10), "ended_at": T0 + timedelta(minutes=70), "duration_s": None,
    }  # fmt: skip
    unknown = started | {"job_id": "2", "workspace": "v", "started_at": None, "ended_at": None, "duration_s": 7200.0}
    frame = pl.DataFrame([started, unknown], schema={name: JOB.schema()[name] for name in started})
    with Store.open(None, clock=FixedClock(T0 + timedelta(days=1))) as store:
        store.append(Batch("test", {"job": frame}))
        v, w = store.engine.run(job_report(store.engine)).to_dicts()
    assert (w["gpu_hours"], w["wait_s_p50"], w["started_count"]) == (2.0, 600.0, 1)
    assert (v["gpu_hours"], v["wait_s_p50"], v["started_count"]) == (4.0, None, 0)
