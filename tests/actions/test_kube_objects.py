"""Objects of workspaces are applied and deleted only where they are ours, and taken back exactly."""

import json
from dataclasses import replace
from types import MappingProxyType

import pytest

from actions.fields import fields_of
from actions.guard import guard
from actions.index import index_of
from actions.kube_objects import body_of
from actions.policy import ActionPolicy, Modes
from fleet.clock import SystemClock
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind, Value
from fleet.state import ObjectRef
from tests.kube.answers import Object, Refusal
from tests.kube.engines import Arena, meant
from tests.kube.faults import Fault
from tests.kube.queues import until

pytestmark = pytest.mark.enable_socket

FREE = ActionPolicy(modes=Modes(workspace="auto"))


def owned(workspace: str = "lab", **parts: object) -> Object:
    labels = {"app.kubernetes.io/managed-by": "gpu-steward", "gpusteward.dev/workspace": workspace}
    return {"metadata": {"labels": labels}, **parts}


def room(gpus: str, workspace: str = "lab", **more: str) -> Object:
    return owned(workspace, spec={"hard": {"requests.nvidia.com/gpu": gpus, **more}})


def apply(work: Arena, body: Object | None, *, name: str = "q", workspace: str = "lab", **arguments: Value) -> Move:
    target = ObjectRef("ResourceQuota", work.namespace, name)
    kind = MoveKind.DELETE_OBJECT if body is None else MoveKind.APPLY_OBJECT
    told: dict[str, Value] = {"api_version": "v1", **arguments}
    if body is not None:
        told["body"] = json.dumps(body, sort_keys=True)
    return Move(
        "m1", kind, "c1", target, "manifest", "so it is declared", workspace=workspace, arguments=MappingProxyType(told)
    )


def now(work: Arena, name: str = "q") -> Object:
    return meant(work.see("v1", "ResourceQuota", name))


def body(work: Arena, move: Move) -> Object | None:
    text = (fields_of(move, index_of(work.cluster.observe_for(move))) or {})["body"]
    return None if text is None else json.loads(str(text))


def test_an_object_is_made_changed_and_taken_back_step_by_step(work: Arena) -> None:
    made = apply(work, room("4"))
    was_nothing = work.do(made)
    first = now(work)
    more = apply(work, room("8", pods="20"))
    was_four = work.do(more)
    assert now(work)["spec"]["hard"] == {"requests.nvidia.com/gpu": "8", "pods": "20"}
    work.undo(more, was_four)
    assert now(work) == first
    work.undo(made, was_nothing)
    assert body(work, made) is None


def test_an_object_of_ours_is_deleted_and_made_again_as_it_was(work: Arena) -> None:
    work.do(apply(work, room("4", pods="3")))
    first = now(work)
    gone = apply(work, None)
    prior = work.do(gone)
    assert body(work, gone) is None
    work.undo(gone, prior)
    assert now(work) == first


def test_what_others_made_is_neither_changed_nor_deleted(work: Arena) -> None:
    work.put("v1", "ResourceQuota", "q", spec={"hard": {"pods": "9"}})
    before = now(work)
    for move in (apply(work, room("4")), apply(work, None)):
        with pytest.raises(MoveRefused, match="not ours"):
            guard(move, work.cluster.observe_for(move), FREE, SystemClock().now())
        for attempt in (work.cluster.rehearse, work.cluster.make):
            with pytest.raises(MoveRefused, match="not ours"):
                attempt(move)
    assert now(work) == before


def test_what_belongs_to_another_workspace_is_not_touched_by_this_one(work: Arena) -> None:
    work.do(apply(work, room("4", "other"), workspace="other"))
    for move in (apply(work, room("8")), apply(work, None)):
        with pytest.raises(MoveRefused, match="belongs to workspace other"):
            guard(move, work.cluster.observe_for(move), FREE, SystemClock().now())
        with pytest.raises(MoveRefused, match="belongs to workspace other"):
            work.cluster.make(move)


def test_what_others_add_is_no_drift_and_what_they_change_of_ours_is_and_is_set_right(work: Arena) -> None:
    wanted = apply(work, room("4"))
    work.do(wanted)
    work.change("v1", "ResourceQuota", "q", {"metadata": {"labels": {"seen": "yes"}}})
    assert body(work, wanted) == room("4")
    work.change("v1", "ResourceQuota", "q", {"spec": {"hard": {"requests.nvidia.com/gpu": "40"}}})
    assert body(work, wanted) == room("40")
    drifted = now(work)
    prior = work.do(wanted)
    assert body(work, wanted) == room("4")
    assert now(work)["labels"]["seen"] == "yes"
    work.undo(wanted, prior)
    assert now(work)["spec"] == drifted["spec"]


