"""The rule that takes failing GPUs, and nodes most of whose GPUs fail, out of use."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from actions.breaker import causes_shared, tripped_groups
from actions.budget import tripped
from actions.evidence import Draft, Proposal, carried, hold, is_below, why_unfit
from actions.fence_means import MEANS, NODE_TAINT, gpus_taken, words_of
from actions.fields import OUR_NAME
from actions.index import FleetIndex, Place
from actions.policy import ActionPolicy, FencePolicy
from actions.steps import cordon_cause
from fleet.move import HeldBack, Move, MoveKind
from fleet.state import Gpu, Node, ObjectRef
from fleet.verdict import Severity, Verdict

TOPICS = ("health", "anomaly")
_SEVERITIES = (Severity.OK, Severity.INFO, Severity.WARNING, Severity.CRITICAL)
_STATES = ("failed", "failing", "degraded")


@dataclass(frozen=True, slots=True)
class _Case:
    """One verdict and the place it speaks of: a node, and the GPUs on it that it calls bad."""

    verdict: Verdict
    node: Node
    gpus: tuple[Gpu, ...]


def propose_fences(index: FleetIndex, verdicts: Sequence[Verdict], policy: ActionPolicy, now: datetime) -> Proposal:
    """Return fences and cordons for the health verdicts that call for one, and what is held back."""
    held: list[HeldBack] = []
    cases: list[_Case] = []
    for verdict in verdicts:
        if not calls_for_fence(verdict, policy.fence):
            continue
        case = _case(verdict, index)
        if isinstance(case, str):
            held.append(hold(verdict, case))
        else:
            cases.append(case)
    breaker = tripped(
        [(case.verdict.rule, [gpu.uuid for gpu in case.gpus]) for case in cases],
        index,
        policy.fence.breaker_share_of_pool,
        policy.fence.breaker_min_gpus,
    )
    shared = tripped_groups(
        [(case.verdict, case.node, [gpu.uuid for gpu in case.gpus]) for case in cases], index, policy.fence
    )
    fit: dict[Place, list[_Case]] = defaultdict(list)
    for case in cases:
        pool = (case.node.cluster, case.node.pool)
        groups = [shared.get((pool, cause)) for cause in causes_shared(case.verdict, case.node)]
        common = next((group for group in groups if group is not None), None)
        reason = _why_not(case, policy, now) or breaker.get((pool, case.verdict.rule)) or common
        if reason is None:
            fit[case.node.cluster, case.node.name].append(case)
        else:
            held.append(hold(case.verdict, reason, float(len(case.gpus))))
    drafts: list[Draft] = []
    for _, found in sorted(fit.items()):
        node_drafts, node_held = _on_node(found, index, policy.fence)
        drafts.extend(node_drafts)
        held.extend(node_held)
    return Proposal(tuple(drafts), tuple(held))


def calls_for_fence(verdict: Verdict, policy: FencePolicy) -> bool:
    """Return whether a verdict asks that hardware be taken out of use."""
    return verdict.topic in TOPICS and verdict.action in (*policy.fence_actions, *policy.cordon_actions)


def why_node_protected(node: Node, policy: FencePolicy) -> str | None:
    """Say why nothing may be done to a node, or None."""
    asked = [told.get(policy.protect_label) for told in (node.labels, node.annotations)]
    is_protected = node.name in policy.protected_nodes or "true" in asked
    return f"node {node.name} is protected" if is_protected else None


def why_node_untouchable(node: Node, policy: FencePolicy) -> str | None:
    """Say why a node must be left as it is, or None."""
    if node.is_schedulable or why_node_protected(node, policy):
        return why_node_protected(node, policy)
    if node.cordoned_by == OUR_NAME:
        return f"node {node.name} is already cordoned by us"
    return f"node {node.name} was cordoned by {node.cordoned_by or 'somebody else'}; another's cordon is not touched"


def _case(verdict: Verdict, index: FleetIndex) -> _Case | str:
    if verdict.subject_kind == "gpu":
        gpu = index.gpus.get(verdict.subject)
        if gpu is None or verdict.cluster not in {None, gpu.cluster}:
            return "the cluster does not show this GPU"
        node = index.nodes.get((gpu.cluster, gpu.node))
        return f"its node {gpu.node} is not in the cluster's state" if node is None else _Case(verdict, node, (gpu,))
    if verdict.subject_kind != "node":
        return f"a {verdict.subject_kind} can't be fenced by itself"
    nodes = index.find_nodes(verdict.subject, verdict.cluster)
    if len(nodes) != 1:
        return "several clusters have a node of this name" if nodes else "the cluster does not show this node"
    return _Case(verdict, nodes[0], index.gpus_by_node.get((nodes[0].cluster, nodes[0].name), ()))


def _why_not(case: _Case, policy: ActionPolicy, now: datetime) -> str | None:
    verdict, fence = case.verdict, policy.fence
    reason = why_unfit(
        verdict, policy.evidence, now, max_sample_age_s=policy.evidence.max_event_age_s, needs_coverage=False
    )
    if reason is not None:
        return reason
    if verdict.state not in fence.states:
        return f"state {verdict.state} is not one of {', '.join(fence.states)}"
    if _SEVERITIES.index(verdict.severity) < _SEVERITIES.index(Severity(fence.min_severity)):
        return f"severity {verdict.severity.value} is below {fence.min_severity}"
    if is_below(verdict.confidence, fence.min_confidence):
        return f"confidence {verdict.confidence} is below {fence.min_confidence}"
    if any(gpu.is_fenced for gpu in case.gpus) and verdict.subject_kind == "gpu" and not _is_cordon(verdict, fence):
        return "already fenced"
    return why_node_untouchable(case.node, fence)


def _on_node(cases: list[_Case], index: FleetIndex, policy: FencePolicy) -> tuple[list[Draft], list[HeldBack]]:
    cases = sorted(cases, key=_badness)
    node = cases[0].node
    gpus = index.gpus_by_node.get((node.cluster, node.name), ())
    bad = {gpu.uuid for case in cases for gpu in case.gpus if case.verdict.subject_kind == "gpu"}
    bad |= {gpu.uuid for gpu in gpus if gpu.is_fenced}
    wants_cordon = [case for case in cases if _is_cordon(case.verdict, policy)]
    if wants_cordon:
        return [_cordon(wants_cordon, cases, node, gpus, "")], []
    if bad and len(bad) > policy.cordon_failed_share * len(gpus):
        return [_cordon(cases, cases, node, gpus, f"{len(bad)} of its {len(gpus)} GPUs fail; ")], []
    held = [
        hold(case.verdict, "a whole node is cordoned or drained, not fenced", float(len(gpus)))
        for case in cases
        if case.verdict.subject_kind == "node"
    ]
    by_gpu: dict[str, list[_Case]] = defaultdict(list)
    for case in cases:
        if case.verdict.subject_kind == "gpu":
            by_gpu[case.gpus[0].uuid].append(case)
    drafts: list[Draft] = []
    for found in sorted(by_gpu.values(), key=lambda each: (_badness(each[0]), each[0].gpus[0].uuid)):
        # the first fence by the node's taint keeps all of it free; those after it take nothing more out
        is_first = not any(draft.move.arguments.get(MEANS) == NODE_TAINT for draft in drafts)
        drafts.append(_fence(found, gpus_taken(found[0].gpus[0], node, index) if is_first else 1))
    return drafts, held


def _fence(cases: list[_Case], taken: int) -> Draft:
    first, gpu, node = cases[0], cases[0].gpus[0], cases[0].node
    move = replace(
        _base(cases, node),
        kind=MoveKind.FENCE_GPU,
        reason=f"GPU {gpu.uuid} on {node.name}: {_words(cases)}",
        gpu_uuids=(gpu.uuid,),
        gpus=float(taken),
        workspace=first.verdict.workspace,
        arguments={} if gpu.fence_by is None else {MEANS: gpu.fence_by},
        risk=words_of(gpu, node, taken),
        evidence=carried(tuple(case.verdict for case in cases), {"is_fenced": False}),
    )
    return Draft(move, tuple(case.verdict for case in cases), (0.0, *_badness_numbers(first)))


def _cordon(wanting: list[_Case], cases: list[_Case], node: Node, gpus: tuple[Gpu, ...], why: str) -> Draft:
    verdicts = tuple(case.verdict for case in (*wanting, *(case for case in cases if case not in wanting)))
    move = replace(
        _base(wanting, node),
        kind=MoveKind.CORDON_NODE,
        reason=f"Node {node.name}: {why}{_words(cases)}",
        gpu_uuids=tuple(gpu.uuid for gpu in gpus),
        gpus=float(len(gpus)),
        arguments={"cause": cordon_cause("fence", wanting[0].verdict.rule)},
        risk="no new pods on this node; running pods go on",
        evidence=carried(verdicts, {"is_schedulable": node.is_schedulable, "cordoned_by": node.cordoned_by}),
    )
    return Draft(move, verdicts, (0.0, *_badness_numbers(wanting[0])))


def _base(cases: list[_Case], node: Node) -> Move:
    return Move(
        move_id="",
        kind=MoveKind.CORDON_NODE,
        cluster=node.cluster,
        target=ObjectRef("Node", "", node.name),
        cause=cases[0].verdict.rule,
        reason="",
        node=node.name,
        pool=node.pool,
        resource_version=node.resource_version,
    )


def _words(cases: list[_Case]) -> str:
    return ", ".join(dict.fromkeys(f"{case.verdict.state} by rule {case.verdict.rule}" for case in cases))


def _is_cordon(verdict: Verdict, policy: FencePolicy) -> bool:
    return verdict.action in policy.cordon_actions


def _badness(case: _Case) -> tuple[tuple[float, ...], str, str]:
    return (_badness_numbers(case), case.verdict.subject, case.verdict.rule)


def _badness_numbers(case: _Case) -> tuple[float, ...]:
    verdict = case.verdict
    return (-float(_SEVERITIES.index(verdict.severity)), float(_STATES.index(verdict.state)))
