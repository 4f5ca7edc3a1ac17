"""What each kind of move is: who may ask for it, what it acts on, what it takes, and what its undoing needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from fleet.move import Move, MoveKind

Scope = Literal["gpu", "node", "workload", "quota", "queue", "pool", "object"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of move.

    `rule` asks for it where the move names no other. `is_taking`: it takes something from somebody, so budgets,
    windows and the freshness of evidence hold; giving back is never limited. `fields` are those that an undo needs to
    know; where the first `decisive` of them stand as the move leaves them, it changed nothing. `sign` marks it in a
    printed plan.
    """

    rule: str
    scope: Scope
    sign: Literal["-", "+", "~"]
    fields: tuple[str, ...]
    decisive: int = 1

    @property
    def is_taking(self) -> bool:
        """Return whether it takes something from somebody."""
        return self.sign != "+"


_CORDON = ("is_schedulable", "cordoned_by", "cordon_cause")
_STOP = ("is_suspended", "suspended_by", "replicas")
KINDS: Mapping[MoveKind, Kind] = MappingProxyType({
    MoveKind.FENCE_GPU: Kind("fence", "gpu", "-", ("is_fenced",)),
    MoveKind.UNFENCE_GPU: Kind("fence", "gpu", "+", ("is_fenced",)),
    MoveKind.CORDON_NODE: Kind("fence", "node", "-", _CORDON),
    MoveKind.UNCORDON_NODE: Kind("fence", "node", "+", _CORDON),
    MoveKind.TAINT_NODE: Kind("fence", "node", "-", ("taint",)),
    MoveKind.UNTAINT_NODE: Kind("fence", "node", "+", ("taint",)),
    MoveKind.MARK_NODE: Kind("fence", "node", "+", ("mark",)),
    MoveKind.UNMARK_NODE: Kind("fence", "node", "+", ("mark",)),
    MoveKind.DRAIN_NODE: Kind("repair", "node", "-", ("drain",)),
    MoveKind.CANCEL_DRAIN: Kind("repair", "node", "+", ("drain",)),
    MoveKind.REQUEST_REPAIR: Kind("repair", "node", "-", ("repair",)),
    MoveKind.WITHDRAW_REPAIR: Kind("repair", "node", "+", ("repair",)),
    MoveKind.SUSPEND_WORKLOAD: Kind("reclaim", "workload", "-", _STOP),
    MoveKind.RESUME_WORKLOAD: Kind("reclaim", "workload", "+", _STOP),
    MoveKind.SCALE_WORKLOAD: Kind("reclaim", "workload", "-", ("replicas",)),
    MoveKind.SET_PRIORITY_BOOST: Kind("rebalance", "workload", "~", ("priority_boost",)),
    MoveKind.SET_QUOTA: Kind("rebalance", "quota", "~", ("gpus", "borrowing_gpus"), decisive=4),
    MoveKind.SET_QUEUE_STOP: Kind("budget", "queue", "~", ("stop_policy",)),
    MoveKind.SET_MIG_LAYOUT: Kind("reslice", "node", "~", ("mig_layout",)),
    MoveKind.SET_SHARING: Kind("reslice", "node", "~", ("sharing",)),
    MoveKind.SET_POOL_LIMIT: Kind("pool", "pool", "~", ("limit",)),
    MoveKind.APPLY_OBJECT: Kind("workspace", "object", "~", ("body",)),
    MoveKind.DELETE_OBJECT: Kind("workspace", "object", "-", ("body",)),
})  # fmt: skip

RULES = ("fence", "repair", "reclaim", "stalled", "budget", "rebalance", "reslice", "defragment", "pool", "workspace")


def kind_of(move: Move) -> Kind:
    """Return what kind of move it is."""
    return KINDS[move.kind]


def rule_of(move: Move) -> str:
    """Return the rule whose mode and budget a move falls under."""
    return move.rule or KINDS[move.kind].rule


def group_of(move: Move) -> tuple[str, ...]:
    """Return what names the moves that are made whole or not at all: the quotas of one pool, every other move alone."""
    if move.kind is MoveKind.SET_QUOTA:
        return ("quota", rule_of(move), move.cluster, str(move.arguments.get("pool")), str(move.arguments.get("model")))
    return ("move", move.move_id)


def is_undo(move: Move) -> bool:
    """Return whether a move takes another back."""
    return "undo_of" in move.evidence


def is_taking(move: Move) -> bool:
    """Return whether a move takes something from somebody; giving back is never limited."""
    return KINDS[move.kind].is_taking and not is_undo(move)