def test_what_the_server_writes_in_another_form_is_no_drift(work: Arena) -> None:
    wanted = apply(work, owned(spec={"hard": {"requests.cpu": "4000m", "requests.memory": "1024Mi", "pods": 7}}))
    work.do(wanted)
    assert body(work, wanted) == json.loads(str(wanted.arguments["body"]))


def test_a_note_that_is_broken_is_drift_and_not_a_crash(work: Arena) -> None:
    wanted = apply(work, room("4"))
    for broken in ("", "{", "[1]", "null"):
        work.do(wanted)
        work.change("v1", "ResourceQuota", "q", {"metadata": {"annotations": {"gpusteward.dev/applied": broken}}})
        assert body(work, wanted) != room("4")
    work.do(wanted)


def test_an_object_that_was_there_is_adopted_where_it_is_said_and_let_go_as_it_was(work: Arena) -> None:
    work.put("v1", "ResourceQuota", "q", metadata={"labels": {"a": "b"}}, spec={"hard": {"pods": "9"}})
    before = now(work)
    adopt = apply(work, owned(), adopt=True)
    guard(adopt, work.cluster.observe_for(adopt), FREE, SystemClock().now())
    prior = work.do(adopt)
    assert now(work)["labels"]["gpusteward.dev/workspace"] == "lab"
    inverse = work.undo(adopt, prior)
    assert now(work) == before
    work.undo(inverse, json.dumps({"body": adopt.arguments["body"]}))
    assert now(work)["labels"]["gpusteward.dev/workspace"] == "lab"


def test_a_field_that_another_holds_is_not_taken_when_an_object_is_adopted(work: Arena) -> None:
    work.put("v1", "ResourceQuota", "q", spec={"hard": {"requests.nvidia.com/gpu": "9"}})
    with pytest.raises(MoveRefused, match="conflict"):
        work.cluster.make(apply(work, room("4"), adopt=True))
    assert now(work)["spec"]["hard"] == {"requests.nvidia.com/gpu": "9"}


def test_a_namespace_with_running_pods_or_kept_volumes_is_not_deleted_without_force(work: Arena) -> None:
    space = work.name("space")
    target = ObjectRef("Namespace", "", space)
    make = Move("m1", MoveKind.APPLY_OBJECT, "c1", target, "manifest", "declared", workspace="lab",
                arguments=MappingProxyType({"api_version": "v1", "body": json.dumps(owned())}))  # fmt: skip
    work.do(make)
    work.made.append(f"/api/v1/namespaces/{space}")
    pod = {"containers": [{"name": "m", "image": "none"}], "schedulerName": "steward-test"}
    work.put("v1", "Pod", "p", metadata={"namespace": space}, spec=pod)
    gone = Move("m2", MoveKind.DELETE_OBJECT, "c1", target, "manifest", "deleted", workspace="lab",
                arguments=MappingProxyType({"api_version": "v1"}))  # fmt: skip
    with pytest.raises(MoveRefused, match=r"1 pods run in namespace .* \(p\)"):
        work.cluster.rehearse(gone)
    work.drop(f"/api/v1/namespaces/{space}/pods/p")
    work.cluster.rehearse(gone)
    work.cluster.make(gone)
    assert not [each for each in work.cluster.observe().objects if each.ref == target]


