"""A drain goes on over turns for every rule that drains: asked again, ended when done, backed out when it can't."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.apply import apply
from actions.approval import answers_of
from actions.budget import Made
from actions.emptying import carries_on, is_carried_on
from actions.policy import ActionPolicy, Modes
from actions.rule_policies import DefragmentPolicy, RepairPolicy, ReslicePolicy
from fleet.clock import FixedClock
from fleet.move import Move, MoveKind, Plan, Stage
from fleet.state import Node, ObjectRef
from simulator.faults_spec import FaultSpec, Injection
from simulator.presets import default_spec
from simulator.spec import FleetSpec
from simulator.world import World
from tests.actions import test_defragment, test_repair, test_reslice
from tests.actions.closed_loop import ALL_AUTO, Loop, kinds
from tests.actions.fakes import agreed

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
POLICY = replace(
    ALL_AUTO,
    repair=RepairPolicy(grace_h=0.0, gang_grace_h=0.0, drain_limit_h=2.0),
    reslice=ReslicePolicy(drain_limit_h=2.0, cooldown_h=24.0),
    defragment=DefragmentPolicy(limit_h=2.0),
)


def spec_of(most: int | None, load: float, *faults: Injection) -> FleetSpec:
    """Return a fleet that only serves, each service with a disruption budget of `most`; little load leaves room."""
    plain = default_spec(48 if load > 1 else 160, 1.0)
    spaces = tuple(
        replace(each, protected_share=0.0, training=0.0, batch=0.0, notebook=0.0, serving=1.0, max_unavailable=most,
                load=load)
        for each in plain.workspaces
    )  # fmt: skip
    return replace(plain, workspaces=spaces, faults=FaultSpec(rate_factor=0.0, injections=faults))


def loop_for(rule: str, most: int | None, load: float = 1.05) -> tuple[Loop, str]:
    """Return a loop in which a rule has a node to empty, and that node's name."""
    faults = (Injection("xid_79", 0.5, 0, 400.0),) if rule == "repair" else ()
    loop = Loop(spec_of(most, load, *faults), test_repair.judged, POLICY)
    loop.begin(timedelta(hours=2))
    if rule == "repair":
        return loop, loop.world.fabric.node_name[0]
    if rule == "reslice":
        loop.judge = test_reslice.always("all-3g.40gb")
        return loop, test_reslice.mig_node(loop).name
    pod = test_defragment.service_pod(loop)
    loop.judge = test_defragment.wanting(pod)
    return loop, pod.node


def node_of(loop: Loop, name: str) -> Node:
    return next(node for node in loop.state.nodes if node.name == name)


def until_drained(loop: Loop) -> Move:
    for _ in range(12):
        found = [move for move in loop.turn() if move.kind is MoveKind.DRAIN_NODE]
        if found:
            return found[0]
    message = f"nothing was drained: {loop.held()}"
    raise AssertionError(message)


def lift_budgets(world: World) -> None:
    world.spec = replace(
        world.spec, workspaces=tuple(replace(each, max_unavailable=None) for each in world.spec.workspaces)
    )


RULES = ("repair", "reslice", "defragment")
NEXT = {"repair": "request_repair", "reslice": "set_mig_layout", "defragment": "uncordon_node"}


@pytest.mark.parametrize("rule", RULES)
def test_pods_that_their_budget_holds_back_are_asked_again_until_they_leave(rule: str) -> None:
    loop, name = loop_for(rule, 0)
    first = until_drained(loop)
    held = {pod.uid for pod in loop.state.pods if pod.node == name}
    assert held
    again = [move for made in loop.turns(6) for move in made]
    assert {move.kind for move in again} == {MoveKind.DRAIN_NODE}
    assert len(again) == 3, "every quarter of an hour, in turns of ten minutes"
    assert len({move.arguments["since"] for move in again}) == 1
    assert {move.rule or "repair" for move in again} == {rule}
    assert held <= {pod.uid for pod in loop.state.pods if pod.node == name}
    lift_budgets(loop.world)
    made = loop.turns(4)
    assert NEXT[rule] in kinds(made)
    assert {move.arguments["scope"] for move in (first, *again)} == {first.arguments["scope"]}


@pytest.mark.parametrize("rule", ["repair", "defragment"])
def test_a_service_with_room_for_one_missing_replica_is_moved_replica_by_replica(rule: str) -> None:
    loop, _ = loop_for(rule, 1, load=0.4)
    until_drained(loop)
    made = loop.turns(11)
    assert NEXT[rule] in kinds(made)


@pytest.mark.parametrize("rule", ["reslice", "defragment"])
def test_a_node_whose_pods_never_leave_is_given_back_as_it_was(rule: str) -> None:
    loop, name = loop_for(rule, 0)
    before = node_of(loop, name)
    until_drained(loop)
    made = loop.turns(15)
    assert kinds(made)[-2:] == ["cancel_drain", "uncordon_node"]
    after = node_of(loop, name)
    assert (after.is_schedulable, after.drain, after.mig_layout, after.slots) == (
        True, None, before.mig_layout, before.slots,
    )  # fmt: skip
    assert kinds(loop.turns(6)) == [], "and it is left alone after that"


