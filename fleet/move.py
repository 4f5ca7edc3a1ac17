"""Moves, plans and outcomes: what is to be done, as data, and what became of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from fleet.state import ObjectRef


class MoveKind(StrEnum):
    """What a move does. Each has an inverse."""

    FENCE_GPU = "fence_gpu"
    UNFENCE_GPU = "unfence_gpu"
    CORDON_NODE = "cordon_node"
    UNCORDON_NODE = "uncordon_node"
    SUSPEND_WORKLOAD = "suspend_workload"
    RESUME_WORKLOAD = "resume_workload"
    TAINT_NODE = "taint_node"
    UNTAINT_NODE = "untaint_node"
    MARK_NODE = "mark_node"
    UNMARK_NODE = "unmark_node"
    DRAIN_NODE = "drain_node"
    CANCEL_DRAIN = "cancel_drain"
    REQUEST_REPAIR = "request_repair"
    WITHDRAW_REPAIR = "withdraw_repair"
    SCALE_WORKLOAD = "scale_workload"
    SET_PRIORITY_BOOST = "set_priority_boost"
    SET_QUOTA = "set_quota"
    SET_QUEUE_STOP = "set_queue_stop"
    SET_MIG_LAYOUT = "set_mig_layout"
    SET_SHARING = "set_sharing"
    SET_POOL_LIMIT = "set_pool_limit"
    APPLY_OBJECT = "apply_object"
    DELETE_OBJECT = "delete_object"

    @property
    def inverse(self) -> "MoveKind":
        """Return the kind that takes this one back (what is set to a value is set back by setting it)."""
        return _INVERSE.get(self, self)


_PAIRS = (
    (MoveKind.FENCE_GPU, MoveKind.UNFENCE_GPU),
    (MoveKind.CORDON_NODE, MoveKind.UNCORDON_NODE),
    (MoveKind.SUSPEND_WORKLOAD, MoveKind.RESUME_WORKLOAD),
    (MoveKind.TAINT_NODE, MoveKind.UNTAINT_NODE),
    (MoveKind.MARK_NODE, MoveKind.UNMARK_NODE),
    (MoveKind.DRAIN_NODE, MoveKind.CANCEL_DRAIN),
    (MoveKind.REQUEST_REPAIR, MoveKind.WITHDRAW_REPAIR),
)
_INVERSE = {**dict(_PAIRS), **{there: here for here, there in _PAIRS}}

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Move:
    """One change of one object.

    `arguments` are what the kind needs; docs/actions.md lists them (`set_quota`: `gpus`, `pool`, `model`,
    `borrowing_gpus`, and where they are to change `lending_gpus`, `weight`).
    `resource_version` is the version that was planned against, "" where the target has none.
    `gpus` is how many GPUs it touches; `evidence` repeats the verdict's. `rule` is who asked for it, "" where
    the kind says it.
    """

    move_id: str
    kind: MoveKind
    cluster: str
    target: ObjectRef
    cause: str
    reason: str
    gpu_uuids: tuple[str, ...] = ()
    gpus: float = 0.0
    workspace: str | None = None
    node: str | None = None
    pool: str | None = None
    arguments: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    resource_version: str = ""
    risk: str = ""
    saving_usd_per_hour: Decimal | None = None
    evidence: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    rule: str = ""

    def to_json(self) -> str:
        """Return the whole move as JSON with sorted keys."""
        body = {
            "move_id": self.move_id,
            "kind": self.kind.value,
            "cluster": self.cluster,
            "target": str(self.target),
            "cause": self.cause,
            "reason": self.reason,
            "gpu_uuids": list(self.gpu_uuids),
            "gpus": self.gpus,
            "workspace": self.workspace,
            "node": self.node,
            "pool": self.pool,
            "arguments": dict(self.arguments),
            "resource_version": self.resource_version,
            "risk": self.risk,
            "saving_usd_per_hour": None if self.saving_usd_per_hour is None else str(self.saving_usd_per_hour),
            "evidence": dict(self.evidence),
            "rule": self.rule,
        }
        return json.dumps(body, sort_keys=True)

    def row(self) -> dict[str, object]:
        """Return what a list of moves tells of each: what is done to what, whose it is, what it saves and why."""
        return {
            "kind": self.kind.value,
            "target": str(self.target),
            "cluster": self.cluster,
            "workspace": self.workspace,
            "gpus": self.gpus,
            "saving_usd_per_hour": self.saving_usd_per_hour,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, text: str) -> "Move":
        """Read back what `to_json` wrote."""
        body = json.loads(text)
        saving = body["saving_usd_per_hour"]
        body.update(
            kind=MoveKind(body["kind"]),
            target=ObjectRef.parse(body["target"]),
            gpu_uuids=tuple(body["gpu_uuids"]),
            arguments=MappingProxyType(body["arguments"]),
            evidence=MappingProxyType(body["evidence"]),
            saving_usd_per_hour=None if saving is None else Decimal(saving),
        )
        return cls(**body)


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A verdict that called for a move and led to none, and why."""

    subject: str
    action: str
    reason: str
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Moves in the order they are to be made, and what was held back."""

    plan_id: str
    made_at: datetime
    policy: str
    moves: tuple[Move, ...] = ()
    held_back: tuple[HeldBack, ...] = ()

    @property
    def saving_usd_per_hour(self) -> Decimal | None:
        """Return what the priced moves save an hour; None where none is priced."""
        priced = [move.saving_usd_per_hour for move in self.moves if move.saving_usd_per_hour is not None]
        return sum(priced, Decimal(0)) if priced else None


class Stage(StrEnum):
    """How far a move has come. "unclear": begun, and the target is neither as before nor as planned."""

    INTENDED = "intended"
    APPLIED = "applied"
    REFUSED = "refused"
    FAILED = "failed"
    UNCLEAR = "unclear"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the audit: a move about to be made, or what became of it. `prior` is the object before, as JSON."""

    move_id: str
    ts: datetime
    stage: Stage
    is_dry_run: bool
    actor: str
    detail: str = ""
    prior: str | None = None
