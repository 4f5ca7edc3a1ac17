"""The table of what is refused: what stands before, what is asked, and the code, reason and wrong fields told."""

from tests.kube.boxes import BOXES
from tests.kube.cases import (
    A_BINDING,
    A_BOX,
    A_DEPLOYMENT,
    A_JOB,
    A_LEASE,
    A_NODE,
    A_POD,
    A_QUOTA,
    BAD,
    BINDING,
    BINDINGS,
    BOX,
    CONFLICT,
    CONTAINERS,
    EVENT,
    EVENTS,
    FENCE,
    FIRST,
    JOBS,
    LACKING,
    LIMITS,
    OURS,
    POD,
    PODS,
    POLICIES,
    ROLES,
    STRICT,
    TAINTS,
    UNKNOWN,
    Case,
    box,
    invalid,
    make,
    patch,
    taint,
    unmade,
)
from tests.kube.client import APPLY, JSON_PATCH, STRATEGIC

REFUSED = [
    # nodes
    invalid("taint of no effect", A_NODE, taint(key="k"), (LACKING, "metadata.taints[0].effect")),
    invalid(
        "taint of an effect nobody knows", A_NODE, taint(key="k", effect="Go"), (UNKNOWN, "metadata.taints[0].effect")
    ),
    invalid("taint with a bad key", A_NODE, taint(key="a b", effect="NoSchedule"), (BAD, "metadata.taints[0].key")),
    invalid("label with a bad key", A_NODE, {"metadata": {"labels": {"a b": "c"}}}, (BAD, "metadata.labels")),
    invalid("label with a bad value", A_NODE, {"metadata": {"labels": {"a": "b c!"}}}, (BAD, "metadata.labels")),
    invalid(
        "annotation with a bad key", A_NODE, {"metadata": {"annotations": {"a b": "c"}}}, (BAD, "metadata.annotations")
    ),
    invalid("annotation that is no text", A_NODE, {"metadata": {"annotations": {"a": 5}}}, (BAD, "patch")),
    invalid("flag that is a text", A_NODE, {"spec": {"unschedulable": "yes"}}, (BAD, "patch")),
    invalid("unknown field, strictly", A_NODE, {"spec": {"unschedulabel": True}}, (BAD, "patch"), **STRICT),
    invalid(
        "unknown field, strictly and strategically",
        A_NODE,
        {"spec": {"unschedulabel": True}},
        (BAD, "patch"),
        kind=STRATEGIC,
        **STRICT,
    ),
    patch("an older version, merged", A_NODE, {**FIRST, "spec": {"unschedulable": True}}, 409, "Conflict"),
    patch(
        "an older version, as operations",
        A_NODE,
        [{"op": "replace", "path": "/metadata/resourceVersion", "value": "1"}],
        409,
        "Conflict",
        kind=JSON_PATCH,
    ),
    invalid(
        "a test that fails", A_NODE, [{"op": "test", "path": "/spec/unschedulable", "value": True}], kind=JSON_PATCH
    ),
    invalid(
        "taking off what is not there", A_NODE, [{"op": "remove", "path": "/metadata/annotations/x"}], kind=JSON_PATCH
    ),
    patch(
        "applied over another's label",
        A_NODE,
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ME", "labels": {"x": "z"}}},
        409,
        "Conflict",
        (CONFLICT, ".metadata.labels.x"),
        kind=APPLY,
        **OURS,
    ),
    patch(
        "applied under another name",
        A_NODE,
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other"}},
        400,
        "BadRequest",
        kind=APPLY,
        **OURS,
    ),
    patch(
        "applied without a version",
        A_NODE,
        {"kind": "Node", "metadata": {"name": "ME"}},
        400,
        "BadRequest",
        kind=APPLY,
        **OURS,
    ),
    patch(
        "applied with a field nobody knows",
        A_NODE,
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ME"}, "spec": {"unschedulabel": True}},
        500,
        "",
        kind=APPLY,
        **OURS,
    ),
    invalid("applied by nobody", A_NODE, {"apiVersion": "v1", "kind": "Node"}, (LACKING, "fieldManager"), kind=APPLY),
    invalid("tried in a way nobody knows", A_NODE, {}, (UNKNOWN, "dryRun"), dryRun="Some"),
    # pods
    unmade("pod with a bad name", PODS, {**POD, "metadata": {"name": "A_b"}}, (BAD, "metadata.name")),
    unmade("pod without a name", PODS, {**POD, "metadata": {}}, (LACKING, "metadata.name")),
    unmade("pod without containers", PODS, {**POD, "spec": {"containers": []}}, (LACKING, "spec.containers")),
    unmade(
        "container without an image",
        PODS,
        {**POD, "spec": {"containers": [{"name": "m"}]}},
        (LACKING, "spec.containers[0].image"),
    ),
    make(
        "container with a limit that is no amount",
        PODS,
        {**POD, "spec": {"containers": [{**CONTAINERS[0], "resources": {"limits": {"nvidia.com/gpu": "two"}}}]}},
        400,
        "BadRequest",
    ),
    unmade(
        "asking for less GPUs than the limit",
        PODS,
        {
            **POD,
            "spec": {
                "containers": [
                    {
                        **CONTAINERS[0],
                        "resources": {"limits": {"nvidia.com/gpu": "2"}, "requests": {"nvidia.com/gpu": "1"}},
                    }
                ]
            },
        },
        (BAD, "spec.containers[0].resources.requests"),
    ),
    unmade(
        "half a GPU",
        PODS,
        {**POD, "spec": {"containers": [{**CONTAINERS[0], "resources": {"limits": {"nvidia.com/gpu": "1.5"}}}]}},
        (BAD, "spec.containers[0].resources.limits[nvidia.com/gpu]"),
        (BAD, "spec.containers[0].resources.requests[nvidia.com/gpu]"),
    ),
    make(
        "pod with an unknown field, strictly",
        PODS,
        {**POD, "spec": {"containers": CONTAINERS, "x": 1}},
        400,
        "BadRequest",
        **STRICT,
    ),
    make(
        "another kind's object",
        PODS,
        {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}},
        400,
        "BadRequest",
    ),
    make(
        "another namespace's object", PODS, {**POD, "metadata": {"name": "p", "namespace": "other"}}, 400, "BadRequest"
    ),
    make(
        "an object that has a version already",
        PODS,
        {**POD, "metadata": {"name": "v", "resourceVersion": "5"}},
        500,
        "",
    ),
    invalid("what a pod is made of", A_POD, {"spec": {"restartPolicy": "Never"}}, ("FieldValueForbidden", "spec")),
    make(
        "eviction of another name",
        f"{PODS}/p/eviction",
        {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "other"}},
        400,
        "BadRequest",
        before=(A_POD,),
    ),
    make(
        "eviction of another pod of that name",
        f"{PODS}/p/eviction",
        {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": "p"},
            "deleteOptions": {"preconditions": {"uid": "x"}},
        },
        409,
        "Conflict",
        before=(A_POD,),
    ),
    Case(
        "deletion of another pod of that name",
        (A_POD,),
        "DELETE",
        f"{PODS}/p",
        {"preconditions": {"uid": "x"}},
        409,
        "Conflict",
    ),
    Case(
        "deletion of an older version",
        (A_POD,),
        "DELETE",
        f"{PODS}/p",
        {"preconditions": {"resourceVersion": "1"}},
        409,
        "Conflict",
    ),
    # scale and jobs
    invalid("less than no replicas", A_DEPLOYMENT, {"spec": {"replicas": -1}}, (BAD, "spec.replicas"), part="/scale"),
    invalid("replicas that are a text", A_DEPLOYMENT, {"spec": {"replicas": "x"}}, (BAD, "patch"), part="/scale"),
    patch(
        "scale of an older version", A_DEPLOYMENT, {**FIRST, "spec": {"replicas": 3}}, 409, "Conflict", part="/scale"
    ),
    invalid(
        "deployment's selector",
        A_DEPLOYMENT,
        {"spec": {"selector": {"matchLabels": {"z": "z"}}}},
        (BAD, "spec.template.metadata.labels"),
        (BAD, "spec.selector"),
    ),
    invalid("job's completions", A_JOB, {"spec": {"completions": 9}}, (BAD, "spec.completions")),
    invalid("job's flag that is a text", A_JOB, {"spec": {"suspend": "x"}}, (BAD, "patch")),
    Case("scale of a kind that has none", (A_JOB,), "GET", f"{JOBS}/j/scale", None, 404, "NotFound"),
    # quotas and limits
    invalid("quota that is no amount", A_QUOTA, {"spec": {"hard": {"requests.nvidia.com/gpu": "x"}}}, (BAD, "patch")),
    invalid(
        "quota below nothing",
        A_QUOTA,
        {"spec": {"hard": {"requests.nvidia.com/gpu": "-1"}}},
        (BAD, "spec.hard[requests.nvidia.com/gpu]"),
    ),
    invalid("quota's scopes", A_QUOTA, {"spec": {"scopes": ["BestEffort"]}}, (BAD, "spec.scopes")),
    patch(
        "quota applied over another's amount",
        A_QUOTA,
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "q"},
            "spec": {"hard": {"requests.nvidia.com/gpu": "4"}},
        },
        409,
        "Conflict",
        (CONFLICT, ".spec.hard.requests.nvidia.com/gpu"),
        kind=APPLY,
        **OURS,
    ),
    unmade(
        "limits whose request is over their default",
        LIMITS,
        {
            "metadata": {"name": "lr"},
            "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1500m"}}]},
        },
        (BAD, "spec.limits[0].defaultRequest[cpu]"),
    ),
    unmade(
        "limits of no kind",
        LIMITS,
        {"metadata": {"name": "lr"}, "spec": {"limits": [{"type": "Box"}]}},
        (BAD, "spec.limits[0].type"),
    ),
    make(
        "pod over a limit",
        PODS,
        {
            **POD,
            "metadata": {"name": "over"},
            "spec": {"containers": [{**CONTAINERS[0], "resources": {"limits": {"nvidia.com/gpu": "5"}}}]},
        },
        403,
        "Forbidden",
        before=(
            (
                LIMITS,
                {
                    "metadata": {"name": "lr"},
                    "spec": {"limits": [{"type": "Container", "max": {"nvidia.com/gpu": "4"}}]},
                },
            ),
        ),
    ),
    # network policies, roles, leases, events, fences
    unmade(
        "policy of no way",
        POLICIES,
        {"metadata": {"name": "n"}, "spec": {"podSelector": {}, "policyTypes": ["Up"]}},
        (UNKNOWN, "spec.policyTypes[0]"),
    ),
    unmade(
        "policy from nobody",
        POLICIES,
        {"metadata": {"name": "n"}, "spec": {"podSelector": {}, "ingress": [{"from": [{}]}]}},
        (LACKING, "spec.ingress[0].from[0]"),
    ),
    unmade(
        "policy from no network",
        POLICIES,
        {"metadata": {"name": "n"}, "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "x"}}]}]}},
        (BAD, "spec.ingress[0].from[0].ipBlock.cidr"),
    ),
    unmade(
        "policy to no port",
        POLICIES,
        {"metadata": {"name": "n"}, "spec": {"podSelector": {}, "egress": [{"ports": [{"port": 99999}]}]}},
        (BAD, "spec.egress[0].ports[0].port"),
    ),
    unmade(
        "role without verbs",
        ROLES,
        {"metadata": {"name": "r2"}, "rules": [{"apiGroups": [""], "resources": ["pods"]}]},
        (LACKING, "rules[0].verbs"),
    ),
    unmade(
        "role without groups",
        ROLES,
        {"metadata": {"name": "r2"}, "rules": [{"resources": ["pods"], "verbs": ["get"]}]},
        (LACKING, "rules[0].apiGroups"),
    ),
    invalid("binding's role", A_BINDING, {"roleRef": {"name": "other"}}, (BAD, "roleRef")),
    unmade(
        "binding to no kind of role",
        BINDINGS,
        {**BINDING, "roleRef": {**BINDING["roleRef"], "kind": "Box"}},
        (UNKNOWN, "roleRef.kind"),
    ),
    unmade(
        "binding of no kind of subject",
        BINDINGS,
        {**BINDING, "subjects": [{"kind": "Robot", "name": "x"}]},
        (UNKNOWN, "subjects[0].kind"),
    ),
    invalid("lease of no time", A_LEASE, {"spec": {"leaseDurationSeconds": 0}}, (BAD, "spec.leaseDurationSeconds")),
    invalid(
        "lease renewed without microseconds", A_LEASE, {"spec": {"renewTime": "2026-01-01T00:00:01Z"}}, (BAD, "patch")
    ),
    patch("lease taken over too late", A_LEASE, {**FIRST, "spec": {"holderIdentity": "b"}}, 409, "Conflict"),
    unmade(
        "event of another namespace",
        EVENTS,
        {**EVENT, "regarding": {"kind": "Node", "name": "n"}},
        (BAD, "involvedObject.namespace"),
    ),
    unmade(
        "event of no time",
        EVENTS,
        {name: each for name, each in EVENT.items() if name != "eventTime"},
        (LACKING, "eventTime"),
    ),
    unmade("event of no type", EVENTS, {**EVENT, "type": "Bad"}, (BAD, "type")),
    unmade(
        "fence of no effect",
        TAINTS,
        {**FENCE, "spec": {**FENCE["spec"], "taint": {"key": "k", "effect": "Go"}}},
        (UNKNOWN, "spec.taint.effect"),
    ),
    # custom objects
    unmade("box without a size", BOXES, {**BOX, "spec": {}}, (LACKING, "spec.size"), (BAD, "<nil>")),
    invalid("box of a size that is none", A_BOX, {"spec": {"size": "big"}}, (BAD, "spec.size")),
    invalid("box stopped nohow", A_BOX, {"spec": {"stop": "Wrong"}}, (UNKNOWN, "spec.stop"), (BAD, "<nil>")),
    invalid(
        "box stopped by a number",
        A_BOX,
        {"spec": {"stop": 7}},
        ("FieldValueTypeInvalid", "spec.stop"),
        (UNKNOWN, "spec.stop"),
        (BAD, "<nil>"),
    ),
    invalid("box of another owner", A_BOX, {"spec": {"owner": "b"}}, (BAD, "spec.owner")),
    invalid(
        "box's part below nothing",
        A_BOX,
        {"spec": {"parts": [{"name": "a", "count": -1}]}},
        (BAD, "spec.parts[0].count"),
    ),
    invalid("box with an unknown field, strictly", A_BOX, {"spec": {"colour": "red"}}, (BAD, "patch"), **STRICT),
    patch("box applied with an unknown field", A_BOX, box(colour="red"), 500, "", kind=APPLY, **OURS),
    patch("box patched strategically", A_BOX, {"spec": {"stop": "Hold"}}, 415, "UnsupportedMediaType", kind=STRATEGIC),
    patch("box of an older version", A_BOX, {**FIRST, "spec": {"stop": "Hold"}}, 409, "Conflict"),
    make("box without a kind", BOXES, {"metadata": {"name": "x"}, "spec": {"size": "8"}}, 400, "BadRequest"),
    Case(
        "a namespace that every cluster needs", (), "DELETE", "/api/v1/namespaces/kube-system", None, 403, "Forbidden"
    ),
]
