"""Forecasts add up: workspaces to pools, models, clusters and all, at every hour, whatever was known."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.forecast_series import make_panel
from analytics.hierarchy import reconcile

NAN = float("nan")


def test_what_adds_up_already_is_left_alone() -> None:
    paths = np.array([[4.0], [6.0], [10.0]])
    made = reconcile(paths, np.array([1.0, 1.0, 1.0]), ((0,), (1,), (0, 1)), np.zeros(2, bool))
    assert made.tolist() == paths.tolist()


def test_the_one_that_was_far_off_before_gives_way() -> None:
    paths = np.array([[4.0], [6.0], [14.0]])
    made = reconcile(paths, np.array([0.1, 10.0, 0.1]), ((0,), (1,), (0, 1)), np.zeros(2, bool))
    assert made[0, 0] == pytest.approx(4.0, abs=0.01)
    assert made[1, 0] == pytest.approx(10.0, abs=0.01)
    assert made[2, 0] == pytest.approx(14.0, abs=0.01)


def test_a_part_that_left_counts_in_no_sum_and_an_unknown_one_neither() -> None:
    paths = np.array([[4.0], [6.0], [NAN], [4.0]])
    gone = np.array([False, True, False])
    made = reconcile(paths, np.full(4, 1.0), ((0,), (1,), (2,), (0, 1, 2)), gone)
    assert made[1, 0] == 6.0
    assert np.isnan(made[2, 0])
    assert made[3, 0] == made[0, 0] == 4.0


def test_an_unknown_sum_is_the_sum_of_its_parts() -> None:
    made = reconcile(np.array([[4.0], [6.0], [NAN]]), np.full(3, NAN), ((0,), (1,), (0, 1)), np.zeros(2, bool))
    assert made[2, 0] == 10.0


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_sums_are_exact_and_nothing_is_negative(seed: int, parts: int) -> None:
    generator = np.random.default_rng(seed)
    members: list[tuple[int, ...]] = [(part,) for part in range(parts)]
    members += [tuple(range(0, parts, 2)), tuple(range(parts))]
    paths = generator.normal(5, 20, (len(members), 6))
    errors = np.where(generator.random(len(members)) < 0.3, NAN, generator.random(len(members)) * 10)
    gone = generator.random(parts) < 0.2
    made = reconcile(paths, errors, members, gone)
    assert made.min() >= 0
    for row in (parts, parts + 1):
        present = [part for part in members[row] if not gone[part]]
        if present:
            np.testing.assert_allclose(made[row], made[present].sum(axis=0), atol=1e-9)


def test_series_are_of_workspaces_their_parts_pools_models_clusters_and_all() -> None:
    steps = pl.DataFrame(
        {
            "cluster": ["a", "a", "b"], "workspace": ["w", "w", "v"], "pool": ["p", "q", None],
            "model": ["H100", "H100", None], "place": [0, 0, 0], "running": [1.0, 2.0, 4.0],
            "pending": [0.0, 0.0, None], "capacity": [8.0, 8.0, None], "demand": [1.0, 2.0, 4.0],
        }
    )  # fmt: skip
    panel = make_panel(steps, 2, 24)
    told = {row[:4]: panel.values[place, 0] for row, place in zip(panel.series.rows(), panel.place, strict=True)}
    assert told[("a", "w", None, None)] == 3
    assert told[("a", "w", "p", "H100")] == 1
    assert told[("a", "*", "q", None)] == 2
    assert told[("a", "*", None, "H100")] == 3
    assert told[("a", "*", None, None)] == 3
    assert told[("b", "v", None, None)] == told[("b", "*", None, None)] == 4
    assert told[("*", "*", None, None)] == 7
    capacities = {row[:4]: row[4] for row in panel.series.rows()}
    assert capacities[("a", "*", None, None)] == 16
    assert capacities[("*", "*", None, None)] is None
