"""The fields a move changes: as they are, as it leaves them, and whether it is already so."""

from collections.abc import Mapping

from actions.index import FleetIndex
from fleet.errors import BadInput
from fleet.move import Move, MoveKind, Value
from fleet.state import Quota

OUR_NAME = "gpu-steward"

Fields = dict[str, Value]

_FENCES = {MoveKind.FENCE_GPU, MoveKind.UNFENCE_GPU}
_CORDONS = {MoveKind.CORDON_NODE, MoveKind.UNCORDON_NODE}


def fields_of(move: Move, index: FleetIndex) -> Fields | None:
    """Return the fields that `move` would change as they are now (the shape of `Cluster.make`'s answer).

    None where the target is gone.
    """
    if move.kind in _FENCES:
        gpu = index.gpus.get(move.gpu_uuids[0]) if move.gpu_uuids else None
        is_there = gpu is not None and (gpu.cluster, gpu.node) == (move.cluster, move.target.name)
        return {"is_fenced": gpu.is_fenced} if gpu is not None and is_there else None
    if move.kind in _CORDONS:
        node = index.nodes.get((move.cluster, move.target.name))
        return None if node is None else {"is_schedulable": node.is_schedulable, "cordoned_by": node.cordoned_by}
    if move.kind is MoveKind.SET_QUOTA:
        quota = quota_of(move, index)
        return None if quota is None else {"gpus": quota.gpus, "borrowing_gpus": quota.borrowing_gpus}
    workload = index.find_workload(move.cluster, move.target)
    if workload is None:
        return None
    return {
        "is_suspended": workload.is_suspended,
        "suspended_by": workload.suspended_by,
        "replicas": workload.replicas,
    }


def fields_after(move: Move) -> Fields:
    """Return the fields that must read so once `move` is made."""
    match move.kind:
        case MoveKind.FENCE_GPU | MoveKind.UNFENCE_GPU:
            return {"is_fenced": move.kind is MoveKind.FENCE_GPU}
        case MoveKind.CORDON_NODE:
            return {"is_schedulable": False, "cordoned_by": OUR_NAME}
        case MoveKind.UNCORDON_NODE:
            return {"is_schedulable": True}
        case MoveKind.SUSPEND_WORKLOAD:
            return {"is_suspended": True, "suspended_by": OUR_NAME}
        case MoveKind.RESUME_WORKLOAD:
            # replicas come back as the scheduler finds room for them; asking for them is what `arguments` are for
            return {"is_suspended": False}
        case MoveKind.SET_QUOTA:
            return {"gpus": move.arguments["gpus"], "borrowing_gpus": move.arguments.get("borrowing_gpus")}


def version_of(move: Move, index: FleetIndex) -> str | None:
    """Return the resource version of a move's target now, "" where it has none, None where the target is gone."""
    if move.kind in _FENCES | _CORDONS:
        node = index.nodes.get((move.cluster, move.target.name))
        return None if node is None else node.resource_version
    if move.kind is MoveKind.SET_QUOTA:
        quota = quota_of(move, index)
        return None if quota is None else quota.resource_version
    workload = index.find_workload(move.cluster, move.target)
    return None if workload is None else workload.resource_version


def quota_of(move: Move, index: FleetIndex) -> Quota | None:
    """Return the quota that a `set_quota` move means, or None where it is gone."""
    pool, model = move.arguments.get("pool"), move.arguments.get("model")
    if not isinstance(pool, str | None) or not isinstance(model, str | None):
        message = f"move {move.move_id}: pool {pool!r} and model {model!r} must be text or null"
        raise BadInput(message, place=move.move_id, field="arguments")
    return index.find_quota(move.cluster, move.target.name, pool, model)


def is_done(move: Move, index: FleetIndex) -> bool:
    """Return whether the cluster already shows what `move` would leave."""
    current = fields_of(move, index)
    return current is not None and agrees(current, fields_after(move))


def agrees(current: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    """Return whether every wanted field reads as wanted."""
    return all(name in current and current[name] == value for name, value in wanted.items())
