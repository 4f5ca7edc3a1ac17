"""The kinds that engines beside Kubernetes bring, for the server in memory, and an arena for moves of any object."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from actions.fields import OUR_NAME, fields_of, is_done
from actions.guard import guard
from actions.index import index_of
from actions.kube import KubeApi
from actions.kube_cluster import KubeCluster
from actions.kube_port import Resource
from actions.kube_state import Known
from actions.policy import ActionPolicy
from actions.undo import invert
from fleet.clock import SystemClock
from fleet.move import Move
from tests.actions.rights import bound_account, missing
from tests.kube.answers import Object, Refusal
from tests.kube.arrange import Arranger
from tests.kube.client import MERGE, Client, real_cluster
from tests.kube.kinds import Kind
from tests.kube.kueue import Kueue
from tests.kube.kueue_hooks import LOCAL_QUEUES, QUEUES
from tests.kube.server import KubeServer, serving
from tests.kube.site import KUBE_CONFIG

_REVISION = "deployment.kubernetes.io/revision"
ENGINES = (
    Kind(
        "kueue.x-k8s.io",
        ("v1beta2", "v1beta1"),
        "clusterqueues",
        "ClusterQueue",
        is_namespaced=False,
        has_status=True,
        schemas=QUEUES,
    ),
    Kind("kueue.x-k8s.io", ("v1beta2", "v1beta1"), "cohorts", "Cohort", is_namespaced=False, has_status=True),
    Kind("kueue.x-k8s.io", ("v1beta2", "v1beta1"), "resourceflavors", "ResourceFlavor", is_namespaced=False),
    Kind("kueue.x-k8s.io", ("v1beta2", "v1beta1"), "localqueues", "LocalQueue", has_status=True, schemas=LOCAL_QUEUES),
    Kind("kueue.x-k8s.io", ("v1beta2", "v1beta1"), "workloads", "Workload", has_status=True),
    Kind("scheduling.run.ai", ("v2",), "queues", "Queue", is_namespaced=False),
    Kind("jobset.x-k8s.io", ("v1alpha2",), "jobsets", "JobSet", has_status=True),
    Kind("trainer.kubeflow.org", ("v1alpha1",), "trainjobs", "TrainJob", has_status=True),
    Kind("trainer.kubeflow.org", ("v1alpha1",), "trainingruntimes", "TrainingRuntime"),
    Kind("kubeflow.org", ("v1",), "notebooks", "Notebook", has_status=True),
    Kind("kubeflow.org", ("v1",), "pytorchjobs", "PyTorchJob", has_status=True),
    Kind("ray.io", ("v1",), "rayclusters", "RayCluster", has_status=True),
    Kind("leaderworkerset.x-k8s.io", ("v1",), "leaderworkersets", "LeaderWorkerSet", has_status=True, has_scale=True),
    Kind("serving.kserve.io", ("v1beta1",), "inferenceservices", "InferenceService", has_status=True),
    Kind("serving.kserve.io", ("v1alpha2",), "llminferenceservices", "LLMInferenceService", has_status=True),
    Kind("karpenter.sh", ("v1",), "nodepools", "NodePool", is_namespaced=False),
    Kind("autoscaling.x-k8s.io", ("v1beta1",), "capacitybuffers", "CapacityBuffer"),
    Kind("keda.sh", ("v1alpha1",), "scaledobjects", "ScaledObject", has_status=True),
    Kind("autoscaling", ("v2",), "horizontalpodautoscalers", "HorizontalPodAutoscaler", has_status=True),
)


@dataclass
class Arena:
    """A namespace of one test's own on some server, the door that moves go through, and what the test has made."""

    client: Client
    api: KubeApi
    namespace: str
    server: KubeServer | None = None
    made: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster = KubeCluster("c1", self.api, Known, SystemClock())

    def do(self, move: Move) -> str:
        """Rehearse a move, which changes nothing, then make it and see that it is done; return its prior fields."""
        before = self.cluster.observe_for(move)
        self.cluster.rehearse(move)
        assert fields_of(move, index_of(self.cluster.observe_for(move))) == fields_of(move, index_of(before))
        prior = self.cluster.make(move)
        assert is_done(move, index_of(self.cluster.observe_for(move)))
        return prior

    def undo(self, move: Move, prior: str) -> Move:
        """Take a move back as the engine does, guarded by what it left."""
        inverse = invert(move, prior)
        guard(inverse, self.cluster.observe_for(inverse), ActionPolicy(), SystemClock().now())
        self.do(inverse)
        return inverse

    def name(self, word: str) -> str:
        """Return a name of the test's own for what lies in no namespace."""
        return f"{word}-{self.namespace[-8:]}"

    def resource(self, group: str, kind: str) -> Resource:
        """Return where a kind lives, or skip the test where it is not served."""
        return self.api.find(group, kind) or pytest.skip(f"the server serves no {kind}")

    def cohort(self, name: str) -> Object:
        """Return how a queue says which cohort it is in."""
        is_old = self.resource("kueue.x-k8s.io", "ClusterQueue").api_version.endswith("v1beta1")
        return {"cohort" if is_old else "cohortName": name}

    def put(self, group: str, kind: str, name: str, **parts: object) -> Object:
        """Make an object, in the namespace where its kind has one."""
        resource = self.resource(group, kind)
        meta: Object = {"name": name}
        given = parts.pop("metadata", {})
        assert isinstance(given, dict)
        body = {"apiVersion": resource.api_version, "kind": kind, "metadata": {**meta, **given}, **parts}
        space = str(given.get("namespace", self.namespace)) if resource.is_namespaced else ""
        made = self.client.create(resource.path(namespace=space), body)
        self.made.append(resource.path(name, space))
        return {**made, "kind": kind}

    def see(self, group: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """Return an object as it is."""
        resource = self.resource(group, kind)
        return self.client.get(resource.path(name, self.namespace if namespace is None else namespace))

    def change(self, group: str, kind: str, name: str, patch: Object) -> Object:
        """Change an object as somebody else would."""
        resource = self.resource(group, kind)
        return self.client.patch(resource.path(name, self.namespace), patch, MERGE, fieldManager="somebody")

    def drop(self, path: str) -> None:
        """Delete an object, if it is there, and what belongs to it."""
        try:
            self.client.delete(path, gracePeriodSeconds="0", propagationPolicy="Background")
        except Refusal as error:
            if error.code != 404:
                raise


@contextmanager
def arena(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    """Give an arena on the server in memory ("memory"), or on the cluster that KUBECONFIG names ("real").

    Moves are made with the roles of `deploy/` and no others; what a test arranges, it arranges as an administrator.
    """
    config, namespace = tmp_path / "config", f"steward-work-{uuid.uuid4().hex[:8]}"
    monkeypatch.setattr(KUBE_CONFIG, str(config))
    if kind == "real":
        admin = real_cluster()
        arrange = Arranger(Client(admin), namespace).open(None)
        bound_account(arrange, Path(admin), config)
        with _arena(arrange, None) as made:
            yield made
        return
    server = KubeServer()
    for each in ENGINES:
        server.api.kinds.add(each)
    kueue = Kueue(server.api)
    server.api.webhooks.append(kueue)
    server.settle = kueue.settle
    with serving(server, config), _arena(Arranger(Client(str(config)), namespace).open(None), server) as made:
        yield made
    ours = [line for line, asker in zip(server.asked, server.askers, strict=True) if asker == OUR_NAME]
    assert missing(ours) == set(), "the roles in deploy/ must grant every request that is made"


@contextmanager
def _arena(arrange: Arranger, server: KubeServer | None) -> Iterator[Arena]:
    api = KubeApi("c1", None, lambda _: None)
    made = Arena(arrange.client, api, arrange.namespace, server, arrange.made)
    try:
        yield made
    finally:
        for path in reversed(made.made):
            made.drop(path)
        api.close()
        made.client.close()


def meant(body: Object) -> Object:
    """Return what an object is meant to be: spec, labels and annotations, but for what its controller notes there."""
    meta = body["metadata"]
    notes = {key: value for key, value in (meta.get("annotations") or {}).items() if key != _REVISION}
    return {
        "spec": body.get("spec") or {},
        "labels": meta.get("labels") or {},
        "annotations": notes,
    }
