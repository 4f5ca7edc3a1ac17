"""The rule that cuts a node's GPUs anew, or shares them by time: cordon, drain, tell, wait, look, uncordon.

The cordon itself says what is wanted and what was there before, so a restart in the middle goes on, or backs out, from
the node alone. Where the manager fails, or does not answer in time, the layout of before is told again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from actions.budget import Made
from actions.emptying import emptying_of
from actions.evidence import Draft, Proposal, hold, why_unfit
from actions.fence import why_node_protected
from actions.index import FleetIndex
from actions.policy import ActionPolicy
from actions.steps import Look, cordon_rule, last_made, node_step, pods_on, protected_among, was_cancelled
from fleet.mig_geometry import board_of
from fleet.mig_layouts import WHOLE, WHOLE_SLOT, devices_of, slots_of
from fleet.move import HeldBack, MoveKind, Value
from fleet.state import Node
from fleet.verdict import Verdict

RULE = "reslice"
TOPIC = "packing"
_LAYOUT, _SHARING = "reslice", "share"
ACTIONS = (_LAYOUT, _SHARING)
_ARROW, _NONE = " -> ", "none"
_TOLD = {_LAYOUT: "layout", _SHARING: "sharing"}  # where a verdict says it
_FIELD = {_LAYOUT: "mig_layout", _SHARING: "sharing"}
_KIND = {_LAYOUT: MoveKind.SET_MIG_LAYOUT, _SHARING: MoveKind.SET_SHARING}
_SETS = set(_KIND.values())


@dataclass(frozen=True, slots=True)
class _Goal:
    """What a node is to become, and what it was: a layout, or a time-slicing profile."""

    action: str
    before: str | None
    after: str

    def __str__(self) -> str:
        """Write it as the cordon bears it."""
        return f"{self.action} {self.before or _NONE}{_ARROW}{self.after}"


@dataclass(frozen=True, slots=True)
class _Work:
    """A node under way: what it is to become, and the cordon that began it where the record has it."""

    node: Node
    goal: _Goal
    cordon: Made | None
    look: Look


def calls_for_reslice(verdict: Verdict) -> bool:
    """Return whether a verdict asks that a node be cut anew or shared otherwise."""
    return verdict.topic == TOPIC and verdict.action in ACTIONS


def propose_reslices(
    index: FleetIndex, verdicts: Sequence[Verdict], policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> Proposal:
    """Return the next step for each node that is being cut anew, and new ones while few enough are under way."""
    look = Look(index, policy, now, recent)
    drafts: list[Draft] = []
    held: list[HeldBack] = []
    wanted = [verdict for verdict in verdicts if calls_for_reslice(verdict)]
    busy = [node for _, node in sorted(index.nodes.items()) if cordon_rule(node, recent) == RULE]
    for node in busy:
        step = _next(node, wanted, look)
        if isinstance(step, str):
            held.append(HeldBack(node.name, RULE, step))
        else:
            drafts.extend(step)
    room = policy.reslice.max_nodes - len(busy)
    names = {(node.cluster, node.name) for node in busy}
    for verdict in sorted(wanted, key=lambda each: (-_gain(each), each.subject)):
        if (verdict.cluster or "", verdict.subject) in names:
            continue
        begin = _begin(verdict, look)
        if isinstance(begin, Draft) and room <= 0:
            begin = f"{len(busy)} nodes are being cut anew already; {policy.reslice.max_nodes} may be at once"
        if isinstance(begin, str):
            held.append(hold(verdict, begin))
        else:
            drafts.append(begin)
            room -= 1
    return Proposal(tuple(drafts), tuple(held))


def _gain(verdict: Verdict) -> float:
    told = verdict.evidence.get("gain_gpus")
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else 0.0


def _begin(verdict: Verdict, look: Look) -> Draft | str:
    found = look.index.find_nodes(verdict.subject, verdict.cluster)
    if len(found) != 1:
        return "several clusters have a node of this name" if found else "the cluster does not show this node"
    node, goal = found[0], _goal_of(verdict, found[0])
    if isinstance(goal, str):
        return goal
    reason = _why_not_begun(node, verdict, look) or _why_not_given(node, goal, look)
    if reason is not None:
        return reason
    gpus = look.index.gpus_by_node.get((node.cluster, node.name), ())
    return node_step(
        MoveKind.CORDON_NODE, node, look.index, rule=RULE, cause=str(goal), order=(3.0, -_gain(verdict)),
        reason=f"{goal}: meets the wants for {_gain(verdict):g} more GPUs' worth", verdicts=(verdict,),
        gpu_uuids=tuple(gpu.uuid for gpu in gpus), arguments={"cause": f"{RULE}: {goal}"},
        risk="no new pods on this node; those on it are evicted next",
    )  # fmt: skip


def _goal_of(verdict: Verdict, node: Node) -> _Goal | str:
    action = str(verdict.action)
    after = verdict.evidence.get(_TOLD[action])
    if not isinstance(after, str):
        return f"its evidence does not say which {_FIELD[action]} is wanted"
    before = node.mig_layout if action == _LAYOUT else node.sharing
    return f"it is {after} already" if before == after else _Goal(action, before, after)


def _why_not_begun(node: Node, verdict: Verdict, look: Look) -> str | None:
    limits, reslice = look.policy.evidence, look.policy.reslice
    reason = why_unfit(verdict, limits, look.now, max_sample_age_s=limits.max_age_s, needs_coverage=False)
    reason = reason or why_node_protected(node, look.policy.fence)
    if reason is not None:
        return reason
    if not node.is_schedulable:
        return f"node {node.name} is cordoned by {node.cordoned_by or 'somebody else'}"
    if any(gpu.is_fenced for gpu in look.index.gpus_by_node.get((node.cluster, node.name), ())):
        return "a GPU of it is fenced; it is repaired first"
    if _gain(verdict) < reslice.min_unmet_gpus:
        return f"it would meet {_gain(verdict):g} more GPUs' worth; at least {reslice.min_unmet_gpus:g} are asked for"
    last = last_made(node, {MoveKind.CORDON_NODE, *_SETS}, look.recent, rule=RULE, is_standing=False)
    if last is not None and look.is_within(last.at, reslice.cooldown_h):
        return f"it was cut anew, or that was tried, at {last.at.isoformat()}; left alone {reslice.cooldown_h:g} h"
    name = protected_among(look.index, pods_on(look.index, node))
    return None if name is None else f"{name} on it is protected by its owner"


def _why_not_given(node: Node, goal: _Goal, look: Look) -> str | None:
    if goal.action == _LAYOUT and _expected(node, goal.after, look) is None:
        return f"its boards have no layout {goal.after}"
    return None


def _next(node: Node, wanted: Sequence[Verdict], look: Look) -> Sequence[Draft] | str:
    goal = _read_goal(node)
    if goal is None:
        return f"our cordon does not say what for: {node.cordon_cause!r}; a person has to look"
    work = _Work(node, goal, last_made(node, {MoveKind.CORDON_NODE}, look.recent, rule=RULE), look)
    told = last_made(node, {_KIND[goal.action]}, look.recent, rule=RULE)
    if told is not None and work.cordon is not None and told.at < work.cordon.at:
        told = None
    current = getattr(node, _FIELD[goal.action])
    if told is not None and told.move.arguments.get(_FIELD[goal.action]) != goal.after:
        return _restoring(work, told)
    if current == goal.after:
        return _telling(work, told)
    if told is not None:
        return f"{_FIELD[goal.action]} was set to {current} by somebody else meanwhile; a person has to look"
    about = [each for each in wanted if each.subject == node.name and each.cluster in {None, node.cluster}]
    return _emptying(work, about)


def _is_for(verdict: Verdict, work: _Work) -> bool:
    return verdict.action == work.goal.action and verdict.evidence.get(_TOLD[work.goal.action]) == work.goal.after


def _read_goal(node: Node) -> _Goal | None:
    words = (node.cordon_cause or "").removeprefix(f"{RULE}: ")
    action, _, rest = words.partition(" ")
    before, arrow, after = rest.partition(_ARROW)
    if action not in ACTIONS or not arrow or not after:
        return None
    return _Goal(action, None if before == _NONE else before, after)


def _emptying(work: _Work, about: Sequence[Verdict]) -> Sequence[Draft] | str:
    """Empty the node and tell what it is to become; what was begun is ended unless something else is wanted now."""
    node, look = work.node, work.look
    reason = _why_backed_out(work, about)
    if reason is not None:
        return _back(work, reason)
    verdict = next((each for each in about if _is_for(each, work)), None)
    emptying = emptying_of(node, look, RULE)
    if not emptying.is_told or emptying.is_unrecorded or emptying.is_due(look, look.policy.reslice.drain_limit_h):
        goal, grounds = str(work.goal), () if verdict is None else (verdict,)
        return [emptying.step(look, cause=goal, reason=f"{goal}: empties it", order=(0.3, 0.0), verdicts=grounds,
                              first=work.cordon)]  # fmt: skip
    if emptying.pods:
        return f"waits for {len(emptying.pods)} pods to leave: {emptying.names}"
    told: dict[str, Value] = {_FIELD[work.goal.action]: work.goal.after}
    return [_step(work, _KIND[work.goal.action], f"becomes {work.goal.after}", arguments=told, verdict=verdict)]


def _why_backed_out(work: _Work, about: Sequence[Verdict]) -> str | None:
    node, look = work.node, work.look
    since = look.now if work.cordon is None else work.cordon.at
    if was_cancelled(node, look.recent, look.now, look.now - since + timedelta(seconds=1)):
        return "its drain was cancelled by somebody"
    if about and not any(_is_for(each, work) for each in about):
        return "something else is wanted of it now"
    emptying, limit_h = emptying_of(node, look, RULE), look.policy.reslice.drain_limit_h
    name = protected_among(look.index, emptying.pods)
    if name is not None and node.drain is None:
        return f"{name} on it is protected by its owner"
    if emptying.is_late(look, limit_h, since):
        return f"{len(emptying.pods)} pods do not leave, or may not be evicted, within {limit_h:g} h: {emptying.names}"
    return None


def _telling(work: _Work, told: Made | None) -> Sequence[Draft] | str:
    """Wait for what was told; give the node back once it is so, tell what was there before where it failed."""
    node, goal, look = work.node, work.goal, work.look
    is_layout = goal.action == _LAYOUT
    if _gives_places(node, told, look) if not is_layout else _is_cut(node, goal, look):
        return _back(work, f"it is {goal.after} and gives out what it should")
    limit_h = look.policy.reslice.limit_h
    began = told or work.cordon
    since = look.now if began is None else began.at
    is_failed = is_layout and node.mig_state == "failed"
    if not is_failed and look.is_within(since, limit_h):
        waits_for = f"the MIG manager ({node.mig_state or 'no answer'})" if is_layout else "the device plugin"
        return f"waits for {waits_for} since {since.isoformat()}"
    why = "the MIG manager failed" if is_failed else f"it did not become so within {limit_h:g} h"
    before: dict[str, Value] = {_FIELD[goal.action]: (goal.before or WHOLE) if is_layout else goal.before}
    step = _step(work, _KIND[goal.action], f"{why}; what was there before is told again", arguments=before)
    return [replace(step, move=replace(step.move, evidence={**step.move.evidence, "restores": True}))]


def _is_cut(node: Node, goal: _Goal, look: Look) -> bool:
    return node.mig_state == "success" and _has_slots(node, goal.after, look)


def _gives_places(node: Node, told: Made | None, look: Look) -> bool:
    """Return whether a node gives out each GPU as often as its verdict said; one that said nothing is believed."""
    places = None if told is None else told.move.evidence.get("replicas")
    if not isinstance(places, int) or isinstance(places, bool):
        return True
    wanted = places * len(look.index.gpus_by_node.get((node.cluster, node.name), ()))
    return wanted in {node.slots.get(WHOLE_SLOT), node.slots.get(f"{WHOLE_SLOT}.shared")}


def _restoring(work: _Work, told: Made) -> Sequence[Draft] | str:
    node, before = work.node, work.goal.before or WHOLE
    if work.goal.action == _SHARING or node.mig_state == "success":
        return _back(work, f"{work.goal.after} did not come about; it is {before} again")
    if work.look.is_within(told.at, work.look.policy.reslice.limit_h):
        return f"waits for the MIG manager to restore {before} ({node.mig_state or 'no answer'})"
    return f"{before} could not be restored ({node.mig_state or 'no answer'}); a person has to look"


def _back(work: _Work, why: str) -> Sequence[Draft]:
    """Return the moves that give the node back: the drain ends, then the cordon, which is ours."""
    kinds = [MoveKind.CANCEL_DRAIN] if work.node.drain is not None else []
    kinds.append(MoveKind.UNCORDON_NODE)
    return [_step(work, kind, why, place=place) for place, kind in enumerate(kinds)]


def _expected(node: Node, layout: str, look: Look) -> dict[str, int] | None:
    gpus = look.index.gpus_by_node.get((node.cluster, node.name), ())
    boards = {board.name: board for gpu in gpus if (board := board_of(gpu.model, gpu.memory_mib)) is not None}
    board = next(iter(boards.values())) if len(boards) == 1 else None
    devices = None if board is None else devices_of(board, layout, look.policy.reslice.layouts)
    return None if devices is None else slots_of(devices, len(gpus))


def _has_slots(node: Node, layout: str, look: Look) -> bool:
    expected = _expected(node, layout, look)
    if expected is None:
        return False
    told = {name: count for name, count in node.slots.items() if count > 0}
    # with the strategy "single", devices of one profile are given out as if they were GPUs
    is_single = len(expected) == 1 and told == {WHOLE_SLOT: sum(expected.values())}
    return told == expected or is_single


def _step(
    work: _Work,
    kind: MoveKind,
    why: str,
    *,
    arguments: dict[str, Value] | None = None,
    place: int = 0,
    verdict: Verdict | None = None,
) -> Draft:
    return node_step(
        kind, work.node, work.look.index, rule=RULE, cause=str(work.goal), reason=f"{work.goal}: {why}",
        order=(0.3, float(place)), verdicts=() if verdict is None else (verdict,), first=work.cordon,
        arguments=arguments,
    )  # fmt: skip
