"""Pools follow their limits: nodes join after a while where work waits for them, and empty ones above the limit leave.

A pool has iron for `nodes_max` nodes. Those that are not there hold nothing, tell nothing and are not shown.
"""

import math
from collections.abc import Iterable

from simulator.changes import NO_POD
from simulator.fabric import Section
from simulator.faults import note
from simulator.spec import PoolSpec
from simulator.world import Happening, World

_MINUTE_S = 60
_HAIR = 1e-9


def look_at_pools(world: World) -> None:
    """Let nodes be on their way to pools that may have more and need them, and off those that have too many."""
    for key in world.pool_limits:
        nodes = _nodes(world, key)
        more = most_nodes(world, key) - len(_there(world, nodes)) - len(world.joining.intersection(nodes))
        if more > 0:
            _grow(world, key, more)
        elif more < 0:
            _shrink(world, nodes, -more)


def carry_out(world: World, happening: Happening, node: int, asked_s: int) -> None:
    """Let a node join or leave, if that is still called for."""
    section = world.fabric.sections[int(world.fabric.node_section[node])]
    key = (section.cluster, section.pool.name)
    spare = most_nodes(world, key) - len(_there(world, _nodes(world, key)))
    if happening is Happening.JOIN:
        world.joining.discard(node)
        if spare > 0:
            _join(world, node)
    elif world.leaving.get(node) == asked_s:
        del world.leaving[node]
        if spare < 0 and _is_spare(world, node):
            _leave(world, node)
    world.push_schedule()


def most_nodes(world: World, key: tuple[int, str]) -> int:
    """Return the nodes that a pool may have by its limit and its iron."""
    limit, _ = world.pool_limits[key]
    pool = _pool(world, key)
    return pool.most_nodes if limit is None else min(pool.most_nodes, math.floor(limit / pool.gpus_per_node + _HAIR))


def gpus_there(world: World, cluster: int) -> int:
    """Return the GPUs of a cluster's nodes that are there."""
    return sum(
        len(_there(world, part.nodes.tolist())) * part.pool.gpus_per_node
        for part in world.fabric.sections
        if part.cluster == cluster
    )


def nodes_there(world: World, key: tuple[int, str]) -> int:
    """Return how many nodes of a pool are there."""
    return len(_there(world, _nodes(world, key)))


def _pool(world: World, key: tuple[int, str]) -> PoolSpec:
    return next(pool for pool in world.spec.clusters[key[0]].pools if pool.name == key[1])


def _sections(world: World, key: tuple[int, str]) -> list[tuple[int, Section]]:
    parts = enumerate(world.fabric.sections)
    return [(place, part) for place, part in parts if (part.cluster, part.pool.name) == key]


def _nodes(world: World, key: tuple[int, str]) -> list[int]:
    return [node for _, part in _sections(world, key) for node in part.nodes.tolist()]


def _there(world: World, nodes: Iterable[int]) -> list[int]:
    return [node for node in nodes if world.node_is_there[node]]


def _grow(world: World, key: tuple[int, str], more: int) -> None:
    join_s = max(1, round(world.spec.care.join_minutes * _MINUTE_S))
    for place, part in _sections(world, key):
        nodes = part.nodes.tolist()
        coming = world.joining.intersection(nodes)
        away = [node for node in nodes if not world.node_is_there[node] and node not in coming]
        short = _waiting_gpus(world, place) - len(coming) * part.pool.gpus_per_node
        count = min(more, len(away), math.ceil(short / part.pool.gpus_per_node - _HAIR))
        for node in away[: max(0, count)]:
            world.joining.add(node)
            world.push(world.now_s + join_s, Happening.JOIN, node)
            more -= 1


def _waiting_gpus(world: World, section: int) -> float:
    """Return the GPUs that waiting work of a section could use: as far as its workspaces' quotas reach."""
    part = world.fabric.sections[section]
    total = 0.0
    for (place, workspace), queue in world.waiting.items():
        quota = world.quota_now.get((part.cluster, workspace))
        if place == section and queue and quota is not None:
            room = quota.most_gpus - float(world.used_gpus[part.cluster, workspace])
            total += max(0.0, min(room, sum(world.tasks[index].gpus for index in queue)))
    return total - float(world.free_units[part.nodes].sum()) * part.unit_gpus


def _shrink(world: World, nodes: list[int], over: int) -> None:
    leave_s = max(1, round(world.spec.care.leave_minutes * _MINUTE_S))
    over -= sum(node in world.leaving for node in nodes)
    spare = [node for node in reversed(nodes) if node not in world.leaving and _is_spare(world, node)]
    for node in spare[: max(0, over)]:
        world.leaving[node] = world.now_s
        world.push(world.now_s + leave_s, Happening.LEAVE, node, world.now_s)


def _is_spare(world: World, node: int) -> bool:
    """Return whether a node is there, holds nothing, and nobody wants or mends anything of it."""
    gpus, orders = world.fabric.gpus_of_node(node), world.orders[node]
    return bool(
        world.node_is_there[node]
        and world.node_is_schedulable[node]
        and world.node_boot_count[node] == 0
        and not (orders.taints or orders.drain or orders.repair or orders.mark)
        and not any(world.gpu_is_fenced[gpu] or world.gpu_fault_count[gpu] for gpu in gpus)
        and all(world.unit_pod[unit] == NO_POD for unit in world.fabric.units_of_node(node))
    )


def _join(world: World, node: int) -> None:
    world.node_is_there[node] = True
    world.presence.setdefault(node, []).append((world.now_s, None))
    world.node_version[node] += 1
    note(world, node, None, "boot", "the node has booted and joined")
    world.recount(node)


def _leave(world: World, node: int) -> None:
    world.node_is_there[node] = False
    spells = world.presence.setdefault(node, [(0, None)])
    spells[-1] = (spells[-1][0], world.now_s)
    world.node_version[node] += 1
    world.recount(node)
