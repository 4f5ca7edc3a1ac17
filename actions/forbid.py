"""What forbids a move whatever its rule says: a window, an owner who opted out, a swing back and forth. Pure.

Only what takes something is ever forbidden: uncordon, unfence, resume, cancel, withdraw and every undo pass.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from actions.budget import Made
from actions.fence import why_node_protected
from actions.fields import agrees, fields_after, quota_of
from actions.index import FleetIndex
from actions.kinds import KINDS, is_taking, is_undo, rule_of
from actions.policy import ActionPolicy
from actions.windows import why_closed
from fleet.move import Move, MoveKind
from fleet.state import ObjectRef, Pod

BACK_OUT = "back out"  # the cause of undoing what a crash left half made: nobody's answer
_URGENT = frozenset({"fence", "repair"})
_SWINGING = frozenset({
    MoveKind.SET_QUOTA, MoveKind.SET_POOL_LIMIT, MoveKind.SET_PRIORITY_BOOST, MoveKind.SET_QUEUE_STOP,
})  # fmt: skip


def why_forbidden(
    move: Move, recent: Sequence[Made], index: FleetIndex, policy: ActionPolicy, now: datetime
) -> str | None:
    """Say why a move may not be made now, whatever its rule says, or None."""
    if not is_taking(move) or gives_back(move):
        return None
    pools = _pools(move, index)
    return (
        why_opted_out(move, index, policy)
        or why_closed(policy.windows, rule_of(move), move.cluster, pools, now)
        or _why_young(move, index, policy, now)
        or _why_swing(move, recent, policy, now)
    )


def gives_back(move: Move) -> bool:
    """Return whether a move of a kind that may take something gives something back: more replicas, an open queue."""
    if move.kind is MoveKind.SCALE_WORKLOAD:
        before, after = move.evidence.get("before"), move.arguments.get("replicas")
        was = before.get("replicas") if isinstance(before, Mapping) else None
        return isinstance(was, int) and isinstance(after, int) and after >= was
    return move.kind is MoveKind.SET_QUEUE_STOP and move.arguments.get("stop_policy") is None


def _pools(move: Move, index: FleetIndex) -> tuple[str | None, ...]:
    found = {index.pool_of(index.gpus[uuid])[1] for uuid in move.gpu_uuids if uuid in index.gpus}
    node = index.nodes.get((move.cluster, move.target.name)) if KINDS[move.kind].scope in {"gpu", "node"} else None
    told = move.arguments.get("pool") if move.kind is MoveKind.SET_QUOTA else None
    named = {move.pool, None if node is None else node.pool, told if isinstance(told, str) else None} - {None}
    return tuple(sorted(found | named, key=str)) or (None,)


def why_opted_out(move: Move, index: FleetIndex, policy: ActionPolicy) -> str | None:
    """Say who asked that a move's target be left alone: its owner, or the settings; None where nobody did."""
    protect = policy.protect
    space = _namespace(move, index)
    if space in protect.namespaces:
        return f"namespace {space} is protected"
    if move.workspace is not None and move.workspace in protect.workspaces:
        return f"workspace {move.workspace} is protected"
    if KINDS[move.kind].scope in {"gpu", "node"}:
        return _why_node_opted_out(move, index, policy)
    workload = index.find_workload(move.cluster, move.target)
    return f"{move.target} is protected by its owner" if workload is not None and workload.is_protected else None


def _namespace(move: Move, index: FleetIndex) -> str:
    """Return the namespace that a move changes: the target's, the target itself, or where the quota's object lies."""
    if move.target.kind == "Namespace":
        return move.target.name
    quota = quota_of(move, index) if move.kind is MoveKind.SET_QUOTA else None
    place = None if quota is None or quota.place is None else ObjectRef.parse(quota.place)
    return move.target.namespace if place is None else place.namespace


def _why_node_opted_out(move: Move, index: FleetIndex, policy: ActionPolicy) -> str | None:
    node = index.nodes.get((move.cluster, move.target.name))
    if move.target.name in policy.protect.nodes:
        return f"node {move.target.name} is protected"
    if node is not None and why_node_protected(node, policy.fence) is not None:
        return why_node_protected(node, policy.fence)
    pods = _evicted(move, index) if move.kind is MoveKind.DRAIN_NODE else []
    reasons = (_why_pod_protected(pod, index, policy) for pod in pods)
    return next((reason for reason in reasons if reason is not None), None)


