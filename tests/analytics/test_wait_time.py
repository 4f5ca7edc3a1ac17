"""Quotes of waits: nothing where it fits, what the queue says where it does not."""

import numpy as np
import pytest

from analytics.queue_replay import Jobs, Rules
from analytics.wait_time import LEVELS, Ask, QueueNow, Running, WaitPolicy, calibrated_levels, quote_wait

NONE = Jobs(*(np.empty(0),) * 3, *(np.empty(0, dtype=np.int64),) * 2)
FEW = WaitPolicy(draws=15)


def history(run_s: float, count: int = 40) -> Jobs:
    nought = np.zeros(count, dtype=np.int64)
    return Jobs(np.linspace(-9e6, -8e6, count), np.ones(count), np.full(count, run_s), nought, nought)


def running(gpus: float, age_s: float) -> Running:
    return Running(np.array([gpus]), np.zeros(1, dtype=np.int64), np.array([age_s]))


def test_what_fits_waits_for_nothing() -> None:
    queue = QueueNow(0, Rules(8, (np.inf,)), running(4, 10), NONE, history(1000))
    assert quote_wait(queue, Ask(4, 0), 0, policy=FEW).tolist() == [0] * LEVELS.size


def test_what_does_not_fit_waits_for_what_runs() -> None:
    queue = QueueNow(0, Rules(8, (np.inf,)), running(8, 400), NONE, history(1000))
    np.testing.assert_allclose(quote_wait(queue, Ask(4, 0), 0, policy=FEW), 600)


def test_who_waits_already_goes_first_unless_priority_says_otherwise() -> None:
    one = np.zeros(1, dtype=np.int64)
    waiting = Jobs(np.array([-5.0]), np.array([8.0]), np.zeros(1), one, one)
    queue = QueueNow(0, Rules(8, (np.inf,)), running(8, 400), waiting, history(1000))
    np.testing.assert_allclose(quote_wait(queue, Ask(8, 0), 0, policy=FEW), 1600)
    np.testing.assert_allclose(quote_wait(queue, Ask(8, 0, priority=5), 0, policy=FEW), 600)


def test_what_can_never_start_waits_for_ever() -> None:
    queue = QueueNow(0, Rules(8, (4.0,), is_lending=False), running(1, 1), NONE, history(10))
    assert np.isinf(quote_wait(queue, Ask(6, 0), 0, policy=FEW)).all()


@pytest.mark.parametrize("count", [0, 40], ids=["no history", "history"])
def test_quantiles_are_in_order_bounded_and_the_same_for_the_same_seed(count: int) -> None:
    queue = QueueNow(0, Rules(8, (np.inf,)), running(8, 4000), NONE, history(1000, count), np.arange(50.0))
    made = quote_wait(queue, Ask(8, 0), 3, policy=FEW)
    assert (np.diff(made) >= 0).all()
    assert made.min() >= 0
    assert made.max() <= FEW.look_ahead_s
    assert made.tolist() == quote_wait(queue, Ask(8, 0), 3, policy=FEW).tolist()


def test_levels_move_outwards_where_waits_went_beyond_those_before_them() -> None:
    rising = np.arange(100.0) ** 2
    moved = calibrated_levels(rising, LEVELS)
    assert moved.tolist() == [0.1, 0.25, 0.5, 0.99, 0.99]
    assert calibrated_levels(rising[::-1].copy(), LEVELS).tolist() == [0.01, 0.01, 0.5, 0.75, 0.9]


def test_levels_stay_where_waits_were_as_those_before_them_or_are_too_few() -> None:
    alike = np.random.default_rng(0).permuted(np.tile(np.arange(50.0), (40, 1)), axis=1).ravel()
    np.testing.assert_allclose(calibrated_levels(alike, LEVELS), LEVELS, atol=0.02)
    assert calibrated_levels(np.arange(59.0), LEVELS).tolist() == LEVELS.tolist()
    assert calibrated_levels(np.zeros(100), LEVELS).tolist() == LEVELS.tolist()
