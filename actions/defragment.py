"""The rule that moves pods so that larger blocks come free: cordon, evict the chosen pods, uncordon.

Only replicas that come back elsewhere by themselves are chosen, and the cordon says which: a restart in the middle goes
on from it. Whether it happens at all is a mode that observes unless somebody sets it otherwise.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from actions.budget import Made
from actions.emptying import emptying_of
from actions.evidence import Draft, Proposal, hold, why_unfit
from actions.fence import why_node_protected
from actions.index import FleetIndex
from actions.policy import ActionPolicy
from actions.steps import Look, cordon_rule, last_made, node_step, pods_on, was_cancelled
from fleet.move import HeldBack, MoveKind
from fleet.state import Node, Pod
from fleet.verdict import Verdict

RULE = "defragment"
TOPIC = "packing"
ACTION = "defragment"
_PODS = "pods "
_CAUSE = "block_to_free"


def calls_for_defragment(verdict: Verdict) -> bool:
    """Return whether a verdict asks that pods be moved off a node."""
    return verdict.topic == TOPIC and verdict.action == ACTION


def propose_defragments(
    index: FleetIndex, verdicts: Sequence[Verdict], policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> Proposal:
    """Return the next step for each node that is being emptied, and new ones while few enough are under way."""
    drafts: list[Draft] = []
    held: list[HeldBack] = []
    busy = [node for _, node in sorted(index.nodes.items()) if cordon_rule(node, recent) == RULE]
    look = Look(index, policy, now, recent)
    for node in busy:
        step = _next(node, look)
        if isinstance(step, str):
            held.append(HeldBack(node.name, RULE, step))
        else:
            drafts.extend(step)
    room = policy.defragment.max_nodes - len(busy)
    wanted = [each for each in verdicts if calls_for_defragment(each)]
    for verdict in sorted(wanted, key=lambda each: (_gpus(each), each.cluster or "", each.subject)):
        begin = _begin(verdict, look)
        if isinstance(begin, Draft) and room <= 0:
            begin = f"{len(busy)} nodes are being emptied already; {policy.defragment.max_nodes} may be at once"
        if isinstance(begin, str):
            held.append(hold(verdict, begin, _gpus(verdict)))
        else:
            drafts.append(begin)
            room -= 1
    return Proposal(tuple(drafts), tuple(held))


def _begin(verdict: Verdict, look: Look) -> Draft | str:
    index, policy, now = look.index, look.policy, look.now
    found = index.find_nodes(verdict.subject, verdict.cluster)
    if len(found) != 1:
        return "several clusters have a node of this name" if found else "the cluster does not show this node"
    node = found[0]
    limits, wanted = policy.evidence, _uids(verdict)
    reason = why_unfit(verdict, limits, now, max_sample_age_s=limits.max_age_s, needs_coverage=False)
    reason = reason or why_node_protected(node, policy.fence) or _why_not_free(node, index)
    pods = [pod for pod in pods_on(index, node) if pod.uid in wanted]
    last = last_made(node, {MoveKind.CORDON_NODE}, look.recent, rule=RULE, is_standing=False)
    if reason is None and last is not None and look.is_within(last.at, policy.defragment.cooldown_h):
        reason = f"pods were moved off it at {last.at.isoformat()}; left alone {policy.defragment.cooldown_h:g} h"
    if reason is None and (not wanted or len(pods) < len(wanted)):
        reason = "the pods that were to move are not all there any more"
    reason = reason or next((why for pod in pods if (why := _why_not_movable(pod, index, policy))), None)
    if reason is not None:
        return reason
    uuids = _uuids(pods)
    if len(uuids) > policy.defragment.max_gpus:
        return f"{len(uuids)} GPUs would move; at most {policy.defragment.max_gpus:g} may"
    beside = [pod.name for pod in pods_on(index, node, uuids) if pod.uid not in wanted]
    if beside:
        return f"{beside[0]} holds a part of the same GPUs and was not chosen"
    cause = f"{_PODS}{','.join(sorted(pod.uid for pod in pods))}"
    whole = tuple(sorted(gpu.uuid for gpu in index.gpus_by_node.get((node.cluster, node.name), ())))
    return node_step(
        MoveKind.CORDON_NODE, node, index, rule=RULE, cause=_CAUSE, order=(4.0, float(len(uuids))),
        reason=f"{len(pods)} pods with {len(uuids)} GPUs move; {verdict.evidence.get('size')} come free together",
        verdicts=(verdict,), gpu_uuids=whole, arguments={"cause": f"{RULE}: {cause}"},
        risk="no new pods on this node until the chosen ones have left",
    )  # fmt: skip


def _next(node: Node, look: Look) -> Sequence[Draft] | str:
    cordon = last_made(node, {MoveKind.CORDON_NODE}, look.recent, rule=RULE)
    words = (node.cordon_cause or "").removeprefix(f"{RULE}: ")
    chosen = set(words.removeprefix(_PODS).split(",")) if words.startswith(_PODS) else set()
    pods = [pod for pod in pods_on(look.index, node) if pod.uid in chosen]
    since = look.now if cordon is None else cordon.at
    limit_h = look.policy.defragment.limit_h
    # what these pods hold is all that is drained: nobody else holds a part of it, else they would not be movable
    emptying = emptying_of(node, look, RULE, _uuids(pods))
    why = None
    if was_cancelled(node, look.recent, look.now, look.now - since + timedelta(seconds=1)):
        why = "its drain was cancelled by somebody"
    elif not pods:
        why = "the chosen pods have left"
    elif emptying.is_late(look, limit_h, since):
        why = f"{len(pods)} pods do not leave within {limit_h:g} h: {emptying.names}"
    elif any(_why_not_movable(pod, look.index, look.policy) for pod in pods):
        why = "a pod of it may not move any more"
    if why is not None:
        return _back(node, look.index, cordon, why)
    if emptying.is_told and not (emptying.is_unrecorded or emptying.is_due(look, limit_h)):
        return f"waits for {len(pods)} pods to leave: {emptying.names}"
    return [emptying.step(look, cause=_CAUSE, reason=f"{len(pods)} pods move", order=(0.4, 0.0), first=cordon)]


def _back(node: Node, index: FleetIndex, cordon: Made | None, why: str) -> Sequence[Draft]:
    kinds = [MoveKind.CANCEL_DRAIN] if node.drain is not None else []
    return [
        node_step(kind, node, index, rule=RULE, cause=_CAUSE, reason=why, order=(0.4, float(place)), first=cordon)
        for place, kind in enumerate([*kinds, MoveKind.UNCORDON_NODE])
    ]


def _why_not_free(node: Node, index: FleetIndex) -> str | None:
    if not node.is_schedulable:
        return f"node {node.name} is cordoned by {node.cordoned_by or 'somebody else'}"
    if any(gpu.is_fenced for gpu in index.gpus_by_node.get((node.cluster, node.name), ())):
        return "a GPU of it is fenced; it is repaired first"
    return None


def _why_not_movable(pod: Pod, index: FleetIndex, policy: ActionPolicy) -> str | None:
    workload = index.find_workload(pod.cluster, pod.workload)
    if workload is None:
        return f"nobody knows whose {pod.namespace}/{pod.name} is"
    if workload.is_protected or pod.namespace in policy.reclaim.protected_namespaces:
        return f"{workload.ref} is protected"
    if workload.ref.kind not in policy.defragment.movable_kinds:
        return f"a pod of a {workload.ref.kind} does not come back elsewhere as it was"
    return None


def _uids(verdict: Verdict) -> set[str]:
    told = verdict.evidence.get("pods")
    rows = told if isinstance(told, list | tuple) else ()
    return {str(row["pod_uid"]) for row in rows if isinstance(row, Mapping) and "pod_uid" in row}


def _uuids(pods: Sequence[Pod]) -> tuple[str, ...]:
    return tuple(sorted({uuid for pod in pods for uuid in pod.gpu_uuids}))


def _gpus(verdict: Verdict) -> float:
    told = verdict.evidence.get("gpus")
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else 0.0
