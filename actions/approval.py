"""Approval: which moves wait for whom, and how far each has come. Pure, read off append-only rows."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from actions.approval_policy import ApprovalPolicy
from actions.budget import Made
from actions.emptying import DRAINS, carries_on
from actions.fields import fields_after
from actions.kinds import is_undo, kind_of, rule_of
from actions.plan import digest
from actions.policy import ActionPolicy
from fleet.approval import Approval, Step
from fleet.errors import MoveRefused
from fleet.move import Move, Plan

NOT_BEFORE = ("proposed", "notified")  # states in which an answer is still awaited
_NOBODY = frozenset({"", "unnamed", "gpu-steward"})  # the house itself, and who gives no name, are no persons


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a proposal has come.

    `state` is proposed, notified, approved, refused, expired or made. `approvers` are those who agreed and count;
    `persons` is how many are needed. `claimed` are the names that agreed and that nobody proved: whoever has the shared
    token can claim several, so where two persons are needed none of them counts.
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
    claimed: tuple[str, ...] = ()

    def agreed(self, persons: int) -> tuple[str, ...]:
        """Return who agreed and counts where so many persons are needed."""
        if persons == 1:
            return self.approvers
        # who proposed it may be the one who agrees, but neither of two
        others = (each for each in self.approvers if not _is_same(each, self.proposed_by))
        return tuple(each for each in others if each not in self.claimed)


def content_digest(move: Move) -> str:
    """Return a name for what is done to what, from what; the version and the words of evidence are left out.

    An approval binds to this: the same move planned again a minute later is covered, one with another target, other
    GPUs, another value or another state before is not, nor is one of an object that was deleted and made anew.
    """
    before = move.evidence.get("before")
    wanted = dict(fields_after(move))
    known = {name: before.get(name) for name in wanted} if isinstance(before, Mapping) else {}
    identity = [move.evidence["uid"]] if move.evidence.get("uid") else []
    return digest(
        "content", move.kind.value, move.cluster, str(move.target), move.cause, sorted(move.gpu_uuids),
        dict(move.arguments), rule_of(move), move.workspace, known, *identity,
    )  # fmt: skip


def person_of(name: str) -> str:
    """Return one spelling of a person's name, "" where it names nobody: "Ann" and " ann" are the same person."""
    spelled = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    return "" if spelled in _NOBODY else spelled


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
    if is_undo(move):
        return False
    mode = policy.modes.of(rule_of(move))
    is_silent = mode == "auto" and policy.approval.grace_of(rule_of(move)) <= 0
    return mode in {"propose", "auto"} and not (is_silent and persons_for(move, plan, policy.approval) == 1)


@dataclass(frozen=True, slots=True)
class Answers:
    """Everything that was asked and answered, by content, and what was made since: data, asked at any moment."""

    rounds: Mapping[str, tuple[Approval, ...]]
    made_at: Mapping[str, datetime]
    drains: tuple[Made, ...] = ()

    def standing(self, move: Move, now: datetime) -> Standing | None:
        """Return how far the proposal of a move has come; None where there was none."""
        return self._standing(content_digest(move), now)

    def standings(self, now: datetime) -> dict[str, Standing]:
        """Return by content how far each proposal has come."""
        found = ((content, self._standing(content, now)) for content in self.rounds)
        return {content: standing for content, standing in found if standing is not None}

    def is_needed(self, move: Move, plan: Plan, policy: ActionPolicy) -> bool:
        """Return whether a move is put before people first; a drain that goes on was asked about when it began."""
        return needs_answer(move, plan, policy) and not carries_on(move, self.drains)

    def why_waiting(self, move: Move, plan: Plan, policy: ActionPolicy, now: datetime) -> str | None:
        """Say why a move may not be made yet for want of an answer, or for a refusal; None where it may.

        `plan` is the whole plan that it is of: its size says how many persons must agree.
        """
        standing = self.standing(move, now)
        if is_undo(move) or not (_is_refused(standing, now, policy) or self.is_needed(move, plan, policy)):
            return None
        return why_waiting(move, plan, standing, policy, now)

    def _standing(self, content: str, now: datetime) -> Standing | None:
        rows = self.rounds.get(content)
        return None if rows is None else _standing(rows, now, self.made_at.get(content))


