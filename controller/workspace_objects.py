"""The Kubernetes objects that a workspace turns into in one cluster, in the order they are made. Pure.

Bodies are written out whole, defaults included, so that what the server stores reads as it was asked for.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from actions.fields import OUR_NAME
from actions.kube_body import amount_text
from actions.kube_grants import pool_of
from actions.kube_parts import GPU, model_of
from fleet.models import canonical_model
from fleet.state import ObjectRef, OwnedObject
from fleet.workspace import Seat, Share, Space, Workspace

WORKSPACE, OWNER = "gpusteward.dev/workspace", "gpusteward.dev/owner"
ADOPTED, DECLARED = "gpusteward.dev/adopted", "gpusteward.dev/declared"
MANAGED_BY = "app.kubernetes.io/managed-by"
_NAME = "metadata.name"
_SPACE_NAME = f"kubernetes.io/{_NAME}"
_RBAC = "rbac.authorization.k8s.io"
_CLUSTER_ROLES = {"Owner": "admin", "Editor": "edit", "Viewer": "view"}
_HARD = {"cpu": "requests.cpu", "memory": "requests.memory", "pods": "pods", "storage": "requests.storage"}
# A queue counts every resource it is asked for; of these the namespaces' own limits decide, so it has room without end.
_ROOM = (("cpu", "1M"), ("memory", "1000000Gi"), ("ephemeral-storage", "1000000Gi"))
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")
SPACE, BOUND, RIGHT, SHARED, LOCAL = range(5)  # the order in which objects are made

Body = dict[str, object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object as it is to be, and its place in the order; `adopt`: it may be there already, made by others."""

    api_version: str
    ref: ObjectRef
    body: Body
    stage: int
    adopt: bool = False

    @property
    def key(self) -> tuple[str, ObjectRef]:
        """Return what tells it from every other object of its cluster."""
        return self.api_version, self.ref

    @property
    def text(self) -> str:
        """Return the body as a move carries it."""
        return json.dumps(self.body, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Flavors:
    """Kueue's kinds of nodes in one cluster, by name, and the version it serves; "" where it is not there."""

    api_version: str = ""
    labels: tuple[tuple[str, Mapping[str, str]], ...] = ()


def flavors_of(objects: Iterable[OwnedObject]) -> Flavors:
    """Return the flavors among the objects of a cluster."""
    found = sorted((each for each in objects if each.ref.kind == "ResourceFlavor"), key=lambda each: each.ref.name)
    labels = [(each.ref.name, json.loads(each.body).get("spec", {}).get("nodeLabels", {})) for each in found]
    return Flavors(found[0].api_version if found else "", tuple(labels))


def objects_of(workspace: Workspace, cluster: str, flavors: Flavors) -> tuple[list[Wanted], list[str]]:
    """Return the objects of a workspace in a cluster, and why some of what it asks for can't be had there."""
    spaces = workspace.spaces_in(cluster)
    shares = workspace.shares_in(cluster)
    queue, problems = _queue(workspace, cluster, flavors) if flavors.api_version and spaces else (None, [])
    parts = {} if queue is not None else _parts(spaces, shares)
    wanted: list[Wanted] = []
    for space in spaces:
        wanted += _of_space(workspace, space, parts.get(space.name))
        if queue is not None:
            ref = ObjectRef("LocalQueue", space.name, workspace.name)
            body = {**_record(workspace), "spec": {"clusterQueue": workspace.name}}
            wanted.append(Wanted(flavors.api_version, ref, body, LOCAL))
    if queue is not None:
        wanted.append(queue)
    return sorted(wanted, key=lambda each: (each.stage, each.ref)), problems


def _of_space(workspace: Workspace, space: Space, gpus: int | None) -> list[Wanted]:
    name = space.name
    hard = {_HARD[key]: amount for key, amount in workspace.limits.items()}
    hard |= {} if gpus is None else {f"requests.{GPU}": amount_text(gpus)}
    container: Body = {"type": "Container"}
    if workspace.defaults:
        container |= {"defaultRequest": dict(workspace.defaults)}
    if workspace.most:
        # without it, the server would take the most as what a container gets that says nothing
        container |= {"max": dict(workspace.most), "default": {**workspace.most}}
        container["defaultRequest"] = {**workspace.most, **workspace.defaults}
    found = [Wanted("v1", ObjectRef("Namespace", "", name), _space(workspace, space), SPACE, space.adopt)]
    if hard:
        notes = {} if gpus is None else {DECLARED: str(gpus)}
        body = {**_record(workspace, **notes), "spec": {"hard": hard}}
        found.append(Wanted("v1", ObjectRef("ResourceQuota", name, OUR_NAME), body, BOUND))
    if len(container) > 1:
        spec: Body = {"limits": [container]}
        ref = ObjectRef("LimitRange", name, OUR_NAME)
        found.append(Wanted("v1", ref, {**_record(workspace), "spec": spec}, BOUND))
    if workspace.isolation.is_on:
        ref = ObjectRef("NetworkPolicy", name, f"{OUR_NAME}-isolation")
        body = {**_record(workspace), "spec": _isolated(workspace)}
        found.append(Wanted("networking.k8s.io/v1", ref, body, BOUND))
    for seat in workspace.seats:
        binding = f"{OUR_NAME}-{seat.role.lower()}"
        ref = ObjectRef("RoleBinding", name, binding)
        found.append(Wanted(f"{_RBAC}/v1", ref, {**_record(workspace), **_binding(seat)}, RIGHT))
    return found


def _record(workspace: Workspace, **annotations: str) -> Body:
    meta: Body = {"labels": {MANAGED_BY: OUR_NAME, WORKSPACE: workspace.name}}
    return {"metadata": {**meta, "annotations": annotations} if annotations else meta}


def _space(workspace: Workspace, space: Space) -> Body:
    notes = {} if workspace.owner is None else {OWNER: workspace.owner}
    return _record(workspace, **notes, **({ADOPTED: "true"} if space.adopt else {}))


def _isolated(workspace: Workspace) -> Body:
    peers: list[Body] = [{"namespaceSelector": {"matchLabels": {WORKSPACE: workspace.name}}}]
    if workspace.allowed_namespaces:
        named = {"key": _SPACE_NAME, "operator": "In", "values": list(workspace.allowed_namespaces)}
        peers.append({"namespaceSelector": {"matchExpressions": [named]}})
    dns = {
        "to": [{"namespaceSelector": {"matchLabels": {_SPACE_NAME: "kube-system"}}}],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }
    egress: list[Body] = [{"to": peers}, dns]
    if workspace.isolation.internet:
        egress.append({"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": list(_PRIVATE)}}]})
    return {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peers}],
        "egress": egress,
    }


