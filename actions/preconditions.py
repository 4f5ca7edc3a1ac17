"""What must be so for a move of each kind, read off the state it is about to be made on."""

from collections.abc import Callable, Mapping
from datetime import datetime

from actions.fence import why_node_protected, why_node_untouchable
from actions.fence_means import MEANS, gpus_taken
from actions.fields import OUR_NAME, object_of
from actions.forbid import gives_back, why_opted_out
from actions.index import FleetIndex
from actions.kinds import KINDS
from actions.policy import ActionPolicy
from actions.reclaim import why_protected, why_too_young
from actions.reclaim_part import why_not_smaller
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind
from fleet.state import Node

_BACK = {
    MoveKind.CANCEL_DRAIN, MoveKind.WITHDRAW_REPAIR, MoveKind.UNMARK_NODE, MoveKind.UNTAINT_NODE, MoveKind.UNFENCE_GPU,
}  # fmt: skip
_ON_FREE = {MoveKind.FENCE_GPU, MoveKind.CORDON_NODE, MoveKind.TAINT_NODE}
_ENGAGED = ("pending", "rebooting")


def check_target(move: Move, index: FleetIndex, policy: ActionPolicy, now: datetime) -> None:
    """Return where the target is still what the move was planned for; `StaleState` or `MoveRefused` otherwise."""
    match KINDS[move.kind].scope:
        case "gpu" | "node":
            reason = _why_not_node(move, _node(move, index), index, policy)
        case "workload":
            reason = _why_not_workload(move, index, policy, now)
        case "object":
            reason = _why_not_object(move, index)
        case _:
            is_protected = move.workspace in policy.rebalance.protected_workspaces
            reason = f"workspace {move.workspace} is protected" if is_protected else None
    if reason is not None:
        raise MoveRefused(reason)


def why_not_taken_back(move: Move, index: FleetIndex, policy: ActionPolicy) -> str | None:
    """Say why an undo would do harm; None where it only gives back, or takes nothing that anybody asked to be left.

    Taking back what gave (a cancelled drain, a withdrawn repair, a resumption) takes again: it evicts, reboots, stops.
    Budgets and windows do not hold for it, but who opted out is left alone, and the ground must be what it was.
    """
    kind = KINDS[move.kind]
    further = _FURTHER.get(move.kind)
    node = index.nodes.get((move.cluster, move.target.name))
    if further is not None and node is not None:
        reason = further(move, node, index)
        if reason is not None:
            return reason
    if kind.sign != "-" or gives_back(move):
        return None
    reason = why_opted_out(move, index, policy)
    if reason is not None or kind.scope in {"gpu", "node"}:
        return reason
    if kind.scope == "object":
        return _why_not_object(move, index)
    workload = index.find_workload(move.cluster, move.target)
    return None if workload is None else why_protected(workload, policy.reclaim)


def _node(move: Move, index: FleetIndex) -> Node:
    node = index.nodes.get((move.cluster, move.target.name))
    if node is None:
        message = f"node {move.target.name} is gone"
        raise StaleState(message)
    return node


def _why_not_node(move: Move, node: Node, index: FleetIndex, policy: ActionPolicy) -> str | None:
    if move.kind in _BACK:
        return None
    if move.kind is MoveKind.UNCORDON_NODE:
        return _why_not_our_cordon(node)
    if move.kind is MoveKind.CORDON_NODE:
        _require_same_gpus(move, {gpu.uuid for gpu in index.gpus_by_node.get((move.cluster, node.name), ())})
    if move.kind is MoveKind.FENCE_GPU:
        _require_same_means(move, node, index)
    if move.kind in _ON_FREE:
        return why_node_untouchable(node, policy.fence)
    further = _FURTHER.get(move.kind)
    return why_node_protected(node, policy.fence) or (None if further is None else further(move, node, index))


def _why_not_drained(move: Move, node: Node, index: FleetIndex) -> str | None:
    """Evict only from what gives out no new places, else the pods that leave come back."""
    if node.cordoned_by == OUR_NAME:
        return None
    gpus = [index.gpus.get(uuid) for uuid in move.gpu_uuids]
    if move.arguments.get("scope") == "gpus" and gpus and all(gpu is not None and gpu.is_fenced for gpu in gpus):
        return None
    return f"node {node.name} is not cordoned by us, nor are these GPUs fenced: a drain would not last"


def _why_not_repaired(move: Move, node: Node, index: FleetIndex) -> str | None:
    """Ask for a repair only of what was drained for it; a drain that somebody cancelled never leads to a reboot."""
    if node.drain is None:
        return f"node {node.name} was not drained, or its drain was cancelled"
    is_whole = move.arguments.get("repair") == "reboot_node"
    if is_whole and node.drain != "node":
        return f"only {node.drain} of node {node.name} were drained; a reboot takes all of it"
    left = [
        pod.name
        for pod in index.pods_by_node.get((move.cluster, node.name), ())
        if is_whole or set(pod.gpu_uuids) & set(move.gpu_uuids)
    ]
    return f"{len(left)} pods still hold its GPUs: {', '.join(sorted(left)[:3])}" if left else None


