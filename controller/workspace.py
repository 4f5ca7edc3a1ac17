"""Workspaces as their manifests wish them: desired and observed objects become moves of the rule "workspace". Pure.

Nothing is deleted but what bears our record of ownership and belongs to a workspace whose manifest is known. What a
rebalance has moved since is no drift; what others changed of ours is, and is set right.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from actions.evidence import Draft, Proposal
from actions.kube_body import REBALANCED
from controller.workspace_objects import (
    ADOPTED,
    DECLARED,
    Flavors,
    Wanted,
    flavors_of,
    objects_of,
)
from fleet.move import HeldBack, Move, MoveKind, Value
from fleet.state import FleetState, ObjectRef, OwnedObject
from fleet.workspace import Desired, Workspace

RULE = "workspace"
MANIFEST_AT, CHANGES = "manifest_at", "changes_manifest"  # of a move's evidence: for which manifest; it came with it
_GROUPS, _HARD = "resourceGroups", "hard"
_GPU = "requests.nvidia.com/gpu"
_LAST = 90.0  # deletions come after all that is made


def propose_workspaces(desired: Sequence[Desired], state: FleetState, cluster: str) -> Proposal:
    """Return the moves that make the workspaces of a cluster what they are to be, and what can't be made and why."""
    here = _here(state, cluster)
    if not any(ref.kind == "Namespace" for _, ref in here.objects):
        reason = f"cluster {cluster} shows no namespaces; workspaces need a cluster of Kubernetes"
        return Proposal((), tuple(HeldBack(each.workspace.name, "apply_object", reason) for each in desired))
    known = {each.workspace.name for each in desired}
    drafts: list[Draft] = []
    held: list[HeldBack] = []
    for each in sorted(desired, key=lambda each: each.workspace.name):
        made = _reconciled(each, here)
        drafts += [_stamped(draft, each) for draft in made.drafts]
        held += made.held_back
    for owner in sorted(set(here.owned) - known):
        reason = f"it bears our record for workspace {owner}, of which no manifest is known; it stays"
        held += [HeldBack(str(stray.ref), "delete_object", reason) for stray in here.owned[owner].values()]
    return Proposal(tuple(drafts), tuple(held))


def differences(before: Mapping[str, object], after: Mapping[str, object], path: str = "") -> list[str]:
    """Return where two bodies differ, as paths."""
    found: list[str] = []
    for name in sorted({*before, *after}):
        at = f"{path}.{name}" if path else name
        one, other = before.get(name), after.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, at)
        elif one != other:
            found.append(at)
    return found


_Key = tuple[str, ObjectRef]


@dataclass(frozen=True, slots=True)
class _Here:
    """What stands in one cluster: objects by key, those of each workspace, flavors, queues, and pods by namespace."""

    cluster: str
    objects: Mapping[_Key, OwnedObject]
    owned: Mapping[str, Mapping[_Key, OwnedObject]]
    flavors: Flavors
    queues: frozenset[ObjectRef]
    pods: Mapping[str, Sequence[str]]


def _here(state: FleetState, cluster: str) -> _Here:
    objects = {(each.api_version, each.ref): each for each in state.objects if each.cluster == cluster}
    owned: defaultdict[str, dict[_Key, OwnedObject]] = defaultdict(dict)
    for key, each in objects.items():
        if each.owner is not None:
            owned[each.owner][key] = each
    pods: defaultdict[str, list[str]] = defaultdict(list)
    for pod in sorted(state.pods, key=lambda each: each.name):
        if pod.cluster == cluster:
            pods[pod.namespace].append(pod.name)
    queues = frozenset(each.ref for each in state.queues if each.cluster == cluster)
    return _Here(cluster, objects, dict(owned), flavors_of(objects.values()), queues, dict(pods))


def _reconciled(desired: Desired, here: _Here) -> Proposal:
    workspace = desired.workspace
    ours = here.owned.get(workspace.name, {})
    wanted, problems = ([], []) if desired.is_deleted else objects_of(workspace, here.cluster, here.flavors)
    held = [HeldBack(workspace.name, "apply_object", problem) for problem in problems]
    drafts: list[Draft] = []
    for each in wanted:
        found = here.objects.get(each.key)
        reason = _why_not(each, found, workspace, here)
        if reason is not None:
            held.append(HeldBack(str(each.ref), "apply_object", reason))
            continue
        draft = _application(workspace, each, found, here.cluster)
        drafts += [] if draft is None else [draft]
    blocked = {each.subject for each in held}
    # what stands in a namespace that we may not have, is not made either
    drafts = [draft for draft in drafts if f"Namespace/{draft.move.target.namespace}" not in blocked]
    # what its quotas were stays until those that it asks for now can be had
    keep = {"ClusterQueue", "LocalQueue", "ResourceQuota"} if problems else set()
    keys = {each.key for each in wanted}
    gone = [each for key, each in ours.items() if key not in keys and each.ref.kind not in keep]
    deletions, kept = _deletions(desired, gone, here)
    return Proposal((*drafts, *deletions), (*held, *kept))


def _stamped(draft: Draft, desired: Desired) -> Draft:
    """Return a draft whose move names the manifest it is made for, where that is kept."""
    if desired.made_at is None:
        return draft
    evidence = {**draft.move.evidence, MANIFEST_AT: desired.made_at.isoformat()}
    return replace(draft, move=replace(draft.move, evidence=MappingProxyType(evidence)))


def _why_not(wanted: Wanted, found: OwnedObject | None, workspace: Workspace, here: _Here) -> str | None:
    if found is not None and found.owner not in {None, workspace.name}:
        return f"it belongs to workspace {found.owner}"
    if found is not None and found.owner is None and not wanted.adopt:
        return "it is there and not ours; say adopt: true in the manifest to make it the workspace's"
    if found is None and wanted.ref.kind == "ClusterQueue" and wanted.ref in here.queues:
        return "a queue of that name is there and not ours"
    return None


