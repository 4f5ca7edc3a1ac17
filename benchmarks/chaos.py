"""Let the action engine work in a fleet where everything goes wrong, and check after each write that it did no harm.

Each seed is one fleet of 96 simulated GPUs over 24 turns: two clusters that name nodes and workloads alike. Verdicts
are drawn at random, some name no cluster; reads fail or are stale, rehearsals and writes are refused, conflict, break
off or lose their answer; the disk is full; the acting process dies before or after any write or record and starts again
from what it recorded; its clock jumps by seconds, also back. A stranger changes things at any moment, deletes workloads
and makes others of the same name. People approve, refuse, change their minds or let time run out; some spell their name
in two ways. The brake is pulled and the lead is lost in the middle of plans, moves are taken back at random, some seeds
know hours in which nothing may move. Then the faults end, the fleet stands still, and the engine must come to rest.

    python -m benchmarks.chaos [--seeds 1000] [--first 0]
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from actions.apply import apply
from actions.approval import answers_of
from actions.approval_policy import ApprovalPolicy, Graces
from actions.kinds import RULES
from actions.places import without_doubtful
from actions.plan import plan
from actions.policy import ActionPolicy, Budget, FencePolicy, Modes
from actions.restart import settle
from actions.resume import left_over
from actions.undo import undo_plan
from actions.windows import Window
from benchmarks.chaos_people import ACTOR, Journal, answer, ask
from benchmarks.chaos_watch import FREEZE, FROZEN, Door, Harm, Watch, must, waves
from benchmarks.chaos_world import PLACES, Scene, disturb, meddle, scene, verdicts
from fleet.errors import SourceFailed, StewardError, StoreFull
from fleet.move import Move, Outcome, Plan, Stage
from simulator.faulty import QUIET, Died, FaultyCluster, Odds

__all__ = ["Harm", "play"]
TURNS, REST_TURNS, QUIET_TURNS = 24, 60, 4
_HOUR = timedelta(hours=1)
_NEVER_H = 24 * 365.0
_MODES = ("auto", "auto", "propose")


@dataclass
class Jumping:
    """The clock of the acting process: near the true one, and set forth and back."""

    scene: Scene
    off_by: timedelta = timedelta()

    def now(self) -> datetime:
        """Return what it shows."""
        return self.scene.clock.now() + self.off_by


@dataclass
class Run:
    """One fleet under chaos."""

    scene: Scene
    policy: ActionPolicy
    journal: Journal
    watch: Watch
    clock: Jumping
    counts: Counter[str]
    doors: dict[str, FaultyCluster] = field(default_factory=dict)
    is_quiet: bool = False

    def step(self) -> int:
        """Turn once as the house does; return how many moves were truly made."""
        before = len(self.watch.written)
        self.watch.turn += 1
        try:
            self._turn()
        except Died:
            self.counts["deaths of the process"] += 1
        except SourceFailed:
            self.counts["turns without sight"] += 1
        except StoreFull:
            self.counts["turns with a full disk"] += 1
        return len(self.watch.written) - before

    def _turn(self) -> None:
        journal, began_at = self.journal, self.clock.now()
        for door in self.doors.values():
            settle(tuple(journal.moves.values()), journal.outcomes, door, self.clock, journal.record, actor=ACTOR)
        self._go_on(began_at)
        found = verdicts(self.scene)
        self.watch.tripped = waves(found, self.scene.state(), self.policy)
        states = {name: door.observe() for name, door in self.doors.items()}
        known, held = without_doubtful(found, states)
        self.counts["verdicts that might mean either cluster"] += len(held)
        for state in states.values():
            made = plan(state, known, self.policy, self.clock.now(), recent=journal.recent(), held_back=held)
            self.counts["plans"] += 1
            self.counts["moves planned"] += len(made.moves)
            journal.keep(made)
            ask(journal, made, self.policy, self.clock.now())
            self._apply(made, began_at)
        if not self.is_quiet and self.scene.happens(0.3):
            self._undo_one(began_at)
        answer(journal, self.clock.now(), self.counts)

    def _go_on(self, began_at: datetime) -> None:
        """After a death: go on with what is approved, back out of groups that were half made."""
        journal, now = self.journal, self.clock.now()
        known = answers_of(journal.approvals, journal.recent()).standings(now)
        lately = [each for each in journal.plans.values() if now - each.made_at < timedelta(hours=6)]
        left = left_over(lately, journal.outcomes, known, now)
        for each in (left.back, *left.forth):
            if each.moves:
                self.counts["moves gone on with or backed out"] += len(each.moves)
                journal.keep(each)
                self._apply(each, began_at)

    def _undo_one(self, began_at: datetime) -> None:
        journal = self.journal
        standing = [each.move for each in journal.recent() if not each.is_undone and each.is_certain]
        if standing:
            back = undo_plan([self.scene.rng.choice(standing)], journal.outcomes, self.clock.now())
            journal.keep(back)
            self.counts["undos asked for"] += len(back.moves)
            self._apply(back, began_at)

    def _apply(self, made: Plan, began_at: datetime) -> None:
        for name, door in self.doors.items():
            mine = {move.move_id for move in made.moves if move.cluster == name}
            if not mine:
                continue
            outcomes = apply(
                made, door, self.policy, self.clock, self._record, actor=ACTOR, is_dry_run=False, only=mine,
                kill_switch=self.watch.why_stopped, recent=self.journal.recent(), approvals=self.journal.approvals,
                began_at=began_at,
            )  # fmt: skip
            for outcome in outcomes:
                self.counts[f"outcomes: {outcome.stage.value}"] += 1

    def _record(self, outcome: Outcome) -> None:
        self.journal.record(outcome)
        if outcome.stage is Stage.APPLIED and not self.is_quiet and self.scene.happens(0.05):
            if self.scene.happens(0.5):
                self.watch.is_braked = True  # in the middle of a plan
                self.counts["brakes pulled"] += 1
            else:
                self.watch.is_led = False
                self.counts["leads lost"] += 1


def policy_of(stage: Scene) -> ActionPolicy:
    """Draw how far each rule may go, how much, when, and who must agree."""
    rng = stage.rng
    budget = Budget(max_gpus_per_hour=rng.choice((8, 16, 64)), max_nodes_per_turn=rng.choice((1, 2, 8)))
    names = sorted(set(stage.world.fabric.node_name))
    graces = Graces(**dict.fromkeys(RULES, 0.0) | {"reclaim": rng.choice((0.0, 900.0))})
    approval = ApprovalPolicy(
        expires_h=rng.choice((1.0, 4.0)), refused_h=4.0, two_persons_gpus=rng.choice((4.0, 64.0)),
        two_persons_nodes=rng.choice((1, 8)), grace_s=graces,
    )  # fmt: skip
    starts, ends = FREEZE
    freeze = Window("night", "never", starts=f"{starts:02}:00", ends=f"{ends:02}:00", rules=tuple(sorted(FROZEN)))
    return ActionPolicy(
        modes=Modes(**{rule: rng.choice(_MODES) for rule in RULES}), budget=budget, approval=approval,
        fence=FencePolicy(protected_nodes=tuple(rng.sample(names, 2))), windows=(freeze,) if stage.happens(0.4) else (),
    )  # fmt: skip


def play(seed: int, counts: Counter[str], odds: Odds | None = None, turns: int = TURNS) -> None:
    """Play one seed through; raises `Harm` where an invariant breaks."""
    stage = scene(seed)
    rng, clock = stage.rng, Jumping(stage)
    policy, journal = policy_of(stage), Journal(rng, 0.01, 0.002)
    watch = Watch(stage, policy, journal, clock, counts)

    def meanwhile(_move: Move) -> None:
        if stage.happens(0.1):
            stage.is_within_a_write = True
            meddle(stage)
            stage.is_within_a_write = False
            counts["changes by the stranger during a write"] += 1

    run = Run(stage, policy, journal, watch, clock, counts)
    run.doors = {name: FaultyCluster(Door(name, watch), rng, odds or Odds(), meanwhile) for name in PLACES}
    for _ in range(turns):
        stage.later(timedelta(minutes=rng.choice((5, 20, 60))))
        clock.off_by = timedelta(seconds=rng.choice((-20, -5, 0, 0, 5, 20)))
        disturb(stage)
        if stage.happens(0.4):
            meddle(stage)
            counts["changes by the stranger between turns"] += 1
        watch.is_braked = watch.is_braked and stage.happens(0.6)
        watch.is_led = watch.is_led or stage.happens(0.6)
        run.step()
        counts["turns"] += 1
    _come_to_rest(run)
    counts["runs"] += 1


def _come_to_rest(run: Run) -> None:
    run.scene.freeze()
    run.is_quiet, run.clock.off_by = True, timedelta()
    # in a frozen fleet nobody carries out a repair, and each is asked for again once a day, for ever
    run.policy = replace(run.policy, repair=replace(run.policy.repair, retry_h=_NEVER_H))
    for door in run.doors.values():
        door.odds = QUIET
        door._meanwhile = lambda _move: None  # noqa: SLF001 - the stranger rests, too
    run.journal.dies = run.journal.is_full = 0.0
    run.watch.is_braked, run.watch.is_led = False, True
    still = 0
    for turn in range(REST_TURNS):
        run.scene.later(_HOUR)
        still = still + 1 if run.step() == 0 else 0
        if still >= QUIET_TURNS:
            run.counts["turns to come to rest"] += turn + 1 - QUIET_TURNS
            run.watch.check_record()
            return
    last = run.watch.written[-1][2]
    must(False, f"comes to rest within {REST_TURNS} turns", last)  # noqa: FBT003 - reads as a sentence


def main() -> int:
    """Play all seeds and print the counts; 1 where harm was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    harms: list[str] = []
    for seed in range(asked.first, asked.first + asked.seeds):
        try:
            play(seed, counts)
        except (Harm, StewardError) as harm:
            harms.append(f"seed {seed}: {type(harm).__name__}: {harm}")
    for name, count in sorted(counts.items()):
        print(f"{name:45} {count:>10,}")
    print(f"{'runs that did harm or did not come to rest':45} {len(harms):>10,}")
    print("\n".join(harms[:20]))
    return int(bool(harms))


if __name__ == "__main__":
    sys.exit(main())
