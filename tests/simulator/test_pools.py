"""Pools that follow their limits: nodes come where work waits, empty ones leave, and nothing is told of who is away."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from fleet.errors import BadInput, StaleState
from fleet.move import Move, MoveKind
from fleet.state import FleetState, ObjectRef
from simulator.care_spec import CareSpec
from simulator.cluster import SimulatorCluster
from simulator.faults_spec import FaultRates, FaultSpec
from simulator.presets import default_spec
from simulator.source import SimulatorSource
from simulator.spec import FleetSpec, PoolSpec
from simulator.step import advance, build
from simulator.world import World

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
POOL = "a100-owned"


def spec_of(further: int = 2, load: float = 3.0, **changes: Any) -> FleetSpec:
    """Return a fleet whose first pool has iron for further nodes, and workspaces with quota for them."""
    plain = default_spec(48, 1.0)
    clusters = tuple(
        replace(
            cluster,
            pools=tuple(
                replace(pool, nodes_max=pool.nodes + further) if pool.name == POOL else pool for pool in cluster.pools
            ),
        )
        for cluster in plain.clusters
    )
    spaces = tuple(
        replace(each, load=load, quotas=tuple(replace(quota, borrowing_gpus=None) for quota in each.quotas))
        for each in plain.workspaces
    )
    return replace(plain, clusters=clusters, workspaces=spaces, faults=FaultSpec(rate_factor=0.0), **changes)


def set_limit(world: World, limit: float | None, pool: str = POOL) -> None:
    target = ObjectRef("NodePool", "", pool)
    cluster = next(each.cluster for each in SimulatorCluster(world).observe().pools if each.ref == target)
    SimulatorCluster(world).make(
        Move("m", MoveKind.SET_POOL_LIMIT, cluster, target, "c", "r", arguments={"limit": limit})
    )


def nodes(state: FleetState, pool: str = POOL) -> list[str]:
    return [node.name for node in state.nodes if node.pool == pool]


def later(world: World, by: timedelta) -> FleetState:
    advance(world, world.now + by)
    return SimulatorCluster(world).observe()


def frames_of(world: World, since: timedelta, until: timedelta) -> dict[str, pl.DataFrame]:
    found: dict[str, list[pl.DataFrame]] = {}
    origin = world.spec.starts_at
    for batch in SimulatorSource(world).collect(origin + since, origin + until):
        for name, frame in batch.frames.items():
            found.setdefault(name, []).append(frame)
    return {name: pl.concat(parts) for name, parts in found.items()}


def test_nodes_join_after_a_while_where_work_waits_and_the_limit_lets_them() -> None:
    world = build(spec_of())
    before = nodes(later(world, HOUR))
    assert len(before) == 1
    assert len(nodes(later(world, HOUR))) == 1, "the limit is what the pool began with"
    set_limit(world, 16.0)
    assert len(nodes(later(world, 7 * MINUTE))) == 1
    state = later(world, 3 * MINUTE)
    assert nodes(state) == [*before, "a100-owned-001"]
    later(world, 5 * MINUTE)
    joined = [pod for pod in SimulatorCluster(world).observe().pods if pod.node == "a100-owned-001"]
    assert joined, "what waited runs there"
    set_limit(world, None)
    assert len(nodes(later(world, HOUR))) == 3, "without a limit, as far as there is iron"


def test_a_raised_limit_alone_brings_no_node() -> None:
    world = build(spec_of(load=0.1))
    later(world, HOUR)
    set_limit(world, 24.0)
    assert len(nodes(later(world, 2 * HOUR))) == 1


def test_a_node_is_not_told_of_before_it_has_joined() -> None:
    world = build(spec_of())
    later(world, HOUR)
    set_limit(world, 16.0)
    frames = frames_of(world, timedelta(0), 3 * HOUR)
    joined_at = next(
        world.moment(spells[0][0]) for node, spells in world.presence.items()
        if spells and world.fabric.node_name[node] == "a100-owned-001"
    )  # fmt: skip
    mine = frames["gpu"].filter(pl.col("node") == "a100-owned-001")["gpu_uuid"].unique()
    told = frames["gpu_sample"].filter(pl.col("gpu_uuid").is_in(mine.to_list()))
    assert mine.len() == 8
    assert told.filter(pl.col("ts") < joined_at).is_empty()
    assert told["gpu_uuid"].n_unique() == 8
    assert frames["node"].filter(pl.col("node") == "a100-owned-002").is_empty()
    boots = frames["event"].filter(pl.col("kind") == "boot")
    assert boots.select("node", "ts").rows() == [("a100-owned-001", joined_at)]
    pools = frames["node_pool"].filter(pl.col("pool") == POOL).tail(1)
    assert pools.select("nodes", "nodes_max").row(0) == (2, 2)


def test_empty_nodes_above_the_limit_leave_after_a_while_and_busy_ones_stay() -> None:
    world = build(spec_of(further=0, load=0.02))
    before = later(world, HOUR)
    for pool in {each.pool for each in before.nodes}:
        set_limit(world, 0.0, str(pool))
    assert len(later(world, 25 * MINUTE).nodes) == len(before.nodes)
    after = later(world, 3 * HOUR)
    holding = {pod.node for pod in after.pods}
    assert {node.name for node in after.nodes} == holding
    assert len(after.nodes) < len(before.nodes)
    gone = {node.name for node in before.nodes} - holding
    found = frames_of(world, timedelta(0), 6 * HOUR)
    left = found["gpu_sample"].join(found["gpu"].select("gpu_uuid", "node").unique(), on="gpu_uuid")
    latest = dict(left.group_by("node").agg(pl.col("ts").max()).iter_rows())
    for node, spells in world.presence.items():
        ended = world.moment(spells[-1][1] or 0)
        assert ended - 2 * MINUTE < latest[world.fabric.node_name[node]] < ended
    assert gone == {world.fabric.node_name[node] for node in world.presence}
    again = frames_of(world, timedelta(0), 6 * HOUR)
    assert again["gpu_sample"].equals(found["gpu_sample"]), "the past can be read again"


def test_a_limit_that_is_put_back_in_time_keeps_the_nodes() -> None:
    world = build(spec_of(further=0, load=0.02))
    count = len(later(world, HOUR).nodes)
    set_limit(world, 0.0, "t4")
    later(world, 20 * MINUTE)
    set_limit(world, 8.0, "t4")
    assert len(later(world, 2 * HOUR).nodes) == count


def test_a_node_that_somebody_works_on_does_not_leave_and_one_that_left_can_t_be_moved() -> None:
    world = build(spec_of(further=0, load=0.0))
    state = later(world, HOUR)
    empty = [node for node in state.nodes if node.name not in {pod.node for pod in state.pods}]
    kept, gone = empty[0], empty[1]

    def cordon(name: str, cluster: str) -> None:
        SimulatorCluster(world).make(
            Move("m", MoveKind.CORDON_NODE, cluster, ObjectRef("Node", "", name), "c", "r", node=name)
        )

    cordon(kept.name, kept.cluster)
    for node in (kept, gone):
        set_limit(world, 0.0, str(node.pool))
    names = {node.name for node in later(world, 2 * HOUR).nodes}
    assert kept.name in names
    assert gone.name not in names
    with pytest.raises(StaleState, match="there is no node"):
        cordon(gone.name, gone.cluster)


def test_a_node_can_come_back_and_faults_never_strike_who_is_away() -> None:
    often = FaultSpec(rates=FaultRates(xid_79=20.0), rate_factor=30.0)
    world = build(replace(spec_of(), faults=often, care=CareSpec(join_minutes=1.0, leave_minutes=5.0)))
    away = set(world.presence)
    advance(world, world.now + 12 * HOUR)
    assert world.faults
    assert (
        not {node for fault in world.faults for node in {int(world.fabric.gpu_node[gpu]) for gpu in fault.gpus}} & away
    )


def test_iron_that_never_comes_changes_nothing_of_the_rest() -> None:
    plain = build(spec_of(further=0))
    same = build(replace(plain.spec, clusters=tuple(
        replace(each, pools=tuple(replace(pool, nodes_max=pool.nodes) for pool in each.pools))
        for each in plain.spec.clusters
    )))  # fmt: skip
    one, other = (frames_of(world, timedelta(0), 2 * HOUR) for world in (plain, same))
    assert all(one[name].equals(other[name]) for name in one)


def test_less_iron_than_nodes_is_refused() -> None:
    with pytest.raises(BadInput, match="nodes_max"):
        PoolSpec("p", "NVIDIA L40S", 4, nodes_max=3)
