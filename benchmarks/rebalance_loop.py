"""Turn after turn on a simulated cluster: does a quota swing? A part of `rebalance.py`."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from actions.budget import Made
from actions.plan import plan
from actions.policy import ActionPolicy
from benchmarks.rebalance_fleets import forecast
from benchmarks.rebalance_verdicts import demand_verdict
from fleet.move import Move, Plan
from fleet.verdict import Verdict
from simulator.cluster import SimulatorCluster
from simulator.presets import default_spec
from simulator.step import build, step
from simulator.world import World

_GPUS, _HISTORY_H, _AHEAD_H, _SEED = 96, 72, 6, 1999
_WOBBLE = 0.005
_POLICY = ActionPolicy()


def print_closed_loop(turns: int) -> None:
    """Plan and make quota moves hour by hour, and count what is taken back."""
    world = build(replace(default_spec(_GPUS), seed=_SEED))
    cluster = SimulatorCluster(world)
    step(world, timedelta(hours=_HISTORY_H))
    recent: list[Made] = []
    changes: dict[tuple[str, str], list[tuple[datetime, float]]] = defaultdict(list)
    moved = undone = repeated = wobbled = bound = 0
    for turn in range(turns):
        verdicts = _verdicts(world, 0.0, turn)
        state = cluster.observe()
        made = plan(state, verdicts, _POLICY, world.now, recent=recent)
        total = sum(quota.gpus for quota in state.quotas)
        for move in made.moves:
            cluster.make(move)
            recent.append(Made(move, world.now))
            changes[move.cluster, move.target.name].append((world.now, _change(move)))
        recent = [each for each in recent if world.now - each.at < timedelta(hours=24)]
        after = cluster.observe()
        if abs(sum(quota.gpus for quota in after.quotas) - total) > 1e-6:
            message = f"turn {turn}: the sum of quotas changed"
            raise AssertionError(message)
        first = {(move.cluster, move.target.name): _change(move) for move in made.moves}
        # the same forecasts again, and none of the memory that would hold a swing back
        again = plan(after, verdicts, _POLICY, world.now)
        moved += len(made.moves)
        undone += sum(_change(move) * first.get((move.cluster, move.target.name), 0.0) < 0 for move in again.moves)
        if not recent:
            repeated += len(again.moves)
        before_wobble = {(move.cluster, move.target.name): _change(move) for move in again.moves}
        shaken = plan(after, _verdicts(world, _WOBBLE, turn), _POLICY, world.now)
        wobbled += sum(_is_swing(move, first) for move in shaken.moves)
        bound += len(before_wobble)
        step(world, timedelta(hours=1))
    quick = _reversals(changes, _POLICY.rebalance.cooldown_h)
    print(
        f"\n{turns} closed-loop turns of an hour, {_GPUS} simulated GPUs: {moved} quota moves; "
        f"{undone} undone by the next plan on the same forecasts, {wobbled} on forecasts shaken by {_WOBBLE:.1%}; "
        f"{quick} reversals within the cooldown of {_POLICY.rebalance.cooldown_h:g} h"
    )


def _verdicts(world: World, wobble: float, turn: int) -> list[Verdict]:
    hours = [record for record in world.demand if record.at_s % 3600 == 0][-_HISTORY_H:]
    rng = np.random.default_rng(turn)
    found = []
    for (cluster, workspace) in sorted(world.quota_now):
        past = np.array(
            [[record.running_gpus[cluster, workspace] + record.pending_gpus[cluster, workspace] for record in hours]]
        )
        told = forecast(past, _AHEAD_H)[0] * (1 + wobble * rng.uniform(-1, 1))
        names = world.spec.clusters[cluster].name, world.spec.workspaces[workspace].name
        found.append(demand_verdict(*names, told, world.now))
    return found


def _change(move: Move) -> float:
    before = move.evidence["before"]
    if not isinstance(before, dict):
        raise TypeError(before)
    return float(str(move.arguments["gpus"])) - float(before["gpus"])


def _is_swing(move: Move, first: dict[tuple[str, str], float]) -> bool:
    return _change(move) * first.get((move.cluster, move.target.name), 0.0) < 0


def _reversals(changes: dict[tuple[str, str], list[tuple[datetime, float]]], cooldown_h: float) -> int:
    return sum(
        (later[0] - earlier[0] < timedelta(hours=cooldown_h)) and later[1] * earlier[1] < 0
        for made in changes.values()
        for earlier, later in zip(made, made[1:], strict=False)
    )


def _plans(plans: Sequence[Plan]) -> int:
    return len(plans)
