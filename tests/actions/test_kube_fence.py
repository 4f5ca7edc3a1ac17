"""Fencing single GPUs against the API server in memory, and against the cluster that KUBECONFIG names."""

import json
from dataclasses import replace

import pytest

from actions.fence_means import DEVICE_PLUGIN, DEVICE_RULE, NODE_TAINT
from actions.kube_state import CONTRACT
from actions.undo import invert
from fleet.errors import MoveRefused, SourceFailed, StaleState
from fleet.move import Move, MoveKind
from tests.actions.ground import Ground
from tests.kube.answers import Object
from tests.kube.faults import Fault

pytestmark = pytest.mark.enable_socket
RULES = "/apis/resource.k8s.io/v1beta2/devicetaintrules"


def fence(ground: Ground, node: str, place: int = 0) -> Move:
    """Build the fence of a GPU by the means that its cluster tells of it."""
    uuid = ground.uuid(node, place)
    return ground.move(MoveKind.FENCE_GPU, node, {"means": means_of(ground, uuid)}, gpu_uuids=(uuid,), gpus=1.0)


def means_of(ground: Ground, uuid: str) -> str | None:
    return next(gpu.fence_by for gpu in ground.cluster.observe().gpus if gpu.uuid == uuid)


def publish(ground: Ground, node: str, *devices: Object, is_plugin_beside: bool = False) -> None:
    """Let a driver publish devices of a node, as NVIDIA's does in the place of a device plugin."""
    if not is_plugin_beside:
        gone = {"status": {"allocatable": {"nvidia.com/gpu": "0"}, "capacity": {"nvidia.com/gpu": "0"}}}
        ground.client.patch(f"/api/v1/nodes/{node}/status", gone)
    body = {
        "metadata": {"name": f"{node}-gpus"},
        "spec": {
            "driver": "gpu.nvidia.com", "nodeName": node,
            "pool": {"name": node, "resourceSliceCount": 1, "generation": 1},
            "devices": list(devices),
        },
    }  # fmt: skip
    ground.client.create("/apis/resource.k8s.io/v1/resourceslices", body)
    ground.arrange.made.append(f"/apis/resource.k8s.io/v1/resourceslices/{node}-gpus")


def device(name: str, **attributes: str) -> Object:
    return {"name": name, "attributes": {each: {"string": value} for each, value in attributes.items()}}


def rules_of(ground: Ground, uuid: str) -> list[Object]:
    found: list[Object] = ground.client.get(RULES, labelSelector=f"gpusteward.dev/gpu={uuid}")["items"]
    return found


def test_a_published_gpu_is_fenced_by_a_rule_for_that_very_device(ground: Ground) -> None:
    node = ground.node()
    bad, good = ground.uuid(node, 0), ground.uuid(node, 1)
    publish(ground, node, device("gpu-0", uuid=bad, type="gpu"), device("gpu-1", uuid=good, type="gpu"))
    move = fence(ground, node)
    ground.cluster.rehearse(move)
    assert rules_of(ground, bad) == []
    made = ground.cluster.make(move)
    assert json.loads(made) == {"is_fenced": False}
    (rule,) = rules_of(ground, bad)
    assert rule["spec"]["deviceSelector"] == {"driver": "gpu.nvidia.com", "pool": node, "device": "gpu-0"}
    assert (rule["spec"]["taint"]["key"], rule["spec"]["taint"]["effect"]) == ("gpusteward.dev/fenced", "NoSchedule")
    assert ground.prior(move) == {"is_fenced": True}
    assert [gpu.uuid for gpu in ground.cluster.observe().gpus if gpu.is_fenced] == [bad]
    assert ground.taints(node) == [], "its neighbours go on"
    ground.cluster.make(invert(move, made))
    assert (rules_of(ground, bad), ground.prior(move)) == ([], {"is_fenced": False})


def test_all_devices_that_are_cut_out_of_a_gpu_are_fenced_with_it(ground: Ground) -> None:
    node = ground.node()
    bad = ground.uuid(node)
    parts = [device(f"gpu-0-mig-{place}", uuid=f"MIG-{place}", parentUUID=bad) for place in range(2)]
    publish(ground, node, *parts, device("gpu-1", uuid=ground.uuid(node, 1)))
    move = fence(ground, node)
    made = ground.cluster.make(move)
    assert [each["spec"]["deviceSelector"]["device"] for each in rules_of(ground, bad)] == [
        "gpu-0-mig-0",
        "gpu-0-mig-1",
    ]
    ground.cluster.make(invert(move, made))
    assert rules_of(ground, bad) == []


def test_a_fence_of_which_a_part_could_not_be_made_is_taken_back(ground: Ground) -> None:
    node = ground.node()
    bad = ground.uuid(node)
    publish(ground, node, *(device(f"mig-{place}", uuid=f"MIG-{place}", parentUUID=bad) for place in range(2)))
    move = fence(ground, node)
    taken: Object = {
        "metadata": {"name": f"gpu-steward-{bad}-mig-1".lower()},
        "spec": {"deviceSelector": {"device": "x"}, "taint": {"key": "a.b/c", "effect": "NoSchedule"}},
    }
    ground.client.create(RULES, taken)
    ground.arrange.made.append(f"{RULES}/{taken['metadata']['name']}")
    with pytest.raises(StaleState):
        ground.cluster.make(move)
    assert rules_of(ground, bad) == []


