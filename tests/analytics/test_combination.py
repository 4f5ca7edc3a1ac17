"""The combination: analogues read off histograms, paths weighed by their recent error, widths that hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.analogues import Likeness, look_up, look_up_all, make_peak_rows, make_rows, recent_error
from analytics.backtest import Floats
from analytics.centres import CENTRES, fill_forward
from analytics.combination import Combination, score_combination, spread_steps
from analytics.trials import LEVELS

NAN = float("nan")
MEDIAN = 3


def steps_and_bursts(series: int, length: int, seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    jumps = np.where(generator.random((series, length)) < 0.03, generator.normal(0, 20, (series, length)), 0.0)
    values: Floats = np.clip(40 + np.cumsum(jumps, axis=1), 0, 100)
    return values


def test_a_gap_is_filled_by_what_was_known_before_it() -> None:
    filled = fill_forward(np.array([[NAN, 2.0, NAN, 3.0], [NAN, NAN, NAN, NAN]]))
    assert filled[0].tolist() == [2, 2, 2, 3]
    assert np.isnan(filled[1]).all()


@pytest.mark.parametrize("name", list(CENTRES))
def test_a_path_reads_nothing_behind_its_origin(name: str) -> None:
    values = steps_and_bursts(2, 300, 1)
    changed = values.copy()
    changed[:, 200:] = 999.0
    origins, steps = np.array([100, 200]), np.arange(1, 13)
    np.testing.assert_array_equal(CENTRES[name](values, origins, steps), CENTRES[name](changed, origins, steps))


def test_what_follows_a_full_quota_is_judged_by_what_followed_full_quotas() -> None:
    # it rises by one each hour and falls from 10 to 0 at once: after 10 comes 0, after 4 comes 5
    values = np.tile(np.arange(11.0), 60)[None]
    now_full, now_half = values[:, : 11 * 60], values[:, : 11 * 59 + 5]
    narrow = Likeness(width=0.02, floor=0.0)
    for known, then in ((now_full, 0.0), (now_half, 5.0)):
        rows = make_rows(known, np.array([1]), {"stay": CENTRES["stay"]}, stride=1)
        assert look_up(rows, rows.origins.size - 1, "stay", narrow, np.array([0.5]))[0, 0, 0] == then


@pytest.mark.parametrize(("off_record", "then"), [(1.0, 10.0), (0.02, 0.0)], ids=["all alike", "records apart"])
def test_what_follows_a_record_is_judged_by_what_followed_records(off_record: float, then: float) -> None:
    # nine goes on as nine, ten hours long; ten, the most there ever was, falls to nothing
    values = np.tile(np.array([0.0, *[9.0] * 10, 10.0]), 60)[None]
    rows = make_rows(values, np.array([1]), {"stay": CENTRES["stay"]}, stride=1)
    likeness = Likeness(off_record=off_record)
    assert look_up(rows, rows.origins.size - 1, "stay", likeness, np.array([0.5]))[0, 0, 0] == then


@pytest.mark.parametrize(("other_kind", "then"), [(1.0, 5.0), (0.01, 0.0)], ids=["all alike", "sparse apart"])
def test_a_sparse_series_learns_from_sparse_ones(other_kind: float, then: float) -> None:
    sparse = np.tile(np.array([*[0.0] * 11, 5.0, *[0.0] * 11, 10.0]), 30)[: 24 * 29 + 12]
    busy = np.tile(np.repeat([5.0, 10.0, 5.0, 0.0], [48, 1, 47, 1]), 8)[: sparse.size]
    values = np.stack([sparse] * 2 + [busy] * 2)
    rows = make_rows(values, np.array([1]), {"stay": CENTRES["stay"]}, stride=1)
    likeness = Likeness(width=0.05, own=0.0, other_kind=other_kind)
    assert values[0, -1] == 5.0
    found = look_up(rows, rows.origins.size - 1, "stay", likeness, np.array([0.5]))
    assert found[:2, 0, 0].tolist() == [then, then]


def test_looking_up_all_paths_at_once_is_looking_up_each() -> None:
    rows = make_rows(steps_and_bursts(4, 300, 3), np.array([1, 24]), CENTRES, stride=6)
    now, likeness = rows.origins.size - 1, Likeness(other_kind=0.1, off_record=0.02)
    at_once = look_up_all(rows, now, likeness, LEVELS)
    for place, path in enumerate(CENTRES):
        np.testing.assert_array_equal(at_once[place], look_up(rows, now, path, likeness, LEVELS))


def test_an_earlier_origin_sees_nothing_of_what_came_later() -> None:
    values = steps_and_bursts(3, 400, 2)
    later = values.copy()
    later[:, 298:] = 500.0
    found: list[tuple[Floats, Floats]] = []
    for known in (values, later):
        rows = make_rows(known, np.array([1, 24]), CENTRES, stride=6)
        now = int(np.searchsorted(rows.origins, 298))
        assert rows.origins[now] == 298
        found.extend(
            (look_up(rows, now, path, Likeness(), LEVELS), recent_error(rows, now, path, 100.0)) for path in CENTRES
        )
    for one, other in zip(found[: len(CENTRES)], found[len(CENTRES) :], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_a_score_stands_against_the_last_value() -> None:
    noise = np.random.default_rng(8).normal(50, 5, (12, 24 * 30))
    score = score_combination(Combination(24).fit(noise))
    assert score.mase.mean() < 0.85
    assert (score.mase < 1).all()
    assert 0.6 < score.coverage_80.mean() < 0.95
    assert (score.coverage_95 >= score.coverage_80).all()
    assert (score.mase_seasonal < 0.95).all()
    assert np.isfinite(score.wql).all()
    assert (score.mae < 10).all()
    assert np.isnan(score_combination(Combination(24).fit(np.array([[1.0, 2.0]]))).mase).all()


def test_a_peak_is_the_highest_value_of_its_window_and_unknown_over_a_gap() -> None:
    values = np.array([[1.0, 2, 3, 9, 1, 1, NAN, 1, 1, 1]])
    rows = make_peak_rows(values, np.array([3]), stride=1)
    actual = {int(origin): rows.actual[0, place, 0] for place, origin in enumerate(rows.origins)}
    assert actual[1] == 9
    assert actual[3] == 9
    assert np.isnan(actual[4])
    assert actual[7] == 1
    assert np.isnan(actual[9])


def test_quantiles_are_in_order_never_negative_and_bounded() -> None:
    values = steps_and_bursts(8, 24 * 30, 3)
    made = Combination(48).fit(values).predict_quantiles()
    assert made.shape == (8, 48, LEVELS.size)
    assert (np.diff(made, axis=2) >= 0).all()
    assert made.min() >= 0
    assert (made <= 2 * values.max(axis=1)[:, None, None]).all()


def test_intervals_hold_about_as_often_as_they_say() -> None:
    values = steps_and_bursts(40, 24 * 30, 4)
    inside = []
    for origin in (24 * 20, 24 * 23, 24 * 26):
        made = Combination(24).fit(values[:, :origin]).predict_quantiles()
        actual = values[:, origin : origin + 24]
        inside.append((actual >= made[..., 1]) & (actual <= made[..., 5]))
    assert 0.72 < np.mean(inside) < 0.9


def test_the_same_input_gives_the_same_forecast_whatever_the_order_of_series() -> None:
    values = steps_and_bursts(6, 500, 5)
    straight = Combination(24).fit(values).predict_quantiles()
    np.testing.assert_allclose(Combination(24).fit(values[::-1]).predict_quantiles()[::-1], straight)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (np.full((1, 600), 7.0), 7, 7),
        (np.zeros((1, 600)), 0, 0),
        (np.array([[0.0] * 300 + [50.0] + [0.0] * 299]), 0, 0),
        (np.array([[5.0] * 400 + [20.0] * 200]), 15, 25),
        (np.array([[8.0] * 300 + [NAN] * 168 + [8.0] * 132]), 8, 8),
        (np.array([[1.0, 2.0, 3.0]]), 1, 3),
        (np.array([[NAN] * 600]), NAN, NAN),
    ],
    ids=["constant", "all zero", "one spike", "level shift", "missing week", "three points", "nothing known"],
)
def test_odd_series_give_no_nonsense(values: Floats, low: float, high: float) -> None:
    made = Combination(24).fit(values).predict_quantiles()[0, :, MEDIAN]
    if np.isnan(low):
        assert np.isnan(made).all()
    else:
        assert (made >= low).all()
        assert (made <= high).all()


def test_too_short_a_history_has_a_median_and_no_interval() -> None:
    made = Combination(24).fit(np.array([[1.0, 2.0, 3.0]])).predict_quantiles()[0]
    assert np.isnan(np.delete(made, MEDIAN, axis=1)).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1e6)), min_size=1, max_size=200),
    st.sampled_from([1, 24, 30]),
)
def test_no_series_breaks_it(values: list[float | None], horizon: int) -> None:
    row = np.array([[NAN if value is None else value for value in values]])
    made = Combination(horizon).fit(row).predict_quantiles()
    known = made[np.isfinite(made)]
    assert made.shape == (1, horizon, LEVELS.size)
    assert (known >= 0).all()
    assert known.size == 0 or known.max() <= 3 * np.nanmax(row) + 1e-6


@pytest.mark.parametrize("horizon", [1, 24, 25, 168, 720])
def test_the_steps_that_are_forecast_end_at_the_horizon(horizon: int) -> None:
    steps = spread_steps(horizon)
    assert steps[0] == 1
    assert steps[-1] == horizon
    assert (np.diff(steps) > 0).all()
