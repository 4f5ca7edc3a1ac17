"""Arranging a cluster's state as an administrator does, by the API alone: nodes, pods that run and end, owners."""

from dataclasses import dataclass, field

from tests.kube.answers import Object, Refusal
from tests.kube.client import MERGE, Client

GPU = "nvidia.com/gpu"
WORKSPACE = "gpusteward.dev/workspace"
_COST = "controller.kubernetes.io/pod-deletion-cost"  # of two pods of a ReplicaSet, the dearer one stays


@dataclass
class Arranger:
    """A namespace and nodes of one test's own; `close` takes them away."""

    client: Client
    namespace: str
    made: list[str] = field(default_factory=list)

    def open(self, workspace: str | None = "research") -> "Arranger":
        labels = {} if workspace is None else {WORKSPACE: workspace}
        self.client.create("/api/v1/namespaces", {"metadata": {"name": self.namespace, "labels": labels}})
        self.made.append(f"/api/v1/namespaces/{self.namespace}")
        return self

    def close(self) -> None:
        """Take everything away; no node's agent is there to end pods, so they are not waited for."""
        self.client.delete(self.path("pods"), gracePeriodSeconds="0")
        for path in reversed(self.made):
            try:
                self.client.delete(path, gracePeriodSeconds="0")
            except Refusal as error:
                assert error.code == 404  # noqa: PT017 - the test took it away itself
        self.client.close()

    def path(self, plural: str, name: str = "", group: str = "api/v1") -> str:
        return f"/{group}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def node(self, name: str, gpus: int = 8, **labels: str) -> Object:
        told = {"nvidia.com/gpu.count": str(gpus), "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", **labels}
        made = self.client.create("/api/v1/nodes", {"metadata": {"name": name, "labels": told}})
        self.made.append(f"/api/v1/nodes/{name}")
        amounts = {"cpu": "96", "memory": "1Ti", GPU: str(gpus), "pods": "110"}
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": made["metadata"]["creationTimestamp"]}]
        status = {"capacity": amounts, "allocatable": amounts, "conditions": conditions}
        return self.client.patch(f"/api/v1/nodes/{name}/status", {"status": status})

    def pod(
        self,
        name: str,
        gpus: int = 1,
        owner: Object | None = None,
        labels: dict[str, str] | None = None,
        *,
        is_held: bool = False,
        **spec: object,
    ) -> Object:
        """Make a pod; one that is held stays until `let_go` though a cluster collects it as garbage."""
        limits = {"limits": {GPU: str(gpus)}} if gpus else {}
        containers = [{"name": "main", "image": "none", "resources": limits}]
        whole: Object = {"containers": containers, "schedulerName": "steward-test", **spec}  # no scheduler but us
        meta: Object = {"name": name, "annotations": {_COST: "1000"}, **({} if owner is None else _owned_by(owner))}
        meta |= {} if labels is None else {"labels": labels}
        meta |= {"finalizers": ["steward.test/hold"]} if is_held else {}
        return self.client.create(self.path("pods"), {"metadata": meta, "spec": whole})

    def let_go(self, name: str) -> None:
        self.client.patch(self.path("pods", name), {"metadata": {"finalizers": None}})

    def bind(self, name: str, node: str) -> None:
        target = {"kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        self.client.create(self.path("pods", f"{name}/binding"), binding)

    def start(self, name: str, node: str) -> Object:
        self.bind(name, node)
        live = self.client.get(self.path("pods", name))
        running = {"running": {"startedAt": bound_at(live)}}
        return self._tell(name, "Running", running)

    def finish(self, name: str, at: str, phase: str = "Succeeded") -> Object:
        return self._tell(name, phase, {"terminated": {"exitCode": 0, "finishedAt": at, "startedAt": at}})

    def remove(self, name: str) -> None:
        self.client.delete(self.path("pods", name), gracePeriodSeconds="0")

    def owned(self, group: str, plural: str, kind: str, name: str, owner: Object | None = None) -> Object:
        """Make an owner in the shape that workloads of apps and batch have.

        It is made so that a cluster's own controllers leave it and its pods as they are: what it owns has its labels
        (what has not is let go), a Deployment rolls nothing out, a Job is somebody else's.
        """
        labels = {"app": name} if owner is None else owner["metadata"]["labels"]
        restart = "Never" if kind == "Job" else "Always"
        pods = {"containers": [{"name": "m", "image": "none"}], "restartPolicy": restart}
        own: Object = {"template": {"metadata": {"labels": labels}, "spec": pods}}
        own |= {"managedBy": "steward.test/nobody"} if kind == "Job" else {"selector": {"matchLabels": labels}}
        own |= {"paused": True} if kind == "Deployment" else {}
        meta: Object = {"name": name, "labels": labels, **({} if owner is None else _owned_by(owner))}
        body = {"apiVersion": group, "kind": kind, "metadata": meta, "spec": own}
        return self.client.create(self.path(plural, group=f"apis/{group}"), body)

    def _tell(self, name: str, phase: str, state: Object) -> Object:
        status = {
            "phase": phase,
            "containerStatuses": [
                {"name": "main", "image": "none", "imageID": "", "ready": False, "restartCount": 0, "state": state}
            ],
        }
        return self.client.patch(self.path("pods", f"{name}/status"), {"status": status}, MERGE)


def bound_at(pod: Object) -> str:
    """Return when a pod was bound, as the API server says."""
    told = next(each for each in pod["status"]["conditions"] if each["type"] == "PodScheduled")
    return str(told["lastTransitionTime"])


def _owned_by(owner: Object) -> Object:
    """Return the metadata of what an owner owns; a controller lets pods go that don't have its template's labels."""
    reference = {
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": True,
    }  # fmt: skip
    labels = owner.get("spec", {}).get("template", {}).get("metadata", {}).get("labels") or {}
    return {"labels": labels, "ownerReferences": [reference]}