def test_elsewhere_a_node_is_kept_free_and_told_which_gpu_it_is_for(ground: Ground) -> None:
    node = ground.node()
    first, second = fence(ground, node), fence(ground, node, 1)
    one = ground.cluster.make(first)
    two = ground.cluster.make(replace(second, resource_version=""))
    found = ground.found(node)
    both = ",".join(sorted((ground.uuid(node, 0), ground.uuid(node, 1))))
    assert found["metadata"]["annotations"]["gpusteward.dev/fenced"] == both
    assert [(each["key"], each["effect"]) for each in ground.taints(node)] == [("gpusteward.dev/fenced", "NoSchedule")]
    ground.cluster.make(invert(first, one))
    assert [gpu.uuid for gpu in ground.cluster.observe().gpus if gpu.is_fenced] == [ground.uuid(node, 1)]
    assert len(ground.taints(node)) == 1
    ground.cluster.make(invert(second, two))
    found = ground.found(node)
    assert "gpusteward.dev/fenced" not in (found["metadata"].get("annotations") or {})
    assert ground.taints(node) == []


def test_a_device_plugin_that_takes_the_gpu_out_leaves_the_rest_of_the_node_in_use(ground: Ground) -> None:
    node = ground.node(labels={CONTRACT: "true"})
    move = fence(ground, node)
    ground.cluster.make(move)
    found = ground.found(node)
    assert found["metadata"]["annotations"]["gpusteward.dev/fenced"] == ground.uuid(node)
    assert ground.taints(node) == []
    assert ground.prior(move) == {"is_fenced": True}


def test_the_narrowest_means_that_is_sure_is_told_of_each_gpu(ground: Ground) -> None:
    alone, kept, both, plain = (
        ground.node("n1", 2), ground.node("n2", 1, {CONTRACT: "true"}), ground.node("n3", 1), ground.node("n4", 1)
    )  # fmt: skip
    publish(ground, alone, device("gpu-0", uuid=ground.uuid(alone)))
    publish(ground, both, device("gpu-0", uuid=ground.uuid(both)), is_plugin_beside=True)
    found = {gpu.uuid: gpu.fence_by for gpu in ground.cluster.observe().gpus}
    assert found[ground.uuid(alone, 0)] == DEVICE_RULE
    assert found[ground.uuid(alone, 1)] == NODE_TAINT, "it is published for the other one only"
    assert found[ground.uuid(kept)] == DEVICE_PLUGIN
    assert found[ground.uuid(both)] == NODE_TAINT, "a rule does not bind the plugin that gives it out, too"
    assert found[ground.uuid(plain)] == NODE_TAINT


def test_what_was_planned_for_one_gpu_never_takes_its_whole_node(ground: Ground) -> None:
    node = ground.node(labels={CONTRACT: "true"})
    planned = fence(ground, node)
    assert planned.arguments["means"] == DEVICE_PLUGIN
    ground.client.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {CONTRACT: None}}})
    for attempt in (ground.cluster.rehearse, ground.cluster.make):
        with pytest.raises(StaleState, match="by node_taint, and was planned by device_plugin"):
            attempt(replace(planned, resource_version=""))
        with pytest.raises(StaleState, match="does not say by which means"):
            attempt(replace(planned, resource_version="", arguments={}))
    assert ground.taints(node) == []
    assert not ground.prior(planned)["is_fenced"]


def test_the_taint_of_one_gpu_stays_when_the_next_one_is_fenced_or_given_back_alone(ground: Ground) -> None:
    node = ground.node()
    wide = fence(ground, node)
    made = ground.cluster.make(wide)
    ground.client.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {CONTRACT: "true"}}})
    narrow = fence(ground, node, 1)
    assert narrow.arguments["means"] == DEVICE_PLUGIN
    second = ground.cluster.make(narrow)
    assert len(ground.taints(node)) == 1
    ground.cluster.make(invert(narrow, second))
    assert len(ground.taints(node)) == 1
    ground.cluster.make(invert(wide, made))
    assert ground.taints(node) == []


def test_what_is_so_already_is_not_made_again(ground: Ground) -> None:
    node = ground.node()
    with pytest.raises(MoveRefused, match="not fenced"):
        ground.cluster.make(ground.move(MoveKind.UNFENCE_GPU, node, gpu_uuids=(ground.uuid(node),)))
    ground.cluster.make(fence(ground, node))
    with pytest.raises(MoveRefused, match="fenced already"):
        ground.cluster.make(fence(ground, node))


def test_a_fence_takes_one_gpu(ground: Ground) -> None:
    node = ground.node()
    with pytest.raises(MoveRefused, match="one GPU"):
        ground.cluster.make(ground.move(MoveKind.FENCE_GPU, node))


def test_a_fence_without_an_answer_can_be_seen_afterwards(ground: Ground) -> None:
    node = ground.node()
    publish(ground, node, device("gpu-0", uuid=ground.uuid(node)))
    move = fence(ground, node)
    ground.memory().faults.add(Fault(f"POST {RULES}", keep=10))
    with pytest.raises(SourceFailed):
        ground.cluster.make(move)
    assert ground.prior(move) in ({"is_fenced": True}, {"is_fenced": False})
    assert (ground.prior(move) == {"is_fenced": True}) == bool(rules_of(ground, ground.uuid(node)))
