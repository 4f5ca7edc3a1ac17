"""Many past moments asked at once give what each gives alone."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from analytics.idle_policy import IdlePolicy
from analytics.idle_signals import idle_signals, samples_since
from fleet.clock import FixedClock
from fleet.errors import BadInput
from simulator.presets import default_spec
from simulator.source import SimulatorSource
from simulator.step import build
from steward.compose import House
from steward.config import Settings
from steward.cycle import collect
from store.past import PastEngine
from store.past_grid import PastGrid
from store.store import Store

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
SPEC = replace(default_spec(48, 1.0), interval_s=300)
POLICY = IdlePolicy()
FAR = timedelta(seconds=POLICY.look_back_s) + HOUR
BY_CHANCE = "signal"  # of two signals that are as strong either may be named


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    clock = FixedClock(SPEC.starts_at + 14 * HOUR)
    with Store.open(None, clock=clock) as opened:
        collect(House(Settings(), opened, clock, (SimulatorSource(build(SPEC)),)), clock.now())
        opened.roll_up(SPEC.starts_at, clock.now())
        yield opened


@pytest.mark.parametrize(
    ("first", "step", "count"),
    [
        pytest.param(SPEC.starts_at + 6 * HOUR, 2 * HOUR, 4, id="hours"),
        pytest.param(SPEC.starts_at + 7 * HOUR + 20 * MINUTE, HOUR, 2, id="odd minutes"),
        pytest.param(SPEC.starts_at + 9 * HOUR, HOUR, 1, id="one alone"),
        pytest.param(SPEC.starts_at - 2 * HOUR, 9 * HOUR, 2, id="begins before anything was seen"),
    ],
)
def test_the_last_moment_is_told_as_if_it_were_asked_alone(
    store: Store, first: datetime, step: timedelta, count: int
) -> None:
    near = first - samples_since(first, POLICY)
    grid = PastGrid(store.engine, first, step, count, near, FAR)
    together = grid.ask(lambda tables, moment: idle_signals(tables, moment, POLICY))
    assert len(together) == count
    now = first + (count - 1) * step
    past = PastEngine(store.engine, now)
    alone = past.run(idle_signals(past, now, POLICY))
    keys = ["subject_kind", "subject", "pod_uid"]
    assert_frame_equal(alone.drop(BY_CHANCE).sort(keys), together[-1].drop(BY_CHANCE).sort(keys), rel_tol=1e-6)


def test_the_fleet_that_is_compared_holds_slices_and_pods(store: Store) -> None:
    past = PastEngine(store.engine, SPEC.starts_at + 8 * HOUR)
    told = past.run(idle_signals(past, SPEC.starts_at + 8 * HOUR, POLICY))
    assert {"gpu", "slice"} == set(told["subject_kind"])
    assert told.filter(pl.col("pod_uid").is_not_null(), pl.col("known_count") > 0).height > 10


def test_a_step_after_which_the_question_were_another_one_is_refused(store: Store) -> None:
    with pytest.raises(BadInput, match="whole hours"):
        PastGrid(store.engine, SPEC.starts_at, 50 * MINUTE, 2, HOUR, FAR)
