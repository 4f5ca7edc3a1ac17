"""What is observed of a Kubernetes cluster, whole and for one move, in memory and by KUBECONFIG."""

import pytest

from actions.kube_owners import OWNERS
from collectors.cluster_kinds import OWNERS as READ
from fleet.errors import MoveRefused, SourceFailed
from fleet.move import MoveKind
from fleet.state import ObjectRef
from tests.actions.ground import Ground
from tests.kube.answers import Object
from tests.kube.faults import Fault

pytestmark = pytest.mark.enable_socket


def test_owners_are_climbed_as_the_tables_name_them() -> None:
    assert set(READ) == OWNERS


def replica_set(ground: Ground, deployment: str, name: str) -> Object:
    """Make a replica set of a deployment, with nothing for controllers to do."""
    labels = {"app": deployment}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "m", "image": "none"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template, "replicas": 1}
    kind = {"apiVersion": "apps/v1", "kind": "Deployment"}
    whole = {**kind, "metadata": {"name": deployment, "labels": labels}, "spec": {**spec, "paused": True}}
    above = ground.client.create(ground.arrange.path("deployments", group="apis/apps/v1"), whole)
    owner = {**kind, "name": deployment, "uid": above["metadata"]["uid"], "controller": True}
    meta = {"name": name, "labels": labels, "ownerReferences": [owner]}
    kind = {"apiVersion": "apps/v1", "kind": "ReplicaSet"}
    return ground.client.create(
        ground.arrange.path("replicasets", group="apis/apps/v1"), {**kind, "metadata": meta, "spec": spec}
    )


def test_nodes_pods_and_workloads_are_joined_with_what_is_known_of_their_gpus(ground: Ground) -> None:
    node = ground.node(gpus=2, labels={"karpenter.sh/nodepool": "h100", "topology.kubernetes.io/rack": "r7"})
    serving = ground.pod("chat-7f-x", node, owner=replica_set(ground, "chat", "chat-7f"), labels={"app": "chat"})
    ground.hold(serving, [ground.uuid(node, 1)])
    ground.pod("unknown", node, gpus=1)
    ground.pod("no-gpu", node, gpus=0)
    state = ground.cluster.observe()
    here = next(each for each in state.nodes if each.name == node)
    assert (here.pool, here.rack, here.is_ready, here.slots) == ("h100", "r7", True, {"nvidia.com/gpu": 2})
    pods = {each.name: each for each in state.pods if each.namespace == ground.arrange.namespace}
    assert set(pods) == {"chat-7f-x", "unknown"}
    top = ObjectRef("Deployment", ground.arrange.namespace, "chat")
    assert (pods["chat-7f-x"].workload, pods["chat-7f-x"].gpu_uuids) == (top, (ground.uuid(node, 1),))
    assert pods["chat-7f-x"].started_at is not None
    assert (pods["unknown"].workload.kind, pods["unknown"].gpu_uuids) == ("Pod", ())
    found = next(each for each in state.workloads if each.ref == top)
    assert (found.workspace, found.gpu_uuids, found.pods) == (
        "research",
        (ground.uuid(node, 1),),
        (pods["chat-7f-x"].uid,),
    )
    mine = [gpu for gpu in state.gpus if gpu.node == node]
    assert [(gpu.uuid, gpu.is_fenced) for gpu in mine] == [(ground.uuid(node, each), False) for each in range(2)]


def test_gpus_that_nobody_knows_are_not_invented(ground: Ground) -> None:
    ground.arrange.node(ground.name("n9"), 8)
    state = ground.cluster.observe()
    assert [gpu for gpu in state.gpus if gpu.node == ground.name("n9")] == []


def test_a_move_looks_at_its_target_alone(ground: Ground) -> None:
    node = ground.node()
    ground.pod("p", node)
    move = ground.move(MoveKind.CORDON_NODE, node)
    drain = ground.move(MoveKind.DRAIN_NODE, node, {"scope": "node"})
    server = ground.memory()
    before = len(server.asked)
    ground.client.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {"nvidia.com/mig.config.state": "failed"}}})
    assert {each.mig_state for each in ground.cluster.observe_for(move).nodes if each.name == node} == {"failed"}
    assert server.asked[before + 1 :] == [f"GET /api/v1/nodes/{node}"]
    ground.arrange.remove("p")
    assert [each for each in ground.cluster.observe_for(drain).pods if each.node == node] == []
    assert sum("/pods?" in each for each in server.asked[before:]) == 1


def test_a_workload_is_looked_at_with_its_pods(ground: Ground) -> None:
    node = ground.node()
    job = ground.job("train")
    ground.hold(ground.pod("train-0", node, owner=job), [ground.uuid(node)])
    ground.cluster.observe()
    move = ground.move(MoveKind.SUSPEND_WORKLOAD, node, target=ObjectRef("Job", ground.arrange.namespace, "train"))
    ground.client.patch(ground.arrange.path("jobs", "train", "apis/batch/v1"), {"spec": {"suspend": True}})
    ground.arrange.remove("train-0")
    state = ground.cluster.observe_for(move)
    assert [(each.is_suspended, each.gpu_uuids) for each in state.workloads if each.ref == move.target] == [(True, ())]
    ground.client.delete(ground.arrange.path("jobs", "train", "apis/batch/v1"), propagationPolicy="Background")
    assert all(each.ref != move.target for each in ground.cluster.observe_for(move).workloads)


def test_a_move_of_another_cluster_is_not_made_here(ground: Ground) -> None:
    node = ground.node()
    move = ground.move(MoveKind.CORDON_NODE, node, cluster="west")
    for attempt in (ground.cluster.rehearse, ground.cluster.make):
        with pytest.raises(MoveRefused, match="does not reach"):
            attempt(move)
    assert ground.seen(node).is_schedulable
    assert {each.cluster for each in ground.cluster.observe_for(move).nodes} == {"east"}


@pytest.mark.parametrize("status", [403, 500])
def test_a_cluster_of_which_a_part_can_not_be_read_is_not_observed(ground: Ground, status: int) -> None:
    ground.memory().faults.add(Fault("GET /api/v1/pods", status=status, times=9))
    with pytest.raises(SourceFailed):
        ground.cluster.observe()
