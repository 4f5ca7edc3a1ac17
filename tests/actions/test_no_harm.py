"""Whoever calls the engine, and whatever they hand to it: what must never be made is not made."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest

from actions.apply import apply
from actions.approval_policy import ApprovalPolicy
from actions.budget import Made, made_of
from actions.plan import plan
from actions.policy import ActionPolicy, Modes
from actions.restart import settle
from actions.rows import plan_frames
from actions.undo import undo_plan
from fleet.approval import Approval, Step
from fleet.clock import FixedClock
from fleet.move import Move, MoveKind, Outcome, Plan, Stage
from fleet.state import FleetState
from store.store import Store
from tests.actions.fakes import (
    FREE,
    NO_GRACE,
    UNASKED,
    WIDE,
    FakeCluster,
    agreed,
    demand,
    failing,
    fleet,
    idle,
    quota,
    workload,
)

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
STATE = fleet(
    NOW,
    node_count=12,
    workloads=[
        workload("train", ["n1-0"], LONG_AGO, uid="first"),
        workload("serve", ["n2-0"], LONG_AGO, uid="other"),
    ],
    quotas=[quota("a", 20.0), quota("b", 4.0)],
)
TRAIN = [idle("train", NOW)]
QUOTAS = [demand("a", NOW, 1, 2), demand("b", NOW, 6, 7)]
ASKING = ActionPolicy(budget=WIDE)
TWO = replace(ASKING, approval=ApprovalPolicy(two_persons_gpus=0.5))


class World:
    """A cluster, its clock, and the record of what was made there."""

    def __init__(self, state: FleetState = STATE) -> None:
        self.clock = FixedClock(NOW)
        self.cluster = FakeCluster(state, self.clock)
        self.moves: list[Move] = []
        self.audit: list[Outcome] = []
        self.details: list[str] = []

    def recent(self) -> tuple[Made, ...]:
        return made_of(self.moves, self.audit)

    def run(
        self,
        made: Plan,
        policy: ActionPolicy = FREE,
        approvals: Iterable[Approval] = (),
        *,
        only: Sequence[str] | None = None,
        recent: tuple[Made, ...] | None = None,
        began_at: datetime | None = None,
    ) -> list[str]:
        """Apply a plan and return how each of its moves ended."""
        self.moves += [move for move in made.moves if move not in self.moves]
        outcomes = apply(
            made, self.cluster, policy, self.clock, self.audit.append, actor="t", is_dry_run=False,
            kill_switch=lambda: False, approvals=approvals, only=only, began_at=began_at,
            recent=self.recent() if recent is None else recent,
        )  # fmt: skip
        self.details = [each.detail for each in outcomes if each.stage is Stage.REFUSED]
        last = {each.move_id: each.stage.value for each in outcomes}
        return [last[move.move_id] for move in made.moves if move.move_id in last]

    def is_suspended(self, name: str = "train") -> bool:
        return next(each.is_suspended for each in self.cluster.state.workloads if each.ref.name == name)


def said(made: Plan, step: Step, who: str, minutes: float) -> list[Approval]:
    at = NOW + timedelta(minutes=minutes)
    return [replace(row, step=step, who=who, ts=at, note="no") for row in agreed(made, NOW)[::2]]


WAITING: dict[str, tuple[ActionPolicy, Callable[[Plan], list[Approval]], str]] = {
    "nobody was asked": (ASKING, lambda _: [], "not put before anybody"),
    "nobody answered": (ASKING, lambda made: agreed(made, NOW)[:1], "0 of 1 persons agreed"),
    "one of two": (TWO, lambda made: agreed(made, NOW, "ann", persons=2), "1 of 2 persons agreed (ann)"),
    "one of two where one was enough when it was asked": (
        TWO, lambda made: agreed(made, NOW, "ann", persons=1), "1 of 2 persons agreed (ann)",
    ),
    "one person in two spellings": (
        TWO, lambda made: agreed(made, NOW, "ann", " ANN ", "\uff41nn", persons=2), "1 of 2 persons agreed (ann)",
    ),
    "two names that nobody proved": (
        TWO, lambda made: [replace(row, person_count=0) if row.step is Step.APPROVED else row
                           for row in agreed(made, NOW, "ann", "bob", persons=2)], "0 of 2 persons agreed",
    ),
    "the house and nobody": (
        TWO, lambda made: agreed(made, NOW, "gpu-steward", "unnamed", " ", persons=2), "0 of 2 persons agreed",
    ),
    "somebody refused what was approved": (
        ASKING, lambda made: [*agreed(made, NOW), *said(made, Step.REFUSED, "bob", 1)], "bob refused it: no",
    ),
    "somebody refused what a rule may make by itself": (
        FREE, lambda made: [*agreed(made, NOW), *said(made, Step.REFUSED, "bob", 1)], "bob refused it: no",
    ),
    "its grace is not over": (
        replace(FREE, approval=ApprovalPolicy()),
        lambda made: [agreed(made, NOW)[0], *said(made, Step.NOTIFIED, "log", 0)], "it is made at",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("policy", "rows", "words"), WAITING.values(), ids=WAITING)
def test_the_engine_itself_makes_nothing_that_waits_for_people(
    policy: ActionPolicy, rows: Callable[[Plan], list[Approval]], words: str
) -> None:
    world, made = World(), plan(STATE, TRAIN, policy, NOW)
    world.clock.move(timedelta(minutes=5))
    assert world.run(made, policy, rows(made)) == ["refused"]
    assert words in world.details[0]
    assert not world.is_suspended()


def test_the_engine_makes_what_two_persons_agreed_to() -> None:
    world, made = World(), plan(STATE, TRAIN, TWO, NOW)
    assert world.run(made, TWO, agreed(made, NOW, "ann", "bob", persons=2)) == ["applied"]


def test_who_proposed_a_move_is_neither_of_the_two_even_where_one_was_enough_then() -> None:
    world, made = World(), plan(STATE, TRAIN, TWO, NOW)
    rows = [replace(row, who="ann") if row.step is Step.PROPOSED else row for row in agreed(made, NOW, "ann", "bob")]
    assert world.run(made, TWO, rows) == ["refused"]
    assert "1 of 2 persons agreed (bob)" in world.details[0]


def test_an_approval_that_ends_while_its_plan_is_made_makes_no_more() -> None:
    world, made = World(), plan(STATE, [*TRAIN, idle("serve", NOW)], ASKING, NOW)
    ends = NOW + timedelta(minutes=1)
    rows = [replace(row, expires_at=ends) for row in agreed(made, NOW)]
    world.cluster.after_make = lambda _: world.clock.move(timedelta(minutes=1))
    assert world.run(made, ASKING, rows) == ["applied", "refused"]
    assert "not put before anybody" in world.details[0]


def test_a_part_of_a_large_plan_needs_as_many_persons_as_the_whole() -> None:
    policy = replace(FREE, approval=replace(UNASKED, two_persons_nodes=2))
    made = plan(STATE, [failing(f"n{node}-0", NOW) for node in (3, 4, 5)], policy, NOW)
    world, names = World(), [move.move_id for move in made.moves]
    assert len(names) == 3
    assert world.run(made, policy, agreed(made, NOW), only=names[:1]) == ["refused"]
    assert "of 2 persons" in world.details[0]


def test_half_of_a_group_is_not_chosen() -> None:
    world, made = World(), plan(STATE, QUOTAS, FREE, NOW)
    assert world.run(made, only=[made.moves[0].move_id]) == ["refused"]
    assert "with others or not at all" in world.details[0]
    assert sum(each.gpus for each in world.cluster.state.quotas) == 24.0


CHANGED: dict[str, Callable[[Move], Move]] = {
    "another target": lambda move: replace(move, target=replace(move.target, name="serve"), gpu_uuids=("n2-0",)),
    "other GPUs": lambda move: replace(move, gpu_uuids=("n1-0", "n1-1")),
    "another cause": lambda move: replace(move, cause="I say so"),
    "another object": lambda move: replace(move, evidence={**move.evidence, "uid": "second"}),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_an_approved_plan_whose_contents_changed_is_not_approved(change: Callable[[Move], Move]) -> None:
    world, made = World(), plan(STATE, TRAIN, ASKING, NOW)
    changed = replace(made, moves=tuple(change(move) for move in made.moves))
    assert world.run(changed, ASKING, agreed(made, NOW)) == ["refused"]
    assert world.cluster.made == []


def born_again(world: World) -> None:
    """Let its owner delete a workload and make another of the same name, in the same version even."""
    mine = {"uid": "second", "resource_version": "1"}
    world.cluster.state = replace(
        world.cluster.state,
        workloads=tuple(
            replace(each, **mine) if each.ref.name == "train" else each  # type: ignore[arg-type]  # fields
            for each in world.cluster.state.workloads
        ),
    )


def test_a_workload_that_was_made_anew_under_its_name_is_another_one() -> None:
    world, made = World(), plan(STATE, TRAIN, FREE, NOW)
    born_again(world)
    assert world.run(made) == ["refused"]
    assert "made anew" in world.details[0]


def test_an_approval_is_not_one_for_the_next_workload_of_that_name() -> None:
    world, made = World(), plan(STATE, TRAIN, ASKING, NOW)
    born_again(world)
    again = plan(world.cluster.observe(), TRAIN, ASKING, NOW)
    assert again.moves[0].target == made.moves[0].target
    assert world.run(again, ASKING, agreed(made, NOW)) == ["refused"]
    assert "not put before anybody" in world.details[0]


def test_what_we_stopped_is_not_started_where_another_bears_its_name_now() -> None:
    world, made = World(), plan(STATE, TRAIN, FREE, NOW)
    world.run(made)
    born_again(world)
    assert world.run(undo_plan(world.moves, world.audit, NOW)) == ["refused"]
    assert "made anew" in world.details[0]
    assert world.is_suspended()


def forged(world: World, **changes: object) -> Plan:
    """Build a plan of one move that calls itself an undo."""
    made = plan(STATE, TRAIN, FREE, NOW)
    world.run(made)
    back = undo_plan(world.moves, world.audit, NOW)
    evidence = {**back.moves[0].evidence, **changes.pop("evidence", {})}  # type: ignore[dict-item]  # a mapping
    return replace(back, moves=(replace(back.moves[0], evidence=evidence, **changes),))  # type: ignore[arg-type]


FORGED: dict[str, tuple[dict[str, object], str]] = {
    "of a move that never was": ({"evidence": {"undo_of": "nothing"}}, "never made by the record"),
    "of another kind": ({"kind": MoveKind.SUSPEND_WORKLOAD, "evidence": {"expected": {}}}, "is not what takes"),
    "of another target": ({"target": replace(STATE.workloads[1].ref), "evidence": {"expected": {}}}, "is not what"),
    "with other values": ({"arguments": {"replicas": 900}}, "is not what takes"),
    "in another cluster": ({"cluster": "c2"}, "is not what takes"),
}


@pytest.mark.parametrize(("changes", "words"), FORGED.values(), ids=FORGED)
def test_nothing_passes_for_an_undo_but_the_undo_of_what_is_on_record(changes: dict[str, object], words: str) -> None:
    world = World()
    made = forged(world, **changes)
    before = world.cluster.state
    assert world.run(made) == ["refused"]
    assert words in world.details[0]
    assert world.cluster.state == before


def test_an_undo_without_the_record_at_hand_is_not_made() -> None:
    world = World()
    assert world.run(forged(world), recent=()) == ["refused"]


def test_a_verdict_that_calls_itself_an_undo_makes_no_undo() -> None:
    told = {"undo_of": "x", "expected": {"is_suspended": False}, "restores": True, "uid": "mine", "hours": 6}
    verdict = replace(TRAIN[0], evidence=MappingProxyType(told))
    made = plan(STATE, [verdict], ASKING, NOW)
    assert {"undo_of", "expected", "restores"}.isdisjoint(made.moves[0].evidence)
    assert (made.moves[0].evidence["hours"], made.moves[0].evidence["uid"]) == (6, "first")
    world = World()
    assert world.run(made, ASKING) == ["refused"]


def test_an_undo_asked_for_twice_at_once_is_made_once() -> None:
    world = World()
    world.run(plan(STATE, TRAIN, FREE, NOW))
    back = undo_plan(world.moves, world.audit, NOW)
    recent, other = world.recent(), list[str]()

    def meanwhile(_move: Move) -> None:
        world.cluster.before_make = lambda _: None
        other.extend(world.run(back, recent=recent))

    world.cluster.before_make = meanwhile
    assert world.run(back, recent=recent) == ["refused"]
    assert other == ["applied"]
    assert [move.kind for move in world.cluster.made] == [MoveKind.SUSPEND_WORKLOAD, MoveKind.RESUME_WORKLOAD]


def test_a_plan_applied_by_two_processes_at_once_is_made_once() -> None:
    world, made = World(), plan(STATE, [*TRAIN, *QUOTAS], FREE, NOW)

    def meanwhile(_move: Move) -> None:
        world.cluster.before_make = lambda _: None
        apply(
            made, world.cluster, FREE, world.clock, list[Outcome]().append, actor="other", is_dry_run=False,
            kill_switch=lambda: False,
        )  # fmt: skip

    world.cluster.before_make = meanwhile
    world.run(made)
    assert len(world.cluster.made) == len({move.move_id for move in world.cluster.made}) == 3
    assert sum(each.gpus for each in world.cluster.state.quotas) == 24.0


def test_a_clock_that_was_set_back_does_not_turn_the_record_round() -> None:
    world = World()
    world.run(plan(STATE, TRAIN, FREE, NOW))
    world.clock.move(-timedelta(seconds=40))
    world.cluster.state = replace(world.cluster.state, taken_at=world.clock.now())
    world.run(undo_plan(world.moves, world.audit, world.clock.now()))
    assert not world.is_suspended()
    (made,) = [each for each in world.recent() if each.move.kind is MoveKind.SUSPEND_WORKLOAD]
    assert made.is_undone


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gpus": float("nan")}, "gpus: nan"),
        ({"gpus": -3.0}, "gpus: -3"),
        ({"arguments": {"replicas": -1}}, "replicas: -1"),
        ({"target": replace(STATE.workloads[0].ref, name="")}, "not the name of one object"),
        ({"target": replace(STATE.workloads[0].ref, name="..")}, "not the name of one object"),
        ({"target": replace(STATE.workloads[0].ref, namespace="a/../b")}, "not the name of one object"),
        ({"evidence": {"verdict": {"made_at": "2026-03-02T12:00:00"}}}, "with a zone"),
        ({"evidence": {"verdict": {"made_at": "yesterday"}}}, "with a zone"),
        ({"evidence": {"verdict": {"made_at": None}}}, "does not say when"),
        ({"evidence": {"verdict": {"made_at": (NOW + timedelta(hours=2)).isoformat()}}}, "from the future"),
    ],
)
def test_what_nobody_can_mean_is_refused_by_its_field(changes: dict[str, object], words: str) -> None:
    world, made = World(), plan(STATE, TRAIN, FREE, NOW)
    odd = replace(made, moves=(replace(made.moves[0], **changes),))  # type: ignore[arg-type]  # fields
    assert world.run(odd) == ["refused"]
    assert words in world.details[0]
    assert world.cluster.made == []


@pytest.mark.parametrize(("hours", "ended"), [(0.9, "applied"), (1.1, "refused"), (-0.1, "refused")])
def test_what_brings_no_verdict_rests_on_its_plan_which_must_be_young(hours: float, ended: str) -> None:
    world, made = World(), plan(STATE, TRAIN, FREE, NOW)
    bare = replace(made.moves[0], evidence={"before": made.moves[0].evidence["before"]})
    old = replace(made, moves=(bare,), made_at=NOW - timedelta(hours=hours))
    assert world.run(old) == [ended]


def test_evidence_that_is_no_number_is_unknown_and_can_be_recorded() -> None:
    verdict = replace(TRAIN[0], evidence=MappingProxyType({"share": float("nan"), "top": float("inf"), "low": 0.0}))
    made = plan(STATE, [verdict], FREE, NOW)
    evidence = made.moves[0].evidence
    assert (evidence["share"], evidence["top"], evidence["low"]) == (None, None, 0.0)
    json.loads(made.moves[0].to_json(), parse_constant=pytest.fail)
    with Store.open(None, clock=FixedClock(NOW)) as store:
        for table, frame in plan_frames(made).items():
            assert store.append_stored(table, frame) == 1


class Killed(BaseException):
    """The process was killed."""


@pytest.mark.parametrize("is_written", [True, False], ids=["after the write", "before the write"])
def test_a_death_while_half_a_group_is_taken_back_is_settled_from_the_record(*, is_written: bool) -> None:
    world, made = World(), plan(STATE, QUOTAS, FREE, NOW)

    def kill(move: Move) -> None:
        if "undo_of" in move.evidence:
            raise Killed

    world.cluster.before_make = lambda move: (
        world.cluster.refused.add("b") if move.target.name == "b" else kill(move) if not is_written else None
    )
    if is_written:
        world.cluster.after_make = kill
    with pytest.raises(Killed):
        world.run(made)
    assert (sum(each.gpus for each in world.cluster.state.quotas) == 24.0) is is_written
    settle(world.moves, world.audit, world.cluster, world.clock, world.audit.append, actor="t")
    standing = [each.move.target.name for each in world.recent() if not each.is_undone]
    assert standing == ([] if is_written else ["a"])


def test_what_an_earlier_plan_of_the_turn_made_counts_for_its_nodes() -> None:
    policy = replace(FREE, budget=replace(WIDE, max_nodes_per_turn=2))
    first = plan(STATE, [failing("n3-0", NOW), failing("n4-0", NOW)], policy, NOW)
    second = plan(STATE, [failing("n5-0", NOW, rule="other")], policy, NOW)
    for began_at, ended in ((NOW, "refused"), (None, "applied")):
        world = World()
        assert world.run(first, policy, began_at=began_at) == ["applied"] * 2
        assert world.run(second, policy, began_at=began_at) == [ended]


def test_a_rule_in_mode_off_makes_nothing_whoever_approved_it() -> None:
    made = plan(STATE, TRAIN, ASKING, NOW)
    for mode in ("off", "observe"):
        world = World()
        policy = replace(ASKING, modes=Modes(reclaim=mode), approval=replace(UNASKED, grace_s=NO_GRACE))
        assert world.run(made, policy, agreed(made, NOW, "ann", "bob", persons=2)) == ["refused"]
        assert "may not act" in world.details[0]
