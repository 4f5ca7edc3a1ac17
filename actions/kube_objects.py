"""Objects that a workspace is made of: applied by our field manager, deleted only where they bear our record.

What we last asked of an object stands in an annotation of it. What we see of an object is what stands where we asked
for something: so what others add beside is no drift, what they change of ours is, and what is undone comes back as it
was. Fields are taken from others only on objects that are ours.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from actions.fields import OUR_NAME
from actions.kube_body import (
    APPLIED,
    MANAGED_BY,
    REBALANCED,
    WORKSPACE,
    annotation,
    at,
    controller_of,
    label,
    meant_version,
    name_of,
    namespace_of,
    quantity,
)
from actions.kube_grants import declared
from actions.kube_port import NAMESPACES, PODS, Api, Change, Fields, Object, Reader, Resource, get_or_none
from actions.kube_write import write_as_meant
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind
from fleet.state import ObjectRef, OwnedObject

ADOPTED = "gpusteward.dev/adopted"  # it was there before us, and stays when its workspace goes
_KUEUE = "kueue.x-k8s.io"
_OWNED = (
    ("v1", "ResourceQuota"), ("v1", "LimitRange"), ("networking.k8s.io/v1", "NetworkPolicy"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"), (_KUEUE, "LocalQueue"), (_KUEUE, "ClusterQueue"),
)  # fmt: skip
_SYSTEM = frozenset({
    "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"
})  # fmt: skip
_OVER = frozenset({"Succeeded", "Failed"})


def look_at_objects(api: Reader) -> list[Object]:
    """Read what bears our record, all namespaces, and the flavors of Kueue, where those kinds are served."""
    found = api.list_all(NAMESPACES)
    for version, kind in _OWNED:
        resource = api.find(version, kind)
        found += [] if resource is None else api.list_all(resource, labels=f"{MANAGED_BY}={OUR_NAME}")
    flavors = api.find(_KUEUE, "ResourceFlavor")
    return found if flavors is None else [*found, *api.list_all(flavors)]


def objects_from(cluster: str, objects: Iterable[Mapping[str, Any]]) -> tuple[OwnedObject, ...]:
    """Return the objects of workspaces, and what they stand on (namespaces, flavors), in a stable order.

    What is being deleted is left out, and so is what goes with its namespace.
    """
    every = list(objects)
    going = {name_of(body) for body in every if body["kind"] == "Namespace" and _is_going(body)}
    found = [_owned(cluster, body, None) for body in every if not _is_going(body) and namespace_of(body) not in going]
    return tuple(sorted(found, key=lambda each: (each.api_version, each.ref)))


def object_for(api: Reader, cluster: str, move: Move) -> OwnedObject | None:
    """Return the object that a move means as it is now, None where there is none."""
    live, _ = _look(api, move)
    return None if live is None or _is_going(live) else _owned(cluster, live, _asked(move))


def change_object(api: Api, move: Move) -> Change:
    """Prepare an object to be applied or deleted."""
    live, resource = _look(api, move)
    if live is not None and move.resource_version not in {"", meant_version(live)}:
        message = f"{move.target} has changed since it was planned for"
        raise StaleState(message)
    if live is not None and _is_going(live):
        message = f"{move.target} is being deleted"
        raise StaleState(message)
    prior: Fields = {"body": None if live is None else body_of(live, _asked(move))}
    if move.kind is MoveKind.DELETE_OBJECT:
        return Change(prior, _deletion(api, move, resource, live))
    return Change(prior, _application(api, move, resource, live))


def body_of(live: Mapping[str, Any], asked: Mapping[str, Any] | None = None) -> str:
    """Return what stands where we asked for something, as JSON; all of it where our note of that is gone.

    `asked` is what to look for on an object that is not ours (yet).
    """
    if label(live, MANAGED_BY) == OUR_NAME:
        asked = _last_asked(live)
    if asked is None:
        return _text(_bare(live) if label(live, MANAGED_BY) == OUR_NAME else {})
    found = _seen_of(live, asked)
    moved = annotation(live, REBALANCED)
    if moved is not None and moved == declared(live):  # else it tells of numbers that others have changed since
        found.setdefault("metadata", {}).setdefault("annotations", {})[REBALANCED] = moved
    return _text(found)


def is_release(body: Mapping[str, Any]) -> bool:
    """Return whether a body lets go of an object: it asks for no record of ownership."""
    return label(body, MANAGED_BY) != OUR_NAME


def _application(api: Api, move: Move, resource: Resource, live: Object | None) -> "_Write":
    asked = _asked(move)
    if asked is None:
        message = f"{move.target}: there is nothing to apply"
        raise MoveRefused(message)
    is_ours = live is not None and _is_of(live, move)
    if live is not None and not is_ours and move.arguments.get("adopt") is not True:
        raise MoveRefused(_whose(move, live))
    meta: Object = {**(asked.get("metadata") or {}), "name": move.target.name}
    if resource.is_namespaced:
        meta["namespace"] = move.target.namespace
    if not is_release(asked):
        meta["annotations"] = {**(meta.get("annotations") or {}), APPLIED: _text(asked)}
    body = {**asked, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
    path = resource.path(move.target.name, move.target.namespace)
    if live is None and resource.is_namespaced and get_or_none(api, NAMESPACES.path(move.target.namespace)) is None:
        return partial(_wait, move.target)
    return partial(_apply, api, path, body, live, is_forced=is_ours)


def _deletion(api: Api, move: Move, resource: Resource, live: Object | None) -> "_Write":
    if live is None:
        message = f"{move.target} is gone"
        raise StaleState(message)
    if not _is_of(live, move):
        raise MoveRefused(_whose(move, live))
    if annotation(live, ADOPTED) == "true":
        message = f"{move.target} was there before its workspace; it is let go, not deleted"
        raise MoveRefused(message)
    if resource.kind == "Namespace" and move.arguments.get("force") is not True:
        _check_empty(api, move.target.name)
    path = resource.path(move.target.name, move.target.namespace)
    if resource.kind == "Namespace":
        return partial(_delete_space, api, path, live)
    return partial(_delete, api, path, live)


def _check_empty(api: Api, namespace: str) -> None:
    """Refuse a namespace in which something runs or is kept: it would be gone for good."""
    pods = [name_of(each) for each in api.list_all(PODS, namespace) if at(each, ("status", "phase")) not in _OVER]
    claims = api.find("v1", "PersistentVolumeClaim")
    kept = [] if claims is None else [name_of(each) for each in api.list_all(claims, namespace)]
    for what, names in (("pods run", pods), ("volumes are kept", kept)):
        if names:
            message = (
                f"{len(names)} {what} in namespace {namespace} ({', '.join(sorted(names)[:3])}); say force to delete it"
            )
            raise MoveRefused(message)


def _apply(api: Api, path: str, body: Object, seen: Object | None, *, is_forced: bool, is_dry_run: bool) -> None:
    def write(version: str) -> None:
        api.patch(path, body, is_dry_run=is_dry_run, how="apply", version=version, is_forced=is_forced)

    if seen is None:
        write("")
    else:
        write_as_meant(api, path, seen, write)


def _wait(target: ObjectRef, *, is_dry_run: bool) -> None:
    """Let a rehearsal pass that the server can't judge: the namespace comes with an earlier move of the plan."""
    if not is_dry_run:
        message = f"{target}: its namespace is not there"
        raise StaleState(message)


