"""Sees every true write of chaos and says where it did harm, by counts of its own and not by the engine's."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from actions.budget import gpus_spent
from actions.fields import agrees, fields_after, fields_of
from actions.index import index_of
from actions.kinds import KINDS, is_taking, is_undo, rule_of
from actions.policy import ActionPolicy
from benchmarks.chaos_people import ACTOR, Journal
from benchmarks.chaos_world import STRANGER, Scene, has_twin
from fleet.approval import Approval, Step
from fleet.clock import Clock
from fleet.move import Move, MoveKind, Stage
from fleet.state import FleetState
from fleet.verdict import Verdict
from simulator.cluster import SimulatorCluster

_HOUR = timedelta(hours=1)
FREEZE = (22, 6)  # from which hour to which, UTC, the frozen rules of a seed with a window are never to act
FROZEN = frozenset({"reclaim", "rebalance"})


class Harm(AssertionError):
    """Something was done that must never be done."""


def must(is_so: bool, what: str, move: Move) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise where an invariant does not hold."""
    if not is_so:
        message = f"{what}: {move.kind.value} {move.target} of {move.cluster} ({move.move_id})"
        raise Harm(message)


@dataclass
class Watch:
    """Judges every write in both clusters."""

    scene: Scene
    policy: ActionPolicy
    journal: Journal
    clock: Clock
    counts: Counter[str]
    is_braked: bool = False
    is_led: bool = True
    tripped: frozenset[str] = frozenset()
    written: list[tuple[datetime, int, Move]] = field(default_factory=list)
    turn: int = 0

    def why_stopped(self) -> str | None:
        """Return why nothing may be written now."""
        if self.is_braked:
            return "the brake is on"
        return None if self.is_led else "not the leader"

    def judge(self, move: Move, before: FleetState, after: FleetState) -> None:
        """Raise `Harm` where a write that was made must not have been made."""
        self.counts["writes"] += 1
        self.counts[f"writes: {move.kind.value}{' (undo)' if is_undo(move) else ''}"] += 1
        self.written.append((self.clock.now(), self.turn, move))
        must(not self.is_braked, "brake", move)
        must(self.is_led, "led by another", move)
        stages = [each.stage for each in self.journal.outcomes if each.move_id == move.move_id and not each.is_dry_run]
        must((bool(stages) and stages[-1] is Stage.INTENDED) or self._is_taken_back(move), "recorded before", move)
        self._judge_target(move, before)
        self._judge_identity(move, before)
        if is_undo(move):
            current = fields_of(move, index_of(before)) or {}
            expected = move.evidence.get("expected")
            must(isinstance(expected, Mapping) and agrees(current, expected), "others changed it since", move)
            self._judge_undo(move, after)
        else:
            self._judge_answers(move)
            if is_taking(move):
                self._judge_budget(move)
                self._judge_window(move)

    def _is_taken_back(self, move: Move) -> bool:
        """A half-made group is taken back by its own run: that stands on record as a failure with what was before."""
        if not is_undo(move):
            return False
        rows = [each for each in self.journal.outcomes if each.move_id == move.evidence["undo_of"]]
        return bool(rows) and rows[-1].stage is Stage.FAILED and rows[-1].prior is not None

    def _judge_target(self, move: Move, before: FleetState) -> None:
        index = index_of(before)
        node = index.nodes.get((move.cluster, move.target.name)) if move.target.kind == "Node" else None
        if node is not None:
            must(node.name not in self.policy.fence.protected_nodes or is_undo(move), "protected node", move)
            touches = is_taking(move) or move.kind is MoveKind.UNCORDON_NODE
            must(node.cordoned_by != STRANGER or not touches, "another's cordon", move)
            pods = index.pods_by_node.get((move.cluster, node.name), ())
            if move.kind is MoveKind.REQUEST_REPAIR:
                held = [pod for pod in pods if node.drain == "node" or set(pod.gpu_uuids) & set(move.gpu_uuids)]
                must(node.drain is not None and not held, "a repair of what was drained for it", move)
            if move.kind is MoveKind.DRAIN_NODE:
                owners = [index.find_workload(pod.cluster, pod.workload) for pod in pods]
                is_partial = move.arguments.get("scope") == "gpus"
                must(is_partial or not any(each is not None and each.is_protected for each in owners),
                     "a protected pod is not made to leave", move)  # fmt: skip
        workload = index.find_workload(move.cluster, move.target)
        if workload is not None and (is_taking(move) or move.kind is MoveKind.SUSPEND_WORKLOAD):
            must(not workload.is_protected, "protected workload", move)
            must(workload.ref.namespace not in self.policy.reclaim.protected_namespaces, "protected namespace", move)
        must(move.kind is not MoveKind.FENCE_GPU or is_undo(move) or move.cause not in self.tripped, "breaker", move)

    def _judge_identity(self, move: Move, before: FleetState) -> None:
        """The object is the one that was planned for, in the cluster that was meant."""
        found = [each for each in before.workloads if (each.cluster, each.ref) == (move.cluster, move.target)]
        for workload in found:
            must(move.evidence.get("uid") == workload.uid, "the object that was planned for", move)
        is_doubtful = move.evidence.get("unsaid") is True and has_twin(self.scene.world, move.target)
        must(not is_doubtful or is_undo(move), "a cluster that somebody named", move)

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
        now = self.clock.now()
        lately = [each for at, _, each in self.written if now - at < _HOUR and rule_of(each) == rule]
        spent = sum(gpus_spent(each) for each in lately if is_taking(each))
        must(spent <= budget.max_gpus_per_hour, f"budget of {rule}: {spent} GPUs in an hour", move)
        nodes = {
            each.target.name
            for _, turn, each in self.written
            if (turn, each.cluster) == (self.turn, move.cluster)
            and is_taking(each)
            and KINDS[each.kind].scope in {"gpu", "node"}
        }
        must(len(nodes) <= budget.max_nodes_per_turn, f"nodes a turn: {len(nodes)}", move)

    def _judge_window(self, move: Move) -> None:
        hour, (starts, ends) = self.clock.now().hour, FREEZE
        is_frozen = bool(self.policy.windows) and rule_of(move) in FROZEN and (hour >= starts or hour < ends)
        must(not is_frozen, f"frozen at {hour} o'clock", move)

    def _judge_answers(self, move: Move) -> None:
        """As many persons as it takes agreed to this very thing, in time, once, and nobody refused."""
        rows = self._rows_about(move)
        asked, told = (rows[0], rows[1:]) if rows else (None, [])
        now, policy, rule = self.clock.now(), self.policy.approval, rule_of(move)
        is_over = asked is None or asked.expires_at is None or now >= asked.expires_at
        refused = [row for row in told if row.step is Step.REFUSED and not is_over]
        must(not refused, "somebody refused it", move)
        mode, grace_s = self.policy.modes.of(rule), policy.grace_of(rule)
        needed = self._persons(move)
        if (mode == "auto" and not grace_s and needed == 1) or self._goes_on(move):
            return
        must(not is_over, "an answer that still holds", move)
        agreed = [row for row in told if row.step is Step.APPROVED and (needed == 1 or row.person_count == 1)]
        names = {" ".join(row.who.lower().split()) for row in agreed}
        names -= {ACTOR, "unnamed"}
        news = [row.ts for row in told if row.step is Step.NOTIFIED]
        is_due = mode == "auto" and needed == 1 and bool(news) and now - news[0] >= timedelta(seconds=grace_s)
        must(len(names) >= needed or is_due, f"{len(names)} of {needed} persons agreed", move)
        used = [
            each
            for each in self.journal.outcomes
            if each.stage is Stage.APPLIED and each.ts >= asked.ts and self._is_same(each.move_id, move)  # type: ignore[union-attr]  # is_over otherwise
        ]
        must(not used or move.kind is MoveKind.DRAIN_NODE, "an answer is used up once", move)
        self.counts["writes that people let through"] += 1

    def _persons(self, move: Move) -> int:
        policy, made = self.policy.approval, self.journal.plan_of.get(move.move_id)
        mine = [each for each in (made.moves if made else ()) if rule_of(each) == rule_of(move)]
        nodes = {
            (each.cluster, each.target) for each in mine if each.target.kind == "Node" and KINDS[each.kind].is_taking
        }
        is_large = move.gpus > policy.two_persons_gpus
        return 2 if is_large or (move.target.kind == "Node" and len(nodes) > policy.two_persons_nodes) else 1

    def _goes_on(self, move: Move) -> bool:
        """A drain that was begun is carried on without being asked for again."""
        begun = [each for each in self.journal.outcomes if each.stage is Stage.APPLIED]
        return move.kind is MoveKind.DRAIN_NODE and any(
            self.journal.moves[each.move_id].kind is MoveKind.DRAIN_NODE
            and self.journal.moves[each.move_id].target == move.target
            and self.journal.moves[each.move_id].cluster == move.cluster
            for each in begun
        )

    def _rows_about(self, move: Move) -> list[Approval]:
        """Return the last question about what a move does, and what was said to it."""
        rows: list[Approval] = []
        content = ""
        for row in self.journal.approvals:
            if row.step is Step.PROPOSED and self._is_same(row.move_id, move):
                rows, content = [row], row.content
            elif rows and row.content == content and row.step is not Step.PROPOSED:
                rows.append(row)
        return rows

    def _is_same(self, move_id: str, move: Move) -> bool:
        other = self.journal.moves[move_id]
        return all(
            one == two
            for one, two in (
                (other.kind, move.kind), (other.cluster, move.cluster), (other.target, move.target),
                (sorted(other.gpu_uuids), sorted(move.gpu_uuids)), (dict(other.arguments), dict(move.arguments)),
                (other.cause, move.cause), (other.evidence.get("uid"), move.evidence.get("uid")),
                (other.evidence.get("before"), move.evidence.get("before")),
            )
        )  # fmt: skip

    def check_record(self) -> None:
        """Every write has an end on record once all is quiet."""
        last = {each.move_id: each for each in self.journal.outcomes if not each.is_dry_run}
        for _, _, move in self.written:
            known = last.get(move.move_id) or last.get(str(move.evidence.get("undo_of")))
            must(known is not None, "it is on record", move)
            must(known is None or known.stage is not Stage.INTENDED, "its end is recorded", move)
        for place in self.scene.cordons:
            node = next(each for each in self.scene.state().nodes if (each.cluster, each.name) == place)
            if node.is_schedulable or node.cordoned_by != STRANGER:
                message = f"the stranger's cordon of {place} is gone"
                raise Harm(message)


