from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.budget import Made, Spending, made_of, why_no_room
from actions.index import index_of
from actions.plan import plan
from actions.policy import Budget
from fleet.move import Move, Outcome, Stage
from tests.actions.fakes import FREE, WIDE, failing, fleet, idle, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
HELD = [workload(f"w{number}", [f"n{number}-0", f"n{number}-1"], LONG_AGO) for number in range(4)]
STATE = fleet(NOW, workloads=HELD)
IDLE = [idle(f"w{number}", NOW) for number in range(4)]
FAILING = [failing(f"n{number}-0", NOW, rule=f"rule_{number}") for number in range(4)]


@pytest.mark.parametrize(
    ("budget", "count"),
    [
        (WIDE, 4),
        (replace(WIDE, max_gpus_per_hour=5), 2),
        (replace(WIDE, max_gpus_per_hour=1), 0),
        (replace(WIDE, max_gpus_per_hour=0), 0),
        (replace(WIDE, max_share_of_workspace=0.5), 2),
        (replace(WIDE, max_share_of_workspace=0.0), 0),
        (replace(WIDE, max_share_of_pool=0.25), 2),
        (replace(WIDE, max_share_of_pool=0.0), 0),
        (replace(WIDE, max_nodes_per_turn=0), 4),
    ],
    ids=["wide", "hour", "too small", "none", "workspace", "no workspace", "pool", "no pool", "nodes are not its own"],
)
def test_reclaim_stays_within_its_budget_and_says_what_it_holds_back(budget: Budget, count: int) -> None:
    made = plan(STATE, IDLE, replace(FREE, budget=budget), NOW)
    assert len(made.moves) == count
    assert len(made.held_back) == 4 - count
    assert all(held.reason.startswith("budget: ") for held in made.held_back)


@pytest.mark.parametrize(
    ("budget", "count"),
    [
        (WIDE, 4),
        (replace(WIDE, max_gpus_per_hour=3), 3),
        (replace(WIDE, max_share_of_pool=0.1), 2),
        (replace(WIDE, max_nodes_per_turn=1), 1),
        (replace(WIDE, max_share_of_nodes_per_turn=0.3), 2),
        (replace(WIDE, max_share_of_nodes_per_turn=0.0), 0),
    ],
    ids=["wide", "hour", "pool rounds up", "nodes", "share of nodes rounds up", "no nodes"],
)
def test_fencing_stays_within_its_budget(budget: Budget, count: int) -> None:
    assert len(plan(STATE, FAILING, replace(FREE, budget=budget), NOW).moves) == count


def test_what_is_out_of_use_already_counts_against_the_pool() -> None:
    policy = replace(FREE, budget=replace(WIDE, max_share_of_pool=0.25))
    state = fleet(NOW, fenced=["n1-0", "n2-0", "n3-0"])
    assert len(plan(state, FAILING[:1], policy, NOW).moves) == 1
    state = fleet(NOW, fenced=["n1-0", "n1-1", "n2-0", "n3-0"])
    assert plan(state, FAILING[:1], policy, NOW).moves == ()


def test_reclaim_never_uses_up_what_fencing_needs() -> None:
    policy = replace(FREE, budget=replace(WIDE, max_gpus_per_hour=4))
    kinds = [move.kind.value for move in plan(STATE, [*IDLE, *FAILING], policy, NOW).moves]
    assert kinds == ["fence_gpu"] * 4 + ["suspend_workload"] * 2


@pytest.mark.parametrize(("minutes", "room"), [(59, False), (60, True), (-1, False)], ids=["within", "after", "skew"])
def test_the_last_hour_counts(minutes: int, *, room: bool) -> None:
    moves = plan(STATE, IDLE, FREE, NOW).moves
    policy = replace(FREE, budget=replace(WIDE, max_gpus_per_hour=3))
    spending = Spending((Made(moves[0], NOW - timedelta(minutes=minutes)),))
    assert (why_no_room(moves[1], spending, index_of(STATE), policy, NOW) is None) == room


def test_a_move_made_in_this_turn_is_counted_once() -> None:
    moves = plan(STATE, IDLE, FREE, NOW).moves
    policy = replace(FREE, budget=replace(WIDE, max_gpus_per_hour=4))
    spending = Spending((Made(moves[0], NOW),), (moves[0],))
    assert why_no_room(moves[1], spending, index_of(STATE), policy, NOW) is None


def outcome(move: Move, stage: Stage, minute: int, *, dry: bool = False) -> Outcome:
    return Outcome(move.move_id, NOW + timedelta(minutes=minute), stage, dry, "test")


def test_only_what_was_really_applied_is_made_whatever_the_order_of_the_rows() -> None:
    first, second, third, fourth = plan(STATE, IDLE, FREE, NOW).moves
    rows = [
        outcome(first, Stage.UNDONE, 3),
        outcome(first, Stage.APPLIED, 2),
        outcome(first, Stage.INTENDED, 1),
        outcome(second, Stage.APPLIED, 1),
        outcome(second, Stage.REFUSED, 2),
        outcome(third, Stage.APPLIED, 1, dry=True),
        outcome(fourth, Stage.FAILED, 1),
        Outcome("of another plan", NOW, Stage.APPLIED, is_dry_run=False, actor="test"),
    ]
    made = made_of([first, second, third, fourth], rows)
    assert [(each.move, each.is_undone) for each in made] == [(second, False), (first, True)]
