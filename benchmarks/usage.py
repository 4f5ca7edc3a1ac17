"""Time the median and 95th part of activity by workspace and hour over a week, beside polars on the same data.

A week of 10,000 GPUs at 60 s is 100.8 M samples in the store's own table, held by 20 workspaces in spells of some
hours. Each contestant runs in a process of its own; the run is refused unless both give the same numbers. Printed:
seconds (best of two), peak memory, and polars' time over ours.

    python benchmarks/usage.py [--gpus 10000] [--days 7]
"""

import argparse
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
import polars as pl

from analytics.usage import usage_hours
from fleet.tables import TABLES
from store.engine import compiled

START = datetime(2026, 3, 2, tzinfo=UTC)
INTERVAL_S = 60
WORKSPACES = 20
HOURS_HELD = 7.0
LIMIT_S, LIMIT_MIB = 5.0, 4096
ROUNDS = 2


def make_fleet(folder: Path, gpus: int, days: int, seed: int) -> None:
    """Write a database of samples and a Parquet file of holds."""
    random = np.random.default_rng(seed)
    seconds = days * 86_400
    rows = []
    for gpu in range(gpus):
        at = 0
        while at < seconds:
            lasts = int(random.exponential(HOURS_HELD * 3600)) + 60
            rows.append((gpu, int(random.integers(WORKSPACES)), at, min(seconds, at + lasts)))
            at += lasts + int(random.exponential(1800))
    holds = pl.DataFrame(rows, schema=["gpu", "workspace", "from_s", "until_s"], orient="row")
    epoch = int(START.timestamp())
    moment = {name: pl.from_epoch(pl.col(name) + epoch, "s").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
              for name in ("from_s", "until_s")}  # fmt: skip
    held = holds.select(
        pl.col("gpu").cast(pl.UInt32),
        workspace=pl.format("w{}", "workspace"),
        starts_at=moment["from_s"],
        ends_at=moment["until_s"],
    )
    held.write_parquet(folder / "holds.parquet")
    connection = connect(folder)
    connection.sql("SELECT setseed(0.5)").fetchall()
    connection.register("shape", TABLES["gpu_sample"].empty("stored"))
    connection.execute("CREATE TABLE gpu_sample AS SELECT * FROM shape")
    for day in range(days):
        connection.execute(
            f"INSERT INTO gpu_sample (gpu, ts, utilization, gr_activity, sm_activity) SELECT g::UINTEGER, "  # noqa: S608 - our own numbers
            f"to_timestamp({epoch + day * 86_400} + m * {INTERVAL_S}), v, v, CASE WHEN v < 0.02 THEN v END FROM "
            f"(SELECT g, m, random()::FLOAT AS v FROM range({gpus}) a(g), range({86_400 // INTERVAL_S}) b(m))"
        )
    connection.close()


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """Open the database in UTC and within 3 GiB, the rest being for what comes out of it."""
    connection = duckdb.connect(str(folder / "s.duckdb"))
    for setting in ("TimeZone='UTC'", "memory_limit='3GiB'"):
        connection.execute(f"SET {setting}").fetchall()
    return connection


def ours(folder: Path, days: int) -> Callable[[], pl.DataFrame]:
    """Prepare the expression of `analytics.usage` over the store's table."""
    connection = connect(folder)
    holds = pl.read_parquet(folder / "holds.parquet").with_columns(
        cluster=pl.lit("c"), namespace=pl.lit("n"), pod=pl.format("p{}", pl.int_range(pl.len())),
        pod_uid=pl.format("p{}", pl.int_range(pl.len())), fraction=pl.lit(1.0),
    )  # fmt: skip
    filled = holds.select(
        *(pl.col(name) if name in holds.columns else pl.lit(None, dtype=dtype).alias(name)
          for name, dtype in TABLES["pod_allocation"].schema("stored").items())
    )  # fmt: skip
    connection.register("pod_allocation", filled)
    for name in ("gpu", "slice_sample"):
        connection.register(name, TABLES[name].empty("stored"))
    tables = {
        name: ibis.table(_schema(name), name=name) for name in ("gpu_sample", "slice_sample", "pod_allocation", "gpu")
    }
    sql = compiled(usage_hours(tables, START, START + timedelta(days=days)))

    def ask() -> pl.DataFrame:
        found: pl.DataFrame = connection.sql(sql).pl()
        return found.select("workspace", "hour_at", p50="activity_p50", p95="activity_p95")

    return ask


