"""Recorded traces: recognised by their columns, rejected by the row, never half stored."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from collectors.replay import open_traces
from fleet.batch import Batch
from fleet.errors import BadTrace, SourceUnavailable

T0 = datetime(2020, 5, 1)  # noqa: DTZ001 - traces write times without a zone
MINUTES = {
    "vc": ["a", "a", "b"],
    "time": [T0, T0.replace(minute=1), T0],
    "running_gpu_num": [8, 4, 0],
    "pending_gpu_num": [0, 2, 0],
    "total_gpu_num": [16, 16, 8],
}
JOBS = {"timestamp": [T0, T0], "duration": [60, 0], "num_gpus": [8, 1], "vc": ["a", "b"]}
PODS: dict[str, list[Any]] = {
    "name": ["p0", "p1", "p2"],
    "num_gpu": [1, 4, 0],
    "gpu_milli": [250, 1000, 0],
    "qos": ["LS", "BE", "LS"],
    "creation_time": [0, 10, 20],
    "scheduled_time": [5, None, 20],
    "deletion_time": [3600, 7200, 30],
}


def write(path: Path, columns: dict[str, Any]) -> Path:
    pl.DataFrame(columns, strict=False).write_parquet(path)
    return path


def collect(path: Path) -> tuple[dict[str, pl.DataFrame], list[Any]]:
    frames: dict[str, pl.DataFrame] = {}
    troubles: list[Any] = []
    for source in open_traces(path):
        for batch in source.collect(None, datetime(2026, 1, 1, tzinfo=UTC)):
            checked = Batch(batch.source, batch.frames, batch.read_until, batch.troubles).checked()
            for name, frame in checked.frames.items():
                frames[name] = pl.concat([frames[name], frame]) if name in frames else frame
            troubles += batch.troubles
    return frames, troubles


def test_a_minute_series_becomes_demand_with_its_zeros_kept(tmp_path: Path) -> None:
    frames, troubles = collect(write(tmp_path / "some_site.parquet", MINUTES))
    demand = frames["demand_sample"]
    assert demand.get_column("running_gpus").to_list() == [8.0, 4.0, 0.0]
    assert demand.get_column("pending_jobs").null_count() == 3
    assert set(demand.get_column("cluster")) == {"some_site"}
    assert troubles == []


def test_csv_is_read_as_parquet_is(tmp_path: Path) -> None:
    pl.DataFrame(MINUTES).write_csv(tmp_path / "t.csv")
    assert collect(tmp_path / "t.csv")[0]["demand_sample"].height == 3


def test_jobs_without_a_start_keep_it_unknown(tmp_path: Path) -> None:
    jobs = collect(write(tmp_path / "jobs.parquet", JOBS))[0]["job"]
    assert jobs.get_column("started_at").null_count() == 2
    assert jobs.get_column("duration_s").to_list() == [60.0, 0.0]


def test_pods_share_gpus_and_one_that_never_ran_has_no_start(tmp_path: Path) -> None:
    jobs = collect(write(tmp_path / "pods.parquet", PODS))[0]["job"]
    assert jobs.get_column("gpus").to_list() == [0.25, 4.0, 0.0]
    assert jobs.get_column("started_at").is_null().to_list() == [False, True, False]


def test_nodes_give_gpus_a_name_each_and_none_where_there_is_none(tmp_path: Path) -> None:
    nodes = {"sn": ["n0", "n1"], "cpu_milli": [1, 1], "memory_mib": [1, 1], "gpu": [2, 0], "model": ["T4", None]}
    frames, _ = collect(write(tmp_path / "site.parquet", nodes))
    assert frames["gpu"].get_column("uuid").to_list() == ["site/n0/0", "site/n0/1"]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        pytest.param("running_gpu_num", [8.0, float("nan"), 0.0], id="NaN"),
        pytest.param("running_gpu_num", [8, -1, 0], id="negative"),
        pytest.param("pending_gpu_num", [0, None, 0], id="missing number"),
        pytest.param("vc", ["a", None, "b"], id="missing name"),
        pytest.param("time", [T0, None, T0], id="missing time"),
        pytest.param("time", [T0, T0, T0], id="duplicate"),
    ],
)
def test_a_bad_row_is_rejected_and_counted_and_the_others_stay(
    tmp_path: Path, column: str, values: list[object]
) -> None:
    frames, troubles = collect(write(tmp_path / "t.parquet", MINUTES | {column: values}))
    assert frames["demand_sample"].height == 2
    assert [(trouble.kind, trouble.row_count) for trouble in troubles] == [("rejected", 1)]
    assert column in troubles[0].place


def test_time_going_backwards_is_noticed_and_loses_nothing(tmp_path: Path) -> None:
    turned = MINUTES | {"time": [T0.replace(minute=1), T0, T0]}
    frames, troubles = collect(write(tmp_path / "t.parquet", turned))
    assert frames["demand_sample"].height == 3
    assert [(trouble.kind, trouble.row_count) for trouble in troubles] == [("noticed", 1)]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        pytest.param({name: MINUTES[name] for name in MINUTES if name != "vc"}, "lacks vc", id="missing column"),
        pytest.param(MINUTES | {"running_gpu_num": ["x", "y", "z"]}, "running_gpu_num should be a number", id="type"),
        pytest.param(MINUTES | {"time": ["now", "then", "later"]}, "time should be a time", id="time as text"),
        pytest.param(MINUTES | {"running_gpu_num": [-1, -1, -1]}, "none of its 3 rows", id="nothing usable"),
        pytest.param({name: [] for name in MINUTES}, "no rows", id="empty"),
    ],
)
def test_a_file_that_can_not_be_used_is_named_with_the_reason(
    tmp_path: Path, columns: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadTrace, match=says) as error:
        collect(write(tmp_path / "t.parquet", columns))
    assert "t.parquet" in str(error.value)


def test_a_file_cut_in_the_middle_is_an_error_at_every_cut(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.parquet", MINUTES).read_bytes()
    cut = tmp_path / "cut.parquet"
    for size in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        cut.write_bytes(whole[:size])
        with pytest.raises(BadTrace, match=r"cut\.parquet"):
            collect(cut)


def test_a_missing_file_and_a_folder_without_traces_are_said(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="no file"):
        open_traces(tmp_path / "nothing.parquet")
    with pytest.raises(BadTrace, match="no recorded trace"):
        open_traces(tmp_path)


def test_every_real_trace_that_is_recognised_is_read_without_a_rejection(data_root: Path) -> None:
    sources = open_traces(data_root / "traces")
    assert sources
    for source in sources:
        batches = list(source.collect(None, datetime(2026, 1, 1, tzinfo=UTC)))
        rows = sum(batch.row_count() for batch in batches)
        rejected = sum(t.row_count for batch in batches for t in batch.troubles if t.kind == "rejected")
        assert rows > rejected, source.path.name
