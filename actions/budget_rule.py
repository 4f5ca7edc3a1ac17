"""The rule that follows a workspace's money: once it is spent, no more is borrowed, or its queues hold.

Only what its budget says for that case. What we did is taken back to what was there before once less is spent than the
budget: the month has ended, or it was raised. What others changed since stays as they left it.
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
SPENT = "spent"
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
        if calls_for_budget(verdict) and verdict.state == SPENT:
            if verdict.subject in policy.spending.protected_workspaces:
                reason = reason or f"workspace {verdict.subject} is protected: it is only told"
            steps = [] if reason else _follow(verdict, index)
            if not steps:
                held.append(hold(verdict, reason or _why_nothing(verdict, index)))
            drafts.extend(steps)
        elif reason is None and _is_below(verdict, policy.spending.release_share):
            drafts.extend(_release(verdict, index, recent))
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


def _release(verdict: Verdict, index: FleetIndex, recent: Sequence[Made]) -> list[Draft]:
    drafts = []
    for quota in _quotas(verdict, index):
        made = _last(recent, MoveKind.SET_QUOTA, quota.cluster, _quota_ref(quota), (quota.pool, quota.model))
        if made is not None and made.move.arguments.get("borrowing_gpus") == quota.borrowing_gpus == 0:
            before = _before(made, "borrowing_gpus")
            if before != 0:
                drafts.append(_quota(verdict, quota, before, "it has money again; it may borrow as before"))
    for queue in _queues(verdict, index):
        made = _last(recent, MoveKind.SET_QUEUE_STOP, queue.cluster, queue.ref)
        if made is not None and made.move.arguments.get("stop_policy") == queue.stop_policy == _HELD:
            drafts.append(_queue(verdict, queue, None, "it has money again; its queue admits as before"))
    return drafts


def _last(
    recent: Sequence[Made],
    kind: MoveKind,
    cluster: str,
    target: ObjectRef,
    part: tuple[str | None, str | None] | None = None,
) -> Made | None:
    """Return our last move on a target that stands; None where the rule did not make the last one."""
    found = [
        made
        for made in recent
        if made.move.kind is kind
        and (made.move.cluster, made.move.target) == (cluster, target)
        and part in {None, (made.move.arguments.get("pool"), made.move.arguments.get("model"))}
        and not made.is_undone
        and rule_of(made.move) == RULE
    ]
    return max(found, key=lambda made: made.at, default=None)


def _before(made: Made, name: str) -> float | None:
    told = made.move.evidence.get("before")
    value = told.get(name) if isinstance(told, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


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
    whole = replace(move, arguments=arguments, pool=pool, evidence=carried((verdict,), before))
    return Draft(whole, (verdict,), (1.8, 0.0))


def _move(  # noqa: PLR0917 - a move names just these
    verdict: Verdict, kind: MoveKind, cluster: str, target: ObjectRef, version: str, why: str
) -> Move:
    return Move(
        move_id="", kind=kind, cluster=cluster, target=target, cause=verdict.rule,
        reason=f"workspace {verdict.subject}: {why}", workspace=verdict.subject, resource_version=version,
        risk="what waits, waits longer" if verdict.state == SPENT else "none: it may only use more", rule=RULE,
    )  # fmt: skip
