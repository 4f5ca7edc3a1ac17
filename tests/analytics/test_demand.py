"""Demand by the hour: what was measured, what jobs tell, and what stays missing."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from analytics.demand import AS_IF_AT_ONCE, FROM_JOBS, MEASURED, hourly_demand

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

HOUR = timedelta(hours=1)


def demand(engine: "Engine", now: datetime, hours: float = 6) -> list[dict[str, Any]]:
    frame = engine.run(hourly_demand(engine.tables, now - HOUR * hours, now))
    return frame.sort("cluster", "workspace", "pool", "model", "ts").to_dicts()


def add_demand(engine: "Engine", ts: datetime, running: float | None, pending: float | None = 0.0, **more: Any) -> None:
    row = {"cluster": "c1", "workspace": "w", "ts": ts, "running_gpus": running, "pending_gpus": pending}
    engine.add("demand_sample", **{**row, **more})


def add_job(engine: "Engine", name: str, submitted_at: datetime, **more: Any) -> None:
    row = {"job_id": name, "cluster": "c1", "workspace": "w", "gpus": 2.0, "submitted_at": submitted_at}
    engine.add("job", **{**row, **more})


def wants(rows: list[dict[str, Any]]) -> list[tuple[float | None, float | None]]:
    return [(row["running_gpus_mean"], row["pending_gpus_mean"]) for row in rows]


def test_an_empty_store_wants_nothing(engine: "Engine", now: datetime) -> None:
    assert demand(engine, now) == []


def test_samples_are_meant_by_the_hour_and_a_gap_stays_a_gap(engine: "Engine", now: datetime) -> None:
    for minutes, running, pending in ((300, 4.0, 0.0), (270, 8.0, 2.0), (60, 1.0, 0.0)):
        add_demand(engine, now - timedelta(minutes=minutes), running, pending, capacity_gpus=16.0)
    rows = demand(engine, now)
    assert [row["ts"] for row in rows] == [now - 5 * HOUR, now - HOUR]
    assert wants(rows) == [(6.0, 1.0), (1.0, 0.0)]
    assert (rows[0]["capacity_gpus_max"], rows[0]["queue_share"], rows[0]["sample_count"]) == (16.0, 0.5, 2)
    assert {row["basis"] for row in rows} == {MEASURED}


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_what_was_not_measured_is_null_and_not_zero(engine: "Engine", now: datetime, nothing: float | None) -> None:
    add_demand(engine, now - HOUR, nothing, nothing)
    assert wants(demand(engine, now)) == [(None, None)]


def test_series_are_kept_apart_by_pool_and_model(engine: "Engine", now: datetime) -> None:
    for pool in ("a", "b", None):
        add_demand(engine, now - HOUR, 1.0, pool=pool)
    assert [row["pool"] for row in demand(engine, now)] == [None, "a", "b"]


def test_a_job_counts_for_the_part_of_the_hour_that_it_ran(engine: "Engine", now: datetime) -> None:
    begun = now - timedelta(minutes=210)
    add_job(engine, "1", begun - HOUR, started_at=begun, ended_at=begun + HOUR, status="succeeded")
    rows = demand(engine, now)
    assert rows[0]["ts"] == now - 5 * HOUR
    assert wants(rows) == [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0)]
    assert {row["basis"] for row in rows} == {FROM_JOBS}


def test_an_hour_between_jobs_is_zero_because_the_queue_records_all(engine: "Engine", now: datetime) -> None:
    for back in (5, 2):
        moment = now - HOUR * back
        add_job(engine, f"{back}", moment, started_at=moment, ended_at=moment + HOUR / 2, status="failed")
    assert wants(demand(engine, now)) == [(1.0, 0.0), (0.0, 0.0), (0.0, 0.0), (1.0, 0.0)]


def test_without_a_recorded_start_a_job_is_taken_to_start_at_once(engine: "Engine", now: datetime) -> None:
    add_job(engine, "1", now - 4 * HOUR, duration_s=7200.0)
    add_job(engine, "2", now - 2 * HOUR, duration_s=90000.0)
    rows = demand(engine, now)
    assert wants(rows) == [(2.0, None), (2.0, None), (2.0, None)]
    assert {row["basis"] for row in rows} == {AS_IF_AT_ONCE}


def test_hours_after_the_last_submission_of_a_trace_are_not_demand(engine: "Engine", now: datetime) -> None:
    add_job(engine, "1", now - 5 * HOUR, duration_s=36000.0)
    assert [row["ts"] for row in demand(engine, now)] == [now - 5 * HOUR]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        pytest.param({"started_at": -2, "status": "running"}, [(0, 2), (2, 0), (2, 0)], id="still-running"),
        pytest.param({"status": "pending"}, [(0, 2), (0, 2), (0, 2)], id="still-waiting"),
        pytest.param({"ended_at": -1, "status": "cancelled"}, [(0, 2), (0, 2)], id="cancelled-while-waiting"),
        pytest.param({"ended_at": -1, "status": "succeeded"}, [(2, None)], id="ran-but-no-start-recorded"),
        pytest.param({"started_at": -1, "ended_at": -2}, [(0, 2)], id="ended-before-it-started"),
        pytest.param({"status": None}, [(0, 0)], id="nothing-known-but-the-submission"),
        pytest.param({"gpus": 0.0, "duration_s": 60.0}, [], id="no-gpus"),
        pytest.param({"gpus": float("nan"), "duration_s": 60.0}, [], id="gpus-not-a-number"),
        pytest.param({"duration_s": float("nan")}, [(0, None)], id="duration-not-a-number"),
    ],
)
def test_a_job_half_recorded_tells_what_it_can(
    engine: "Engine", now: datetime, job: dict[str, Any], expected: list[tuple[float, float | None]]
) -> None:
    moments = {name: now + HOUR * value if name.endswith("_at") else value for name, value in job.items()}
    add_job(engine, "1", now - 3 * HOUR, **moments)
    assert wants(demand(engine, now)) == expected


def test_jobs_do_not_count_twice_where_their_cluster_is_measured(engine: "Engine", now: datetime) -> None:
    add_demand(engine, now - HOUR, 3.0)
    add_job(engine, "1", now - 4 * HOUR, duration_s=7200.0)
    add_job(engine, "2", now - HOUR, duration_s=7200.0, cluster="c2", workspace=None)
    rows = demand(engine, now)
    assert [(row["cluster"], row["workspace"], row["running_gpus_mean"]) for row in rows] == [
        ("c1", "w", 3.0),
        ("c2", "unattributed", 2.0),
    ]


def test_a_job_from_before_the_window_counts_inside_it(engine: "Engine", now: datetime) -> None:
    add_job(engine, "1", now - 50 * HOUR, started_at=now - 49 * HOUR, status="running")
    assert wants(demand(engine, now, 2)) == [(2.0, 0.0), (2.0, 0.0)]


def test_the_hours_of_a_window_that_cuts_them_are_whole(engine: "Engine", now: datetime) -> None:
    late = now + timedelta(minutes=20)
    add_job(engine, "1", now - 5 * HOUR, started_at=now - 4 * HOUR, status="running")
    frame = engine.run(hourly_demand(engine.tables, now - 2.5 * HOUR, late)).sort("ts")
    assert frame["ts"].to_list() == [now - 3 * HOUR, now - 2 * HOUR, now - HOUR]
    assert frame["running_gpus_mean"].to_list() == [2.0, 2.0, 2.0]


def test_recorded_jobs_keep_all_their_gpu_hours(engine: "Engine", data_root: Path) -> None:
    needed = {"timestamp", "duration", "num_gpus"}
    paths = [path for path in data_root.glob("traces/*.parquet") if needed <= set(pl.read_parquet_schema(path))]
    if not paths:
        pytest.skip("no recorded jobs with submission and duration")
    for path in paths:
        frame = pl.read_parquet(path)
        jobs = frame.sort("timestamp").head(5000).with_row_index("job_id")
        told = jobs.select(
            pl.col("job_id").cast(pl.String), cluster=pl.lit(path.stem), gpus=pl.col("num_gpus").cast(pl.Float64),
            submitted_at=pl.col("timestamp").dt.replace_time_zone("UTC"),
            duration_s=pl.col("duration").cast(pl.Float64),
        )  # fmt: skip
        engine.put("job", told)
        until = told["submitted_at"].max()
        assert isinstance(until, datetime)
        end = until.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        rows = engine.run(hourly_demand(engine.tables, end - timedelta(days=400), end))
        ended_at = pl.min_horizontal(pl.col("submitted_at") + pl.duration(seconds="duration_s"), end)
        ran_ms = (ended_at - pl.col("submitted_at")).dt.total_milliseconds()
        inside = told.filter(pl.col("submitted_at") < end)
        hours = inside.select((ran_ms / 3.6e6 * pl.col("gpus")).sum())
        assert rows["running_gpus_mean"].sum() == pytest.approx(hours.item(), rel=1e-9)
