"""Desired and observed objects become the right moves: made in order, changed, set right, deleted only where ours."""

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from actions.budget import Made
from actions.evidence import Proposal
from actions.kinds import rule_of
from actions.plan import plan
from actions.policy import ActionPolicy, Modes
from controller.workspace import propose_workspaces
from controller.workspace_objects import Flavors, objects_of
from fleet.move import MoveKind
from fleet.state import FleetState, ObjectRef, OwnedObject, Pod, Queue
from fleet.workspace import Desired, Isolation, Seat, Share, Space, Workspace

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LAB = Workspace(
    "lab",
    owner="ann",
    namespaces=(Space("lab-a"), Space("lab-b")),
    quotas=(Share(9, pool="h100", borrowing_gpus=2, weight=2.0),),
    limits={"cpu": "64"},
    defaults={"cpu": "1"},
    seats=(Seat("Editor", ("bob",), ("team",)),),
)
KUEUE = "kueue.x-k8s.io/v1beta2"
H100, L4 = {"karpenter.sh/nodepool": "h100"}, {"karpenter.sh/nodepool": "l4", "nvidia.com/gpu.product": "NVIDIA-L4"}


def flavor(name: str, labels: dict[str, str]) -> OwnedObject:
    return OwnedObject("c1", KUEUE, ObjectRef("ResourceFlavor", "", name), json.dumps({"spec": {"nodeLabels": labels}}))


def space(name: str, owner: str | None = None, body: dict[str, Any] | None = None) -> OwnedObject:
    return OwnedObject("c1", "v1", ObjectRef("Namespace", "", name), json.dumps(body or {}), owner, "1")


def state(objects: Iterable[OwnedObject] = (), **parts: Any) -> FleetState:
    return FleetState(NOW, objects=(space("kube-system"), *objects), **parts)


def propose(desired: Workspace | Desired, seen: FleetState) -> Proposal:
    return propose_workspaces([Desired(desired) if isinstance(desired, Workspace) else desired], seen, "c1")


def made(before: FleetState, proposal: Proposal) -> FleetState:
    """Return the state once every move of a proposal was made, in order."""
    objects = {(each.api_version, each.ref): each for each in before.objects}
    for draft in sorted(proposal.drafts, key=lambda each: each.order):
        move = draft.move
        key = (str(move.arguments["api_version"]), move.target)
        if move.kind is MoveKind.DELETE_OBJECT:
            del objects[key]
            if move.target.kind == "Namespace":
                objects = {each: found for each, found in objects.items() if each[1].namespace != move.target.name}
            continue
        body = str(move.arguments["body"])
        owner = json.loads(body).get("metadata", {}).get("labels", {}).get("gpusteward.dev/workspace")
        objects[key] = OwnedObject("c1", key[0], move.target, body, owner, "2")
    return replace(before, objects=tuple(objects.values()))


def targets(proposal: Proposal) -> list[str]:
    return [
        f"{each.move.kind.value} {each.move.target}" for each in sorted(proposal.drafts, key=lambda each: each.order)
    ]


def wanted(workspace: Workspace = LAB, flavors: Flavors | None = None) -> dict[str, dict[str, Any]]:
    found, problems = objects_of(workspace, "c1", flavors or Flavors())
    assert not problems
    return {str(each.ref): json.loads(each.text) for each in found}


def test_a_workspace_is_made_namespaces_first_and_nothing_is_left_to_do_then() -> None:
    first = propose(LAB, state())
    kinds = [each.partition("/")[0].split()[1] for each in targets(first)]
    assert kinds[:2] == ["Namespace", "Namespace"]
    assert set(kinds) == {"Namespace", "ResourceQuota", "LimitRange", "NetworkPolicy", "RoleBinding"}
    assert propose(LAB, made(state(), first)) == Proposal()


def test_its_moves_stand_in_the_rule_workspace_and_pass_the_planner() -> None:
    policy = ActionPolicy(modes=Modes(workspace="auto"))
    planned = plan(state(), (), policy, NOW, further={"workspace": propose(LAB, state())})
    assert planned.moves
    assert {rule_of(each) for each in planned.moves} == {"workspace"}
    off = plan(
        state(), (), ActionPolicy(modes=Modes(workspace="off")), NOW, further={"workspace": propose(LAB, state())}
    )
    assert not off.moves
    assert {each.reason for each in off.held_back} == {"rule workspace is off"}


