"""Taking back what gave takes again: it evicts, reboots, stops, deletes. Who opted out is left alone even then."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.budget import Made
from actions.guard import guard
from actions.policy import ActionPolicy
from actions.protect_policy import ProtectPolicy
from actions.undo import invert
from fleet.errors import MoveRefused
from fleet.move import Move, MoveKind, Value
from fleet.state import FleetState, Node, ObjectRef, OwnedObject, Pod, Quota
from tests.actions.fakes import FREE, fleet, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
NODE = ObjectRef("Node", "", "n0")
OURS = {"is_schedulable": False, "cordoned_by": "gpu-steward"}
SPACE = ObjectRef("Namespace", "", "lab")


def state(*, pods: bool = True, is_protected: bool = False, **node: object) -> FleetState:
    """Build a fleet whose node n0 reads as told and runs a pod."""
    held = workload("train", ["n0-0"], LONG_AGO, is_protected=is_protected)
    made = fleet(NOW, workloads=[held])
    first = replace(made.nodes[0], **{**OURS, **node})  # type: ignore[arg-type]  # fields
    kept = tuple(replace(each, started_at=LONG_AGO) for each in made.pods) if pods else ()
    return replace(made, nodes=(first, *made.nodes[1:]), pods=kept)


def undo_of(kind: MoveKind, prior: str, target: ObjectRef = NODE, **arguments: Value) -> Move:
    move = Move(
        "m", kind, "c1", target, "xid_79", "why", ("n0-0",), 1.0, arguments=arguments, workspace="lab",
    )  # fmt: skip
    return invert(move, prior)


REFUSED: dict[str, tuple[Move, FleetState, ActionPolicy, str]] = {
    "a drain again, of a protected pod": (
        undo_of(MoveKind.CANCEL_DRAIN, '{"drain": "node"}'), state(is_protected=True, drain=None), FREE, "is protected",
    ),
    "a drain again, of a node that is open": (
        undo_of(MoveKind.CANCEL_DRAIN, '{"drain": "node"}'),
        state(drain=None, is_schedulable=True, cordoned_by=None), FREE, "a drain would not last",
    ),
    "a drain again, of a protected node": (
        undo_of(MoveKind.CANCEL_DRAIN, '{"drain": "node"}'), state(drain=None),
        replace(FREE, protect=ProtectPolicy(nodes=("n0",))), "node n0 is protected",
    ),
    "a reboot again, while pods run": (
        undo_of(MoveKind.WITHDRAW_REPAIR, '{"repair": "reboot_node"}'), state(drain="node", repair=None), FREE,
        "pods still hold its GPUs",
    ),
    "a reboot again, of what nobody drained": (
        undo_of(MoveKind.WITHDRAW_REPAIR, '{"repair": "reboot_node"}'), state(pods=False, drain=None), FREE,
        "its drain was cancelled",
    ),
    "a layout of before, under running pods": (
        undo_of(MoveKind.SET_MIG_LAYOUT, '{"mig_layout": "all-1g.10gb"}', mig_layout="all-3g.40gb"),
        state(mig_layout="all-3g.40gb"), FREE, "pods still hold its GPUs",
    ),
    "a stop again, of who opted out since": (
        undo_of(
            MoveKind.RESUME_WORKLOAD, '{"is_suspended": true, "suspended_by": "gpu-steward", "replicas": 2}',
            ObjectRef("Job", "team", "train"), replicas=2,
        ),
        state(is_protected=True), FREE, "is protected by its owner",
    ),
    "fewer replicas again, of who opted out since": (
        undo_of(MoveKind.SCALE_WORKLOAD, '{"replicas": 1}', ObjectRef("Job", "team", "train"), replicas=2),
        state(is_protected=True), FREE, "is protected by its owner",
    ),
    "a cordon again, of a protected node": (
        undo_of(
            MoveKind.UNCORDON_NODE,
            '{"is_schedulable": false, "cordoned_by": "gpu-steward", "cordon_cause": "fence: xid_79"}',
        ),
        state(is_schedulable=True, cordoned_by=None), replace(FREE, protect=ProtectPolicy(nodes=("n0",))),
        "node n0 is protected",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("move", "seen", "policy", "words"), REFUSED.values(), ids=REFUSED)
def test_an_undo_that_takes_asks_what_any_move_asks(
    move: Move, seen: FleetState, policy: ActionPolicy, words: str
) -> None:
    with pytest.raises(MoveRefused, match=words):
        guard(move, seen, policy, NOW)


PASSES: dict[str, tuple[Move, FleetState]] = {
    "a repair of what was drained and is empty": (
        undo_of(MoveKind.WITHDRAW_REPAIR, '{"repair": "reboot_node"}'), state(pods=False, drain="node"),
    ),
    "the size of before, of who opted out": (
        undo_of(MoveKind.SCALE_WORKLOAD, '{"replicas": 9}', ObjectRef("Job", "team", "train"), replicas=2),
        state(is_protected=True),
    ),
    "an uncordon of a protected node": (
        undo_of(MoveKind.CORDON_NODE, '{"is_schedulable": true, "cordoned_by": null, "cordon_cause": null}'),
        state(is_protected=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("move", "seen"), PASSES.values(), ids=PASSES)
def test_an_undo_that_gives_back_is_kept_from_nobody(move: Move, seen: FleetState) -> None:
    guard(move, seen, replace(FREE, protect=ProtectPolicy(namespaces=("team",), workspaces=("research",))), NOW)


def test_a_drain_that_was_cancelled_goes_on_where_the_node_is_still_ours() -> None:
    guard(undo_of(MoveKind.CANCEL_DRAIN, '{"drain": "node"}'), state(drain=None), FREE, NOW)


def space() -> OwnedObject:
    return OwnedObject("c1", "v1", SPACE, "{}", owner="lab", resource_version="1")


@pytest.mark.parametrize(
    ("changes", "force", "words"),
    [
        ({}, False, "1 workloads with GPUs are in it"),
        ({"is_suspended": True, "suspended_by": "gpu-steward"}, False, "say force"),
        ({"is_protected": True}, True, "is protected by its owner"),
        ({}, True, None),
    ],
    ids=["running", "stopped by us and without pods", "protected, whatever is said", "forced"],
)
def test_a_namespace_is_not_deleted_with_the_workloads_in_it(
    changes: Mapping[str, object], words: str | None, *, force: bool
) -> None:
    held = replace(
        workload("train", ["n0-0"], LONG_AGO), ref=ObjectRef("Job", "lab", "train"), **changes  # type: ignore[arg-type]
    )  # fmt: skip
    seen = FleetState(NOW, workloads=(held,), objects=(space(),))
    arguments: dict[str, Value] = {"api_version": "v1", **({"force": True} if force else {})}
    move = Move("m", MoveKind.DELETE_OBJECT, "c1", SPACE, "manifest", "why", workspace="lab", arguments=arguments)
    if words is None:
        guard(move, seen, FREE, NOW)
        return
    with pytest.raises(MoveRefused, match=words):
        guard(move, seen, FREE, NOW)


def test_a_protected_namespace_is_neither_adopted_nor_deleted_itself() -> None:
    target = ObjectRef("Namespace", "", "kube-system")
    seen = FleetState(NOW, objects=(replace(space(), ref=target),))
    for kind in (MoveKind.DELETE_OBJECT, MoveKind.APPLY_OBJECT):
        told: dict[str, Value] = {"api_version": "v1", "adopt": True, "body": '{"x": 1}'}
        move = Move("m", kind, "c1", target, "manifest", "why", workspace="lab", arguments=told)
        with pytest.raises(MoveRefused, match="namespace kube-system is protected"):
            guard(move, seen, FREE, NOW)


def test_a_quota_that_lies_in_a_protected_namespace_stays() -> None:
    seen = FleetState(NOW, quotas=(Quota("c1", "sys", 4.0, place="ResourceQuota/kube-system/gpus"),))
    told: dict[str, Value] = {"gpus": 1.0, "pool": None, "model": None, "borrowing_gpus": None}
    move = Move(
        "m", MoveKind.SET_QUOTA, "c1", ObjectRef("Quota", "", "sys"), "spare", "why", workspace="sys", arguments=told,
    )  # fmt: skip
    with pytest.raises(MoveRefused, match="namespace kube-system is protected"):
        guard(move, seen, FREE, NOW)


def test_a_drain_asks_the_owner_of_each_pod_as_they_are_now() -> None:
    move = Move("m", MoveKind.DRAIN_NODE, "c1", NODE, "xid_79", "why", arguments={"scope": "node"}, rule="repair")
    guard(move, state(drain=None), FREE, NOW)
    with pytest.raises(MoveRefused, match="is protected"):
        guard(move, state(drain=None, is_protected=True), FREE, NOW)


def test_a_cordon_of_nodes_whose_gpus_nobody_knows_keeps_to_the_share_of_the_pool() -> None:
    nodes = tuple(Node("c1", f"n{number}", pool="p", is_schedulable=number > 1) for number in range(8))
    seen = FleetState(NOW, nodes=nodes)
    policy = replace(FREE, budget=replace(FREE.budget, max_share_of_pool=0.25))
    move = Move("m", MoveKind.CORDON_NODE, "c1", ObjectRef("Node", "", "n5"), "xid_79", "why")
    with pytest.raises(MoveRefused, match="3 of the 8 nodes of pool p in c1, whose GPUs are not known"):
        guard(move, seen, policy, NOW)
    guard(move, replace(seen, nodes=(replace(nodes[0], is_schedulable=True), *nodes[1:])), policy, NOW)


def test_pods_of_these_tests_run_where_they_should() -> None:
    (pod,) = state().pods
    assert isinstance(pod, Pod)
    assert (pod.node, pod.gpu_uuids) == ("n0", ("n0-0",))
    assert Made(undo_of(MoveKind.CANCEL_DRAIN, '{"drain": "node"}'), NOW).prior is None
