"""The rule that sets pools' limits, in a closed loop: what it sets is seen in nodes, and in what waits."""

from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

import pytest

from actions.rule_policies import PoolPolicy
from fleet.verdict import Severity, Verdict
from simulator.observe import observe
from simulator.world import World
from tests.actions.closed_loop import ALL_AUTO, Loop
from tests.simulator.test_pools import POOL, spec_of

HOUR = timedelta(hours=1)
POLICY = replace(ALL_AUTO, pool=PoolPolicy(cooldown_h=1.0, max_step_share=1.0, headroom=0.0))


def waiting(world: World) -> float:
    """Return the GPUs that wait for the pool."""
    return sum(
        world.tasks[index].gpus
        for (section, _), queue in world.waiting.items()
        if world.fabric.sections[section].pool.name == POOL
        for index in queue
    )


def judged(world: World) -> list[Verdict]:
    """Tell the odds by what waits: sure to run out while anything does, and to have enough while nothing does."""
    state = observe(world)
    nodes = {node.name for node in state.nodes if node.pool == POOL}
    held = len({uuid for pod in state.pods if pod.node in nodes for uuid in pod.gpu_uuids})
    missing = waiting(world)
    return [
        Verdict(
            made_at=world.now, topic="capacity", subject_kind="pool", subject=POOL, state="short",
            severity=Severity.WARNING, rule="pool_odds", action="grow_pool", cluster="east", until=world.now,
            evidence=MappingProxyType({"probability": 0.9 if missing > 0 else 0.01, "peak_gpus_upper": held + missing}),
        )
    ]  # fmt: skip


def size(loop: Loop) -> int:
    return sum(node.pool == POOL for node in loop.state.nodes)


@pytest.mark.parametrize("restarts", [False, True], ids=["running on", "restarted"])
def test_a_pool_that_is_short_gets_nodes_and_less_waits(
    restarts: bool,  # noqa: FBT001 - a table's column
) -> None:
    loop = Loop(spec_of(further=3), judged, POLICY, timedelta(minutes=20))
    alone = Loop(spec_of(further=3), lambda _world: [], POLICY, timedelta(minutes=20))
    for each in (loop, alone):
        each.begin(HOUR)
    assert size(loop) == 1
    for _ in range(18):
        loop.turn()
        alone.turn()
    if restarts:
        loop.restart()
    limit = next(each.limit for each in loop.state.pools if each.pool == POOL)
    assert limit == 8.0 * size(loop) > 8.0
    assert size(alone) == 1
    assert waiting(loop.world) == 0 < waiting(alone.world)


def test_a_pool_that_nothing_needs_loses_its_limit_and_then_its_nodes() -> None:
    loop = Loop(spec_of(further=0, load=0.0), judged, POLICY, timedelta(minutes=20))
    loop.begin(HOUR)
    for _ in range(12):
        loop.turn()
    assert size(loop) == 0
    assert next(each for each in loop.state.pools if each.pool == POOL).limit == 0
    assert len(loop.state.nodes) == 5, "the other pools stay as they are"
