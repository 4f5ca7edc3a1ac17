"""The queue: who runs next, and where. Fair by use over quota, never above the quota, gangs all at once."""

from collections.abc import Iterator

import numpy as np

from simulator.changes import NO_POD
from simulator.fabric import Ints
from simulator.lifecycle import start, stop
from simulator.work import HOUR_S
from simulator.world import Workload, World

_LOOK_AHEAD = 6
_ROUNDING = 1e-6
_Shape = tuple[int, int, str | None]  # nodes, units on each, MIG profile


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
    unfitting: set[_Shape] = set()
    while hopeful:
        chosen = min(hopeful, key=lambda workspace: _use_of_quota(world, part.cluster, workspace))
        if not _start_one(world, section, chosen, unfitting):
            hopeful.remove(chosen)


def _use_of_quota(world: World, cluster: int, workspace: int) -> float:
    quota = world.quota_now.get((cluster, workspace))
    guaranteed = quota.gpus if quota is not None else 0.0
    return float(world.used_gpus[cluster, workspace]) / max(guaranteed, _ROUNDING)


def _start_one(world: World, section: int, workspace: int, unfitting: set[_Shape]) -> bool:
    cluster = world.fabric.sections[section].cluster
    quota = world.quota_now.get((cluster, workspace))
    queue = world.waiting[(section, workspace)]
    room = (quota.most_gpus if quota is not None else 0.0) - float(world.used_gpus[cluster, workspace]) + _ROUNDING
    for index in _in_turn(world, queue)[:_LOOK_AHEAD]:
        task = world.tasks[index]
        workload = world.workloads[task.workload]
        shape = (workload.nodes, workload.width, workload.profile)
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


def _in_turn(world: World, queue: list[int]) -> list[int]:
    """Return a queue in the order it is served: what was boosted first, else as it came."""
    boosts = {index: world.workloads[world.tasks[index].workload].priority_boost for index in queue}
    if not any(boosts.values()):
        return queue
    return sorted(queue, key=lambda index: -(boosts[index] or 0))


def _find_units(world: World, section: int, workload: Workload) -> list[tuple[int, list[int]]] | None:
    nodes = world.fabric.sections[section].nodes
    free = world.free_units[nodes]
    if (
        world.fabric.sections[section].is_mig
        and world.slices.recut
        and not world.slices.recut.isdisjoint(_gpus_of(world, nodes))
    ):
        free = np.array([len(_free_on(world, node, workload)) for node in nodes.tolist()])
    elif workload.profile not in {None, world.fabric.sections[section].model.slice_profile}:
        return None
    fitting = np.flatnonzero(free >= workload.width)
    if len(fitting) < workload.nodes:
        return None
    # Fullest first, so that whole nodes stay whole for gangs.
    fullest = fitting[np.argsort(free[fitting], kind="stable")][: workload.nodes]
    return [(int(nodes[place]), _free_on(world, int(nodes[place]), workload)[: workload.width]) for place in fullest]


def _gpus_of(world: World, nodes: Ints) -> Iterator[int]:
    for node in nodes.tolist():
        yield from world.fabric.gpus_of_node(node)


def _free_on(world: World, node: int, workload: Workload) -> list[int]:
    """Return the units of a node that a pod of a workload may begin on: free, open, and of its MIG profile."""
    units = world.fabric.units_of_node(node)
    free = [unit for unit in units if world.unit_pod[unit] == NO_POD and world.is_open(unit)]
    if workload.profile is None:
        return free
    lives = {unit: world.slices.now(unit) for unit in free}
    return [unit for unit, life in lives.items() if life is not None and life.profile == workload.profile]


def _give_up(world: World) -> None:
    longest_s = world.spec.patience_hours * HOUR_S
    for queue in world.waiting.values():
        while queue and world.now_s - world.tasks[queue[0]].submitted_s > longest_s:
            stop(world, world.tasks[queue[0]], "cancelled")
