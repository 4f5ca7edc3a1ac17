"""What chaos keeps of its people: what they were asked and answered, and the record that outlives the process."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

from actions.approval import answers_of, content_digest, is_open, persons_for
from actions.budget import Made, made_of
from actions.policy import ActionPolicy
from fleet.approval import Approval, Step
from fleet.errors import StoreFull
from fleet.move import Move, Outcome, Plan
from simulator.faulty import Died

ACTOR = "gpu-steward"
_PEOPLE = ("ann", "bob", "cid", " ANN", "gpu-steward", "unnamed")  # of whom ann comes twice, and two are nobody


@dataclass
class Journal:
    """What the store would hold: only this outlives the process."""

    rng: Random
    dies: float
    is_full: float
    plans: dict[str, Plan] = field(default_factory=dict)
    moves: dict[str, Move] = field(default_factory=dict)
    plan_of: dict[str, Plan] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)

    def happens(self, odds: float) -> bool:
        """Throw the dice."""
        return self.rng.random() < odds

    def keep(self, made: Plan) -> None:
        """Record a plan."""
        if made.plan_id not in self.plans:
            self.plans[made.plan_id] = made
            for move in made.moves:
                self.moves.setdefault(move.move_id, move)
                self.plan_of.setdefault(move.move_id, made)

    def record(self, outcome: Outcome) -> None:
        """Record an outcome; the disk may be full, and the process may die just before or just after."""
        if self.happens(self.is_full):
            message = "no room left"
            raise StoreFull(message)
        if self.happens(self.dies):
            raise Died
        self.outcomes.append(outcome)
        if self.happens(self.dies):
            raise Died

    def recent(self) -> tuple[Made, ...]:
        """Return what was made."""
        return made_of(self.moves.values(), self.outcomes)


def ask(journal: Journal, made: Plan, policy: ActionPolicy, now: datetime) -> None:
    """Put a plan's moves before people, and tell of them, as a turn does."""
    answers = answers_of(journal.approvals, journal.recent())
    for move in made.moves:
        if not answers.is_needed(move, made, policy) or is_open(answers.standing(move, now), now, policy.approval):
            continue
        asked = Approval(content_digest(move), move.move_id, made.plan_id, now, Step.PROPOSED, ACTOR)
        until, persons = now + timedelta(hours=policy.approval.expires_h), persons_for(move, made, policy.approval)
        journal.approvals.append(replace(asked, expires_at=until, person_count=persons))
        if journal.happens(0.8):
            journal.approvals.append(replace(asked, step=Step.NOTIFIED, who="log"))


def answer(journal: Journal, now: datetime, counts: Counter[str]) -> None:
    """Let people approve and refuse what was put before them, late answers and second thoughts included."""
    asked = [row for row in journal.approvals if row.step is Step.PROPOSED and now - row.ts < timedelta(hours=6)]
    for row in asked:
        if journal.happens(0.4):
            step = Step.REFUSED if journal.happens(0.15) else Step.APPROVED
            who = journal.rng.choice(_PEOPLE)
            proven = int(journal.happens(0.8))  # the others only claim to be who they say
            plain = replace(row, step=step, who=who, ts=now, expires_at=None, person_count=proven)
            journal.approvals.append(plain)
            counts[f"answers: {step.value}"] += 1
