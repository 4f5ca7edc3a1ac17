"""Decide: state, verdicts and policy become a plan. Pure; the same input gives the same plan."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from actions.budget import Made, Spending, lately, why_no_room
from actions.evidence import Draft, Proposal, hold, latest
from actions.fence import calls_for_fence
from actions.fields import uid_of
from actions.forbid import why_forbidden
from actions.index import FleetIndex, index_of
from actions.kinds import RULES, group_of, rule_of
from actions.policy import ActionPolicy
from actions.rebalance import MEDIAN
from actions.rebalance import TOPIC as DEMAND
from actions.reclaim import ACTION as RECLAIM
from actions.reclaim import TOPIC as IDLE
from actions.reclaim_part import FEWER
from actions.rules import CALLS, PROPOSERS
from fleet.clock import as_utc
from fleet.move import HeldBack, Move, MoveKind, Plan
from fleet.state import FleetState
from fleet.verdict import Verdict

# what an analysis says where a person, or nobody, has to do something
_NOT_OURS = {None, "none", "inspect", "watch"}
_NOTHING: Mapping[str, Proposal] = MappingProxyType({})


def plan(
    state: FleetState,
    verdicts: Sequence[Verdict],
    policy: ActionPolicy,
    now: datetime,
    *,
    recent: Sequence[Made] = (),
    further: Mapping[str, Proposal] = _NOTHING,
    held_back: Iterable[HeldBack] = (),
) -> Plan:
    """Return the moves that the verdicts call for and the policy allows, safety first, and what was held back.

    `recent` is what was made lately (`actions.budget.made_of`), a day of it for the cooldowns to hold. `further`
    holds, by rule, what others than the verdicts call for (workspaces that are to be as their manifests say), and
    `held_back` what was held back before. The plan's id is a digest of its content and its hour, so that one planned
    again brings young evidence; a move's id of its plan and its content.
    """
    now = as_utc(now, "now")
    current = latest(verdicts)
    index = index_of(state)
    problem = _why_state_unfit(state, policy, now)
    if problem is not None:
        held = [hold(verdict, problem) for verdict in current if _calls(verdict, policy)]
        return _finished([], [*held_back, *held], index, policy, now)
    proposals = {rule: propose(index, current, policy, now, recent) for rule, propose in PROPOSERS.items()}
    for rule, proposal in further.items():
        ours = proposals.get(rule, Proposal())
        proposals[rule] = Proposal((*ours.drafts, *proposal.drafts), (*ours.held_back, *proposal.held_back))
    held = [*held_back]
    held += [hold(each, _why_nobody_takes(each)) for each in _leftovers(current, policy)]
    moves: list[Move] = []
    counted = lately(recent, policy, now)
    for rule in RULES:
        spending = Spending(counted, tuple(moves))
        made, kept = _within_bounds(rule, proposals.get(rule, Proposal()), index, policy, now, spending=spending)
        moves.extend(made)
        held.extend(kept)
    return _finished(moves, held, index, policy, now)


def digest(*parts: object) -> str:
    """Return a stable name for content that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_of(move: Move) -> dict[str, object]:
    """Return what makes a move the same move, its words and numbers of evidence aside."""
    return {
        "kind": move.kind.value,
        "cluster": move.cluster,
        "target": str(move.target),
        "cause": move.cause,
        "gpu_uuids": list(move.gpu_uuids),
        "arguments": dict(move.arguments),
        "resource_version": move.resource_version,
        "rule": rule_of(move),
    }


def _within_bounds(
    rule: str, proposal: Proposal, index: FleetIndex, policy: ActionPolicy, now: datetime, *, spending: Spending
) -> tuple[list[Move], list[HeldBack]]:
    mode = policy.modes.of(rule)
    held = [] if mode == "off" else list(proposal.held_back)
    moves: list[Move] = []
    broken: dict[tuple[str, ...], str] = {}
    seen: set[tuple[str, str, tuple[str, ...], str]] = set()
    for draft in sorted(proposal.drafts, key=_place):
        move = draft.move
        key = (move.cluster, str(move.target), _part(move), str(sorted(dict(move.arguments).items(), key=str)))
        reason = (
            _why_mode_forbids(rule, mode, move)
            or ("another move has the same target" if key in seen else None)
            or _why_taken(move, spending.turn)
            or why_forbidden(move, spending.recent, index, policy, now)
            or why_no_room(move, replace(spending, turn=(*spending.turn, *moves)), index, policy, now)
        )
        if reason is None:
            seen.add(key)
            moves.append(move)
        else:
            held.extend(hold(verdict, reason, move.gpus) for verdict in draft.verdicts if _calls(verdict, policy))
            if not draft.verdicts:
                held.append(HeldBack(str(move.target), move.kind.value, reason, move.gpus))
            if move.kind is MoveKind.SET_QUOTA and key not in seen:
                broken.setdefault(group_of(move), reason)
    partners = [move for move in moves if group_of(move) in broken]
    moves = [move for move in moves if group_of(move) not in broken]
    held.extend(
        HeldBack(
            str(move.target), move.kind.value, f"its pool is changed whole or not at all: {broken[group_of(move)]}"
        )
        for move in partners
    )
    if mode == "off":
        held.extend(
            HeldBack(each.subject, each.action, f"rule {rule} is off", each.gpus) for each in proposal.held_back
        )
    return moves, held


