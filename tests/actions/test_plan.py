from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.plan import plan
from actions.policy import ActionPolicy, Modes
from fleet.errors import BadInput
from fleet.state import FleetState
from tests.actions.fakes import FREE, demand, failing, fleet, idle, quota, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
STATE = fleet(
    NOW,
    workloads=[workload("train", ["n1-0"], LONG_AGO)],
    quotas=[quota("a", 20.0), quota("b", 4.0)],
)
VERDICTS = [failing("n0-0", NOW), idle("train", NOW), demand("a", NOW, 1, 2), demand("b", NOW, 6, 7)]


def test_safety_comes_first_then_reclaim_then_quota() -> None:
    kinds = [move.kind.value for move in plan(STATE, VERDICTS, FREE, NOW).moves]
    assert kinds == ["fence_gpu", "suspend_workload", "set_quota", "set_quota"]


def test_the_same_input_gives_the_same_ids_in_whatever_order_it_comes() -> None:
    first = plan(STATE, VERDICTS, FREE, NOW)
    second = plan(STATE, [*reversed(VERDICTS), *VERDICTS], FREE, NOW)
    assert first == second
    assert len({move.move_id for move in first.moves}) == 4


def test_a_different_day_policy_or_version_gives_different_ids() -> None:
    day = timedelta(days=1)
    first = plan(STATE, VERDICTS[:1], FREE, NOW)
    later = plan(replace(STATE, taken_at=NOW + day), [failing("n0-0", NOW + day)], FREE, NOW + day)
    stricter = plan(STATE, VERDICTS[:1], replace(FREE, modes=Modes()), NOW)
    nodes = tuple(replace(node, resource_version="2") for node in STATE.nodes)
    moved_on = plan(replace(STATE, nodes=nodes), VERDICTS[:1], FREE, NOW)
    plans = [first, later, stricter, moved_on]
    assert len({each.plan_id for each in plans}) == 4
    assert len({each.moves[0].move_id for each in plans}) == 4


@pytest.mark.parametrize(("minutes", "is_same"), [(59, True), (60, False)])
def test_the_same_turn_keeps_its_id_for_the_hour_so_that_what_is_stored_of_it_is_young(
    minutes: int, *, is_same: bool
) -> None:
    later = NOW + timedelta(minutes=minutes)
    again = plan(replace(STATE, taken_at=later), [failing("n0-0", later)], FREE, later)
    assert (again.plan_id == plan(STATE, VERDICTS[:1], FREE, NOW).plan_id) is is_same


@pytest.mark.parametrize(
    ("modes", "count", "words"),
    [
        (Modes("off", "off", "off"), 0, "is off"),
        (Modes("observe", "observe", "observe"), 0, "only observes; it would "),
        (Modes("propose", "propose", "propose"), 4, ""),
    ],
    ids=["off", "observe", "propose"],
)
def test_the_mode_of_a_rule_bounds_what_it_plans(modes: Modes, count: int, words: str) -> None:
    made = plan(STATE, VERDICTS, replace(FREE, modes=modes), NOW)
    assert len(made.moves) == count
    assert len(made.held_back) == 4 - count
    assert all(words in held.reason for held in made.held_back)


@pytest.mark.parametrize("age", [timedelta(minutes=6), timedelta(minutes=-2)], ids=["old", "future"])
def test_a_state_that_is_not_of_now_leads_to_nothing(age: timedelta) -> None:
    made = plan(replace(STATE, taken_at=NOW - age), VERDICTS, FREE, NOW)
    assert made.moves == ()
    assert {held.subject for held in made.held_back} == {"n0-0", "Job/team/train", "a", "b"}


def test_an_empty_world_gives_an_empty_plan() -> None:
    made = plan(FleetState(NOW), [], ActionPolicy(), NOW)
    assert (made.moves, made.held_back, made.saving_usd_per_hour) == ((), (), None)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(BadInput, match="time zone"):
        plan(STATE, [], FREE, datetime(2026, 3, 2))  # noqa: DTZ001  # the fault under test
