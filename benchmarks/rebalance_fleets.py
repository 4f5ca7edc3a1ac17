"""What workspaces wanted, hour by hour, and how a past-only forecast saw it: the ground of `rebalance.py`.

Demand is what runs plus what waits if every job started at once: no quota shapes it. Simulated fleets take the jobs of
the default generator; recorded ones the hourly series of a file of traces.
"""

from dataclasses import dataclass, replace
from heapq import heappop
from pathlib import Path

import numpy as np
import polars as pl

from actions.quota_demand import Floats
from simulator import demand
from simulator.presets import default_spec
from simulator.step import build
from simulator.work import HOUR_S, Kind
from simulator.world import Happening, World

LEVELS = np.arange(0.05, 0.96, 0.05).round(2)
NEAREST = 48
_LOAD, _MANY = 0.9, 2.0
_STEP_S = 300
_STEPS = HOUR_S // _STEP_S


@dataclass(frozen=True)
class Pool:
    """One pool: quotas, how far each may borrow, and demand `[workspace, hour]`, all in GPUs."""

    name: str
    workspaces: tuple[str, ...]
    quotas: Floats
    borrowing: Floats
    demand: Floats


def simulated(seed: int, hours: int) -> list[Pool]:
    """Return the clusters of a default fleet of 512 GPUs with the demand of its jobs."""
    world = build(replace(default_spec(days=hours / 24), seed=seed))
    end_s = hours * HOUR_S
    while world.agenda and world.agenda[0][0] < end_s:
        at_s, _, happening, index, _ = heappop(world.agenda)
        if happening is Happening.ARRIVAL:
            world.now_s = at_s
            world.pending_jobs[:] = 0  # nothing waits: every job is taken to start at once
            demand.arrive(world, index)
    wanted = _wanted(world, hours)
    pools = []
    for place, cluster in enumerate(world.spec.clusters):
        here = [index for at, index in sorted(world.quota_now) if at == place]
        quotas = [world.quota_now[place, index] for index in here]
        pools.append(
            Pool(
                cluster.name,
                tuple(world.spec.workspaces[index].name for index in here),
                np.array([quota.gpus for quota in quotas]),
                np.array([quota.borrowing_gpus or 0.0 for quota in quotas]),
                wanted[place, here],
            )
        )
    return pools


def _wanted(world: World, hours: int) -> Floats:
    steps = hours * _STEPS
    change = np.zeros((len(world.spec.clusters), len(world.spec.workspaces), steps + 1))
    for task in world.tasks:
        workload = world.workloads[task.workload]
        first = min(task.submitted_s // _STEP_S, steps)
        last = min(max((task.submitted_s + task.work_s) // _STEP_S, first + 1), steps)
        change[workload.cluster, workload.workspace, first] += task.gpus
        if workload.kind is not Kind.SERVING:  # a service stays
            change[workload.cluster, workload.workspace, last] -= task.gpus
    running = np.maximum(change.cumsum(axis=2)[:, :, :steps], 0.0)
    wanted: Floats = running.reshape(*running.shape[:2], hours, _STEPS).mean(axis=3)
    return wanted


def recorded(root: Path, history: int) -> list[Pool]:
    """Return one pool for each data set of the hourly series; sums over tenants are left out.

    Quotas are the tenants' recorded capacities. Where those are more than twice what was wanted (a part of the jobs was
    recorded) they are cut down alike, so that the mean demand fills 0.9 of them; where there are none they follow the
    mean demand of the first `history` hours, filled as much.
    """
    pools = []
    for path in sorted((root / "traces").glob("series_hourly*.parquet")):
        frame = pl.read_parquet(path).filter(~pl.col("tenant").str.starts_with("ALL"))
        for (name,), rows in frame.sort("dataset", "tenant", "ts").group_by("dataset", maintain_order=True):
            wide = rows.pivot("tenant", index="ts", values="gpus_requested").sort("ts").drop("ts")
            wanted = wide.fill_null(strategy="forward").drop_nulls().to_numpy().T.astype(np.float64)
            told = rows.group_by("tenant", maintain_order=True).agg(pl.col("capacity").max())["capacity"]
            filled = float(wanted.sum(axis=0).mean())
            is_told = told.null_count() == 0
            sizes = told.to_numpy().astype(np.float64) if is_told else wanted[:, :history].mean(axis=1)
            is_whole = is_told and sizes.sum() <= _MANY * filled
            total = float(sizes.sum()) if is_whole else filled / _LOAD
            quotas = largest_remainder(round(total), sizes)
            pools.append(Pool(f"{path.stem} {name}", tuple(wide.columns), quotas, np.floor(quotas / 4), wanted))
    return pools


def largest_remainder(total: float, weights: Floats) -> Floats:
    """Divide whole GPUs by weights; all alike where every weight is zero."""
    even = weights if weights.sum() > 0 else np.ones_like(weights)
    exact = total * even / even.sum()
    parts: Floats = np.floor(exact)
    most = np.argsort(parts - exact, kind="stable")[: round(total - parts.sum())]
    parts[most] += 1
    return parts


def forecast(past: Floats, ahead: int) -> Floats:
    """Return quantiles (at `LEVELS`) of the demand of any hour of the next `ahead`, by workspace, from the past alone.

    The past hours whose demand was nearest to now's are looked up; each change that followed one of them, from where
    demand is now, is one draw.
    """
    now = past[:, -1:]
    draws = []
    for hours in range(1, ahead + 1):
        starts, ends = past[:, :-hours], past[:, hours:]
        nearest = np.argsort(np.abs(starts - now), axis=1, kind="stable")[:, :NEAREST]
        draws.append(now + np.take_along_axis(ends - starts, nearest, 1))
    quantiles: Floats = np.quantile(np.maximum(np.concatenate(draws, axis=1), 0.0), LEVELS, axis=1).T
    return quantiles
