"""Moves of quotas and queues in Kubernetes, and how quotas are observed: Kueue, KAI, or plain resource quotas.

Who speaks for which workspace, and what a flavor is, follows the same rules as the table `quota`, so that both name a
quota alike. A quota that lies in several objects can be seen but not set: no one number would say which of them.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from actions.fields import OUR_NAME
from actions.kube_body import (
    APPLIED,
    MANAGED_BY,
    REBALANCED,
    WORKSPACE,
    annotation,
    at,
    label,
    meant_version,
    merged,
    name_of,
    namespace_of,
    patch_of,
    workspace_in,
)
from actions.kube_grants import (
    Grant,
    Numbers,
    declared,
    grants_of,
    grants_version,
    numbers_of,
    regranted,
)
from actions.kube_kai import kai_numbers, kai_spec
from actions.kube_parts import Parts, look_at_parts
from actions.kube_port import NAMESPACES, Api, Change, Object, Reader, Resource
from actions.kube_room import room_of, room_patch
from actions.kube_write import patch_as_meant
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move
from fleet.state import ObjectRef, Queue, Quota

KUEUE, KAI = "kueue.x-k8s.io", "scheduling.run.ai"
_QUEUES = ("ClusterQueue", "Cohort")
_ROOM = Resource("v1", "resourcequotas", "ResourceQuota")
_NO_PARTS: Parts = MappingProxyType({})

_Row = tuple[str, str | None, str | None]  # workspace, pool, model


@dataclass(frozen=True, slots=True)
class QuotaView:
    """What is read to tell quotas: objects by kind; a kind that is not served is missing.

    `parts` says how much of a GPU one unit of a resource is, where the nodes tell.
    """

    objects: Mapping[str, Sequence[Mapping[str, Any]]]
    parts: Parts = field(default_factory=lambda: _NO_PARTS)

    def of(self, kind: str) -> Sequence[Mapping[str, Any]]:
        """Return the objects of one kind."""
        return self.objects.get(kind, ())


@dataclass(frozen=True, slots=True)
class Holder:
    """An object that holds a part of a row of quota: what it grants, its version, and what would change it."""

    body: Mapping[str, Any]
    kind: str
    numbers: Numbers
    version: str
    change: Callable[[Mapping[str, object]], Object] = field(repr=False)

    @property
    def ref(self) -> ObjectRef:
        """Return the object's name."""
        return ObjectRef(self.kind, namespace_of(self.body), name_of(self.body))


def look_at_quotas(api: Reader) -> QuotaView:
    """Read every object that may hold a quota, where its kind is served."""
    objects: dict[str, Sequence[Mapping[str, Any]]] = {}
    for kind in (*_QUEUES, "LocalQueue", "ResourceFlavor"):
        resource = api.find(KUEUE, kind)
        if resource is not None:
            objects[kind] = api.list_all(resource)
    kai = api.find(KAI, "Queue")
    if kai is not None:
        objects["Queue"] = api.list_all(kai)
    objects["ResourceQuota"] = api.list_all(_ROOM)
    objects["Namespace"] = api.list_all(NAMESPACES)
    return QuotaView(objects, look_at_parts(api))


def quotas_from(cluster: str, view: QuotaView) -> tuple[Quota, ...]:
    """Return what each workspace may count on, by pool and model, in a stable order."""
    rows = []
    for (workspace, pool, model), holders in sorted(holders_of(view).items(), key=str):
        total = _together(holder.numbers for holder in holders)
        only = holders[0] if len(holders) == 1 else None
        rows.append(
            Quota(
                cluster,
                workspace,
                pool=pool,
                model=model,
                resource_version="" if only is None else only.version,
                place=None if only is None else str(only.ref),
                **asdict(total),
            )
        )
    return tuple(rows)


def queues_from(cluster: str, view: QuotaView) -> tuple[Queue, ...]:
    """Return the queues of Kueue, local and cluster-wide, with whom they stop; without those that are being deleted."""
    speaks = workspaces_of(view)
    spaces = _workspace_of(view)
    found = []
    for kind in ("ClusterQueue", "LocalQueue"):
        for body in view.of(kind):
            if at(body, ("metadata", "deletionTimestamp")) is not None:
                continue
            ref = ObjectRef(kind, namespace_of(body), name_of(body))
            workspace = spaces.get(ref.namespace, ref.namespace) if ref.namespace else speaks.get(ref.name)
            found.append(Queue(cluster, ref, workspace, stop_policy_of(body), meant_version(body)))
    return tuple(sorted(found, key=lambda each: each.ref))