@dataclass
class Door:
    """One of the two clusters: what goes through it is watched."""

    name: str
    watch: Watch

    def observe(self) -> FleetState:
        """Look, truly."""
        return self._inside.observe()

    def observe_for(self, _move: Move) -> FleetState:
        """Look, truly."""
        return self.observe()

    def rehearse(self, move: Move) -> None:
        """Rehearse, truly."""
        self._inside.rehearse(move)

    def make(self, move: Move) -> str:
        """Make a move and judge it."""
        must(move.cluster == self.name, f"sent to {self.name}", move)
        before = self.observe()
        prior = self._inside.make(move)
        self.watch.judge(move, before, self.observe())
        return prior

    @property
    def _inside(self) -> SimulatorCluster:
        return SimulatorCluster(self.watch.scene.world, self.name)


def waves(found: list[Verdict], state: FleetState, policy: ActionPolicy) -> frozenset[str]:
    """Return causes that show on too much of every pool they touch, by a count of our own."""
    pools = {(node.cluster, node.name): (node.cluster, node.pool) for node in state.nodes}
    sizes = Counter(pools[gpu.cluster, gpu.node] for gpu in state.gpus)
    homes = {gpu.uuid: (pools[gpu.cluster, gpu.node], gpu.node) for gpu in state.gpus}
    waving: set[str] = set()
    calm: set[str] = set()
    for cause in {each.rule for each in found if each.topic == "health"}:
        places = [homes[each.subject] for each in found if each.rule == cause and each.topic == "health"]
        for pool in {pool for pool, _ in places}:
            count = sum(each == pool for each, _ in places)
            nodes = {node for each, node in places if each == pool}
            is_wave = len(nodes) > 1 and count >= policy.fence.breaker_min_gpus
            (waving if is_wave and count > policy.fence.breaker_share_of_pool * sizes[pool] else calm).add(cause)
    return frozenset(waving - calm)
