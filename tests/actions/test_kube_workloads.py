"""Workloads are stopped, brought back, sized and boosted on a server as the engine asks, and taken back exactly."""

from types import MappingProxyType

import pytest

from actions.kube_workloads import workloads_from
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind, Value
from fleet.state import ObjectRef, Workload
from tests.kube.answers import Object
from tests.kube.engines import Arena, meant
from tests.kube.queues import KUEUE, RUNTIME, Queues, put_job

pytestmark = pytest.mark.enable_socket

GPU = {"limits": {"nvidia.com/gpu": "1"}}
CONTAINER = {"name": "main", "image": "none", "resources": GPU}
POD = {"spec": {"containers": [CONTAINER], "restartPolicy": "Never"}}
LASTING = {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [CONTAINER]}}
SERVED = {"selector": {"matchLabels": {"app": "w"}}, "template": LASTING}
SET = [{"name": "a", "replicas": 1, "template": {"spec": {"template": POD}}}]
ONNX = {"modelFormat": {"name": "onnx"}, "resources": GPU}
LLM = {"replicas": 2, "model": {"uri": "hf://a/b"}, "template": {"containers": [CONTAINER]}}
TRAINER = {"numNodes": 2, "resourcesPerNode": GPU}
KINDS: list[tuple[str, str, Object]] = [
    ("batch/v1", "Job", {"template": POD, "parallelism": 2}),
    ("apps/v1", "Deployment", {**SERVED, "replicas": 3}),
    ("apps/v1", "StatefulSet", {**SERVED, "replicas": 2, "serviceName": "w"}),
    ("jobset.x-k8s.io", "JobSet", {"replicatedJobs": SET}),
    ("trainer.kubeflow.org", "TrainJob", {"runtimeRef": RUNTIME, "trainer": TRAINER}),
    ("kubeflow.org", "Notebook", {"template": {"spec": {"containers": [CONTAINER]}}}),
    ("kubeflow.org", "PyTorchJob", {"pytorchReplicaSpecs": {"Worker": {"template": POD}}}),
    ("ray.io", "RayCluster", {"headGroupSpec": {"template": POD}}),
    ("leaderworkerset.x-k8s.io", "LeaderWorkerSet", {"replicas": 2, "leaderWorkerTemplate": {"workerTemplate": POD}}),
    ("serving.kserve.io", "InferenceService", {"predictor": {"model": ONNX}}),
    ("serving.kserve.io", "LLMInferenceService", LLM),
]  # fmt: skip


def move(kind: MoveKind, target: Workload, **arguments: Value) -> Move:
    return Move(
        "m1", kind, "c1", target.ref, "all_parts_idle", "it idles", workspace=target.workspace,
        arguments=MappingProxyType(arguments), resource_version=target.resource_version,
    )  # fmt: skip


def seen(work: Arena, kind: str, name: str = "w") -> Workload:
    ref = ObjectRef(kind, work.namespace, name)
    return next(each for each in work.cluster.observe().workloads if each.ref == ref)


@pytest.mark.parametrize(("group", "kind", "spec"), KINDS, ids=[kind for _, kind, _ in KINDS])
def test_each_kind_stops_and_comes_back_exactly_as_it_was(work: Arena, group: str, kind: str, spec: Object) -> None:
    before = meant(put_job(work, group, kind, "w", spec=spec))
    running = seen(work, kind)
    assert not running.is_suspended
    stop = move(MoveKind.SUSPEND_WORKLOAD, running)
    prior = work.do(stop)
    held = seen(work, kind)
    assert (held.is_suspended, held.suspended_by) == (True, "gpu-steward")
    assert held.resource_version != running.resource_version
    back = work.undo(stop, prior)
    assert back.kind is MoveKind.RESUME_WORKLOAD
    assert meant(work.see(group, kind, "w")) == before


