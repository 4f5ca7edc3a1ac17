"""Let the action engine work in a fleet where everything goes wrong, and check after each write that it did no harm.

Each seed is one fleet of 96 simulated GPUs over 24 turns. Verdicts are drawn at random; reads fail or are stale,
rehearsals and writes are refused, conflict, break off or lose their answer, the acting process dies before or after
any write or record and starts again from what it recorded, a stranger changes things at any moment, the brake is
pulled in the middle of plans, moves are taken back at random. Then the faults end, the fleet stands still, and the
engine must come to rest.

    python -m benchmarks.chaos [--seeds 1000] [--first 0]
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from actions.apply import apply
from actions.budget import gpus_spent, made_of
from actions.fields import agrees, fields_after, fields_of
from actions.index import index_of
from actions.kinds import KINDS, RULES, is_taking, is_undo, rule_of
from actions.plan import plan
from actions.policy import ActionPolicy, Budget, FencePolicy, Modes
from actions.restart import settle
from actions.undo import undo_plan
from benchmarks.chaos_world import STRANGER, Scene, disturb, meddle, scene, verdicts
from fleet.errors import SourceFailed, StewardError
from fleet.move import Move, MoveKind, Outcome, Plan, Stage
from fleet.state import FleetState
from fleet.verdict import Verdict
from simulator.faulty import QUIET, Died, FaultyCluster, Odds

TURNS, REST_TURNS, QUIET_TURNS = 24, 60, 4
ACTOR = "gpu-steward"
AUTO = Modes(*("auto",) * len(RULES))
_HOUR = timedelta(hours=1)


class Harm(AssertionError):
    """Something was done that must never be done."""


@dataclass
class Journal:
    """What the store would hold: only this outlives the process."""

    rng: Random
    dies: float
    moves: dict[str, Move] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)

    def keep(self, made: Plan) -> None:
        """Record a plan."""
        for move in made.moves:
            self.moves.setdefault(move.move_id, move)

    def record(self, outcome: Outcome) -> None:
        """Record an outcome; the process may die just before or just after."""
        if self.rng.random() < self.dies:
            raise Died
        self.outcomes.append(outcome)
        if self.rng.random() < self.dies:
            raise Died


@dataclass
class Watch:
    """Sees every true write and says where it did harm."""

    scene: Scene
    policy: ActionPolicy
    journal: Journal
    counts: Counter[str]
    is_braked: bool = False
    tripped: frozenset[str] = frozenset()
    written: list[tuple[datetime, int, Move, FleetState]] = field(default_factory=list)
    turn: int = 0

    @property
    def name(self) -> str:
        """Return the name of the cluster behind."""
        return self.scene.cluster.name

    def observe(self) -> FleetState:
        """Look, truly."""
        return self.scene.state()

    def observe_for(self, _move: Move) -> FleetState:
        """Look, truly."""
        return self.scene.state()

    def rehearse(self, move: Move) -> None:
        """Rehearse, truly."""
        self.scene.cluster.rehearse(move)

    def make(self, move: Move) -> str:
        """Make a move and judge it."""
        before = self.scene.state()
        prior = self.scene.cluster.make(move)
        after = self.scene.state()
        self.counts["writes"] += 1
        self.counts[f"writes: {move.kind.value}{' (undo)' if is_undo(move) else ''}"] += 1
        self.written.append((self.scene.clock.now(), self.turn, move, before))
        self._judge(move, before, after)
        return prior

    def _judge(self, move: Move, before: FleetState, after: FleetState) -> None:
        must(not self.is_braked, "brake", move)
        stages = [each.stage for each in self.journal.outcomes if each.move_id == move.move_id and not each.is_dry_run]
        is_begun = bool(stages) and stages[-1] is Stage.INTENDED
        must(is_begun or self._is_taken_back(move), "recorded before", move)
        self._judge_target(move, before)
        if is_undo(move):
            current = fields_of(move, index_of(before)) or {}
            expected = move.evidence.get("expected")
            must(isinstance(expected, Mapping) and agrees(current, expected), "others changed it since", move)
            self._judge_undo(move, after)
        elif is_taking(move):
            self._judge_budget(move)

    def _is_taken_back(self, move: Move) -> bool:
        # a half-made group is taken back by its own run; the record that follows says so
        return is_undo(move) and move.evidence["undo_of"] in self.journal.moves

    def _judge_target(self, move: Move, before: FleetState) -> None:
        index = index_of(before)
        node = index.nodes.get((move.cluster, move.target.name)) if move.target.kind == "Node" else None
        if node is not None:
            must(node.name not in self.policy.fence.protected_nodes or is_undo(move), "protected node", move)
            touches = is_taking(move) or move.kind is MoveKind.UNCORDON_NODE
            must(node.cordoned_by != STRANGER or not touches, "another's cordon", move)
            if move.kind is MoveKind.REQUEST_REPAIR and not is_undo(move):
                pods = index.pods_by_node.get((move.cluster, node.name), ())
                held = [pod for pod in pods if node.drain == "node" or set(pod.gpu_uuids) & set(move.gpu_uuids)]
                must(node.drain is not None and not held, "a repair of what was drained for it", move)
        workload = index.find_workload(move.cluster, move.target)
        if workload is not None and is_taking(move):
            must(not workload.is_protected, "protected workload", move)
            must(workload.ref.namespace not in self.policy.reclaim.protected_namespaces, "protected namespace", move)
        must(move.kind is not MoveKind.FENCE_GPU or is_undo(move) or move.cause not in self.tripped, "breaker", move)

    def _judge_undo(self, move: Move, after: FleetState) -> None:
        original = self.journal.moves[str(move.evidence["undo_of"])]
        was = original.evidence.get("before")
        current = fields_of(original, index_of(after)) or {}
        decisive = KINDS[original.kind].fields[: KINDS[original.kind].decisive]
        for name in decisive:
            restored = fields_after(move).get(name, current.get(name))
            must(isinstance(was, dict) or name in current, "undo knows the prior object", move)
            must(current.get(name) == restored, f"undo restores {name}", move)
        self.counts["undos that restored"] += 1

    def _judge_budget(self, move: Move) -> None:
        budget, rule = self.policy.budget, rule_of(move)
        now = self.scene.clock.now()
        lately = [each for at, _, each, _ in self.written if now - at < _HOUR and rule_of(each) == rule]
        spent = sum(gpus_spent(each) for each in lately if is_taking(each))
        must(spent <= budget.max_gpus_per_hour, f"budget of {rule}: {spent} GPUs in an hour", move)
        nodes = {
            (each.cluster, each.target.name)
            for _, turn, each, _ in self.written
            if (turn, each.cluster) == (self.turn, move.cluster)
            and is_taking(each)
            and KINDS[each.kind].scope in {"gpu", "node"}
        }
        must(len(nodes) <= budget.max_nodes_per_turn, f"nodes a turn: {len(nodes)}", move)


def must(is_so: bool, what: str, move: Move) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise where an invariant does not hold."""
    if not is_so:
        message = f"{what}: {move.kind.value} {move.target} ({move.move_id})"
        raise Harm(message)


