"""Every kind that is read of a cluster, and how: `deploy/collector-rbac.yaml` grants these and no other.

Kinds that are followed are listed and watched. Owners are only asked for their metadata, one by one or as a list.
"""

from collections.abc import Iterable, Mapping

from collectors.cluster_watch import Kind

DRA, KUEUE = "resource.k8s.io", "kueue.x-k8s.io"
# The versions we can read, best first.
VERSIONS: Mapping[str, tuple[str, ...]] = {DRA: ("v1", "v1beta2", "v1beta1"), KUEUE: ("v1beta2", "v1beta1")}
FOLLOWED: Mapping[str, tuple[str, ...]] = {
    "": ("nodes", "pods", "namespaces", "resourcequotas", "events"),
    DRA: ("resourceclaims", "resourceslices", "deviceclasses"),
    KUEUE: ("clusterqueues", "localqueues", "resourceflavors", "workloads"),
}
# Only events about nodes tell of GPU faults.
_NARROW: Mapping[str, Mapping[str, str]] = {"events": {"fieldSelector": "involvedObject.kind=Node"}}
# What stands above pods, by API group and kind; what is not here is named as the owner reference names it.
OWNERS: Mapping[tuple[str, str], str] = {
    ("apps", "ReplicaSet"): "replicasets",
    ("apps", "Deployment"): "deployments",
    ("apps", "StatefulSet"): "statefulsets",
    ("apps", "DaemonSet"): "daemonsets",
    ("batch", "Job"): "jobs",
    ("batch", "CronJob"): "cronjobs",
    ("jobset.x-k8s.io", "JobSet"): "jobsets",
    ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"): "leaderworkersets",
    ("trainer.kubeflow.org", "TrainJob"): "trainjobs",
    ("kubeflow.org", "PyTorchJob"): "pytorchjobs",
    ("kubeflow.org", "TFJob"): "tfjobs",
    ("kubeflow.org", "MPIJob"): "mpijobs",
    ("kubeflow.org", "Notebook"): "notebooks",
    ("ray.io", "RayCluster"): "rayclusters",
    ("ray.io", "RayJob"): "rayjobs",
    ("ray.io", "RayService"): "rayservices",
    ("serving.kserve.io", "InferenceService"): "inferenceservices",
    ("serving.kserve.io", "LLMInferenceService"): "llminferenceservices",
    ("serving.knative.dev", "Revision"): "revisions",
    ("serving.knative.dev", "Configuration"): "configurations",
    ("serving.knative.dev", "Service"): "services",
    ("argoproj.io", "Workflow"): "workflows",
    ("argoproj.io", "Rollout"): "rollouts",
}


def kind_of(group: str, version: str, name: str) -> Kind:
    """Return a kind that is followed, in one version of its group ("" = core)."""
    path = f"/api/{version}/{name}" if not group else f"/apis/{group}/{version}/{name}"
    return Kind(name, group, path, _NARROW.get(name, {}))


def version_to_read(group: str, served: Iterable[str]) -> str | None:
    """Return the best version of a group that is served and that we can read; None where there is none."""
    there = set(served)
    return next((version for version in VERSIONS[group] if version in there), None)


def owner_path(api_version: str, kind: str, namespace: str | None, name: str | None) -> str | None:
    """Return where an owner's kind (`namespace` None: everywhere) or one owner is read; None where we don't read it."""
    group, _, version = api_version.rpartition("/")
    plural = OWNERS.get((group, kind))
    if plural is None:
        return None
    root = f"/apis/{group}/{version}"
    return f"{root}/{plural}" if namespace is None else f"{root}/namespaces/{namespace}/{plural}/{name}"
