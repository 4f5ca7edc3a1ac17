"""What follows when a workspace's money is spent, and that it is taken back to what was there before."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import polars as pl
import pytest

from actions.budget import Made
from actions.plan import plan
from actions.rule_policies import SpendingPolicy
from analytics.budgets import judge_ended
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
    asked = at_limit if state == "spent" else "none"
    plain = Verdict(
        made_at=world.now, topic="cost", subject_kind="workspace", subject=WORKSPACE, state=state,
        severity=Severity.UNKNOWN if share is None else Severity.CRITICAL if share >= 1 else Severity.OK, rule="budget",
        action=asked, workspace=WORKSPACE,
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


def no_budget(world: World) -> list[Verdict]:
    """Tell that the workspace's budget was taken away, as the analysis does."""
    rows = [{"workspace": WORKSPACE, "starts_at": world.spec.starts_at, "ends_at": world.now - timedelta(minutes=1)}]
    return judge_ended(pl.DataFrame(rows), world.now)


AFTER: dict[str, Callable[[World], Sequence[Verdict]]] = {
    "the budget is taken away": no_budget,
    "its policy only tells now": lambda world: [money(world, 1.2, "notify")],
    "its policy holds queues now": lambda world: [money(world, 1.2, "hold_queue")],
}


@pytest.mark.parametrize("restarts", [False, True], ids=["running on", "restarted each turn"])
@pytest.mark.parametrize("after", AFTER, ids=str)
def test_what_nothing_asks_for_any_more_is_taken_back_once(
    after: str,
    restarts: bool,  # noqa: FBT001 - a table's column
) -> None:
    loop = loop_of(1.2)
    before = quota_of(loop)
    loop.turns(3, restarts=restarts)
    assert quota_of(loop).borrowing_gpus == 0
    loop.judge = AFTER[after]
    assert kinds(loop.turns(5, restarts=restarts)) == ["set_quota"]
    assert quota_of(loop).borrowing_gpus == before.borrowing_gpus


def test_no_word_of_a_budget_gives_nothing_back() -> None:
    loop = loop_of(1.2)
    loop.turns(2)
    loop.judge = lambda _world: []
    assert kinds(loop.turns(4)) == []
    loop.judge = lambda world: [money(world, None)]
    assert kinds(loop.turns(4)) == []


def test_what_a_person_set_after_us_is_not_ours_to_give_back() -> None:
    loop = loop_of(1.2)
    loop.turns(2)
    quota = quota_of(loop)
    loop.judge = no_budget
    loop.meddle(Move("theirs", MoveKind.SET_QUOTA, quota.cluster, ObjectRef("Quota", "", WORKSPACE), "by hand", "",
                     arguments={"gpus": quota.gpus, "borrowing_gpus": 1.0}))  # fmt: skip
    assert kinds(loop.turns(4)) == []
    assert quota_of(loop).borrowing_gpus == 1.0


def quota_made(rule: str, was: float | None, after: float, hours: float, **changes: Any) -> Made:
    ref = ObjectRef("Quota", "", WORKSPACE)
    told = {"before": {"gpus": 4.0, "borrowing_gpus": was}} | changes
    move = Move(f"{rule}{hours}", MoveKind.SET_QUOTA, "c1", ref, "c", "r", rule=rule, evidence=told,
                arguments={"gpus": 4.0, "pool": None, "model": None, "borrowing_gpus": after})  # fmt: skip
    return Made(move, NOW - timedelta(hours=hours))


NOW = default_spec(48, 1.0).starts_at


@pytest.mark.parametrize(
    ("recent", "back"),
    [
        ([quota_made("budget", 3.0, 0.0, 9)], [3.0]),
        ([quota_made("budget", None, 0.0, 9)], [None]),
        ([quota_made("budget", 3.0, 0.0, 9), quota_made("rebalance", 0.0, 0.0, 5)], [3.0]),
        ([quota_made("budget", 3.0, 0.0, 9), quota_made("rebalance", 2.0, 0.0, 5)], []),
        ([quota_made("rebalance", 3.0, 0.0, 9)], []),
        ([quota_made("budget", 3.0, 0.0, 9, before={})], []),
        ([replace(quota_made("budget", 3.0, 0.0, 9), is_undone=True)], []),
    ],
    ids=[
        "ours", "it had no limit", "another rule left it so", "another rule set it so anew", "never ours",
        "no record of before", "taken back",
    ],
)  # fmt: skip
def test_only_a_value_that_is_still_ours_is_given_back(recent: list[Made], back: list[float | None]) -> None:
    state = FleetState(NOW, quotas=(Quota("c1", WORKSPACE, 4.0, borrowing_gpus=0.0, resource_version="1"),))
    rows = [{"workspace": WORKSPACE, "starts_at": NOW - timedelta(days=9), "ends_at": NOW - timedelta(hours=1)}]
    made = plan(state, judge_ended(pl.DataFrame(rows), NOW), ALL_AUTO, NOW, recent=recent)
    assert [move.arguments["borrowing_gpus"] for move in made.moves] == back
    assert all(move.risk == "none: it may only use more" for move in made.moves)


def test_a_queue_that_we_held_admits_again_once_its_budget_is_gone() -> None:
    loop = loop_of(1.2, "hold_queue")
    ours = Queue("east", ObjectRef("LocalQueue", "team", "a"), WORKSPACE, None, "1")
    (move,) = plan(with_queues(loop, [ours]), [money(loop.world, 1.2, "hold_queue")], ALL_AUTO, loop.world.now).moves
    made = (Made(move, loop.world.now),)
    for stop, count in (("Hold", 1), ("HoldAndDrain", 0), (None, 0)):
        state = with_queues(loop, [replace(ours, stop_policy=stop)])
        back = plan(state, no_budget(loop.world), ALL_AUTO, loop.world.now, recent=made)
        assert [each.arguments for each in back.moves] == [{"stop_policy": None}] * count


def test_a_workspace_that_is_protected_since_is_given_back_what_was_stopped() -> None:
    loop = loop_of(1.2)
    before = quota_of(loop)
    loop.turns(2)
    loop.policy = replace(ALL_AUTO, spending=SpendingPolicy(protected_workspaces=(WORKSPACE,)))
    assert kinds(loop.turns(3)) == ["set_quota"]
    assert quota_of(loop).borrowing_gpus == before.borrowing_gpus
