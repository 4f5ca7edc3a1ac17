"""Hold the comparison of peers against an isolation forest, in fleets with planted faults: precision and recall.

Each fleet has gangs of different work (so that power and SM activity differ for good reasons), one part of the window
like the other but for noise, and a few GPUs made to lag, to run hot, to storm with corrected errors or with replays.
The forest is told how many GPUs to name, which flatters it; ours is not.

    python benchmarks/outliers.py [--gpus 1152] [--fleets 5]
"""

import argparse
import sys
from datetime import UTC, datetime

import numpy as np
import polars as pl
from sklearn.ensemble import IsolationForest

from analytics.outliers import SIGNALS, OutlierPolicy, judge_outliers

NOW = datetime(2026, 3, 2, tzinfo=UTC)
FAULTS = (
    {"sm_clock_mhz": 0.72, "power_w": 0.75}, {"temperature_c": 1.45}, {"corrected_per_hour": 63e6},
    {"replays_per_hour": 9e3},
)  # fmt: skip


def make_fleet(gpus: int, seed: int) -> tuple[pl.DataFrame, set[str]]:
    """Return the parts of a fleet as `outlier_parts` gives them, and the GPUs with a planted fault."""
    random = np.random.default_rng(seed)
    work = random.uniform(0.5, 1.0, size=gpus // 32 + 1)
    bad = {int(gpu): FAULTS[place % len(FAULTS)] for place, gpu in enumerate(random.choice(gpus, 8, replace=False))}
    rows = []
    for gpu in range(gpus):
        job = gpu // 32
        for part in range(OutlierPolicy().parts):
            values = {
                "power_w": 700 * work[job] + random.normal(0, 8),
                "sm_clock_mhz": 1755 + random.normal(0, 10),
                "sm_activity": 0.95 * work[job] + random.normal(0, 0.01),
                "temperature_c": 45 + 20 * work[job] + random.normal(0, 2),
                "corrected_per_hour": float(random.poisson(0.05)),
                "replays_per_hour": float(random.poisson(0.2)),
            }
            for name, change in bad.get(gpu, {}).items():
                values[name] = values[name] + change if name.endswith("per_hour") else values[name] * change
            rows.append(
                {
                    "uuid": f"GPU-{gpu}",
                    "cluster": "c",
                    "node": f"n{gpu // 8}",
                    "model": "H100",
                    "part": part,
                    "phase": "work",
                    "job": f"j{job}",
                    "workload": f"j{job}",
                    **values,
                }
            )
    return pl.DataFrame(rows), {f"GPU-{gpu}" for gpu in bad}


def forest(parts: pl.DataFrame, count: int, seed: int) -> set[str]:
    """Return the `count` GPUs that an isolation forest finds oddest, by their medians over the window."""
    names = [signal.name for signal in SIGNALS]
    medians = parts.group_by("uuid").agg(pl.col(names).median()).sort("uuid")
    odd = (
        -IsolationForest(n_estimators=200, random_state=seed)
        .fit(medians.select(names).to_numpy())
        .score_samples(medians.select(names).to_numpy())
    )
    return set(medians.get_column("uuid").gather(np.argsort(-odd)[:count]).to_list())


def main() -> int:
    """Print both contestants' figures; 1 where ours names a healthy GPU or misses a planted fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=1152)
    parser.add_argument("--fleets", type=int, default=5)
    options = parser.parse_args()
    hits: dict[str, list[int]] = {"peers": [0, 0], "isolation forest": [0, 0]}
    planted = 0
    for seed in range(options.fleets):
        parts, bad = make_fleet(options.gpus, seed)
        planted += len(bad)
        ours = {verdict.subject for verdict in judge_outliers(parts, OutlierPolicy(), NOW)}
        for name, said in (("peers", ours), ("isolation forest", forest(parts, len(bad), seed))):
            hits[name][0] += len(said & bad)
            hits[name][1] += len(said)
    for name, (right, named) in hits.items():
        print(f"{name:18} precision {right / max(named, 1):.3f}  recall {right / planted:.3f}  ({named} named)")
    return 0 if hits["peers"] == [planted, planted] else 1


if __name__ == "__main__":
    sys.exit(main())
