"""How long it takes to know each source's coverage, beside counting the hour's samples only.

10,000 GPUs, a sample every 10 s for an hour: `python benchmarks/source_coverage.py [GPUs] [seconds]`.
"""

import sys
import time
from datetime import UTC, datetime, timedelta

import polars as pl

from analytics.telemetry import coverage, samples_by_gpu
from fleet.batch import Batch
from fleet.clock import FixedClock
from store.store import Store

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def fill(store: Store, gpus: int, step_s: int) -> int:
    """Store an hour of samples and return how many."""
    uuids = [f"GPU-{number}" for number in range(gpus)]
    names = pl.DataFrame({"gpu_uuid": uuids, "uuid": uuids, "cluster": "c", "node": "n", "last_seen_at": NOW})
    moments = pl.datetime_range(
        NOW - HOUR, NOW, f"{step_s}s", closed="left", time_zone="UTC", time_unit="us", eager=True
    )
    samples = names.select("gpu_uuid").join(pl.DataFrame({"ts": moments}), how="cross")
    store.append(Batch("s", {"gpu": names, "gpu_sample": samples.with_columns(power_w=pl.lit(1.0, pl.Float32))}, NOW))
    return samples.height


def main() -> None:
    """Print the seconds of both, and their ratio."""
    given = [int(text) for text in sys.argv[1:]]
    gpus, step_s = (*given, *(10_000, 10)[len(given) :])
    with Store.open(None, clock=FixedClock(NOW)) as store:
        rows = fill(store, gpus, step_s)
        sample = store.engine.table("gpu_sample")
        count = sample.group_by("gpu").aggregate(samples=sample.count())
        store.engine.run(count)  # what is read for the first time is slower
        begun = time.perf_counter()
        store.engine.run(count)
        plain_s = time.perf_counter() - begun
        begun = time.perf_counter()
        found = coverage(store.engine.run(samples_by_gpu(store.engine, NOW - HOUR, NOW)), NOW - HOUR, NOW)
        coverage_s = time.perf_counter() - begun
    print(f"{rows:,} samples of {found.height:,} GPUs: coverage in {coverage_s:.2f} s, a count in {plain_s:.2f} s")
    print(f"ratio {coverage_s / plain_s:.1f}")


if __name__ == "__main__":
    main()
