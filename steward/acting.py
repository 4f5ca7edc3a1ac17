"""Step 6 of the turn: put moves before people, tell owners, make what may be made, rehearse the rest."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl

from actions.apply import groups_of
from actions.approval import (
    NOT_BEFORE,
    Answers,
    Standing,
    answers_of,
    content_digest,
    is_open,
    person_of,
    persons_for,
    why_waiting,
)
from actions.kinds import is_undo, rule_of
from actions.resume import left_over
from actions.rows import approval_frame, outcomes_from, plan_frames, plan_from
from fleet.approval import Approval, Step
from fleet.batch import Batch, Trouble
from fleet.move import Move, Outcome, Plan
from steward.carry import ACTOR, carry_out, reaches, read_approvals, recent_moves, why_not_led
from steward.compose import House
from steward.notify import News
from steward.overseer import why_stopped

_RESUMED_WITHIN = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan's moves that may be made now, and why each of the others waits."""

    moves: tuple[Move, ...]
    waiting: dict[str, str]


def act(house: House, plans: Sequence[Plan], now: datetime) -> list[Outcome]:
    """Carry each plan as far as it may go now and return what was recorded.

    Where another steward leads, nothing is done at all, and why is recorded. Otherwise moves that need an answer are
    proposed once, their owners told, and what is approved, or due without a refusal, is made; the rest is rehearsed.
    """
    led = [made for made in plans if _is_led(house, made, now)]
    for made in led:
        propose(house, made, ACTOR, now)
    tell(house, led, now)
    outcomes: list[Outcome] = []
    for made in led:
        ready = {move.move_id for move in ready_of(house, made, now).moves}
        rest = {move.move_id for move in made.moves} - ready
        if ready:
            outcomes += carry_out(house, made, is_dry_run=False, only=ready, began_at=now)
        if rest:
            outcomes += carry_out(house, made, is_dry_run=True, only=rest, began_at=now)
    return outcomes


def resume_unfinished(house: House, now: datetime) -> list[Outcome]:
    """Go on with approved moves of a plan that a restart cut short, and back out of groups that were half made."""
    if any(why_stopped(house.overseers.get(each.name), house.store.path, now) for each in house.clusters):
        return []
    real = house.store.read("outcome").filter(~pl.col("is_dry_run"), pl.col("ts") > now - _RESUMED_WITHIN)
    moves, plans = house.store.read("move"), house.store.read("plan")
    begun = moves.join(real, on="move_id", how="semi").get_column("plan_id").unique().sort()
    known = [plan_from(plans, moves, plan_id) for plan_id in begun]
    left = left_over(known, outcomes_from(real), standings_of(house, now), now)
    outcomes: list[Outcome] = []
    for made in (left.back, *left.forth):
        if made.moves and _is_led(house, made, now):
            for table, frame in plan_frames(made).items() if made is left.back else ():
                house.store.append_stored(table, frame)
            outcomes += carry_out(house, made, is_dry_run=False, began_at=now)
    return outcomes


def propose(house: House, made: Plan, who: str, now: datetime, *, of: Collection[str] = ()) -> None:
    """Record a proposal for each move that needs an answer and has none open; one that ran out is recorded, too.

    `of` names the moves to propose whether they need an answer or not, and no others.
    """
    policy = house.settings.actions
    answers, rows = read_answers(house), list[Approval]()
    for move in made.moves:
        if not (move.move_id in of if of else answers.is_needed(move, made, policy)):
            continue
        standing = answers.standing(move, now)
        if is_open(standing, now, policy.approval):
            continue
        if standing is not None and standing.state == "expired":
            ended = _row(move, made.plan_id, standing.expires_at, Step.EXPIRED)
            rows.append(replace(ended, move_id=standing.move_id, plan_id=standing.plan_id))
        expires_at = now + timedelta(hours=policy.approval.expires_h)
        persons = persons_for(move, made, policy.approval)
        proposal = _row(move, made.plan_id, now, Step.PROPOSED)
        rows.append(replace(proposal, who=who, note=move.reason, expires_at=expires_at, person_count=persons))
    keep(house, rows)


@dataclass(frozen=True, slots=True)
class Voice:
    """Who answers, and whether a token of their own proved it."""

    who: str
    is_proven: bool = False

    def row(self, plain: Approval) -> Approval:
        """Return an answer as theirs."""
        return replace(plain, who=self.who, person_count=int(self.is_proven))

    def counts(self, standing: Standing) -> bool:
        """Return whether it adds to those who agreed."""
        ours = person_of(self.who)
        if not ours or standing.state not in NOT_BEFORE or ours in map(person_of, standing.agreed(standing.persons)):
            return False
        return standing.persons == 1 or (self.is_proven and ours != person_of(standing.proposed_by))


