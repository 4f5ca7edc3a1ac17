"""The rule that empties nodes for larger blocks: only what may move, one node at a time, and back out of it."""

from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from actions.plan import plan
from actions.policy import ActionPolicy, Modes
from actions.rule_policies import DefragmentPolicy
from fleet.move import Move, MoveKind
from fleet.state import Node, ObjectRef, Pod
from fleet.verdict import Severity, Verdict
from simulator.faults_spec import FaultSpec
from simulator.observe import observe
from simulator.presets import default_spec
from simulator.world import World
from tests.actions.closed_loop import ALL_AUTO, Loop, kinds

POLICY = replace(ALL_AUTO, defragment=DefragmentPolicy(cooldown_h=6.0, limit_h=1.0))
STEPS = ["cordon_node", "drain_node", "cancel_drain", "uncordon_node"]


def loop_of(policy: ActionPolicy = POLICY, *, protected: float = 0.0) -> Loop:
    plain = default_spec(48, 1.0)
    spaces = tuple(replace(each, protected_share=protected) for each in plain.workspaces)
    loop = Loop(replace(plain, workspaces=spaces, faults=FaultSpec(rate_factor=0.0)), lambda _world: [], policy)
    loop.begin(timedelta(hours=2))
    return loop


def service_pod(loop: Loop) -> Pod:
    return next(pod for pod in loop.state.pods if pod.workload.kind == "Deployment" and not pod.slice_uuids)


def wanting(pod: Pod, **changes: Any) -> Any:
    def judge(world: World) -> list[Verdict]:
        cluster = next(node.cluster for node in observe(world).nodes if node.name == pod.node)
        told = {"size": 8, "gpus": len(pod.gpu_uuids), "pods": [{"pod": pod.name, "pod_uid": pod.uid}]}
        plain = Verdict(
            made_at=world.now, topic="packing", subject_kind="node", subject=pod.node, state="fragmented",
            severity=Severity.INFO, rule="block_to_free", action="defragment", cluster=cluster,
            evidence=MappingProxyType(told),
        )  # fmt: skip
        return [replace(plain, **changes)]

    return judge


def node_of(loop: Loop, pod: Pod) -> Node:
    return next(node for node in loop.state.nodes if node.name == pod.node)


@pytest.mark.parametrize("restarts", [False, True], ids=["running on", "restarted each turn"])
def test_the_chosen_pods_leave_and_the_others_stay(
    restarts: bool,  # noqa: FBT001 - a table's column
) -> None:
    loop = loop_of()
    pod = service_pod(loop)
    others = {
        each.uid for each in loop.state.pods if each.node == pod.node and not set(each.gpu_uuids) & set(pod.gpu_uuids)
    }
    loop.judge = wanting(pod)
    made = loop.turns(3, restarts=restarts)
    assert kinds(made) == STEPS
    left = {each.uid for each in loop.state.pods if each.node == pod.node}
    assert pod.uid not in left
    assert others <= left
    assert (node_of(loop, pod).is_schedulable, node_of(loop, pod).drain) == (True, None)
    assert loop.turns(12, restarts=restarts) == [[]] * 12


def test_it_only_observes_unless_somebody_says_otherwise() -> None:
    loop = loop_of(replace(POLICY, modes=Modes()))
    loop.judge = wanting(service_pod(loop))
    assert kinds(loop.turns(2)) == []
    assert any("only observes; it would cordon_node" in each for each in loop.held())


def test_a_cancelled_drain_gives_the_node_back() -> None:
    loop = loop_of()
    pod = service_pod(loop)
    loop.judge = wanting(pod)
    loop.turns(1)
    node = node_of(loop, pod)
    theirs = Move(
        "theirs", MoveKind.UNCORDON_NODE, node.cluster, ObjectRef("Node", "", node.name), "by hand", "by hand"
    )
    loop.meddle(theirs)
    assert kinds(loop.turns(6)) == []
    assert pod.uid in {each.uid for each in loop.state.pods}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evidence": {"size": 8, "gpus": 1, "pods": []}}, "not all there any more"),
        ({"evidence": {"size": 8, "gpus": 1, "pods": [{"pod_uid": "gone"}]}}, "not all there any more"),
        ({"state": "unknown"}, "what is not known never leads to a move"),
        ({"subject": "nowhere"}, "does not show this node"),
    ],
    ids=["nobody", "gone", "unknown", "no node"],
)
def test_a_verdict_that_is_no_ground_leads_to_nothing(changes: dict[str, Any], words: str) -> None:
    loop = loop_of()
    loop.judge = wanting(service_pod(loop), **changes)
    assert kinds(loop.turns(1)) == []
    assert any(words in each for each in loop.held())


def test_what_is_protected_or_loses_its_memory_never_moves() -> None:
    loop = loop_of(protected=1.0)
    loop.judge = wanting(service_pod(loop))
    assert kinds(loop.turns(1)) == []
    assert any("is protected" in each for each in loop.held())
    other = loop_of()
    job = next(pod for pod in other.state.pods if pod.workload.kind == "Job")
    other.judge = wanting(job)
    assert kinds(other.turns(1)) == []
    assert any("does not come back elsewhere" in each for each in other.held())


def test_more_gpus_than_may_move_stay() -> None:
    loop = loop_of(replace(POLICY, defragment=replace(POLICY.defragment, max_gpus=0.0)))
    pod = service_pod(loop)
    made = plan(loop.state, wanting(pod)(loop.world), loop.policy, loop.world.now)
    assert made.moves == ()
    assert "at most 0 may" in made.held_back[0].reason