@dataclass
class Run:
    """One fleet under chaos."""

    scene: Scene
    policy: ActionPolicy
    journal: Journal
    watch: Watch
    cluster: FaultyCluster
    counts: Counter[str]

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
        return len(self.watch.written) - before

    def _turn(self) -> None:
        scene, journal = self.scene, self.journal
        settle(tuple(journal.moves.values()), journal.outcomes, self.cluster, scene.clock, journal.record, actor=ACTOR)
        found = verdicts(scene)
        self.watch.tripped = _waves(found, scene.state(), self.policy)
        recent = made_of(journal.moves.values(), journal.outcomes)
        made = plan(self.cluster.observe(), found, self.policy, scene.clock.now(), recent=recent)
        self.counts["plans"] += 1
        self.counts["moves planned"] += len(made.moves)
        journal.keep(made)
        self._apply(made)
        standing = [
            each.move
            for each in made_of(journal.moves.values(), journal.outcomes)
            if not each.is_undone and each.is_certain
        ]
        if standing and self.cluster.odds is not QUIET and scene.happens(0.3):
            back = undo_plan([scene.rng.choice(standing)], journal.outcomes, scene.clock.now())
            journal.keep(back)
            self.counts["undos asked for"] += len(back.moves)
            self._apply(back)

    def _apply(self, made: Plan) -> None:
        recent = made_of(self.journal.moves.values(), self.journal.outcomes)
        outcomes = apply(
            made, self.cluster, self.policy, self.scene.clock, self._record, actor=ACTOR, is_dry_run=False,
            kill_switch=lambda: self.watch.is_braked, recent=recent,
        )  # fmt: skip
        for outcome in outcomes:
            self.counts[f"outcomes: {outcome.stage.value}"] += 1

    def _record(self, outcome: Outcome) -> None:
        self.journal.record(outcome)
        if outcome.stage is Stage.APPLIED and self.cluster.odds is not QUIET and self.scene.happens(0.05):
            self.watch.is_braked = True  # in the middle of a plan
            self.counts["brakes pulled"] += 1

    def check_record(self) -> None:
        """Every write has an end on record once all is quiet."""
        last = {each.move_id: each for each in self.journal.outcomes if not each.is_dry_run}
        for _, _, move, _ in self.watch.written:
            if move.move_id in last:
                must(last[move.move_id].stage is not Stage.INTENDED, "its end is recorded", move)
            else:
                must(is_undo(move), "it is on record", move)
        for name in self.scene.cordons:
            node = next(each for each in self.scene.state().nodes if each.name == name)
            if node.is_schedulable or node.cordoned_by != STRANGER:
                message = f"the stranger's cordon of {name} is gone"
                raise Harm(message)