def _delete(api: Api, path: str, seen: Object, *, is_dry_run: bool) -> None:
    def write(version: str) -> None:
        api.delete(path, is_dry_run=is_dry_run, uid=_uid(seen), version=version)

    write_as_meant(api, path, seen, write)


def _delete_space(api: Api, path: str, seen: Object, *, is_dry_run: bool) -> None:
    """Delete a namespace, and what Kueue keeps of the gangs in it.

    Kueue holds the pods of a gang until its workload is deleted, and a namespace deletes nothing before its pods.
    """
    kueue = api.find(_KUEUE, "Workload")
    held = [] if kueue is None else [each for each in api.list_all(kueue, name_of(seen)) if controller_of(each) is None]
    places = [] if kueue is None else [(kueue.path(name_of(each), name_of(seen)), _uid(each)) for each in held]
    for place, uid in places:
        api.delete(place, is_dry_run=True, uid=uid)
    _delete(api, path, seen, is_dry_run=is_dry_run)
    for place, uid in () if is_dry_run else places:
        with suppress(StaleState):  # it went by itself
            api.delete(place, is_dry_run=False, uid=uid)


def _uid(body: Mapping[str, Any]) -> str:
    return str(body["metadata"].get("uid", ""))


_Write = partial[None]


def _look(api: Reader, move: Move) -> tuple[Object | None, Resource]:
    version = str(move.arguments.get("api_version", ""))
    resource = api.find(version, move.target.kind) if version else None
    if resource is None:
        message = f"{move.target}: the cluster serves no {move.target.kind} of {version or 'a version that is named'}"
        raise MoveRefused(message)
    live = get_or_none(api, resource.path(move.target.name, move.target.namespace))
    return None if live is None else {**live, "kind": resource.kind, "apiVersion": resource.api_version}, resource


