"""The measuring of quotas: forecasts see the past alone, solvers agree with ours, counts are those of hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actions.quota_choice import Claim, Thresholds, choose
from benchmarks.rebalance import POLICY, Terms, run, unmet
from benchmarks.rebalance_fleets import LEVELS, Pool, forecast, largest_remainder, recorded, simulated
from benchmarks.rebalance_solvers import by_highs, by_trying_all, expected_unmet
from benchmarks.rebalance_told import HISTORY, TELLERS


def pool(quotas: list[float], borrowing: list[float], demand: list[list[float]]) -> Pool:
    names = tuple(f"w{place}" for place in range(len(quotas)))
    return Pool("c", names, np.array(quotas), np.array(borrowing), np.array(demand))


def claims_of(rng: np.random.Generator, count: int) -> list[Claim]:
    return [
        Claim(
            f"w{place}",
            float(rng.integers(0, 9)),
            np.sort(rng.gamma(2.0, 3.0, 8)),
            least=float(rng.integers(0, 5)),
            borrowing=[0.0, 2.0, None][place % 3],
            cost=float(rng.choice([0.5, 1.0, 2.0])),
        )
        for place in range(count)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_highs_and_trying_all_plans_find_what_we_choose(seed: int) -> None:
    rng = np.random.default_rng(seed)
    claims, lent = claims_of(rng, 3), float(rng.random()) / 2
    chosen = choose(claims, 4, Thresholds(), lent)
    after = np.array([claim.quota + change for claim, change in zip(claims, chosen.changes, strict=True)])
    ours = expected_unmet(claims, after, lent)
    assert ours == pytest.approx(by_trying_all(claims, 4, lent), abs=0.005)
    assert ours == pytest.approx(by_highs(claims, 4, lent, whole=True), abs=0.005)
    assert by_highs(claims, 4, lent, whole=False) <= ours + 1e-6


def test_a_pool_of_many_is_within_a_hundredth_of_highs_bound() -> None:
    claims = claims_of(np.random.default_rng(7), 30)
    chosen = choose(claims, 40, Thresholds(), 0.25)
    after = np.array([claim.quota + change for claim, change in zip(claims, chosen.changes, strict=True)])
    assert expected_unmet(claims, after, 0.25) <= 1.01 * by_highs(claims, 40, 0.25, whole=False)


def test_unmet_demand_is_counted_above_the_quota_and_above_what_can_be_borrowed() -> None:
    one = pool([4, 6], [1, 0], [[7], [2]])
    assert unmet(one, one.quotas, one.demand).tolist() == [3, 2]
    full = pool([4, 6], [9, 9], [[7], [6]])
    assert unmet(full, full.quotas, full.demand).tolist() == [3, 3]


def test_a_forecast_rises_by_level_and_starts_from_now() -> None:
    past = np.array([[3.0] * 100, [float(hour % 24) for hour in range(100)]])
    told = forecast(past, 3)
    assert (np.diff(told, axis=1) >= 0).all()
    assert told[0].tolist() == [3.0] * LEVELS.size
    assert told[1].min() >= 0


def test_whole_gpus_are_divided_by_weight_to_the_last() -> None:
    assert largest_remainder(10, np.array([1.0, 1.0, 1.0])).tolist() == [4, 3, 3]
    assert largest_remainder(5, np.array([0.0, 0.0])).tolist() == [3, 2]


def test_simulated_demand_is_the_jobs_of_the_seed_and_no_quota_shapes_it() -> None:
    east, west = simulated(1001, 12)
    again = simulated(1001, 12)
    assert east.demand.shape == (7, 12)
    assert west.demand.shape == (6, 12)
    assert (east.demand == again[0].demand).all()
    assert (east.demand >= 0).all()
    assert east.demand.max(axis=1) @ np.ones(7) > east.quotas.sum()


def moved_demand() -> Pool:
    hours = np.arange(HISTORY + 24)
    moved = np.where(hours < HISTORY - 12, 12.0, 4.0)
    return pool([12, 4], [0, 0], [moved.tolist(), (16.0 - moved).tolist()])


@pytest.mark.parametrize("every", [1, 6])
def test_quotas_follow_a_demand_that_moved_and_their_sum_stays(every: int) -> None:
    score = run([moved_demand()], "moved", Terms(every))
    static, _, _, ours, shared = score.unmet[0]
    assert static == pytest.approx(8 * 24)
    assert ours < static
    assert shared == 0
    assert score.moved <= POLICY.rebalance.max_churn_share * 16 * 24 / every


@pytest.mark.parametrize("told", ["analogues", "analysis"])
def test_who_tells_the_demand_ahead_sees_the_past_alone(told: str) -> None:
    one, hour = moved_demand(), HISTORY + 1
    later = one.demand.copy()
    later[:, hour:] = 99.0
    other = replace(one, demand=later)
    first, second = (TELLERS[told]([each], 1)(hour, [each.quotas]) for each in (one, other))
    assert first == second
    assert [verdict.subject for verdict in first[0]] == ["w0", "w1"]
    assert [verdict.evidence["forecast_gpus"] for verdict in first[0]] == pytest.approx([4.0, 12.0], abs=4)


def test_foresight_tells_the_hours_until_the_next_turn() -> None:
    told = TELLERS["foresight"]([moved_demand()], 2)(HISTORY - 13, [np.array([12.0, 4.0])])
    assert [verdict.evidence["forecast_gpus"] for verdict in told[0]] == [8.0, 8.0]


def test_recorded_fleets_are_read_whatever_series_the_folder_holds(data_root: Path) -> None:
    found = recorded(data_root, HISTORY)
    if not found:
        pytest.skip("no traces/series_hourly*.parquet in the folder of real data")
    for one in found:
        assert one.demand.shape[0] == len(one.workspaces) == one.quotas.size
        assert not any(name.startswith("ALL") for name in one.workspaces)
        assert np.isfinite(one.demand).all()
        assert one.quotas.sum() >= one.demand.sum(axis=0).mean() * 0.5
