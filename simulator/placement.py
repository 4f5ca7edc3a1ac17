"""The queue: who runs next, and where. Fair by use over quota, never above the quota, gangs all at once."""

import numpy as np

from simulator.changes import NO_POD
from simulator.lifecycle import start, stop
from simulator.work import HOUR_S
from simulator.world import Workload, World

_LOOK_AHEAD = 6
_ROUNDING = 1e-6


def schedule(world: World) -> None:
    """Start waiting tasks while any of them fits, the workspace with the least use of its quota first."""
    world.is_schedule_due = False
    _give_up(world)
    by_section: dict[int, list[int]] = {}
    for (section, workspace), queue in world.waiting.items():
        if queue:
            by_section.setdefault(section, []).append(workspace)
    for section in sorted(by_section):
        _schedule_section(world, section, sorted(by_section[section]))


def _schedule_section(world: World, section: int, workspaces: list[int]) -> None:
    part = world.fabric.sections[section]
    if not world.free_units[part.nodes].any():
        return
    hopeful = list(workspaces)
    # Room only shrinks within a round, so a shape that did not fit once needs no second look.
    unfitting: set[tuple[int, int]] = set()
    while hopeful:
        chosen = min(hopeful, key=lambda workspace: _use_of_quota(world, part.cluster, workspace))
        if not _start_one(world, section, chosen, unfitting):
            hopeful.remove(chosen)


def _use_of_quota(world: World, cluster: int, workspace: int) -> float:
    quota = world.quota_now.get((cluster, workspace))
    guaranteed = quota.gpus if quota is not None else 0.0
    return float(world.used_gpus[cluster, workspace]) / max(guaranteed, _ROUNDING)


def _start_one(world: World, section: int, workspace: int, unfitting: set[tuple[int, int]]) -> bool:
    cluster = world.fabric.sections[section].cluster
    quota = world.quota_now.get((cluster, workspace))
    queue = world.waiting[(section, workspace)]
    room = (quota.most_gpus if quota is not None else 0.0) - float(world.used_gpus[cluster, workspace]) + _ROUNDING
    for index in queue[:_LOOK_AHEAD]:
        task = world.tasks[index]
        workload = world.workloads[task.workload]
        shape = (workload.nodes, workload.width)
        if task.gpus > room or shape in unfitting:
            continue
        units = _find_units(world, section, workload)
        if units is None:
            unfitting.add(shape)
            continue
        queue.remove(index)
        start(world, task, units)
        return True
    return False


def _find_units(world: World, section: int, workload: Workload) -> list[tuple[int, list[int]]] | None:
    nodes = world.fabric.sections[section].nodes
    free = world.free_units[nodes]
    fitting = np.flatnonzero(free >= workload.width)
    if len(fitting) < workload.nodes:
        return None
    # Fullest first, so that whole nodes stay whole for gangs.
    fullest = fitting[np.argsort(free[fitting], kind="stable")][: workload.nodes]
    return [(int(nodes[place]), _free_on(world, int(nodes[place]), workload.width)) for place in fullest]


def _free_on(world: World, node: int, count: int) -> list[int]:
    units = world.fabric.units_of_node(node)
    return [unit for unit in units if world.unit_pod[unit] == NO_POD and world.is_open(unit)][:count]


def _give_up(world: World) -> None:
    longest_s = world.spec.patience_hours * HOUR_S
    for queue in world.waiting.values():
        while queue and world.now_s - world.tasks[queue[0]].submitted_s > longest_s:
            stop(world, world.tasks[queue[0]], "cancelled")