def _owned(cluster: str, body: Mapping[str, Any], asked: Mapping[str, Any] | None) -> OwnedObject:
    is_ours = label(body, MANAGED_BY) == OUR_NAME
    if body["kind"] == "ResourceFlavor":
        asked = {"spec": {"nodeLabels": at(body, ("spec", "nodeLabels")) or {}}}
    return OwnedObject(
        cluster,
        str(body["apiVersion"]),
        ObjectRef(str(body["kind"]), namespace_of(body), name_of(body)),
        body_of(body, asked),
        label(body, WORKSPACE) if is_ours else None,
        meant_version(body),
    )


def _is_of(live: Mapping[str, Any], move: Move) -> bool:
    return label(live, MANAGED_BY) == OUR_NAME and label(live, WORKSPACE) == move.workspace


def _whose(move: Move, live: Mapping[str, Any]) -> str:
    owner = label(live, WORKSPACE)
    if label(live, MANAGED_BY) == OUR_NAME and owner is not None:
        return f"{move.target} belongs to workspace {owner}"
    return f"{move.target} is not ours; what others made stays as it is"


def _is_going(body: Mapping[str, Any]) -> bool:
    return at(body, ("metadata", "deletionTimestamp")) is not None


def _asked(move: Move) -> Object | None:
    """Return the body that a move asks for."""
    text = move.arguments.get("body")
    if text is None:
        return None
    try:
        body = json.loads(str(text))
    except json.JSONDecodeError as error:
        message = f"{move.target}: the body that is asked for is not JSON"
        raise MoveRefused(message) from error
    if not isinstance(body, dict):
        message = f"{move.target}: the body that is asked for is no object"
        raise MoveRefused(message)
    return body


def _last_asked(live: Mapping[str, Any]) -> Object | None:
    try:
        asked = json.loads(annotation(live, APPLIED) or "")
    except json.JSONDecodeError:
        return None
    return asked if isinstance(asked, dict) else None


def _bare(live: Mapping[str, Any]) -> Object:
    meta = {name: value for name, value in live["metadata"].items() if name not in _SYSTEM}
    rest = {name: value for name, value in live.items() if name not in {"metadata", "status", "apiVersion", "kind"}}
    return {**rest, "metadata": meta}


def _seen_of(live: Mapping[str, Any], asked: Mapping[str, Any]) -> Object:
    found = {}
    for name, value in asked.items():
        if name in live:
            seen = _seen(live[name], value)
            if seen != {} or value == {}:
                found[name] = seen  # a part of which nothing stands there is not there
        elif value in ({}, []):
            found[name] = value  # the server leaves out what is empty
    return found


def _seen(live: object, asked: object) -> object:
    if isinstance(asked, Mapping) and isinstance(live, Mapping):
        return _seen_of(live, asked)
    if isinstance(asked, list) and isinstance(live, list) and len(asked) == len(live):
        return [_seen(each, wanted) for each, wanted in zip(live, asked, strict=True)]
    return asked if _is_same_amount(live, asked) else live


def _is_same_amount(one: object, other: object) -> bool:
    """Return whether two texts or numbers are one quantity: the server writes "1000m" as "1"."""
    if isinstance(one, Mapping | Sequence) and not isinstance(one, str):
        return False
    number = quantity(one)
    return number is not None and number == quantity(other)


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True)
