"""Real traces: what of them can be replayed, and what is missing is told and never counted as nothing."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from fleet.clock import SystemClock
from steward.compose import House
from steward.config import load_settings
from steward.desk import HouseDesk
from steward.policy_desk import answer_replay_policy
from store.store import Store


def jobs_trace(data_root: Path) -> Path | None:
    """Return a trace that holds jobs, by its columns; None where there is none."""
    for path in sorted((data_root / "traces").glob("*.parquet"), key=lambda each: each.stat().st_size):
        columns = set(pl.scan_parquet(path).collect_schema().names())
        if {"timestamp", "duration", "num_gpus"} <= columns:
            return path
    return None


def test_a_trace_of_jobs_alone_has_nothing_to_reclaim_and_says_so(data_root: Path) -> None:
    path = jobs_trace(data_root)
    if path is None:
        pytest.skip("no trace of jobs alone among the real data")
    with Store.open(None, clock=SystemClock()) as store:
        house = House(load_settings(None, {}), store, SystemClock())
        HouseDesk(house).operate("replay", {"path": str(path)})
        report = answer_replay_policy(house, {"from": "1d", "step": "12h"})
    measured = {str(row["measure"]): row["settings in force"] for row in report.items}
    assert measured["workloads reclaimed"] == 0
    assert measured["wrong share"] is None
    assert measured["jobs started earlier"] is None
    assert any("no GPU was ever seen" in note for note in report.notes)
    assert any("nobody knows who would have started earlier" in note for note in report.notes)
    since = report.summary["from"]
    assert isinstance(since, datetime)
    assert report.as_of == since + timedelta(days=1)