def _binding(seat: Seat) -> Body:
    subjects = [{"kind": "User", "name": each} for each in seat.users]
    subjects += [{"kind": "Group", "name": each} for each in seat.groups]
    return {
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": _CLUSTER_ROLES[seat.role]},
        "subjects": [{"apiGroup": _RBAC, **each} for each in subjects],
    }


def _parts(spaces: tuple[Space, ...], shares: tuple[Share, ...]) -> dict[str, int]:
    """Return how many GPUs each namespace may use where no queue shares them out: never more than the whole.

    What namespaces claim for themselves is theirs; the rest is dealt out evenly, in their order.
    """
    if not shares:
        return {space.name: space.gpus for space in spaces if space.gpus is not None}
    claimed = {space.name: space.gpus for space in spaces if space.gpus is not None}
    others = [space.name for space in spaces if space.gpus is None]
    left = max(sum(share.gpus for share in shares) - sum(claimed.values()), 0)
    each, more = divmod(left, len(others)) if others else (0, 0)
    return {**claimed, **{name: each + (place < more) for place, name in enumerate(others)}}


def _queue(workspace: Workspace, cluster: str, flavors: Flavors) -> tuple[Wanted | None, list[str]]:
    shares = workspace.shares_in(cluster)
    entries: dict[str, Body] = {}
    problems = []
    for share in shares:
        fitting = [name for name, labels in flavors.labels if _fits(share, labels)]
        what = f"pool {share.pool or 'any'} and model {share.model or 'any'}"
        if len(fitting) != 1:
            named = ", ".join(fitting) if fitting else f"none of {', '.join(name for name, _ in flavors.labels)}"
            problems.append(f"quota of {what}: it must mean one flavor of Kueue, and fits {named}")
        elif fitting[0] in entries:
            problems.append(f"quota of {what}: flavor {fitting[0]} is spoken for by another quota")
        else:
            entries[fitting[0]] = _entry(share)
    if not entries or problems:
        return None, problems
    is_old = flavors.api_version.endswith("v1beta1")
    weight = next((share.weight for share in shares if share.weight is not None), None)
    group = {
        "coveredResources": [*(name for name, _ in _ROOM), GPU],
        "flavors": [{"name": name, "resources": _resources(entry)} for name, entry in sorted(entries.items())],
    }
    spec: Body = {
        "cohort" if is_old else "cohortName": workspace.cohort,
        "namespaceSelector": {"matchLabels": {WORKSPACE: workspace.name}},
        "preemption": {"reclaimWithinCohort": "Any", "withinClusterQueue": "LowerPriority"},
        "resourceGroups": [group],
    }
    if weight is not None:
        spec["fairSharing"] = {"weight": amount_text(weight)}
    numbers = json.dumps([spec["resourceGroups"], spec.get("fairSharing")], sort_keys=True)
    body = {**_record(workspace, **{DECLARED: numbers}), "spec": spec}
    return Wanted(flavors.api_version, ObjectRef("ClusterQueue", "", workspace.name), body, SHARED), []


def _fits(share: Share, labels: Mapping[str, str]) -> bool:
    pool, model = pool_of(labels), model_of(labels)
    is_model = share.model is None or (model is not None and canonical_model(model) == canonical_model(share.model))
    return is_model and share.pool in {None, pool}


def _entry(share: Share) -> Body:
    limits = (("borrowingLimit", share.borrowing_gpus), ("lendingLimit", share.lending_gpus))
    return {
        "name": GPU,
        "nominalQuota": amount_text(share.gpus),
        **{name: amount_text(each) for name, each in limits if each is not None},
    }


def _resources(entry: Body) -> list[Body]:
    room: list[Body] = [{"name": name, "nominalQuota": amount} for name, amount in _ROOM]
    return [*room, entry]