def _why_taken(move: Move, earlier: Sequence[Move]) -> str | None:
    """Say which rule moves the same target in this plan already: what was planned of it does not hold any more."""
    mine = (move.cluster, move.target, *_quota_part(move))
    taken = (each for each in earlier if (each.cluster, each.target, *_quota_part(each)) == mine)
    rule = next((rule_of(each) for each in taken), None)
    return None if rule is None else f"rule {rule} moves {move.target} in this plan; it is looked at again after that"


def _quota_part(move: Move) -> tuple[object, ...]:
    is_quota = move.kind is MoveKind.SET_QUOTA
    return (move.arguments.get("pool"), move.arguments.get("model")) if is_quota else ()


def _part(move: Move) -> tuple[str, ...]:
    return (move.kind.value, *(move.gpu_uuids if move.kind is MoveKind.FENCE_GPU else ()))


def _place(draft: Draft) -> tuple[tuple[float, ...], str, str, tuple[str, ...]]:
    return (draft.order, draft.move.cluster, str(draft.move.target), draft.move.gpu_uuids)


def _why_mode_forbids(rule: str, mode: str, move: Move) -> str | None:
    if mode == "off":
        return f"rule {rule} is off"
    return f"rule {rule} only observes; it would {move.kind.value}" if mode == "observe" else None


def _why_state_unfit(state: FleetState, policy: ActionPolicy, now: datetime) -> str | None:
    age_s = (now - state.taken_at).total_seconds()
    if age_s > policy.evidence.max_state_age_s:
        return f"the cluster's state is {age_s:.0f} s old; at most {policy.evidence.max_state_age_s:g} s are allowed"
    if state.taken_at > now + timedelta(seconds=policy.evidence.max_skew_s):
        return "the cluster's state is from the future; check the clocks"
    return None


def _calls(verdict: Verdict, policy: ActionPolicy) -> bool:
    is_demand = verdict.topic == DEMAND and MEDIAN in verdict.evidence
    is_idle = verdict.topic == IDLE and verdict.action in {RECLAIM, FEWER}
    is_further = any(calls(verdict) for calls in CALLS)
    return is_demand or is_idle or is_further or calls_for_fence(verdict, policy.fence)


def _leftovers(verdicts: Iterable[Verdict], policy: ActionPolicy) -> list[Verdict]:
    return [each for each in verdicts if each.action not in _NOT_OURS and not _calls(each, policy)]


def _why_nobody_takes(verdict: Verdict) -> str:
    if str(verdict.action).startswith("recommend_"):
        return "it is advice for its owner, and no move: see `steward rightsize`"
    return f"no rule takes action {verdict.action} of topic {verdict.topic}"


def _finished(
    moves: Sequence[Move], held: Iterable[HeldBack], index: FleetIndex, policy: ActionPolicy, now: datetime
) -> Plan:
    held_back = sorted(set(held), key=lambda each: (each.subject, each.action, each.reason, each.gpus))
    settings = policy.to_json()
    clusters = sorted({cluster for cluster, _ in (*index.nodes, *index.gpus_by_pool)})
    contents = [content_of(move) for move in moves]
    plan_id = digest("plan", f"{now:%Y-%m-%dT%H}", clusters, settings, contents, [asdict(each) for each in held_back])
    named = tuple(
        replace(move, move_id=digest("move", plan_id, content), evidence=_with_identity(move, index))
        for move, content in zip(moves, contents, strict=True)
    )
    return Plan(plan_id, now, settings, named, tuple(held_back))


def _with_identity(move: Move, index: FleetIndex) -> Mapping[str, object]:
    """Return a move's evidence with what tells its target from another that may bear its name later."""
    uid = uid_of(move, index)
    return MappingProxyType({**move.evidence, "uid": uid}) if uid else move.evidence
