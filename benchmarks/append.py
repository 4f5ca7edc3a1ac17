"""Append: samples a second into our store, beside DuckDB's own in-memory Arrow insert of the same frame.

A sample is one measured (non-null) value. Usage: python benchmarks/append.py [--batches 5] [--rows 600000]
"""

import argparse
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from fleet.batch import Batch
from fleet.clock import SystemClock
from fleet.frames import conform
from fleet.tables import GPU_SAMPLE
from store.store import Store

METRICS = (
    "utilization", "sm_activity", "dram_activity", "memory_used_mib", "power_w", "temperature_c", "sm_clock_mhz",
    "memory_clock_mhz", "clock_event_bits", "ecc_corrected_count",
)  # fmt: skip
START = datetime(2026, 1, 1, tzinfo=UTC)


def make_frames(batches: int, rows: int) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Return the GPU dimension and `batches` wire-form frames of `rows` rows, ten measured metrics each."""
    rng = np.random.default_rng(0)
    gpus = rows // 60
    uuids = [f"GPU-{number:06d}" for number in range(gpus)]
    dimension = pl.DataFrame({"gpu_uuid": uuids, "uuid": uuids}).with_columns(cluster=pl.lit("c"), node=pl.lit("n"))
    frames = []
    for batch in range(batches):
        minutes = [START + timedelta(minutes=60 * batch + minute) for minute in range(60)]
        grid = pl.DataFrame({"gpu_uuid": uuids}).join(pl.DataFrame({"ts": minutes}), how="cross")
        ratios = [pl.Series(name, rng.random(grid.height, dtype=np.float32)) for name in METRICS[:3]]
        counts = [pl.Series(name, rng.integers(0, 2000, grid.height)) for name in METRICS[3:]]
        frames.append(conform(grid.with_columns(*ratios, *counts), GPU_SAMPLE))
    return dimension, frames


def time_ours(path: Path | None, dimension: pl.DataFrame, frames: list[pl.DataFrame]) -> float:
    """Return the seconds our store takes to append and commit all frames."""
    with Store.open(path, clock=SystemClock()) as store:
        store.append(Batch("bench", {"gpu": dimension}))
        start = time.perf_counter()
        for frame in frames:
            store.append(Batch("bench", {"gpu_sample": frame}))
        return time.perf_counter() - start


def time_duckdb(frames: list[pl.DataFrame]) -> float:
    """Return the seconds DuckDB takes to insert the same frames from Arrow, in memory, unchecked."""
    with duckdb.connect() as connection:
        connection.register("first", frames[0].head(0).to_arrow())
        connection.execute("CREATE TABLE sample AS FROM first").fetchall()
        start = time.perf_counter()
        for frame in frames:
            connection.register("incoming", frame.to_arrow())
            connection.execute("INSERT INTO sample FROM incoming").fetchall()
        return time.perf_counter() - start


def main() -> None:
    """Run all three and print them with their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--rows", type=int, default=600_000)
    arguments = parser.parse_args()
    dimension, frames = make_frames(arguments.batches, arguments.rows)
    samples = sum(frame.height for frame in frames) * len(METRICS)
    with tempfile.TemporaryDirectory() as folder:
        on_file = time_ours(Path(folder) / "bench.duckdb", dimension, frames)
    in_memory = time_ours(None, dimension, frames)
    baseline = time_duckdb(frames)
    print(f"{samples:,} samples in {arguments.batches} batches of {arguments.rows:,} rows")
    for name, seconds in (
        ("DuckDB Arrow insert, memory", baseline),
        ("ours, memory", in_memory),
        ("ours, file", on_file),
    ):
        print(f"{name:28} {samples / seconds / 1e6:7.1f} M samples/s   ratio {baseline / seconds:.2f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
