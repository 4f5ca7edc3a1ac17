"""How much demand quotas leave unmet, ours and others': `python benchmarks/rebalance.py [--seeds 0-199]`.

Every hour, as the CronJob of `deploy/` does, a plan is made by the default policy from past-only forecasts; then the
hour that follows is counted. Demand above the quota is unmet ("quota"); with borrowing, what is above quota and
borrowing limit, or above what the pool has. Baselines at the same turns: the quotas as they were, quotas proportional
to the demand of the last day (`--recent`), and quotas proportional to what ran in it under those quotas. Also: our
plans against the optimum, 500 turns of a simulated cluster, and the time of a large plan. `--told analysis` plans by
the forecasts of `steward analyse`, `foresight` by those of who knows the hours ahead; `--fleets` leaves the rest out.
Tune on seeds from 1000 on only.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np

from actions.budget import Made
from actions.plan import plan
from actions.policy import ActionPolicy
from actions.quota_choice import Choice, Claim, Thresholds, choose, lending_odds
from actions.quota_demand import Floats, outlook_of
from benchmarks.rebalance_fleets import Pool, largest_remainder, recorded, simulated
from benchmarks.rebalance_loop import print_closed_loop
from benchmarks.rebalance_scale import print_scale
from benchmarks.rebalance_solvers import by_highs, by_trying_all, expected_unmet
from benchmarks.rebalance_told import HISTORY, NOW, TELLERS, Told
from benchmarks.rebalance_verdicts import holder
from fleet.move import Plan
from fleet.state import FleetState, Quota
from fleet.verdict import Verdict

LENGTH, REST = 336, 6
POLICY = ActionPolicy()
RULES = ("static", "recent demand", "recent use", "ours", "all shared")
WAYS = ("quota", "with borrowing")
SMALL = 4  # workspaces of which every plan can be tried
_TRIFLE = 0.01  # GPUs
_MEMORY = timedelta(hours=24)


@dataclass
class Score:
    """Unmet GPU-hours by way and rule, GPUs moved, and our plans' expected unmet demand beside the optimum."""

    name: str
    unmet: Floats = field(default_factory=lambda: np.zeros((len(WAYS), len(RULES))))
    hours: int = 0
    moved: float = 0.0
    plans: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Terms:
    """Hours from turn to turn, hours of the last demand that the baselines follow, and who tells what is ahead."""

    every: int = 1
    recent: int = 24
    told: str = "analogues"


def run(pools: Sequence[Pool], name: str, terms: Terms = Terms()) -> Score:
    """Plan and count from the end of the history to the end of the demand."""
    score, tell = Score(name), TELLERS[terms.told](pools, terms.every)
    recent: list[Made] = []
    ours = [pool.quotas.copy() for pool in pools]
    used = [np.minimum(pool.demand, (pool.quotas + pool.borrowing)[:, None]) for pool in pools]
    length = pools[0].demand.shape[1]
    for hour in range(HISTORY, length - terms.every + 1, terms.every):
        told, now = tell(hour, ours), NOW + timedelta(hours=hour)
        if hour == HISTORY or (length > LENGTH and hour % REST == 0):
            anew = planned(pools, ours, told, hour, ())  # no memory of what was made: nothing rests
            score.plans += [beside_optimum(*each, anew, hour) for each in zip(pools, ours, told, strict=True)]
        made = planned(pools, ours, told, hour, recent)
        recent = [*(each for each in recent if now - each.at < _MEMORY), *(Made(move, now) for move in made.moves)]
        for place, pool in enumerate(pools):
            after = taken_over(made, pool, ours[place])
            score.moved += float(np.abs(after - ours[place]).sum() / 2)
            ours[place] = after
            lately, ahead = slice(hour - terms.recent, hour), slice(hour, hour + terms.every)
            by_use = largest_remainder(pool.quotas.sum(), used[place][:, lately].mean(axis=1))
            by_demand = largest_remainder(pool.quotas.sum(), pool.demand[:, lately].mean(axis=1))
            wanted = pool.demand[:, ahead]
            used[place][:, ahead] = np.minimum(wanted, (by_use + pool.borrowing)[:, None])
            for rule, quotas in enumerate((pool.quotas, by_demand, by_use, after)):
                score.unmet[:, rule] += unmet(pool, quotas, wanted)
            score.unmet[:, -1] += np.maximum(wanted.sum(axis=0) - pool.quotas.sum(), 0.0).sum()
        score.hours += terms.every
    return score