def test_a_job_in_a_queue_is_stopped_by_its_kueue_workload(work: Arena) -> None:
    labels = {"kueue.x-k8s.io/queue-name": "team"}
    job = work.put("batch/v1", "Job", "w", metadata={"labels": labels}, spec={"template": POD, "suspend": True})
    name = queued(work, job)
    before = meant(work.see("kueue.x-k8s.io", "Workload", name))
    target = seen(work, "Job")
    assert (target.queue, target.is_suspended) == ("team", False)
    stop = move(MoveKind.SUSPEND_WORKLOAD, target)
    prior = work.do(stop)
    assert work.see("kueue.x-k8s.io", "Workload", name)["spec"]["active"] is False
    assert meant(work.see("batch/v1", "Job", "w")) == meant(job)
    work.undo(stop, prior)
    assert meant(work.see("kueue.x-k8s.io", "Workload", name)) == before


def test_a_boost_is_given_to_kueues_workload_changed_and_taken_back(work: Arena) -> None:
    labels = {"kueue.x-k8s.io/queue-name": "team"}
    name = queued(work, work.put("batch/v1", "Job", "w", metadata={"labels": labels}, spec={"template": POD}))
    before = meant(work.see("kueue.x-k8s.io", "Workload", name))
    first = move(MoveKind.SET_PRIORITY_BOOST, seen(work, "Job"), priority_boost=100)
    was_none = work.do(first)
    second = move(MoveKind.SET_PRIORITY_BOOST, seen(work, "Job"), priority_boost=-5)
    was_100 = work.do(second)
    assert seen(work, "Job").priority_boost == -5
    work.undo(second, was_100)
    work.undo(first, was_none)
    assert meant(work.see("kueue.x-k8s.io", "Workload", name)) == before


def test_a_deployment_is_sized_and_sized_back(work: Arena) -> None:
    before = meant(work.put("apps/v1", "Deployment", "w", spec={**SERVED, "replicas": 3}))
    smaller = move(MoveKind.SCALE_WORKLOAD, seen(work, "Deployment"), replicas=1)
    prior = work.do(smaller)
    assert seen(work, "Deployment").replicas == 1
    work.undo(smaller, prior)
    assert meant(work.see("apps/v1", "Deployment", "w")) == before


TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}


def test_the_size_that_an_autoscaler_sets_is_left_to_it_and_its_stop_is_not(work: Arena) -> None:
    work.put("apps/v1", "Deployment", "w", spec={**SERVED, "replicas": 3})
    scaler = {"scaleTargetRef": TARGET, "minReplicas": 2, "maxReplicas": 9}
    work.put("autoscaling/v2", "HorizontalPodAutoscaler", "grow", spec=scaler)
    target = seen(work, "Deployment")
    assert (target.replicas_floor, target.sized_by, target.woken_by) == (2, "HorizontalPodAutoscaler grow", None)
    with pytest.raises(MoveRefused, match="HorizontalPodAutoscaler grow decides its size"):
        work.cluster.rehearse(move(MoveKind.SCALE_WORKLOAD, target, replicas=2))
    stop = move(MoveKind.SUSPEND_WORKLOAD, target)  # an autoscaler leaves alone what has no replicas
    prior = work.do(stop)
    work.undo(stop, prior)
    assert seen(work, "Deployment").replicas == 3


def test_what_keda_would_wake_up_is_not_stopped(work: Arena) -> None:
    work.put("apps/v1", "Deployment", "w", spec={**SERVED, "replicas": 3})
    work.put("keda.sh", "ScaledObject", "queue", spec={"scaleTargetRef": {"name": "w"}, "minReplicaCount": 1})
    target = seen(work, "Deployment")
    assert (target.replicas_floor, target.woken_by) == (1, "ScaledObject queue")
    with pytest.raises(MoveRefused, match="ScaledObject queue would start it again"):
        work.cluster.rehearse(move(MoveKind.SUSPEND_WORKLOAD, target))
    with pytest.raises(MoveRefused, match="ScaledObject queue decides its size"):
        work.cluster.rehearse(move(MoveKind.SCALE_WORKLOAD, target, replicas=1))


