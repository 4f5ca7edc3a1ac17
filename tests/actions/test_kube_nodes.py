"""Moves of nodes against the API server in memory, and against the cluster that KUBECONFIG names."""

import json
from collections.abc import Callable, Mapping

import pytest

from actions.fields import agrees, fields_after
from actions.kube_state import CONDITION, CORDON_CAUSE, CORDONED_BY
from actions.undo import invert
from fleet.errors import MoveRefused, StaleState
from fleet.move import MoveKind, Value
from tests.actions.ground import Ground
from tests.kube.answers import Object
from tests.kube.client import MERGE
from tests.kube.faults import Fault

pytestmark = pytest.mark.enable_socket

TAINT = "gpusteward.dev/failing=xid-79:NoSchedule"


def _nothing(_: Ground, __: str) -> None:
    return


def _cordoned(ground: Ground, node: str) -> None:
    ground.cluster.make(ground.move(MoveKind.CORDON_NODE, node, {"cause": "xid_79"}))


def _drained(ground: Ground, node: str) -> None:
    ground.cluster.make(ground.move(MoveKind.DRAIN_NODE, node, {"scope": "node"}))


def _asked(ground: Ground, node: str) -> None:
    _drained(ground, node)
    ground.cluster.make(ground.move(MoveKind.REQUEST_REPAIR, node, {"repair": "reboot_node"}))


def _marked(ground: Ground, node: str) -> None:
    ground.cluster.make(ground.move(MoveKind.MARK_NODE, node, {"mark": "Failing"}))


def _tainted(ground: Ground, node: str) -> None:
    ground.cluster.make(ground.move(MoveKind.TAINT_NODE, node, {"taint": TAINT}))


CASES: list[tuple[MoveKind, Mapping[str, Value], Callable[[Ground, str], None]]] = [
    (MoveKind.CORDON_NODE, {"cause": "xid_79"}, _nothing),
    (MoveKind.UNCORDON_NODE, {}, _cordoned),
    (MoveKind.TAINT_NODE, {"taint": TAINT}, _nothing),
    (MoveKind.UNTAINT_NODE, {"taint": TAINT}, _tainted),
    (MoveKind.MARK_NODE, {"mark": "Failing"}, _nothing),
    (MoveKind.UNMARK_NODE, {}, _marked),
    (MoveKind.DRAIN_NODE, {"scope": "node"}, _nothing),
    (MoveKind.CANCEL_DRAIN, {}, _drained),
    (MoveKind.REQUEST_REPAIR, {"repair": "reboot_node"}, _drained),
    (MoveKind.WITHDRAW_REPAIR, {}, _asked),
    (MoveKind.SET_MIG_LAYOUT, {"mig_layout": "all-1g.10gb"}, _cordoned),
    (MoveKind.SET_SHARING, {"sharing": "four"}, _cordoned),
]


def meant(found: Object) -> Object:
    """Return what of a node a move may change, without what the server writes."""
    meta, spec = found["metadata"], found.get("spec") or {}
    taints = [each for each in spec.get("taints") or () if not each["key"].startswith("node.kubernetes.io/")]
    told = (meta.get("annotations") or {}).items()
    notes = {name: value for name, value in told if not name.startswith("node.alpha.kubernetes.io/")}
    conditions = found["status"].get("conditions") or ()
    ours = [(each["status"], each["reason"]) for each in conditions if each["type"] == CONDITION]
    return {
        "labels": meta.get("labels") or {}, "annotations": notes, "taints": taints,
        "unschedulable": spec.get("unschedulable", False), "mark": ours,
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "arguments", "before"), CASES, ids=[kind.value for kind, *_ in CASES])
def test_a_move_tells_what_was_before_leaves_what_it_says_and_its_undo_restores_it_exactly(
    ground: Ground, kind: MoveKind, arguments: Mapping[str, Value], before: Callable[[Ground, str], None]
) -> None:
    node = ground.node()
    before(ground, node)
    was = meant(ground.found(node))
    move = ground.move(kind, node, arguments)
    prior = ground.prior(move)
    ground.cluster.rehearse(move)
    assert meant(ground.found(node)) == was, "a rehearsal changes nothing"
    made = ground.cluster.make(move)
    assert {name: json.loads(made)[name] for name in prior} == prior
    assert meant(ground.found(node)) != was
    assert agrees(ground.prior(move), fields_after(move))
    ground.cluster.make(invert(move, made))
    assert meant(ground.found(node)) == was