def _why_not_relaid(move: Move, node: Node, index: FleetIndex) -> str | None:
    # one that does not answer in time is told the layout of before even while it says that it works
    if node.mig_state in _ENGAGED and move.evidence.get("restores") is not True:
        return f"the MIG manager of node {node.name} is still at work ({node.mig_state})"
    not_ours = _why_not_our_cordon(node)
    if not_ours is not None:
        return not_ours
    pods = index.pods_by_node.get((node.cluster, node.name), ())
    return f"{len(pods)} pods still hold its GPUs" if pods else None


def _why_not_our_cordon(node: Node) -> str | None:
    if node.is_schedulable:
        return f"node {node.name} is not cordoned"
    if node.cordoned_by == OUR_NAME:
        return None
    return f"node {node.name} was cordoned by {node.cordoned_by or 'somebody else'}; another's cordon is not touched"


def _why_not_workload(move: Move, index: FleetIndex, policy: ActionPolicy, now: datetime) -> str | None:
    workload = index.find_workload(move.cluster, move.target)
    if workload is None:
        message = f"{move.target} is gone"
        raise StaleState(message)
    if move.kind is MoveKind.RESUME_WORKLOAD:
        is_ours = workload.suspended_by == OUR_NAME
        return None if is_ours else f"it was suspended by {workload.suspended_by or 'somebody else'}, not by us"
    if move.kind is MoveKind.SET_PRIORITY_BOOST:
        return "it is protected by its owner" if workload.is_protected else None
    reason = why_protected(workload, policy.reclaim) or why_too_young(workload, policy.reclaim, now)
    if reason is None and move.kind is MoveKind.SCALE_WORKLOAD:
        reason = why_not_smaller(workload, move.arguments.get("replicas"))
    if reason is None:
        _require_same_gpus(move, set(workload.gpu_uuids))
    return reason


def _why_not_object(move: Move, index: FleetIndex) -> str | None:
    found = object_of(move, index)
    if found is None:
        return f"{move.target} is gone" if move.kind is MoveKind.DELETE_OBJECT else None
    if found.owner is None and move.arguments.get("adopt") is True:
        return None
    if found.owner is None:
        return f"{move.target} is not ours; what others made stays as it is"
    if found.owner != move.workspace:
        return f"{move.target} belongs to workspace {found.owner}"
    is_space_deleted = move.kind is MoveKind.DELETE_OBJECT and move.target.kind == "Namespace"
    return _why_not_emptied(move, index) if is_space_deleted else None


def _why_not_emptied(move: Move, index: FleetIndex) -> str | None:
    """Say which workloads would go with a namespace: also those that are stopped, and have no pods to be seen by."""
    inside = [
        each for each in index.state.workloads
        if (each.cluster, each.ref.namespace) == (move.cluster, move.target.name)
    ]  # fmt: skip
    protected = [str(each.ref) for each in inside if each.is_protected]
    if protected:
        return f"{protected[0]} in it is protected by its owner"
    if inside and move.arguments.get("force") is not True:
        names = ", ".join(sorted(str(each.ref) for each in inside)[:3])
        return f"{len(inside)} workloads with GPUs are in it ({names}); say force to delete it"
    return None


def _require_same_gpus(move: Move, uuids: set[str]) -> None:
    if uuids != set(move.gpu_uuids):
        message = f"{move.target} no longer has the same GPUs"
        raise StaleState(message)


def _require_same_means(move: Move, node: Node, index: FleetIndex) -> None:
    """Let no fence take out more than its plan says: what was to be one GPU is never a whole node."""
    gpu = index.gpus.get(move.gpu_uuids[0])
    if gpu is None:
        return
    planned = move.arguments.get(MEANS)
    if gpu.fence_by != planned:
        message = f"GPU {gpu.uuid} would be fenced by {gpu.fence_by}, and was planned by {planned}; plan again"
        raise StaleState(message)
    taken = gpus_taken(gpu, node, index)
    if taken > move.gpus:
        message = f"to fence GPU {gpu.uuid} would take out {taken} GPUs, and {move.gpus:g} were planned; plan again"
        raise StaleState(message)


_FURTHER: Mapping[MoveKind, Callable[[Move, Node, FleetIndex], str | None]] = {
    MoveKind.DRAIN_NODE: _why_not_drained,
    MoveKind.REQUEST_REPAIR: _why_not_repaired,
    MoveKind.SET_MIG_LAYOUT: _why_not_relaid,
    MoveKind.SET_SHARING: _why_not_relaid,
}
