"""The API server in memory keeps the real one's rules; the tests marked `cluster` ask the real one the same."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kube.answers import Object, Refusal
from tests.kube.client import APPLY, JSON_PATCH, MERGE, STRATEGIC, Client, real_cluster
from tests.kube.server import KubeServer, serving

NAMESPACE = f"steward-rules-{uuid.uuid4().hex[:8]}"
MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
SCALED = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
BUDGETS = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.enable_socket),
                        pytest.param("real", marks=[pytest.mark.cluster, pytest.mark.enable_socket])])  # fmt: skip
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """Give a client of our server, or of the cluster that KUBECONFIG names, with a namespace of its own."""
    if request.param == "memory":
        with serving(KubeServer(), tmp_path / "config"):
            yield from _with_namespace(Client(str(tmp_path / "config")))
    else:
        yield from _with_namespace(Client(real_cluster()))


def _with_namespace(client: Client) -> Iterator[Client]:
    """Make the namespace, and empty it afterwards: a real cluster takes its time to let a namespace go."""
    try:
        client.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    except Refusal as error:
        assert error.reason == "AlreadyExists"  # noqa: PT017 - the test before made it
    try:
        yield client
    finally:
        for path in (MAPS, PODS, SCALED, BUDGETS):
            client.delete(path, gracePeriodSeconds="0")
        client.close()


@pytest.fixture(scope="module", autouse=True)
def _last_of_all(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take the namespace off a real cluster when its tests are done."""
    yield
    if any("real" in item.name for item in request.session.items if item.path == request.path):
        client = Client(real_cluster())
        client.delete(f"/api/v1/namespaces/{NAMESPACE}")
        client.close()


def config_map(name: str = "one", **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str = "p", **labels: str) -> Object:
    containers = [{"name": "main", "image": "none"}]
    spec = {"containers": containers, "terminationGracePeriodSeconds": 5, "schedulerName": "steward-test"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def deployment() -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def refused(code: int) -> "pytest.RaisesExc[Refusal]":
    return pytest.RaisesExc(Refusal, check=lambda error: error.code == code)


def test_an_object_made_twice_is_a_conflict_and_one_that_is_not_there_is_not_found(client: Client) -> None:
    made = client.create(MAPS, config_map(a="b"))
    assert made["metadata"]["uid"]
    with refused(409) as error:
        client.create(MAPS, config_map())
    assert error.value.reason == "AlreadyExists"
    with refused(404):
        client.get(f"{MAPS}/none")
    with refused(404):
        client.create("/api/v1/namespaces/nowhere/configmaps", config_map())


def test_a_write_with_a_stale_version_is_a_conflict_and_changes_nothing(client: Client) -> None:
    made = client.create(MAPS, config_map(a="1"))
    client.patch(f"{MAPS}/one", {"data": {"a": "2"}})
    with refused(409) as error:
        client.ask("PUT", f"{MAPS}/one", {**made, "data": {"a": "3"}})
    assert error.value.reason == "Conflict"
    with refused(409):
        client.patch(f"{MAPS}/one", {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {}})
    assert client.get(f"{MAPS}/one")["data"] == {"a": "2"}


def test_a_write_that_changes_nothing_keeps_the_version(client: Client) -> None:
    made = client.create(MAPS, config_map(a="1"))
    again = client.patch(f"{MAPS}/one", {"data": {"a": "1"}})
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_merge_and_json_patches_do_what_their_rfcs_say(client: Client) -> None:
    client.create(MAPS, config_map(a="1", b="2"))
    assert client.patch(f"{MAPS}/one", {"data": {"a": None, "c": "3"}}, MERGE)["data"] == {"b": "2", "c": "3"}
    operations = [
        {"op": "test", "path": "/data/b", "value": "2"},
        {"op": "replace", "path": "/data/b", "value": "x"},
        {"op": "remove", "path": "/data/c"},
        {"op": "add", "path": "/data/e", "value": "f"},
    ]
    assert client.patch(f"{MAPS}/one", operations, JSON_PATCH)["data"] == {"b": "x", "e": "f"}
    with refused(422):
        client.patch(f"{MAPS}/one", [{"op": "test", "path": "/data/b", "value": "no"}], JSON_PATCH)


def test_a_strategic_patch_merges_containers_by_name(client: Client) -> None:
    client.create(SCALED, deployment())
    change = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "other"}]}}}}
    (container,) = client.patch(f"{SCALED}/d", change, STRATEGIC)["spec"]["template"]["spec"]["containers"]
    assert (container["name"], container["image"]) == ("main", "other")


