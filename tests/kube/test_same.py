"""The same requests are answered alike by our server and, marked `cluster`, by a real one: what is refused, and why."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.kube.answers import Object, Refusal
from tests.kube.client import APPLY, JSON_PATCH, MERGE, STRATEGIC
from tests.kube.places import Place, place

pytestmark = pytest.mark.enable_socket
NODES, PODS, QUOTAS, LIMITS = "/api/v1/nodes", "NS:pods", "NS:resourcequotas", "NS:limitranges"
DEPLOYMENTS, SETS, JOBS = "/apis/apps/v1/NS/deployments", "/apis/apps/v1/NS/statefulsets", "/apis/batch/v1/NS/jobs"
BUDGETS, POLICIES = "/apis/policy/v1/NS/poddisruptionbudgets", "/apis/networking.k8s.io/v1/NS/networkpolicies"
ROLES = "/apis/rbac.authorization.k8s.io/v1/NS/roles"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/NS/rolebindings"
LEASES, EVENTS = "/apis/coordination.k8s.io/v1/NS/leases", "/apis/events.k8s.io/v1/NS/events"
TAINTS = "/apis/resource.k8s.io/v1beta2/devicetaintrules"
BOXES = "/apis/ME.test/v1/NS/boxes"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
STRICT, FIRST = {"fieldValidation": "Strict"}, {"metadata": {"resourceVersion": "1"}}
OURS = {"fieldManager": "gpu-steward"}

BOX_SPEC: Object = {
    "type": "object", "required": ["size"],
    "properties": {
        "size": {"type": "string", "pattern": "^[0-9]+$"},
        "stop": {"type": "string", "enum": ["None", "Hold"], "default": "None"},
        "owner": {"type": "string",
                  "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "field is immutable"}]},
        "groups": {"type": "array", "maxItems": 2, "x-kubernetes-list-type": "atomic", "items": {"type": "string"}},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                  "items": {"type": "object", "required": ["name"],
                            "properties": {"name": {"type": "string"}, "count": {"type": "integer", "minimum": 0}}}},
    },
}  # fmt: skip
BOX_CRD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boxes.ME.test"},
    "spec": {
        "group": "ME.test", "scope": "Namespaced",
        "names": {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"},
        "versions": [{
            "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": BOX_SPEC, "status": {"type": "object",
                                                            "x-kubernetes-preserve-unknown-fields": True}},
            }},
        }],
    },
}  # fmt: skip

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
    before: tuple[tuple[str, Object], ...] = (), **query: str,
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

REFUSED = [
    # nodes
    invalid("taint of no effect", A_NODE, taint(key="k"), (LACKING, "metadata.taints[0].effect")),
    invalid("taint of an effect nobody knows", A_NODE, taint(key="k", effect="Go"), (UNKNOWN, "metadata.taints[0].effect")),
    invalid("taint with a bad key", A_NODE, taint(key="a b", effect="NoSchedule"), (BAD, "metadata.taints[0].key")),
    invalid("label with a bad key", A_NODE, {"metadata": {"labels": {"a b": "c"}}}, (BAD, "metadata.labels")),
    invalid("label with a bad value", A_NODE, {"metadata": {"labels": {"a": "b c!"}}}, (BAD, "metadata.labels")),
    invalid("annotation with a bad key", A_NODE, {"metadata": {"annotations": {"a b": "c"}}}, (BAD, "metadata.annotations")),
    invalid("annotation that is no text", A_NODE, {"metadata": {"annotations": {"a": 5}}}, (BAD, "patch")),
    invalid("flag that is a text", A_NODE, {"spec": {"unschedulable": "yes"}}, (BAD, "patch")),
    invalid("unknown field, strictly", A_NODE, {"spec": {"unschedulabel": True}}, (BAD, "patch"), **STRICT),
    invalid("unknown field, strictly and strategically", A_NODE, {"spec": {"unschedulabel": True}}, (BAD, "patch"),
            kind=STRATEGIC, **STRICT),
    patch("an older version, merged", A_NODE, {**FIRST, "spec": {"unschedulable": True}}, 409, "Conflict"),
    patch("an older version, as operations", A_NODE,
          [{"op": "replace", "path": "/metadata/resourceVersion", "value": "1"}], 409, "Conflict", kind=JSON_PATCH),
    invalid("a test that fails", A_NODE, [{"op": "test", "path": "/spec/unschedulable", "value": True}], kind=JSON_PATCH),
    invalid("taking off what is not there", A_NODE, [{"op": "remove", "path": "/metadata/annotations/x"}], kind=JSON_PATCH),
    patch("applied over another's label", A_NODE,
          {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ME", "labels": {"x": "z"}}},
          409, "Conflict", (CONFLICT, ".metadata.labels.x"), kind=APPLY, **OURS),
    patch("applied under another name", A_NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other"}},
          400, "BadRequest", kind=APPLY, **OURS),
    patch("applied without a version", A_NODE, {"kind": "Node", "metadata": {"name": "ME"}}, 400, "BadRequest",
          kind=APPLY, **OURS),
    patch("applied with a field nobody knows", A_NODE,
          {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ME"}, "spec": {"unschedulabel": True}},
          500, "", kind=APPLY, **OURS),
    invalid("applied by nobody", A_NODE, {"apiVersion": "v1", "kind": "Node"}, (LACKING, "fieldManager"), kind=APPLY),
    invalid("tried in a way nobody knows", A_NODE, {}, (UNKNOWN, "dryRun"), dryRun="Some"),
    # pods
    unmade("pod with a bad name", PODS, {**POD, "metadata": {"name": "A_b"}}, (BAD, "metadata.name")),
    unmade("pod without a name", PODS, {**POD, "metadata": {}}, (LACKING, "metadata.name")),
    unmade("pod without containers", PODS, {**POD, "spec": {"containers": []}}, (LACKING, "spec.containers")),
    unmade("container without an image", PODS, {**POD, "spec": {"containers": [{"name": "m"}]}},
           (LACKING, "spec.containers[0].image")),
    make("container with a limit that is no amount", PODS, {**POD, "spec": {"containers": [
        {**CONTAINERS[0], "resources": {"limits": {"nvidia.com/gpu": "two"}}}]}}, 400, "BadRequest"),
    unmade("asking for less GPUs than the limit", PODS, {**POD, "spec": {"containers": [
        {**CONTAINERS[0], "resources": {"limits": {"nvidia.com/gpu": "2"}, "requests": {"nvidia.com/gpu": "1"}}}]}},
        (BAD, "spec.containers[0].resources.requests")),
    unmade("half a GPU", PODS, {**POD, "spec": {"containers": [
        {**CONTAINERS[0], "resources": {"limits": {"nvidia.com/gpu": "1.5"}}}]}},
        (BAD, "spec.containers[0].resources.limits[nvidia.com/gpu]"),
        (BAD, "spec.containers[0].resources.requests[nvidia.com/gpu]")),
    make("pod with an unknown field, strictly", PODS, {**POD, "spec": {"containers": CONTAINERS, "x": 1}},
         400, "BadRequest", **STRICT),
    make("another kind's object", PODS, {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}}, 400, "BadRequest"),
    make("another namespace's object", PODS, {**POD, "metadata": {"name": "p", "namespace": "other"}}, 400, "BadRequest"),
    make("an object that has a version already", PODS, {**POD, "metadata": {"name": "v", "resourceVersion": "5"}}, 500, ""),
    invalid("what a pod is made of", A_POD, {"spec": {"restartPolicy": "Never"}}, ("FieldValueForbidden", "spec")),
    make("eviction of another name", f"{PODS}/p/eviction", {"apiVersion": "policy/v1", "kind": "Eviction",
         "metadata": {"name": "other"}}, 400, "BadRequest", before=(A_POD,)),
    make("eviction of another pod of that name", f"{PODS}/p/eviction", {"apiVersion": "policy/v1", "kind": "Eviction",
         "metadata": {"name": "p"}, "deleteOptions": {"preconditions": {"uid": "x"}}}, 409, "Conflict", before=(A_POD,)),
    make("eviction of no pod", f"{PODS}/none/eviction", {"metadata": {"name": "none"}}, 404, "NotFound"),
    Case("deletion of another pod of that name", (A_POD,), "DELETE", f"{PODS}/p", {"preconditions": {"uid": "x"}},
         409, "Conflict"),
    Case("deletion of an older version", (A_POD,), "DELETE", f"{PODS}/p", {"preconditions": {"resourceVersion": "1"}},
         409, "Conflict"),
    # scale and jobs
    invalid("less than no replicas", A_DEPLOYMENT, {"spec": {"replicas": -1}}, (BAD, "spec.replicas"), part="/scale"),
    invalid("replicas that are a text", A_DEPLOYMENT, {"spec": {"replicas": "x"}}, (BAD, "patch"), part="/scale"),
    patch("scale of an older version", A_DEPLOYMENT, {**FIRST, "spec": {"replicas": 3}}, 409, "Conflict", part="/scale"),
    invalid("deployment's negative replicas", A_DEPLOYMENT, {"spec": {"replicas": -1}}, (BAD, "spec.replicas")),
    invalid("deployment's selector", A_DEPLOYMENT, {"spec": {"selector": {"matchLabels": {"z": "z"}}}},
            (BAD, "spec.template.metadata.labels"), (BAD, "spec.selector")),
    invalid("job's completions", A_JOB, {"spec": {"completions": 9}}, (BAD, "spec.completions")),
    invalid("job's flag that is a text", A_JOB, {"spec": {"suspend": "x"}}, (BAD, "patch")),
    Case("scale of a kind that has none", (A_JOB,), "GET", f"{JOBS}/j/scale", None, 404, "NotFound"),
    # quotas and limits
    invalid("quota that is no amount", A_QUOTA, {"spec": {"hard": {"requests.nvidia.com/gpu": "x"}}}, (BAD, "patch")),
    invalid("quota below nothing", A_QUOTA, {"spec": {"hard": {"requests.nvidia.com/gpu": "-1"}}},
            (BAD, "spec.hard[requests.nvidia.com/gpu]")),
    invalid("quota's scopes", A_QUOTA, {"spec": {"scopes": ["BestEffort"]}}, (BAD, "spec.scopes")),
    patch("quota applied over another's amount", A_QUOTA, {"apiVersion": "v1", "kind": "ResourceQuota",
          "metadata": {"name": "q"}, "spec": {"hard": {"requests.nvidia.com/gpu": "4"}}}, 409, "Conflict",
          (CONFLICT, ".spec.hard.requests.nvidia.com/gpu"), kind=APPLY, **OURS),
    unmade("limits whose request is over their default", LIMITS, {"metadata": {"name": "lr"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1500m"}}]}},
        (BAD, "spec.limits[0].defaultRequest[cpu]")),
    unmade("limits of no kind", LIMITS, {"metadata": {"name": "lr"}, "spec": {"limits": [{"type": "Box"}]}},
           (BAD, "spec.limits[0].type")),
    make("pod over a limit", PODS, {**POD, "metadata": {"name": "over"}, "spec": {"containers": [
        {**CONTAINERS[0], "resources": {"limits": {"nvidia.com/gpu": "5"}}}]}}, 403, "Forbidden",
        before=((LIMITS, {"metadata": {"name": "lr"},
                          "spec": {"limits": [{"type": "Container", "max": {"nvidia.com/gpu": "4"}}]}}),)),
    # network policies, roles, leases, events, fences
    unmade("policy of no way", POLICIES, {"metadata": {"name": "n"}, "spec": {"podSelector": {}, "policyTypes": ["Up"]}},
           (UNKNOWN, "spec.policyTypes[0]")),
    unmade("policy from nobody", POLICIES, {"metadata": {"name": "n"}, "spec": {"podSelector": {},
           "ingress": [{"from": [{}]}]}}, (LACKING, "spec.ingress[0].from[0]")),
    unmade("policy from no network", POLICIES, {"metadata": {"name": "n"}, "spec": {"podSelector": {},
           "ingress": [{"from": [{"ipBlock": {"cidr": "x"}}]}]}}, (BAD, "spec.ingress[0].from[0].ipBlock.cidr")),
    unmade("policy to no port", POLICIES, {"metadata": {"name": "n"}, "spec": {"podSelector": {},
           "egress": [{"ports": [{"port": 99999}]}]}}, (BAD, "spec.egress[0].ports[0].port")),
    unmade("role without verbs", ROLES, {"metadata": {"name": "r2"}, "rules": [{"apiGroups": [""], "resources": ["pods"]}]},
           (LACKING, "rules[0].verbs")),
    unmade("role without groups", ROLES, {"metadata": {"name": "r2"}, "rules": [{"resources": ["pods"], "verbs": ["get"]}]},
           (LACKING, "rules[0].apiGroups")),
    invalid("binding's role", A_BINDING, {"roleRef": {"name": "other"}}, (BAD, "roleRef")),
    unmade("binding to no kind of role", BINDINGS, {**BINDING, "roleRef": {**BINDING["roleRef"], "kind": "Box"}},
           (UNKNOWN, "roleRef.kind")),
    unmade("binding of no kind of subject", BINDINGS, {**BINDING, "subjects": [{"kind": "Robot", "name": "x"}]},
           (UNKNOWN, "subjects[0].kind")),
    invalid("lease of no time", A_LEASE, {"spec": {"leaseDurationSeconds": 0}}, (BAD, "spec.leaseDurationSeconds")),
    invalid("lease renewed without microseconds", A_LEASE, {"spec": {"renewTime": "2026-01-01T00:00:01Z"}}, (BAD, "patch")),
    patch("lease taken over too late", A_LEASE, {**FIRST, "spec": {"holderIdentity": "b"}}, 409, "Conflict"),
    unmade("event of another namespace", EVENTS, {**EVENT, "regarding": {"kind": "Node", "name": "n"}},
           (BAD, "involvedObject.namespace")),
    unmade("event of no time", EVENTS, {name: each for name, each in EVENT.items() if name != "eventTime"},
           (LACKING, "eventTime")),
    unmade("event of no type", EVENTS, {**EVENT, "type": "Bad"}, (BAD, "type")),
    unmade("fence of no effect", TAINTS, {**FENCE, "spec": {**FENCE["spec"], "taint": {"key": "k", "effect": "Go"}}},
           (UNKNOWN, "spec.taint.effect")),
    # custom objects
    unmade("box without a size", BOXES, {**BOX, "spec": {}}, (LACKING, "spec.size"), (BAD, "<nil>")),
    invalid("box of a size that is none", A_BOX, {"spec": {"size": "big"}}, (BAD, "spec.size")),
    invalid("box stopped nohow", A_BOX, {"spec": {"stop": "Wrong"}}, (UNKNOWN, "spec.stop"), (BAD, "<nil>")),
    invalid("box stopped by a number", A_BOX, {"spec": {"stop": 7}}, ("FieldValueTypeInvalid", "spec.stop"),
            (UNKNOWN, "spec.stop"), (BAD, "<nil>")),
    invalid("box of another owner", A_BOX, {"spec": {"owner": "b"}}, (BAD, "spec.owner")),
    invalid("box's part below nothing", A_BOX, {"spec": {"parts": [{"name": "a", "count": -1}]}},
            (BAD, "spec.parts[0].count")),
    invalid("box with an unknown field, strictly", A_BOX, {"spec": {"colour": "red"}}, (BAD, "patch"), **STRICT),
    patch("box applied with an unknown field", A_BOX, box(colour="red"), 500, "", kind=APPLY, **OURS),
    patch("box patched strategically", A_BOX, {"spec": {"stop": "Hold"}}, 415, "UnsupportedMediaType", kind=STRATEGIC),
    patch("box of an older version", A_BOX, {**FIRST, "spec": {"stop": "Hold"}}, 409, "Conflict"),
    make("box without a kind", BOXES, {"metadata": {"name": "x"}, "spec": {"size": "8"}}, 400, "BadRequest"),
    Case("no such box", (), "GET", f"{BOXES}/none", None, 404, "NotFound"),
    Case("a namespace that every cluster needs", (), "DELETE", "/api/v1/namespaces/kube-system", None, 403, "Forbidden"),
]  # fmt: skip


@pytest.fixture(scope="module", params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(request.param, tmp_path_factory.mktemp("kube")) as made:
        definition = made.fill(BOX_CRD)
        assert isinstance(definition, dict)
        made.client.create(CRDS, definition)
        try:
            _wait_for_boxes(made)
            yield made
        finally:
            made.client.delete(f"{CRDS}/{made.path('boxes.ME.test')}")


@pytest.fixture
def at(here: Place) -> Iterator[Place]:
    yield here
    here.clean()


def _wait_for_boxes(made: Place) -> None:
    for _ in range(2000):
        try:
            made.client.get(made.path(BOXES))
        except Refusal as error:
            assert error.code in {404, 429, 503}  # noqa: PT017 - it is not served yet
        else:
            return
    pytest.fail("the kind is not served")


def ask(where: Place, case: Case) -> Refusal:
    """Arrange what stands before, ask, and return the refusal."""
    for path, body in case.before:
        where.put(path, body)
    with pytest.raises(Refusal) as caught:
        where.client.ask(case.verb, where.path(case.path), where.fill(case.body), kind=case.kind, **case.query)
    return caught.value


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_what_is_refused_is_refused_for_its_reason(at: Place, case: Case) -> None:
    error = ask(at, case)
    causes = {(each.get("reason"), each.get("field")) for each in error.causes}
    assert (error.code, error.reason) == (case.code, case.reason), error.message
    assert causes == set(case.fields), error.message