@pytest.mark.parametrize(("kind", "arguments", "before"), CASES, ids=[kind.value for kind, *_ in CASES])
def test_a_node_that_was_changed_since_is_left_as_it_is(
    ground: Ground, kind: MoveKind, arguments: Mapping[str, Value], before: Callable[[Ground, str], None]
) -> None:
    node = ground.node()
    before(ground, node)
    move = ground.move(kind, node, arguments)
    ground.client.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {"nvidia.com/gpu.product": "else"}}})
    was = meant(ground.found(node))
    for attempt in (ground.cluster.rehearse, ground.cluster.make):
        with pytest.raises(StaleState):
            attempt(move)
    assert meant(ground.found(node)) == was


def test_a_heartbeat_does_not_make_a_plan_stale(ground: Ground) -> None:
    node = ground.node()
    move = ground.move(MoveKind.CORDON_NODE, node)
    told = [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2031-01-01T00:00:00Z"}]
    ground.client.patch(f"/api/v1/nodes/{node}/status", {"status": {"conditions": told}}, MERGE)
    ground.cluster.make(move)
    assert ground.seen(node).cordoned_by == "gpu-steward"


def test_a_heartbeat_between_look_and_write_is_no_reason_to_give_up(ground: Ground) -> None:
    node = ground.node()
    move = ground.move(MoveKind.CORDON_NODE, node)
    faults = ground.memory().faults
    faults.add(Fault("PATCH", status=409))
    ground.cluster.make(move)
    assert ground.seen(node).cordoned_by == "gpu-steward"
    back = ground.move(MoveKind.UNCORDON_NODE, node, resource_version="")
    faults.add(Fault("PATCH", status=409, times=2))
    ground.cluster.rehearse(back)
    faults.add(Fault("PATCH", status=409, times=9))
    with pytest.raises(StaleState):
        ground.cluster.make(back)
    assert not ground.seen(node).is_schedulable


def test_a_node_that_is_gone_is_stale(ground: Ground) -> None:
    node = ground.node()
    move = ground.move(MoveKind.CORDON_NODE, node)
    ground.lose(node)
    with pytest.raises(StaleState):
        ground.cluster.make(move)
    assert all(each.name != node for each in ground.cluster.observe_for(move).nodes)


def test_the_cordon_of_another_is_kept(ground: Ground) -> None:
    node = ground.node()
    ground.client.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}}, MERGE, fieldManager="kubectl")
    seen = ground.seen(node)
    assert (seen.is_schedulable, seen.cordoned_by) == (False, None)
    for kind in (MoveKind.CORDON_NODE, MoveKind.UNCORDON_NODE):
        with pytest.raises(MoveRefused, match="somebody else"):
            ground.cluster.make(ground.move(kind, node))
    assert ground.found(node)["spec"]["unschedulable"] is True


def test_our_note_alone_does_not_make_a_cordon_ours(ground: Ground) -> None:
    node = ground.node()
    _cordoned(ground, node)
    path = f"/api/v1/nodes/{node}"
    ground.client.patch(path, {"spec": {"unschedulable": None}}, MERGE, fieldManager="kubectl")
    assert ground.seen(node).cordoned_by is None
    ground.client.patch(path, {"spec": {"unschedulable": True}}, MERGE, fieldManager="kubectl")
    told = ground.found(node)["metadata"]["annotations"]
    assert told[CORDONED_BY] == "gpu-steward"
    assert (ground.seen(node).cordoned_by, ground.seen(node).cordon_cause) == (None, None)
    with pytest.raises(MoveRefused, match="not by us"):
        ground.cluster.make(ground.move(MoveKind.UNCORDON_NODE, node))


