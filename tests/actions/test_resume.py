"""A process that dies at any record goes on, or backs out, from the record alone."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.apply import apply
from actions.approval import content_digest, standings
from actions.budget import made_of
from actions.forbid import BACK_OUT
from actions.plan import plan
from actions.policy import ActionPolicy
from actions.restart import settle, unfinished
from actions.resume import LeftOver, left_over
from actions.undo import undo_plan
from fleet.approval import Approval, Step
from fleet.clock import FixedClock
from fleet.move import Move, MoveKind, Outcome, Plan, Stage
from fleet.state import ObjectRef
from tests.actions.fakes import WIDE, FakeCluster, failing, fleet, idle, quota, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
STATE = fleet(
    NOW,
    workloads=[workload("train", ["n1-0"], LONG_AGO), workload("serve", ["n2-0"], LONG_AGO)],
    quotas=[quota("a", 20.0), quota("b", 4.0), quota("c", 2.0)],
)
POLICY = ActionPolicy(budget=WIDE)  # every rule proposes


def set_quota(workspace: str, before: float, after: float) -> Move:
    """Build a move of one quota of the group: who gives stands first in it."""
    return Move(
        f"quota-{workspace}", MoveKind.SET_QUOTA, "c1", ObjectRef("Quota", "", workspace), "rebalance", "why",
        gpus=abs(after - before), workspace=workspace, pool="p",
        arguments={"gpus": after, "pool": "p", "model": None, "borrowing_gpus": None}, resource_version="1",
        evidence={"before": {"gpus": before, "borrowing_gpus": None}},
    )  # fmt: skip


SINGLES = plan(STATE, [failing("n0-0", NOW), idle("train", NOW), idle("serve", NOW)], POLICY, NOW)
GROUP = (set_quota("a", 20.0, 17.0), set_quota("b", 4.0, 6.0), set_quota("c", 2.0, 3.0))
PLAN = replace(SINGLES, moves=(*SINGLES.moves, *GROUP))


class Died(BaseException):
    """The process was killed."""


@dataclass
class Life:
    """A cluster, and the record that outlives the process."""

    dies_at: int = 10**9  # before which record
    cluster: FakeCluster = field(default_factory=lambda: FakeCluster(STATE, FixedClock(NOW)))
    outcomes: list[Outcome] = field(default_factory=list)
    plans: dict[str, Plan] = field(default_factory=lambda: {PLAN.plan_id: PLAN})
    approvals: list[Approval] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster.after_make = lambda _: self.totals.append(sum(each.gpus for each in self.cluster.state.quotas))
        for move in PLAN.moves:
            known = Approval(content_digest(move), move.move_id, PLAN.plan_id, NOW, Step.PROPOSED, "gpu-steward")
            self.approvals.append(replace(known, expires_at=NOW + timedelta(hours=1), person_count=1))
            self.approvals.append(replace(known, step=Step.APPROVED, who="ann"))

    def record(self, outcome: Outcome) -> None:
        if len(self.outcomes) == self.dies_at:
            self.dies_at = 10**9
            raise Died
        self.outcomes.append(outcome)
        self.cluster.clock.move(timedelta(seconds=1))

    def run(self, made: Plan) -> None:
        everything = [move for each in self.plans.values() for move in each.moves]
        apply(
            made, self.cluster, POLICY, self.cluster.clock, self.record, actor="t", is_dry_run=False,
            kill_switch=lambda: False, approvals=self.approvals,
            recent=made_of(everything, self.outcomes),
        )  # fmt: skip

    def left(self) -> LeftOver:
        now = self.cluster.clock.now()
        everything = [move for each in self.plans.values() for move in each.moves]
        known = standings(self.approvals, now, made_of(everything, self.outcomes))
        return left_over(self.plans.values(), self.outcomes, known, now)

    def restart(self) -> LeftOver:
        everything = [move for each in self.plans.values() for move in each.moves]
        settle(everything, self.outcomes, self.cluster, self.cluster.clock, self.record, actor="t")
        left = self.left()
        if left.back.moves:
            self.plans[left.back.plan_id] = left.back
            self.run(left.back)
        for each in left.forth:
            self.run(each)
        return left

    def standing(self) -> list[Move]:
        everything = [move for each in self.plans.values() for move in each.moves]
        found = made_of(everything, self.outcomes)
        return [each.move for each in found if not each.is_undone and "undo_of" not in each.move.evidence]


RECORDS = 2 * len(PLAN.moves)


def test_the_plan_of_these_tests_has_single_moves_and_a_group_of_three() -> None:
    kinds = Counter(move.kind for move in PLAN.moves)
    assert kinds == {MoveKind.FENCE_GPU: 1, MoveKind.SUSPEND_WORKLOAD: 2, MoveKind.SET_QUOTA: 3}
    life = Life()
    life.run(PLAN)
    assert len(life.outcomes) == RECORDS


@pytest.mark.parametrize("dies_at", range(RECORDS))
def test_a_restart_at_any_record_goes_on_with_what_is_approved_and_leaves_no_group_half(dies_at: int) -> None:
    life = Life(dies_at)
    with pytest.raises(Died):
        life.run(PLAN)
    for _ in range(3):
        life.cluster.clock.move(timedelta(minutes=1))
        life.restart()
    everything = [move for each in life.plans.values() for move in each.moves]
    assert unfinished(everything, life.outcomes) == ()
    kinds = Counter(move.kind for move in life.standing())
    begun = any(each.stage is not Stage.REFUSED for each in life.outcomes)
    assert begun or dies_at == 0
    assert kinds[MoveKind.SET_QUOTA] in {0, 3}, "whole or not at all"
    assert sum(each.gpus for each in life.cluster.state.quotas) == 26.0
    assert max(life.totals, default=26.0) <= 26.0, "a pool never promises more than it has"
    if dies_at > 0:
        # the move that was cut short before it was made is planned anew; the others are made, once each
        cut = life.cluster.made
        singles = [move for move in cut if move.kind in {MoveKind.FENCE_GPU, MoveKind.SUSPEND_WORKLOAD}]
        assert len(singles) == len({move.move_id for move in singles})
        assert len(singles) >= 2
    assert life.left() == LeftOver((), replace(life.left().back, moves=()))


def test_what_was_not_approved_or_ran_out_is_not_gone_on_with() -> None:
    life = Life(3)
    life.approvals = [each for each in life.approvals if each.step is Step.PROPOSED]
    with pytest.raises(Died):
        life.run(PLAN)
    assert life.left().forth == ()
    life = Life(3)
    with pytest.raises(Died):
        life.run(PLAN)
    assert life.left().forth != ()
    life.cluster.clock.move(timedelta(hours=2))
    assert life.left().forth == ()


def test_a_plan_that_was_never_begun_waits_for_its_turn() -> None:
    assert Life().left().forth == ()


def half_made() -> Life:
    """Return a life whose first quota of a group was made before it ended."""
    life = Life()
    quotas = [move for move in PLAN.moves if move.kind is MoveKind.SET_QUOTA]
    life.cluster.refused = {quotas[1].target.name}
    life.cluster.rehearse = lambda move: None  # type: ignore[method-assign] # noqa: ARG005  # it is refused only when it is made
    made: list[Move] = []
    life.cluster.before_make = made.append

    def dies(_move: Move) -> None:
        life.dies_at = len(life.outcomes) + 1

    life.cluster.after_make = dies
    with pytest.raises(Died):
        life.run(replace(PLAN, moves=tuple(quotas)))
    life.cluster.after_make = lambda _: None
    life.cluster.refused = set()
    everything = [move for each in life.plans.values() for move in each.moves]
    settle(everything, life.outcomes, life.cluster, life.cluster.clock, life.record, actor="t")
    assert len(life.standing()) == 1
    return life


def test_a_half_made_group_is_backed_out_and_the_undo_says_why() -> None:
    life = half_made()
    left = life.left()
    assert [move.cause.startswith(BACK_OUT) for move in left.back.moves] == [True]
    life.restart()
    assert sum(each.gpus for each in life.cluster.state.quotas) == 26.0
    assert life.left().back.moves == ()


def test_a_group_of_which_a_person_took_a_part_back_is_left_to_them() -> None:
    life = Life()
    quotas = [move for move in PLAN.moves if move.kind is MoveKind.SET_QUOTA]
    life.run(replace(PLAN, moves=tuple(quotas)))
    back = undo_plan(quotas[:1], life.outcomes, life.cluster.clock.now())
    life.plans[back.plan_id] = back
    life.run(back)
    assert len(life.standing()) == 2
    assert life.left().back.moves == ()


def test_a_backing_out_that_others_made_impossible_is_refused_with_the_reason_and_not_tried_at_once() -> None:
    life = half_made()
    (left_move,) = life.standing()
    life.cluster.set_quota(left_move.target.name, gpus=11.0)
    life.restart()
    assert any("changed by others" in each.detail for each in life.outcomes)
    assert life.left().back.moves == ()
    life.cluster.clock.move(timedelta(minutes=11))
    assert len(life.left().back.moves) == 1


def test_a_move_that_may_have_been_made_keeps_its_group_until_it_is_settled() -> None:
    life = half_made()
    group = [move for move in PLAN.moves if move.kind is MoveKind.SET_QUOTA]
    open_end = Outcome(
        group[1].move_id, life.cluster.clock.now(), Stage.INTENDED, is_dry_run=False, actor="t", prior="{}"
    )
    life.outcomes.append(open_end)
    assert life.left().back.moves == ()


@pytest.mark.parametrize("pulled_after", [0, 1, 2])
def test_a_kill_switch_pulled_in_the_middle_of_a_plan_stops_the_rest_with_its_reason(pulled_after: int) -> None:
    life = Life()
    singles = [move for move in PLAN.moves if move.kind is not MoveKind.SET_QUOTA]
    apply(
        replace(PLAN, moves=tuple(singles)), life.cluster, POLICY, life.cluster.clock, life.record, actor="t",
        is_dry_run=False, approvals=life.approvals,
        kill_switch=lambda: "the kill switch is on: smoke" if len(life.cluster.made) >= pulled_after else None,
    )  # fmt: skip
    assert len(life.cluster.made) == pulled_after
    stages = [each.stage for each in life.outcomes]
    assert stages == [Stage.INTENDED, Stage.APPLIED] * pulled_after + [Stage.REFUSED] * (3 - pulled_after)
    assert {each.detail for each in life.outcomes if each.stage is Stage.REFUSED} == {"the kill switch is on: smoke"}