@pytest.mark.parametrize("rule", ["reslice", "defragment"])
def test_a_drain_whose_record_was_lost_is_begun_anew_and_still_ends(rule: str) -> None:
    loop, name = loop_for(rule, 0)
    first = until_drained(loop)
    loop.moves.clear()
    loop.outcomes.clear()
    (again,) = loop.turn()
    assert (again.kind, again.arguments) == (first.kind, {"scope": first.arguments["scope"]})
    made = kinds(loop.turns(15))
    assert made[-2:] == ["cancel_drain", "uncordon_node"]
    assert node_of(loop, name).is_schedulable


def test_a_node_that_fails_is_kept_out_of_use_though_its_pods_never_leave() -> None:
    loop, name = loop_for("repair", 0)
    until_drained(loop)
    loop.turns(15)
    assert not node_of(loop, name).is_schedulable
    assert any("gave up: drained since" in each for each in loop.held())
    assert kinds(loop.turns(4)) == []


def move_of(minutes: float, uuids: tuple[str, ...] = (), **changes: object) -> Move:
    scope = "gpus" if uuids else "node"
    plain = Move(
        f"m{minutes}", MoveKind.DRAIN_NODE, "c1", ObjectRef("Node", "", "n0"), "c", "r", node="n0", gpu_uuids=uuids,
        arguments={"scope": scope}, rule="reslice",
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type] # whatever a test changes


def again_of(move: Move) -> Move:
    return replace(move, move_id="again", arguments={**move.arguments, "since": NOW.isoformat()})


_FIRST = move_of(60)
_PART = move_of(60, ("a", "b"))


@pytest.mark.parametrize(
    ("recent", "move", "is_so"),
    [
        ([Made(_FIRST, NOW)], again_of(_FIRST), True),
        ([Made(_FIRST, NOW)], _FIRST, False),
        ([], again_of(_FIRST), False),
        ([Made(_FIRST, NOW, is_undone=True)], again_of(_FIRST), False),
        ([Made(_FIRST, NOW, is_certain=False)], again_of(_FIRST), False),
        ([Made(replace(_FIRST, rule="repair"), NOW)], again_of(_FIRST), False),
        ([Made(replace(_FIRST, target=ObjectRef("Node", "", "n1")), NOW)], again_of(_FIRST), False),
        (
            [Made(_FIRST, NOW), Made(replace(_FIRST, kind=MoveKind.CANCEL_DRAIN), NOW + timedelta(minutes=1))],
            again_of(_FIRST),
            False,
        ),
        ([Made(_PART, NOW)], again_of(move_of(1, ("a",))), True),
        ([Made(_PART, NOW)], again_of(move_of(1, ("a", "c"))), False),
        ([Made(_PART, NOW)], again_of(_FIRST), False),
        ([Made(_FIRST, NOW)], again_of(_PART), True),
    ],
    ids=[
        "it stands", "a first one", "no record", "taken back", "no answer", "another rule", "another node", "cancelled",
        "fewer GPUs", "further GPUs", "all of it after a part", "a part after all of it",
    ],
)  # fmt: skip
def test_what_goes_on_is_told_by_the_record(recent: list[Made], move: Move, *, is_so: bool) -> None:
    assert carries_on(move, recent) == is_so


def in_mode(mode: str) -> ActionPolicy:
    return replace(POLICY, modes=Modes(**dict.fromkeys(RULES, mode)))


@pytest.mark.parametrize("rule", ["reslice", "defragment"])
def test_a_drain_that_was_approved_goes_on_without_another_approval(rule: str) -> None:
    loop, _ = loop_for(rule, 0)
    first = until_drained(loop)
    loop.policy = in_mode("propose")
    again = [move for made in loop.turns(3) for move in made]
    assert again
    assert all(is_carried_on(move) for move in again)
    assert not answers_of([], loop.made).is_needed(again[0], loop.plans[-1], loop.policy)
    assert answers_of([], loop.made).is_needed(first, loop.plans[-1], loop.policy)


def test_going_on_with_a_drain_that_does_not_stand_is_refused_in_every_mode() -> None:
    loop, _ = loop_for("reslice", 0)
    first = until_drained(loop)
    forged = again_of(replace(first, resource_version=""))
    for mode, is_approved in (("propose", False), ("auto", True)):
        made = Plan("p", loop.world.now, "", (forged,))
        outcomes = apply(
            made, loop.cluster, in_mode(mode), FixedClock(loop.world.now), lambda _outcome: None, actor="test",
            kill_switch=lambda: False, is_dry_run=False, approvals=agreed(made, made.made_at) if is_approved else (),
        )  # fmt: skip
        assert [(each.stage, "does not stand by our record" in each.detail) for each in outcomes] == [
            (Stage.REFUSED, True)
        ]


def test_a_chosen_pod_that_may_not_move_any_more_ends_it() -> None:
    loop, name = loop_for("defragment", 0)
    until_drained(loop)
    loop.policy = replace(POLICY, defragment=replace(POLICY.defragment, movable_kinds=("StatefulSet",)))
    assert kinds(loop.turns(1)) == ["cancel_drain", "uncordon_node"]
    assert node_of(loop, name).is_schedulable
