"""Runs of idle samples: where they begin, where they end, what breaks them."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from analytics.idle import IdlePolicy
from analytics.idle_runs import idle_runs

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

MINUTE = timedelta(minutes=1)


def runs(
    engine: "Engine", now: datetime, interval_s: float | None = 60.0, hours: int = 24
) -> list[tuple[int, datetime, datetime, int]]:
    policy = IdlePolicy(interval_s=interval_s)
    frame = engine.run(idle_runs(engine.tables["gpu_sample"], now - timedelta(hours=hours), now, policy))
    rows: list[tuple[int, datetime, datetime, int]] = frame.sort("gpu", "starts_at").rows()
    return rows


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([0.0, 0.0, 0.0], [(0, 2, 3)], id="one-run"),
        pytest.param([0.9, 0.9], [], id="none"),
        pytest.param([0.0, 0.9, 0.0], [(0, 0, 1), (2, 2, 1)], id="one-active-sample-splits"),
        pytest.param([0.9, 0.0, 0.0, 0.9], [(1, 2, 2)], id="both-ends-active"),
        pytest.param([0.0, None, 0.0], [(0, 0, 1), (2, 2, 1)], id="unmeasured-splits"),
        pytest.param([0.0, float("nan"), 0.0], [(0, 0, 1), (2, 2, 1)], id="not-a-number-splits"),
        pytest.param([0.05, 0.050001], [(0, 0, 1)], id="the-line-is-idle"),
    ],
)
@pytest.mark.parametrize("interval_s", [60.0, None], ids=["given", "inferred"])
def test_a_run_is_idle_samples_without_a_break(
    engine: "Engine",
    now: datetime,
    values: list[float | None],
    expected: list[tuple[int, int, int]],
    interval_s: float | None,
) -> None:
    start = now - MINUTE * len(values)
    engine.add_samples(7, [start + MINUTE * step for step in range(len(values))], utilization=values)
    assert runs(engine, now, interval_s) == [
        (7, start + MINUTE * first, start + MINUTE * last, count) for first, last, count in expected
    ]


@pytest.mark.parametrize(
    ("signals", "count"),
    [
        pytest.param({"sm_activity": 0.01, "gr_activity": 0.9}, 0, id="one-signal-works"),
        pytest.param({"sm_activity": 0.01, "utilization": 0.02}, 1, id="all-are-still"),
        pytest.param({"sm_activity": float("nan"), "utilization": 0.0}, 1, id="one-is-unreadable"),
        pytest.param({"sm_activity": float("nan")}, 0, id="none-is-readable"),
        pytest.param({"sm_activity": float("nan"), "utilization": 0.9}, 0, id="the-readable-one-works"),
    ],
)
def test_a_sample_is_idle_when_every_signal_it_measured_is_still(
    engine: "Engine", now: datetime, signals: dict[str, Any], count: int
) -> None:
    engine.add_samples(7, [now - MINUTE], **signals)
    assert len(runs(engine, now)) == count


def test_a_missing_sample_is_a_gap_and_not_bridged(engine: "Engine", now: datetime) -> None:
    engine.add_samples(7, [now - MINUTE * back for back in (5, 4, 2, 1)], utilization=0.0)
    assert [count for *_, count in runs(engine, now)] == [2, 2]


def test_jitter_splits_nothing(engine: "Engine", now: datetime) -> None:
    even = [now - MINUTE * back + timedelta(seconds=14 * (-1) ** back) for back in range(30, 0, -1)]
    engine.add_samples(8, even, utilization=0.0)
    assert [run for run in runs(engine, now) if run[0] == 8] == [(8, even[0], even[-1], 30)]


def test_each_gpu_goes_by_its_own_interval(engine: "Engine", now: datetime) -> None:
    engine.add_samples(1, [now - timedelta(seconds=30) * back for back in range(100, 0, -1)], utilization=0.0)
    slow = [now - 5 * MINUTE * back for back in range(12, 0, -1)]
    engine.add_samples(2, slow, utilization=[0.0] * 5 + [0.9] + [0.0] * 6)
    assert [(gpu, count) for gpu, _, _, count in runs(engine, now, None)] == [(1, 100), (2, 5), (2, 6)]


def test_a_gpu_silent_in_the_last_hour_goes_by_the_fleets_interval(engine: "Engine", now: datetime) -> None:
    engine.add_samples(1, [now - MINUTE * back for back in range(30, 0, -1)], utilization=0.5)
    engine.add_samples(2, [now - MINUTE * back for back in (120, 119, 118, 116, 115)], utilization=0.0)
    assert [(gpu, count) for gpu, _, _, count in runs(engine, now, None)] == [(2, 3), (2, 2)]


def test_only_the_window_is_read(engine: "Engine", now: datetime) -> None:
    engine.add_samples(7, [now - MINUTE * back for back in range(90, -30, -1)], utilization=0.0)
    assert runs(engine, now, hours=1) == [(7, now - 60 * MINUTE, now - MINUTE, 60)]


def test_an_empty_table_has_no_runs(engine: "Engine", now: datetime) -> None:
    assert runs(engine, now) == []
    assert runs(engine, now, None) == []


@pytest.mark.parametrize("seed", range(3))
def test_runs_equal_a_plain_count_in_python(engine: "Engine", now: datetime, seed: int) -> None:
    random = np.random.default_rng(seed)
    expected: list[tuple[int, datetime, datetime, int]] = []
    for gpu in range(5):
        kept = random.random(200) < 0.95
        values = np.where(random.random(200) < 0.8, 0.0, 0.7)
        times = [now - MINUTE * int(back) for back in range(200, 0, -1)]
        rows = [(moment, value) for moment, value, keep in zip(times, values, kept, strict=True) if keep]
        shuffled = [rows[place] for place in random.permutation(len(rows))]
        engine.put(
            "gpu_sample",
            pl.DataFrame(
                {"gpu": gpu, "ts": [row[0] for row in shuffled], "utilization": [row[1] for row in shuffled]},
                schema_overrides={"gpu": pl.UInt32, "utilization": pl.Float32, "ts": pl.Datetime("us", "UTC")},
            ),
        )
        expected.extend((gpu, *run) for run in _counted(rows))
    assert runs(engine, now) == expected


def _counted(rows: list[tuple[datetime, float]]) -> list[tuple[datetime, datetime, int]]:
    found: list[tuple[datetime, datetime, int]] = []
    last: datetime | None = None
    for moment, value in rows:
        if value > 0.05:
            last = None
            continue
        if last is not None and moment - last <= 1.5 * MINUTE:
            found[-1] = (found[-1][0], moment, found[-1][2] + 1)
        else:
            found.append((moment, moment, 1))
        last = moment
    return found