def unmet(pool: Pool, quotas: Floats, wanted: Floats) -> Floats:
    """Return unmet GPU-hours both ways."""
    beyond = np.maximum(wanted - quotas[:, None], 0.0).sum(axis=0)
    out_of_reach = np.maximum(wanted - (quotas + pool.borrowing)[:, None], 0.0).sum(axis=0)
    too_much = np.maximum(wanted.sum(axis=0) - pool.quotas.sum(), 0.0)
    return np.array([beyond.sum(), np.maximum(out_of_reach, too_much).sum()])


def planned(pools: Sequence[Pool], quotas: Sequence[Floats], told: Told, hour: int, recent: Sequence[Made]) -> Plan:
    """Return the plan of this hour, from a state in which every workspace holds what its quota lets it."""
    now = NOW + timedelta(hours=hour)
    granted, held = [], []
    for pool, gpus in zip(pools, quotas, strict=True):
        for place, workspace in enumerate(pool.workspaces):
            granted.append(Quota(pool.name, workspace, float(gpus[place]), borrowing_gpus=float(pool.borrowing[place])))
            held.append(holder(pool.name, workspace, float(min(pool.demand[place, hour - 1], gpus[place]))))
    state = FleetState(
        now,
        workloads=tuple(workload for workload, _ in held),
        pods=tuple(pod for _, pod in held),
        quotas=tuple(granted),
    )
    return plan(state, [verdict for each in told for verdict in each], POLICY, now, recent=recent)


def taken_over(made: Plan, pool: Pool, quotas: Floats) -> Floats:
    """Return a pool's quotas after a plan."""
    after = quotas.copy()
    for move in made.moves:
        if move.cluster == pool.name:
            after[pool.workspaces.index(move.target.name)] = float(str(move.arguments["gpus"]))
    return after


def beside_optimum(
    pool: Pool, before: Floats, told: Sequence[Verdict], made: Plan, hour: int
) -> tuple[float, float, float]:
    """Return expected unmet demand of a plan, of the best plan within the same bounds, and of moving nothing."""
    terms = POLICY.rebalance
    claims = []
    for place, verdict in enumerate(told):
        outlook = outlook_of(verdict.evidence)
        if isinstance(outlook, str):
            raise TypeError(outlook)
        kept = np.ceil(outlook.at(terms.keep_level) * (1 + terms.headroom) - 1e-9)
        held = min(pool.demand[place, hour - 1], before[place])
        claims.append(
            Claim(
                verdict.subject,
                float(before[place]),
                outlook.scenarios(),
                least=float(max(kept, held)),
                borrowing=float(pool.borrowing[place]),
            )
        )
    lent = terms.borrowed_worth * lending_odds(claims)
    limit = int(min(terms.max_churn_share * before.sum(), POLICY.budget.max_gpus_per_hour) + 1e-9)
    best = by_highs(claims, limit, lent, whole=True)
    after = taken_over(made, pool, before)
    return expected_unmet(claims, after, lent), best, expected_unmet(claims, before, lent)


def simulated_score(terms: Terms, seed: int) -> Score:
    """Run one seed of the default generator."""
    return run(simulated(seed, LENGTH), str(seed), terms)


def recorded_score(terms: Terms, pool: Pool) -> Score:
    """Run one recorded fleet."""
    return run([pool], pool.name, terms)


def print_scores(scores: Sequence[Score]) -> None:
    """Print the distribution of ratios over fleets whose quotas, left alone, leave demand unmet."""
    for way, way_name in enumerate(WAYS):
        kept = np.array([score.unmet[way] for score in scores if score.unmet[way, 0] > 0])
        if kept.size == 0:
            continue
        print(f"{way_name}: {len(kept)} of {len(scores)} fleets where static quotas leave demand unmet")
        for rule in (0, 1, 2):
            below = 1 - kept[:, 3] / np.where(kept[:, rule] > 0, kept[:, rule], np.nan)
            print(f"  ours below {RULES[rule]:13}: " + spread(below))
        for rule in (0, 1, 2):
            below = 1 - kept[:, 4] / np.where(kept[:, rule] > 0, kept[:, rule], np.nan)
            print(f"  all shared below {RULES[rule]:13}: " + spread(below))
        above = kept[:, :4] - kept[:, 4:]
        for rule in (0, 1, 2):
            below = 1 - above[:, 3] / np.where(above[:, rule] > 0, above[:, rule], np.nan)
            print(f"  of what is avoidable, ours below {RULES[rule]:13}: median {np.nanmedian(below):.1%}")


def spread(values: Floats) -> str:
    """Return quantiles of ratios in words."""
    if values.size == 1:
        return f"{values[0]:.1%}"
    levels = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    words = ("least", "5 %", "25 %", "median", "75 %", "95 %", "most")
    found = np.nanquantile(values, levels).tolist()
    return ", ".join(f"{word} {value:.1%}" for word, value in zip(words, found, strict=True))


