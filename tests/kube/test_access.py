"""What a service account may do is what its roles say, on our server and, marked `cluster`, on a real one."""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.kube.answers import Object, Refusal
from tests.kube.client import APPLY, MERGE, Client
from tests.kube.places import Place, place, with_token

pytestmark = pytest.mark.enable_socket
REVIEWS = "/apis/authorization.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLES, BINDINGS, MAPS = f"{RBAC}/NS/roles", f"{RBAC}/NS/rolebindings", "NS:configmaps"
GROUP = "rbac.authorization.k8s.io"
MAP: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}
MAY: list[Object] = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "patch"]},
    {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get", "patch"]},
    {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["ours"], "verbs": ["get"]},
    {"apiGroups": [GROUP], "resources": ["roles", "rolebindings"], "verbs": ["create"]},
]


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(request.param, tmp_path_factory.mktemp("kube")) as made:
        made.put(ROLES, {"metadata": {"name": "r"}, "rules": MAY})
        made.put("NS:serviceaccounts", {"metadata": {"name": "sa"}})
        made.put(BINDINGS, binding("rb", "Role", "r"))
        yield made


@pytest.fixture
def account(at: Place) -> Iterator[Client]:
    client = at.play("sa")
    until(lambda: may(client, at, verb="get", resource="configmaps"))
    yield client
    client.close()


def binding(name: str, kind: str, role: str) -> Object:
    reference = {"apiGroup": GROUP, "kind": kind, "name": role}
    subject = {"kind": "ServiceAccount", "name": "sa", "namespace": "ME"}
    return {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}


def until(test: Callable[[], bool]) -> None:
    """Wait until roles have come to where they are asked after: a real server hears of them by a watch."""
    ends_at = time.monotonic() + 10
    while not test():
        assert time.monotonic() < ends_at


def may(client: Client, at: Place, **asked: str) -> bool:
    body = {"spec": {"resourceAttributes": {"namespace": at.namespace, **asked}}}
    return bool(client.create(f"{REVIEWS}/selfsubjectaccessreviews", body)["status"]["allowed"])


def refused(
    client: Client, verb: str, path: str, body: object = None, kind: str = "application/json", **query: str
) -> str:
    with pytest.raises(Refusal) as caught:
        client.ask(verb, path, body, kind=kind, **query)
    assert (caught.value.code, caught.value.reason) == (403, "Forbidden")
    return caught.value.message


def test_who_asks_may_do_what_its_role_says_and_nothing_else(at: Place, account: Client) -> None:
    at.put(MAPS, MAP)
    one = at.path("NS:configmaps/c")
    assert account.get(one)["data"] == {"a": "b"}
    assert account.get(at.path(MAPS))["items"]
    assert account.patch(one, {"data": {"a": "c"}}, MERGE)["data"] == {"a": "c"}
    message = refused(account, "DELETE", one)
    assert message.startswith(
        f'configmaps "c" is forbidden: User "system:serviceaccount:{at.namespace}:sa" cannot delete resource '
        f'"configmaps" in API group "" in the namespace "{at.namespace}"'
    )
    assert 'cannot list resource "nodes" in API group "" at the cluster scope' in refused(
        account, "GET", "/api/v1/nodes"
    )
    refused(account, "GET", "/api/v1/namespaces/default/configmaps")
    refused(account, "GET", at.path(MAPS), None, "application/json", watch="1")


def test_an_object_is_applied_anew_only_by_who_may_create_it(at: Place, account: Client) -> None:
    message = refused(account, "PATCH", at.path("NS:configmaps/c"), MAP, APPLY, fieldManager="ours")
    assert 'cannot create resource "configmaps"' in message
    at.put(MAPS, MAP)
    assert account.patch(at.path("NS:configmaps/c"), MAP, APPLY, fieldManager="ours")["data"] == {"a": "b"}


def test_a_part_of_a_kind_is_a_right_of_its_own(at: Place, account: Client) -> None:
    scale = at.path("/apis/apps/v1/NS/deployments/d/scale")
    with pytest.raises(Refusal, match="not found"):
        account.get(scale)
    assert 'cannot get resource "deployments"' in refused(account, "GET", scale.removesuffix("/scale"))
    assert 'cannot create resource "pods/eviction"' in refused(account, "POST", at.path("NS:pods/p/eviction"), {})


def test_reviews_tell_what_holds(at: Place, account: Client) -> None:
    answers = {
        ("get", "configmaps", ""): True, ("delete", "configmaps", ""): False, ("get", "secrets", "ours"): True,
        ("get", "secrets", "theirs"): False, ("get", "secrets", ""): False,
    }  # fmt: skip
    for (verb, resource, name), allowed in answers.items():
        assert may(account, at, verb=verb, resource=resource, name=name) is allowed, (verb, resource, name)
    assert may(account, at, verb="patch", group="apps", resource="deployments", subresource="scale")
    assert may(at.client, at, verb="delete", resource="nodes")
    told = account.create(f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {"namespace": at.namespace}})["status"]
    rules = [each for each in told["resourceRules"] if not each["apiGroups"][0].startswith("auth")]
    assert {json.dumps(each, sort_keys=True) for each in rules} == {json.dumps(each, sort_keys=True) for each in MAY}
    assert told["incomplete"] is False
    who = account.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})["status"]["userInfo"]
    assert who["username"] == f"system:serviceaccount:{at.namespace}:sa"
    with pytest.raises(Refusal, match="no namespace on request"):
        account.create(f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {}})
    with pytest.raises(Refusal) as caught:
        account.create(f"{REVIEWS}/selfsubjectaccessreviews", {"spec": {}})
    assert [each["field"] for each in caught.value.causes] == ["spec.resourceAttributes"]
    with pytest.raises(Refusal) as caught:
        at.client.get(f"{REVIEWS}/selfsubjectrulesreviews")
    assert caught.value.code == 405


def test_nobody_gives_away_more_than_he_has(at: Place, account: Client) -> None:
    role = {"metadata": {"name": "more"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}
    message = refused(account, "POST", at.path(ROLES), role)
    assert 'attempting to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["pods"]' in message
    account.create(at.path(ROLES), {**role, "rules": [{**MAY[0], "verbs": ["get"]}]})
    at.put(ROLES, {**role, "metadata": {"name": "strong"}})
    refused(account, "POST", at.path(BINDINGS), at.fill(binding("x", "Role", "strong")))
    at.put(ROLES, {"metadata": {"name": "binder"}, "rules": [
        {"apiGroups": [GROUP], "resources": ["roles"], "resourceNames": ["strong"], "verbs": ["bind"]}]})  # fmt: skip
    at.put(BINDINGS, binding("binder", "Role", "binder"))
    until(lambda: may(account, at, verb="bind", group=GROUP, resource="roles", name="strong"))
    account.ask("POST", at.path(BINDINGS), at.fill(binding("y", "Role", "strong")))


def test_only_administrators_play_others(at: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    token = at.client.create(at.path("NS:serviceaccounts/sa/token"), {"spec": {}})["status"]["token"]
    folder = tmp_path_factory.mktemp("account")
    config = with_token(at.config, token, folder / "config")
    plain = Client(str(config))
    who = plain.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})["status"]["userInfo"]["username"]
    assert who == f"system:serviceaccount:{at.namespace}:sa"
    refused(Client(str(config), plays="somebody"), "GET", at.path(MAPS))
    plain.close()
