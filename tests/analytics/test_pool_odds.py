"""Pools by the odds that they run out: what is likely, unlikely, old, or not known."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from analytics.pool_odds import judge_pools
from fleet.frames import conform
from fleet.tables import EXHAUSTION

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def rows(probability: float | None, **changes: object) -> pl.DataFrame:
    plain: dict[str, object] = {
        "cluster": "c1", "workspace": "*", "pool": "p", "model": None, "window_hours": 168, "limit_kind": "capacity",
        "limit_gpus": 64.0, "probability": probability, "peak_gpus": 50.0, "peak_gpus_upper_80": 70.0,
        "earliest_at": None, "likely_at": None, "note": None, "made_at": NOW - timedelta(hours=1),
    }  # fmt: skip
    frame = pl.DataFrame([{**plain, **changes}], schema=EXHAUSTION.schema("stored"))
    return conform(frame, EXHAUSTION, "stored")


@pytest.mark.parametrize(
    ("probability", "state", "action"),
    [(0.9, "short", "grow_pool"), (0.2, "fits", "none"), (0.0, "spare", "shrink_pool"), (None, "unknown", "none")],
)
def test_the_odds_say_what_is_to_be_done(probability: float | None, state: str, action: str) -> None:
    (verdict,) = judge_pools(rows(probability), NOW)
    assert (verdict.subject, verdict.state, verdict.action) == ("p", state, action)
    assert verdict.evidence["peak_gpus_upper"] == 70.0


@pytest.mark.parametrize(
    "changes",
    [
        {"made_at": NOW - timedelta(days=3)},
        {"made_at": NOW + timedelta(hours=1)},
        {"pool": None},
        {"workspace": "research"},
        {"window_hours": 24},
    ],
    ids=["old", "of the future", "no pool", "one workspace", "another window"],
)
def test_other_rows_say_nothing_of_a_pool(changes: dict[str, object]) -> None:
    assert judge_pools(rows(0.9, **changes), NOW) == []


def test_the_last_row_counts() -> None:
    both = pl.concat([rows(0.9, made_at=NOW - timedelta(hours=30)), rows(0.0)])
    assert [each.state for each in judge_pools(both, NOW)] == ["spare"]