def test_a_dry_run_answers_and_stores_nothing(client: Client) -> None:
    assert client.create(MAPS, config_map(a="1"), dryRun="All")["data"] == {"a": "1"}
    with refused(404):
        client.get(f"{MAPS}/one")
    client.create(MAPS, config_map(a="1"))
    assert client.patch(f"{MAPS}/one", {"data": {"a": "2"}}, dryRun="All")["data"] == {"a": "2"}
    client.delete(f"{MAPS}/one", dryRun="All")
    assert client.get(f"{MAPS}/one")["data"] == {"a": "1"}


def test_what_another_manager_applied_is_a_conflict_unless_forced(client: Client) -> None:
    wanted = config_map(a="1", b="2")
    client.patch(f"{MAPS}/one", wanted, APPLY, fieldManager="ours")
    with refused(409) as error:
        client.patch(f"{MAPS}/one", config_map(a="9"), APPLY, fieldManager="theirs")
    assert [each["field"] for each in error.value.causes] == [".data.a"]
    client.patch(f"{MAPS}/one", config_map(a="1"), APPLY, fieldManager="theirs")
    client.patch(f"{MAPS}/one", config_map(a="9"), APPLY, fieldManager="theirs", force="true")
    assert client.get(f"{MAPS}/one")["data"] == {"a": "9", "b": "2"}


def test_what_a_manager_no_longer_applies_goes_unless_another_holds_it_too(client: Client) -> None:
    client.patch(f"{MAPS}/one", config_map(a="1", b="2"), APPLY, fieldManager="ours")
    client.patch(f"{MAPS}/one", config_map(b="2"), APPLY, fieldManager="theirs")
    assert client.patch(f"{MAPS}/one", config_map(c="3"), APPLY, fieldManager="ours")["data"] == {"b": "2", "c": "3"}


def test_applying_the_same_again_keeps_the_version(client: Client) -> None:
    one = client.patch(f"{MAPS}/one", config_map(a="1"), APPLY, fieldManager="ours")
    two = client.patch(f"{MAPS}/one", config_map(a="1"), APPLY, fieldManager="ours")
    assert one["metadata"]["resourceVersion"] == two["metadata"]["resourceVersion"]


def test_scale_changes_only_the_replicas(client: Client) -> None:
    client.create(SCALED, deployment())
    scale = client.get(f"{SCALED}/d/scale")
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 2)
    client.patch(f"{SCALED}/d/scale", {"spec": {"replicas": 0}})
    live = client.get(f"{SCALED}/d")
    assert (live["spec"]["replicas"], live["metadata"]["generation"]) == (0, 2)
    with refused(409):
        client.ask("PUT", f"{SCALED}/d/scale", scale)


def test_the_status_is_written_by_its_own_path_only(client: Client) -> None:
    client.create(PODS, {**pod(), "status": {"message": "born"}})
    client.patch(f"{PODS}/p", {"status": {"message": "grown"}})
    assert "message" not in client.get(f"{PODS}/p")["status"]
    change = {"spec": {"activeDeadlineSeconds": 9}, "status": {"message": "told"}}
    client.patch(f"{PODS}/p/status", change)
    live = client.get(f"{PODS}/p")
    assert ("activeDeadlineSeconds" in live["spec"], live["status"]["message"]) == (False, "told")


def test_an_object_with_a_finalizer_dies_when_the_last_is_taken_off(client: Client) -> None:
    made = config_map()
    client.create(MAPS, {**made, "metadata": {"name": "one", "finalizers": ["steward.test/hold"]}})
    assert "deletionTimestamp" in client.delete(f"{MAPS}/one")["metadata"]
    assert client.get(f"{MAPS}/one")["metadata"]["finalizers"] == ["steward.test/hold"]
    client.patch(f"{MAPS}/one", {"metadata": {"finalizers": None}})
    with refused(404):
        client.get(f"{MAPS}/one")


def test_a_pod_is_bound_once_and_dies_gracefully_where_it_is_bound(client: Client) -> None:
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n"},
    }
    client.create(PODS, pod())
    client.create(f"{PODS}/p/binding", binding)
    live = client.get(f"{PODS}/p")
    assert live["spec"]["nodeName"] == "n"
    assert {each["type"]: each["status"] for each in live["status"]["conditions"]}["PodScheduled"] == "True"
    with refused(409):
        client.create(f"{PODS}/p/binding", binding)
    assert client.delete(f"{PODS}/p")["metadata"]["deletionGracePeriodSeconds"] == 5
    assert "deletionTimestamp" in client.get(f"{PODS}/p")["metadata"]
    client.delete(f"{PODS}/p", gracePeriodSeconds="0")
    with refused(404):
        client.get(f"{PODS}/p")


