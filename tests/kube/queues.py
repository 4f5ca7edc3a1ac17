"""Queues of Kueue that a test makes, and jobs in them, on a server where a Kueue rules: a real one or ours."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

from tests.kube.answers import Object, Refusal
from tests.kube.engines import Arena

Found = TypeVar("Found")
KUEUE, QUEUE_NAME = "kueue.x-k8s.io", "kueue.x-k8s.io/queue-name"
GPU, IN_USE = "nvidia.com/gpu", "kueue.x-k8s.io/resource-in-use"
RUNTIME = {"name": "torch", "kind": "TrainingRuntime"}
STEP = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


def until(look: Callable[[], Found | None], seconds: float = 60) -> Found:
    """Look until there is something to see, and return it; a cluster's controllers need their time."""
    ends = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < ends, "it did not come about in time"
        time.sleep(0.02)


def put_job(work: Arena, group: str, kind: str, name: str, **parts: object) -> Object:
    """Make a job; a TrainJob with its runtime, which Kueue refuses it without, and which it hears of a moment later."""
    if kind != "TrainJob":
        return work.put(group, kind, name, **parts)
    node = {"name": "node", "template": {"metadata": {"labels": STEP}, "spec": {"template": pods(0)}}}
    runtime = {"mlPolicy": {"numNodes": 1}, "template": {"spec": {"replicatedJobs": [node]}}}
    work.put(group, "TrainingRuntime", RUNTIME["name"], spec=runtime)

    def attempt() -> Object | None:
        try:
            return work.put(group, kind, name, **parts)
        except Refusal as error:
            assert "not found" in error.message  # noqa: PT017 - any other refusal is one
            return None

    return until(attempt)


def pods(gpus: int, name: str = "main") -> Object:
    """Return a template of pods that want GPUs."""
    container = {"name": name, "image": "none", "resources": {"limits": {GPU: str(gpus)}}}
    return {"spec": {"containers": [container], "restartPolicy": "Never"}}


def specs(gpus: int) -> dict[str, tuple[str, Object]]:
    """Return the group and the spec of a job of each kind, that asks for GPUs in one pod."""
    replicated = [{"name": "a", "replicas": 1, "template": {"spec": {"template": pods(gpus)}}}]
    workers = {"Worker": {"replicas": 1, "template": pods(gpus, "pytorch")}}
    trainer = {"numNodes": 1, "resourcesPerNode": {"limits": {GPU: str(gpus)}}}
    return {
        "Job": ("batch/v1", {"template": pods(gpus)}),
        "JobSet": ("jobset.x-k8s.io", {"replicatedJobs": replicated}),
        "PyTorchJob": ("kubeflow.org", {"pytorchReplicaSpecs": workers}),
        "RayCluster": ("ray.io", {"headGroupSpec": {"rayStartParams": {}, "template": pods(gpus)}}),
        "TrainJob": ("trainer.kubeflow.org", {"runtimeRef": RUNTIME, "trainer": trainer}),
    }


