"""How long should a workload idle before it is reclaimed? Replay the choices over simulated fleets.

For each preset and seed a fleet lives for some days; the settings in force are replayed with `reclaim.min_idle_h` of
1, 2, 3, 4, 6 and 8 hours (2 is the baseline of the ratios), for all workloads and by kind. A reclaim is wrong where
the workload was wanted again within four hours.

    python benchmarks/reclaim_hours.py [--gpus 128] [--days 7] [--seeds 7 11 23] [--presets default ...]
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from analytics.workload_kinds import facts_of, kind_of
from benchmarks.policy_replay import lived
from fleet.clock import FixedClock
from simulator.presets import PRESETS
from steward.compose import House
from steward.config import load_settings
from steward.moments import newest_moment
from steward.policy_effects import Reclaim, reckon_reclaims
from steward.policy_file import candidate_of
from steward.policy_replay import Replayed, Stretch, read_past, replay_policies
from steward.policy_report import Limits, is_wrong
from steward.policy_verdicts import Wanted
from store.store import Store

HOURS = (1, 2, 3, 4, 6, 8)
BASELINE = 2
ALL = "all"


@dataclass(slots=True)
class Sum:
    """What one choice would have done, over all fleets."""

    days: float = 0.0
    reclaims: int = 0
    wrong: int = 0
    gpu_hours: float = 0.0
    wrong_gpu_hours: float = 0.0
    usd: Decimal = field(default_factory=Decimal)

    def add(self, found: Iterable[Reclaim], limits: Limits, days: float) -> None:
        """Add what came of one fleet."""
        self.days += days
        for each in found:
            self.reclaims += 1
            self.gpu_hours += each.gpu_hours
            self.usd += Decimal(0) if each.usd is None else each.usd
            if is_wrong(each, limits.within):
                self.wrong += 1
                self.wrong_gpu_hours += each.gpu_hours


def main() -> None:
    """Let the fleets live, replay each choice, print a table a kind."""
    options = parse()
    sums: dict[tuple[str, float], Sum] = defaultdict(Sum)
    for preset in options.presets:
        for seed in options.seeds:
            runs, reclaims = study(preset, seed, options)
            days = options.days - 4 / 24
            for hours, found in zip(HOURS, reclaims, strict=True):
                for group in (ALL, f"preset {preset}", "notebook", "serving", "batch"):
                    chosen = [each for each in found if group in {ALL, f"preset {preset}", use_of(each)}]
                    sums[group, hours].add(chosen, Limits(), days)
            told = ", ".join(f"{hours} h: {len(found)}" for hours, found in zip(HOURS, reclaims, strict=True))
            print(f"{preset}, seed {seed}: {runs[0].steps} steps; reclaims {told}", flush=True)
    for group in dict.fromkeys(group for group, _ in sums):
        print(f"\n{group}\n{table([(hours, sums[group, hours]) for hours in HOURS])}")


def study(preset: str, seed: int, options: argparse.Namespace) -> tuple[list[Replayed], list[list[Reclaim]]]:
    """Return, for each choice, the replay over one fleet and its reclaims."""
    settings = load_settings(None, {})
    spec = replace(PRESETS[preset](options.gpus, options.days), seed=seed)
    clock = FixedClock(spec.starts_at + timedelta(days=options.days + 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.duckdb"
        lived(path, spec, settings)
        with Store.open(path, clock=clock) as store:
            until = newest_moment(House(settings, store, clock))
            if until is None:
                message = "the fleet left no sample"
                raise SystemExit(message)
            end = until.replace(minute=0, second=0, microsecond=0)
            stretch = Stretch(end - timedelta(days=options.days, hours=-4), end)
            past = read_past(store, settings, stretch, until + timedelta(seconds=1))
            texts = [f"[actions.reclaim]\nmin_idle_h = {hours}\n" for hours in HOURS]
            wanted = Wanted(source="judged", health_every=timedelta(days=1))
            runs = replay_policies(store, past, [candidate_of("choice", text, settings, wanted) for text in texts])
            return runs, [reckon_reclaims(run, past) for run in runs]


def use_of(reclaim: Reclaim) -> str:
    """Return what a reclaimed workload was for: notebook, serving or batch."""
    return facts_of(kind_of(reclaim.workload)).use


def table(rows: Sequence[tuple[float, Sum]]) -> str:
    """Return the choices as a table: by day of one fleet, and over the baseline's."""
    base = dict(rows)[BASELINE]
    names = (
        "hours", "reclaims a day", "wrong a day", "wrong share", "GPU-hours a day", "USD a day", "wrong / baseline",
        "GPU-hours / baseline", "GPU-hours for a wrong one",
    )  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for hours, each in rows:
        cells = [
            f"{hours:g}",
            f"{each.reclaims / each.days:.1f}",
            f"{each.wrong / each.days:.2f}",
            f"{each.wrong / each.reclaims:.1%}" if each.reclaims else "-",
            f"{each.gpu_hours / each.days:.0f}",
            f"{float(each.usd) / each.days:.0f}",
            f"{each.wrong / base.wrong:.2f}" if base.wrong else "-",
            f"{each.gpu_hours / base.gpu_hours:.2f}" if base.gpu_hours > 0 else "-",
            f"{each.gpu_hours / each.wrong:.0f}" if each.wrong else "none wrong",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpus", type=int, default=128)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 11, 23])
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=list(PRESETS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