def test_the_same_object_may_be_applied_again_at_once_since_a_manifest_does_not_swing() -> None:
    policy = ActionPolicy(modes=Modes(workspace="auto"))
    first = plan(state(), (), policy, NOW, further={"workspace": propose(LAB, state())})
    again = plan(state(), (), policy, NOW, further={"workspace": propose(LAB, state())},
                 recent=tuple(Made(each, NOW) for each in first.moves))  # fmt: skip
    assert [each.target for each in again.moves] == [each.target for each in first.moves]
    assert not again.held_back


def test_where_kueue_has_flavors_the_quota_is_a_queue_in_the_cohort_and_no_bound_of_the_namespaces() -> None:
    found = wanted(flavors=Flavors(KUEUE, (("fast", H100), ("small", L4))))
    queue = found["ClusterQueue/lab"]["spec"]
    assert queue["cohortName"] == "gpu-steward"
    assert queue["fairSharing"] == {"weight": "2"}
    (entry,) = queue["resourceGroups"][0]["flavors"]
    assert entry["name"] == "fast"
    assert entry["resources"][-1] == {"name": "nvidia.com/gpu", "nominalQuota": "9", "borrowingLimit": "2"}
    assert found["LocalQueue/lab-a/lab"]["spec"] == {"clusterQueue": "lab"}
    assert "requests.nvidia.com/gpu" not in found["ResourceQuota/lab-a/gpu-steward"]["spec"]["hard"]


def test_the_older_version_of_kueue_calls_the_cohort_by_its_older_name() -> None:
    spec = wanted(flavors=Flavors("kueue.x-k8s.io/v1beta1", (("fast", H100),)))["ClusterQueue/lab"]["spec"]
    assert (spec["cohort"], "cohortName" in spec) == ("gpu-steward", False)


def test_without_a_queue_the_quota_is_dealt_out_to_the_namespaces_and_adds_up() -> None:
    found = wanted()
    parts = [found[f"ResourceQuota/{each}/gpu-steward"]["spec"]["hard"] for each in ("lab-a", "lab-b")]
    assert [each["requests.nvidia.com/gpu"] for each in parts] == ["5", "4"]
    own = replace(LAB, namespaces=(Space("lab-a", gpus=7), Space("lab-b"), Space("lab-c")))
    hard = [
        body["spec"]["hard"]["requests.nvidia.com/gpu"]
        for name, body in wanted(own).items()
        if name.startswith("ResourceQuota")
    ]
    assert hard == ["7", "1", "1"]


@pytest.mark.parametrize(
    ("share", "reason"),
    [
        (Share(4, pool="a100"), "fits none of fast, small"),
        (Share(4), "fits fast, small"),
        (Share(4, model="H200"), "fits none of fast, small"),
    ],
)
def test_a_quota_that_means_no_flavor_or_several_is_held_back_and_what_was_stays(share: Share, reason: str) -> None:
    seen = state([flavor("fast", H100), flavor("small", L4)])
    seen = made(seen, propose(LAB, seen))
    proposal = propose(replace(LAB, quotas=(share,)), seen)
    assert reason in proposal.held_back[0].reason
    assert not [each for each in targets(proposal) if "Queue" in each]


def test_a_model_is_found_by_any_of_its_names() -> None:
    seen = Flavors(KUEUE, (("fast", H100), ("small", L4)))
    assert "ClusterQueue/lab" in wanted(replace(LAB, quotas=(Share(1, model="L4"),)), seen)


