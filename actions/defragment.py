"""The rule that moves pods so that larger blocks come free: cordon, evict the chosen pods, uncordon.

Only replicas that come back elsewhere by themselves are chosen, and the cordon says which: a restart in the middle goes
on from it. Whether it happens at all is a mode that observes unless somebody sets it otherwise.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from actions.budget import Made
from actions.evidence import Draft, Proposal, hold, why_unfit
from actions.fence import why_node_protected
from actions.fields import DRAIN_GPUS
from actions.index import FleetIndex
from actions.policy import ActionPolicy
from actions.steps import cordon_rule, last_made, node_step, pods_on, was_cancelled
from fleet.move import HeldBack, MoveKind
from fleet.state import Node, Pod
from fleet.verdict import Verdict

RULE = "defragment"
TOPIC = "packing"
ACTION = "defragment"
_PODS = "pods "


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
    for node in busy:
        step = _next(node, index, policy, now, recent)
        if isinstance(step, str):
            held.append(HeldBack(node.name, RULE, step))
        else:
            drafts.extend(step)
    room = policy.defragment.max_nodes - len(busy)
    wanted = [each for each in verdicts if calls_for_defragment(each)]
    for verdict in sorted(wanted, key=lambda each: (_gpus(each), each.cluster or "", each.subject)):
        begin = _begin(verdict, index, policy, now, recent)
        if isinstance(begin, Draft) and room <= 0:
            begin = f"{len(busy)} nodes are being emptied already; {policy.defragment.max_nodes} may be at once"
        if isinstance(begin, str):
            held.append(hold(verdict, begin, _gpus(verdict)))
        else:
            drafts.append(begin)
            room -= 1
    return Proposal(tuple(drafts), tuple(held))


def _begin(
    verdict: Verdict, index: FleetIndex, policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> Draft | str:
    found = index.find_nodes(verdict.subject, verdict.cluster)
    if len(found) != 1:
        return "several clusters have a node of this name" if found else "the cluster does not show this node"
    node = found[0]
    limits, wanted = policy.evidence, _uids(verdict)
    reason = why_unfit(verdict, limits, now, max_sample_age_s=limits.max_age_s, needs_coverage=False)
    reason = reason or why_node_protected(node, policy.fence) or _why_not_free(node, index)
    pods = [pod for pod in pods_on(index, node) if pod.uid in wanted]
    last = last_made(node, {MoveKind.CORDON_NODE}, recent, rule=RULE, is_standing=False)
    if reason is None and last is not None and now - last.at < timedelta(hours=policy.defragment.cooldown_h):
        reason = f"pods were moved off it at {last.at.isoformat()}; left alone {policy.defragment.cooldown_h:g} h"
    if reason is None and (not wanted or len(pods) < len(wanted)):
        reason = "the pods that were to move are not all there any more"
    reason = reason or next((why for pod in pods if (why := _why_not_movable(pod, index, policy))), None)
    if reason is not None:
        return reason
    uuids = _uuids(pods)
    if len(uuids) > policy.defragment.max_gpus:
        return f"{len(uuids)} GPUs would move; at most {policy.defragment.max_gpus:g} may"
    cause = f"{_PODS}{','.join(sorted(pod.uid for pod in pods))}"
    whole = tuple(sorted(gpu.uuid for gpu in index.gpus_by_node.get((node.cluster, node.name), ())))
    return node_step(
        MoveKind.CORDON_NODE, node, index, rule=RULE, cause="block_to_free", order=(4.0, float(len(uuids))),
        reason=f"{len(pods)} pods with {len(uuids)} GPUs move; {verdict.evidence.get('size')} come free together",
        verdicts=(verdict,), gpu_uuids=whole, arguments={"cause": f"{RULE}: {cause}"},
        risk="no new pods on this node until the chosen ones have left",
    )  # fmt: skip


def _next(
    node: Node, index: FleetIndex, policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> Sequence[Draft] | str:
    cordon = last_made(node, {MoveKind.CORDON_NODE}, recent, rule=RULE)
    words = (node.cordon_cause or "").removeprefix(f"{RULE}: ")
    chosen = set(words.removeprefix(_PODS).split(",")) if words.startswith(_PODS) else set()
    pods = [pod for pod in pods_on(index, node) if pod.uid in chosen]
    since = now if cordon is None else cordon.at
    limit_h = policy.defragment.limit_h
    why = None
    if was_cancelled(node, recent, now, now - since + timedelta(seconds=1)):
        why = "its drain was cancelled by somebody"
    elif not pods:
        why = "the chosen pods have left"
    elif now - since > timedelta(hours=limit_h):
        why = f"{len(pods)} pods do not leave within {limit_h:g} h"
    elif any(_why_not_movable(pod, index, policy) for pod in pods) and node.drain is None:
        why = "a pod of it may not move any more"
    if why is not None:
        return _back(node, index, cordon, why)
    if node.drain is not None:
        return f"waits for {len(pods)} pods to leave"
    uuids = _uuids(pods)
    return [node_step(
        MoveKind.DRAIN_NODE, node, index, rule=RULE, cause="block_to_free", order=(0.4, 0.0), first=cordon,
        reason=f"{len(pods)} pods move", gpu_uuids=uuids, arguments={"scope": DRAIN_GPUS},
        risk=f"{len(pods)} pods are evicted and start again elsewhere; disruption budgets hold",
    )]  # fmt: skip


def _back(node: Node, index: FleetIndex, cordon: Made | None, why: str) -> Sequence[Draft]:
    kinds = [MoveKind.CANCEL_DRAIN] if node.drain is not None else []
    return [
        node_step(kind, node, index, rule=RULE, cause="block_to_free", reason=why, order=(0.4, float(place)),
                  first=cordon)
        for place, kind in enumerate([*kinds, MoveKind.UNCORDON_NODE])
    ]  # fmt: skip


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
