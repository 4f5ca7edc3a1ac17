import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.apply import apply
from actions.budget import made_of
from actions.plan import plan
from actions.policy import Modes
from actions.undo import invert, undo_plan
from fleet.clock import FixedClock
from fleet.errors import BadInput, MoveRefused
from fleet.move import Move, MoveKind, Outcome, Plan, Stage
from tests.actions.fakes import (
    FREE,
    FakeCluster,
    demand,
    failing,
    fleet,
    idle,
    quota,
    without_versions,
    workload,
)

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
STATE = fleet(
    NOW,
    workloads=[workload("train", ["n1-0"], LONG_AGO)],
    quotas=[quota("a", 20.0, borrowing_gpus=3.0), quota("b", 4.0)],
)
VERDICTS = [
    failing("n0-0", NOW),
    failing("n2", NOW, subject_kind="node", action="drain", rule="reboot"),
    idle("train", NOW),
    demand("a", NOW, 1, 2),
    demand("b", NOW, 6, 7),
]
PLAN = plan(STATE, VERDICTS, FREE, NOW)
PRIORS: dict[MoveKind, dict[str, object]] = {
    MoveKind.FENCE_GPU: {"is_fenced": False},
    MoveKind.CORDON_NODE: {"is_schedulable": True, "cordoned_by": None},
    MoveKind.SUSPEND_WORKLOAD: {"is_suspended": False, "suspended_by": None, "replicas": 2},
    MoveKind.SET_QUOTA: {"gpus": 20.0, "borrowing_gpus": 3.0},
}


class World:
    def __init__(self) -> None:
        self.clock = FixedClock(NOW)
        self.cluster = FakeCluster(STATE, self.clock)
        self.moves: list[Move] = list(PLAN.moves)
        self.audit: list[Outcome] = []

    def run(self, made: Plan, *, is_stopped: bool = False) -> list[Outcome]:
        self.clock.move(timedelta(seconds=1))
        return apply(
            made,
            self.cluster,
            replace(FREE, modes=Modes("auto", "auto", "auto") if made is PLAN else Modes("off", "off", "off")),
            self.clock,
            self.audit.append,
            actor="test",
            kill_switch=lambda: is_stopped,
            is_dry_run=False,
            recent=made_of(self.moves, self.audit),
        )

    def undo(self) -> Plan:
        return undo_plan(self.moves, self.audit, self.clock.now())


def test_undo_restores_exactly_last_first_whatever_the_modes_are_now() -> None:
    world = World()
    world.run(PLAN)
    assert without_versions(world.cluster.state) != without_versions(STATE)
    back = world.undo()
    assert [move.target for move in back.moves] == [move.target for move in reversed(PLAN.moves)]
    world.run(back)
    assert without_versions(world.cluster.state) == without_versions(STATE)
    assert world.undo().moves == ()


def test_undo_marks_the_first_move_as_undone_in_the_record() -> None:
    world = World()
    world.run(PLAN)
    world.run(world.undo())
    undone = {outcome.move_id for outcome in world.audit if outcome.stage is Stage.UNDONE}
    assert undone == {move.move_id for move in PLAN.moves}


def test_the_same_undo_twice_makes_nothing_twice() -> None:
    world = World()
    world.run(PLAN)
    back = world.undo()
    world.run(back)
    state = world.cluster.state
    assert {outcome.detail for outcome in world.run(back)} == {"skipped: already taken back"}
    assert world.cluster.state == state


def uncordoned_and_cordoned_by_another(cluster: FakeCluster) -> None:
    cluster.set_node("n2", cordoned_by="alice")


def resumed_by_its_owner(cluster: FakeCluster) -> None:
    cluster.set_workload("train", is_suspended=False, suspended_by=None, replicas=1)


def suspended_by_another(cluster: FakeCluster) -> None:
    cluster.set_workload("train", suspended_by="alice")


def unfenced(cluster: FakeCluster) -> None:
    cluster.state = replace(cluster.state, gpus=tuple(replace(gpu, is_fenced=False) for gpu in cluster.state.gpus))


def raised(cluster: FakeCluster) -> None:
    cluster.set_quota("a", gpus=30.0)


@pytest.mark.parametrize(
    ("disturb", "kept"),
    [
        (uncordoned_and_cordoned_by_another, {"n2"}),
        (resumed_by_its_owner, {"train"}),
        (suspended_by_another, {"train"}),
        (unfenced, {"n0"}),
        (raised, {"a", "b"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_undo_never_overrides_what_others_changed_since(disturb: Callable[[FakeCluster], None], kept: set[str]) -> None:
    world = World()
    world.run(PLAN)
    disturb(world.cluster)
    changed = world.cluster.state
    outcomes = world.run(world.undo())
    names = {move.move_id: move.target.name for move in world.undo().moves}
    refused = [each for each in outcomes if each.stage is Stage.REFUSED]
    assert {names[each.move_id] for each in refused} == kept
    assert any("changed by others" in each.detail for each in refused)
    for each in changed.workloads:
        assert each in world.cluster.state.workloads or "train" not in kept


def test_the_kill_switch_stops_an_undo_as_well() -> None:
    world = World()
    world.run(PLAN)
    made = len(world.cluster.made)
    world.run(world.undo(), is_stopped=True)
    assert len(world.cluster.made) == made


def test_a_dry_run_leaves_nothing_to_take_back() -> None:
    outcomes = [Outcome(move.move_id, NOW, Stage.APPLIED, is_dry_run=True, actor="test") for move in PLAN.moves]
    assert undo_plan(PLAN.moves, outcomes, NOW).moves == ()


def test_an_applied_move_whose_prior_was_lost_is_held_back() -> None:
    outcomes = [Outcome(PLAN.moves[0].move_id, NOW, Stage.APPLIED, is_dry_run=False, actor="test")]
    back = undo_plan(PLAN.moves, outcomes, NOW)
    assert back.moves == ()
    assert "not JSON" in back.held_back[0].reason


@pytest.mark.parametrize("move", PLAN.moves, ids=[f"{move.kind.value} {move.target.name}" for move in PLAN.moves])
def test_an_inverse_names_what_it_takes_back_and_what_it_expects(move: Move) -> None:
    inverse = invert(move, json.dumps(PRIORS[move.kind]))
    assert inverse.kind is move.kind.inverse
    assert inverse.target == move.target
    assert inverse.evidence["undo_of"] == move.move_id
    assert inverse == invert(move, json.dumps(PRIORS[move.kind]))
    assert Move.from_json(inverse.to_json()) == inverse


def test_resuming_gives_back_the_replicas_there_were() -> None:
    (move,) = (each for each in PLAN.moves if each.kind is MoveKind.SUSPEND_WORKLOAD)
    assert invert(move, json.dumps(PRIORS[move.kind])).arguments == {"replicas": 2}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"is_suspended": false}'])
def test_prior_fields_that_can_not_be_read_are_refused(text: str) -> None:
    (move,) = (each for each in PLAN.moves if each.kind is MoveKind.SUSPEND_WORKLOAD)
    with pytest.raises(BadInput) as caught:
        invert(move, text)
    assert caught.value.field == "prior"


def test_what_was_so_before_us_is_not_ours_to_take_back() -> None:
    (move,) = (each for each in PLAN.moves if each.kind is MoveKind.CORDON_NODE)
    with pytest.raises(MoveRefused, match="nothing to take back"):
        invert(move, '{"is_schedulable": false, "cordoned_by": "alice"}')
