"""Moves of every kind on the simulated fleet: what they change, what follows of itself, and what they leave alone."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from actions.fields import agrees, fields_after, fields_of
from actions.index import index_of
from actions.kinds import KINDS
from actions.undo import invert
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind, Value
from fleet.state import FleetState, Node, ObjectRef, Workload
from simulator.cluster import SimulatorCluster
from simulator.faults_spec import Injection
from simulator.presets import default_spec
from simulator.source import SimulatorSource
from simulator.spec import FleetSpec
from simulator.step import advance, build, step
from simulator.truth import faults, work_intervals
from simulator.world import World
from tests.simulator.conftest import QUIET

MINUTES = timedelta(minutes=1)


@pytest.fixture
def world(spec: FleetSpec) -> World:
    made = build(spec)
    step(made, timedelta(hours=2))
    return made


def order(kind: MoveKind, target: ObjectRef, cluster: str, gpu_uuids: tuple[str, ...] = (), **arguments: Value) -> Move:
    return Move("m1", kind, cluster, target, "test", "test", gpu_uuids, arguments=arguments)


def node_order(kind: MoveKind, node: Node, gpu_uuids: tuple[str, ...] = (), **arguments: Value) -> Move:
    return order(kind, ObjectRef("Node", "", node.name), node.cluster, gpu_uuids, **arguments)


def node_of(world: World, name: str) -> Node:
    return next(each for each in SimulatorCluster(world).observe().nodes if each.name == name)


def busy_node(state: FleetState, *, pool: str | None = None) -> Node:
    protected = {
        pod.node for pod in state.pods for each in state.workloads if each.is_protected and pod.uid in each.pods
    }
    held = {pod.node for pod in state.pods} - protected
    return next(each for each in state.nodes if each.name in held and pool in {None, each.pool})


def service(state: FleetState) -> Workload:
    return next(
        each
        for each in state.workloads
        if each.ref.kind == "Deployment"
        and each.replicas > 1
        and len(each.pods) == each.replicas
        and not each.is_protected
    )


def mig_node(state: FleetState) -> Node:
    return next(each for each in state.nodes if each.mig_layout is not None)


def every_order(state: FleetState) -> list[Move]:
    node, cut, scaled = busy_node(state), mig_node(state), service(state)
    gpu = next(each for each in state.gpus if each.node == node.name)
    quota, pool = state.quotas[0], state.pools[0]
    workload = next(each for each in state.workloads if each.pods and not each.is_protected)
    return [
        node_order(MoveKind.FENCE_GPU, node, (gpu.uuid,)),
        node_order(MoveKind.CORDON_NODE, node, cause="xid_79"),
        node_order(MoveKind.TAINT_NODE, node, taint="gpusteward.dev/failing=xid-79:NoSchedule"),
        node_order(MoveKind.MARK_NODE, node, mark="GpuFailing"),
        node_order(MoveKind.DRAIN_NODE, node, scope="node"),
        node_order(MoveKind.REQUEST_REPAIR, node, repair="reboot_node"),
        node_order(MoveKind.SET_MIG_LAYOUT, cut, mig_layout="all-3g.40gb"),
        node_order(MoveKind.SET_SHARING, node, sharing="shared-4"),
        order(MoveKind.SUSPEND_WORKLOAD, workload.ref, workload.cluster),
        order(MoveKind.SCALE_WORKLOAD, scaled.ref, scaled.cluster, replicas=1),
        order(MoveKind.SET_PRIORITY_BOOST, workload.ref, workload.cluster, priority_boost=7),
        order(
            MoveKind.SET_QUOTA, ObjectRef("Quota", "", quota.workspace), quota.cluster,
            gpus=1.0, borrowing_gpus=None, pool=None, model=None, lending_gpus=2.0, weight=3.0,
        ),
        order(MoveKind.SET_POOL_LIMIT, pool.ref, pool.cluster, limit=4.0),
    ]  # fmt: skip


def test_every_kind_leaves_the_fields_it_promises_and_its_inverse_those_that_were(spec: FleetSpec) -> None:
    first = build(spec)
    step(first, timedelta(hours=2))
    kinds = [move.kind for move in every_order(SimulatorCluster(first).observe())]
    for place, kind in enumerate(kinds):
        world = build(spec)
        step(world, timedelta(hours=2))
        cluster = SimulatorCluster(world)
        move = every_order(cluster.observe())[place]
        before = fields_of(move, index_of(cluster.observe()))
        prior = json.loads(cluster.make(move))
        assert before is not None
        assert prior == before, kind
        current = fields_of(move, index_of(cluster.observe()))
        assert current is not None
        assert agrees(current, fields_after(move)), kind
        inverse = invert(move, json.dumps(prior))
        cluster.make(inverse)
        step(world, timedelta(minutes=5))
        restored = fields_of(move, index_of(cluster.observe()))
        assert restored is not None
        decisive = KINDS[kind].fields[0]
        assert restored[decisive] == before[decisive], kind


@pytest.mark.parametrize(
    ("kind", "ref"),
    [
        (MoveKind.SET_QUEUE_STOP, ObjectRef("LocalQueue", "team", "team")),
        (MoveKind.APPLY_OBJECT, ObjectRef("LimitRange", "team", "gpus")),
        (MoveKind.DELETE_OBJECT, ObjectRef("LimitRange", "team", "gpus")),
    ],
)
def test_what_a_simulated_fleet_does_not_have_is_refused_with_the_reason(
    kind: MoveKind, ref: ObjectRef, world: World
) -> None:
    with pytest.raises(MoveRefused, match="the simulated fleet can't"):
        SimulatorCluster(world).make(order(kind, ref, "east", api_version="v1", body="{}", stop_policy="Hold"))


def test_a_taint_keeps_new_pods_away_until_it_is_taken_off(world: World) -> None:
    cluster = SimulatorCluster(world)
    node = busy_node(cluster.observe())
    at_s = world.now_s
    cluster.make(node_order(MoveKind.TAINT_NODE, node, taint="a/b=c:NoSchedule"))
    before = {pod.uid for pod in cluster.observe().pods if pod.node == node.name}
    step(world, timedelta(hours=12))
    begun = [pod for pod in world.pods if world.fabric.node_name[pod.node] == node.name and pod.starts_s > at_s]
    assert before
    assert begun == []
    assert node_of(world, node.name).taints == {"a/b": "c:NoSchedule"}
    cluster.make(node_order(MoveKind.UNTAINT_NODE, node, taint="a/b"))
    step(world, timedelta(hours=12))
    assert [pod for pod in world.pods if world.fabric.node_name[pod.node] == node.name and pod.starts_s > at_s]


def test_a_drain_empties_the_node_and_what_was_evicted_is_queued_again(world: World) -> None:
    cluster = SimulatorCluster(world)
    state = cluster.observe()
    node = busy_node(state)
    held = {pod.workload for pod in state.pods if pod.node == node.name}
    cluster.make(node_order(MoveKind.CORDON_NODE, node))
    cluster.make(node_order(MoveKind.DRAIN_NODE, node, scope="node"))
    after = cluster.observe()
    assert [pod for pod in after.pods if pod.node == node.name] == []
    assert held <= {each.ref for each in after.workloads}
    assert all(each.replicas > 0 for each in after.workloads if each.ref in held)


def test_a_drain_of_one_gpu_leaves_the_other_pods_of_the_node(world: World) -> None:
    cluster = SimulatorCluster(world)
    state = cluster.observe()
    node = next(
        each for each in state.nodes if len({pod.workload for pod in state.pods if pod.node == each.name}) > 1
        and not any(work.is_protected for work in state.workloads for pod in state.pods
                    if pod.node == each.name and pod.uid in work.pods)
    )  # fmt: skip
    pods = [pod for pod in state.pods if pod.node == node.name]
    bad = pods[0].gpu_uuids[0]
    leaving = {pod.workload for pod in pods if bad in pod.gpu_uuids}
    cluster.make(node_order(MoveKind.DRAIN_NODE, node, (bad,), scope="gpus"))
    left = [pod for pod in cluster.observe().pods if pod.node == node.name]
    assert all(bad not in pod.gpu_uuids for pod in left)
    assert {pod.uid for pod in pods if pod.workload not in leaving} <= {pod.uid for pod in left}
    assert node_of(world, node.name).drain == f"gpus {bad}"


def test_a_drain_does_not_evict_what_its_owner_protects(world: World) -> None:
    cluster = SimulatorCluster(world)
    state = cluster.observe()
    kept = next(each for each in state.workloads if each.is_protected and each.pods)
    pod = next(each for each in state.pods if each.uid in kept.pods)
    node = next(each for each in state.nodes if each.name == pod.node)
    cluster.make(node_order(MoveKind.DRAIN_NODE, node, scope="node"))
    assert pod.uid in {each.uid for each in cluster.observe().pods}


def broken(with_faults: Callable[..., FleetSpec], kind: str) -> tuple[World, SimulatorCluster, Node, str]:
    world = build(with_faults(Injection(kind, 1.0, 0, 400.0)))
    step(world, timedelta(hours=2))
    cluster = SimulatorCluster(world)
    return world, cluster, cluster.observe().nodes[0], world.fabric.gpu_uuid[0]


def is_broken(world: World) -> bool:
    return faults(world).filter(pl.col("ends_at").is_null()).height > 0


@pytest.mark.parametrize(
    ("fault", "repair", "mends"),
    [
        ("xid_79", "reboot_node", True),
        ("xid_48", "reboot_node", True),
        ("xid_48", "reset_gpu {uuid}", True),
        ("xid_79", "reset_gpu {uuid}", False),
        ("remap_failed", "reboot_node", False),
        ("xid_48", "run_diagnostics {uuid}", False),
    ],
)
def test_a_repair_mends_what_is_of_its_kind_after_a_while(
    fault: str,
    repair: str,
    mends: bool,  # noqa: FBT001 - a table's column
    with_faults: Callable[..., FleetSpec],
) -> None:
    world, cluster, node, uuid = broken(with_faults, fault)
    assert is_broken(world)
    cluster.make(node_order(MoveKind.CORDON_NODE, node))
    cluster.make(node_order(MoveKind.DRAIN_NODE, node, scope="node"))
    cluster.make(node_order(MoveKind.REQUEST_REPAIR, node, repair=repair.format(uuid=uuid)))
    step(world, 2 * MINUTES)
    assert is_broken(world)
    step(world, 60 * MINUTES)
    assert is_broken(world) is not mends
    told = {event.kind for event in world.events if event.at_s > 7200}
    assert ("boot" in told) is (repair == "reboot_node")
    assert ("gpu_reset" in told) is repair.startswith("reset_gpu")
    assert node_of(world, node.name).is_ready


@pytest.mark.parametrize("back", [MoveKind.WITHDRAW_REPAIR, MoveKind.CANCEL_DRAIN])
def test_a_repair_that_was_withdrawn_or_whose_drain_was_cancelled_never_comes(
    back: MoveKind, with_faults: Callable[..., FleetSpec]
) -> None:
    world, cluster, node, _ = broken(with_faults, "xid_79")
    cluster.make(node_order(MoveKind.DRAIN_NODE, node, scope="node"))
    cluster.make(node_order(MoveKind.REQUEST_REPAIR, node, repair="reboot_node"))
    cluster.make(node_order(back, node))
    step(world, timedelta(hours=10))
    assert is_broken(world)
    assert "boot" not in {event.kind for event in world.events}


def test_a_repair_asked_again_after_it_was_withdrawn_comes_once(with_faults: Callable[..., FleetSpec]) -> None:
    world, cluster, node, _ = broken(with_faults, "xid_79")
    cluster.make(node_order(MoveKind.DRAIN_NODE, node, scope="node"))
    for kind in (MoveKind.REQUEST_REPAIR, MoveKind.WITHDRAW_REPAIR, MoveKind.REQUEST_REPAIR):
        cluster.make(node_order(kind, node, repair="reboot_node"))
    step(world, timedelta(hours=2))
    assert [event.kind for event in world.events if event.at_s > 7200 and event.kind == "boot"] == ["boot"]


def test_a_mended_gpu_tells_of_itself_again(with_faults: Callable[..., FleetSpec]) -> None:
    world, cluster, node, uuid = broken(with_faults, "xid_79")
    cluster.make(node_order(MoveKind.DRAIN_NODE, node, scope="node"))
    cluster.make(node_order(MoveKind.REQUEST_REPAIR, node, repair="reboot_node"))
    asked = world.now
    step(world, timedelta(hours=1))
    samples = pl.concat([b.frames["gpu_sample"] for b in SimulatorSource(world).collect(asked, world.now)])
    mine = samples.filter(pl.col("gpu_uuid") == uuid)
    assert mine.height > 20
    assert mine["ts"].min() > asked + 15 * MINUTES  # type: ignore[operator] # a frame's minimum has no type


def mixed_spec() -> FleetSpec:
    plain = default_spec(48, 1.0)
    open_ones = (replace(each, protected_share=0.0) for each in plain.workspaces)
    spaces = tuple(
        replace(each, slice_profiles=("3g.40gb",), slice_share=1.0, notebook=1.0, training=0.0, pools=("a100-mig",))
        if each.name == "research"
        else each
        for each in open_ones
    )
    return replace(plain, workspaces=spaces, faults=replace(plain.faults, rate_factor=0.0), telemetry=QUIET)


def relaid(world: World, layout: str) -> Node:
    cluster = SimulatorCluster(world)
    node = mig_node(cluster.observe())
    cluster.make(node_order(MoveKind.CORDON_NODE, node))
    cluster.make(node_order(MoveKind.DRAIN_NODE, node, scope="node"))
    while any(pod.node == node.name for pod in cluster.observe().pods):
        step(world, timedelta(hours=1))
    cluster.make(node_order(MoveKind.SET_MIG_LAYOUT, node, mig_layout=layout))
    assert node_of(world, node.name).mig_state == "pending"
    step(world, 10 * MINUTES)
    cluster.make(node_order(MoveKind.UNCORDON_NODE, node))
    return node_of(world, node.name)


def test_a_layout_gives_the_slots_of_its_geometry_and_work_that_waited_for_them_begins() -> None:
    world = build(mixed_spec())
    step(world, timedelta(hours=2))
    assert not [pod for pod in SimulatorCluster(world).observe().pods if pod.workload.namespace == "research-lab"]
    node = relaid(world, "all-balanced")
    assert (node.mig_layout, node.mig_state) == ("all-balanced", "success")
    assert node.slots == {"nvidia.com/mig-1g.10gb": 16, "nvidia.com/mig-2g.20gb": 8, "nvidia.com/mig-3g.40gb": 8}
    step(world, timedelta(hours=2))
    state = SimulatorCluster(world).observe()
    begun = [pod for pod in state.pods if pod.node == node.name and pod.workload.namespace == "research-lab"]
    profiles = {each.uuid: each.profile for each in state.slices}
    assert begun
    assert {profiles[pod.slice_uuids[0]] for pod in begun} == {"3g.40gb"}
    assert {round(pod.fraction, 4) for pod in begun} == {round(3 / 7, 4)}


def test_telemetry_of_before_and_after_a_layout_is_told_of_the_devices_that_were_there() -> None:
    world = build(mixed_spec())
    step(world, timedelta(hours=2))
    old = {each.uuid for each in SimulatorCluster(world).observe().slices}
    relaid(world, "all-3g.40gb")
    at = world.now
    step(world, timedelta(hours=1))
    new = {each.uuid for each in SimulatorCluster(world).observe().slices}
    frames = [batch.frames for batch in SimulatorSource(world).collect(world.spec.starts_at, world.now)]
    told = pl.concat([each["slice_sample"] for each in frames])
    assert not old & new
    assert set(told.filter(pl.col("ts") > at)["slice_uuid"]) == new
    assert set(told.filter(pl.col("ts") < world.spec.starts_at + timedelta(hours=2))["slice_uuid"]) == old
    rows = frames[-1]["slice"]
    assert set(rows["slice_uuid"]) == new
    energy = pl.concat([each["gpu_sample"] for each in frames]).sort("gpu_uuid", "ts")
    steps = energy.select(pl.col("energy_j").diff().over("gpu_uuid")).drop_nulls()
    assert steps["energy_j"].min() >= 0  # type: ignore[operator] # a frame's minimum has no type
    assert set(work_intervals(world)["slice_uuid"].drop_nulls()) <= old | new


def test_a_layout_that_there_is_not_fails_and_the_slots_stay() -> None:
    world = build(mixed_spec())
    step(world, timedelta(hours=2))
    before = mig_node(SimulatorCluster(world).observe()).slots
    node = relaid(world, "all-5g.50gb")
    assert (node.mig_state, node.slots) == ("failed", before)
    restored = relaid(world, "all-1g.10gb")
    assert (restored.mig_state, restored.slots) == ("success", before)


def test_a_layout_told_while_pods_hold_the_gpus_fails() -> None:
    world = build(replace(default_spec(48, 1.0)))
    step(world, timedelta(hours=2))
    cluster = SimulatorCluster(world)
    node = mig_node(cluster.observe())
    assert any(pod.node == node.name for pod in cluster.observe().pods)
    cluster.make(node_order(MoveKind.SET_MIG_LAYOUT, node, mig_layout="all-3g.40gb"))
    step(world, 10 * MINUTES)
    assert node_of(world, node.name).mig_state == "failed"


def test_scaling_down_stops_the_pods_that_are_named_and_scaling_up_brings_as_many_back(world: World) -> None:
    cluster = SimulatorCluster(world)
    state = cluster.observe()
    found = service(state)
    names = {pod.uid: f"{pod.namespace}/{pod.name}" for pod in state.pods}
    idle = found.pods[0]
    move = replace(
        order(MoveKind.SCALE_WORKLOAD, found.ref, found.cluster, replicas=found.replicas - 1),
        evidence={"idle_pods": [names[idle]]},
    )
    assert json.loads(cluster.make(move)) == {"replicas": found.replicas}
    left = next(each for each in cluster.observe().workloads if each.ref == found.ref)
    assert (left.replicas, idle in left.pods) == (found.replicas - 1, False)
    cluster.make(order(MoveKind.SCALE_WORKLOAD, found.ref, found.cluster, replicas=found.replicas))
    back = next(each for each in cluster.observe().workloads if each.ref == found.ref)
    assert back.replicas == found.replicas


@pytest.mark.parametrize("replicas", [0, -1, 1.5, None, "two"])
def test_a_service_is_not_scaled_to_what_is_no_number_of_replicas(replicas: Value, world: World) -> None:
    cluster = SimulatorCluster(world)
    found = service(cluster.observe())
    with pytest.raises(MoveRefused):
        cluster.make(order(MoveKind.SCALE_WORKLOAD, found.ref, found.cluster, replicas=replicas))


def test_a_job_has_no_replicas_to_scale(world: World) -> None:
    cluster = SimulatorCluster(world)
    job = next(each for each in cluster.observe().workloads if each.ref.kind == "Job" and not each.is_protected)
    with pytest.raises(MoveRefused, match="no replicas"):
        cluster.make(order(MoveKind.SCALE_WORKLOAD, job.ref, job.cluster, replicas=2))


def test_what_is_boosted_begins_before_what_came_earlier(spec: FleetSpec) -> None:
    world = build(spec)
    step(world, timedelta(hours=6))
    queue = next(each for each in world.waiting.values() if len(each) > 1)
    last = world.workloads[world.tasks[queue[-1]].workload]
    cluster = world.spec.clusters[last.cluster].name
    SimulatorCluster(world).make(order(MoveKind.SET_PRIORITY_BOOST, last.ref, cluster, priority_boost=5))
    from simulator.placement import _in_turn  # noqa: PLC0415 - the order of service is told nowhere else

    assert world.tasks[_in_turn(world, queue)[0]].workload == world.tasks[queue[-1]].workload


def test_a_pool_s_limit_and_a_quota_s_weight_are_kept(world: World) -> None:
    cluster = SimulatorCluster(world)
    pool = cluster.observe().pools[0]
    cluster.make(order(MoveKind.SET_POOL_LIMIT, pool.ref, pool.cluster, limit=None))
    assert cluster.observe().pools[0].limit is None
    with pytest.raises(StaleState):
        cluster.make(order(MoveKind.SET_POOL_LIMIT, ObjectRef("NodePool", "", "none"), pool.cluster, limit=1.0))
    with pytest.raises(MoveRefused, match="no CapacityBuffer"):
        cluster.make(order(MoveKind.SET_POOL_LIMIT, ObjectRef("CapacityBuffer", "", "b"), pool.cluster, limit=1.0))
    quota = cluster.observe().quotas[0]
    told: dict[str, Value] = {"gpus": quota.gpus, "borrowing_gpus": 1.0, "lending_gpus": 2.0, "weight": 0.5}
    set_quota = order(MoveKind.SET_QUOTA, ObjectRef("Quota", "", quota.workspace), quota.cluster)
    cluster.make(replace(set_quota, arguments=told))
    after = cluster.observe().quotas[0]
    assert (after.lending_gpus, after.weight) == (2.0, 0.5)


def test_the_same_moves_at_the_same_moments_give_the_same_fleet(spec: FleetSpec) -> None:
    def live() -> tuple[FleetState, pl.DataFrame]:
        world = build(spec)
        advance(world, world.moment(7200))
        cluster = SimulatorCluster(world)
        for move in every_order(cluster.observe()):
            try:
                cluster.make(move)
            except (MoveRefused, StaleState):
                continue
            step(world, 3 * MINUTES)
        step(world, timedelta(hours=3))
        return cluster.observe(), work_intervals(world)

    first, second = live(), live()
    assert first[0] == second[0]
    assert first[1].equals(second[1])