@dataclass
class Queues:
    """Queues of one cohort of a test's own, over one flavor; jobs lie in `space` ("" = the arena's namespace)."""

    work: Arena
    space: str = ""

    def __post_init__(self) -> None:
        self.space = self.space or self.work.namespace
        labels = {"karpenter.sh/nodepool": self.work.name("pool")}
        made = self.work.put(KUEUE, "ResourceFlavor", self.flavor, spec={"nodeLabels": labels})
        self.is_ruled = IN_USE in made["metadata"].get("finalizers", ())

    @property
    def flavor(self) -> str:
        return self.work.name("flavor")

    @property
    def _place(self) -> Object:
        return {"namespace": self.space}

    def need_kueue(self) -> "Queues":
        """Return itself, or skip the test where queues lie about and nobody admits anything."""
        return self if self.is_ruled else pytest.skip("Kueue's kinds are served here, but no Kueue rules them")

    def add(self, name: str, gpus: int, **limits: str) -> Object:
        """Make a queue of the cohort and a local one of that name that leads to it."""
        gpu = {"name": GPU, "nominalQuota": str(gpus), **limits}
        group = {"coveredResources": [GPU], "flavors": [{"name": self.flavor, "resources": [gpu]}]}
        labels = {"gpusteward.dev/workspace": self.work.name(name)}
        spec = {**self.work.cohort(self.work.name("all")), "namespaceSelector": {}, "resourceGroups": [group]}
        whole = self.work.put(KUEUE, "ClusterQueue", self.work.name(name), metadata={"labels": labels}, spec=spec)
        self.work.put(KUEUE, "LocalQueue", name, spec={"clusterQueue": self.work.name(name)})
        return whole

    def submit(self, queue: str, gpus: int, name: str = "w", kind: str = "Job") -> Object:
        """Put a job into a queue; skip the test where this Kueue does not start jobs of that kind."""
        group, spec = specs(gpus)[kind]
        meta = {**self._place, "labels": {QUEUE_NAME: queue}}
        made = put_job(self.work, group, kind, name, metadata=meta, spec=spec)
        return made if _is_held(made) else pytest.skip(f"this Kueue does not start a {kind}")

    def submit_gang(self, queue: str, *names: str) -> None:
        """Put pods of one GPU each into a queue that run together or not at all, and wait for Kueue to see them."""
        resource = self.work.resource(KUEUE, "Workload")
        path = resource.path("gang", self.space)
        self.work.made.append(path)  # goes after its pods, which Kueue holds until it goes
        meta = {
            **self._place,
            "labels": {QUEUE_NAME: queue, "kueue.x-k8s.io/pod-group-name": "gang"},
            "annotations": {"kueue.x-k8s.io/pod-group-total-count": str(len(names))},
        }
        for name in names:
            spec = {**pods(1)["spec"], "schedulerName": "steward-test"}
            self.work.put("v1", "Pod", name, metadata=meta, spec=spec)
        until(lambda: self.work.server or not self._is_gone(KUEUE, "Workload", "gang"))  # ours makes none of pods

    def withdraw(self, name: str) -> None:
        """Delete a job, and so take it out of its queue."""
        self.work.drop(self.work.resource("batch/v1", "Job").path(name, self.space))

    def used(self, name: str) -> str:
        """Return how much of its flavor a queue has given to admitted work."""
        status = self.work.see(KUEUE, "ClusterQueue", self.work.name(name)).get("status") or {}
        flavors = {each["name"]: each["resources"] for each in status.get("flavorsUsage") or ()}
        return next((str(each["total"]) for each in flavors.get(self.flavor, ()) if each["name"] == GPU), "")

    def pending(self, name: str) -> int:
        """Return how many jobs wait in a queue."""
        status = self.work.see(KUEUE, "ClusterQueue", self.work.name(name)).get("status") or {}
        return int(status.get("pendingWorkloads", 0))

    def workload(self, job: Object) -> Object:
        """Return Kueue's workload of a job."""
        return until(lambda: self.seen(job))

    def seen(self, job: Object) -> Object | None:
        """Return Kueue's workload of a job, if there is one yet."""
        resource = self.work.resource(KUEUE, "Workload")
        every = self.work.client.get(resource.path(namespace=self.space))["items"]
        mine = [each for each in every if _owner(each) == job["metadata"]["uid"]]
        assert len(mine) < 2
        return mine[0] if mine else None

    def until_admitted(self, job: Object) -> Object:
        """Wait until a job may run and is told so; return it."""
        return until(lambda: found if (found := self._job(job)) and not _is_held(found) and self._holds(job) else None)

    def until_held(self, job: Object) -> Object:
        """Wait until a job may not run, and holds no quota; return it."""
        return until(lambda: found if (found := self._job(job)) and _is_held(found) and not self._holds(job) else None)

    def until_gone(self, group: str, kind: str, name: str) -> None:
        """Wait until an object is gone."""
        until(lambda: self._is_gone(group, kind, name))

    def _holds(self, job: Object) -> bool:
        found = self.seen(job)
        return found is not None and "admission" in (found.get("status") or {})

    def _job(self, job: Object) -> Object:
        group = str(job["apiVersion"])
        return self.work.see(
            group if group == "batch/v1" else group.partition("/")[0], job["kind"], _name(job), self.space
        )

    def _is_gone(self, group: str, kind: str, name: str) -> bool:
        try:
            self.work.see(group, kind, name, self.space)
        except Refusal as error:
            return error.code == 404
        return False


def _is_held(job: Object) -> bool:
    return bool({**job["spec"], **job["spec"].get("runPolicy", {})}.get("suspend"))


def _name(body: Object) -> str:
    return str(body["metadata"]["name"])


def _owner(workload: Object) -> str | None:
    owners = workload["metadata"].get("ownerReferences") or ()
    return next((each["uid"] for each in owners if each.get("controller")), None)