def _application(workspace: Workspace, wanted: Wanted, found: OwnedObject | None, cluster: str) -> Draft | None:
    if found is not None and found.owner is not None and found.body == wanted.text:
        return None
    before = {} if found is None else json.loads(found.body)
    text = wanted.text if found is None else json.dumps(_kept(wanted, before), sort_keys=True)
    after = json.loads(text)
    if found is not None and found.owner is not None and before == after:
        return None
    if found is None:
        reason = f"workspace {workspace.name} is to have it"
    elif found.owner is None:
        reason = f"workspace {workspace.name} adopts it"
    else:
        reason = f"it differs from what workspace {workspace.name} is to have: {', '.join(differences(before, after))}"
    told: dict[str, Value] = {"api_version": wanted.api_version, "body": text}
    if wanted.adopt:
        told["adopt"] = True
    risk = "" if found is None else "what others set of it is set back"
    return _draft(_About(workspace, cluster, wanted.ref, found), reason, told, float(wanted.stage), risk=risk)


def _kept(wanted: Wanted, before: Mapping[str, object]) -> dict[str, object]:
    """Return the body to ask for, with the numbers that a rebalance set where the manifest's own have not changed."""
    body: dict[str, object] = json.loads(wanted.text)
    notes = _notes(before)
    if REBALANCED not in notes or notes.get(DECLARED) != _notes(body).get(DECLARED):
        return body
    spec, seen = body["spec"], before.get("spec")
    if isinstance(spec, dict) and isinstance(seen, Mapping):
        spec.update({name: seen[name] for name in (_GROUPS, "fairSharing") if name in spec and name in seen})
        hard = seen.get(_HARD)
        if isinstance(hard, Mapping) and _GPU in hard:
            spec[_HARD] = {**spec.get(_HARD, {}), _GPU: hard[_GPU]}
    meta = body["metadata"]
    if isinstance(meta, dict):
        meta["annotations"] = {**meta.get("annotations", {}), REBALANCED: notes[REBALANCED]}
    return body


def _notes(body: Mapping[str, object]) -> Mapping[str, str]:
    meta = body.get("metadata")
    notes = meta.get("annotations") if isinstance(meta, Mapping) else None
    return notes if isinstance(notes, Mapping) else {}


def _deletions(desired: Desired, gone: Sequence[OwnedObject], here: _Here) -> tuple[list[Draft], list[HeldBack]]:
    """Return what takes away objects that are no longer wanted, namespaces first: with them goes what is in them.

    What a namespace holds is not taken away before it, so that pods that run there keep their isolation and bounds;
    a queue of the cluster goes when no namespace is left that might use it.
    """
    workspace = desired.workspace
    spaces = {each.ref.name: each for each in gone if each.ref.kind == "Namespace"}
    drafts: list[Draft] = []
    held: list[HeldBack] = []
    for each in sorted(gone, key=lambda each: (each.ref.kind != "Namespace", each.ref)):
        space = spaces.get(each.ref.name if each.ref.kind == "Namespace" else each.ref.namespace)
        about = _About(workspace, here.cluster, each.ref, each)
        pods = () if space is None else here.pods.get(space.ref.name, ())
        if space is None:
            drafts += [_deletion(about, desired)] if each.ref.namespace or not spaces else []
        elif pods and not desired.is_forced:
            reason = f"{len(pods)} pods with GPUs run in it ({', '.join(pods[:3])}); say force to delete it"
            held += [HeldBack(str(each.ref), "delete_object", reason)] if each is space else []
        elif _notes(json.loads(space.body)).get(ADOPTED) == "true":
            drafts.append(_release(about) if each is space else _deletion(about, desired))
        elif each is space:
            drafts.append(_deletion(about, desired))
    return drafts, held


@dataclass(frozen=True, slots=True)
class _About:
    """The object that a move is about, as it stands."""

    workspace: Workspace
    cluster: str
    ref: ObjectRef
    found: OwnedObject | None


def _deletion(about: _About, desired: Desired) -> Draft:
    told: dict[str, Value] = {"api_version": "" if about.found is None else about.found.api_version}
    is_space = about.ref.kind == "Namespace"
    if is_space and desired.is_forced:
        told["force"] = True
    risk = "all that is in it goes with it" if is_space else ""
    order = _LAST + (0.0 if is_space else 1.0)
    reason = f"workspace {about.workspace.name} is no longer to have it"
    return _draft(about, reason, told, order, kind=MoveKind.DELETE_OBJECT, risk=risk)


def _release(about: _About) -> Draft:
    """Let go of a namespace that was there before its workspace: our labels go, everything else stays."""
    version = "" if about.found is None else about.found.api_version
    told: dict[str, Value] = {"api_version": version, "body": "{}", "adopt": True}
    reason = f"workspace {about.workspace.name} lets go of it; it was there before"
    return _draft(about, reason, told, _LAST + 2.0)


def _draft(
    about: _About,
    reason: str,
    told: Mapping[str, Value],
    order: float,
    *,
    kind: MoveKind = MoveKind.APPLY_OBJECT,
    risk: str = "",
) -> Draft:
    before = None if about.found is None else about.found.body
    move = Move(
        move_id="",
        kind=kind,
        cluster=about.cluster,
        target=about.ref,
        cause="manifest",
        reason=reason,
        workspace=about.workspace.name,
        arguments=MappingProxyType(dict(told)),
        resource_version="" if about.found is None else about.found.resource_version,
        risk=risk,
        evidence=MappingProxyType({"before": {"body": before}}),
        rule=RULE,
    )
    return Draft(move, (), (order,))
