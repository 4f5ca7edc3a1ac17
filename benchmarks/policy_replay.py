"""Replay policies over a simulated fleet's past, hold them against its truth, and time the steps.

Baselines: gpu-pruner's rule (any device of a workload at a maximum of zero for 30 minutes, no least idle time, no
cooldown) and a mean below 5 % over 30 minutes, which is what many scripts do. Printed for each policy: what it would
have reclaimed, the share of wrong reclaims by later samples and by the fleet's truth, each over the baseline's, and
seconds a step.

    python benchmarks/policy_replay.py [--gpus 512] [--days 14] [--step 1] [--seed 7] [--store demo.duckdb]
"""

import argparse
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from fleet.clock import FixedClock
from simulator.presets import default_spec
from simulator.source import SimulatorSource
from simulator.spec import FleetSpec
from simulator.step import build
from simulator.truth import work_intervals
from simulator.world import World
from steward.compose import House, load_prices
from steward.config import Settings, load_settings
from steward.cycle import collect
from steward.moments import newest_moment
from steward.policy_effects import Reclaim
from steward.policy_file import candidate_of
from steward.policy_replay import Stretch, read_past, replay_policies
from steward.policy_report import Limits, Worth, is_wrong, measures, reckon
from steward.policy_verdicts import Wanted
from store.store import Store

SECONDS_LIMIT = 60.0
_BARE = "[idle]\nwindow_s = 1800\n[actions.reclaim]\nmin_idle_h = 0\nmin_run_h = 0.6\ncooldown_h = 0\n"
POLICIES = {
    "settings in force": None,
    "gpu-pruner's rule": f'[replay]\nidle_rule = "max_zero"\n{_BARE}',
    "mean below 5 %": f'[replay]\nidle_rule = "mean_below"\n{_BARE}',
}
SHOWN = (
    "moves a day", "workloads reclaimed", "GPU-hours reclaimed", "wrong: wanted within 4 h", "wrong share",
    "workspaces hurt", "jobs started earlier", "hours of waiting saved", "fenced after the fault",
    "median hours, fault to fence", "faulty GPUs not fenced in a day",
)  # fmt: skip


def main() -> None:
    """Fill a store or open one, replay each policy by itself, and print."""
    options = parse()
    settings, limits = load_settings(None, {}), Limits()
    with tempfile.TemporaryDirectory() as folder:
        path = options.store or Path(folder) / "s.duckdb"
        work = None if options.store else fill(path, options, settings)
        with Store.open(path, clock=FixedClock(datetime.fromisoformat("2100-01-01T00:00:00+00:00"))) as store:
            data_until = newest_moment(
                House(settings, store, FixedClock(datetime.fromisoformat("2100-01-01T00:00:00Z")))
            )
            if data_until is None:
                message = f"{path} is empty"
                raise SystemExit(message)
            end = data_until.replace(minute=0, second=0, microsecond=0)
            stretch = Stretch(end - timedelta(days=options.days, hours=-4), end, timedelta(hours=options.step))
            begun = time.perf_counter()
            past = read_past(store, settings, stretch, data_until + timedelta(seconds=1))
            print(f"{options.gpus} GPUs, {len(stretch.moments())} steps; read in {time.perf_counter() - begun:.1f} s\n")
            rows = []
            for name, text in POLICIES.items():
                begun, cpu = time.perf_counter(), time.process_time()
                (run,) = replay_policies(store, past, [candidate_of(name, text, settings, Wanted(source="judged"))])
                seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
                rows.append((reckon(store, past, run), seconds, cpu))
                print(f"{name:20s} {seconds:7.1f} s, {seconds / run.steps:.3f} s a step ({cpu:.0f} CPU-seconds)")
            report([worth for worth, _, _ in rows], limits, work)
            ours = rows[0][1]
            print(f"\nsettings in force: {ours:.1f} s (aim: under {SECONDS_LIMIT:.0f} s)")


def report(worths: list[Worth], limits: Limits, work: pl.DataFrame | None) -> None:
    """Print each measure of each policy, and over the first baseline's."""
    columns = [measures(worth, limits) for worth in worths]
    if work is not None:
        for worth, column in zip(worths, columns, strict=True):
            true, said = truly_wrong(worth, work, limits)
            column["wrong by the truth"] = float(true)
            column["said and true agree"] = said
    print(f"\n{'':34s}" + "".join(f"{worth.run.candidate.name:>20s}" for worth in worths) + f"{'ours / pruner':>16s}")
    for name in (*SHOWN, *(("wrong by the truth", "said and true agree") if work is not None else ())):
        values = [column[name] for column in columns]
        ratio = "-" if not values[0] or not values[1] else f"{float(values[0]) / float(values[1]):.2f}"
        print(
            f"{name:34s}"
            + "".join(f"{'-' if v is None else f'{float(v):,.2f}':>20s}" for v in values)
            + f"{ratio:>16s}"
        )


def truly_wrong(worth: Worth, work: pl.DataFrame, limits: Limits) -> tuple[int, float]:
    """Return how many reclaims the fleet really worked after within the limit, and the share told the same."""
    starts: dict[str, list[tuple[datetime, datetime]]] = {}
    busy = work.filter(pl.col("state").is_in(["working", "stalled"]))
    for name, since, until in busy.select("workload", "starts_at", "ends_at").sort("starts_at").iter_rows():
        starts.setdefault(name, []).append((since, until))
    true = agreed = 0
    for each in worth.reclaims:
        is_true = is_truly_wrong(each, starts.get(each.workload, []), limits.within)
        true += is_true
        agreed += is_true == is_wrong(each, limits.within)
    return true, agreed / max(1, len(worth.reclaims))


def is_truly_wrong(reclaim: Reclaim, busy: list[tuple[datetime, datetime]], within: timedelta) -> bool:
    """Return whether the workload really worked within the limit after it was reclaimed."""
    later = [max(since, reclaim.at) for since, until in busy if until > reclaim.at + timedelta(minutes=2)]
    return bool(later) and min(later) - reclaim.at <= within


def fill(path: Path, options: argparse.Namespace, settings: Settings) -> pl.DataFrame:
    """Let the default fleet live into a store and return what its pods really did."""
    return work_intervals(lived(path, replace(default_spec(options.gpus, options.days), seed=options.seed), settings))


def lived(path: Path, spec: FleetSpec, settings: Settings) -> World:
    """Let a simulated fleet live into a store, day by day, and return it."""
    clock = FixedClock(spec.starts_at)
    world = build(spec)
    with Store.open(path, clock=clock) as store:
        load_prices(settings, store)
        for day in range(1, int(spec.days) + 1):
            clock.set(spec.starts_at + timedelta(days=day))
            collect(House(settings, store, clock, (SimulatorSource(world),)), clock.now())
            store.roll_up(clock.now() - timedelta(days=1, hours=1), clock.now())
    return world


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpus", type=int, default=512)
    parser.add_argument("--days", type=float, default=14.0)
    parser.add_argument("--step", type=float, default=1.0, help="hours")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--store", type=Path, help="replay over this store instead; nothing is known of its truth")
    return parser.parse_args()


if __name__ == "__main__":
    main()