def test_what_a_pod_is_made_of_can_not_be_changed(client: Client) -> None:
    client.create(PODS, pod())
    with refused(422):
        client.patch(f"{PODS}/p", {"spec": {"restartPolicy": "Never"}})


def test_an_eviction_honours_the_budget_and_pods_that_do_not_run_cost_none(client: Client) -> None:
    for name in ("one", "two"):
        client.create(PODS, pod(name, app="x"))
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "one"}}
    budget = {"minAvailable": 2, "selector": {"matchLabels": {"app": "x"}}}
    client.create(BUDGETS, {"metadata": {"name": "b"}, "spec": budget})
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    client.patch(f"{PODS}/one/status", {"status": status})
    with refused(429) as error:
        client.create(f"{PODS}/one/eviction", eviction)
    assert error.value.causes[0]["reason"] == "DisruptionBudget"
    client.create(f"{PODS}/two/eviction", {**eviction, "metadata": {"name": "two"}})
    assert [each["metadata"]["name"] for each in client.get(PODS)["items"]] == ["one"]


def test_lists_are_chosen_by_labels_and_fields(client: Client) -> None:
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "2"}), ("c", {})):
        client.create(PODS, pod(name, **labels))
    chosen = {
        "x=1": ["a"], "x": ["a", "b"], "!x": ["c"], "x!=1": ["b", "c"], "x in (1,2)": ["a", "b"],
        "x notin (1)": ["b", "c"], "x=1,x=2": [],
    }  # fmt: skip
    for selector, names in chosen.items():
        items = client.get(PODS, labelSelector=selector)["items"]
        assert [each["metadata"]["name"] for each in items] == names, selector
    assert len(client.get(PODS, fieldSelector="metadata.name=b")["items"]) == 1
    assert client.get(PODS, fieldSelector="spec.nodeName=n,status.phase=Pending")["items"] == []
    with refused(400):
        client.get(PODS, fieldSelector="spec.colour=red")


def test_a_list_is_told_by_pages_of_one_moment(client: Client) -> None:
    for name in "abcde":
        client.create(MAPS, config_map(name))
    first = client.get(MAPS, limit="2", labelSelector="")
    client.delete(f"{MAPS}/e")
    token = first["metadata"]["continue"]
    second = client.get(MAPS, limit="3", **{"continue": token})
    names = [each["metadata"]["name"] for each in (*first["items"], *second["items"])]
    assert names[:4] == ["a", "b", "c", "d"]
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


def test_a_definition_makes_a_kind_that_is_served_and_discovered(client: Client) -> None:
    names = {"plural": "crates", "singular": "crate", "kind": "Crate", "listKind": "CrateList"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    spec = {"group": "steward.test", "names": names, "scope": "Namespaced", "versions": [version]}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    client.create(CRDS, {**definition, "metadata": {"name": "crates.steward.test"}, "spec": spec})
    try:
        _wait_for_kind(client)
        path = f"/apis/steward.test/v1/namespaces/{NAMESPACE}/crates"
        crate = {"apiVersion": "steward.test/v1", "kind": "Crate", "metadata": {"name": "c"}, "spec": {"size": 1}}
        client.create(path, {**crate, "status": {"full": True}})
        assert "status" not in client.get(f"{path}/c")
        assert client.patch(f"{path}/c/status", {"status": {"full": True}})["status"] == {"full": True}
        with refused(415):
            client.patch(f"{path}/c", {"spec": {"size": 2}}, STRATEGIC)
    finally:
        client.delete(f"{CRDS}/crates.steward.test")


def _wait_for_kind(client: Client) -> None:
    for _ in range(1000):
        groups = client.get("/apis")["groups"]
        if any(each["name"] == "steward.test" for each in groups):
            return
    pytest.fail("the kind is not served")


def test_what_is_asked_in_a_way_that_is_not_known_is_refused(client: Client) -> None:
    client.create(MAPS, config_map())
    with refused(415):
        client.patch(f"{MAPS}/one", {}, "text/plain")
    with refused(404):
        client.get("/apis/nowhere.test/v1/things")
    with refused(422):
        client.patch(f"{MAPS}/one", config_map(), APPLY)
    assert json.dumps(client.get("/api/v1")["resources"]).count('"pods/eviction"') == 1