def print_plans(scores: Sequence[Score], what: str) -> None:
    """Print how far our plans' expected unmet demand is from the optimum under the same bounds."""
    found = np.array([each for score in scores for each in score.plans])
    total = found.sum(axis=0)
    ratio = found[:, 0] / np.maximum(found[:, 1], _TRIFLE)
    told = ", ".join(f"{level:.0%} {value:.4f}" for level, value in _quantiles(np.maximum(ratio, 1.0)))
    close = np.mean(found[:, 0] <= found[:, 1] * 1.01 + _TRIFLE)
    print(
        f"{what}: {len(found)}, expected unmet {total[2]:.0f} -> {total[0]:.1f}, optimum {total[1]:.1f} GPUs, ratio "
        f"{total[0] / total[1]:.5f}; by plan {told}; within 1 % or {_TRIFLE} GPU: {close:.1%}"
    )


def _quantiles(values: Floats) -> Iterator[tuple[float, float]]:
    levels = (0.5, 0.9, 0.99, 1.0)
    return zip(levels, np.quantile(values, levels).tolist(), strict=True)


def print_small(fleets: int) -> None:
    """Compare the solver with trying all plans, and with HiGHS, on random small pools; without hysteresis."""
    rng = np.random.default_rng(8)
    worst, moved, started = 0.0, 0, time.perf_counter()
    for _ in range(fleets):
        count, limit = int(rng.integers(2, SMALL + 1)), int(rng.integers(0, 6))
        claims = [
            Claim(
                f"w{place}",
                float(rng.integers(0, 12)) + float(rng.choice([0.0, 0.5])),
                np.sort(rng.gamma(2.0, 3.0, 40)),
                least=float(rng.integers(0, 6)),
                borrowing=[0.0, 2.0, None][int(rng.integers(3))],
                cost=float(rng.choice([0.5, 1.0, 2.0])),
            )
            for place in range(count)
        ]
        lent = float(rng.random()) / 2
        chosen = choose(claims, limit, Thresholds(), lent)
        best = min(by_trying_all(claims, limit, lent), by_highs(claims, limit, lent, whole=True))
        worst = max(worst, expected_unmet(claims, _after(claims, chosen), lent) / best - 1)
        moved += chosen.moved
    took_s = time.perf_counter() - started
    print(
        f"{fleets} random small pools, {moved} GPUs moved, all plans tried: at worst {worst:.1e} above the best "
        f"({took_s:.0f} s)"
    )


def _after(claims: Sequence[Claim], chosen: Choice) -> Floats:
    return np.array([claim.quota + change for claim, change in zip(claims, chosen.changes, strict=True)])


def main() -> None:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0-199", help="first-last")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("STEWARD_DATA", "../shared/data")))
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--every", type=int, default=1, help="hours from turn to turn")
    parser.add_argument("--recent", type=int, default=24, help="hours that the baselines follow")
    parser.add_argument("--told", choices=TELLERS, default="analogues")
    parser.add_argument("--fleets", action="store_true", help="unmet demand alone")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    terms = Terms(arguments.every, arguments.recent, arguments.told)
    started = time.perf_counter()
    traces = recorded(arguments.data, HISTORY)
    with ProcessPoolExecutor(arguments.processes) as workers:
        simulations = workers.map(partial(simulated_score, terms), range(int(first), int(last or first) + 1))
        records = workers.map(partial(recorded_score, terms), traces)
        scores = list(simulations)
        moved, hours = _moved(scores), scores[0].hours
        print(f"{terms}; seeds {arguments.seeds}, {hours} h each, {moved:.0f} GPUs moved a day and fleet")
        print_scores(scores)
        print_plans(scores, "first plans of the pools")
        beside = list(records)
    print("\nrecorded: skipped, there is no traces/series_hourly*.parquet" if not traces else "")
    for pool, score in zip(traces, beside, strict=True):
        print(
            f"recorded {pool.name}: {len(pool.workspaces)} workspaces, {pool.quotas.sum():.0f} GPUs, {score.hours} h, "
            f"{_moved([score]):.0f} GPUs moved a day"
        )
        print_scores([score])
        print_plans([score], "plans, one in six hours, nothing resting")
    if not arguments.fleets:
        print_small(100)
        print_closed_loop(arguments.turns)
        print_scale()
    print(f"\n{time.perf_counter() - started:.0f} s in all, {arguments.processes} processes")


def _moved(scores: Sequence[Score]) -> float:
    return sum(score.moved for score in scores) / sum(score.hours for score in scores) * 24


if __name__ == "__main__":
    main()
