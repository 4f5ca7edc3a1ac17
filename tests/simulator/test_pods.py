"""The table of pods as the simulated fleet fills it: from being wanted to being over, as an API server would tell."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from analytics.slice_demand import cut_nodes, held_slices, mig_nodes, waiting_pods, wanted_devices
from fleet.clock import FixedClock
from fleet.move import Move, MoveKind
from fleet.state import ObjectRef
from simulator.cluster import SimulatorCluster
from simulator.faults_spec import FaultSpec
from simulator.presets import default_spec
from simulator.source import SimulatorSource
from simulator.step import advance, build
from steward.compose import House
from steward.config import load_settings
from steward.cycle import collect
from store.store import Store

if TYPE_CHECKING:
    from simulator.world import World

HOUR = timedelta(hours=1)


def world_of(load: float = 1.5) -> "World":
    plain = default_spec(48, 1.0)
    spaces = tuple(replace(each, load=load) for each in plain.workspaces)
    return build(replace(plain, workspaces=spaces, faults=FaultSpec(rate_factor=0.0)))


def stored(world: "World", store: Store, hours: float, turns: int = 1) -> None:
    """Let a store read the fleet's first hours, in so many turns."""
    house = House(load_settings(None, {}), store, FixedClock(world.spec.starts_at), sources=(SimulatorSource(world),))
    for turn in range(1, turns + 1):
        collect(house, world.spec.starts_at + HOUR * hours * turn / turns)


def test_every_pod_that_runs_or_waits_is_told_of_with_what_it_asks_for() -> None:
    world = world_of()
    with Store.open(None, clock=FixedClock(world.spec.starts_at)) as store:
        stored(world, store, 6.0, turns=4)
        pods = store.read("pod")
        held = store.read("pod_allocation")
    state = SimulatorCluster(world).observe()
    open_ones = pods.filter(pl.col("ends_at").is_null())
    running = open_ones.filter(pl.col("starts_at").is_not_null())
    assert set(running["pod_uid"]) == {pod.uid for pod in state.pods}
    assert dict(running.select("pod_uid", "node").iter_rows()) == {pod.uid: pod.node for pod in state.pods}
    waiting = open_ones.filter(pl.col("starts_at").is_null())
    expected = sum(
        world.workloads[world.tasks[index].workload].nodes for queue in world.waiting.values() for index in queue
    )
    assert waiting.height == expected > 0
    assert set(waiting["phase"]) == {"Pending"}
    assert set(running["phase"]) == {"Running"}
    asked = {json.dumps(json.loads(text)) for text in pods["resources"]}
    assert any("nvidia.com/mig-" in text for text in asked)
    over = pods.filter(pl.col("ends_at").is_not_null(), pl.col("starts_at").is_not_null())
    assert {"Succeeded"} <= set(over["phase"])
    assert set(held["pod_uid"]) == set(pods.filter(pl.col("starts_at").is_not_null())["pod_uid"])


def test_what_it_says_of_who_held_what_is_not_said_again_by_the_join() -> None:
    world = world_of()
    with Store.open(None, clock=FixedClock(world.spec.starts_at)) as store:
        stored(world, store, 6.0, turns=6)
        whole = store.read("pod_allocation")
    with Store.open(None, clock=FixedClock(world.spec.starts_at)) as store:
        for batch in SimulatorSource(world).collect(None, world.spec.starts_at + 6 * HOUR):
            store.append(batch)
        plain = store.read("pod_allocation")
    keys = ["pod_uid", "container", "gpu", "slice", "starts_at"]
    assert whole.sort(keys).equals(plain.sort(keys))


def test_an_evicted_pod_is_over_and_another_waits_in_its_place() -> None:
    world = world_of()
    advance(world, world.now + 2 * HOUR)
    pod = next(each for each in SimulatorCluster(world).observe().pods if each.workload.kind == "Deployment")
    workload = pod.workload
    SimulatorCluster(world).make(
        Move("m", MoveKind.SUSPEND_WORKLOAD, pod.cluster, ObjectRef(workload.kind, workload.namespace, workload.name),
             "c", "r")
    )  # fmt: skip
    with Store.open(None, clock=FixedClock(world.spec.starts_at)) as store:
        stored(world, store, 3.0)
        row = store.read("pod").filter(pl.col("pod_uid") == pod.uid).row(0, named=True)
    assert (row["phase"], row["ends_at"]) == ("Running", world.spec.starts_at + 2 * HOUR)


def test_what_is_asked_of_mig_nodes_is_read_off_what_the_fleet_tells(tmp_path: Path) -> None:
    plain = default_spec(48, 1.0)
    spaces = tuple(
        replace(each, slice_profiles=("3g.40gb",), slice_share=1.0, notebook=1.0, training=0.0, pools=("a100-mig",))
        if each.name == "research" else each
        for each in plain.workspaces
    )  # fmt: skip
    world = build(replace(plain, workspaces=spaces, faults=FaultSpec(rate_factor=0.0)))
    now = world.spec.starts_at + 2 * HOUR
    with Store.open(tmp_path / "s.duckdb", clock=FixedClock(now)) as store:
        stored(world, store, 2.0)
        engine = store.engine
        wanted = wanted_devices(engine.run(waiting_pods(engine, now)))
        nodes = cut_nodes(engine.run(mig_nodes(engine)), engine.run(held_slices(engine, now)))
    assert wanted["west"]["3g.40gb"] > 0
    assert [node.layout for node in nodes] == ["all-1g.10gb"]
