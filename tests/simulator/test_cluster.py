import json
from collections.abc import Mapping
from datetime import timedelta

import polars as pl
import pytest

from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind
from fleet.state import FleetState, ObjectRef, Workload
from simulator.cluster import SimulatorCluster
from simulator.source import SimulatorSource
from simulator.spec import FleetSpec
from simulator.step import build, step
from simulator.world import World


@pytest.fixture
def world(spec: FleetSpec) -> World:
    world = build(spec)
    step(world, timedelta(hours=2))
    return world


def move(
    kind: MoveKind,
    target: ObjectRef,
    cluster: str = "east",
    *,
    version: str = "",
    gpu_uuids: tuple[str, ...] = (),
    arguments: Mapping[str, str | float | None] | None = None,
) -> Move:
    return Move(
        move_id="m1", kind=kind, cluster=cluster, target=target, cause="test", reason="test", gpu_uuids=gpu_uuids,
        resource_version=version, arguments=arguments or {},
    )  # fmt: skip


def running(state: FleetState, *, is_protected: bool = False) -> Workload:
    return next(each for each in state.workloads if each.pods and each.is_protected is is_protected)


def first_node(state: FleetState) -> ObjectRef:
    return ObjectRef("Node", "", state.nodes[0].name)


def test_observation_agrees_with_itself(world: World) -> None:
    state = SimulatorCluster(world).observe()
    assert state.taken_at == world.now
    gpus = {gpu.uuid for gpu in state.gpus}
    slices = {each.uuid: each.gpu_uuid for each in state.slices}
    assert len(gpus) == 48
    for pod in state.pods:
        assert set(pod.gpu_uuids) <= gpus
        assert {slices[uuid] for uuid in pod.slice_uuids} <= set(pod.gpu_uuids)
    assert {uid for workload in state.workloads for uid in workload.pods} == {pod.uid for pod in state.pods}


def test_one_cluster_shows_and_reaches_only_itself(world: World) -> None:
    west = SimulatorCluster(world, "west")
    state = west.observe()
    assert {node.cluster for node in state.nodes} == {"west"}
    assert {quota.cluster for quota in state.quotas} == {"west"}
    assert west.name == "west"
    east_node = first_node(SimulatorCluster(world, "east").observe())
    with pytest.raises(MoveRefused, match="does not reach"):
        west.rehearse(move(MoveKind.CORDON_NODE, east_node, "east"))


def test_a_fence_keeps_new_pods_away_and_its_inverse_lets_them_in(world: World) -> None:
    cluster = SimulatorCluster(world)
    gpu = cluster.observe().gpus[0]
    target = ObjectRef("Node", "", gpu.node)
    assert json.loads(cluster.make(move(MoveKind.FENCE_GPU, target, gpu_uuids=(gpu.uuid,)))) == {"is_fenced": False}
    step(world, timedelta(hours=20))
    begun = [pod for pod in world.pods if 0 in pod.units and pod.starts_s > 7200]
    assert begun == []
    assert cluster.observe().gpus[0].is_fenced
    assert json.loads(cluster.make(move(MoveKind.UNFENCE_GPU, target, gpu_uuids=(gpu.uuid,)))) == {"is_fenced": True}
    step(world, timedelta(hours=20))
    assert [pod for pod in world.pods if 0 in pod.units and pod.starts_s > 7200] != []


def test_a_cordon_names_its_author_and_its_inverse_takes_it_back(world: World) -> None:
    cluster = SimulatorCluster(world)
    before = cluster.observe().nodes[0]
    target = first_node(cluster.observe())
    prior = json.loads(cluster.make(move(MoveKind.CORDON_NODE, target)))
    assert prior == {"is_schedulable": True, "cordoned_by": None, "cordon_cause": None}
    cordoned = cluster.observe().nodes[0]
    assert (cordoned.is_schedulable, cordoned.cordoned_by) == (False, "gpu-steward")
    cluster.make(move(MoveKind.UNCORDON_NODE, target))
    after = cluster.observe().nodes[0]
    assert (after.is_schedulable, after.cordoned_by) == (before.is_schedulable, before.cordoned_by)


