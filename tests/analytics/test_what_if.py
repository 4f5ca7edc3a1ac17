"""What-if: both worlds by the same rules, and accounts that balance."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analytics.job_frames import idle_shares, queue_at, quotas_of, read_jobs, recent_waits, workspaces_of
from analytics.queue_replay import Jobs, Rules, replay
from analytics.what_if import Drain, Scenario, change, compare, measure
from fleet.errors import BadInput
from fleet.tables import COST_LINE, JOB, QUOTA

HOUR = 3600.0


def crowd(count: int = 60, seed: int = 0) -> Jobs:
    generator = np.random.default_rng(seed)
    return Jobs(
        np.sort(generator.uniform(0, 20 * HOUR, count)), generator.choice([1.0, 2.0, 4.0], count),
        generator.uniform(HOUR, 6 * HOUR, count), generator.integers(0, 2, count), np.zeros(count, dtype=np.int64),
    )  # fmt: skip


RULES = Rules(8, (4.0, 4.0))
WINDOW = (0.0, 1000 * HOUR)


def test_nothing_changed_is_no_change() -> None:
    before, after, _ = compare(crowd(), RULES, Scenario(), WINDOW)
    assert before == after


def test_more_gpus_shorten_the_waits_and_cost_what_they_cost() -> None:
    before, after, each = compare(crowd(), RULES, Scenario(gpus_more=8), WINDOW, Decimal("2.50"))
    assert after.wait_s_mean is not None
    assert before.wait_s_mean is not None
    assert after.wait_s_mean < 0.5 * before.wait_s_mean
    assert before.cost_usd == Decimal("20000.00")
    assert after.cost_usd == Decimal("40000.00")
    assert each["jobs"].sum() == 60


def test_every_gpu_hour_that_was_asked_for_is_run_in_the_end() -> None:
    queue = crowd()
    asked = float((queue.gpus * queue.run_s).sum()) / HOUR
    for scenario in (Scenario(), Scenario(gpus_more=4), Scenario(quota_moves=((0, -2.0), (1, 2.0)), is_lending=True)):
        before, after, _ = compare(queue, RULES, scenario, WINDOW)
        assert before.gpu_hours_run == pytest.approx(asked)
        assert after.gpu_hours_run == pytest.approx(asked)
        assert after.utilisation == pytest.approx(asked / after.gpu_hours_there)


def test_idle_time_taken_back_is_what_is_no_longer_run() -> None:
    before, after, _ = compare(crowd(), RULES, Scenario(idle_share=((0, 0.25), (1, 0.25))), WINDOW)
    assert after.gpu_hours_run == pytest.approx(0.75 * before.gpu_hours_run)


def test_a_drained_rack_is_not_there_while_it_is_drained() -> None:
    _, rules = change(crowd(), RULES, Scenario(drains=(Drain(4, HOUR, 3 * HOUR),)))
    queue = crowd()
    world = measure(queue, rules, replay(queue, rules), (0.0, 10 * HOUR))
    assert world.gpu_hours_there == pytest.approx(80 - 8)


def test_lending_helps_who_is_short_and_its_refusal_hurts() -> None:
    queue = Jobs(np.array([0.0, 1, 2]), np.full(3, 4.0), np.full(3, HOUR), np.zeros(3, np.int64), np.zeros(3, np.int64))
    lent, kept, _ = compare(queue, RULES, Scenario(is_lending=False), WINDOW)
    assert lent.wait_s_p95 is not None
    assert kept.wait_s_p95 is not None
    assert kept.wait_s_p95 > lent.wait_s_p95


@pytest.mark.parametrize(
    "scenario", [Scenario(gpus_more=-9), Scenario(quota_moves=((0, -5.0), (1, 5.0)))], ids=["gpus", "quota"]
)
def test_less_than_nothing_is_refused(scenario: Scenario) -> None:
    with pytest.raises(BadInput):
        change(crowd(), RULES, scenario)


def at(hour: float) -> datetime:
    return datetime.fromtimestamp(1_700_000_000 + 3600 * hour, UTC)


def table(rows: list[dict[str, object]]) -> pl.DataFrame:
    known = {"cluster": "c", "job_id": "j", "gpus": 1.0, "submitted_at": at(0)}
    return pl.DataFrame([{**known, **row} for row in rows], schema=JOB.schema())


def test_rows_of_jobs_become_jobs_and_what_never_ran_is_left_out() -> None:
    frame = table(
        [
            {"workspace": "a", "duration_s": 60.0},
            {"workspace": "b", "started_at": at(1), "ended_at": at(3)},
            {"started_at": at(2), "status": "running"},
            {"workspace": "a"},
            {"workspace": "a", "gpus": float("nan"), "duration_s": 5.0},
        ]
    )
    names = workspaces_of(frame)
    assert names == ("a", "b", "unattributed")
    made = read_jobs(frame, names, at(5).timestamp())
    assert made.run_s.tolist() == [60.0, 7200.0, 10800.0]
    running, waiting, history = queue_at(frame, names, at(5))
    assert running.age_s.tolist() == [10800.0]
    assert waiting.count == 0
    assert history.count == 2
    assert recent_waits(frame, "b", at(5)).tolist() == [3600.0]


def test_quotas_in_force_and_idle_shares_go_by_workspace() -> None:
    row = {"cluster": "c", "workspace": "a", "gpus": 4.0, "starts_at": at(0), "ends_at": at(9)}
    quotas = pl.DataFrame([row], schema=QUOTA.schema())
    assert quotas_of(quotas, "c", ("a", "b"), at(5)) == (4.0, float("inf"))
    assert quotas_of(quotas, "c", ("a",), at(10)) == (float("inf"),)
    line = {"gpu": 1, "starts_at": at(0), "ends_at": at(1), "cluster": "c", "workspace": "a"}
    lines = pl.DataFrame(
        [
            {**line, "category": "used", "gpu_seconds": 3000.0},
            {**line, "category": "allocated_idle", "gpu_seconds": 1000.0},
        ],
        schema=COST_LINE.schema(),
    )
    assert idle_shares(lines, "c", ("b", "a")) == ((1, 0.25),)


def test_recorded_jobs_replay_in_balance(data_root: Path) -> None:
    found = [path for path in sorted(data_root.glob("traces/*.parquet")) if _is_jobs(path)]
    if not found:
        pytest.skip("no record of jobs with durations in the real data")
    frame = (
        pl.read_parquet(found[0]).filter(pl.col("num_gpus") > 0, pl.col("duration") > 0).sort("timestamp").head(4000)
    )
    seconds = (frame["timestamp"].dt.epoch("us") / 1e6).to_numpy()
    gpus, run = (frame[name].cast(pl.Float64).to_numpy() for name in ("num_gpus", "duration"))
    names = frame["vc"].unique().sort().to_list()
    nought = np.zeros(frame.height, dtype=np.int64)
    queue = Jobs(seconds, gpus, run, np.array([names.index(name) for name in frame["vc"]]), nought)
    rules = Rules(float(gpus.max()) * 8, (float("inf"),) * len(names))
    before, after, each = compare(queue, rules, Scenario(gpus_more=rules.gpus), (seconds[0], seconds[-1] + 1e9))
    assert before.gpu_hours_run == pytest.approx(float((gpus * run).sum()) / HOUR)
    assert before.started == after.started == frame.height == each["jobs"].sum()
    assert after.wait_s_mean is not None
    assert before.wait_s_mean is not None
    assert after.wait_s_mean <= before.wait_s_mean


def _is_jobs(path: Path) -> bool:
    return {"timestamp", "duration", "num_gpus", "vc"} <= set(pl.scan_parquet(path).collect_schema().names())
