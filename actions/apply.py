"""Act: make a plan's moves one by one, each looked at again before and after, each recorded before and after."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from actions.approval import Answers, answers_of
from actions.budget import Made, Spending, lately
from actions.emptying import carries_on, is_carried_on
from actions.fields import fields_of, is_done, version_of
from actions.guard import guard, why_stopped
from actions.index import FleetIndex, index_of
from actions.kinds import group_of, is_undo
from actions.policy import ActionPolicy
from actions.port import Cluster
from actions.undo import invert, why_not_its_undo
from fleet.approval import Approval
from fleet.clock import Clock
from fleet.errors import ActionError, BadInput, MoveRefused, SourceFailed
from fleet.move import Move, MoveKind, Outcome, Plan, Stage

SKIPPED = "skipped: already "  # how the reason begins why what is so already is not made again
Record = Callable[[Outcome], None]
Stop = Callable[[], bool | str | None]  # whether moves are stopped, or why; asked before each move


def apply(
    plan: Plan,
    cluster: Cluster,
    policy: ActionPolicy,
    clock: Clock,
    record: Record,
    *,
    actor: str,
    kill_switch: Stop,
    is_dry_run: bool = True,
    approvals: Iterable[Approval] = (),
    recent: Sequence[Made] = (),
    only: Collection[str] | None = None,
    began_at: datetime | None = None,
) -> list[Outcome]:
    """Make the moves of `plan` in `cluster` and return what was recorded, in order.

    Dry by default: then each move is guarded and rehearsed and nothing is changed. `approvals` is what was asked and
    answered: a move that still waits for an answer, a second person or the end of its grace is refused, and so is one
    that somebody refused. `recent` is everything that was made before, this plan included (`actions.budget.made_of`):
    what stands there is not made again, and only what stands there is taken back. `only` names the moves to make where
    not all are: `plan` is the whole plan all the same, for its size says who must agree. `began_at` is when the turn
    began: what it made before counts as this turn's. A move that fails stops only the moves that belong to it (the
    other quotas of its pool). Errors of `record` are not caught: nothing is made without a record.
    """
    run = _Run(
        plan, cluster, policy, clock, record, actor, kill_switch, is_dry_run, tuple(recent),
        answers_of(approvals, recent), began_at,
    )  # fmt: skip
    for group in groups_of(plan.moves):
        chosen = tuple(move for move in group if only is None or move.move_id in only)
        if len(chosen) == len(group):
            run.do(group)
        else:
            run.refuse(chosen, "it is made with others or not at all, and they were not chosen")
    return run.outcomes


def groups_of(moves: Sequence[Move]) -> list[tuple[Move, ...]]:
    """Return moves in groups that are made whole or not at all: the quotas of one pool, every other move alone."""
    groups: dict[tuple[str, ...], list[Move]] = {}
    for move in moves:
        groups.setdefault(group_of(move), []).append(move)
    return [tuple(group) for group in groups.values()]


@dataclass(slots=True)
class _Run:
    plan: Plan
    cluster: Cluster
    policy: ActionPolicy
    clock: Clock
    record: Record
    actor: str
    kill_switch: Stop
    is_dry_run: bool
    recent: tuple[Made, ...]
    answers: Answers
    began_at: datetime | None
    turn: list[Move] = field(default_factory=list)
    unanswered: list[Move] = field(default_factory=list)  # they may have been made: they count as spent
    outcomes: list[Outcome] = field(default_factory=list)
    # our own moves change a target's version (two GPUs of one node): planned version -> version we left
    versions: dict[tuple[str, ...], str] = field(default_factory=dict)
    index: FleetIndex | None = None  # of the last look: the next one differs in little
    known: dict[str, Made] = field(init=False)
    lately: tuple[Made, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.known = {made.move.move_id: made for made in self.recent}
        self.lately = lately(self.recent, self.policy, self.clock.now())

    def refuse(self, moves: Iterable[Move], reason: str) -> None:
        """Say of moves that they are not made."""
        for move in moves:
            self._say(move, Stage.REFUSED, reason)

    def do(self, group: tuple[Move, ...]) -> None:
        """Guard and rehearse the whole group, then make it."""
        waiting = [move for move in group if not self._is_standing(move)]
        checked: list[Move] = []
        for move in waiting:
            current = self._at_our_version(move)
            try:
                checked.append(self._check(current, checked))
            except (ActionError, SourceFailed, BadInput) as error:
                self._say(move, Stage.REFUSED, str(error))
                others = (other for other in waiting if other is not move)
                self.refuse(others, f"belongs to {move.target}, which was refused")
                return
        if self.is_dry_run:
            for move in checked:
                self._say(move, Stage.APPLIED, "dry run: it would be made")
            self.turn.extend(checked)
        else:
            self._make_all(checked)

    def _check(self, move: Move, checked: Sequence[Move]) -> Move:
        """Guard and rehearse a move; return it bound to the version of its target that was looked at."""
        self._require_leave(move)
        index = self._look(move)
        spending = Spending(self.lately, (*self.turn, *self.unanswered, *checked), self.began_at)
        stopped, now = self.kill_switch() or False, self.clock.now()
        guard(
            move, index.state, self.policy, now, spending, is_stopped=stopped, index=index, planned_at=self.plan.made_at
        )
        self.cluster.rehearse(move)
        return _at_version_of(move, index)

    def _require_leave(self, move: Move) -> None:
        """Return where people let a move be made, and where an undo is the undo of what was made and no other."""
        reason, stopped = None, self.kill_switch()
        if stopped:
            reason = why_stopped(stopped)
        elif is_undo(move):
            reason = why_not_its_undo(move, self.known.get(str(move.evidence["undo_of"])))
        elif not self.is_dry_run and is_carried_on(move) and not carries_on(move, self.recent):
            reason = f"the drain of {move.target} that it goes on with does not stand by our record"
        elif not self.is_dry_run:
            reason = self.answers.why_waiting(move, self.plan, self.policy, self.clock.now())
        if reason is not None:
            raise MoveRefused(reason)

    def _look(self, move: Move) -> FleetIndex:
        self.index = index_of(self.cluster.observe_for(move), self.index)
        return self.index

    def _make_all(self, group: Sequence[Move]) -> None:
        made: list[tuple[Move, str]] = []
        for place, move in enumerate(group):
            # of a move that is alone, the look that it was checked on still holds: it is made on that very version
            prior = self._make(move, self.index if len(group) == 1 else None)
            if prior is not None:
                made.append((move, prior))
                continue
            is_over = self._is_surely_not_made(move)
            self.refuse(group[place + 1 :], f"belongs to {move.target}, which was not made")
            # where it may have been made after all, its partners stay: a pool must not promise more than it has;
            # and while the kill switch is on nothing is written, not even back
            for before, its_prior in reversed(made) if is_over else ():
                if not self.kill_switch():
                    self._take_back(before, its_prior, move)
            return

    def _make(self, move: Move, seen: FleetIndex | None) -> str | None:
        """Make one move and return its prior fields, or None where it was not made or can't be seen."""
        stopped = self.kill_switch()
        if stopped:
            self._say(move, Stage.REFUSED, why_stopped(stopped))
            return None
        try:
            before = fields_of(move, self._look(move) if seen is None or not move.resource_version else seen)
        except SourceFailed as error:
            self._say(move, Stage.FAILED, f"the cluster can't be looked at: {error}")
            return None
        intended = json.dumps(before, sort_keys=True)
        self._say(move, Stage.INTENDED, move.reason, intended)
        try:
            prior = self.cluster.make(move)
        except ActionError as error:
            self._say(move, Stage.REFUSED, str(error))
            return None
        except SourceFailed as error:
            # no answer is no proof that nothing happened: the prior fields keep it among the unfinished
            self.unanswered.append(move)
            self._say(move, Stage.FAILED, f"no answer: {error}", intended)
            return None
        self.turn.append(move)
        return prior if self._verify(move, prior) else None

    def _is_surely_not_made(self, move: Move) -> bool:
        last = self.outcomes[-1]
        if last.stage is Stage.REFUSED:
            return True
        if move not in self.unanswered or last.prior is None:
            return False
        try:
            current = fields_of(move, self._look(move))
        except SourceFailed:
            return False
        return bool(current == json.loads(last.prior))

    def _verify(self, move: Move, prior: str) -> bool:
        try:
            index = self._look(move)
        except SourceFailed as error:
            self._say(move, Stage.FAILED, f"made, but the cluster can't be looked at: {error}", prior)
            return False
        if not is_done(move, index):
            self._say(move, Stage.FAILED, f"made, but the cluster shows {fields_of(move, index)}", prior)
            return False
        self._say(move, Stage.APPLIED, _seen(prior), prior)
        undone = move.evidence.get("undo_of")
        if isinstance(undone, str):
            self._say_undone(undone)
        self._remember_version(move, index)
        return True

    def _take_back(self, move: Move, prior: str, because: Move) -> None:
        # recorded first as anything else: who dies in the middle looks again at what stands
        self._say(move, Stage.FAILED, f"is taken back, for {because.target} was not made", prior)
        try:
            inverse = invert(move, prior)
            index = self._look(move)
            guard(inverse, index.state, self.policy, self.clock.now(), index=index)
            self.cluster.make(_at_version_of(inverse, index))
        except (ActionError, SourceFailed) as error:
            detail = f"could not be taken back after {because.target} was not made: {error}"
            self._say(move, Stage.FAILED, detail, prior)
            return
        self._say_undone(move.move_id, f"taken back: {because.target} was not made")

    def _say_undone(self, move_id: str, detail: str = "") -> None:
        self._record(
            Outcome(move_id, self.clock.now(), Stage.UNDONE, is_dry_run=False, actor=self.actor, detail=detail)
        )

    def _is_standing(self, move: Move) -> bool:
        known = self.known.get(str(move.evidence.get("undo_of", move.move_id)))
        goes_on = move.kind is MoveKind.DRAIN_NODE and not is_undo(move)  # its guard tells whether pods are left
        if known is None or goes_on or not known.is_certain or known.is_undone != ("undo_of" in move.evidence):
            return False
        if not known.is_undone and not self._is_still_so(move):
            return False  # others have set it back, and it is called for once more: its guard tells whether it fits
        self._say(move, Stage.REFUSED, SKIPPED + ("taken back" if known.is_undone else "applied"))
        return True

    def _is_still_so(self, move: Move) -> bool:
        try:
            return is_done(move, self._look(move))
        except SourceFailed:
            return True

    def _at_our_version(self, move: Move) -> Move:
        return replace(move, resource_version=self.versions.get(_version_key(move), move.resource_version))

    def _remember_version(self, move: Move, index: FleetIndex) -> None:
        left = version_of(move, index)
        if left is None:
            return
        self.versions[_version_key(move)] = left
        for key, version in self.versions.items():
            if key[:-1] == _version_key(move)[:-1] and version == move.resource_version:
                self.versions[key] = left

    def _say(self, move: Move, stage: Stage, detail: str, prior: str | None = None) -> None:
        self._record(Outcome(move.move_id, self.clock.now(), stage, self.is_dry_run, self.actor, detail, prior))

    def _record(self, outcome: Outcome) -> None:
        known = self.known.get(outcome.move_id)
        if known is not None and outcome.ts < known.at and not outcome.is_dry_run:
            outcome = replace(outcome, ts=known.at)  # a clock that was set back must not turn the story round
        self.record(outcome)
        self.outcomes.append(outcome)


def _seen(prior: str) -> str:
    """Say that a move was made and seen, and what its cluster has seen beside that."""
    told = json.loads(prior).get("seen")
    return "made and seen" if told is None else f"made and seen: {told}"


def _at_version_of(move: Move, index: FleetIndex) -> Move:
    """Return a move that was planned without a version bound to the one just seen: nobody may come in between."""
    if move.resource_version:
        return move
    return replace(move, resource_version=version_of(move, index) or "")


def _version_key(move: Move) -> tuple[str, ...]:
    part = (
        (str(move.arguments.get("pool")), str(move.arguments.get("model"))) if move.kind is MoveKind.SET_QUOTA else ()
    )
    return (move.cluster, str(move.target), *part, move.resource_version)