def approve_by(house: House, made: Plan, moves: Sequence[Move], voice: Voice, now: datetime) -> None:
    """Record that somebody agrees to these moves of a plan by ordering them, wherever they may and have not yet."""
    chosen = [move for move in moves if not is_undo(move)]
    if not chosen:
        return
    propose(house, made, voice.who, now, of={move.move_id for move in chosen})
    answers, rows = read_answers(house), list[Approval]()
    for move in chosen:
        standing = answers.standing(move, now)
        if standing is not None and voice.counts(standing):
            agreed = _row(move, made.plan_id, max(now, standing.proposed_at), Step.APPROVED)
            rows.append(voice.row(replace(agreed, note="by applying the plan")))
    keep(house, rows)


def tell(house: House, plans: Iterable[Plan], now: datetime) -> None:
    """Hand open proposals to the channels that did not carry them yet, and record what got through since."""
    policy, known = house.settings.actions, standings_of(house, now)
    told = {(row.content, row.who, row.ts) for row in read_approvals(house) if row.step is Step.NOTIFIED}
    for channel in house.outbox.names():
        news = []
        for made in plans:
            for move in made.moves:
                standing = known.get(content_digest(move))
                if standing is None or standing.state not in {"proposed", "notified"}:
                    continue
                if not any(
                    (content, who) == (standing.content, channel) and ts >= standing.proposed_at
                    for content, who, ts in told
                ):
                    told_now = standing if standing.notified_at else replace(standing, notified_at=now)
                    outlook = why_waiting(move, made, told_now, policy, now) or "it is made now"
                    news.append(News(standing.content, made.plan_id, move, outlook))
        house.outbox.send(channel, news)
    record_told(house, now)


def record_told(house: House, now: datetime) -> None:
    """Record which news got through, and which did not and why."""
    rows, troubles = list[Approval](), list[Trouble]()
    for each in house.outbox.collect():
        if each.error is not None:
            troubles.append(Trouble("failed", f"notify {each.channel}", each.error, len(each.news)))
            continue
        if each.gap is not None:
            troubles.append(Trouble("noticed", f"notify {each.channel}", each.gap, len(each.news)))
        moment = max(now, house.clock.now())
        rows += [replace(_row(news.move, news.plan_id, moment, Step.NOTIFIED), who=each.channel) for news in each.news]
    keep(house, rows)
    if troubles:
        house.store.append(Batch("notify", troubles=tuple(troubles)))


def ready_of(house: House, made: Plan, now: datetime) -> Ready:
    """Return the moves of a plan that may be made now; of a group that is made whole, all or none."""
    policy, answers = house.settings.actions, read_answers(house)

    def why(move: Move) -> str | None:
        is_silent = policy.modes.of(rule_of(move)) in {"off", "observe"}
        reason = answers.why_waiting(move, made, policy, now)
        return reason or (f"rule {rule_of(move)} does not act" if is_silent else None)

    waiting = waiting_of(made.moves, why)
    ready = (move for group in groups_of(made.moves) for move in group if move.move_id not in waiting)
    return Ready(tuple(ready), waiting)


def waiting_of(moves: Sequence[Move], why: Callable[[Move], str | None]) -> dict[str, str]:
    """Return by move id why moves wait; where one of a group that is made whole waits, all of it does."""
    waiting: dict[str, str] = {}
    for group in groups_of(moves):
        reasons = {move.move_id: reason for move in group if (reason := why(move)) is not None}
        for move in group if reasons else ():
            waiting[move.move_id] = reasons.get(move.move_id, "it is made with others that still wait")
    return waiting


def standings_of(house: House, now: datetime) -> dict[str, Standing]:
    """Return by content how far each proposal has come."""
    return read_answers(house).standings(now)


def read_answers(house: House) -> Answers:
    """Return everything that was asked and answered, and what was made since."""
    return answers_of(read_approvals(house), recent_moves(house))


def keep(house: House, rows: Sequence[Approval]) -> None:
    """Record answers."""
    if rows:
        house.store.append_stored("approval", approval_frame(rows))


def _row(move: Move, plan_id: str, ts: datetime, step: Step) -> Approval:
    return Approval(content_digest(move), move.move_id, plan_id, ts, step, ACTOR)


def _is_led(house: House, made: Plan, now: datetime) -> bool:
    concerned = [each for each in house.clusters if any(reaches(house, each, move) for move in made.moves)]
    reasons = [(each.name, why_not_led(house, each, now)) for each in concerned]
    for name, reason in reasons:
        if reason is not None:
            note_once(house, f"leader {name}", reason)
    return all(reason is None for _, reason in reasons)


def note_once(house: House, source: str, reason: str) -> None:
    """Record why nothing is done, unless that is what was recorded last."""
    rows = house.store.read("source_failure")
    last = rows.filter(pl.col("source") == source).sort("ts").get_column("reason")
    if last.is_empty() or last[-1] != reason:
        house.store.append(Batch(source, troubles=(Trouble("noticed", source, reason),)))
