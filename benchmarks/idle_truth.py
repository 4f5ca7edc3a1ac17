"""Score the idle verdicts against the truth of simulated fleets, beside two rules that others use, on the same data.

Truth is what the simulator's jobs did, and only this script reads it. At each turn a held GPU or slice is truly quiet
when its pod did no work in the whole window and the grace before it, and truly busy when it worked at any second of
the window; what lies between counts for neither. Two ends of the window are scored: the last sample that a rule could
see (what a verdict claims), and the turn itself (strict: work that began after the last sample counts against it).
`bursty` is a quiet GPU in its usual pause; recall is printed with it and without.

    python benchmarks/idle_truth.py [--seeds 20] [--gpus 128] [--days 3]
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl

from analytics.idle import IdlePolicy, judge_idle
from analytics.idle_signals import idle_signals
from analytics.workload_kinds import kind_of
from fleet.clock import FixedClock
from fleet.verdict import Verdict
from simulator.presets import PRESETS
from simulator.source import SimulatorSource
from simulator.step import build
from simulator.truth import work_intervals
from store.store import Store

PRECISION_MIN, RECALL_MIN = 0.98, 0.90
TURN_EVERY, FIRST_TURN = timedelta(hours=4), timedelta(hours=12)
RULES = ("ours", "ours, strict", "mean < 5 %", "max == 0")
POLICY = IdlePolicy()
GRACE = timedelta(seconds=POLICY.grace_s)


@dataclass(frozen=True, slots=True)
class Unit:
    """One held GPU or slice at one turn: its window, and what it truly did in it."""

    name: str
    since: datetime
    until: datetime
    now: datetime
    intervals: tuple[tuple[str, datetime, datetime], ...]

    def is_busy(self, until: datetime) -> bool:
        """Tell whether its pod worked, or spun, at any second of the window that ends at `until`."""
        return any(
            state in {"working", "stalled"} and start < until and end > self.since
            for state, start, end in self.intervals
        )

    def is_quiet(self) -> bool:
        """Tell whether its pod did no work in the window and the grace before, and held it all that time."""
        held = min(start for _, start, _ in self.intervals) <= self.since - GRACE
        busy = any(state in {"working", "stalled"} and end > self.since - GRACE for state, _, end in self.intervals)
        return held and not busy


def play(preset: str, seed: int, gpus: int, days: float) -> Counter[tuple[str, str]]:
    """Return counts of one fleet by rule and kind: found, missed, false, and bursty ones among the found."""
    spec = replace(PRESETS[preset](gpus, days), seed=seed)
    world = build(spec)
    counts: Counter[tuple[str, str]] = Counter()
    with Store.open(None, clock=FixedClock(spec.ends_at)) as store:
        for batch in SimulatorSource(world).collect(None, spec.ends_at):
            store.append(batch)
        store.roll_up(spec.starts_at, spec.ends_at)
        samples = read_samples(store)
        work = work_intervals(world).with_columns(unit=pl.coalesce("slice_uuid", "gpu_uuid"))
        now = spec.starts_at + FIRST_TURN
        while now <= spec.ends_at:
            verdicts = judge_idle(store.engine.run(idle_signals(store.engine, now, POLICY)), POLICY, now)
            said = {v.subject: v for v in verdicts if v.subject_kind in {"gpu", "slice"} and v.rule != "unallocated"}
            for unit in units_of(work, said, now):
                score(unit, said[unit.name], samples, counts)
            now += TURN_EVERY
    return counts


def read_samples(store: Store) -> dict[str, pl.DataFrame]:
    """Return each unit's samples as the other rules read them: GR engine, else NVML utilization."""
    engine = store.engine
    gpu, slice_ = engine.table("gpu_sample"), engine.table("slice_sample")
    both = [
        engine.run(gpu.join(engine.table("gpu").select("gpu", "uuid"), "gpu").select(
            "uuid", "ts", value=gpu.gr_activity.coalesce(gpu.utilization))),
        engine.run(slice_.join(engine.table("slice").select("slice", "uuid"), "slice").select(
            "uuid", "ts", value=slice_.gr_activity)),
    ]  # fmt: skip
    frame = pl.concat(both).drop_nulls().sort("uuid", "ts")
    return {str(key[0]): part for key, part in frame.partition_by("uuid", as_dict=True).items()}


