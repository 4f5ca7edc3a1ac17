"""The roles in `deploy/` grant what the writers use, and no more; every other test holds its requests to them."""

from collections.abc import Iterable

import pytest

from actions.kube_owners import OWNERS
from actions.kube_stops import WAYS
from tests.actions.rights import Right, granted, missing, rights_of, roles

_READ = ("get", "list")


def plural(kind: str) -> str:
    name = kind.lower()
    return name[:-1] + "ies" if name.endswith("y") else name + "s"


def rights(group: str, kinds: Iterable[str], *verbs: str) -> set[Right]:
    return {(group, plural(kind), verb) for kind in kinds for verb in verbs}


STOPPED = {(way.group, plural(kind)) for kind, way in WAYS.items() if way.stops is not None}
QUOTAS = ("ClusterQueue", "LocalQueue", "Cohort")
POOLS = {("karpenter.sh", "nodepools"), ("autoscaling.x-k8s.io", "capacitybuffers"), ("scheduling.run.ai", "queues")}


def test_the_read_role_grants_what_is_looked_at_and_no_writing() -> None:
    owners = {(group, plural(kind)) for group, kind in OWNERS}
    expected = {(group, name, verb) for group, name in owners | STOPPED | POOLS for verb in _READ}
    expected |= rights("", ("Node", "Pod", "Namespace", "ResourceQuota", "LimitRange", "PersistentVolumeClaim"), *_READ)
    expected |= rights("resource.k8s.io", ("ResourceSlice", "DeviceTaintRule"), *_READ)
    expected |= rights("autoscaling", ("HorizontalPodAutoscaler",), *_READ)
    expected |= rights("keda.sh", ("ScaledObject",), *_READ) | rights("policy", ("PodDisruptionBudget",), *_READ)
    expected |= rights("kueue.x-k8s.io", (*QUOTAS, "ResourceFlavor", "Workload"), *_READ)
    expected |= rights("networking.k8s.io", ("NetworkPolicy",), *_READ)
    expected |= rights("rbac.authorization.k8s.io", ("RoleBinding",), *_READ)
    assert granted(["rbac-read.yaml"]) == expected


def test_the_act_role_grants_each_write_and_no_deletion_but_of_device_rules() -> None:
    expected = {(group, name, "patch") for group, name in STOPPED | POOLS}
    expected |= rights("", ("Node", "Pod", "ResourceQuota"), "patch") | {("", "nodes/status", "patch")}
    expected |= {("", "pods/eviction", "create"), ("events.k8s.io", "events", "create")}
    expected |= rights("resource.k8s.io", ("DeviceTaintRule",), "create", "delete")
    expected |= rights("kueue.x-k8s.io", (*QUOTAS, "Workload"), "patch")
    assert granted(["rbac-act.yaml"]) == expected


def test_no_role_has_a_star_or_lets_itself_grow() -> None:
    for role in roles():
        for rule in role["rules"]:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not {"escalate", "impersonate", "deletecollection"} & set(rule["verbs"])
            assert "bind" not in rule["verbs"] or rule["resourceNames"] == ["view", "edit", "admin"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET /api/v1/nodes?limit=500", {("", "nodes", "list")}),
        ("GET /api/v1/nodes/n1", {("", "nodes", "get")}),
        ("GET /api/v1/namespaces/team", {("", "namespaces", "get")}),
        ("GET /api/v1/namespaces/team/pods?x=y", {("", "pods", "list")}),
        ("PATCH /api/v1/nodes/n1/status?dryRun=All", {("", "nodes/status", "patch")}),
        ("POST /api/v1/namespaces/team/pods/p/eviction", {("", "pods/eviction", "create")}),
        ("DELETE /apis/a.io/v1beta2/things/r", {("a.io", "things", "delete")}),
        ("PATCH /apis/a.io/v1/namespaces/n/x/r?force=true", {("a.io", "x", "patch"), ("a.io", "x", "create")}),
        ("GET /apis/apps/v1", set()),
        ("GET /apis", set()),
    ],
)  # fmt: skip
def test_a_request_says_which_right_it_needs(line: str, expected: set[Right]) -> None:
    assert rights_of(line) == expected


def test_a_right_that_nobody_grants_is_found() -> None:
    assert missing(["DELETE /api/v1/nodes/n1", "GET /api/v1/nodes"]) == {("", "nodes", "delete")}