def with_polars(folder: Path, _days: int) -> Callable[[], pl.DataFrame]:
    """Prepare the same question in polars: an as-of join of samples with holds, then quantiles."""
    connection = connect(folder)
    sql = "SELECT gpu, ts, coalesce(sm_activity, gr_activity, utilization) AS activity FROM gpu_sample"
    samples: pl.DataFrame = connection.sql(sql).pl()
    connection.close()
    samples = samples.sort("gpu", "ts")
    holds = pl.read_parquet(folder / "holds.parquet").rename({"starts_at": "ts"}).sort("gpu", "ts")

    def ask() -> pl.DataFrame:
        met = samples.lazy().join_asof(holds.lazy(), on="ts", by="gpu", check_sortedness=False)
        met = met.filter(pl.col("ts") < pl.col("ends_at"))
        grouped = met.group_by("workspace", hour_at=pl.col("ts").dt.truncate("1h")).agg(
            p50=pl.col("activity").quantile(0.5, "linear"), p95=pl.col("activity").quantile(0.95, "linear")
        )
        return grouped.collect()

    return ask


CONTESTANTS = {"ours": ours, "polars": with_polars}


def _schema(name: str) -> dict[str, str]:
    kinds = {"UInt32": "uint32", "Int32": "int32", "Int64": "int64", "Float32": "float32", "Float64": "float64"}
    kinds |= {"String": "string", "Boolean": "boolean"}
    return {
        column: kinds.get(str(dtype), "timestamp('UTC')") for column, dtype in TABLES[name].schema("stored").items()
    }


def measure(name: str, folder: Path, days: int) -> None:
    """Run one contestant and print its figures as one JSON line."""
    ask = CONTESTANTS[name](folder, days)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading: proc(5), VmHWM
    taken = []
    for _ in range(ROUNDS):
        begun, worked = time.perf_counter(), time.process_time()
        found = ask()
        taken.append((time.perf_counter() - begun, time.process_time() - worked))
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    ordered = found.drop_nulls().sort("workspace", "hour_at")
    sums = [round(float(ordered[column].cast(pl.Float64).sum()), 2) for column in ("p50", "p95")]
    print(
        json.dumps(
            {"seconds": min(taken)[0], "cpu_s": min(taken)[1], "peak_mib": peak, "rows": ordered.height, "sums": sums}
        )
    )


def main() -> int:
    """Run both on one fleet and print their ratio; 1 where they differ or a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], Path(arguments.measure[1]), arguments.days)
        return 0
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        make_fleet(Path(folder), arguments.gpus, arguments.days, seed=7)
        for name in CONTESTANTS:
            command = [sys.executable, __file__, "--days", str(arguments.days), "--measure", name, folder]
            told = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ourselves
            results[name] = json.loads(told.stdout) if told.returncode == 0 else None
    mine = results["ours"]
    print(f"{arguments.gpus * arguments.days * 86_400 // INTERVAL_S:,} samples, {WORKSPACES} workspaces")
    for name, result in results.items():
        if result is None or mine is None:
            print(f"{name:8}failed (out of memory?)")
            continue
        print(
            f"{name:8}{result['seconds']:8.2f} s ({result['cpu_s']:.1f} s of CPU)"
            f"{result['seconds'] / mine['seconds']:7.2f} x"
            f"{result['peak_mib']:8.0f} MiB {result['rows']:8,} rows, sums {result['sums']}"
        )
    other = results["polars"]
    is_same = mine is not None and (other is None or (mine["rows"], mine["sums"]) == (other["rows"], other["sums"]))
    is_met = mine is not None and mine["seconds"] < LIMIT_S and mine["peak_mib"] < LIMIT_MIB
    print(f"same numbers: {is_same}; under {LIMIT_S} s and {LIMIT_MIB} MiB: {is_met}")
    return 0 if is_same and is_met else 1


if __name__ == "__main__":
    sys.exit(main())
