"""A Kubernetes cluster under a test's feet, in memory or the one that KUBECONFIG names, and moves to make on it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from types import MappingProxyType

import pytest

from actions.fields import fields_of
from actions.index import index_of
from actions.kinds import KINDS
from actions.kube import KubeApi
from actions.kube_cluster import KubeCluster
from actions.kube_state import Holding, Known
from fleet.clock import SystemClock
from fleet.move import Move, MoveKind, Value
from fleet.state import Gpu, Node, ObjectRef
from tests.kube.answers import Object, Refusal
from tests.kube.arrange import Arranger
from tests.kube.client import Client
from tests.kube.server import KubeServer

CLUSTER = "east"
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass
class Ground:
    """A namespace and nodes of one test's own, the cluster as moves reach it, and what is known of its GPUs.

    `server` is None where the cluster is a real one: faults can be arranged in memory only.
    """

    arrange: Arranger
    server: KubeServer | None = None
    known: Known = field(default_factory=Known)
    waits: list[float] = field(default_factory=list)
    pods: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.api = KubeApi(CLUSTER, None, self.waits.append)
        self.cluster = KubeCluster(CLUSTER, self.api, lambda: self.known, SystemClock())

    @property
    def client(self) -> Client:
        return self.arrange.client

    def memory(self) -> KubeServer:
        """Return the server in memory, or skip the test where there is none."""
        return self.server or pytest.skip("a real cluster has no faults on purpose")

    def name(self, short: str) -> str:
        """Return a name that no other test has, for objects without a namespace."""
        return f"{self.arrange.namespace}-{short}"

    def node(self, short: str = "n1", gpus: int = 8, labels: Mapping[str, str] = NOTHING) -> str:
        """Make a node that is ready, and let its GPUs be known."""
        name = self.name(short)
        self.arrange.node(name, gpus, **labels)
        self.known = replace(self.known, gpus=(*self.known.gpus, *(self._gpu(name, each) for each in range(gpus))))
        return name

    def lose(self, node: str) -> None:
        """Take a node away."""
        self.client.delete(f"/api/v1/nodes/{node}")
        self.arrange.made.remove(f"/api/v1/nodes/{node}")

    def uuid(self, node: str, place: int = 0) -> str:
        return f"GPU-{node}-{place}"

    def hold(self, pod: Object, uuids: Iterable[str]) -> None:
        """Let it be known which GPUs a pod holds."""
        held = {**self.known.held, pod["metadata"]["uid"]: Holding(tuple(uuids))}
        self.known = replace(self.known, held=held)

    def found(self, node: str) -> Object:
        return self.client.get(f"/api/v1/nodes/{node}")

    def taints(self, node: str) -> list[Object]:
        """Return a node's taints without those that the control plane keeps."""
        taints = (self.found(node).get("spec") or {}).get("taints") or []
        return [each for each in taints if not each["key"].startswith("node.kubernetes.io/")]

    def seen(self, name: str) -> Node:
        """Return a node as it is observed afresh."""
        return next(each for each in self.cluster.observe().nodes if each.name == name)

    def move(
        self, kind: MoveKind, node: str, arguments: Mapping[str, Value] = MappingProxyType({}), **changes: object
    ) -> Move:
        """Build a move of a node as it is now."""
        version = self.seen(node).resource_version
        plain = Move(
            "m1", kind, CLUSTER, ObjectRef("Node", "", node), "xid_79", "it fails", node=node, resource_version=version,
            arguments=arguments,
        )  # fmt: skip
        return replace(plain, **changes)  # type: ignore[arg-type] # whatever a test changes

    def prior(self, move: Move) -> Mapping[str, Value]:
        """Return the fields of a move's target as they are observed."""
        index = index_of(self.cluster.observe_for(move))
        return fields_of(move, index) or pytest.fail(f"{KINDS[move.kind].scope} is gone")

    def pod(
        self,
        name: str,
        node: str,
        gpus: int = 1,
        owner: Object | None = None,
        labels: Mapping[str, str] = NOTHING,
    ) -> Object:
        """Let a pod run on a node."""
        if not self.pods:
            self._account()
        made = self.arrange.pod(name, gpus, owner, dict(labels))
        self.arrange.start(name, node)
        self.pods.append(name)
        return made

    def job(self, name: str) -> Object:
        """Make a job with GPUs that no controller runs, as an owner of pods."""
        resources = {"limits": {"nvidia.com/gpu": "1"}}
        pods = {"containers": [{"name": "m", "image": "none", "resources": resources}], "restartPolicy": "Never"}
        spec = {"managedBy": "gpusteward.dev/test", "template": {"spec": pods}}
        return self.client.create(
            self.arrange.path("jobs", group="apis/batch/v1"),
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec},
        )

    def leaving(self) -> set[str]:
        """Return the pods that were asked to leave, by name: gone, or about to go."""
        found = {each["metadata"]["name"]: each for each in self.client.get(self.arrange.path("pods"))["items"]}
        return {name for name in self.pods if name not in found or "deletionTimestamp" in found[name]["metadata"]}

    def close(self) -> None:
        self.api.close()
        for name in self.leaving():
            try:
                self.arrange.remove(name)  # no kubelet lets them end
            except Refusal:
                continue
        self.arrange.close()

    def _account(self) -> None:
        """Make the account that pods run as, where no controller did yet."""
        try:
            self.client.create(self.arrange.path("serviceaccounts"), {"metadata": {"name": "default"}})
        except Refusal as error:
            if error.code != HTTPStatus.CONFLICT:
                raise

    def _gpu(self, node: str, place: int) -> Gpu:
        return Gpu(self.uuid(node, place), CLUSTER, node, index=place)
