"""A drain of which pods are left is carried on: what a disruption budget held back is asked again, until it is late."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.budget import Made
from actions.plan import plan
from actions.undo import undo_plan
from fleet.move import Move, MoveKind, Outcome, Stage
from fleet.state import FleetState, ObjectRef
from tests.actions.closed_loop import ALL_AUTO
from tests.actions.fakes import WIDE, failing, fleet, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
POLICY = replace(ALL_AUTO, budget=WIDE)


def state() -> FleetState:
    """Return a fleet of which one node was cordoned and drained by us, and a pod is left there."""
    plain = fleet(NOW, node_count=20, workloads=[workload("train", ["n0-0"], NOW - timedelta(days=1))])
    nodes = tuple(
        replace(
            each, is_schedulable=False, cordoned_by="gpu-steward", cordon_cause="fence: xid_79", drain="node", mark="X"
        )
        if each.name == "n0"
        else each
        for each in plain.nodes
    )
    return replace(plain, nodes=nodes)


def made(kind: MoveKind, minutes: float, **arguments: str) -> Made:
    told = {"verdict": {"subjects": ["n0-0"]}}
    move = Move(
        f"{kind.value} {minutes}", kind, "c1", ObjectRef("Node", "", "n0"), "xid_79", "it fails", node="n0",
        gpu_uuids=("n0-0",), arguments=arguments, evidence=told,
    )  # fmt: skip
    return Made(move, NOW - timedelta(minutes=minutes))


def drains(*recent: Made) -> list[Move]:
    verdicts = [failing("n0-0", NOW, state="failed", action="reboot_node")]
    cordon = made(MoveKind.CORDON_NODE, 600)
    found = plan(state(), verdicts, POLICY, NOW, recent=(cordon, *recent))
    return [move for move in found.moves if move.kind is MoveKind.DRAIN_NODE]


@pytest.mark.parametrize(
    ("minutes", "since", "count"),
    [(5, None, 0), (20, None, 1), (400, None, 0), (20, 100, 1), (20, 400, 0)],
    ids=["just asked", "a while ago", "too long ago", "asked again before", "given up after many times"],
)
def test_it_is_carried_on_every_quarter_of_an_hour_until_its_limit(
    minutes: float, since: float | None, count: int
) -> None:
    first = {} if since is None else {"since": (NOW - timedelta(minutes=since)).isoformat()}
    found = drains(made(MoveKind.DRAIN_NODE, minutes, **first))
    assert len(found) == count
    begun = NOW - timedelta(minutes=minutes if since is None else since)
    assert all(move.arguments == {"scope": "node", "since": begun.isoformat()} for move in found)


def test_a_drain_of_somebody_else_is_not_carried_on() -> None:
    assert drains() == []


def test_a_drain_that_was_carried_on_is_taken_back_to_what_was_before_its_beginning() -> None:
    move = made(MoveKind.DRAIN_NODE, 0, scope="node").move
    outcomes = [
        Outcome(move.move_id, NOW + timedelta(minutes=minutes), Stage.APPLIED, is_dry_run=False, actor="a", prior=prior)
        for minutes, prior in ((0, '{"drain": null}'), (20, '{"drain": "node"}'))
    ]
    back = undo_plan([move], outcomes, NOW + timedelta(hours=1))
    assert [(each.kind, dict(each.arguments)) for each in back.moves] == [(MoveKind.CANCEL_DRAIN, {"scope": "node"})]
    undone = Outcome(move.move_id, NOW + timedelta(hours=1), Stage.UNDONE, is_dry_run=False, actor="a")
    assert undo_plan([move], [*outcomes, undone], NOW + timedelta(hours=2)).moves == ()