def change_quota(api: Api, move: Move) -> Change:
    """Prepare new numbers for the quota of a workspace in one pool and model."""
    view = look_at_quotas(api)
    row: _Row = (move.target.name, _text(move, "pool"), _text(move, "model"))
    holders = holders_of(view).get(row, [])
    if len(holders) != 1:
        names = ", ".join(str(holder.ref) for holder in holders)
        message = f"the quota of workspace {row[0]} lies in {names}; which of them is to change is not known"
        if not holders:
            message = f"workspace {row[0]} has no quota of pool {row[1]} and model {row[2]}"
            raise StaleState(message)
        raise MoveRefused(message)
    holder = holders[0]
    if move.resource_version not in {"", holder.version}:
        message = f"the quota of workspace {row[0]} has changed since it was planned for"
        raise StaleState(message)
    patch = holder.change(_wanted(move))
    resource = _resource(api, holder.kind)
    path = resource.path(holder.ref.name, holder.ref.namespace)
    return Change(asdict(holder.numbers), partial(patch_as_meant, api, path, _noted(holder.body, patch), holder.body))


def change_queue(api: Api, move: Move) -> Change:
    """Prepare another stop policy of a LocalQueue or a ClusterQueue."""
    if move.target.kind not in {"LocalQueue", "ClusterQueue"}:
        message = f"{move.target} is no queue of Kueue; only those have a stop policy"
        raise MoveRefused(message)
    wanted = move.arguments.get("stop_policy")
    if wanted not in {None, "Hold", "HoldAndDrain"}:
        message = f"stop_policy: {wanted!r} is not one of Hold, HoldAndDrain or null"
        raise MoveRefused(message)
    path = _resource(api, move.target.kind).path(move.target.name, move.target.namespace)
    body = api.get(path)
    if move.resource_version not in {"", meant_version(body)}:
        message = f"{move.target} has changed since it was planned for"
        raise StaleState(message)
    # taken away, it reads "None" again: that is its default
    patch = patch_of({("spec", "stopPolicy"): wanted})
    return Change({"stop_policy": stop_policy_of(body)}, partial(patch_as_meant, api, path, patch, body))


def stop_policy_of(body: Mapping[str, Any]) -> str | None:
    """Return how a queue is stopped; None where it admits."""
    policy = at(body, ("spec", "stopPolicy"))
    return None if policy in {None, "None"} else str(policy)


def holders_of(view: QuotaView) -> dict[_Row, list[Holder]]:
    """Return who holds the quota of each workspace, pool and model.

    Queues speak first; resource quotas only for workspaces that no queue speaks for.
    """
    rows: defaultdict[_Row, list[Holder]] = defaultdict(list)
    for row, holder in (*_of_kueue(view), *_of_kai(view)):
        rows[row].append(holder)
    queued = {workspace for workspace, _, _ in rows}
    for row, holder in _of_rooms(view):
        if row[0] not in queued:
            rows[row].append(holder)
    return dict(rows)


def workspaces_of(view: QuotaView) -> dict[str, str]:
    """Return the workspace that each cluster queue speaks for: its label's, else its only user's, else its own name."""
    spaces = _workspace_of(view)
    leads: defaultdict[str, set[str]] = defaultdict(set)
    for queue in view.of("LocalQueue"):
        leads[str(at(queue, ("spec", "clusterQueue")))].add(spaces.get(namespace_of(queue), namespace_of(queue)))
    return {
        name_of(body): label(body, WORKSPACE) or _only(leads[name_of(body)]) or name_of(body)
        for body in view.of("ClusterQueue")
    }