def answers_of(rows: Iterable[Approval], made: Sequence[Made] = ()) -> Answers:
    """Return the answers that stand in `rows`; a new proposal of the same content begins anew."""
    rounds: dict[str, list[Approval]] = {}
    for row in sorted(rows, key=_order):
        if row.step is Step.PROPOSED:
            rounds[row.content] = [row]
        elif row.content in rounds:
            rounds[row.content].append(row)
    certain = [each for each in made if each.is_certain]
    drains = tuple(each for each in made if each.move.kind in DRAINS)
    last = {content_digest(each.move): each.at for each in certain} if rounds else {}
    return Answers({content: tuple(found) for content, found in rounds.items()}, last, drains)


def standings(rows: Iterable[Approval], now: datetime, made: Sequence[Made] = ()) -> dict[str, Standing]:
    """Return by content how far each proposal has come."""
    return answers_of(rows, made).standings(now)


def is_open(standing: Standing | None, now: datetime, policy: ApprovalPolicy) -> bool:
    """Return whether a proposal stands, so that it need not be made again; a refusal stands for a while, too."""
    if standing is None or standing.state in {"expired", "made"}:
        return False
    if standing.state == "refused" and standing.answer is not None:
        return now - standing.answer.ts < timedelta(hours=policy.refused_h)
    return True


def why_waiting(move: Move, plan: Plan, standing: Standing | None, policy: ActionPolicy, now: datetime) -> str | None:
    """Say what a move still waits for before the turn may make it, or None where it may be made."""
    if not (_is_refused(standing, now, policy) or needs_answer(move, plan, policy)):
        return None
    if standing is None or not is_open(standing, now, policy.approval):
        return "it was not put before anybody yet"
    persons = max(standing.persons, persons_for(move, plan, policy.approval))
    if standing.state == "refused":
        answer = standing.answer
        return (
            f"{answer.who if answer else 'somebody'} refused it: {(answer.note if answer else '') or 'no reason given'}"
        )
    agreed = standing.agreed(persons)
    if len(agreed) >= persons:
        return None
    if policy.modes.of(rule_of(move)) == "auto" and persons == 1:
        return _why_in_grace(standing, policy.approval.grace_of(rule_of(move)), now)
    return (
        f"{len(agreed)} of {persons} persons agreed" + (f" ({', '.join(agreed)})" if agreed else "") + _doubt(standing)
    )


def why_unproven(persons: int) -> str:
    """Say why a name that is only claimed does not count."""
    return (
        f"{persons} persons must agree, each by a token of their own ([serve] people_file): "
        "with the shared token, or without one, anybody can claim any name"
    )


def check_answer(standing: Standing, who: str, step: Step, now: datetime, *, is_proven: bool) -> None:
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
    if not person_of(who):
        message = f"who: {who!r} is nobody's name; an approval is a person's"
        raise MoveRefused(message)
    if standing.persons > 1 and not is_proven:
        message = f"the approval of move {standing.move_id} by {who} does not count: {why_unproven(standing.persons)}"
        raise MoveRefused(message)
    if any(_is_same(who, name) for name in standing.agreed(standing.persons)):
        message = f"{who} approved move {standing.move_id} already; the other approval must be another person's"
        raise MoveRefused(message)
    if standing.persons > 1 and _is_same(who, standing.proposed_by):
        message = f"{who} made the plan of move {standing.move_id}; two other persons must approve it"
        raise MoveRefused(message)


def _is_refused(standing: Standing | None, now: datetime, policy: ActionPolicy) -> bool:
    return standing is not None and standing.state == "refused" and is_open(standing, now, policy.approval)


def _doubt(standing: Standing) -> str:
    if not standing.claimed:
        return ""
    return f"; nobody proved to be {', '.join(standing.claimed)}, which takes a token of their own"


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
    answers = [row for row in in_time if row.step is Step.APPROVED and person_of(row.who)]
    names: dict[str, str] = {}
    for row in sorted(answers, key=lambda row: not row.is_proven):
        names.setdefault(person_of(row.who), row.who)
    proven = {person_of(row.who) for row in answers if row.is_proven}
    claimed = tuple(name for person, name in names.items() if person not in proven)
    approvers = tuple(
        name for person, name in names.items() if persons == 1 or (person in proven and person != person_of(first.who))
    )
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
        answer = answers[-1]
    return Standing(
        state, first.content, first.move_id, first.plan_id, first.ts, first.who, expires_at, persons, approvers,
        answer, told, claimed,
    )  # fmt: skip


def _is_same(one: str, other: str) -> bool:
    return person_of(one) == person_of(other)


def _order(row: Approval) -> tuple[datetime, int]:
    return (row.ts, list(Step).index(row.step))
