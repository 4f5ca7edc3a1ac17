"""Approval: which moves wait for whom, and how far each has come. Pure, read off append-only rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from actions.approval_policy import ApprovalPolicy
from actions.budget import Made
from actions.emptying import is_carried_on
from actions.fields import fields_after
from actions.kinds import is_undo, kind_of, rule_of
from actions.plan import digest
from actions.policy import ActionPolicy
from fleet.approval import Approval, Step
from fleet.errors import MoveRefused
from fleet.move import Move, Plan

NOT_BEFORE = ("proposed", "notified")  # states in which an answer is still awaited


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a proposal has come.

    `state` is proposed, notified, approved, refused, expired or made. `approvers` are those who agreed and count;
    `persons` is how many are needed. `due_at` is when a rule in mode "auto" may go on without an answer: None where
    it waits for one, or nobody was told yet.
    """

    state: str
    content: str
    move_id: str
    plan_id: str
    proposed_at: datetime
    proposed_by: str
    expires_at: datetime
    persons: int
    approvers: tuple[str, ...] = ()
    answer: Approval | None = None
    notified_at: datetime | None = None


def content_digest(move: Move) -> str:
    """Return a name for what is done to what, from what; the version and the words of evidence are left out.

    An approval binds to this: the same move planned again a minute later is covered, one with another target, other
    GPUs, another value or another state before is not.
    """
    before = move.evidence.get("before")
    wanted = dict(fields_after(move))
    known = {name: before.get(name) for name in wanted} if isinstance(before, Mapping) else {}
    return digest(
        "content", move.kind.value, move.cluster, str(move.target), move.cause, sorted(move.gpu_uuids),
        dict(move.arguments), rule_of(move), move.workspace, known,
    )  # fmt: skip


def persons_for(move: Move, plan: Plan, policy: ApprovalPolicy) -> int:
    """Return how many persons must agree to a move: two where it, or its rule in this plan, is large."""
    nodes = {
        (each.cluster, each.target.name)
        for each in plan.moves
        if rule_of(each) == rule_of(move) and kind_of(each).scope in {"gpu", "node"} and kind_of(each).is_taking
    }
    is_of_nodes = kind_of(move).scope in {"gpu", "node"}
    is_large = move.gpus > policy.two_persons_gpus or (is_of_nodes and len(nodes) > policy.two_persons_nodes)
    return 2 if is_large else 1


def needs_answer(move: Move, plan: Plan, policy: ActionPolicy) -> bool:
    """Return whether a move is put before people before the turn makes it: by its mode, its grace or its size."""
    if is_undo(move) or is_carried_on(move):
        return False  # what goes on was answered when it began; `apply` looks whether it still stands
    mode = policy.modes.of(rule_of(move))
    is_silent = mode == "auto" and policy.approval.grace_of(rule_of(move)) <= 0
    return mode in {"propose", "auto"} and not (is_silent and persons_for(move, plan, policy.approval) == 1)


def standings(rows: Iterable[Approval], now: datetime, made: Sequence[Made] = ()) -> dict[str, Standing]:
    """Return by content how far each proposal has come; a new proposal of the same content begins anew."""
    rounds: dict[str, list[Approval]] = {}
    for row in sorted(rows, key=_order):
        if row.step is Step.PROPOSED:
            rounds[row.content] = [row]
        elif row.content in rounds:
            rounds[row.content].append(row)
    last = {content_digest(each.move): each.at for each in made if each.is_certain}
    return {content: _standing(found, now, last.get(content)) for content, found in rounds.items()}


def is_open(standing: Standing | None, now: datetime, policy: ApprovalPolicy) -> bool:
    """Return whether a proposal stands, so that it need not be made again; a refusal stands for a while, too."""
    if standing is None or standing.state in {"expired", "made"}:
        return False
    if standing.state == "refused" and standing.answer is not None:
        return now - standing.answer.ts < timedelta(hours=policy.refused_h)
    return True


def why_waiting(move: Move, plan: Plan, standing: Standing | None, policy: ActionPolicy, now: datetime) -> str | None:
    """Say what a move still waits for before the turn may make it, or None where it may be made."""
    if not needs_answer(move, plan, policy):
        return None
    if standing is None or not is_open(standing, now, policy.approval):
        return "it was not put before anybody yet"
    persons = max(standing.persons, persons_for(move, plan, policy.approval))
    if standing.state == "refused":
        answer = standing.answer
        return (
            f"{answer.who if answer else 'somebody'} refused it: {(answer.note if answer else '') or 'no reason given'}"
        )
    if len(standing.approvers) >= persons:
        return None
    if policy.modes.of(rule_of(move)) == "auto" and persons == 1:
        return _why_in_grace(standing, policy.approval.grace_of(rule_of(move)), now)
    names = ", ".join(standing.approvers)
    return f"{len(standing.approvers)} of {persons} persons agreed" + (f" ({names})" if names else "")


def check_answer(standing: Standing, who: str, step: Step, now: datetime) -> None:
    """Return where `who` may answer; `MoveRefused` where time is over, it was answered, or it may not be them."""
    if standing.state == "made":
        message = f"move {standing.move_id} was made already; `steward undo {standing.move_id}` takes it back"
        raise MoveRefused(message)
    if standing.state == "expired" or now >= standing.expires_at:
        message = f"the proposal of move {standing.move_id} expired at {standing.expires_at.isoformat()}; plan again"
        raise MoveRefused(message)
    if standing.state == "refused" and standing.answer is not None:
        message = f"{standing.answer.who} refused move {standing.move_id} at {standing.answer.ts.isoformat()}"
        raise MoveRefused(message)
    if step is not Step.APPROVED:
        return
    if who in standing.approvers:
        message = f"{who} approved move {standing.move_id} already; the other approval must be another person's"
        raise MoveRefused(message)
    if standing.persons > 1 and who == standing.proposed_by:
        message = f"{who} made the plan of move {standing.move_id}; two other persons must approve it"
        raise MoveRefused(message)


def _why_in_grace(standing: Standing, grace_s: float, now: datetime) -> str | None:
    if standing.notified_at is None:
        return "nobody could be told of it yet"
    due = standing.notified_at + timedelta(seconds=grace_s)
    return None if now >= due else f"it is made at {due.isoformat()} where nobody refuses"


def _standing(rows: Sequence[Approval], now: datetime, made_at: datetime | None) -> Standing:
    first = rows[0]
    persons = 1 if first.person_count is None else first.person_count
    expires_at = first.ts if first.expires_at is None else first.expires_at
    in_time = [row for row in rows if row.ts < expires_at]
    refusal = next((row for row in in_time if row.step is Step.REFUSED), None)
    names = dict.fromkeys(row.who for row in in_time if row.step is Step.APPROVED)
    approvers = tuple(name for name in names if persons == 1 or name != first.who)
    told = next((row.ts for row in rows if row.step is Step.NOTIFIED), None)
    state = "proposed" if told is None else "notified"
    answer = refusal
    if made_at is not None and made_at >= first.ts:
        state = "made"
    elif refusal is not None:
        state = "refused"
    elif now >= expires_at:
        state = "expired"
    elif len(approvers) >= persons:
        state = "approved"
        answer = [row for row in in_time if row.step is Step.APPROVED][-1]
    return Standing(
        state, first.content, first.move_id, first.plan_id, first.ts, first.who, expires_at, persons, approvers,
        answer, told,
    )  # fmt: skip


def _order(row: Approval) -> tuple[datetime, int]:
    return (row.ts, list(Step).index(row.step))