def test_no_fewer_replicas_stay_than_a_disruption_budget_keeps(work: Arena) -> None:
    work.put("apps/v1", "Deployment", "w", spec={**SERVED, "replicas": 3})
    keep = {"minAvailable": 2, "selector": {"matchLabels": {"app": "w"}}}
    work.put("policy/v1", "PodDisruptionBudget", "keep", spec=keep)
    target = seen(work, "Deployment")
    assert (target.replicas_floor, target.sized_by) == (2, None)
    with pytest.raises(MoveRefused, match="at least 2 replicas of it are to stay"):
        work.cluster.rehearse(move(MoveKind.SCALE_WORKLOAD, target, replicas=1))
    smaller = move(MoveKind.SCALE_WORKLOAD, target, replicas=2)
    work.undo(smaller, work.do(smaller))


def test_a_service_keeps_the_least_that_it_declares_for_its_autoscaler(work: Arena) -> None:
    predictor = {"model": ONNX, "minReplicas": 2, "maxReplicas": 4}
    work.put("serving.kserve.io", "InferenceService", "w", spec={"predictor": predictor})
    target = seen(work, "InferenceService")
    assert (target.replicas, target.replicas_floor) == (2, 2)
    with pytest.raises(MoveRefused, match="at least 2 replicas"):
        work.cluster.rehearse(move(MoveKind.SCALE_WORKLOAD, target, replicas=1))


def test_what_belongs_to_another_object_is_left_to_its_controller(work: Arena) -> None:
    whole = work.put("apps/v1", "Deployment", "w", spec=SERVED)
    owner = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "w",
        "uid": whole["metadata"]["uid"],
        "controller": True,
    }
    # without the labels of its owner's pods a cluster's own controller would let it go
    meta = {"ownerReferences": [owner], "labels": {"app": "w"}}
    work.put("apps/v1", "ReplicaSet", "w-1", metadata=meta, spec=SERVED)
    stop = Move(
        "m1", MoveKind.SUSPEND_WORKLOAD, "c1", ObjectRef("ReplicaSet", work.namespace, "w-1"), "idle", "it idles"
    )
    with pytest.raises(MoveRefused, match="belongs to Deployment w"):
        work.cluster.rehearse(stop)


def test_what_somebody_changed_since_the_plan_is_not_touched(work: Arena) -> None:
    work.put("batch/v1", "Job", "w", spec={"template": POD, "parallelism": 2})
    stop = move(MoveKind.SUSPEND_WORKLOAD, seen(work, "Job"))
    work.change("batch/v1", "Job", "w", {"spec": {"parallelism": 1}})
    with pytest.raises(StaleState, match="changed since"):
        work.cluster.make(stop)
    assert "annotations" not in work.see("batch/v1", "Job", "w")["metadata"]


def test_a_status_that_moves_on_does_not_make_a_plan_stale(work: Arena) -> None:
    work.put("apps/v1", "Deployment", "w", spec=SERVED)
    stop = move(MoveKind.SUSPEND_WORKLOAD, seen(work, "Deployment"))
    path = work.resource("apps/v1", "Deployment").path("w", work.namespace, "status")
    work.client.patch(path, {"status": {"observedGeneration": 1}})
    work.change("apps/v1", "Deployment", "w", {"metadata": {"annotations": {"deployment.kubernetes.io/revision": "9"}}})
    work.do(stop)