def _waves(found: list[Verdict], state: FleetState, policy: ActionPolicy) -> frozenset[str]:
    """Return causes that show on too much of every pool they touch, by a count of our own."""
    pools = {node.name: (node.cluster, node.pool) for node in state.nodes}
    sizes = Counter(pools[gpu.node] for gpu in state.gpus)
    homes = {gpu.uuid: (pools[gpu.node], gpu.node) for gpu in state.gpus}
    waves: set[str] = set()
    calm: set[str] = set()
    for cause in {each.rule for each in found if each.topic == "health"}:
        places = [homes[each.subject] for each in found if each.rule == cause and each.topic == "health"]
        for pool in {pool for pool, _ in places}:
            count = sum(each == pool for each, _ in places)
            nodes = {node for each, node in places if each == pool}
            is_wave = len(nodes) > 1 and count >= policy.fence.breaker_min_gpus
            (waves if is_wave and count > policy.fence.breaker_share_of_pool * sizes[pool] else calm).add(cause)
    return frozenset(waves - calm)


def play(seed: int, counts: Counter[str], odds: Odds | None = None, turns: int = TURNS) -> None:
    """Play one seed through; raises `Harm` where an invariant breaks."""
    stage = scene(seed)
    rng = stage.rng
    budget = Budget(max_gpus_per_hour=rng.choice((8, 16, 64)), max_nodes_per_turn=rng.choice((1, 2, 8)))
    names = stage.world.fabric.node_name
    fence = FencePolicy(protected_nodes=tuple(rng.sample(names, 2)))
    policy = ActionPolicy(modes=AUTO, budget=budget, fence=fence)
    journal = Journal(rng, 0.01)
    watch = Watch(stage, policy, journal, counts)

    def meanwhile(_move: Move) -> None:
        if stage.happens(0.1):
            meddle(stage)
            counts["changes by the stranger during a write"] += 1

    run = Run(stage, policy, journal, watch, FaultyCluster(watch, rng, odds or Odds(), meanwhile), counts)
    for _ in range(turns):
        stage.later(timedelta(minutes=rng.choice((5, 20, 60))))
        disturb(stage)
        if stage.happens(0.4):
            meddle(stage)
            counts["changes by the stranger between turns"] += 1
        watch.is_braked = watch.is_braked and stage.happens(0.6)
        run.step()
        counts["turns"] += 1
    _come_to_rest(run)
    counts["runs"] += 1


def _come_to_rest(run: Run) -> None:
    run.scene.freeze()
    run.cluster.odds = QUIET
    run.journal.dies, run.watch.is_braked = 0.0, False
    run.cluster._meanwhile = lambda _move: None  # noqa: SLF001 - the stranger rests, too
    still = 0
    for turn in range(REST_TURNS):
        run.scene.later(_HOUR)
        still = still + 1 if run.step() == 0 else 0
        if still >= QUIET_TURNS:
            run.counts["turns to come to rest"] += turn + 1 - QUIET_TURNS
            run.check_record()
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
