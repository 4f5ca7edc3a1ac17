"""Emptying a node, or some of its GPUs: who is left, since when, whom to ask again, and when that is given up.

One piece for all rules that drain. What a disruption budget, or its grace, held back at the first asking is asked again
every quarter of an hour until all have left or the rule's limit is over. The first asking is what people approve;
going on with it is no new wish.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from actions.budget import Made
from actions.evidence import Draft
from actions.fields import DRAIN_GPUS
from actions.kinds import is_undo, rule_of
from actions.steps import Look, last_made, node_step, pods_on, protected_among
from fleet.move import Move, MoveKind, Value
from fleet.state import Node, Pod
from fleet.verdict import Verdict

_AGAIN_H = 0.25  # how long pods that had to wait are left alone before they are asked again
_SINCE = "since"
_ALL = "node"
DRAINS = frozenset({MoveKind.DRAIN_NODE, MoveKind.CANCEL_DRAIN})


@dataclass(frozen=True, slots=True)
class Emptying:
    """Pods that are to leave a node (`is_whole`), or the GPUs `uuids` of it; `drained` is our last asking on record."""

    node: Node
    rule: str
    uuids: tuple[str, ...]
    is_whole: bool
    pods: tuple[Pod, ...]
    drained: Made | None

    @property
    def is_told(self) -> bool:
        """Return whether the node says already that these pods are to leave."""
        if self.node.drain == _ALL:
            return True
        return not self.is_whole and set(self.uuids) <= _told(self.node)

    @property
    def is_unrecorded(self) -> bool:
        """Return whether pods are left of a drain of which the record knows nothing: a store that was lost."""
        return self.is_told and self.drained is None and bool(self.pods)

    @property
    def begun(self) -> datetime | None:
        """Return when the pods were first asked; None where that was not by us, or not at all."""
        if self.drained is None:
            return None
        since = self.drained.move.arguments.get(_SINCE)
        return datetime.fromisoformat(since) if isinstance(since, str) else self.drained.at

    @property
    def names(self) -> str:
        """Return the first of the pods that are left, as namespace/name."""
        return ", ".join(f"{pod.namespace}/{pod.name}" for pod in self.pods[:3])

    def is_late(self, look: Look, limit_h: float, since: datetime) -> bool:
        """Return whether pods are left after the limit, which runs from the first asking, else from `since`."""
        return bool(self.pods) and not look.is_within(self.begun or since, limit_h)

    def is_due(self, look: Look, limit_h: float) -> bool:
        """Return whether the pods that are left are to be asked again now; none is while one of them is protected."""
        if not self.pods or self.drained is None or look.is_within(self.drained.at, _AGAIN_H):
            return False
        return not self.is_late(look, limit_h, look.now) and protected_among(look.index, self.pods) is None

    def step(
        self,
        look: Look,
        *,
        cause: str,
        reason: str,
        order: tuple[float, ...],
        verdicts: tuple[Verdict, ...] = (),
        first: Made | None = None,
    ) -> Draft:
        """Return the drain; where it stands already, its going on, which says since when."""
        arguments: dict[str, Value] = {"scope": _ALL if self.is_whole else DRAIN_GPUS}
        if self.is_told and self.begun is not None:
            arguments[_SINCE] = self.begun.isoformat()
        uuids = self.uuids if self.is_whole else tuple(sorted({*self.uuids, *_told(self.node)}))
        return node_step(
            MoveKind.DRAIN_NODE, self.node, look.index, rule=self.rule, cause=cause, reason=reason, order=order,
            verdicts=verdicts, first=first, gpu_uuids=uuids, arguments=arguments,
            risk=f"{len(self.pods)} pods are evicted and start again elsewhere; disruption budgets hold",
        )  # fmt: skip


def emptying_of(node: Node, look: Look, rule: str, uuids: tuple[str, ...] | None = None) -> Emptying:
    """Return how far pods have left a node, or some of its GPUs, for a rule."""
    gpus = look.index.gpus_by_node.get((node.cluster, node.name), ())
    drained = None if node.drain is None else last_made(node, {MoveKind.DRAIN_NODE}, look.recent, rule=rule)
    return Emptying(
        node=node,
        rule=rule,
        uuids=tuple(sorted(gpu.uuid for gpu in gpus)) if uuids is None else uuids,
        is_whole=uuids is None,
        pods=pods_on(look.index, node, uuids),
        drained=drained,
    )


def is_carried_on(move: Move) -> bool:
    """Return whether a move only asks again the pods that a drain, which stands, has left."""
    return move.kind is MoveKind.DRAIN_NODE and isinstance(move.arguments.get(_SINCE), str) and not is_undo(move)


def carries_on(move: Move, recent: Sequence[Made]) -> bool:
    """Return whether, by the record, a drain of the same rule stands that takes in all that `move` asks again."""
    if not is_carried_on(move):
        return False
    target = (move.cluster, move.target)
    here = [
        made
        for made in recent
        if made.move.kind in DRAINS and (made.move.cluster, made.move.target) == target and not made.is_undone
    ]
    last = max(here, key=lambda made: made.at, default=None)
    if last is None or not last.is_certain:
        return False
    if last.move.kind is not MoveKind.DRAIN_NODE or rule_of(last.move) != rule_of(move) or is_undo(last.move):
        return False
    scopes = (last.move.arguments.get("scope"), move.arguments.get("scope"))
    return scopes[0] == _ALL or (scopes[0] == scopes[1] and set(move.gpu_uuids) <= set(last.move.gpu_uuids))


def _told(node: Node) -> set[str]:
    drain = node.drain or ""
    return set(drain.removeprefix(f"{DRAIN_GPUS} ").split(",")) if drain.startswith(f"{DRAIN_GPUS} ") else set()
