"""Moves that act on workloads of the simulated fleet: suspend and resume, scale, boost."""

from collections.abc import Iterable

from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind
from simulator.lifecycle import find_workload, resume, scale, suspend
from simulator.move_arguments import actor, number, require_version, whole
from simulator.work import Kind
from simulator.world import Workload, World

_STOPS = (MoveKind.SUSPEND_WORKLOAD, MoveKind.RESUME_WORKLOAD)
WORKLOAD_KINDS = {*_STOPS, MoveKind.SCALE_WORKLOAD, MoveKind.SET_PRIORITY_BOOST}


def prior_of_workload(world: World, move: Move) -> dict[str, object]:
    """Return what a move would change of a workload, as it is; raises where it can't be made."""
    workload = world.workloads[_find(world, move)]
    if move.kind in _STOPS:
        replicas = len(workload.paused_work_s) if workload.is_suspended else len(workload.live)
        return {"is_suspended": workload.is_suspended, "suspended_by": workload.suspended_by, "replicas": replicas}
    if move.kind is MoveKind.SET_PRIORITY_BOOST:
        boost = number(move, "priority_boost", None)
        if boost is not None and boost != int(boost):
            message = f"priority_boost: {boost} is not a whole number"
            raise MoveRefused(message)
        return {"priority_boost": workload.priority_boost}
    _require_scalable(workload, move)
    return {"replicas": len(workload.live)}


def change_workload(world: World, move: Move) -> None:
    """Make a move on a workload; `prior_of_workload` has let it pass."""
    index = _find(world, move)
    workload = world.workloads[index]
    match move.kind:
        case MoveKind.SUSPEND_WORKLOAD:
            if not workload.is_suspended:
                suspend(world, index, actor(move, "suspended_by"))
        case MoveKind.RESUME_WORKLOAD:
            if workload.is_suspended:
                resume(world, index)
        case MoveKind.SCALE_WORKLOAD:
            scale(world, index, whole(move, "replicas"), _leaving(move))
        case _:
            boost = number(move, "priority_boost", None)
            workload.priority_boost = None if boost is None else int(boost)
            workload.version += 1
            world.push_schedule()


def _find(world: World, move: Move) -> int:
    cluster = [each.name for each in world.spec.clusters].index(move.cluster)
    index = find_workload(world, cluster, move.target)
    if index is None:
        message = f"{move.target} in {move.cluster} has ended, or never was"
        raise StaleState(message)
    workload = world.workloads[index]
    if workload.is_protected and move.kind in {MoveKind.SUSPEND_WORKLOAD, MoveKind.SCALE_WORKLOAD}:
        message = f"{move.target} in {move.cluster} is protected by its owner"
        raise MoveRefused(message)
    require_version(move, workload.version)
    return index


def _require_scalable(workload: Workload, move: Move) -> None:
    if workload.kind is not Kind.SERVING:
        message = f"a {move.target.kind} has no replicas to scale; it can be suspended"
        raise MoveRefused(message)
    if workload.is_suspended:
        message = f"{move.target} in {move.cluster} is suspended; resume it first"
        raise MoveRefused(message)
    if whole(move, "replicas") < 1:
        message = f"{move.target} in {move.cluster} is not scaled to nothing; it can be suspended"
        raise MoveRefused(message)


def _leaving(move: Move) -> list[str]:
    """Return the names of the pods that a move means to stop, where it says which."""
    named = move.evidence.get("idle_pods")
    return [str(each).rpartition("/")[2] for each in named] if isinstance(named, Iterable) else []
