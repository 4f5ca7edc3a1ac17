"""Time passes: build a world, and let it live from one moment to the next."""

from datetime import datetime, timedelta
from heapq import heappop

import numpy as np

from simulator import care, demand, faults, lifecycle, placement, pools
from simulator.changes import NO_POD, ChangeLog
from simulator.fabric import Fabric, lay_out
from simulator.randomness import Purpose, generator
from simulator.slices import first_layout, first_slices, present
from simulator.spec import FleetSpec
from simulator.world import DemandRecord, Happening, NodeOrders, QuotaRecord, World


def build(spec: FleetSpec) -> World:
    """Make the world that `spec` tells of, at its first second, with its first jobs in the queue."""
    fabric = lay_out(spec)
    shape = (len(spec.clusters), len(spec.workspaces))
    gpus, nodes = len(fabric.gpu_node), len(fabric.node_name)
    is_there = present(fabric)
    there = np.concatenate([np.arange(len(part.nodes)) < part.nodes_first for part in fabric.sections])
    quotas = _first_quotas(spec)
    world = World(
        spec=spec,
        fabric=fabric,
        changes=ChangeLog(fabric),
        unit_pod=np.full(len(fabric.unit_gpu), NO_POD),
        unit_is_there=is_there,
        slices=first_slices(fabric),
        free_units=np.where(there, np.add.reduceat(is_there.astype(np.int64), fabric.node_first_unit), 0),
        gpu_is_fenced=np.zeros(gpus, dtype=np.bool_),
        gpu_lost_count=np.zeros(gpus, dtype=np.int64),
        gpu_fault_count=np.zeros(gpus, dtype=np.int64),
        node_boot_count=np.zeros(nodes, dtype=np.int64),
        node_is_there=there,
        node_cordoned_by=[None] * nodes,
        node_is_schedulable=np.ones(nodes, dtype=np.bool_),
        node_version=np.ones(nodes, dtype=np.int64),
        orders=[_first_orders(fabric, node) for node in range(nodes)],
        pool_limits=_first_limits(spec),
        used_gpus=np.zeros(shape),
        pending_gpus=np.zeros(shape),
        running_jobs=np.zeros(shape, dtype=np.int64),
        pending_jobs=np.zeros(shape, dtype=np.int64),
        quota_now={(quota.cluster, quota.workspace): quota for quota in quotas},
        quotas=quotas,
        demand_rngs=[generator(spec.seed, Purpose.DEMAND, index) for index in range(len(spec.workspaces))],
        arrival_rates=[demand.arrival_rates(spec, workspace) for workspace in spec.workspaces],
        presence={node: [] for node in np.flatnonzero(~there).tolist()},
    )
    demand.populate(world)
    faults.plan_injections(world)
    faults.plan_day(world, 0)
    world.push(0, Happening.DEMAND)
    return world


def step(world: World, duration: timedelta) -> None:
    """Let `duration` pass (parts of a second count as a whole one)."""
    advance(world, world.now + duration)


def advance(world: World, until: datetime) -> None:
    """Let time pass up to `until`: everything before it has happened, nothing at or after it. The past stays."""
    end_s = world.seconds(until)
    while world.agenda and world.agenda[0][0] < end_s:
        at_s, _, happening, index, detail = heappop(world.agenda)
        world.now_s = at_s
        _let_happen(world, happening, index, detail)
    world.now_s = max(world.now_s, end_s)


def _let_happen(world: World, happening: Happening, index: int, detail: int) -> None:
    match happening:
        case Happening.ARRIVAL:
            demand.arrive(world, index)
        case Happening.PHASE_END:
            lifecycle.begin_next_phase(world, world.tasks[index])
        case Happening.SCHEDULE:
            placement.schedule(world)
            pools.look_at_pools(world)
        case Happening.JOIN | Happening.LEAVE:
            pools.carry_out(world, happening, index, detail)
        case Happening.DEMAND:
            _note_demand(world)
        case Happening.FAULT_DAY:
            faults.plan_day(world, index)
        case Happening.FAULT_START:
            faults.begin(world, index, detail)
        case Happening.FAULT_NEWS:
            faults.tell(world, index, detail)
        case Happening.FAULT_END:
            faults.end(world, index)
        case _:
            care.carry_out(world, happening, index, detail)


def _note_demand(world: World) -> None:
    capacity = np.zeros(world.used_gpus.shape)
    sizes = [pools.gpus_there(world, cluster) for cluster in range(len(world.spec.clusters))]
    for (cluster, workspace), quota in world.quota_now.items():
        capacity[cluster, workspace] = min(quota.most_gpus, sizes[cluster])
    record = DemandRecord(
        at_s=world.now_s,
        running_gpus=world.used_gpus.round(6),
        pending_gpus=world.pending_gpus.round(6),
        capacity_gpus=capacity,
        running_jobs=world.running_jobs.copy(),
        pending_jobs=world.pending_jobs.copy(),
    )
    world.demand.append(record)
    world.push(world.now_s + world.spec.demand_interval_s, Happening.DEMAND)


def _first_orders(fabric: Fabric, node: int) -> NodeOrders:
    section = fabric.sections[int(fabric.node_section[node])]
    if not section.is_mig:
        return NodeOrders()
    return NodeOrders(layout=first_layout(section.model), layout_state="success")


def _first_limits(spec: FleetSpec) -> dict[tuple[int, str], tuple[float | None, int]]:
    return {
        (place, pool.name): (float(pool.gpus), 1)
        for place, cluster in enumerate(spec.clusters)
        for pool in cluster.pools
    }


def _first_quotas(spec: FleetSpec) -> list[QuotaRecord]:
    places = {cluster.name: index for index, cluster in enumerate(spec.clusters)}
    return [
        QuotaRecord(places[quota.cluster], index, quota.gpus, quota.borrowing_gpus, 0, weight=workspace.weight)
        for index, workspace in enumerate(spec.workspaces)
        for quota in workspace.quotas
    ]
