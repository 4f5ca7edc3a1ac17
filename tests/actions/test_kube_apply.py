"""Whole plans on a Kubernetes server: made, taken back, cut off in the middle and settled after a restart."""

from dataclasses import replace

import pytest

from actions.apply import apply
from actions.budget import made_of
from actions.policy import ActionPolicy
from actions.restart import settle
from actions.undo import undo_plan
from fleet.clock import SystemClock
from fleet.move import Move, MoveKind, Outcome, Plan, Stage
from tests.actions.fakes import FREE
from tests.actions.ground import Ground
from tests.kube.faults import Fault

pytestmark = pytest.mark.enable_socket
POLICY: ActionPolicy = FREE


def cordon(ground: Ground, node: str) -> Move:
    gpus = tuple(gpu.uuid for gpu in ground.known.gpus if gpu.node == node)
    return replace(ground.move(MoveKind.CORDON_NODE, node), move_id=f"cordon {node}", gpu_uuids=gpus, gpus=8.0)


def carry_out(
    ground: Ground,
    moves: tuple[Move, ...],
    record: list[Outcome],
    *,
    is_dry_run: bool = False,
    before: tuple[Move, ...] = (),
) -> list[str]:
    plan = Plan("p", SystemClock().now(), "{}", moves)
    made = apply(
        plan, ground.cluster, POLICY, SystemClock(), record.append, actor="test", kill_switch=lambda: False,
        is_dry_run=is_dry_run, recent=made_of((*before, *moves), record),
    )  # fmt: skip
    return [each.stage.value for each in made]


def test_a_plan_is_rehearsed_made_and_taken_back(ground: Ground) -> None:
    nodes = [ground.node(f"n{place}") for place in range(3)]
    moves = tuple(cordon(ground, node) for node in nodes)
    record: list[Outcome] = []
    assert carry_out(ground, moves, record, is_dry_run=True) == ["applied"] * 3
    assert all(ground.seen(node).is_schedulable for node in nodes)
    record.clear()
    assert carry_out(ground, moves, record) == ["intended", "applied"] * 3
    assert {ground.seen(node).cordoned_by for node in nodes} == {"gpu-steward"}
    back = undo_plan(moves, record, SystemClock().now())
    assert carry_out(ground, back.moves, record, before=moves) == ["intended", "applied", "undone"] * 3
    assert all(ground.seen(node).is_schedulable for node in nodes)
    assert all(not ground.seen(node).annotations for node in nodes)


def test_what_others_did_since_is_not_taken_back(ground: Ground) -> None:
    node = ground.node()
    moves = (cordon(ground, node),)
    record: list[Outcome] = []
    carry_out(ground, moves, record)
    path = f"/api/v1/nodes/{node}"
    ground.client.patch(path, {"spec": {"unschedulable": None}}, fieldManager="kubectl")
    ground.client.patch(path, {"spec": {"unschedulable": True}}, fieldManager="kubectl")
    back = undo_plan(moves, record, SystemClock().now())
    assert carry_out(ground, back.moves, record, before=moves) == ["refused"]
    assert not ground.seen(node).is_schedulable


@pytest.mark.parametrize(
    ("fault", "end", "is_made"),
    [({"keep": 5}, Stage.APPLIED, True), ({"status": 500}, Stage.FAILED, False)],
    ids=["made without an answer", "not made"],
)
def test_a_move_without_an_answer_is_settled_by_looking_after_a_restart(
    ground: Ground, fault: dict[str, int], end: Stage, *, is_made: bool
) -> None:
    node, server = ground.node(), ground.memory()
    moves, record = (cordon(ground, node),), list[Outcome]()
    real = ground.cluster.make

    def make(move: Move) -> str:
        server.faults.add(Fault("PATCH", **fault))  # type: ignore[arg-type] # parametrized
        return real(move)

    ground.cluster.make = make  # type: ignore[method-assign] # the fault begins with the write, after its rehearsal
    assert carry_out(ground, moves, record) == ["intended", "failed"]
    assert ground.seen(node).is_schedulable != is_made
    settled = settle(moves, record, ground.cluster, SystemClock(), record.append, actor="test")
    assert [each.stage for each in settled] == [end]


def test_each_cordon_takes_four_requests(ground: Ground) -> None:
    server = ground.memory()
    moves = tuple(cordon(ground, ground.node(f"n{place}", 1)) for place in range(6))
    ground.cluster.observe()
    before = len(server.asked)
    carry_out(ground, moves, [])
    assert len(server.asked) - before == 4 * len(moves)
