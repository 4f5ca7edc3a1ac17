"""Turns of plan and apply over a simulated fleet, restarted as often as asked, with everything that was made of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from actions.apply import apply
from actions.budget import Made, made_of
from actions.kinds import RULES
from actions.plan import plan
from actions.policy import ActionPolicy, Modes
from fleet.clock import FixedClock
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, Outcome, Plan, Stage
from fleet.state import FleetState
from fleet.verdict import Verdict
from simulator.cluster import SimulatorCluster
from simulator.spec import FleetSpec
from simulator.step import advance, build
from simulator.world import World
from tests.actions.fakes import UNASKED, WIDE

ALL_AUTO = ActionPolicy(modes=Modes(**dict.fromkeys(RULES, "auto")), budget=WIDE, approval=UNASKED)
"""Every rule acts, and neither a budget nor a question stands in its way."""
Judge = Callable[[World], Sequence[Verdict]]


@dataclass(slots=True)
class Loop:
    """A simulated fleet under the rules. `judge` says what is found of it at each turn."""

    spec: FleetSpec
    judge: Judge
    policy: ActionPolicy
    every: timedelta = timedelta(minutes=10)
    world: World = field(init=False)
    seen: FleetState = field(init=False)
    moves: list[Move] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    by_others: list[tuple[int, Move]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = build(self.spec)
        self.seen = self.state

    @property
    def cluster(self) -> SimulatorCluster:
        return SimulatorCluster(self.world)

    @property
    def state(self) -> FleetState:
        return self.cluster.observe()

    @property
    def made(self) -> tuple[Made, ...]:
        return made_of(self.moves, self.outcomes)

    def begin(self, after: timedelta) -> None:
        advance(self.world, self.world.now + after)

    def meddle(self, move: Move) -> None:
        """Let somebody else make a move, of which we have no record."""
        self.by_others.append((self.world.now_s, move))
        self.cluster.make(move)

    def turn(self) -> list[Move]:
        """Let a while pass, plan and act; return what was made."""
        advance(self.world, self.world.now + self.every)
        now = self.world.now
        self.seen = self.state
        made = plan(self.seen, self.judge(self.world), self.policy, now, recent=self.made)
        self.plans.append(made)
        self.moves.extend(made.moves)
        outcomes = apply(
            made, self.cluster, self.policy, FixedClock(now), self.outcomes.append,
            actor="test", kill_switch=lambda: False, is_dry_run=False, recent=self.made,
        )  # fmt: skip
        applied = {each.move_id for each in outcomes if each.stage is Stage.APPLIED}
        return [move for move in made.moves if move.move_id in applied]

    def turns(self, count: int, *, restarts: bool = False) -> list[list[Move]]:
        """Turn so often; with `restarts`, from nothing but the record before each turn."""
        found = []
        for _ in range(count):
            if restarts:
                self.restart()
            found.append(self.turn())
        return found

    def restart(self) -> None:
        """Forget the fleet and live it again, from its beginning and what is recorded of it."""
        now = self.world.now
        by_id = {move.move_id: move for move in self.moves}
        ours = [(each.ts, by_id[each.move_id]) for each in self.outcomes if each.stage is Stage.APPLIED]
        theirs = [(self.world.moment(at_s), move) for at_s, move in self.by_others]
        self.world = build(self.spec)
        for at, move in sorted([*ours, *theirs], key=lambda each: each[0]):
            advance(self.world, max(at, self.world.now))
            try:
                self.cluster.make(replace(move, resource_version=""))
            except (MoveRefused, StaleState) as error:
                message = f"what was made can't be made again: {error}"
                raise AssertionError(message) from error
        advance(self.world, now)

    def held(self) -> list[str]:
        return [f"{each.subject}: {each.reason}" for each in self.plans[-1].held_back]


def kinds(turns: Sequence[Sequence[Move]]) -> list[str]:
    """Return the kinds of what was made, in order."""
    return [move.kind.value for made in turns for move in made]
