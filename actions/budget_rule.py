"""The rule that follows a workspace's money: once it is spent, no more is borrowed, or its queues hold.

Only what its budget says for that case. What we did is taken back to what was there before once nothing asks for it any
more: less is spent than the budget (the month has ended, or it was raised), the budget was taken away, or its policy is
another now. What others changed since stays as they left it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from actions.budget import Made
from actions.evidence import Draft, Proposal, carried, hold, why_unfit
from actions.index import FleetIndex
from actions.kinds import rule_of
from actions.policy import ActionPolicy
from fleet.move import HeldBack, Move, MoveKind, Value
from fleet.state import ObjectRef, Queue, Quota
from fleet.verdict import Verdict

RULE = "budget"
TOPIC = "cost"
STOP, HOLD = "stop_borrowing", "hold_queue"
SPENT, ENDED = "spent", "unlimited"
_HELD = "Hold"


def calls_for_budget(verdict: Verdict) -> bool:
    """Return whether a verdict says that something follows from money that is spent."""
    return verdict.topic == TOPIC and verdict.subject_kind == "workspace" and verdict.action in {STOP, HOLD}


def propose_budgets(
    index: FleetIndex, verdicts: Sequence[Verdict], policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> Proposal:
    """Return what follows for workspaces whose money is spent, and what is taken back of those that have some again."""
    drafts: list[Draft] = []
    held: list[HeldBack] = []
    limits = policy.evidence
    for verdict in verdicts:
        if verdict.topic != TOPIC or verdict.subject_kind != "workspace":
            continue
        reason = why_unfit(verdict, limits, now, max_sample_age_s=limits.max_event_age_s, needs_coverage=False)
        wanted = verdict.action if calls_for_budget(verdict) and verdict.state == SPENT else None
        if wanted is not None and verdict.subject in policy.spending.protected_workspaces:
            held.append(hold(verdict, f"workspace {verdict.subject} is protected: it is only told"))
            wanted = None
        steps = [] if reason or wanted is None else _follow(verdict, index)
        if wanted is not None and not steps:
            held.append(hold(verdict, reason or _why_nothing(verdict, index)))
        drafts.extend(steps)
        if reason is None and (verdict.state in {SPENT, ENDED} or _is_below(verdict, policy.spending.release_share)):
            drafts.extend(_release(verdict, wanted, index, recent))
    return Proposal(tuple(drafts), tuple(held))


def _is_below(verdict: Verdict, share: float) -> bool:
    told = verdict.evidence.get("share")
    return isinstance(told, int | float) and not isinstance(told, bool) and 0 <= told < share


def _follow(verdict: Verdict, index: FleetIndex) -> list[Draft]:
    if verdict.action == HOLD:
        return [_queue(verdict, queue, _HELD, "its money for the month is spent; what runs goes on")
                for queue in _queues(verdict, index) if queue.stop_policy is None]  # fmt: skip
    return [_quota(verdict, quota, 0.0, "its money for the month is spent; it keeps its guarantee")
            for quota in _quotas(verdict, index) if quota.borrowing_gpus != 0]  # fmt: skip


def _why_nothing(verdict: Verdict, index: FleetIndex) -> str:
    if verdict.action == HOLD:
        return "its queues hold already" if _queues(verdict, index) else "it has no queue here that could hold"
    return "it borrows nothing already" if _quotas(verdict, index) else "it has no quota here"


def _release(verdict: Verdict, wanted: str | None, index: FleetIndex, recent: Sequence[Made]) -> list[Draft]:
    """Return what takes back what we set and nothing asks for any more, where it is still as we set it."""
    why = {SPENT: "its budget asks for something else now", ENDED: "its budget was taken away"}
    told = why.get(verdict.state, "it has money again")
    drafts = []
    for quota in _quotas(verdict, index) if wanted != STOP else ():
        part = (quota.pool, quota.model)
        made = _standing(recent, MoveKind.SET_QUOTA, (quota.cluster, _quota_ref(quota)), part)
        if made is not None and made.move.arguments.get("borrowing_gpus") == quota.borrowing_gpus == 0:
            is_known, before = _before(made, "borrowing_gpus")
            if is_known and before != 0:
                drafts.append(_quota(verdict, quota, before, f"{told}; it may borrow as before"))
    for queue in _queues(verdict, index) if wanted != HOLD else ():
        made = _standing(recent, MoveKind.SET_QUEUE_STOP, (queue.cluster, queue.ref), None)
        if made is not None and made.move.arguments.get("stop_policy") == queue.stop_policy == _HELD:
            drafts.append(_queue(verdict, queue, None, f"{told}; its queue admits as before"))
    return drafts


def _standing(
    recent: Sequence[Made],
    kind: MoveKind,
    place: tuple[str, ObjectRef],
    part: tuple[str | None, str | None] | None,
) -> Made | None:
    """Return our last stop of a target that stands; None where a later move of another rule set the same value anew."""
    found = [
        made
        for made in recent
        if made.move.kind is kind
        and (made.move.cluster, made.move.target) == place
        and part in {None, (made.move.arguments.get("pool"), made.move.arguments.get("model"))}
        and not made.is_undone
    ]
    name = "borrowing_gpus" if kind is MoveKind.SET_QUOTA else "stop_policy"
    for made in sorted(found, key=lambda each: each.at, reverse=True):
        if rule_of(made.move) == RULE:
            return made
        told = made.move.evidence.get("before")
        if not isinstance(told, Mapping) or told.get(name) != made.move.arguments.get(name):
            return None
    return None


def _before(made: Made, name: str) -> tuple[bool, float | None]:
    """Return whether the record tells what was there before a move, and what; None is no limit."""
    told = made.move.evidence.get("before")
    if not isinstance(told, Mapping) or name not in told:
        return False, None
    value = told[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number or value is None, float(value) if is_number else None


def _quotas(verdict: Verdict, index: FleetIndex) -> list[Quota]:
    found = [each for each in index.state.quotas if each.workspace == verdict.subject]
    mine = [each for each in found if verdict.cluster in {None, each.cluster}]
    return sorted(mine, key=lambda each: (each.cluster, each.pool or "", each.model or ""))


def _queues(verdict: Verdict, index: FleetIndex) -> list[Queue]:
    found = [each for each in index.state.queues if each.workspace == verdict.subject]
    mine = [each for each in found if verdict.cluster in {None, each.cluster}]
    # who admits for a namespace is asked first; a cluster's queue may serve others, too
    local = [each for each in mine if each.ref.kind == "LocalQueue"]
    return sorted(local or mine, key=lambda each: (each.cluster, each.ref))


def _quota_ref(quota: Quota) -> ObjectRef:
    return ObjectRef("Quota", "", quota.workspace)


def _quota(verdict: Verdict, quota: Quota, borrowing: float | None, why: str) -> Draft:
    arguments: dict[str, Value] = {
        "gpus": quota.gpus, "pool": quota.pool, "model": quota.model, "borrowing_gpus": borrowing,
    }  # fmt: skip
    before = {"gpus": quota.gpus, "borrowing_gpus": quota.borrowing_gpus}
    move = _move(verdict, MoveKind.SET_QUOTA, quota.cluster, _quota_ref(quota), quota.resource_version, why)
    return _draft(verdict, move, arguments, before, quota.pool)


def _queue(verdict: Verdict, queue: Queue, stop: str | None, why: str) -> Draft:
    move = _move(verdict, MoveKind.SET_QUEUE_STOP, queue.cluster, queue.ref, queue.resource_version, why)
    return _draft(verdict, move, {"stop_policy": stop}, {"stop_policy": queue.stop_policy}, None)


def _draft(
    verdict: Verdict, move: Move, arguments: Mapping[str, Value], before: Mapping[str, object], pool: str | None
) -> Draft:
    is_stop = arguments.get("stop_policy") is not None or arguments.get("borrowing_gpus") == 0
    risk = "what waits, waits longer" if is_stop else "none: it may only use more"
    whole = replace(move, arguments=arguments, pool=pool, risk=risk, evidence=carried((verdict,), before))
    return Draft(whole, (verdict,), (1.8, 0.0))


def _move(  # noqa: PLR0917 - a move names just these
    verdict: Verdict, kind: MoveKind, cluster: str, target: ObjectRef, version: str, why: str
) -> Move:
    return Move(
        move_id="", kind=kind, cluster=cluster, target=target, cause=verdict.rule,
        reason=f"workspace {verdict.subject}: {why}", workspace=verdict.subject, resource_version=version,
        rule=RULE,
    )  # fmt: skip