def _why_pod_protected(pod: Pod, index: FleetIndex, policy: ActionPolicy) -> str | None:
    workload = index.find_workload(pod.cluster, pod.workload)
    if pod.namespace in policy.protect.namespaces or (workload is not None and workload.is_protected):
        return f"pod {pod.namespace}/{pod.name} on it is protected"
    if workload is not None and workload.workspace in policy.protect.workspaces:
        return f"pod {pod.namespace}/{pod.name} on it is of the protected workspace {workload.workspace}"
    return None


def _why_young(move: Move, index: FleetIndex, policy: ActionPolicy, now: datetime) -> str | None:
    """Work that only just began is not evicted for the sake of order; failing hardware does not wait."""
    if move.kind is not MoveKind.DRAIN_NODE or rule_of(move) in _URGENT:
        return None
    least = timedelta(hours=policy.reclaim.min_run_h)
    for pod in _evicted(move, index):
        if pod.started_at is None:
            return f"it is not known since when pod {pod.namespace}/{pod.name} runs"
        if now - pod.started_at < least:
            return f"pod {pod.namespace}/{pod.name} runs for less than {policy.reclaim.min_run_h:g} h"
    return None


def _evicted(move: Move, index: FleetIndex) -> list[Pod]:
    pods = index.pods_by_node.get((move.cluster, move.target.name), ())
    is_partial = move.arguments.get("scope") == "gpus"
    return [pod for pod in pods if not is_partial or set(pod.gpu_uuids) & set(move.gpu_uuids)]


def _why_swing(move: Move, recent: Sequence[Made], policy: ActionPolicy, now: datetime) -> str | None:
    if KINDS[move.kind].scope == "object":
        return None  # what a manifest says is somebody's wish and no estimate: it does not swing by itself
    cooldown = policy.cooldown
    mine = [made for made in recent if _is_same_target(made.move, move)]
    taken_back = {
        str(each.move.evidence["undo_of"])
        for each in mine
        if is_undo(each.move) and each.is_certain and not each.move.cause.startswith(BACK_OUT)
    }
    for made in reversed(mine):
        age = now - made.at
        is_cooling = age < timedelta(hours=cooldown.undone_h) and not _began_after(move, made.at)
        if is_cooling and made.move.move_id in taken_back and _is_same_wish(made.move, move):
            return f"it was made at {made.at.isoformat()} and taken back since; left alone {cooldown.undone_h:g} h"
        if rule_of(move) in _URGENT or age >= timedelta(hours=cooldown.turned_h) or is_undo(made.move):
            continue
        if _turns_back(made.move, move) and not made.is_undone:
            return f"it would turn back {made.move.kind.value} of {made.at.isoformat()} within {cooldown.turned_h:g} h"
    return None


def _is_same_wish(one: Move, other: Move) -> bool:
    return one.kind is other.kind and _is_same_part(one, other) and fields_after(one) == fields_after(other)


def _turns_back(earlier: Move, move: Move) -> bool:
    if move.kind in _SWINGING:
        before = earlier.evidence.get("before")
        if not isinstance(before, Mapping) or earlier.kind is not move.kind or not _is_same_part(earlier, move):
            return False
        return agrees(before, fields_after(move))
    return earlier.kind is move.kind.inverse and _is_same_part(earlier, move)


def _is_same_target(one: Move, other: Move) -> bool:
    return (one.cluster, one.target) == (other.cluster, other.target)


def _is_same_part(one: Move, other: Move) -> bool:
    parts = ("pool", "model", "taint", "scope")
    is_gpu = KINDS[one.kind].scope == "gpu"
    return all(one.arguments.get(name) == other.arguments.get(name) for name in parts) and (
        not is_gpu or set(one.gpu_uuids) == set(other.gpu_uuids)
    )


def _began_after(move: Move, moment: datetime) -> bool:
    verdict = move.evidence.get("verdict")
    since = verdict.get("since") if isinstance(verdict, Mapping) else None
    return isinstance(since, str) and datetime.fromisoformat(since) > moment
