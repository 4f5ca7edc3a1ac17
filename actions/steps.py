"""What procedures of several steps share: whose cordon a node bears, what was made of it when, and the next move.

Nothing is remembered but the record. Each turn a rule reads off the node how far things have come and proposes the next
step, so a restart in the middle goes on from there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from actions.budget import Made
from actions.evidence import Draft, carried
from actions.fields import OUR_NAME, fields_of
from actions.index import FleetIndex
from actions.kinds import is_undo, rule_of
from actions.policy import ActionPolicy
from fleet.move import Move, MoveKind, Value
from fleet.state import Gpu, Node, ObjectRef, Pod
from fleet.verdict import Verdict

_RULE_WORD = ": "


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the fleet: what a step is decided on."""

    index: FleetIndex
    policy: ActionPolicy
    now: datetime
    recent: Sequence[Made]

    def is_within(self, at: datetime, hours: float) -> bool:
        """Return whether a moment is less than so many hours ago."""
        return self.now - at < timedelta(hours=hours)


def cordon_cause(rule: str, cause: str) -> str:
    """Return what a cordon says of itself on its node: the rule that asked for it, and why."""
    return f"{rule}{_RULE_WORD}{cause}"


def cordon_rule(node: Node, recent: Sequence[Made]) -> str | None:
    """Return which of our rules cordoned a node, None where it is not our cordon.

    The record says it, else the cordon's own words; a cordon of ours of which neither tells is that of the fence.
    """
    if node.is_schedulable or node.cordoned_by != OUR_NAME:
        return None
    made = last_made(node, {MoveKind.CORDON_NODE}, recent)
    if made is not None:
        return rule_of(made.move)
    rule, found, _ = (node.cordon_cause or "").partition(_RULE_WORD)
    return rule if found else "fence"


def last_made(
    node: Node,
    kinds: Collection[MoveKind],
    recent: Sequence[Made],
    *,
    rule: str | None = None,
    is_standing: bool = True,
) -> Made | None:
    """Return the last move of these kinds that was made of a node, of one rule where that is given.

    What was taken back since does not count, unless `is_standing` is False.
    """
    found = [
        made
        for made in recent
        if made.move.kind in kinds
        and (made.move.cluster, made.move.target.name) == (node.cluster, node.name)
        and made.move.target.kind == "Node"
        and not (is_standing and made.is_undone)
        and rule in {None, rule_of(made.move)}
    ]
    return max(found, key=lambda made: made.at, default=None)


def our_fence(gpu: Gpu, recent: Sequence[Made]) -> Made | None:
    """Return the move by which we fenced a GPU, None where it is not fenced, or not by our record."""
    if not gpu.is_fenced:
        return None
    found = [
        made
        for made in recent
        if made.move.kind in {MoveKind.FENCE_GPU, MoveKind.UNFENCE_GPU}
        and made.move.cluster == gpu.cluster
        and made.move.gpu_uuids == (gpu.uuid,)
        and not made.is_undone
    ]
    last = max(found, key=lambda made: made.at, default=None)
    return last if last is not None and last.move.kind is MoveKind.FENCE_GPU else None


def was_cancelled(node: Node, recent: Sequence[Made], now: datetime, within: timedelta) -> bool:
    """Return whether somebody took back a drain of ours lately: it is gone, and no rule of ours ended it.

    A person who takes it back by the record (`steward undo`) is somebody, too.
    """
    if node.drain is not None:
        return False
    ends = {MoveKind.DRAIN_NODE, MoveKind.CANCEL_DRAIN}
    here = [
        made
        for made in recent
        if made.move.kind in ends
        and (made.move.cluster, made.move.target.name) == (node.cluster, node.name)
        and not is_undo(made.move)
    ]
    last = max(here, key=lambda made: made.at, default=None)
    return last is not None and last.move.kind is MoveKind.DRAIN_NODE and now - last.at < within


def pods_on(index: FleetIndex, node: Node, uuids: Collection[str] | None = None) -> tuple[Pod, ...]:
    """Return the pods of a node, or of some of its GPUs, sorted by name."""
    pods = index.pods_by_node.get((node.cluster, node.name), ())
    found = (pod for pod in pods if uuids is None or set(pod.gpu_uuids) & set(uuids))
    return tuple(sorted(found, key=lambda pod: (pod.namespace, pod.name)))


def protected_among(index: FleetIndex, pods: Sequence[Pod]) -> str | None:
    """Return the name of a protected workload that one of these pods belongs to, None where there is none."""
    for pod in pods:
        workload = index.find_workload(pod.cluster, pod.workload)
        if workload is not None and workload.is_protected:
            return str(workload.ref)
    return None


def node_step(
    kind: MoveKind,
    node: Node,
    index: FleetIndex,
    *,
    rule: str,
    cause: str,
    reason: str,
    order: tuple[float, ...],
    verdicts: tuple[Verdict, ...] = (),
    first: Made | None = None,
    gpu_uuids: tuple[str, ...] = (),
    arguments: Mapping[str, Value] | None = None,
    risk: str = "",
) -> Draft:
    """Return one step of a procedure on a node, with the cause and the first move of it in its evidence."""
    move = Move(
        move_id="",
        kind=kind,
        cluster=node.cluster,
        target=ObjectRef("Node", "", node.name),
        cause=cause,
        reason=f"Node {node.name}: {reason}",
        gpu_uuids=gpu_uuids,
        gpus=float(len(gpu_uuids)),
        node=node.name,
        pool=node.pool,
        arguments=arguments or {},
        resource_version=node.resource_version,
        risk=risk,
        rule=rule,
    )
    before = fields_of(move, index) or {}
    told = carried(verdicts, before) if verdicts else {"before": dict(before)}
    since = {} if first is None else {"first_move": first.move.move_id, "first_at": first.at.isoformat()}
    return Draft(replace(move, evidence={**told, **since, "cause": cause}), verdicts, order)
