"""Who a pod belongs to at the top: a cached walk up the owner references that controllers leave."""

from collections.abc import Iterable, Mapping
from typing import Any

from actions.kube_port import Object, Reader, get_or_none
from fleet.errors import MoveRefused
from fleet.state import ObjectRef

_DEPTH = 8  # no real chain is longer: Pod, StatefulSet, Pod, StatefulSet, LeaderWorkerSet, and something above
_NODE = "Node"  # what "owns" the pods that a kubelet starts by itself
# What is climbed, by API group and kind, as the tables name owners: any other is the top.
OWNERS = frozenset({
    ("apps", "ReplicaSet"), ("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"),
    ("batch", "Job"), ("batch", "CronJob"),
    ("jobset.x-k8s.io", "JobSet"), ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"),
    ("trainer.kubeflow.org", "TrainJob"), ("kubeflow.org", "PyTorchJob"), ("kubeflow.org", "TFJob"),
    ("kubeflow.org", "MPIJob"), ("kubeflow.org", "Notebook"),
    ("ray.io", "RayCluster"), ("ray.io", "RayJob"), ("ray.io", "RayService"),
    ("serving.kserve.io", "InferenceService"), ("serving.kserve.io", "LLMInferenceService"),
    ("serving.knative.dev", "Revision"), ("serving.knative.dev", "Configuration"), ("serving.knative.dev", "Service"),
    ("argoproj.io", "Workflow"), ("argoproj.io", "Rollout"),
})  # fmt: skip


class Owners:
    """What is known of owners by UID: the reference above each, None at the top. It is kept between looks."""

    def __init__(self) -> None:
        self._above: dict[str, Mapping[str, Any] | None] = {}

    def learn(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Take from objects that were read anyway who owns them."""
        for each in objects:
            self._above[each["metadata"]["uid"]] = _controller(each)

    def top(self, api: Reader, pod: Object) -> ObjectRef:
        """Return the topmost owner of a pod, the pod itself where nobody owns it."""
        namespace = pod["metadata"]["namespace"]
        owner = _controller(pod)
        if owner is None or owner["kind"] == _NODE:
            return ObjectRef("Pod", namespace, pod["metadata"]["name"])
        for _ in range(_DEPTH):
            above = self._owner_of(api, namespace, owner)
            if above is None:
                break
            owner = above
        return ObjectRef(owner["kind"], namespace, owner["name"])

    def _owner_of(self, api: Reader, namespace: str, owner: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if owner["uid"] not in self._above:
            self._above[owner["uid"]] = self._look_up(api, namespace, owner)
        return self._above[owner["uid"]]

    def _look_up(self, api: Reader, namespace: str, owner: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return who owns an owner; one that is gone, was replaced, or may not be read is the top as it is named."""
        group = owner["apiVersion"].rpartition("/")[0]
        resource = api.find(owner["apiVersion"], owner["kind"]) if (group, owner["kind"]) in OWNERS else None
        if resource is None:
            return None
        try:
            found = get_or_none(api, resource.path(owner["name"], namespace))
        except MoveRefused:
            return None
        return None if found is None or found["metadata"]["uid"] != owner["uid"] else _controller(found)


def _controller(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    references: Iterable[Mapping[str, Any]] = found["metadata"].get("ownerReferences") or ()
    return next((each for each in references if each.get("controller")), None)
