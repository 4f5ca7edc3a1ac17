"""What follows when a workspace's money is spent, and that it is taken back to what was there before."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from actions.budget import Made
from actions.plan import plan
from actions.rule_policies import SpendingPolicy
from fleet.move import Move, MoveKind
from fleet.state import FleetState, ObjectRef, Queue, Quota
from fleet.verdict import Severity, Verdict
from simulator.faults_spec import FaultSpec
from simulator.presets import default_spec
from simulator.world import World
from tests.actions.closed_loop import ALL_AUTO, Loop, kinds

WORKSPACE = "foundation"


def money(world: World, share: float | None, at_limit: str = "stop_borrowing", **changes: Any) -> Verdict:
    state = "unknown" if share is None else "spent" if share >= 1 else "within"
    plain = Verdict(
        made_at=world.now, topic="cost", subject_kind="workspace", subject=WORKSPACE, state=state,
        severity=Severity.UNKNOWN if share is None else Severity.CRITICAL if share >= 1 else Severity.OK, rule="budget",
        action=at_limit if state == "spent" else "none", workspace=WORKSPACE,
        evidence=MappingProxyType({"share": share}),
    )  # fmt: skip
    return replace(plain, **changes)


def loop_of(share: float | None, at_limit: str = "stop_borrowing") -> Loop:
    spec = replace(default_spec(48, 1.0), faults=FaultSpec(rate_factor=0.0))
    loop = Loop(spec, lambda world: [money(world, share, at_limit)], ALL_AUTO, timedelta(hours=1))
    loop.begin(timedelta(hours=1))
    return loop


def quota_of(loop: Loop) -> Quota:
    return next(each for each in loop.state.quotas if each.workspace == WORKSPACE)


@pytest.mark.parametrize("restarts", [False, True], ids=["running on", "restarted each turn"])
def test_spent_money_stops_the_borrowing_and_new_money_brings_it_back_as_it_was(
    restarts: bool,  # noqa: FBT001 - a table's column
) -> None:
    loop = loop_of(1.2)
    before = quota_of(loop)
    assert before.borrowing_gpus != 0
    assert kinds(loop.turns(5, restarts=restarts)) == ["set_quota"]
    assert (quota_of(loop).borrowing_gpus, quota_of(loop).gpus) == (0.0, before.gpus)
    loop.judge = lambda world: [money(world, 0.99)]
    assert kinds(loop.turns(3, restarts=restarts)) == []
    loop.judge = lambda world: [money(world, 0.1)]
    assert kinds(loop.turns(5, restarts=restarts)) == ["set_quota"]
    assert quota_of(loop).borrowing_gpus == before.borrowing_gpus


def test_what_others_set_meanwhile_stays_as_they_left_it() -> None:
    loop = loop_of(1.2)
    loop.turns(1)
    quota = quota_of(loop)
    theirs = Move("theirs", MoveKind.SET_QUOTA, quota.cluster, ObjectRef("Quota", "", WORKSPACE), "by hand", "by hand",
                  arguments={"gpus": quota.gpus, "borrowing_gpus": 2.0})  # fmt: skip
    loop.judge = lambda world: [money(world, 0.1)]
    loop.meddle(theirs)
    assert kinds(loop.turns(3)) == []
    assert quota_of(loop).borrowing_gpus == 2.0


@pytest.mark.parametrize(("share", "words"), [(None, ""), (0.5, "")])
def test_unknown_or_little_spending_changes_nothing(share: float | None, words: str) -> None:
    loop = loop_of(share)
    assert kinds(loop.turns(3)) == []
    assert all(words in each for each in loop.held())


def test_a_protected_workspace_is_only_told() -> None:
    loop = loop_of(1.2)
    loop.policy = replace(ALL_AUTO, spending=SpendingPolicy(protected_workspaces=(WORKSPACE,)))
    assert kinds(loop.turns(2)) == []
    assert any("only told" in each for each in loop.held())


def test_a_workspace_without_a_queue_is_held_back_with_the_reason() -> None:
    loop = loop_of(1.2, "hold_queue")
    assert kinds(loop.turns(2)) == []
    assert any("no queue here" in each for each in loop.held())


def with_queues(loop: Loop, queues: Sequence[Queue]) -> FleetState:
    return replace(loop.state, queues=tuple(queues))


def test_queues_hold_and_admit_again_and_a_queue_that_others_stopped_stays() -> None:
    loop = loop_of(1.2, "hold_queue")
    ours = Queue("east", ObjectRef("LocalQueue", "team", "a"), WORKSPACE, None, "1")
    theirs = Queue("east", ObjectRef("LocalQueue", "team", "b"), WORKSPACE, "HoldAndDrain", "1")
    whole = Queue("east", ObjectRef("ClusterQueue", "", "all"), WORKSPACE, None, "1")
    spent = plan(
        with_queues(loop, [ours, theirs, whole]), [money(loop.world, 1.2, "hold_queue")], ALL_AUTO, loop.world.now
    )
    (move,) = spent.moves
    assert (move.target, move.arguments) == (ours.ref, {"stop_policy": "Hold"})
    held = replace(ours, stop_policy="Hold")
    made = (Made(move, loop.world.now),)
    verdict = money(loop.world, 0.1)
    back = plan(with_queues(loop, [held, theirs, whole]), [verdict], ALL_AUTO, loop.world.now, recent=made)
    assert [(each.target, each.arguments["stop_policy"]) for each in back.moves] == [(ours.ref, None)]
    strange = plan(with_queues(loop, [held, theirs, whole]), [verdict], ALL_AUTO, loop.world.now)
    assert strange.moves == ()
