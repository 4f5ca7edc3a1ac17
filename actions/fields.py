"""The fields a move changes: as they are, as it leaves them, and whether it is already so."""

import json
from collections.abc import Callable, Mapping

from actions.index import FleetIndex
from actions.kinds import KINDS, Scope
from fleet.errors import BadInput
from fleet.move import Move, MoveKind, Value
from fleet.state import Gpu, Node, OwnedObject, PoolLimit, Queue, Quota, Workload

OUR_NAME = "gpu-steward"
DRAIN_GPUS = "gpus"

Fields = dict[str, Value]
_Target = Gpu | Node | Workload | Quota | Queue | PoolLimit | OwnedObject


def fields_of(move: Move, index: FleetIndex) -> Fields | None:
    """Return the fields that `move` would change as they are now (the shape of `Cluster.make`'s answer).

    None where the target is gone; an object that is not there yet has a body of None.
    """
    found = _target(move, index)
    if found is None:
        return {"body": None} if KINDS[move.kind].scope == "object" else None
    values = {name: getattr(found, name) for name in _attributes(move, found)}
    return {**values, **_taint(move, found)} if "taint" in KINDS[move.kind].fields else values


def fields_after(move: Move) -> Fields:
    """Return the fields that must read so once `move` is made."""
    if move.kind in _AFTER:
        return dict(_AFTER[move.kind])
    if move.kind is MoveKind.DRAIN_NODE:
        return {"drain": drain_of(move)}
    told, name = move.arguments, KINDS[move.kind].fields[0]
    if name not in told or (told[name] is None and move.kind in _NEEDS_TEXT):
        message = f"move {move.move_id}: {move.kind.value} needs the argument {name}"
        raise BadInput(message, place=move.move_id, field=name)
    if move.kind is MoveKind.SET_QUOTA:
        optional = {name: told[name] for name in ("lending_gpus", "weight") if name in told}
        return {"gpus": told["gpus"], "borrowing_gpus": told.get("borrowing_gpus"), **optional}
    return {name: told[name]}


def drain_of(move: Move) -> str:
    """Return what a drain says of itself on its node: the whole node, or the GPUs whose pods are to go."""
    if move.arguments.get("scope") == DRAIN_GPUS:
        return f"{DRAIN_GPUS} {','.join(sorted(move.gpu_uuids))}"
    return "node"


def version_of(move: Move, index: FleetIndex) -> str | None:
    """Return the resource version of a move's target now, "" where it has none, None where the target is gone."""
    found = _target(move, index)
    if found is None:
        return "" if KINDS[move.kind].scope == "object" else None
    if isinstance(found, Gpu):
        node = index.nodes.get((move.cluster, move.target.name))
        return None if node is None else node.resource_version
    return found.resource_version


def uid_of(move: Move, index: FleetIndex) -> str:
    """Return what tells a move's target from another of the same name that came after it; "" where nothing does."""
    found = (
        index.nodes.get((move.cluster, move.target.name)) if KINDS[move.kind].scope == "gpu" else _target(move, index)
    )
    return str(getattr(found, "uid", ""))


def quota_of(move: Move, index: FleetIndex) -> Quota | None:
    """Return the quota that a `set_quota` move means, or None where it is gone."""
    pool, model = move.arguments.get("pool"), move.arguments.get("model")
    if not isinstance(pool, str | None) or not isinstance(model, str | None):
        message = f"move {move.move_id}: pool {pool!r} and model {model!r} must be text or null"
        raise BadInput(message, place=move.move_id, field="arguments")
    return index.find_quota(move.cluster, move.target.name, pool, model)


def queue_of(move: Move, index: FleetIndex) -> Queue | None:
    """Return the queue that a move means, or None where it is gone."""
    found = (each for each in index.state.queues if (each.cluster, each.ref) == (move.cluster, move.target))
    return next(found, None)


def pool_of(move: Move, index: FleetIndex) -> PoolLimit | None:
    """Return the pool that a move means, or None where it is gone."""
    found = (each for each in index.state.pools if (each.cluster, each.ref) == (move.cluster, move.target))
    return next(found, None)


def object_of(move: Move, index: FleetIndex) -> OwnedObject | None:
    """Return the object that a move means, or None where there is none."""
    return index.objects.get((move.cluster, str(move.arguments.get("api_version", "")), move.target))


def is_done(move: Move, index: FleetIndex) -> bool:
    """Return whether the cluster already shows what `move` would leave."""
    current = fields_of(move, index)
    return current is not None and agrees(current, fields_after(move))


def agrees(current: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    """Return whether every wanted field reads as wanted; a body of an object agrees where all it asks for is there."""
    return all(name in current and _agrees(name, current[name], value) for name, value in wanted.items())


def _agrees(name: str, current: object, wanted: object) -> bool:
    if name == "body" and isinstance(current, str) and isinstance(wanted, str):
        return bool(json.loads(current) == json.loads(wanted))
    return current == wanted


def _target(move: Move, index: FleetIndex) -> _Target | None:
    return _FINDERS[KINDS[move.kind].scope](move, index)


def _gpu_of(move: Move, index: FleetIndex) -> Gpu | None:
    gpu = index.gpus.get(move.gpu_uuids[0]) if move.gpu_uuids else None
    is_there = gpu is not None and (gpu.cluster, gpu.node) == (move.cluster, move.target.name)
    return gpu if is_there else None


def _attributes(move: Move, found: _Target) -> tuple[str, ...]:
    if isinstance(found, Quota):
        return ("gpus", "borrowing_gpus", "lending_gpus", "weight")
    return tuple(name for name in KINDS[move.kind].fields if name != "taint")


def _taint(move: Move, found: _Target) -> Fields:
    key = str(move.arguments.get("taint", "")).partition("=")[0]
    value = found.taints.get(key) if isinstance(found, Node) else None
    return {"taint": None if value is None else f"{key}={value}"}


_FINDERS: Mapping[Scope, Callable[[Move, FleetIndex], _Target | None]] = {
    "gpu": _gpu_of,
    "node": lambda move, index: index.nodes.get((move.cluster, move.target.name)),
    "workload": lambda move, index: index.find_workload(move.cluster, move.target),
    "quota": quota_of,
    "queue": queue_of,
    "pool": pool_of,
    "object": object_of,
}
_AFTER: Mapping[MoveKind, Fields] = {
    MoveKind.FENCE_GPU: {"is_fenced": True},
    MoveKind.UNFENCE_GPU: {"is_fenced": False},
    MoveKind.CORDON_NODE: {"is_schedulable": False, "cordoned_by": OUR_NAME},
    MoveKind.UNCORDON_NODE: {"is_schedulable": True},
    MoveKind.UNTAINT_NODE: {"taint": None},
    MoveKind.UNMARK_NODE: {"mark": None},
    MoveKind.CANCEL_DRAIN: {"drain": None},
    MoveKind.WITHDRAW_REPAIR: {"repair": None},
    MoveKind.SUSPEND_WORKLOAD: {"is_suspended": True, "suspended_by": OUR_NAME},
    # replicas come back as the scheduler finds room for them; asking for them is what `arguments` are for
    MoveKind.RESUME_WORKLOAD: {"is_suspended": False},
    MoveKind.DELETE_OBJECT: {"body": None},
}
_NEEDS_TEXT = {MoveKind.TAINT_NODE, MoveKind.MARK_NODE, MoveKind.REQUEST_REPAIR, MoveKind.APPLY_OBJECT}