def units_of(work: pl.DataFrame, said: dict[str, Verdict], now: datetime) -> Iterator[Unit]:
    """Yield the units that one pod holds at `now`, with what that pod did until then."""
    held = work.filter(pl.col("starts_at") < now)
    holding = held.filter(pl.col("ends_at") >= now).select("unit", "pod_uid").unique()
    for key, rows in held.join(holding, on=["unit", "pod_uid"]).partition_by("unit", as_dict=True).items():
        name = str(key[0])
        if name not in said:
            continue
        window = timedelta(seconds=POLICY.window_of(kind_of(rows["workload"][0])))
        until = said[name].until or now
        intervals = tuple(rows.select("state", "starts_at", "ends_at").iter_rows())
        yield Unit(name, now - window, until, now, intervals)


def score(unit: Unit, verdict: Verdict, samples: dict[str, pl.DataFrame], counts: Counter[tuple[str, str]]) -> None:
    """Count one unit for each rule."""
    quiet = unit.is_quiet()
    is_said = verdict.state in {"idle", "idle_held", "bursty"}
    claims = {"ours": is_said, "ours, strict": is_said} | other_rules(unit, samples.get(unit.name))
    for rule, claimed in claims.items():
        busy = unit.is_busy(unit.now if rule == "ours, strict" else unit.until)
        counts[rule, "found"] += quiet and claimed and not busy
        counts[rule, "missed"] += quiet and not claimed and not busy
        counts[rule, "false"] += claimed and busy
    counts["ours", "bursty"] += quiet and verdict.state == "bursty"
    is_stalled = all(state == "stalled" for state, _, end in unit.intervals if end > unit.since)
    counts["stalled", "found"] += is_stalled and verdict.state == "stalled"
    counts["stalled", "missed"] += is_stalled and verdict.state != "stalled"
    counts["stalled", "false"] += verdict.state == "stalled" and not any(
        state == "stalled" and end > unit.since for state, _, end in unit.intervals
    )


def other_rules(unit: Unit, samples: pl.DataFrame | None) -> dict[str, bool]:
    """Return what the other rules say of the same window: pods older than it and the grace, no look at coverage."""
    is_old = min(start for _, start, _ in unit.intervals) <= unit.since - GRACE
    if samples is None or not is_old:
        return {"mean < 5 %": False, "max == 0": False}
    values = samples.filter(pl.col("ts") >= unit.since, pl.col("ts") < unit.now)["value"]
    mean, most = values.mean(), values.max()
    return {"mean < 5 %": isinstance(mean, float) and mean < 0.05, "max == 0": most == 0}  # noqa: PLR2004 - the rule


def rates(counts: Counter[tuple[str, str]], rule: str) -> tuple[float, float]:
    """Return precision and recall of a rule; NaN where nothing was said or nothing was there."""
    found, missed, false = (counts[rule, kind] for kind in ("found", "missed", "false"))
    nothing = float("nan")
    return (
        found / (found + false) if found + false else nothing,
        found / (found + missed) if found + missed else nothing,
    )


def harmonic(precision: float, recall: float) -> float:
    """Return the F1 of a precision and a recall."""
    return 2 * precision * recall / (precision + recall)


def main() -> int:
    """Print the rates by preset; 1 where ours misses a target anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--gpus", type=int, default=128)
    parser.add_argument("--days", type=float, default=3.0)
    arguments = parser.parse_args()
    is_met = True
    print(f"{arguments.gpus} GPUs, {arguments.days:g} days, {arguments.seeds} seeds, a turn every {TURN_EVERY}")
    print(f"{'':16}{'rule':14}{'precision':>10}{'recall':>8}{'F1':>7}{'found':>8}{'missed':>8}{'false':>7}")
    for preset in PRESETS:
        counts: Counter[tuple[str, str]] = Counter()
        for seed in range(1, arguments.seeds + 1):
            counts += play(preset, seed, arguments.gpus, arguments.days)
        for rule in (*RULES, "stalled"):
            precision, recall = rates(counts, rule)
            print(
                f"{preset:16}{rule:14}{precision:10.3f}{recall:8.3f}{harmonic(precision, recall):7.3f}"
                f"{counts[rule, 'found']:8,}{counts[rule, 'missed']:8,}{counts[rule, 'false']:7,}"
                if precision + recall > 0
                else f"{preset:16}{rule:14}    nothing found"
            )
        there = counts["ours", "found"] + counts["ours", "missed"]
        bursty = counts["ours", "bursty"]
        if there:
            plain = (counts["ours", "found"] - bursty) / there
            print(f"{preset:16}{bursty:,} of {there:,} quiet ones paused as usual (bursty); recall without {plain:.3f}")
        precision, recall = rates(counts, "ours")
        is_met &= precision >= PRECISION_MIN and recall >= RECALL_MIN
    print(f"precision at least {PRECISION_MIN} and recall at least {RECALL_MIN} in every preset: {is_met}")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
