"""Act: make a plan's moves one by one, each looked at again before and after, each recorded before and after."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from actions.budget import Made, Spending
from actions.emptying import carries_on, is_carried_on
from actions.fields import fields_of, is_done, version_of
from actions.guard import guard, why_stopped
from actions.index import FleetIndex, index_of
from actions.kinds import group_of, is_undo, rule_of
from actions.policy import ActionPolicy
from actions.port import Cluster
from actions.undo import invert
from fleet.clock import Clock
from fleet.errors import ActionError, MoveRefused, SourceFailed
from fleet.move import Move, MoveKind, Outcome, Plan, Stage

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
    approved: frozenset[str] = frozenset(),
    recent: Sequence[Made] = (),
) -> list[Outcome]:
    """Make the moves of `plan` in `cluster` and return what was recorded, in order.

    Dry by default: then each move is guarded and rehearsed and nothing is changed. Moves of a rule in mode
    "propose" need their id, or their plan's, in `approved`. `recent` is what was made before, this plan included
    (`actions.budget.made_of`): what stands there is not made again. A move that fails stops only the moves that
    belong to it (the other quotas of its pool). Errors of `record` are not caught: nothing is made without a record.
    """
    run = _Run(cluster, policy, clock, record, actor, kill_switch, is_dry_run, tuple(recent))
    run.approved = approved | {move.move_id for move in plan.moves if plan.plan_id in approved}
    for group in groups_of(plan.moves):
        run.do(group)
    return run.outcomes


def groups_of(moves: Sequence[Move]) -> list[tuple[Move, ...]]:
    """Return moves in groups that are made whole or not at all: the quotas of one pool, every other move alone."""
    groups: dict[tuple[str, ...], list[Move]] = {}
    for move in moves:
        groups.setdefault(group_of(move), []).append(move)
    return [tuple(group) for group in groups.values()]


@dataclass(slots=True)
class _Run:
    cluster: Cluster
    policy: ActionPolicy
    clock: Clock
    record: Record
    actor: str
    kill_switch: Stop
    is_dry_run: bool
    recent: tuple[Made, ...]
    approved: frozenset[str] = frozenset()
    turn: list[Move] = field(default_factory=list)
    unanswered: list[Move] = field(default_factory=list)  # they may have been made: they count as spent
    outcomes: list[Outcome] = field(default_factory=list)
    # our own moves change a target's version (two GPUs of one node): planned version -> version we left
    versions: dict[tuple[str, ...], str] = field(default_factory=dict)
    index: FleetIndex | None = None  # of the last look: the next one differs in little

    def do(self, group: tuple[Move, ...]) -> None:
        """Guard and rehearse the whole group, then make it."""
        waiting = [move for move in group if not self._is_standing(move)]
        checked: list[Move] = []
        for move in waiting:
            current = self._at_our_version(move)
            try:
                checked.append(self._check(current, checked))
            except (ActionError, SourceFailed) as error:
                self._say(move, Stage.REFUSED, str(error))
                for other in waiting:
                    if other is not move:
                        self._say(other, Stage.REFUSED, f"belongs to {move.target}, which was refused")
                return
        if self.is_dry_run:
            for move in checked:
                self._say(move, Stage.APPLIED, "dry run: it would be made")
            self.turn.extend(checked)
        else:
            self._make_all(checked)

    def _check(self, move: Move, checked: Sequence[Move]) -> Move:
        """Guard and rehearse a move; return it bound to the version of its target that was looked at."""
        mode = self.policy.modes.of(rule_of(move))
        needs_approval = mode == "propose" and "undo_of" not in move.evidence and not self.is_dry_run
        if needs_approval and move.move_id not in self.approved and not carries_on(move, self.recent):
            message = f"rule {rule_of(move)} only proposes, and nobody approved this move"
            raise MoveRefused(message)
        if is_carried_on(move) and not self.is_dry_run and not carries_on(move, self.recent):
            message = f"the drain of {move.target} that it goes on with does not stand by our record"
            raise MoveRefused(message)
        index = self._look(move)
        spending = Spending(self.recent, (*self.turn, *self.unanswered, *checked))
        stopped, now = self.kill_switch() or False, self.clock.now()
        guard(move, index.state, self.policy, now, spending, is_stopped=stopped, index=index)
        self.cluster.rehearse(move)
        return _at_version_of(move, index)

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
            for other in group[place + 1 :]:
                self._say(other, Stage.REFUSED, f"belongs to {move.target}, which was not made")
            # where it may have been made after all, its partners stay: a pool must not promise more than it has;
            # and while the kill switch is on nothing is written, not even back
            for before, its_prior in reversed(made) if is_over and not self.kill_switch() else ():
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
        self._say(move, Stage.APPLIED, "made and seen", prior)
        undone = move.evidence.get("undo_of")
        if isinstance(undone, str):
            self._record(Outcome(undone, self.clock.now(), Stage.UNDONE, is_dry_run=False, actor=self.actor))
        self._remember_version(move, index)
        return True

    def _take_back(self, move: Move, prior: str, because: Move) -> None:
        detail = f"taken back: {because.target} was not made"
        try:
            inverse = invert(move, prior)
            index = self._look(move)
            guard(inverse, index.state, self.policy, self.clock.now(), index=index)
            self.cluster.make(_at_version_of(inverse, index))
        except (ActionError, SourceFailed) as error:
            self._say(move, Stage.FAILED, f"could not be taken back after {because.target} was not made: {error}")
            return
        self._record(
            Outcome(move.move_id, self.clock.now(), Stage.UNDONE, is_dry_run=False, actor=self.actor, detail=detail)
        )

    def _is_standing(self, move: Move) -> bool:
        wanted = str(move.evidence.get("undo_of", move.move_id))
        known = next((made for made in reversed(self.recent) if made.move.move_id == wanted), None)
        goes_on = move.kind is MoveKind.DRAIN_NODE and not is_undo(move)  # its guard tells whether pods are left
        if known is None or goes_on or not known.is_certain or known.is_undone != ("undo_of" in move.evidence):
            return False
        self._say(move, Stage.REFUSED, "skipped: already " + ("taken back" if known.is_undone else "applied"))
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
        self.record(outcome)
        self.outcomes.append(outcome)


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
