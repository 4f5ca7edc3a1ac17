"""How a refusal is asked for, in few words: the objects that stand before, the requests, what is told."""

from dataclasses import dataclass, field
from typing import Any

from tests.kube.answers import Object
from tests.kube.boxes import BOXES
from tests.kube.client import MERGE

NODES, PODS, QUOTAS, LIMITS = "/api/v1/nodes", "NS:pods", "NS:resourcequotas", "NS:limitranges"
DEPLOYMENTS, SETS, JOBS = "/apis/apps/v1/NS/deployments", "/apis/apps/v1/NS/statefulsets", "/apis/batch/v1/NS/jobs"
BUDGETS, POLICIES = "/apis/policy/v1/NS/poddisruptionbudgets", "/apis/networking.k8s.io/v1/NS/networkpolicies"
ROLES = "/apis/rbac.authorization.k8s.io/v1/NS/roles"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/NS/rolebindings"
LEASES, EVENTS = "/apis/coordination.k8s.io/v1/NS/leases", "/apis/events.k8s.io/v1/NS/events"
TAINTS = "/apis/resource.k8s.io/v1beta2/devicetaintrules"
STRICT: Any = {"fieldValidation": "Strict"}
FIRST: Object = {"metadata": {"resourceVersion": "1"}}
OURS: Any = {"fieldManager": "gpu-steward"}

CONTAINERS = [{"name": "main", "image": "none"}]
NODE: Object = {"metadata": {"name": "ME", "labels": {"x": "y"}}}
POD: Object = {
    "metadata": {"name": "p", "labels": {"app": "x"}},
    "spec": {"containers": CONTAINERS, "schedulerName": "steward-test"},
}
DEPLOYMENT: Object = {
    "metadata": {"name": "d"},
    "spec": {"replicas": 0, "paused": True, "selector": {"matchLabels": {"a": "b"}},
             "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": CONTAINERS}}},
}  # fmt: skip
JOB: Object = {
    "metadata": {"name": "j"},
    "spec": {"suspend": True, "managedBy": "steward.test/nobody",
             "template": {"spec": {"restartPolicy": "Never", "containers": CONTAINERS}}},
}  # fmt: skip
QUOTA: Object = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.nvidia.com/gpu": "2"}}}
ROLE: Object = {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}
BINDING: Object = {
    "metadata": {"name": "rb"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
    "subjects": [{"kind": "ServiceAccount", "name": "sa", "namespace": "ME"}],
}  # fmt: skip
LEASE: Object = {
    "metadata": {"name": "l"},
    "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"},
}
EVENT: Object = {
    "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "gpu-steward",
    "reportingInstance": "i", "action": "Reclaim", "reason": "Idle", "type": "Normal",
    "regarding": {"kind": "Pod", "name": "p", "namespace": "ME"},
}  # fmt: skip
FENCE: Object = {
    "metadata": {"name": "ME"},
    "spec": {"deviceSelector": {"driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-0"},
             "taint": {"key": "gpusteward.dev/fenced", "value": "xid", "effect": "NoSchedule"}},
}  # fmt: skip
BOX: Object = {
    "apiVersion": "ME.test/v1",
    "kind": "Box",
    "metadata": {"name": "b"},
    "spec": {"size": "8", "owner": "a"},
}


def box(**spec: object) -> Object:
    return {**BOX, "spec": {"size": "8", "owner": "a", **spec}}


def taint(**parts: str) -> Object:
    return {"spec": {"taints": [parts]}}


@dataclass(frozen=True)
class Case:
    """What stands before, what is asked, and the code, reason and wrong fields of the refusal."""

    id: str
    before: tuple[tuple[str, Object], ...]
    verb: str
    path: str
    body: object
    code: int
    reason: str
    fields: tuple[tuple[str, str], ...] = ()
    kind: str = "application/json"
    query: dict[str, str] = field(default_factory=dict)


def patch(
    id_: str, where: tuple[str, Object], body: object, code: int, reason: str, *fields: tuple[str, str],
    kind: str = MERGE, part: str = "", **query: str,
) -> Case:  # fmt: skip
    path = f"{where[0]}/{where[1]['metadata']['name']}{part}"
    return Case(id_, (where,), "PATCH", path, body, code, reason, fields, kind, query)


def make(
    id_: str, path: str, body: object, code: int, reason: str, *fields: tuple[str, str],
    before: tuple[tuple[str, Object], ...] = (), **query: Any,
) -> Case:  # fmt: skip
    return Case(id_, before, "POST", path, body, code, reason, fields, query=query)


def invalid(id_: str, where: tuple[str, Object], body: object, *fields: tuple[str, str], **more: Any) -> Case:
    return patch(id_, where, body, 422, "Invalid", *fields, **more)


def unmade(id_: str, path: str, body: object, *fields: tuple[str, str], **more: Any) -> Case:
    return make(id_, path, body, 422, "Invalid", *fields, **more)


A_NODE, A_POD, A_DEPLOYMENT, A_JOB = (NODES, NODE), (PODS, POD), (DEPLOYMENTS, DEPLOYMENT), (JOBS, JOB)
A_QUOTA, A_BINDING, A_LEASE, A_BOX = (QUOTAS, QUOTA), (BINDINGS, BINDING), (LEASES, LEASE), (BOXES, BOX)
BAD, LACKING, UNKNOWN = "FieldValueInvalid", "FieldValueRequired", "FieldValueNotSupported"
CONFLICT = "FieldManagerConflict"
