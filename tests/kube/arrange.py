"""Arranging a cluster's state as an administrator does, by the API alone: nodes, pods that run and end, owners."""

from dataclasses import dataclass, field

from tests.kube.answers import Object
from tests.kube.client import MERGE, Client

GPU = "nvidia.com/gpu"
WORKSPACE = "gpusteward.dev/workspace"


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
        for path in reversed(self.made):
            self.client.delete(path, gracePeriodSeconds="0")
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
        **spec: object,
    ) -> Object:
        limits = {"limits": {GPU: str(gpus)}} if gpus else {}
        containers = [{"name": "main", "image": "none", "resources": limits}]
        whole: Object = {"containers": containers, "schedulerName": "steward-test", **spec}  # no scheduler but us
        meta: Object = {"name": name, **({} if owner is None else {"ownerReferences": [_reference(owner)]})}
        meta |= {} if labels is None else {"labels": labels}
        return self.client.create(self.path("pods"), {"metadata": meta, "spec": whole})

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
        """Make an owner in the shape that workloads of apps and batch have."""
        restart = "Never" if kind == "Job" else "Always"
        pods = {"containers": [{"name": "m", "image": "none"}], "restartPolicy": restart}
        template = {"metadata": {"labels": {"app": name}}, "spec": pods}
        selector = {} if kind == "Job" else {"selector": {"matchLabels": {"app": name}}}
        meta: Object = {"name": name, **({} if owner is None else {"ownerReferences": [_reference(owner)]})}
        body = {"apiVersion": group, "kind": kind, "metadata": meta, "spec": {"template": template, **selector}}
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


def _reference(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": True,
    }  # fmt: skip
