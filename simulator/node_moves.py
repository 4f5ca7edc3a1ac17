"""Moves that act on nodes and GPUs of the simulated fleet: fences, cordons, taints, drains, repairs, layouts."""

from collections.abc import Mapping

from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind
from simulator.care import DIAGNOSE, REBOOT, RESET, ask_layout, ask_repair
from simulator.lifecycle import evict_from
from simulator.move_arguments import actor, require_version, text
from simulator.world import World

_GPUS = "gpus"
_FIELDS: Mapping[MoveKind, str] = {
    MoveKind.MARK_NODE: "mark",
    MoveKind.UNMARK_NODE: "mark",
    MoveKind.DRAIN_NODE: "drain",
    MoveKind.CANCEL_DRAIN: "drain",
    MoveKind.REQUEST_REPAIR: "repair",
    MoveKind.WITHDRAW_REPAIR: "repair",
    MoveKind.SET_SHARING: "sharing",
}
_FENCES = (MoveKind.FENCE_GPU, MoveKind.UNFENCE_GPU)
_CORDONS = (MoveKind.CORDON_NODE, MoveKind.UNCORDON_NODE)
_TAINTS = (MoveKind.TAINT_NODE, MoveKind.UNTAINT_NODE)
NODE_KINDS = {*_FENCES, *_CORDONS, *_TAINTS, *_FIELDS, MoveKind.SET_MIG_LAYOUT}


def prior_of_node(world: World, move: Move) -> dict[str, object]:
    """Return what a move would change of a node, as it is; raises where it can't be made."""
    node = find_node(world, move)
    orders = world.orders[node]
    if move.kind in _FENCES:
        return {"is_fenced": bool(world.gpu_is_fenced[_find_gpu(world, node, move)])}
    if move.kind in _CORDONS:
        return {
            "is_schedulable": bool(world.node_is_schedulable[node]),
            "cordoned_by": world.node_cordoned_by[node],
            "cordon_cause": orders.cordon_cause,
        }
    if move.kind in _TAINTS:
        key, _ = _taint(move)
        return {"taint": f"{key}={orders.taints[key]}" if key in orders.taints else None}
    if move.kind is MoveKind.SET_MIG_LAYOUT:
        _require_mig(world, node, move)
        return {"mig_layout": orders.layout}
    _require_sense(world, node, move)
    field = _FIELDS[move.kind]
    return {field: getattr(orders, field)}


def change_node(world: World, move: Move) -> None:
    """Make a move on a node; `prior_of_node` has let it pass."""
    node = find_node(world, move)
    orders = world.orders[node]
    world.node_version[node] += 1
    match move.kind:
        case MoveKind.FENCE_GPU | MoveKind.UNFENCE_GPU:
            world.gpu_is_fenced[_find_gpu(world, node, move)] = move.kind is MoveKind.FENCE_GPU
        case MoveKind.CORDON_NODE | MoveKind.UNCORDON_NODE:
            is_cordon = move.kind is MoveKind.CORDON_NODE
            cause = move.arguments.get("cause")
            world.node_is_schedulable[node] = not is_cordon
            world.node_cordoned_by[node] = actor(move, "cordoned_by") if is_cordon else None
            orders.cordon_cause = cause if is_cordon and isinstance(cause, str) else None
        case MoveKind.TAINT_NODE | MoveKind.UNTAINT_NODE:
            _set_taint(world, node, move)
        case MoveKind.DRAIN_NODE:
            orders.drain = _drain(move)
            evict_from(world, _drained_units(world, node, move), keeps_budgets=True)
        case MoveKind.REQUEST_REPAIR:
            ask_repair(world, node, text(move, "repair"))
        case MoveKind.SET_MIG_LAYOUT:
            ask_layout(world, node, text(move, "mig_layout"))
        case _:
            field = _FIELDS[move.kind]
            setattr(orders, field, move.arguments.get(field) if move.kind in _TELLING else None)
    world.recount(node)


