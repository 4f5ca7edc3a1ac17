"""A simulated fleet is lived again from the record alone, moves of every step included."""

from dataclasses import replace
from datetime import timedelta

from actions.rows import outcome_frame, plan_frames
from fleet.clock import FixedClock
from fleet.move import Move, MoveKind, Outcome, Plan, Stage
from fleet.state import ObjectRef
from simulator.cluster import SimulatorCluster
from simulator.step import advance, build
from steward.compose import fleet_spec, live_again
from steward.config import Settings, SimulatorSection
from store.store import Store


def test_several_moves_of_one_plan_on_one_node_are_made_again_in_their_order() -> None:
    settings = Settings(simulator=SimulatorSection(gpus=48, days=1.0))
    world = build(fleet_spec(settings.simulator))
    at = world.spec.starts_at + timedelta(hours=2)
    advance(world, at)
    cluster = SimulatorCluster(world)
    node = cluster.observe().nodes[0]

    def move(name: str, kind: MoveKind, **arguments: str) -> Move:
        return Move(name, kind, node.cluster, ObjectRef("Node", "", node.name), "test", "test", arguments=arguments,
                    resource_version=node.resource_version)  # fmt: skip

    # in the order of their names they could not be made: a repair without a drain is never carried out
    moves = (
        move("d", MoveKind.CORDON_NODE, cause="fence: xid_79"),
        move("c", MoveKind.MARK_NODE, mark="Xid79"),
        move("b", MoveKind.DRAIN_NODE, scope="node"),
        move("a", MoveKind.REQUEST_REPAIR, repair="reboot_node"),
    )
    for each in moves:
        cluster.make(replace(each, resource_version=""))
    later = at + timedelta(hours=1)
    advance(world, later)
    clock = FixedClock(later)
    with Store.open(None, clock=clock) as store:
        for table, frame in plan_frames(Plan("p", at, "{}", moves)).items():
            store.append_stored(table, frame)
        outcomes = [Outcome(each.move_id, at, Stage.APPLIED, is_dry_run=False, actor="test") for each in moves]
        store.append_stored("outcome", outcome_frame(outcomes))
        again = live_again(fleet_spec(settings.simulator), store)
    advance(again, later)
    assert SimulatorCluster(again).observe() == cluster.observe()
    assert "boot" in {event.kind for event in again.events}
