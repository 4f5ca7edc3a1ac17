"""What was begun and never seen to end: it counts as spent, nothing is built on it, and nobody comes in between."""

from datetime import UTC, datetime, timedelta

import pytest

from actions.apply import apply
from actions.budget import Spending, made_of
from actions.plan import plan
from actions.restart import settle
from actions.undo import undo_plan
from fleet.clock import FixedClock
from fleet.move import MoveKind, Outcome, Plan, Stage
from tests.actions.fakes import FREE, FakeCluster, demand, fleet, idle, quota, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
STATE = fleet(
    NOW,
    workloads=[workload("train", ["n1-0"], NOW - timedelta(days=2))],
    quotas=[quota("a", 20.0), quota("b", 4.0)],
)
PLAN = plan(STATE, [idle("train", NOW)], FREE, NOW)
MOVE = PLAN.moves[0]


def outcome(stage: Stage, minute: int, prior: str | None = None) -> Outcome:
    return Outcome(MOVE.move_id, NOW + timedelta(minutes=minute), stage, is_dry_run=False, actor="t", prior=prior)


@pytest.mark.parametrize(
    ("stages", "counted", "certain"),
    [
        ([(Stage.INTENDED, "{}")], True, False),
        ([(Stage.INTENDED, "{}"), (Stage.FAILED, "{}")], True, False),
        ([(Stage.INTENDED, "{}"), (Stage.UNCLEAR, None)], True, False),
        ([(Stage.INTENDED, "{}"), (Stage.FAILED, None)], False, None),
        ([(Stage.INTENDED, "{}"), (Stage.REFUSED, None)], False, None),
        ([(Stage.INTENDED, "{}"), (Stage.APPLIED, "{}")], True, True),
        ([(Stage.APPLIED, "{}"), (Stage.INTENDED, "{}"), (Stage.REFUSED, None)], True, True),
        ([(Stage.APPLIED, "{}"), (Stage.FAILED, None)], True, True),
        ([(Stage.REFUSED, None)], False, None),
    ],
)
def test_a_beginning_counts_until_it_is_known_to_have_come_to_nothing(
    stages: list[tuple[Stage, str | None]], *, counted: bool, certain: bool | None
) -> None:
    made = made_of([MOVE], [outcome(stage, minute, prior) for minute, (stage, prior) in enumerate(stages)])
    spent = Spending(made).of_rule("reclaim", NOW + timedelta(minutes=10))
    assert bool(spent) is counted
    assert (made[0].is_certain if made else None) is certain


def test_what_may_have_been_made_is_not_taken_back_blindly() -> None:
    assert undo_plan([MOVE], [outcome(Stage.INTENDED, 0, "{}"), outcome(Stage.UNCLEAR, 1)], NOW).moves == ()


def test_a_target_that_others_changed_since_is_settled_as_unclear() -> None:
    clock, audit = FixedClock(NOW), [outcome(Stage.INTENDED, 0, '{"is_suspended": false}')]
    cluster = FakeCluster(STATE, clock)
    cluster.set_workload("train", is_suspended=True, suspended_by="bob")
    settle([MOVE], audit, cluster, clock, audit.append, actor="t")
    assert audit[-1].stage is Stage.UNCLEAR
    assert settle([MOVE], audit, cluster, clock, audit.append, actor="t") == []


def test_a_kill_switch_pulled_within_a_group_stops_its_second_half_and_writes_nothing_back() -> None:
    clock = FixedClock(NOW)
    cluster = FakeCluster(STATE, clock)
    made = plan(STATE, [demand("a", NOW, 1, 2), demand("b", NOW, 6, 7)], FREE, NOW)
    audit: list[Outcome] = []
    apply(made, cluster, FREE, clock, audit.append, actor="t", is_dry_run=False, kill_switch=lambda: bool(cluster.made))
    assert len(made.moves) == 2
    assert [move.kind for move in cluster.made] == [MoveKind.SET_QUOTA]
    assert audit[-1].stage is Stage.REFUSED
    assert "kill switch" in next(each.detail for each in audit if each.move_id == made.moves[1].move_id)


def test_an_undo_is_bound_to_the_version_that_was_looked_at() -> None:
    clock, audit = FixedClock(NOW), list[Outcome]()
    cluster = FakeCluster(STATE, clock)

    def run(made: Plan) -> None:
        apply(
            made, cluster, FREE, clock, audit.append, actor="t", is_dry_run=False, kill_switch=lambda: False,
            recent=made_of(PLAN.moves, audit),
        )  # fmt: skip

    run(PLAN)
    back = undo_plan([MOVE], audit, NOW)
    cluster.before_make = lambda _move: cluster.set_workload("train", owner="bob")
    run(back)
    assert cluster.made[-1].kind is MoveKind.SUSPEND_WORKLOAD
    assert audit[-1].stage is Stage.REFUSED
