"""What is taken is taken alike by our server and, marked `cluster`, by a real one: defaults, lists, evictions."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.kube.answers import Object, Refusal
from tests.kube.boxes import BOXES, boxes
from tests.kube.client import APPLY, MERGE, STRATEGIC
from tests.kube.places import Place, place

pytestmark = pytest.mark.enable_socket
NODES, PODS, QUOTAS = "/api/v1/nodes", "NS:pods", "NS:resourcequotas"
DEPLOYMENTS, JOBS = "/apis/apps/v1/NS/deployments", "/apis/batch/v1/NS/jobs"
BUDGETS, POLICIES = "/apis/policy/v1/NS/poddisruptionbudgets", "/apis/networking.k8s.io/v1/NS/networkpolicies"
BINDINGS, LEASES = "/apis/rbac.authorization.k8s.io/v1/NS/rolebindings", "/apis/coordination.k8s.io/v1/NS/leases"
FENCES = "/apis/resource.k8s.io/v1beta2/devicetaintrules"
CONTAINERS = [{"name": "main", "image": "none"}]
NODE: Object = {"metadata": {"name": "ME"}}


@pytest.fixture(scope="module", params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(request.param, tmp_path_factory.mktemp("kube")) as made, boxes(made):
        yield made


@pytest.fixture
def at(here: Place) -> Iterator[Place]:
    yield here
    here.clean()


def job(**spec: object) -> Object:
    template = {"spec": {"restartPolicy": "Never", "containers": CONTAINERS}}
    return {"metadata": {"name": "j"}, "spec": {"managedBy": "steward.test/nobody", "template": template, **spec}}


def pod(name: str = "p", **labels: str) -> Object:
    spec = {"containers": CONTAINERS, "schedulerName": "steward-test"}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


def deployment(**spec: object) -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": CONTAINERS}}
    whole = {"paused": True, "selector": {"matchLabels": {"a": "b"}}, "template": template, **spec}
    return {"metadata": {"name": "d"}, "spec": whole}


def box(**spec: object) -> Object:
    return {"apiVersion": "ME.test/v1", "kind": "Box", "metadata": {"name": "b"}, "spec": {"size": "8", **spec}}


def apply(at: Place, path: str, body: Object, manager: str, **query: str) -> Object:
    where = f"{at.path(path)}/{at.path(body['metadata']['name'])}"
    made = at.client.patch(where, at.fill(body), APPLY, fieldManager=manager, **query)
    at.made.append(where)
    return made


def until(test: Callable[[], bool]) -> None:
    """Wait until a controller of a real server has seen to something."""
    ends_at = time.monotonic() + 10
    while not test():
        assert time.monotonic() < ends_at


def test_taints_are_replaced_whole_and_conditions_merged_by_type(at: Place) -> None:
    at.put(NODES, NODE)
    node = at.path(f"{NODES}/ME")
    for key in ("a", "b"):
        made = at.client.patch(node, {"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}}, STRATEGIC)
        assert [each["key"] for each in made["spec"]["taints"]] == [key]
    for kind in ("GpuSteward", "Other"):
        told = {"conditions": [{"type": kind, "status": "True", "reason": "R"}]}
        at.client.patch(f"{node}/status", {"status": told}, STRATEGIC)
    gone = {"status": {"conditions": [{"type": "Other", "$patch": "delete"}]}}
    live = at.client.patch(f"{node}/status", gone, STRATEGIC)
    assert [(each["type"], each["status"]) for each in live["status"]["conditions"]] == [("GpuSteward", "True")]


def test_annotations_may_come_with_a_status_but_not_with_that_of_a_custom_object(at: Place) -> None:
    at.put(NODES, NODE)
    at.put(DEPLOYMENTS, deployment(replicas=0))
    at.put(BOXES, box())
    change = {"metadata": {"annotations": {"a": "b"}}}
    for path, is_taken in ((f"{NODES}/ME", True), (f"{DEPLOYMENTS}/d", True), (f"{BOXES}/b", False)):
        made = at.client.patch(at.path(f"{path}/status"), change)
        assert ("a" in (made["metadata"].get("annotations") or {})) is is_taken, path


def test_what_is_not_said_is_filled_in(at: Place) -> None:
    spec = at.put(JOBS, job())["spec"]
    assert (spec["suspend"], spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (False, 1, 1, 6)
    assert spec["template"]["metadata"]["labels"]["job-name"] == "j"
    assert at.put(DEPLOYMENTS, deployment())["spec"]["replicas"] == 1
    rules = [{"ports": [{"port": 53}]}]
    spec = at.put(POLICIES, {"metadata": {"name": "n"}, "spec": {"podSelector": {}, "egress": rules}})["spec"]
    assert (spec["policyTypes"], spec["egress"][0]["ports"][0]["protocol"]) == (["Ingress", "Egress"], "TCP")
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    bound = at.put(BINDINGS, {"metadata": {"name": "x"}, "roleRef": role, "subjects": [{"kind": "Group", "name": "g"}]})
    assert bound["subjects"] == [{"kind": "Group", "name": "g", "apiGroup": "rbac.authorization.k8s.io"}]
    assert at.put(BOXES, box())["spec"]["stop"] == "None"
    limits = [{"type": "Container", "max": {"nvidia.com/gpu": "4"}}]
    (limit,) = at.put("NS:limitranges", {"metadata": {"name": "l"}, "spec": {"limits": limits}})["spec"]["limits"]
    assert (limit["default"], limit["defaultRequest"]) == ({"nvidia.com/gpu": "4"}, {"nvidia.com/gpu": "4"})


def test_a_plain_write_drops_fields_that_the_kind_has_not(at: Place) -> None:
    at.put(NODES, NODE)
    made = at.client.patch(at.path(f"{NODES}/ME"), {"spec": {"unschedulabel": True, "unschedulable": True}})
    assert (made["spec"]["unschedulable"], "unschedulabel" in made["spec"]) == (True, False)
    made = at.put(BOXES, box(colour="red", parts=[{"name": "a", "weight": 1}]))
    assert (made["spec"]["parts"], "colour" in made["spec"]) == ([{"name": "a"}], False)


def test_a_generation_counts_changes_of_what_is_meant_and_some_kinds_have_none(at: Place) -> None:
    assert "generation" not in at.put(NODES, NODE)["metadata"]
    assert "generation" not in at.put(LEASES, {"metadata": {"name": "l"}, "spec": {}})["metadata"]
    at.put(BOXES, box())
    one = at.path(f"{BOXES}/b")
    assert at.client.patch(one, {"metadata": {"labels": {"a": "b"}}})["metadata"]["generation"] == 1
    assert at.client.patch(f"{one}/status", {"status": {"full": True}})["metadata"]["generation"] == 1
    assert at.client.patch(one, {"spec": {"size": "9"}})["metadata"]["generation"] == 2
    at.put(PODS, pod())
    at.client.create(at.path(f"{PODS}/p/binding"), {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "x"}})
    assert at.client.get(at.path(f"{PODS}/p"))["metadata"]["generation"] == 1


def test_a_scale_of_none_says_nothing_of_replicas(at: Place) -> None:
    at.put(DEPLOYMENTS, deployment(replicas=2))
    scale = at.client.patch(at.path(f"{DEPLOYMENTS}/d/scale"), {"spec": {"replicas": 0}})
    assert (scale["kind"], scale["spec"]) == ("Scale", {})
    assert at.client.get(at.path(f"{DEPLOYMENTS}/d"))["spec"]["replicas"] == 0


def test_a_suspended_job_may_be_sent_elsewhere_and_a_running_one_not(at: Place) -> None:
    at.put(JOBS, job(suspend=True))
    elsewhere = {"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}
    assert at.client.patch(at.path(f"{JOBS}/j"), elsewhere)["metadata"]["generation"] == 2
    at.client.patch(at.path(f"{JOBS}/j"), {"spec": {"suspend": False}})
    with pytest.raises(Refusal) as caught:
        at.client.patch(at.path(f"{JOBS}/j"), {"spec": {"template": {"spec": {"nodeSelector": {"a": "c"}}}}})
    assert (caught.value.code, [each["field"] for each in caught.value.causes]) == (422, ["spec.template"])


def test_deletions_are_told_in_two_ways_and_tried_ones_change_nothing(at: Place) -> None:
    lease = at.put(LEASES, {"metadata": {"name": "l"}, "spec": {}})
    at.put(QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "9"}}})
    options = {"dryRun": ["All"], "preconditions": {"uid": lease["metadata"]["uid"]}}
    at.client.ask("DELETE", at.path(f"{LEASES}/l"), options)
    told = at.client.delete(at.path(f"{LEASES}/l"))
    assert (told["kind"], told["status"]) == ("Status", "Success")
    assert told["details"] == {
        "name": "l", "group": "coordination.k8s.io", "kind": "leases", "uid": lease["metadata"]["uid"]
    }  # fmt: skip
    assert at.client.delete(at.path(f"{QUOTAS}/q"))["kind"] == "ResourceQuota"


def test_objects_of_a_list_say_their_kind_only_where_it_is_a_custom_one(at: Place) -> None:
    at.put(PODS, pod())
    at.put(BOXES, box())
    (one,), (other,) = (at.client.get(at.path(path))["items"] for path in (PODS, BOXES))
    assert ("kind" in one, "apiVersion" in one, other["kind"]) == (False, False, "Box")


def test_members_of_a_keyed_list_are_owned_one_by_one_and_other_lists_whole(at: Place) -> None:
    apply(at, BOXES, box(parts=[{"name": "a", "count": 1}], groups=["x"]), "one")
    made = apply(at, BOXES, box(parts=[{"name": "b", "count": 2}]), "two")
    assert [(each["name"], each["count"]) for each in made["spec"]["parts"]] == [("a", 1), ("b", 2)]
    for spec, field in (
        ({"parts": [{"name": "a", "count": 9}]}, '.spec.parts[name="a"].count'),
        ({"groups": ["x", "y"]}, ".spec.groups"),
    ):
        with pytest.raises(Refusal) as caught:
            apply(at, BOXES, box(**spec), "two")
        assert caught.value.message == f'Apply failed with 1 conflict: conflict with "one": {field}'
    made = apply(at, BOXES, box(), "one")
    assert (made["spec"]["parts"], "groups" in made["spec"]) == ([{"name": "b", "count": 2}], False)
    forced = apply(at, BOXES, box(parts=[{"name": "b", "count": 3}]), "one", force="true")
    assert forced["spec"]["parts"] == [{"name": "b", "count": 3}]


def test_a_conflict_names_who_holds_which_fields(at: Place) -> None:
    body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}}
    apply(at, "NS:configmaps", body, "one")
    at.client.patch(at.path("NS:configmaps/c"), {"data": {"c": "3"}}, MERGE, fieldManager="two")
    with pytest.raises(Refusal) as caught:
        apply(at, "NS:configmaps", {**body, "data": {"a": "8", "b": "9"}}, "three")
    wanted = 'Apply failed with 2 conflicts: conflicts with "one":\n- .data.a\n- .data.b'
    assert (caught.value.code, caught.value.message) == (409, wanted)
    with pytest.raises(Refusal, match=r'1 conflict: conflict with "two" using v1: \.data\.c'):
        apply(at, "NS:configmaps", {**body, "data": {"c": "7"}}, "three")


def test_an_event_is_told_in_the_forms_of_both_groups(at: Place) -> None:
    at.put("/apis/events.k8s.io/v1/NS/events", {
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Reclaim", "reason": "Idle",
        "reportingController": "gpu-steward", "reportingInstance": "i", "type": "Normal", "note": "n",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "ME"},
    })  # fmt: skip
    (event,) = at.client.get(at.path("NS:events"), fieldSelector="involvedObject.name=p")["items"]
    assert (event["message"], event["reportingComponent"], event["reason"]) == ("n", "gpu-steward", "Idle")
    new = at.client.get(at.path("/apis/events.k8s.io/v1/NS/events/e"))
    assert (new["note"], new["regarding"]["name"], new["apiVersion"]) == ("n", "p", "events.k8s.io/v1")


def test_a_fence_is_one_object_in_both_versions(at: Place) -> None:
    fence = {"deviceSelector": {"driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-0"}}
    taint = {"key": "gpusteward.dev/fenced", "value": "xid", "effect": "NoSchedule"}
    made = at.put(FENCES, {"metadata": {"name": "ME"}, "spec": {**fence, "taint": taint}})
    assert made["spec"]["taint"]["timeAdded"]
    old = at.client.get(at.path("/apis/resource.k8s.io/v1alpha3/devicetaintrules/ME"))
    assert (old["apiVersion"], old["spec"]) == ("resource.k8s.io/v1alpha3", made["spec"])
    changed = at.client.patch(at.path(f"{FENCES}/ME"), {"spec": {"taint": {"effect": "NoExecute"}}})
    assert (changed["spec"]["taint"]["effect"], changed["metadata"]["generation"]) == ("NoExecute", 2)


def test_a_quota_lets_in_what_is_left_of_it(at: Place) -> None:
    at.put(QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"requests.nvidia.com/gpu": "2"}}})
    two, three = ({**pod(), "spec": {**pod()["spec"], "containers": [asking(gpus)]}} for gpus in ("2", "3"))

    def is_held() -> bool:
        try:
            at.client.create(at.path(PODS), three, dryRun="All")
        except Refusal as error:
            return error.message.endswith(
                "exceeded quota: q, requested: requests.nvidia.com/gpu=3, used: requests.nvidia.com/gpu=0, "
                "limited: requests.nvidia.com/gpu=2"
            )
        return False

    until(is_held)
    at.put(PODS, two)
    with pytest.raises(Refusal, match=r"used: requests\.nvidia\.com/gpu=2"):
        at.client.create(at.path(PODS), {**two, "metadata": {"name": "more"}})


def asking(gpus: str) -> Object:
    return {**CONTAINERS[0], "resources": {"limits": {"nvidia.com/gpu": gpus}}}


def run(at: Place, name: str, *, is_ready: bool = True) -> None:
    """Let a pod run, on no node that is there."""
    at.put(PODS, pod(name, app="x"))
    conditions = [{"type": "Ready", "status": str(is_ready)}]
    at.client.patch(at.path(f"{PODS}/{name}/status"), {"status": {"phase": "Running", "conditions": conditions}})


def budget(at: Place, name: str = "b", **spec: object) -> None:
    whole = {"selector": {"matchLabels": {"app": "x"}}, **spec}
    at.put(BUDGETS, {"metadata": {"name": name}, "spec": whole})


def evict(at: Place, name: str, **query: str) -> Object:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    return at.client.create(at.path(f"{PODS}/{name}/eviction"), body, **query)


def why_not(at: Place, name: str) -> str:
    """Return what a budget says against an eviction, once its controller has counted; "" where it allows it."""
    told = [""]

    def is_told() -> bool:
        try:
            evict(at, name, dryRun="All")
        except Refusal as error:
            told[0] = error.causes[0]["message"] if error.causes else error.message
            return "still being processed" not in told[0]
        told[0] = ""
        return True

    until(is_told)
    return told[0]


def test_a_budget_counts_who_is_ready(at: Place) -> None:
    run(at, "one")
    run(at, "two", is_ready=False)
    budget(at, minAvailable=1)
    until(lambda: why_not(at, "one") == "The disruption budget b needs 1 healthy pods and has 1 currently")
    assert why_not(at, "two") == ""  # it costs the budget nothing, and the budget holds
    assert evict(at, "two", dryRun="All")["status"] == "Success"
    assert len(at.client.get(at.path(PODS))["items"]) == 2


def test_a_pod_that_is_not_ready_stays_where_the_budget_is_short_unless_it_says_otherwise(at: Place) -> None:
    run(at, "one", is_ready=False)
    budget(at, minAvailable=1)
    until(lambda: why_not(at, "one") == "The disruption budget b needs 1 healthy pods and has 0 currently")
    at.client.patch(at.path(f"{BUDGETS}/b"), {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}})
    until(lambda: why_not(at, "one") == "")


def test_a_budget_of_how_many_may_be_missing_knows_nothing_of_pods_that_nobody_owns(at: Place) -> None:
    run(at, "one")
    run(at, "two")
    budget(at, maxUnavailable=1)
    until(lambda: why_not(at, "one").endswith("budget b does not allow evicting pods currently"))


def test_a_pod_of_two_budgets_can_not_be_evicted(at: Place) -> None:
    run(at, "one")
    budget(at, "b", minAvailable=0)
    budget(at, "c", minAvailable=0)

    def is_refused() -> bool:
        try:
            evict(at, "one", dryRun="All")
        except Refusal as error:
            return (error.code, "more than one PodDisruptionBudget" in error.message) == (500, True)
        return False

    until(is_refused)