def test_a_suspended_workload_gives_up_its_gpus_and_resumes_with_as_many_replicas(world: World) -> None:
    cluster = SimulatorCluster(world)
    workload = running(cluster.observe())
    prior = json.loads(cluster.make(move(MoveKind.SUSPEND_WORKLOAD, workload.ref, workload.cluster)))
    assert prior == {"is_suspended": False, "suspended_by": None, "replicas": workload.replicas}
    step(world, timedelta(minutes=10))
    asleep = next(each for each in cluster.observe().workloads if each.ref == workload.ref)
    assert (asleep.is_suspended, asleep.suspended_by, asleep.pods) == (True, "gpu-steward", ())
    cluster.make(move(MoveKind.RESUME_WORKLOAD, workload.ref, workload.cluster))
    awake = next(each for each in cluster.observe().workloads if each.ref == workload.ref)
    assert (awake.is_suspended, awake.suspended_by, awake.replicas) == (False, None, workload.replicas)


def test_suspending_shows_in_telemetry_and_in_allocations(world: World) -> None:
    cluster = SimulatorCluster(world)
    workload = running(cluster.observe())
    at = world.now
    cluster.make(move(MoveKind.SUSPEND_WORKLOAD, workload.ref, workload.cluster))
    batch = next(SimulatorSource(world).collect(at, at + timedelta(minutes=5)))
    closed = batch.frames["pod_allocation"].filter(pl.col("pod_uid").is_in(list(workload.pods)))
    assert closed["pod_uid"].n_unique() == len(workload.pods)
    assert (closed["ends_at"] == at).all()


def test_a_quota_bounds_what_begins_and_its_inverse_restores_it(world: World) -> None:
    cluster = SimulatorCluster(world)
    quota = next(each for each in cluster.observe().quotas if each.workspace == "foundation")
    target = ObjectRef("Quota", "", "foundation")
    prior = cluster.make(
        move(MoveKind.SET_QUOTA, target, arguments={"gpus": 0.0, "borrowing_gpus": 0.0, "pool": None, "model": None})
    )
    assert json.loads(prior) == {
        "gpus": quota.gpus, "borrowing_gpus": quota.borrowing_gpus, "lending_gpus": None, "weight": quota.weight,
    }  # fmt: skip
    now_s = world.now_s
    step(world, timedelta(hours=30))
    mine = [index for index, workload in enumerate(world.workloads) if workload.workspace == 0]
    begun = [task for task in world.tasks if task.workload in mine and (task.started_s or 0) > now_s]
    assert begun == []
    cluster.make(move(MoveKind.SET_QUOTA, target, arguments=json.loads(prior)))
    restored = next(each for each in cluster.observe().quotas if each.workspace == "foundation")
    assert (restored.gpus, restored.borrowing_gpus) == (quota.gpus, quota.borrowing_gpus)
    step(world, timedelta(hours=10))
    frame = next(SimulatorSource(world).collect(None, world.now)).frames["quota"]
    assert frame.filter(pl.col("workspace") == "foundation").height >= 2
    assert [task for task in world.tasks if task.workload in mine and (task.started_s or 0) > now_s] != []


@pytest.mark.parametrize("kind", [MoveKind.CORDON_NODE, MoveKind.SUSPEND_WORKLOAD, MoveKind.SET_QUOTA])
def test_a_plan_made_against_an_older_version_is_refused_and_changes_nothing(kind: MoveKind, world: World) -> None:
    cluster = SimulatorCluster(world)
    before = cluster.observe()
    workload = running(before)
    target, place = {
        MoveKind.CORDON_NODE: (first_node(before), "east"),
        MoveKind.SUSPEND_WORKLOAD: (workload.ref, workload.cluster),
        MoveKind.SET_QUOTA: (ObjectRef("Quota", "", "foundation"), "east"),
    }[kind]
    stale = move(kind, target, place, version="999", arguments={"gpus": 1.0})
    for attempt in (cluster.rehearse, cluster.make):
        with pytest.raises(StaleState, match="version"):
            attempt(stale)
    assert cluster.observe() == before