def test_a_cordon_says_what_it_is_for(ground: Ground) -> None:
    node = ground.node()
    ground.cluster.make(ground.move(MoveKind.CORDON_NODE, node, {"cause": "reslice"}))
    assert ground.found(node)["metadata"]["annotations"][CORDON_CAUSE] == "reslice"
    assert ground.seen(node).cordon_cause == "reslice"


def test_taints_of_others_stay_and_are_not_touched(ground: Ground) -> None:
    node = ground.node()
    theirs = {"key": "team", "value": "a", "effect": "NoExecute"}
    ground.client.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": [theirs]}}, MERGE)
    _tainted(ground, node)
    assert {each["key"] for each in meant(ground.found(node))["taints"]} == {"team", "gpusteward.dev/failing"}
    for text in ("team=a:NoExecute", "team"):
        with pytest.raises(MoveRefused, match="not touched"):
            ground.cluster.make(ground.move(MoveKind.UNTAINT_NODE, node, {"taint": text}))
    ground.cluster.make(ground.move(MoveKind.UNTAINT_NODE, node, {"taint": TAINT}))
    assert meant(ground.found(node))["taints"] == [theirs]


def test_a_taint_with_an_effect_that_there_is_not_is_refused(ground: Ground) -> None:
    node = ground.node()
    with pytest.raises(MoveRefused, match="Sometimes"):
        ground.cluster.make(ground.move(MoveKind.TAINT_NODE, node, {"taint": "gpusteward.dev/a=b:Sometimes"}))


def test_a_mark_stands_beside_the_kubelets_conditions_and_is_told_as_an_event(ground: Ground) -> None:
    node = ground.node()
    _marked(ground, node)
    conditions = {each["type"]: each for each in ground.found(node)["status"]["conditions"]}
    assert conditions["Ready"]["status"] == "True"
    assert (conditions[CONDITION]["status"], conditions[CONDITION]["reason"]) == ("True", "Failing")
    events = ground.client.get("/apis/events.k8s.io/v1/namespaces/default/events")["items"]
    about = [each for each in events if each["regarding"]["name"] == node]  # a cluster's own controllers tell, too
    mine = [each for each in about if each.get("reportingController") == "gpusteward.dev/gpu-steward"]
    assert [(each["reason"], each["type"], each["note"]) for each in mine] == [("Failing", "Warning", "it fails")]
    for each in mine:
        ground.client.delete(f"/apis/events.k8s.io/v1/namespaces/default/events/{each['metadata']['name']}")


def test_a_drain_that_was_cancelled_never_leads_to_a_reboot(ground: Ground) -> None:
    node = ground.node()
    _drained(ground, node)
    move = ground.move(MoveKind.REQUEST_REPAIR, node, {"repair": "reboot_node"}, resource_version="")
    ground.client.patch(f"/api/v1/nodes/{node}", {"metadata": {"annotations": {"gpusteward.dev/drain": None}}})
    with pytest.raises(MoveRefused, match="cancelled"):
        ground.cluster.make(move)
    assert ground.seen(node).repair is None


@pytest.mark.parametrize("kind", [MoveKind.SET_MIG_LAYOUT, MoveKind.SET_SHARING])
def test_a_node_in_use_is_not_laid_out_anew(ground: Ground, kind: MoveKind) -> None:
    node = ground.node()
    with pytest.raises(MoveRefused, match="not cordoned"):
        ground.cluster.make(ground.move(kind, node, {"mig_layout": "all-1g.10gb", "sharing": "four"}))


def test_a_layout_that_stood_before_comes_back_by_its_undo(ground: Ground) -> None:
    node = ground.node(labels={"nvidia.com/mig.config": "all-disabled", "nvidia.com/mig.config.state": "success"})
    _cordoned(ground, node)
    move = ground.move(MoveKind.SET_MIG_LAYOUT, node, {"mig_layout": "all-1g.10gb"})
    made = ground.cluster.make(move)
    assert (ground.seen(node).mig_layout, ground.seen(node).mig_state) == ("all-1g.10gb", "success")
    ground.cluster.make(invert(move, made))
    assert ground.seen(node).mig_layout == "all-disabled"
