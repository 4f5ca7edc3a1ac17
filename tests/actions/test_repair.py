"""The rule that repairs: its steps in a closed loop over the simulated fleet, and what it leaves alone."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from actions.kinds import rule_of
from actions.plan import plan
from actions.policy import ActionPolicy
from actions.rule_policies import RepairPolicy
from fleet.move import Move, MoveKind
from fleet.state import Node, ObjectRef
from fleet.verdict import Severity, Verdict
from simulator.faults_spec import FaultSpec, Injection
from simulator.presets import default_spec
from simulator.spec import FleetSpec
from simulator.truth import faults
from simulator.world import World
from tests.actions.closed_loop import ALL_AUTO as FREE
from tests.actions.closed_loop import Loop, kinds

HOUR = timedelta(hours=1)
POLICY = replace(FREE, repair=RepairPolicy(grace_h=0.5, gang_grace_h=0.5, verify_h=0.5))


def spec_of(*injections: Injection, protected: float = 0.0, gpus: int = 48) -> FleetSpec:
    plain = default_spec(gpus, 1.0)
    spaces = tuple(replace(each, protected_share=protected) for each in plain.workspaces)
    return replace(plain, workspaces=spaces, faults=FaultSpec(rate_factor=0.0, injections=injections))


def judged(world: World) -> list[Verdict]:
    """Tell the truth of every GPU, as health verdicts would."""
    open_ones = faults(world).filter(pl.col("ends_at").is_null(), pl.col("gpu_uuid").is_not_null())
    broken = {row["gpu_uuid"]: row for row in open_ones.iter_rows(named=True)}
    return [health(world, gpu, broken.get(uuid)) for gpu, uuid in enumerate(world.fabric.gpu_uuid)]


def health(world: World, gpu: int, fault: dict[str, object] | None) -> Verdict:
    node = int(world.fabric.gpu_node[gpu])
    action = "none" if fault is None else str(fault["expected_action"])
    return Verdict(
        made_at=world.now,
        topic="health",
        subject_kind="gpu",
        subject=world.fabric.gpu_uuid[gpu],
        state="healthy" if fault is None else "failed" if action == "reboot_node" else "failing",
        severity=Severity.OK if fault is None else Severity.CRITICAL,
        rule="no_finding" if fault is None else str(fault["kind"]),
        action=action,
        cluster=world.spec.clusters[int(world.fabric.node_cluster[node])].name,
        until=world.now,
        confidence=1.0,
    )


def loop_of(*injections: Injection, policy: ActionPolicy = POLICY, protected: float = 0.0) -> Loop:
    made = Loop(spec_of(*injections, protected=protected), judged, policy)
    made.begin(HOUR)
    return made


def first_node(loop: Loop) -> Node:
    name = loop.world.fabric.node_name[0]
    return next(node for node in loop.state.nodes if node.name == name)


def by_hand(kind: MoveKind, node: Node) -> Move:
    return Move("theirs", kind, node.cluster, ObjectRef("Node", "", node.name), "by hand", "by hand")


REBOOT = ["cordon_node", "mark_node", "drain_node", "request_repair",
          "withdraw_repair", "cancel_drain", "uncordon_node", "unmark_node"]  # fmt: skip
RESET = ["fence_gpu", "mark_node", "drain_node", "request_repair",
         "withdraw_repair", "cancel_drain", "unfence_gpu", "unmark_node"]  # fmt: skip


@pytest.mark.parametrize("restarts", [False, True], ids=["running on", "restarted each turn"])
@pytest.mark.parametrize(("fault", "steps"), [("xid_79", REBOOT), ("xid_48", RESET)])
def test_what_breaks_is_repaired_and_given_back_and_then_nothing_more_is_done(
    fault: str,
    steps: Sequence[str],
    restarts: bool,  # noqa: FBT001 - a table's column
) -> None:
    loop = loop_of(Injection(fault, 0.5, 0, 400.0))
    made = loop.turns(24, restarts=restarts)
    assert kinds(made) == steps
    assert made[-6:] == [[]] * 6
    node = first_node(loop)
    assert node.is_schedulable
    assert (node.drain, node.repair, node.mark) == (None, None, None)
    assert not any(gpu.is_fenced for gpu in loop.state.gpus)


def test_each_step_names_the_cause_and_the_first_move() -> None:
    loop = loop_of(Injection("xid_79", 0.5, 0, 400.0))
    made = [move for turn in loop.turns(16) for move in turn]
    first = made[0]
    assert {move.cause for move in made} == {"xid_79"}
    assert {move.evidence["first_move"] for move in made[1:]} == {first.move_id}
    assert {rule_of(move) for move in made[1:]} == {"repair"}


def test_a_reset_drains_only_the_pods_of_the_bad_gpu() -> None:
    loop = loop_of(Injection("xid_48", 0.5, 0, 400.0))
    drains = [move for turn in loop.turns(16) for move in turn if move.kind is MoveKind.DRAIN_NODE]
    assert [move.arguments["scope"] for move in drains] == ["gpus"]
    assert [move.gpu_uuids for move in drains] == [(loop.world.fabric.gpu_uuid[0],)]


def until(loop: Loop, kind: MoveKind) -> None:
    for _ in range(30):
        if kind in {move.kind for move in loop.turn()}:
            return
    message = f"no {kind} was made: {loop.held()}"
    raise AssertionError(message)


@pytest.mark.parametrize("at", [MoveKind.DRAIN_NODE, MoveKind.REQUEST_REPAIR])
def test_a_cancelled_drain_never_reboots(at: MoveKind) -> None:
    loop = loop_of(Injection("xid_79", 0.5, 0, 400.0))
    until(loop, at)
    loop.meddle(by_hand(MoveKind.CANCEL_DRAIN, first_node(loop)))
    made = loop.turns(30, restarts=True)
    assert "boot" not in {event.kind for event in loop.world.events}
    assert set(kinds(made)) <= {"withdraw_repair"}
    assert first_node(loop).repair is None
    assert any("cancelled by somebody" in each for each in loop.held())


def test_a_node_that_somebody_took_back_into_use_is_not_rebooted() -> None:
    loop = loop_of(Injection("xid_79", 0.5, 0, 400.0))
    until(loop, MoveKind.REQUEST_REPAIR)
    loop.policy = replace(POLICY, modes=replace(FREE.modes, fence="off"))
    loop.meddle(by_hand(MoveKind.UNCORDON_NODE, first_node(loop)))
    made = loop.turns(6)
    assert kinds(made) == ["withdraw_repair", "cancel_drain", "unmark_node"]
    assert "boot" not in {event.kind for event in loop.world.events}


def test_another_s_cordon_is_neither_repaired_nor_lifted() -> None:
    loop = loop_of(Injection("xid_79", 0.5, 0, 400.0))
    theirs = replace(by_hand(MoveKind.CORDON_NODE, first_node(loop)), arguments={"cordoned_by": "alice"})
    loop.meddle(theirs)
    assert kinds(loop.turns(12)) == []
    assert first_node(loop).cordoned_by == "alice"


def test_what_the_repair_does_not_mend_is_given_up_with_a_reason_and_stays_out_of_use() -> None:
    def stubborn(world: World) -> list[Verdict]:
        return [replace(each, action="reboot_node") if each.state == "failing" else each for each in judged(world)]

    loop = Loop(spec_of(Injection("remap_failed", 0.5, 0, 400.0)), stubborn, POLICY, timedelta(minutes=30))
    loop.begin(HOUR)
    made = loop.turns(40)
    assert kinds(made).count("request_repair") == 1
    assert kinds(made)[-1] == "withdraw_repair"
    assert any("did not help; a person has to look" in each for each in loop.held())
    assert not first_node(loop).is_schedulable


@pytest.mark.parametrize(
    ("action", "words"), [("replace_gpu", "needs a person"), ("run_diagnostics", "waits for run_")]
)
def test_the_rungs_beyond_a_reboot_drain_the_gpu_and_leave_it_to_a_person(action: str, words: str) -> None:
    def told(world: World) -> list[Verdict]:
        return [replace(each, action=action) if each.state == "failing" else each for each in judged(world)]

    loop = Loop(spec_of(Injection("remap_failed", 0.5, 0, 400.0)), told, POLICY)
    loop.begin(HOUR)
    loop.turns(9)
    assert first_node(loop).drain == f"gpus {loop.world.fabric.gpu_uuid[0]}"
    assert any(words in each for each in loop.held())


def test_protected_work_is_waited_for_and_never_evicted() -> None:
    calm = loop_of(protected=1.0)
    held = next(
        pod.gpu_uuids[0] for pod in calm.state.pods if pod.workload.kind == "Deployment" and not pod.slice_uuids
    )
    loop = loop_of(Injection("thermal_throttle", 0.9, calm.world.fabric.gpu_uuid.index(held), 400.0), protected=1.0)
    truth = loop.judge
    loop.judge = lambda world: [
        each if each.state == "healthy" else replace(each, action="reset_gpu") for each in truth(world)
    ]
    before = {pod.uid for pod in loop.state.pods if held in pod.gpu_uuids}
    made = loop.turns(8)
    after = {pod.uid for pod in loop.state.pods}
    assert before
    assert before <= after
    assert kinds(made) == ["fence_gpu", "mark_node"]
    assert any("which its owner protects" in each for each in loop.held())


def test_giving_back_passes_while_the_breaker_is_tripped_and_the_budget_is_spent() -> None:
    loop = loop_of(Injection("xid_79", 0.5, 0, 400.0))
    until(loop, MoveKind.REQUEST_REPAIR)
    loop.policy = replace(
        POLICY, budget=replace(FREE.budget, max_gpus_per_hour=0, max_nodes_per_turn=0),
        fence=replace(FREE.fence, breaker_share_of_pool=0.0, breaker_min_gpus=1),
    )  # fmt: skip
    everything = loop.judge

    def tripping(world: World) -> list[Verdict]:
        told = list(everything(world))
        mended = loop.world.fabric.gpus_of_node(0)
        sick = [replace(each, state="failing", severity=Severity.CRITICAL, action="fence") for each in told]
        return [each if place in mended else sick[place] for place, each in enumerate(told)]

    loop.judge = tripping
    assert kinds(loop.turns(8)) == ["withdraw_repair", "cancel_drain", "uncordon_node", "unmark_node"]


def test_a_common_cause_stops_the_repairs() -> None:
    loop = Loop(spec_of(*(Injection("xid_79", 0.5, gpu * 8, 400.0) for gpu in range(3)), gpus=128), judged, POLICY)
    loop.begin(HOUR)
    policy = replace(POLICY, repair=replace(POLICY.repair, breaker_share_of_pool=0.0, breaker_min_gpus=2),
                     fence=replace(FREE.fence, breaker_min_gpus=1000))  # fmt: skip
    loop.policy = policy
    assert set(kinds(loop.turns(6))) == {"cordon_node"}
    assert any("breaker" in each for each in loop.held())


@pytest.mark.parametrize("state", ["unknown", "failing"])
def test_nothing_is_given_back_on_what_is_not_known(state: str) -> None:
    loop = loop_of(Injection("xid_79", 0.5, 0, 400.0))
    until(loop, MoveKind.REQUEST_REPAIR)
    truth = loop.judge
    loop.judge = lambda world: [replace(each, state=state, action="none") for each in truth(world)]
    assert kinds(loop.turns(12)) == []
    loop.judge = lambda _world: []
    assert kinds(loop.turns(12)) == []


def test_a_rule_that_is_off_repairs_nothing() -> None:
    loop = loop_of(Injection("xid_79", 0.5, 0, 400.0), policy=replace(POLICY, modes=replace(FREE.modes, repair="off")))
    assert kinds(loop.turns(8)) == ["cordon_node"]


def test_the_same_look_gives_the_same_plan() -> None:
    loop = loop_of(Injection("xid_79", 0.5, 0, 400.0))
    loop.turns(3)
    told = judged(loop.world)
    plans = [plan(loop.state, each, POLICY, loop.world.now, recent=loop.made) for each in (told, told[::-1])]
    assert plans[0] == plans[1]