_TELLING = {MoveKind.MARK_NODE, MoveKind.SET_SHARING}


def find_node(world: World, move: Move) -> int:
    """Return the node a move means; `MoveRefused` where it names none, `StaleState` where it is gone or changed."""
    if move.target.kind != "Node":
        message = f"{move.kind.value} needs a Node, not {move.target}"
        raise MoveRefused(message)
    for node, name in enumerate(world.fabric.node_name):
        cluster = world.spec.clusters[int(world.fabric.node_cluster[node])].name
        if name == move.target.name and cluster == move.cluster and world.node_is_there[node]:
            require_version(move, int(world.node_version[node]))
            return node
    message = f"there is no node {move.target.name} in {move.cluster}"
    raise StaleState(message)


def _find_gpu(world: World, node: int, move: Move) -> int:
    if len(move.gpu_uuids) != 1:
        message = f"{move.kind.value} takes one GPU, not {len(move.gpu_uuids)}"
        raise MoveRefused(message)
    return _gpus_named(world, node, move)[0]


def _gpus_named(world: World, node: int, move: Move) -> list[int]:
    here = {world.fabric.gpu_uuid[gpu]: gpu for gpu in world.fabric.gpus_of_node(node)}
    for uuid in move.gpu_uuids:
        if uuid not in here:
            message = f"GPU {uuid} is not on node {move.target.name}"
            raise StaleState(message)
    return [here[uuid] for uuid in move.gpu_uuids]


def _taint(move: Move) -> tuple[str, str]:
    key, equals, value = text(move, "taint").partition("=")
    if move.kind is MoveKind.TAINT_NODE and (not equals or ":" not in value):
        message = f"taint: {move.arguments['taint']!r} is not key=value:Effect"
        raise MoveRefused(message)
    return key, value


def _set_taint(world: World, node: int, move: Move) -> None:
    key, value = _taint(move)
    taints = world.orders[node].taints
    taints.pop(key, None)
    if move.kind is MoveKind.TAINT_NODE:
        taints[key] = value
        if value.endswith(":NoExecute"):
            evict_from(world, world.fabric.units_of_node(node))


def _drain(move: Move) -> str:
    if move.arguments.get("scope") == _GPUS:
        return f"{_GPUS} {','.join(sorted(move.gpu_uuids))}"
    return "node"


def _drained_units(world: World, node: int, move: Move) -> list[int]:
    if move.arguments.get("scope") != _GPUS:
        return list(world.fabric.units_of_node(node))
    return [unit for gpu in _gpus_named(world, node, move) for unit in world.fabric.units_of_gpu(gpu)]


def _require_sense(world: World, node: int, move: Move) -> None:
    if move.kind is MoveKind.DRAIN_NODE:
        _gpus_named(world, node, move)
    elif move.kind is MoveKind.REQUEST_REPAIR:
        what, _, uuid = text(move, "repair").partition(" ")
        here = {world.fabric.gpu_uuid[gpu] for gpu in world.fabric.gpus_of_node(node)}
        if what not in {REBOOT, RESET, DIAGNOSE} or (what != REBOOT and uuid not in here):
            message = f"repair: {move.arguments['repair']!r} is nothing that can be done to node {move.target.name}"
            raise MoveRefused(message)
    elif move.kind is MoveKind.MARK_NODE:
        text(move, "mark")
    elif move.kind is MoveKind.SET_SHARING:
        sharing = move.arguments.get("sharing")
        if world.fabric.sections[int(world.fabric.node_section[node])].is_mig or not isinstance(sharing, str | None):
            message = f"the GPUs of node {move.target.name} can't be shared by time as {sharing!r}"
            raise MoveRefused(message)


def _require_mig(world: World, node: int, move: Move) -> None:
    text(move, "mig_layout")
    if not world.fabric.sections[int(world.fabric.node_section[node])].is_mig:
        message = f"the GPUs of node {move.target.name} are not under MIG, and the simulated fleet can't change that"
        raise MoveRefused(message)
