"""Time the idle-run question over a day of 10,000 GPUs against pandas and polars.

Each contestant runs in a process of its own, on the same table (14.4 M rows at 60 s, sorted by GPU and time), and
the run is refused unless all found the same runs. Printed: seconds (best of three), peak memory beyond the input,
and each one's time over ours.

    python benchmarks/idle.py [--gpus 10000] [--hours 24]
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import ibis
import numpy as np
import pandas as pd
import polars as pl

from analytics.idle import IdlePolicy
from analytics.idle_runs import idle_runs
from analytics.idle_signals import idle_signals
from fleet.tables import TABLES
from store.engine import compiled

START = datetime(2026, 3, 1, tzinfo=UTC)
INTERVAL_S = 60
LIMIT_S = 1.0
VERDICTS_LIMIT_S = 1.5
LIMIT_MIB = 4096
ROUNDS = 3
IDLE_SHARE = 0.45
LOST_SHARE = 0.02
UNMEASURED_SHARE = 0.002
COLUMNS = ("gpu", "ts", "utilization", "memory_used_mib", "power_w")
READ = ("gr_activity", "sm_activity", "tensor_activity", "dram_activity", "energy_j", "process_count")


def make_day(path: Path, gpus: int, hours: int, seed: int) -> None:
    """Write a day of samples: busy and idle spells of log-normal length, 2 % of samples lost, some not measured."""
    random = np.random.default_rng(seed)
    count = gpus * hours * 3600 // INTERVAL_S
    lengths = np.maximum(1, random.lognormal(4.0, 1.2, size=count // 10)).astype(np.int64)
    idle = np.repeat(random.random(lengths.size) < IDLE_SHARE, lengths)[:count]
    steps = np.arange(hours * 3600 // INTERVAL_S) * np.timedelta64(INTERVAL_S, "s")
    frame = pl.DataFrame(
        {
            "gpu": np.repeat(np.arange(gpus, dtype=np.uint32), steps.size),
            "ts": np.tile(np.datetime64(START.replace(tzinfo=None), "us") + steps, gpus),
            "utilization": np.where(idle, random.random(count) * 0.04, 0.1 + random.random(count) * 0.9).astype("f4"),
            "memory_used_mib": np.where(idle, 400, 60_000).astype("i4"),
            "power_w": np.where(idle, 65, 380).astype("f4"),
        }
    ).with_columns(pl.col("ts").dt.cast_time_unit("us").dt.replace_time_zone("UTC"))
    unmeasured = pl.Series(random.random(count) < UNMEASURED_SHARE)
    frame = frame.with_columns(utilization=pl.when(~unmeasured).then("utilization"))
    frame.filter(pl.Series(random.random(count) >= LOST_SHARE)).write_parquet(path)


def ours(path: Path, hours: int) -> tuple[Callable[[], pl.DataFrame], Callable[[], None]]:
    """Prepare the expression of `analytics.idle_signals` on DuckDB, the samples in its own table."""
    connection = _connection(path)
    table = ibis.table(_ibis_schema("gpu_sample"), name="gpu_sample")

    def ask() -> pl.DataFrame:
        until = START + timedelta(hours=hours)
        expression = idle_runs(table, START, until, IdlePolicy(interval_s=INTERVAL_S))
        found: pl.DataFrame = connection.sql(compiled(expression)).pl()
        return found

    return ask, connection.close


def with_pandas(path: Path, _hours: int) -> tuple[Callable[[], pl.DataFrame], Callable[[], None]]:
    """Prepare the same question in pandas, the samples sorted in a frame."""
    samples = pd.read_parquet(path, columns=["gpu", "ts", "utilization"])

    def ask() -> pl.DataFrame:
        idle = samples[samples["utilization"] <= IdlePolicy().active_above]
        gap = idle["ts"].diff() > pd.Timedelta(seconds=INTERVAL_S * 1.5)
        run = (gap | (idle["gpu"] != idle["gpu"].shift())).cumsum()
        grouped = idle.groupby(run, sort=False)
        found = grouped.agg(gpu=("gpu", "first"), starts_at=("ts", "first"), ends_at=("ts", "last"))
        found["sample_count"] = grouped.size()
        return pl.from_pandas(found)

    return ask, lambda: None


def with_polars(path: Path, _hours: int) -> tuple[Callable[[], pl.DataFrame], Callable[[], None]]:
    """Prepare the same question in polars, the samples sorted in a frame."""
    samples = pl.read_parquet(path, columns=["gpu", "ts", "utilization"])

    def ask() -> pl.DataFrame:
        idle = samples.lazy().filter(pl.col("utilization") <= IdlePolicy().active_above).with_row_index("ordinal")
        is_gap = pl.col("ts").diff() > pl.duration(seconds=INTERVAL_S * 1.5)
        begins = (is_gap | (pl.col("gpu") != pl.col("gpu").shift())).fill_null(value=True)
        marked = idle.with_columns(begins=begins).with_columns(ends=pl.col("begins").shift(-1, fill_value=True))
        edges = marked.filter(pl.col("begins") | pl.col("ends"))
        runs = edges.group_by(pl.col("begins").cum_sum().alias("run")).agg(
            pl.col("gpu").first(),
            pl.col("ts").first().alias("starts_at"),
            pl.col("ts").last().alias("ends_at"),
            (pl.col("ordinal").last() - pl.col("ordinal").first() + 1).alias("sample_count"),
        )
        return runs.collect()

    return ask, lambda: None


def signals(path: Path, hours: int) -> tuple[Callable[[], pl.DataFrame], Callable[[], None]]:
    """Prepare the whole question behind the idle verdicts of one moment (an extra; nobody else is asked it)."""
    connection = _connection(path)
    for name, table in TABLES.items():
        if name != "gpu_sample":
            connection.register(name, table.empty("stored"))
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE fleet AS SELECT DISTINCT gpu, 'GPU-' || gpu AS uuid, 'c' AS cluster, "
        "'n' || (gpu // 8) AS node, false AS mig_enabled, 'm' AS model, 81920 AS memory_mib FROM gpu_sample"
    )
    connection.unregister("gpu")
    gpu = ibis.table({name: kind for name, kind in _ibis_schema("gpu").items() if name in _FLEET}, name="fleet")
    tables = {name: ibis.table(_ibis_schema(name), name=name) for name in TABLES if name != "gpu"} | {"gpu": gpu}

    def ask() -> pl.DataFrame:
        expression = idle_signals(tables, START + timedelta(hours=hours), IdlePolicy())
        found: pl.DataFrame = connection.sql(compiled(expression)).pl()
        return found

    return ask, connection.close


_FLEET = ("gpu", "uuid", "cluster", "node", "mig_enabled", "model", "memory_mib")
CONTESTANTS = {"ours": ours, "pandas": with_pandas, "polars": with_polars, "signals": signals}


def _connection(path: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone='UTC'")
    # What is not read is left out: fifty columns of nulls in memory would be all that is measured.
    connection.register("shape", TABLES["gpu_sample"].empty("stored").select(*COLUMNS, *READ))
    connection.execute("CREATE TABLE gpu_sample AS SELECT * FROM shape")
    names = ", ".join(COLUMNS)
    connection.execute(f"INSERT INTO gpu_sample ({names}) SELECT {names} FROM read_parquet('{path}')")  # noqa: S608 - our own file
    return connection


def _ibis_schema(name: str) -> dict[str, str]:
    kinds = {"UInt32": "uint32", "Int32": "int32", "Int64": "int64", "Float32": "float32", "Float64": "float64"}
    kinds |= {"String": "string", "Boolean": "boolean"}
    return {
        column: kinds.get(str(dtype), "timestamp('UTC')" if dtype.is_temporal() else "decimal(18, 6)")
        for column, dtype in TABLES[name].schema("stored").items()
    }


def measure(name: str, path: Path, hours: int) -> None:
    """Run one contestant and print its figures as one JSON line."""
    ask, close = CONTESTANTS[name](path, hours)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading: proc(5), VmHWM
    before_mib = resident_mib("VmRSS")
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        found = ask()
        taken.append(time.perf_counter() - begun)
    peak_mib = resident_mib("VmHWM")
    close()
    digest = ""
    if name != "signals":
        same = found.select(
            pl.col("gpu").cast(pl.Int64), *(pl.col(n).dt.epoch("us") for n in ("starts_at", "ends_at")),
            pl.col("sample_count").cast(pl.Int64),
        ).sort("gpu", "starts_at")  # fmt: skip
        digest = hashlib.sha256(same.to_numpy().tobytes()).hexdigest()
    print(
        json.dumps(
            {
                "seconds": min(taken),
                "peak_mib": peak_mib,
                "beyond_input_mib": peak_mib - before_mib,
                "rows": found.height,
                "digest": digest,
            }
        )
    )


def resident_mib(field: str) -> float:
    """Return this process's resident memory in MiB: `VmRSS` now, `VmHWM` its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> int:
    """Run all contestants on one table and print their ratios; 1 where they differ or a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=10_000)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], Path(arguments.measure[1]), arguments.hours)
        return 0
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "day.parquet"
        make_day(path, arguments.gpus, arguments.hours, arguments.seed)
        rows = pl.scan_parquet(path).select(pl.len()).collect().item()
        print(f"{arguments.gpus} GPUs, {arguments.hours} h at {INTERVAL_S} s: {rows:,} samples")
        for name in CONTESTANTS:
            command = [sys.executable, __file__, "--hours", str(arguments.hours), "--measure", name, str(path)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - ourselves
            results[name] = json.loads(told)
    return report(results)


def report(results: dict[str, dict[str, float]]) -> int:
    """Print the table of figures and say whether the targets were met."""
    best = results["ours"]["seconds"]
    print(f"{'':9}{'seconds':>9}{'x ours':>8}{'peak MiB':>10}{'beyond input':>14}{'rows':>10}")
    for name, result in results.items():
        print(
            f"{name:9}{result['seconds']:9.2f}{result['seconds'] / best:8.2f}{result['peak_mib']:10.0f}"
            f"{result['beyond_input_mib']:14.0f}{result['rows']:10.0f}"
        )
    is_same = len({results[name]["digest"] for name in ("ours", "pandas", "polars")}) == 1
    is_met = best < LIMIT_S and results["ours"]["peak_mib"] < LIMIT_MIB
    is_quick = results["signals"]["seconds"] < VERDICTS_LIMIT_S
    print(f"same runs found by all: {is_same}; under {LIMIT_S} s and {LIMIT_MIB} MiB: {is_met}")
    print(f"all that the idle verdicts of one moment read, under {VERDICTS_LIMIT_S} s: {is_quick}")
    return 0 if is_same and is_met and is_quick else 1


if __name__ == "__main__":
    sys.exit(main())