def test_isolation_lets_in_the_workspace_and_allowed_namespaces_alone_and_out_to_dns_too() -> None:
    spec = wanted(replace(LAB, allowed_namespaces=("monitoring",)))["NetworkPolicy/lab-a/gpu-steward-isolation"]["spec"]
    peers = [
        {"namespaceSelector": {"matchLabels": {"gpusteward.dev/workspace": "lab"}}},
        {"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["monitoring"]}]}},
    ]  # fmt: skip
    assert spec["podSelector"] == {}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [{"from": peers}]
    assert spec["egress"][0] == {"to": peers}
    assert {each["port"] for each in spec["egress"][1]["ports"]} == {53}
    assert len(spec["egress"]) == 2
    open_ = replace(LAB, isolation=Isolation(internet=True))
    assert "10.0.0.0/8" in str(wanted(open_)["NetworkPolicy/lab-a/gpu-steward-isolation"]["spec"]["egress"][2])
    off = replace(LAB, isolation=Isolation(is_on=False))
    assert not [each for each in wanted(off) if each.startswith("NetworkPolicy")]


def test_what_others_changed_of_ours_is_set_right_and_said() -> None:
    seen = made(state(), propose(LAB, state()))
    body = wanted()["RoleBinding/lab-a/gpu-steward-editor"]
    body["subjects"] = []
    drifted = tuple(
        replace(each, body=json.dumps(body)) if str(each.ref) == "RoleBinding/lab-a/gpu-steward-editor" else each
        for each in seen.objects
    )
    (draft,) = propose(LAB, replace(seen, objects=drifted)).drafts
    assert "subjects" in draft.move.reason
    assert json.loads(str(draft.move.arguments["body"])) == wanted()["RoleBinding/lab-a/gpu-steward-editor"]


def test_what_a_rebalance_moved_is_no_drift_until_the_manifest_itself_changes() -> None:
    seen = state([flavor("fast", H100)])
    seen = made(seen, propose(LAB, seen))
    ref = ObjectRef("ClusterQueue", "", "lab")
    whole = next(each for each in seen.objects if each.ref == ref)
    body = json.loads(whole.body)
    body["spec"]["resourceGroups"][0]["flavors"][0]["resources"][-1]["nominalQuota"] = "14"
    body["metadata"]["annotations"]["gpusteward.dev/rebalanced"] = "noted"
    moved = replace(
        seen, objects=(*(each for each in seen.objects if each.ref != ref), replace(whole, body=json.dumps(body)))
    )
    assert propose(LAB, moved) == Proposal()
    body["spec"]["cohortName"] = "others"
    drifted = replace(
        seen, objects=(*(each for each in seen.objects if each.ref != ref), replace(whole, body=json.dumps(body)))
    )
    (draft,) = propose(LAB, drifted).drafts
    asked = json.loads(str(draft.move.arguments["body"]))["spec"]
    assert asked["cohortName"] == "gpu-steward"
    assert asked["resourceGroups"][0]["flavors"][0]["resources"][-1]["nominalQuota"] == "14"
    (draft,) = propose(replace(LAB, quotas=(replace(LAB.quotas[0], gpus=10),)), moved).drafts
    asked = json.loads(str(draft.move.arguments["body"]))["spec"]
    assert asked["resourceGroups"][0]["flavors"][0]["resources"][-1]["nominalQuota"] == "10"


def test_a_foreign_namespace_is_left_alone_with_all_that_would_be_in_it_unless_it_is_to_be_adopted() -> None:
    seen = state([space("lab-a")])
    proposal = propose(LAB, seen)
    assert "say adopt: true" in proposal.held_back[0].reason
    assert not [each for each in targets(proposal) if "lab-a" in each]
    assert [each for each in targets(proposal) if "lab-b" in each]
    adopting = replace(LAB, namespaces=(Space("lab-a", adopt=True), Space("lab-b")))
    draft = next(each for each in propose(adopting, seen).drafts if each.move.target.name == "lab-a")
    assert draft.move.arguments["adopt"] is True


def test_another_workspaces_namespace_and_a_foreign_queue_of_the_same_name_are_left_alone() -> None:
    seen = state([space("lab-a", "other"), flavor("fast", H100)])
    seen = replace(seen, queues=(Queue("c1", ObjectRef("ClusterQueue", "", "lab")),))
    reasons = [each.reason for each in propose(LAB, seen).held_back]
    assert "it belongs to workspace other" in reasons
    assert "a queue of that name is there and not ours" in reasons
    assert not [each for each in targets(propose(LAB, seen)) if "lab-a" in each or "ClusterQueue" in each]


def test_a_namespace_that_leaves_its_workspace_is_deleted_and_takes_what_is_in_it_along() -> None:
    seen = made(state(), propose(LAB, state()))
    smaller = replace(LAB, namespaces=(Space("lab-a"),))
    proposal = propose(smaller, seen)
    assert [each for each in targets(proposal) if each.startswith("delete")] == ["delete_object Namespace/lab-b"]
    after = made(seen, proposal)
    assert propose(smaller, after) == Proposal()


def test_a_workspace_is_deleted_namespaces_first_and_its_queue_when_they_are_gone() -> None:
    seen = state([flavor("fast", H100)])
    seen = made(seen, propose(LAB, seen))
    gone = Desired(LAB, is_deleted=True)
    first = propose(gone, seen)
    assert targets(first) == ["delete_object Namespace/lab-a", "delete_object Namespace/lab-b"]
    second = propose(gone, made(seen, first))
    assert targets(second) == ["delete_object ClusterQueue/lab"]
    last = made(made(seen, first), second)
    assert propose(gone, last) == Proposal()
    assert {each.ref.kind for each in last.objects} == {"Namespace", "ResourceFlavor"}


def test_a_namespace_where_gpus_are_at_work_is_not_deleted_without_force_and_keeps_its_isolation() -> None:
    seen = made(state(), propose(LAB, state()))
    pod = Pod("c1", "lab-a", "train-0", "u1", "n1", ObjectRef("Job", "lab-a", "train"))
    seen = replace(seen, pods=(pod,))
    proposal = propose(Desired(LAB, is_deleted=True), seen)
    assert targets(proposal) == ["delete_object Namespace/lab-b"]
    assert "1 pods with GPUs run in it (train-0)" in proposal.held_back[0].reason
    forced = propose(Desired(LAB, is_deleted=True, is_forced=True), seen)
    assert len(forced.drafts) == 2
    assert all(each.move.arguments["force"] is True for each in forced.drafts)


def test_an_adopted_namespace_is_emptied_of_ours_and_let_go() -> None:
    adopting = replace(LAB, namespaces=(Space("lab-a", adopt=True),))
    seen = made(state([space("lab-a")]), propose(adopting, state([space("lab-a")])))
    proposal = propose(Desired(adopting, is_deleted=True), seen)
    words = targets(proposal)
    assert words[-1] == "apply_object Namespace/lab-a"
    assert all(each.startswith("delete_object") for each in words[:-1])
    after = made(seen, proposal)
    assert next(each for each in after.objects if each.ref.name == "lab-a").owner is None
    assert propose(Desired(adopting, is_deleted=True), after) == Proposal()


def test_what_bears_the_record_of_a_workspace_that_nobody_knows_is_kept_and_told() -> None:
    proposal = propose_workspaces([], state([space("old", "ghost")]), "c1")
    assert not proposal.drafts
    assert "of which no manifest is known; it stays" in proposal.held_back[0].reason


def test_a_cluster_that_shows_no_namespaces_says_that_workspaces_need_kubernetes() -> None:
    proposal = propose_workspaces([Desired(LAB)], FleetState(NOW), "c1")
    assert not proposal.drafts
    assert "shows no namespaces" in proposal.held_back[0].reason


def test_a_workspace_of_other_clusters_has_nothing_here_and_leaves_what_it_had() -> None:
    assert propose(replace(LAB, clusters=("c2",)), state()) == Proposal()
    seen = made(state(), propose(LAB, state()))
    assert len(propose(replace(LAB, clusters=("c2",)), seen).drafts) == 2


def test_objects_of_another_cluster_are_never_looked_at() -> None:
    elsewhere = replace(space("lab-a", "lab"), cluster="c2")
    assert not targets(propose(Desired(LAB, is_deleted=True), state([elsewhere])))


def test_moves_can_be_stopped_anywhere_and_the_next_look_goes_on_from_there() -> None:
    seen = state([flavor("fast", H100)])
    for _ in range(40):
        proposal = propose(LAB, seen)
        if not proposal.drafts:
            break
        first = min(proposal.drafts, key=lambda each: each.order)
        seen = made(seen, Proposal((first,)))
    assert propose(LAB, seen) == Proposal()
    assert len([each for each in seen.objects if each.owner == "lab"]) == len(
        wanted(flavors=Flavors(KUEUE, (("fast", H100),)))
    )
