"""The rule that sets how far pools may grow: bounded steps, two thresholds, and no swinging between them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions.budget import Made
from actions.plan import plan
from actions.pools import wanted_gpus
from actions.rule_policies import PoolPolicy
from fleet.errors import BadInput
from fleet.move import MoveKind, Plan
from fleet.state import FleetState, ObjectRef, PoolLimit
from fleet.verdict import Severity, Verdict
from tests.actions.closed_loop import ALL_AUTO
from tests.actions.fakes import fleet

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
REF = ObjectRef("NodePool", "", "p")
BUFFER = ObjectRef("CapacityBuffer", "team", "spare")


def state(limit: float | None = 64.0, ref: ObjectRef = REF, pool: str | None = "p") -> FleetState:
    return replace(fleet(NOW), pools=(PoolLimit("c1", ref, limit, pool, "1"),))


def odds(probability: float | None, peak: float | None, **changes: Any) -> Verdict:
    plain = Verdict(
        made_at=NOW, topic="capacity", subject_kind="pool", subject="p", state="short", severity=Severity.WARNING,
        rule="pool_odds", action="grow_pool", cluster="c1", until=NOW,
        evidence=MappingProxyType({"probability": probability, "peak_gpus_upper": peak}),
    )  # fmt: skip
    return replace(plain, **changes)


def planned(fleet_state: FleetState, verdict: Verdict, recent: tuple[Made, ...] = ()) -> Plan:
    return plan(fleet_state, [verdict], ALL_AUTO, NOW, recent=recent)


@pytest.mark.parametrize(
    ("limit", "probability", "peak", "becomes"),
    [
        (64.0, 0.9, 70.0, 80.0),
        (64.0, 0.9, 500.0, 80.0),
        (64.0, 0.3, 500.0, None),
        (64.0, 0.01, 20.0, 48.0),
        (64.0, 0.01, 60.0, None),
        (64.0, 0.9, 30.0, None),
        (0.0, 0.9, 30.0, None),
        (8.0, 0.0, 0.0, 0.0),
    ],
    ids=["grows to the peak", "by a quarter at most", "between the odds", "shrinks by a quarter", "not below the peak",
         "room enough", "nothing grows from nothing", "one step"],
)  # fmt: skip
def test_a_pool_grows_and_shrinks_by_bounded_steps(
    limit: float, probability: float, peak: float, becomes: float | None
) -> None:
    made = planned(state(limit), odds(probability, peak))
    assert [move.arguments["limit"] for move in made.moves] == ([] if becomes is None else [becomes])
    assert all(move.kind is MoveKind.SET_POOL_LIMIT for move in made.moves)


def test_a_buffer_gains_and_loses_single_spares() -> None:
    spare = state(2.0, BUFFER)
    assert planned(spare, odds(0.9, 70.0)).moves[0].arguments["limit"] == 3.0
    assert planned(spare, odds(0.0, 1.0)).moves[0].arguments["limit"] == 1.0
    assert planned(state(0.0, BUFFER), odds(0.0, 1.0)).moves == ()


@pytest.mark.parametrize(
    ("fleet_state", "verdict", "words"),
    [
        (state(), odds(None, 70.0), "lacks the odds"),
        (state(), odds(0.9, float("nan")), "lacks the odds"),
        (state(), odds(0.9, 70.0, state="unknown"), "unknown"),
        (state(), odds(0.9, 70.0, made_at=NOW - timedelta(days=3)), "old"),
        (state(None), odds(0.9, 70.0), "it has no limit"),
        (fleet(NOW), odds(0.9, 70.0), "no pool of this name"),
    ],
    ids=["no odds", "no peak", "unknown", "old", "no limit", "no pool"],
)
def test_a_pool_stays_where_it_is_not_known_what_it_needs(
    fleet_state: FleetState, verdict: Verdict, words: str
) -> None:
    made = planned(fleet_state, verdict)
    assert made.moves == ()
    assert words in made.held_back[0].reason


def test_a_pool_is_not_set_twice_within_its_cooldown() -> None:
    first = planned(state(), odds(0.9, 500.0)).moves[0]
    again = planned(state(80.0), odds(0.9, 500.0), (Made(first, NOW - timedelta(hours=2)),))
    assert again.moves == ()
    assert "within the last 12 h" in again.held_back[0].reason


numbers = st.floats(0, 1e5, allow_nan=False)


@given(numbers, st.floats(0, 1), numbers, numbers)
def test_a_limit_reached_at_given_odds_is_kept_at_them_and_at_any_between(
    limit: float, probability: float, peak: float, held: float
) -> None:
    policy = PoolPolicy()
    current = limit
    for _ in range(100):
        following = wanted_gpus(current, probability, peak, held, policy)
        if following == current:
            break
        assert (following > current) is (probability >= policy.grow_odds)
        current = following
    assert wanted_gpus(current, 0.2, peak, held, policy) == current
    if probability >= policy.grow_odds and limit > 0:
        # what it grew to for this peak is not taken back for the same peak
        grown = wanted_gpus(current, policy.shrink_odds, peak, held, policy)
        assert grown == current or current > max(peak * 1.1, held) - 1e-3


def test_odds_that_would_make_it_swing_are_refused() -> None:
    with pytest.raises(BadInput, match="must be below"):
        PoolPolicy(grow_odds=0.1, shrink_odds=0.2)
