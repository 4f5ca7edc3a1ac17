"""The past as it would have been: what a replayed policy did, laid over the recorded state until the record ends it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from actions.budget import Made
from actions.fields import OUR_NAME, fields_after
from actions.kinds import KINDS
from fleet.move import Move, MoveKind, Value
from fleet.state import FleetState, Gpu, Node, Quota, Workload
from fleet.verdict import Verdict
from steward.policy_partial import is_gone, leaving, without_pods
from steward.policy_state import Key

_WELL = ("healthy", "probation")
_NODE_FIELDS = ("is_schedulable", "cordoned_by", "cordon_cause", "drain", "repair", "mark", "mig_layout", "sharing")


@dataclass(slots=True)
class Stood:
    """A move that a replayed policy made, and when its effect ended: the owner came back, or the fault was over."""

    move: Move
    at: datetime
    ends_at: datetime | None = None


@dataclass(slots=True)
class World:
    """What stands of a replayed policy's moves; `overlay` gives the recorded state as it would have been."""

    made: list[Stood] = field(default_factory=list)

    def remember(self, move: Move, at: datetime) -> Stood:
        """Keep a move as made at a moment; a later one on the same target ends what stood there before."""
        for each in self.standing():
            is_another_part = leaving(each.move) and leaving(move)
            if _place(each.move) == _place(move) and not is_another_part:
                each.ends_at = at
        self.made.append(Stood(move, at))
        return self.made[-1]

    def standing(self) -> tuple[Stood, ...]:
        """Return the moves whose effect has not ended."""
        return tuple(each for each in self.made if each.ends_at is None)

    def recent(self) -> tuple[Made, ...]:
        """Return what was made, as budgets and cooldowns count it."""
        return tuple(Made(each.move, each.at, is_undone=each.ends_at is not None) for each in self.made)

    def stopped(self) -> Mapping[Key, Stood]:
        """Return the workloads that stand stopped, with the move that stopped them."""
        return {
            (each.move.cluster, each.move.target): each
            for each in self.standing()
            if each.move.kind is MoveKind.SUSPEND_WORKLOAD
        }

    def gone(self) -> Mapping[Key, frozenset[str]]:
        """Return the pods, as namespace/name, that stand taken away from workloads which go on without them."""
        found: dict[Key, frozenset[str]] = {}
        for each in self.standing():
            if leaving(each.move):
                key = (each.move.cluster, each.move.target)
                found[key] = found.get(key, frozenset()) | leaving(each.move)
        return found

    def give_back(self, verdicts: Sequence[Verdict], now: datetime) -> None:
        """End fences of GPUs, and cordons of nodes, that are called healthy again, or repaired and on probation."""
        well = {each.subject for each in verdicts if each.topic == "health" and each.state in _WELL}
        for each in self.standing():
            is_of_gpus = each.move.kind in {MoveKind.FENCE_GPU, MoveKind.CORDON_NODE} and each.move.gpu_uuids
            if is_of_gpus and set(each.move.gpu_uuids) <= well:
                each.ends_at = now

    def overlay(self, state: FleetState) -> FleetState:
        """Return the recorded state with everything that stands of our moves laid over it."""
        standing = self.standing()
        if not standing:
            return state
        moves: dict[tuple[str, str], list[Move]] = defaultdict(list)
        for each in standing:
            moves[each.move.cluster, each.move.target.name].append(each.move)
        stopped, gone = self.stopped(), self.gone()
        pods = tuple(
            pod
            for pod in state.pods
            if (pod.cluster, pod.workload) not in stopped
            and not is_gone(pod, gone)
            and not any(_is_whole_drain(move) for move in moves.get((pod.cluster, pod.node), ()))
        )
        return replace(
            state,
            gpus=tuple(_gpu(gpu, moves.get((gpu.cluster, gpu.node), ())) for gpu in state.gpus),
            nodes=tuple(_node(node, moves.get((node.cluster, node.name), ())) for node in state.nodes),
            pods=pods,
            workloads=tuple(_workload(without_pods(each, pods, gone), stopped) for each in state.workloads),
            quotas=tuple(_quota(quota, moves.get((quota.cluster, quota.workspace), ())) for quota in state.quotas),
        )


def _gpu(gpu: Gpu, moves: Sequence[Move]) -> Gpu:
    is_fenced = any(move.kind is MoveKind.FENCE_GPU and gpu.uuid in move.gpu_uuids for move in moves)
    return replace(gpu, is_fenced=True) if is_fenced else gpu


def _node(node: Node, moves: Sequence[Move]) -> Node:
    taints, told = dict(node.taints), dict[str, Value]()
    for move in moves:
        if KINDS[move.kind].scope != "node":
            continue
        after = fields_after(move)
        if after.get("taint") is not None:
            key, _, value = str(after["taint"]).partition("=")
            taints[key] = value
        told |= {name: value for name, value in after.items() if name in _NODE_FIELDS}
        if move.kind is MoveKind.CORDON_NODE and "cause" in move.arguments:
            told["cordon_cause"] = move.arguments["cause"]
    return _changed_node(node, told, taints) if told or taints != dict(node.taints) else node


def _is_whole_drain(move: Move) -> bool:
    return move.kind is MoveKind.DRAIN_NODE and move.arguments.get("scope") != "gpus"


def _workload(workload: Workload, stopped: Mapping[Key, Stood]) -> Workload:
    if (workload.cluster, workload.ref) not in stopped:
        return workload
    return replace(workload, pods=(), gpu_uuids=(), replicas=0, is_suspended=True, suspended_by=OUR_NAME)


def _quota(quota: Quota, moves: Sequence[Move]) -> Quota:
    for move in reversed(moves):
        if move.kind is not MoveKind.SET_QUOTA:
            continue
        after = fields_after(move)
        gpus, borrowing = after["gpus"], after.get("borrowing_gpus")
        is_here = (move.arguments.get("pool"), move.arguments.get("model")) == (quota.pool, quota.model)
        if is_here and isinstance(gpus, int | float) and isinstance(borrowing, int | float | None):
            return replace(quota, gpus=float(gpus), borrowing_gpus=borrowing)
    return quota


def _changed_node(node: Node, told: Mapping[str, Value], taints: Mapping[str, str]) -> Node:
    def text(name: str, was: str | None) -> str | None:
        value = told.get(name, was)
        return None if value is None else str(value)

    return replace(
        node,
        taints=taints,
        is_schedulable=told.get("is_schedulable", node.is_schedulable) is True,
        cordoned_by=text("cordoned_by", node.cordoned_by),
        cordon_cause=text("cordon_cause", node.cordon_cause),
        drain=text("drain", node.drain),
        repair=text("repair", node.repair),
        mark=text("mark", node.mark),
        mig_layout=text("mig_layout", node.mig_layout),
        sharing=text("sharing", node.sharing),
    )


def _place(move: Move) -> tuple[str, ...]:
    """Return what a move is about: a later move of the same place takes its stead."""
    kind = KINDS[move.kind]
    part = (str(move.arguments.get("pool")), str(move.arguments.get("model"))) if kind.scope == "quota" else ()
    gpus = move.gpu_uuids if kind.scope == "gpu" else ()
    return (move.cluster, str(move.target), kind.fields[0], *part, *gpus)
