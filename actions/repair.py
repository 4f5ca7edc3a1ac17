"""The rule that has what we took out of use repaired, and gives it back: drain, ask, wait, look, return.

It acts on nodes and GPUs that we fenced for their health, and on nothing else. Which step comes next is read off the
node and the record alone: mark it, let the work on it end, drain it (only the bad GPU's pods where a reset of that GPU
will do), ask for the repair, and once the verdicts are clean withdraw the request, end the drain, unfence and unmark.
Giving back is never held by a budget or a breaker. What does not help in time is given up with a reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from actions.budget import Made, tripped
from actions.emptying import Emptying, emptying_of
from actions.evidence import Draft, Proposal, why_unfit
from actions.fence import TOPICS, why_node_protected
from actions.index import FleetIndex
from actions.policy import ActionPolicy
from actions.repair_return import give_back, leftovers
from actions.steps import Look, cordon_rule, last_made, node_step, our_fence, protected_among, was_cancelled
from fleet.move import HeldBack, MoveKind
from fleet.state import Node, Pod
from fleet.verdict import Verdict

RULE = "repair"
REBOOT = "reboot_node"
# What a verdict's action asks for: whether all of the node, and which repair; None is a person's work.
_WANTED: dict[str, tuple[bool, str | None]] = {
    "drain": (True, None),
    "reboot_node": (True, REBOOT),
    "reset_gpu": (False, "reset_gpu"),
    "run_diagnostics": (False, "run_diagnostics"),
    "replace_gpu": (False, None),
}
_RUNGS = ("drain", "reset_gpu", "reboot_node", "run_diagnostics", "replace_gpu")


@dataclass(frozen=True, slots=True)
class Case:
    """A node of which something is out of use by our hand: why it was, since when, and what is still wrong."""

    node: Node
    first: Made | None
    fenced: tuple[str, ...]
    is_cordoned: bool
    subjects: tuple[str, ...]
    bad: tuple[Verdict, ...]
    clean: tuple[Verdict, ...]
    cause: str


@dataclass(frozen=True, slots=True)
class _Goal:
    """What a case calls for: all of the node or some of its GPUs, and the repair (None: a person's work)."""

    action: str
    is_whole: bool
    asked: str | None
    uuids: tuple[str, ...]


def propose_repairs(
    index: FleetIndex, verdicts: Sequence[Verdict], policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> Proposal:
    """Return the next step for each node that we took something of out of use, and what waits or was given up."""
    told = [verdict for verdict in verdicts if verdict.topic in TOPICS]
    cases: list[Case] = []
    drafts: list[Draft] = []
    held: list[HeldBack] = []
    for _, node in sorted(index.nodes.items()):
        case = _case(node, index, told, policy, recent)
        if case is not None:
            cases.append(case)
        elif cordon_rule(node, recent) is None:
            drafts.extend(leftovers(node, index, recent))
    shown = [(verdict.rule, _uuids(verdict, index)) for case in cases for verdict in case.bad]
    breaker = tripped(shown, index, policy.repair.breaker_share_of_pool, policy.repair.breaker_min_gpus)
    look = Look(index, policy, now, recent)
    for case in cases:
        reason = breaker.get(((case.node.cluster, case.node.pool), case.bad[0].rule)) if case.bad else None
        step = reason or (_forward(case, look) if case.bad else give_back(case, index, policy.repair, now, recent))
        if isinstance(step, str):
            held.append(HeldBack(case.node.name, RULE, step, float(len(case.fenced))))
        else:
            drafts.extend([step] if isinstance(step, Draft) else step)
    return Proposal(tuple(drafts), tuple(held))


def _case(
    node: Node, index: FleetIndex, told: Sequence[Verdict], policy: ActionPolicy, recent: Sequence[Made]
) -> Case | None:
    gpus = index.gpus_by_node.get((node.cluster, node.name), ())
    fences = {gpu.uuid: made for gpu in gpus if (made := our_fence(gpu, recent)) is not None}
    is_cordoned = cordon_rule(node, recent) == "fence"
    if not is_cordoned and (not fences or not node.is_schedulable):
        return None
    cordon = last_made(node, {MoveKind.CORDON_NODE}, recent) if is_cordoned else None
    first = min([*fences.values(), *([] if cordon is None else [cordon])], key=lambda made: made.at, default=None)
    here = {node.name, *(gpu.uuid for gpu in gpus)}
    mine = [each for each in told if each.subject in here and each.cluster in {None, node.cluster}]
    subjects = {*fences, *_named(cordon)}
    if is_cordoned and (node.name in subjects or not _named(cordon)):
        # what is told of a node is told of its GPUs; the node itself may have no verdict once it is well
        subjects |= here
    if not any(each.subject == node.name for each in mine):
        subjects.discard(node.name)
    bad = [each for each in mine if _is_bad(each, policy) and (each.subject in subjects or is_cordoned)]
    clean = [each for each in mine if each.subject in subjects and each not in bad]
    ranked = sorted(bad, key=lambda each: (-_RUNGS.index(str(each.action)), each.subject, each.rule))
    words = first.move.cause if first is not None else (node.cordon_cause or "unknown").removeprefix("fence: ")
    return Case(
        node, first, tuple(sorted(fences)), is_cordoned, tuple(sorted(subjects)), tuple(ranked), tuple(clean), words
    )


def _is_bad(verdict: Verdict, policy: ActionPolicy) -> bool:
    return verdict.state in policy.fence.states and verdict.action in _WANTED


def _named(made: Made | None) -> tuple[str, ...]:
    told = None if made is None else made.move.evidence.get("verdict")
    subjects = told.get("subjects") if isinstance(told, dict) else None
    return tuple(str(each) for each in subjects) if isinstance(subjects, list) else ()


def _uuids(verdict: Verdict, index: FleetIndex) -> list[str]:
    if verdict.subject_kind == "gpu":
        return [verdict.subject]
    nodes = index.find_nodes(verdict.subject, verdict.cluster)
    return [gpu.uuid for node in nodes for gpu in index.gpus_by_node.get((node.cluster, node.name), ())]


def _forward(case: Case, look: Look) -> Draft | str:
    """Return the next step towards a repair, or why there is none now."""
    is_whole, wanted = _WANTED[str(case.bad[0].action)]
    asked = wanted if wanted in {None, REBOOT} else f"{wanted} {case.bad[0].subject}"
    goal = _Goal(str(case.bad[0].action), is_whole, asked, _scope(case, look.index, is_whole=is_whole))
    return (
        _why_not_ours(case, goal, look)
        or _under_way(case, goal, look)
        or _marking(case, look)
        or _why_stopped(case, goal, look)
        or _draining(case, goal, look)
        or _asking(case, goal, look)
    )


def _why_not_ours(case: Case, goal: _Goal, look: Look) -> str | None:
    limits = look.policy.evidence
    reason = why_node_protected(case.node, look.policy.fence) or why_unfit(
        case.bad[0], limits, look.now, max_sample_age_s=limits.max_event_age_s, needs_coverage=False
    )
    if reason is None and goal.is_whole and not case.is_cordoned:
        return f"{goal.action} takes the whole node, which is not cordoned by us"
    return reason


def _marking(case: Case, look: Look) -> Draft | None:
    if case.node.mark is not None:
        return None
    words = case.cause.replace("-", "_").replace(" ", "_").split("_")
    mark = "".join(word.capitalize() for word in words) or "Failing"
    return _step(case, MoveKind.MARK_NODE, look.index, "says what is wrong with it", arguments={"mark": mark})


def _why_stopped(case: Case, goal: _Goal, look: Look) -> str | None:
    retry_h = look.policy.repair.retry_h
    if was_cancelled(case.node, look.recent, look.now, timedelta(hours=retry_h)):
        return f"its drain was cancelled by somebody; left alone for {retry_h:g} h"
    mine = [made for made in look.recent if made.move.arguments.get("repair") == goal.asked]
    tried = None if goal.asked is None else last_made(case.node, {MoveKind.REQUEST_REPAIR}, mine, is_standing=False)
    if tried is not None and look.is_within(tried.at, retry_h):
        asked = f"{goal.asked} was asked for at {tried.at.isoformat()}"
        return f"{asked} and did not help, or was taken back; a person has to look"
    return None


def _draining(case: Case, goal: _Goal, look: Look) -> Draft | str | None:
    emptying = emptying_of(case.node, look, RULE, None if goal.is_whole else goal.uuids)
    limit_h = look.policy.repair.drain_limit_h
    what = "all of it" if goal.is_whole else f"GPU {', '.join(goal.uuids)}"
    reason = f"drains {what} before {goal.action}"
    if not emptying.is_told:
        return _why_not_yet(case, emptying.pods, look) or _drain(case, emptying, look, reason)
    if not emptying.pods:
        return None
    if emptying.is_due(look, limit_h):
        return _drain(case, emptying, look, reason)
    # what fails is not given back because work stays on it: a person decides
    count, begun = len(emptying.pods), emptying.begun
    if begun is not None and emptying.is_late(look, limit_h, begun):
        return f"gave up: drained since {begun.isoformat()}, and {count} pods do not leave: {emptying.names}"
    return f"waits for {count} pods to leave: {emptying.names}"


def _drain(case: Case, emptying: Emptying, look: Look, reason: str) -> Draft:
    order = (0.5, float(len(emptying.uuids)))
    return emptying.step(look, cause=case.cause, reason=reason, order=order, verdicts=case.bad, first=case.first)


def _asking(case: Case, goal: _Goal, look: Look) -> Draft | str:
    if goal.asked is None:
        return f"it is drained; {goal.action} needs a person"
    worst = case.bad[0]
    return _step(
        case, MoveKind.REQUEST_REPAIR, look.index, f"{goal.asked} for {worst.state} by rule {worst.rule}",
        uuids=goal.uuids, arguments={"repair": goal.asked},
        risk="the GPUs are gone while it lasts; nothing runs on them",
    )  # fmt: skip


def _scope(case: Case, index: FleetIndex, *, is_whole: bool) -> tuple[str, ...]:
    gpus = index.gpus_by_node.get((case.node.cluster, case.node.name), ())
    if is_whole:
        return tuple(sorted(gpu.uuid for gpu in gpus))
    return (case.bad[0].subject,) if case.bad[0].subject_kind == "gpu" else case.fenced


def _step(
    case: Case,
    kind: MoveKind,
    index: FleetIndex,
    why: str,
    *,
    uuids: tuple[str, ...] = (),
    arguments: dict[str, str | int | float | bool | None] | None = None,
    risk: str = "",
) -> Draft:
    return node_step(
        kind, case.node, index, rule=RULE, cause=case.cause, reason=why, order=(0.5, float(len(uuids))),
        verdicts=case.bad, first=case.first, gpu_uuids=uuids, arguments=arguments, risk=risk,
    )  # fmt: skip


def _why_not_yet(case: Case, pods: Sequence[Pod], look: Look) -> str | None:
    """Say why the work on it is still left to end by itself, or None."""
    repair = look.policy.repair
    since = (case.bad[0].since or look.now) if case.first is None else case.first.at
    name = protected_among(look.index, pods)
    if name is not None and look.is_within(since, repair.protected_wait_h):
        return f"waits for {name}, which its owner protects, to end by itself"
    if name is not None:
        return f"{name}, which its owner protects, runs on since {since.isoformat()}; ask its owner"
    if not pods or case.bad[0].state == "failed":
        return None
    is_gang = any(len(look.index.pods_by_workload.get((pod.cluster, pod.workload), ())) > 1 for pod in pods)
    grace_h = repair.gang_grace_h if is_gang else repair.grace_h
    if look.is_within(since, grace_h):
        return f"gives {len(pods)} pods {grace_h:g} h from {since.isoformat()} to end or to save what they have"
    return None


def _under_way(case: Case, goal: _Goal, look: Look) -> Draft | str | None:
    """Wait for a repair that was asked for; take it back once it is late, or another is called for."""
    node, repair = case.node, look.policy.repair
    if node.repair is None:
        return None
    made = last_made(node, {MoveKind.REQUEST_REPAIR}, look.recent)
    if made is None or node.repair != made.move.arguments.get("repair"):
        return f"{node.repair} was asked for by somebody else; left to them"
    if node.drain is None:
        return _step(case, MoveKind.WITHDRAW_REPAIR, look.index, "its drain was cancelled; it must not be repaired")
    is_late = not look.is_within(made.at, repair.repair_limit_h)
    is_other = goal.asked != node.repair and any(each.made_at > made.at for each in case.bad)
    if is_late or (is_other and not look.is_within(made.at, repair.verify_h)):
        why = "did not help in time" if is_late else f"did not help; {goal.asked or goal.action} is called for now"
        return _step(case, MoveKind.WITHDRAW_REPAIR, look.index, f"{node.repair} {why}")
    return f"waits for {node.repair}, asked for at {made.at.isoformat()}"
