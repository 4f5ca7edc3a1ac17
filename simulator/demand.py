"""What workspaces want: jobs that arrive, of which kind and when.

Three shapes: persistent (the same all week), step (a level for days, then another), burst (little, and at times
very much). Arrivals are a Poisson process thinned by the shape, from a generator of each workspace's own.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.jobs import arriving, draw_job
from simulator.lifecycle import add_workload
from simulator.randomness import Purpose, generator
from simulator.spec import FleetSpec, WorkspaceSpec
from simulator.work import HOUR_S, Kind, is_office_hour
from simulator.world import Happening, World

_STEP_S, _BURST_S = 72 * HOUR_S, 6 * HOUR_S
_STEP_LEVELS = (0.3, 0.7, 1.0, 1.4, 1.6)
_BURST_SHARE, _BURST_LEVEL, _BURST_REST = 0.12, 4.0, 0.6
_OFFICE_LEVEL, _NIGHT_LEVEL = 1.35, 0.8
_PEAK = {"persistent": 1.0, "step": max(_STEP_LEVELS), "burst": _BURST_LEVEL}
_MANY_QUEUED = 400


def populate(world: World) -> None:
    """Fill the fleet as if it had run for long: services for good, other work with a part of it left."""
    for index, workspace in enumerate(world.spec.workspaces):
        rng = world.demand_rngs[index]
        for kind in Kind:
            wanted = _wanted_gpus(workspace, kind)
            got = 0.0
            while got < wanted:
                size = _submit_one(world, index, kind, rng, age=float(rng.random()))
                if size <= 0.0:
                    break
                got += size
        _push_next(world, index)


def arrive(world: World, workspace_index: int) -> None:
    """Submit one job of a workspace where its shape lets this moment have one, and draw the next moment."""
    workspace = world.spec.workspaces[workspace_index]
    rng = world.demand_rngs[workspace_index]
    level = _level(world, workspace_index, workspace)
    is_taken = rng.random() * _PEAK[workspace.demand] * _OFFICE_LEVEL < level
    bounds = np.cumsum(world.arrival_rates[workspace_index])
    kind = Kind(int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right")))
    queued = int(world.pending_jobs[:, workspace_index].sum())
    if is_taken and queued < _MANY_QUEUED:
        _submit_one(world, workspace_index, kind, rng)
    _push_next(world, workspace_index)


def _push_next(world: World, index: int) -> None:
    workspace = world.spec.workspaces[index]
    rate = float(world.arrival_rates[index].sum()) * _PEAK[workspace.demand] * _OFFICE_LEVEL
    if rate > 0:
        wait = world.demand_rngs[index].exponential(1.0 / rate)
        world.push(world.now_s + max(1, round(wait)), Happening.ARRIVAL, index)


def _level(world: World, index: int, workspace: WorkspaceSpec) -> float:
    if workspace.demand == "persistent":
        return 1.0
    period = world.now_s // (_STEP_S if workspace.demand == "step" else _BURST_S)
    key = (index, period)
    if key not in world.demand_levels:
        rng = generator(world.spec.seed, Purpose.SHAPE, index, period)
        if workspace.demand == "step":
            world.demand_levels[key] = float(rng.choice(_STEP_LEVELS))
        else:
            world.demand_levels[key] = _BURST_LEVEL if rng.random() < _BURST_SHARE else _BURST_REST
    return world.demand_levels[key] * (_OFFICE_LEVEL if is_office_hour(world.spec, world.now_s) else _NIGHT_LEVEL)


def _wanted_gpus(workspace: WorkspaceSpec, kind: Kind) -> float:
    shares = workspace.shares()
    quota = sum(quota.gpus for quota in workspace.quotas)
    return workspace.load * quota * shares[kind] / sum(shares)


def arrival_rates(spec: FleetSpec, workspace: WorkspaceSpec) -> NDArray[np.float64]:
    """Return jobs a second of each kind, such that the wanted GPUs are held in the mean; services do not arrive."""
    rates = np.zeros(len(Kind))
    for kind in (Kind.TRAINING, Kind.NOTEBOOK, Kind.BATCH):
        rates[kind] = _wanted_gpus(workspace, kind) / (_mean_gpus(spec, kind) * _mean_seconds(spec, kind))
    return rates


def _mean_gpus(spec: FleetSpec, kind: Kind) -> float:
    if kind is Kind.NOTEBOOK:
        return 1.0
    if kind is Kind.BATCH:
        return float(np.average(spec.batch.gpus, weights=spec.batch.gpus_weights))
    alone = float(np.average(spec.training.gpus, weights=spec.training.gpus_weights))
    nodes = float(np.average(spec.training.gang_nodes, weights=spec.training.gang_nodes_weights))
    per_node = max(pool.gpus_per_node for cluster in spec.clusters for pool in cluster.pools)
    return (1 - spec.training.gang_share) * alone + spec.training.gang_share * nodes * per_node


def _mean_seconds(spec: FleetSpec, kind: Kind) -> float:
    how = arriving(spec, kind)
    mean_hours = min(how.longest_hours, how.median_hours * float(np.exp(how.spread**2 / 2)))
    if kind is Kind.TRAINING:
        mean_hours += spec.training.hold_share * spec.training.hold_hours
    return mean_hours * HOUR_S


def _submit_one(world: World, index: int, kind: Kind, rng: np.random.Generator, age: float = 0.0) -> float:
    """Submit one workload, `age` (ratio) of its work done before; return its GPUs, 0 where it can run nowhere."""
    job = draw_job(world, index, kind, rng)
    if job is None:
        return 0.0
    workload, work_s = job
    add_workload(world, workload, int(work_s * (1.0 - age)))
    return workload.nodes * workload.width * workload.replicas * workload.unit_gpus
