"""The roles in `deploy/` grant what the writers use, and no more; every other test holds its requests to them."""

import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from actions.kube_owners import OWNERS
from actions.kube_stops import WAYS
from tests.actions.rights import Right, bound_account, granted, missing, rights_of, roles
from tests.kube.answers import Object
from tests.kube.arrange import Arranger
from tests.kube.client import Client, real_cluster
from tests.kube.server import KubeServer, serving

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


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def account(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """Give what a service account that is bound to the roles, and to nothing else, may ask of a server."""
    namespace = f"steward-{uuid.uuid4().hex[:8]}"
    if request.param == "real":
        yield from _bound(Path(real_cluster()), namespace, tmp_path)
        return
    with serving(KubeServer(), tmp_path / "config"):
        yield from _bound(tmp_path / "config", namespace, tmp_path)


def _bound(admin: Path, namespace: str, folder: Path) -> Iterator[Client]:
    arrange = Arranger(Client(str(admin)), namespace).open(None)
    client = Client(str(bound_account(arrange, admin, folder / "bound")))
    yield client
    client.close()
    arrange.close()


def told_rules(account: Client) -> list[Object]:
    """Return what a server says of whoever asks it; a real one hears of bindings by a watch."""
    ends_at = time.monotonic() + 10
    while time.monotonic() < ends_at:
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        status = account.create(path, {"spec": {"namespace": "default"}})["status"]
        assert not status["incomplete"]
        rules: list[Object] = [each for each in status["resourceRules"] if not _is_everybodys(each)]
        if {("", "nodes", "patch"), ("", "namespaces", "delete")} <= _rights(rules):
            return rules
    pytest.fail("the roles do not come to the server")


def _is_everybodys(rule: Object) -> bool:
    return all(group.startswith(("authorization.", "authentication.")) for group in rule["apiGroups"])


def _rights(rules: Iterable[Object]) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in rules
        if not rule.get("resourceNames")
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.enable_socket
def test_a_server_says_of_the_account_what_the_files_grant_and_nothing_more(account: Client) -> None:
    rules = told_rules(account)
    assert _rights(rules) == granted()
    named = [each for each in rules if each.get("resourceNames")]
    assert [(each["resources"], sorted(each["resourceNames"])) for each in named] == [
        (["clusterroles"], ["admin", "edit", "view"])
    ]
