"""Turn after turn on a simulated cluster: does a quota swing? A part of `rebalance.py`."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np

from actions.budget import Made
from actions.plan import plan
from actions.policy import ActionPolicy
from analytics.demand_verdicts import SOON_H
from benchmarks.rebalance_fleets import forecast
from benchmarks.rebalance_verdicts import demand_verdict
from fleet.move import Move
from fleet.verdict import Verdict
from simulator.cluster import SimulatorCluster
from simulator.presets import default_spec
from simulator.step import build, step
from simulator.world import World

_GPUS, _HISTORY_H, _SEED = 96, 72, 1999
_WOBBLE = 0.005
_HAIR = 1e-6
_DAY_PART_H = 6.0
_POLICY = ActionPolicy()
_Key = tuple[str, str]  # cluster, workspace


@dataclass
class _Tally:
    moved: int = 0
    undone: int = 0
    repeated: int = 0
    undone_shaken: int = 0
    shaken: int = 0
    changes: dict[_Key, list[tuple[datetime, float]]] = field(default_factory=lambda: defaultdict(list))


def print_closed_loop(turns: int) -> None:
    """Plan and make quota moves hour by hour, and count what is taken back."""
    world = build(replace(default_spec(_GPUS), seed=_SEED))
    cluster = SimulatorCluster(world)
    step(world, timedelta(hours=_HISTORY_H))
    recent: list[Made] = []
    tally = _Tally()
    for turn in range(turns):
        _turn(world, cluster, recent, tally, turn)
        recent = [each for each in recent if world.now - each.at < timedelta(hours=24)]
        step(world, timedelta(hours=1))
    turned_h = _POLICY.rebalance.turn_round_h
    print(
        f"\n{turns} closed-loop turns of an hour, {_GPUS} simulated GPUs: {tally.moved} quota moves, sums kept; on the "
        f"same forecasts without memory {tally.undone} undone ({tally.repeated} moves go on with what a bound cut); "
        f"on forecasts shaken by {_WOBBLE:.1%}, {tally.undone_shaken} undone of {tally.shaken}; "
        f"as demand went {_reversals(tally.changes, turned_h)} were turned round within the {turned_h:g} h of rest, "
        f"{_reversals(tally.changes, _DAY_PART_H)} within {_DAY_PART_H:g} h"
    )


def _turn(world: World, cluster: SimulatorCluster, recent: list[Made], tally: _Tally, turn: int) -> None:
    verdicts = _verdicts(world, 0.0, turn)
    state = cluster.observe()
    made = plan(state, verdicts, _POLICY, world.now, recent=recent)
    for move in made.moves:
        cluster.make(move)
        recent.append(Made(move, world.now))
        tally.changes[move.cluster, move.target.name].append((world.now, _change(move)))
    after = cluster.observe()
    if abs(sum(quota.gpus for quota in after.quotas) - sum(quota.gpus for quota in state.quotas)) > _HAIR:
        message = f"turn {turn}: the sum of quotas changed"
        raise AssertionError(message)
    first = {(move.cluster, move.target.name): _change(move) for move in made.moves}
    # without the memory of what was made, which alone would hold a swing back
    again = plan(after, verdicts, _POLICY, world.now)
    shaken = plan(after, _verdicts(world, _WOBBLE, turn), _POLICY, world.now)
    tally.moved += len(made.moves)
    tally.undone += sum(_is_swing(move, first) for move in again.moves)
    tally.repeated += len(again.moves) if made.moves else 0
    tally.shaken += len(shaken.moves) if made.moves else 0
    tally.undone_shaken += sum(_is_swing(move, first) for move in shaken.moves)


def _verdicts(world: World, wobble: float, turn: int) -> list[Verdict]:
    hours = [record for record in world.demand if record.at_s % 3600 == 0][-_HISTORY_H:]
    rng = np.random.default_rng(turn)
    found = []
    for cluster, workspace in sorted(world.quota_now):
        past = np.array(
            [[record.running_gpus[cluster, workspace] + record.pending_gpus[cluster, workspace] for record in hours]]
        )
        told = forecast(past, SOON_H)[0] * (1 + wobble * rng.uniform(-1, 1))
        names = world.spec.clusters[cluster].name, world.spec.workspaces[workspace].name
        found.append(demand_verdict(*names, told, world.now))
    return found


def _change(move: Move) -> float:
    before = move.evidence["before"]
    if not isinstance(before, dict):
        raise TypeError(before)
    return float(str(move.arguments["gpus"])) - float(before["gpus"])


def _is_swing(move: Move, first: dict[_Key, float]) -> bool:
    return _change(move) * first.get((move.cluster, move.target.name), 0.0) < 0


def _reversals(changes: dict[_Key, list[tuple[datetime, float]]], within_h: float) -> int:
    return sum(
        (later[0] - earlier[0] < timedelta(hours=within_h)) and later[1] * earlier[1] < 0
        for made in changes.values()
        for earlier, later in pairwise(made)
    )
