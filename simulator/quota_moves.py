"""Moves that act on quotas and pools of the simulated fleet.

Nodes come and go by a pool's limit in their own time (`simulator.pools`).
"""

from fleet.errors import MoveRefused, StaleState
from fleet.move import Move
from simulator.move_arguments import at_least_zero, number, require_version
from simulator.world import QuotaRecord, World


def prior_of_quota(world: World, move: Move) -> dict[str, object]:
    """Return the quota that a move would change, as it is; raises where it can't be made."""
    quota = _find(world, move)
    _wanted(world, move, quota)
    return {
        "gpus": quota.gpus,
        "borrowing_gpus": quota.borrowing_gpus,
        "lending_gpus": quota.lending_gpus,
        "weight": quota.weight,
    }


def change_quota(world: World, move: Move) -> None:
    """Set a quota from now on; the scheduler looks at its queues anew."""
    before = _find(world, move)
    gpus, borrowing, lending, weight = _wanted(world, move, before)
    version = before.version + 1
    if before.starts_s == world.now_s:
        before.gpus, before.borrowing_gpus, before.version = gpus, borrowing, version
        before.lending_gpus, before.weight = lending, weight
    else:
        before.ends_s = world.now_s
        after = QuotaRecord(
            before.cluster, before.workspace, gpus, borrowing, world.now_s, None, version, lending, weight
        )
        world.quotas.append(after)
        world.quota_now[(before.cluster, before.workspace)] = after
    world.push_schedule()


def prior_of_pool(world: World, move: Move) -> dict[str, object]:
    """Return a pool's limit as it is; raises where a move can't be made."""
    limit, _ = world.pool_limits[_find_pool(world, move)]
    at_least_zero(move, "limit", limit)
    return {"limit": limit}


def change_pool(world: World, move: Move) -> None:
    """Keep a pool's new limit, and look which nodes are to come or to go."""
    key = _find_pool(world, move)
    limit, version = world.pool_limits[key]
    world.pool_limits[key] = (at_least_zero(move, "limit", limit), version + 1)
    world.push_schedule()


def _find(world: World, move: Move) -> QuotaRecord:
    for quota in world.quota_now.values():
        place = (world.spec.clusters[quota.cluster].name, world.spec.workspaces[quota.workspace].name)
        if place == (move.cluster, move.target.name) and move.target.kind == "Quota":
            require_version(move, quota.version)
            return quota
    message = f"there is no quota {move.target} in {move.cluster}"
    raise StaleState(message)


def _find_pool(world: World, move: Move) -> tuple[int, str]:
    cluster = [each.name for each in world.spec.clusters].index(move.cluster)
    key = (cluster, move.target.name)
    if move.target.kind != "NodePool":
        message = f"the simulated fleet has node pools and no {move.target.kind}"
        raise MoveRefused(message)
    if key not in world.pool_limits:
        message = f"there is no pool {move.target.name} in {move.cluster}"
        raise StaleState(message)
    require_version(move, world.pool_limits[key][1])
    return key


def _wanted(world: World, move: Move, quota: QuotaRecord) -> tuple[float, float | None, float | None, float | None]:
    if any(move.arguments.get(name) is not None for name in ("pool", "model")):
        message = f"the quotas of {move.cluster} hold for all pools and models; leave pool and model out"
        raise MoveRefused(message)
    gpus = number(move, "gpus", quota.gpus)
    capacity = world.spec.clusters[quota.cluster].most_gpus
    if gpus is None or not 0 <= gpus <= capacity:
        message = f"gpus: {gpus} is not between 0 and the {capacity} GPUs of {move.cluster}"
        raise MoveRefused(message)
    return (
        gpus,
        at_least_zero(move, "borrowing_gpus", quota.borrowing_gpus),
        at_least_zero(move, "lending_gpus", quota.lending_gpus),
        at_least_zero(move, "weight", quota.weight),
    )