def test_with_a_namespace_goes_what_kueue_keeps_of_gangs_in_it_or_neither_goes(work: Arena) -> None:
    space = work.name("space")
    target, path = ObjectRef("Namespace", "", space), f"/api/v1/namespaces/{space}"
    told: dict[str, Value] = {"api_version": "v1", "body": json.dumps(owned())}
    work.do(Move("m1", MoveKind.APPLY_OBJECT, "c1", target, "manifest", "declared", workspace="lab", arguments=told))
    work.made.append(path)
    container = {"name": "m", "image": "none", "resources": {"requests": {"cpu": "1"}}}
    sets = [{"name": "main", "count": 2, "template": {"spec": {"containers": [container], "restartPolicy": "Never"}}}]
    spec = {"queueName": "none", "podSets": sets}
    work.put("kueue.x-k8s.io", "Workload", "gang", metadata={"namespace": space}, spec=spec)
    gone: dict[str, Value] = {"api_version": "v1"}
    delete = Move("m2", MoveKind.DELETE_OBJECT, "c1", target, "manifest", "", workspace="lab", arguments=gone)
    if work.server is not None:
        work.server.faults.add(Fault(f"/namespaces/{space}/workloads/gang", status=403))
        with pytest.raises(MoveRefused, match="403"):
            work.cluster.make(delete)
        assert "deletionTimestamp" not in work.client.get(path)["metadata"]
    work.cluster.rehearse(delete)
    assert "deletionTimestamp" not in work.see("kueue.x-k8s.io", "Workload", "gang", space)["metadata"]
    work.cluster.make(delete)
    asked = work.resource("kueue.x-k8s.io", "Workload").path("gang", space)
    until(lambda: is_gone(work, asked))


def is_gone(work: Arena, path: str) -> bool:
    try:
        work.client.get(path)
    except Refusal as error:
        return error.code == 404
    return False


def test_a_namespace_that_was_adopted_is_never_deleted(work: Arena) -> None:
    target = ObjectRef("Namespace", "", work.namespace)
    body = owned()
    body["metadata"]["annotations"] = {"gpusteward.dev/adopted": "true"}
    told: dict[str, Value] = {"api_version": "v1", "body": json.dumps(body), "adopt": True}
    work.do(Move("m1", MoveKind.APPLY_OBJECT, "c1", target, "manifest", "", workspace="lab", arguments=told))
    gone: dict[str, Value] = {"api_version": "v1", "force": True}
    with pytest.raises(MoveRefused, match="was there before its workspace"):
        work.cluster.make(Move("m2", MoveKind.DELETE_OBJECT, "c1", target, "", "", workspace="lab", arguments=gone))


def test_a_move_planned_on_another_version_or_without_a_readable_body_is_refused(work: Arena) -> None:
    work.do(apply(work, room("4")))
    seen = next(each for each in work.cluster.observe().objects if each.ref.namespace == work.namespace)
    assert (seen.owner, json.loads(seen.body)) == ("lab", room("4"))
    stale = replace(apply(work, room("8")), resource_version=seen.resource_version)
    work.change("v1", "ResourceQuota", "q", {"metadata": {"labels": {"seen": "yes"}}})
    with pytest.raises(StaleState, match="changed since"):
        work.cluster.make(stale)
    plain = replace(stale, resource_version="")
    unreadable: list[dict[str, Value]] = [{"api_version": "v1", "body": text} for text in ("{", "[1]")]
    unserved: list[dict[str, Value]] = [{"body": "{}"}, {"api_version": "nowhere.test/v1", "body": "{}"}]
    for told in unreadable:
        with pytest.raises(MoveRefused, match="the body that is asked for"):
            work.cluster.make(replace(plain, arguments=told))
    for told in unserved:
        with pytest.raises(MoveRefused, match="serves no ResourceQuota"):
            work.cluster.make(replace(plain, arguments=told))


def test_a_quota_that_a_rebalance_moved_is_noted_and_the_note_goes_with_it(work: Arena) -> None:
    wanted = apply(work, room("4"))
    work.do(wanted)
    before = now(work)
    row = next(each for each in work.cluster.observe().quotas if each.workspace == work.namespace)
    told: dict[str, Value] = {"gpus": 6, "pool": None, "model": None, "borrowing_gpus": 0.0}
    more = Move("m2", MoveKind.SET_QUOTA, "c1", ObjectRef("Quota", "", work.namespace), "demand", "it lacks some",
                arguments=MappingProxyType(told), resource_version=row.resource_version)  # fmt: skip
    prior = work.do(more)
    assert "gpusteward.dev/rebalanced" in (body(work, wanted) or {})["metadata"]["annotations"]
    work.undo(more, prior)
    assert now(work) == before


def test_a_body_of_what_is_not_ours_says_nothing_of_it() -> None:
    foreign = {"metadata": {"name": "n", "labels": {"secret": "x"}}, "spec": {"a": 1}}
    assert body_of(foreign) == "{}"
    assert json.loads(body_of(foreign, {"spec": {"a": 2, "b": 1, "c": {}}})) == {"spec": {"a": 1, "c": {}}}