def _of_kueue(view: QuotaView) -> Iterable[tuple[_Row, Holder]]:
    flavors = {name_of(each): at(each, ("spec", "nodeLabels")) or {} for each in view.of("ResourceFlavor")}
    speaks = workspaces_of(view)
    for kind in _QUEUES:
        for body in view.of(kind):
            # a cohort is shared; only one that says whose it is speaks for a workspace
            workspace = speaks[name_of(body)] if kind == "ClusterQueue" else label(body, WORKSPACE)
            grouped: defaultdict[tuple[str | None, str | None], list[Grant]] = defaultdict(list)
            for grant in grants_of(body, flavors, view.parts):
                grouped[grant.pool, grant.model].append(grant)
            for (pool, model), grants in grouped.items():
                if workspace is not None:
                    change = partial(_regrant, body, grants)
                    numbers = numbers_of(body, grants)
                    yield (workspace, pool, model), Holder(body, kind, numbers, grants_version(body, grants), change)


def _of_kai(view: QuotaView) -> Iterable[tuple[_Row, Holder]]:
    parents = {at(each, ("spec", "parentQueue")) for each in view.of("Queue")}
    for body in view.of("Queue"):
        numbers = kai_numbers(body)
        if numbers is not None and name_of(body) not in parents:
            workspace = label(body, WORKSPACE) or name_of(body)
            yield (workspace, None, None), Holder(body, "Queue", numbers, meant_version(body), partial(kai_spec, body))


def _of_rooms(view: QuotaView) -> Iterable[tuple[_Row, Holder]]:
    spaces = _workspace_of(view)
    tightest: dict[str, list[Holder]] = {}
    for body in view.of("ResourceQuota"):
        numbers = room_of(body, view.parts)
        if numbers is not None:
            holder = Holder(body, "ResourceQuota", numbers, meant_version(body), partial(room_patch, body, view.parts))
            tightest.setdefault(namespace_of(body), []).append(holder)
    for namespace, holders in sorted(tightest.items()):
        workspace = spaces.get(namespace, namespace)
        if len(holders) == 1:
            yield (workspace, None, None), holders[0]
            continue
        # all of them hold at once, so the smallest speaks; raising it would only let the next one speak
        smallest = min(holders, key=lambda each: (each.numbers.gpus, name_of(each.body)))
        yield (
            (workspace, None, None),
            Holder(
                smallest.body, smallest.kind, smallest.numbers, smallest.version, partial(_refuse_several, namespace)
            ),
        )


def _refuse_several(namespace: str, _wanted: Mapping[str, object]) -> Object:
    message = (
        f"several resource quotas of namespace {namespace} bound its GPUs; which of them is to change is not known"
    )
    raise MoveRefused(message)


def _regrant(body: Mapping[str, Any], grants: Sequence[Grant], wanted: Mapping[str, object]) -> Object:
    return {"spec": regranted(body, grants, wanted)}


def _noted(body: Mapping[str, Any], patch: Object) -> Object:
    """Return the patch with a note of the numbers it leaves, on an object of ours, so that they don't look like drift.

    Where it leaves what the object's manifest says, the note goes.
    """
    if label(body, MANAGED_BY) != OUR_NAME:
        return patch
    note = declared(merged(body, patch))
    is_back = note == declared(json.loads(annotation(body, APPLIED) or "{}"))
    return {**patch, "metadata": {"annotations": {REBALANCED: None if is_back else note}}}


def _resource(api: Reader, kind: str) -> Resource:
    if kind == "ResourceQuota":
        return _ROOM
    found = api.find(KAI if kind == "Queue" else KUEUE, kind)
    if found is None:
        message = f"the cluster serves no {kind}"
        raise StaleState(message)
    return found


def _wanted(move: Move) -> dict[str, object]:
    told = move.arguments
    optional = {name: told[name] for name in ("lending_gpus", "weight") if name in told}
    return {"gpus": told.get("gpus"), "borrowing_gpus": told.get("borrowing_gpus"), **optional}


def _text(move: Move, name: str) -> str | None:
    value = move.arguments.get(name)
    return None if value is None else str(value)


def _workspace_of(view: QuotaView) -> dict[str, str]:
    return {name_of(each): told for each in view.of("Namespace") if (told := workspace_in(each)) is not None}


def _only(names: set[str]) -> str | None:
    return next(iter(names)) if len(names) == 1 else None


def _together(numbers: Iterable[Numbers]) -> Numbers:
    several = list(numbers)
    weights = {each.weight for each in several}
    return Numbers(
        sum(each.gpus for each in several),
        _sum([each.borrowing_gpus for each in several]),
        _sum([each.lending_gpus for each in several]),
        next(iter(weights)) if len(weights) == 1 else None,
    )


def _sum(amounts: Sequence[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None