def test_a_move_against_the_version_observed_is_made_and_raises_the_version(world: World) -> None:
    cluster = SimulatorCluster(world)
    node = cluster.observe().nodes[0]
    planned = move(MoveKind.CORDON_NODE, ObjectRef("Node", "", node.name), version=node.resource_version)
    cluster.make(planned)
    with pytest.raises(StaleState):
        cluster.make(planned)


def test_rehearsing_changes_nothing(world: World) -> None:
    cluster = SimulatorCluster(world)
    before = cluster.observe()
    workload = running(before)
    cluster.rehearse(move(MoveKind.SUSPEND_WORKLOAD, workload.ref, workload.cluster))
    cluster.rehearse(move(MoveKind.CORDON_NODE, first_node(before)))
    assert cluster.observe() == before


def test_a_protected_workload_is_not_suspended(world: World) -> None:
    cluster = SimulatorCluster(world)
    workload = running(cluster.observe(), is_protected=True)
    with pytest.raises(MoveRefused, match="protected"):
        cluster.make(move(MoveKind.SUSPEND_WORKLOAD, workload.ref, workload.cluster))


@pytest.mark.parametrize(
    ("kind", "target", "arguments", "error"),
    [
        (MoveKind.CORDON_NODE, ObjectRef("Node", "", "nowhere"), {}, StaleState),
        (MoveKind.CORDON_NODE, ObjectRef("Job", "a", "b"), {}, MoveRefused),
        (MoveKind.SUSPEND_WORKLOAD, ObjectRef("Job", "a", "b"), {}, StaleState),
        (MoveKind.SET_QUOTA, ObjectRef("Quota", "", "nobody"), {"gpus": 1.0}, StaleState),
        (MoveKind.SET_QUOTA, ObjectRef("Quota", "", "foundation"), {"gpus": -1.0}, MoveRefused),
        (MoveKind.SET_QUOTA, ObjectRef("Quota", "", "foundation"), {"gpus": float("nan")}, MoveRefused),
        (MoveKind.SET_QUOTA, ObjectRef("Quota", "", "foundation"), {"gpus": 1e9}, MoveRefused),
        (MoveKind.SET_QUOTA, ObjectRef("Quota", "", "foundation"), {"gpus": "many"}, MoveRefused),
        (MoveKind.SET_QUOTA, ObjectRef("Quota", "", "foundation"), {"gpus": 1.0, "pool": "t4"}, MoveRefused),
        (MoveKind.SET_QUOTA, ObjectRef("Quota", "", "foundation"), {"gpus": 1.0, "borrowing_gpus": -1.0}, MoveRefused),
    ],
    ids=[
        "no such node", "not a node", "no such workload", "no such quota", "below zero", "not a number", "too many",
        "a word", "per pool", "borrowing below zero",
    ],
)  # fmt: skip
def test_moves_that_mean_nothing_are_refused(
    kind: MoveKind, target: ObjectRef, arguments: dict[str, str | float | None], error: type[Exception], world: World
) -> None:
    cluster = SimulatorCluster(world)
    before = cluster.observe()
    with pytest.raises(error):
        cluster.make(move(kind, target, arguments=arguments))
    assert cluster.observe() == before


@pytest.mark.parametrize("gpu_uuids", [(), ("GPU-a", "GPU-b")], ids=["none", "two"])
def test_a_fence_takes_one_gpu(gpu_uuids: tuple[str, ...], world: World) -> None:
    cluster = SimulatorCluster(world)
    with pytest.raises(MoveRefused, match="one GPU"):
        cluster.make(move(MoveKind.FENCE_GPU, first_node(cluster.observe()), gpu_uuids=gpu_uuids))


def test_a_fence_on_a_gpu_of_another_node_is_stale(world: World) -> None:
    cluster = SimulatorCluster(world)
    state = cluster.observe()
    with pytest.raises(StaleState, match="not on node"):
        cluster.make(move(MoveKind.FENCE_GPU, first_node(state), gpu_uuids=(state.gpus[-1].uuid,)))
