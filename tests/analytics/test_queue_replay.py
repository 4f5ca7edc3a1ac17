"""The replay of a queue: its rules, and laws of conservation that hold for any jobs and rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.backtest import Floats
from analytics.queue_replay import Held, Jobs, Rules, replay
from fleet.errors import BadInput

INF = float("inf")


def jobs(*rows: tuple[float, float, float], workspace: tuple[int, ...] = (), priority: tuple[int, ...] = ()) -> Jobs:
    submitted, gpus, run = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    nought = (0,) * len(rows)
    return Jobs(submitted, gpus, run, np.array(workspace or nought), np.array(priority or nought))


def test_first_come_is_first_served_and_smaller_ones_pass_what_does_not_fit() -> None:
    queue = jobs((0, 4, 100), (1, 8, 10), (2, 4, 10), (3, 4, 10))
    assert replay(queue, Rules(8, (INF,))).tolist() == [0, 100, 2, 12]


def test_a_higher_priority_goes_first() -> None:
    queue = jobs((0, 8, 10), (1, 8, 10), (2, 8, 10), priority=(0, 0, 5))
    assert replay(queue, Rules(8, (INF,))).tolist() == [0, 20, 10]


def test_without_lending_a_quota_holds_and_with_it_others_come_first_inside_theirs() -> None:
    queue = jobs((0, 4, 50), (1, 4, 10), (2, 4, 10), workspace=(0, 0, 1))
    assert replay(queue, Rules(8, (4, 4), is_lending=False)).tolist() == [0, 50, 2]
    assert replay(queue, Rules(8, (4, 4), is_lending=True)).tolist() == [0, 1, 11]


def test_a_job_that_can_never_run_is_left_waiting() -> None:
    assert np.isnan(replay(jobs((0, 16, 1)), Rules(8, (INF,)))[0])
    assert np.isnan(replay(jobs((0, 6, 1)), Rules(8, (4,), is_lending=False))[0])


def test_a_drained_rack_starts_nothing_until_it_is_back_and_stops_nothing() -> None:
    queue = jobs((0, 8, 10), (1, 4, 10))
    assert replay(queue, Rules(8, (INF,), changes=((5, -8), (100, 8)))).tolist() == [0, 100]


def test_what_is_held_already_is_given_back_in_its_time() -> None:
    assert replay(jobs((0, 4, 10)), Rules(4, (INF,)), (Held(30, 4, 0),)).tolist() == [30]


@pytest.mark.parametrize("wrong", [{"gpus": -1, "quotas": (1,)}, {"gpus": 1, "quotas": (float("nan"),)}], ids=str)
def test_rules_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        Rules(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def in_use(queue: Jobs, started: Floats, moment: float, workspace: int | None = None) -> float:
    runs = (started <= moment) & (started + queue.run_s > moment)
    if workspace is not None:
        runs &= queue.workspace == workspace
    return float(queue.gpus[runs].sum())


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from([1, 2, 4, 8]), st.integers(1, 40), st.integers(0, 2)),
        min_size=1,
        max_size=40,
    ),
    st.booleans(),
)
def test_gpus_are_neither_made_nor_lost(rows: list[tuple[int, int, int, int]], is_lending: bool) -> None:  # noqa: FBT001 - drawn
    queue = jobs(*((a, b, c) for a, b, c, _ in rows), workspace=tuple(row[3] for row in rows))
    rules = Rules(8, (4.0, 2.0, 8.0), is_lending)
    started = replay(queue, rules)
    fits = queue.gpus <= (8.0 if is_lending else np.array(rules.quotas)[queue.workspace])
    assert (np.isfinite(started) == fits).all()
    assert (started[fits] >= queue.submitted_s[fits]).all()
    moments = np.unique(np.concatenate([started[fits], started[fits] + queue.run_s[fits]]))
    for moment in moments:
        assert in_use(queue, started, moment) <= 8
        for workspace, quota in enumerate(rules.quotas):
            assert is_lending or in_use(queue, started, moment, workspace) <= quota
    # nothing that fits is left waiting while GPUs are free: work is conserved
    for moment in moments if is_lending else ():
        waits = fits & (queue.submitted_s <= moment) & (started > moment)
        free = 8 - in_use(queue, started, moment)
        assert not waits.any() or queue.gpus[waits].min() > free