def test_what_somebody_resumed_or_stopped_anew_since_we_left_it_stays_theirs(work: Arena) -> None:
    work.put("batch/v1", "Job", "w", spec={"template": POD})
    stop = move(MoveKind.SUSPEND_WORKLOAD, seen(work, "Job"))
    prior = work.do(stop)
    work.change("batch/v1", "Job", "w", {"spec": {"suspend": False}})
    assert seen(work, "Job").suspended_by is None
    with pytest.raises(MoveRefused, match="changed by others"):
        work.undo(stop, prior)
    work.change("batch/v1", "Job", "w", {"spec": {"suspend": True}})
    assert seen(work, "Job").suspended_by == "somebody else"
    with pytest.raises(MoveRefused, match="changed by others"):
        work.undo(stop, prior)
    assert work.see("batch/v1", "Job", "w")["spec"]["suspend"] is True


def test_a_deployment_deployed_anew_while_it_is_stopped_can_still_be_brought_back(work: Arena) -> None:
    work.put("apps/v1", "Deployment", "w", spec={**SERVED, "replicas": 3})
    stop = move(MoveKind.SUSPEND_WORKLOAD, seen(work, "Deployment"))
    prior = work.do(stop)
    work.change("apps/v1", "Deployment", "w", {"spec": {"minReadySeconds": 7}})
    work.undo(stop, prior)
    spec = work.see("apps/v1", "Deployment", "w")["spec"]
    assert (spec["replicas"], spec["minReadySeconds"]) == (3, 7)


def test_a_workload_that_is_gone_or_was_made_anew_under_its_name_is_stale(work: Arena) -> None:
    work.put("batch/v1", "Job", "w", spec={"template": POD})
    stop = move(MoveKind.SUSPEND_WORKLOAD, seen(work, "Job"))
    path = work.resource("batch/v1", "Job").path("w", work.namespace)
    work.client.delete(path, propagationPolicy="Background")
    with pytest.raises(StaleState):
        work.cluster.make(stop)
    work.put("batch/v1", "Job", "w", spec={"template": POD})
    with pytest.raises(StaleState, match="changed since"):
        work.cluster.make(stop)


def test_protection_owner_and_workspace_are_read_off_the_object_and_its_namespace(work: Arena) -> None:
    labels = {"gpusteward.dev/workspace": "research"}
    work.client.patch(f"/api/v1/namespaces/{work.namespace}", {"metadata": {"labels": labels}})
    notes = {"gpusteward.dev/protect": "true", "gpusteward.dev/owner": "ann"}
    work.put("batch/v1", "Job", "w", metadata={"annotations": notes}, spec={"template": POD})
    work.put("batch/v1", "Job", "x", spec={"template": POD})
    work.put(
        "batch/v1",
        "Job",
        "cpu",
        spec={"template": {"spec": {"containers": [{"name": "m", "image": "n"}], "restartPolicy": "Never"}}},
    )
    found = {each.ref.name: each for each in work.cluster.observe().workloads if each.ref.namespace == work.namespace}
    assert set(found) == {"w", "x"}
    assert (found["w"].is_protected, found["w"].owner, found["w"].workspace) == (True, "ann", "research")
    assert (found["x"].is_protected, found["x"].owner) == (False, None)
    work.client.patch(
        f"/api/v1/namespaces/{work.namespace}", {"metadata": {"labels": {"gpusteward.dev/protect": "true"}}}
    )
    assert seen(work, "Job", "x").is_protected


def test_an_empty_view_has_no_workloads() -> None:
    from actions.kube_workloads import WorkloadView  # noqa: PLC0415 - beside the one test that builds it

    assert workloads_from("c1", (), WorkloadView()) == ()


def queued(work: Arena, job: Object) -> str:
    """Return the name of Kueue's workload of a job: Kueue's own, or ours where no Kueue makes one."""
    queues = Queues(work)
    if queues.is_ruled:
        return str(queues.workload(job)["metadata"]["name"])
    meta = job["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
    labels = {"kueue.x-k8s.io/job-uid": meta["uid"]}
    sets = [{"name": "main", "count": 1, "template": POD}]
    spec = {"active": True, "queueName": "team", "podSets": sets}
    work.put(KUEUE, "Workload", "job-w", metadata={"labels": labels, "ownerReferences": [owner]}, spec=spec)
    return "job-w"
