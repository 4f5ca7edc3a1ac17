"""The whole ledger of a real trace: Alibaba's openb pods and nodes of 2023, 6,212 GPUs over 149 days.

The trace tells which pods ran when and what they asked for, not on which GPUs; they are placed by best fit on nodes of
a model they accept. Nothing was measured, so all that is held is of unknown use. Printed: GPU-hours and dollars by
category, what had no price, and whether every day's sums are exact. The baseline is the bare question on DuckDB.

    python -m benchmarks.cost_openb FOLDER [--days 149]
"""

import argparse
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl

from analytics.cost import ledger, no_intervals
from analytics.cost_hours import ledger_hours
from analytics.cost_policy import LedgerPolicy
from collectors.prices import read_price_book
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.tables import PRICE, TABLES
from steward.booking import chunks
from store.store import Store

START = datetime(2023, 1, 1, tzinfo=UTC)
WHOLE = 1000
"""Thousandths of a GPU in one."""


def find_traces(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """Return nodes and pods of the first trace of this kind below a folder, told by its columns; None without one."""
    nodes = pods = None
    for path in sorted(folder.rglob("*.parquet")):
        columns = set(pl.read_parquet_schema(path))
        if {"sn", "gpu", "model", "cpu_milli"} <= columns:
            nodes = pl.read_parquet(path)
        if {"num_gpu", "gpu_milli", "scheduled_time", "deletion_time"} <= columns:
            pods = pl.read_parquet(path)
    return None if nodes is None or pods is None else (nodes, pods)


def place(nodes: pl.DataFrame, pods: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Return GPUs, allocations of pods on them by best fit, and how many pods found no place."""
    with_gpus = nodes.filter(pl.col("gpu") > 0).sort("sn")
    node_of = np.repeat(np.arange(with_gpus.height), with_gpus["gpu"].to_numpy())
    models = with_gpus["model"].to_list()
    free = np.full(node_of.size, WHOLE)
    starts_of = np.searchsorted(node_of, np.arange(with_gpus.height))
    ran = pods.filter(pl.col("scheduled_time").is_not_null(), pl.col("num_gpu") > 0).sort("scheduled_time", "name")
    running: list[tuple[int, list[int], int]] = []
    rows, unplaced = [], 0
    for pod in ran.iter_rows(named=True):
        for ended in [each for each in running if each[0] <= pod["scheduled_time"]]:
            free[ended[1]] += ended[2]
            running.remove(ended)
        wanted = set((pod["gpu_spec"] or "").split("|")) - {""}
        fits = np.flatnonzero(free >= pod["gpu_milli"])
        counts = np.bincount(node_of[fits], minlength=len(models))
        able = [each for each in np.flatnonzero(counts >= pod["num_gpu"]) if not wanted or models[each] in wanted]
        if not able:
            unplaced += 1
            continue
        left = np.add.reduceat(free, starts_of)
        node = min(able, key=lambda each: (left[each], each))
        chosen = sorted(fits[node_of[fits] == node], key=lambda gpu: (free[gpu], gpu))[: pod["num_gpu"]]
        free[chosen] -= pod["gpu_milli"]
        running.append((pod["deletion_time"], chosen, pod["gpu_milli"]))
        rows += [
            (gpu, pod["name"], pod["gpu_milli"] / WHOLE, pod["scheduled_time"], pod["deletion_time"]) for gpu in chosen
        ]
    return _gpus(with_gpus, node_of), _allocations(rows), unplaced


def _gpus(nodes: pl.DataFrame, node_of: np.ndarray) -> pl.DataFrame:
    of_gpu = nodes[node_of.tolist()]
    found: pl.DataFrame = of_gpu.select(
        gpu=pl.int_range(1, pl.len() + 1, dtype=pl.UInt32), uuid=pl.format("openb-{}", pl.int_range(pl.len())),
        cluster=pl.lit("openb"), node="sn", model="model", first_seen_at=pl.lit(START),
        last_seen_at=pl.lit(START + timedelta(days=365)),
    )  # fmt: skip
    return found


def _allocations(rows: list[tuple[int, str, float, int, int]]) -> pl.DataFrame:
    schema = ["gpu", "pod", "fraction", "start_s", "end_s"]
    frame = pl.DataFrame([(int(row[0]) + 1, *row[1:]) for row in rows], schema=schema, orient="row")
    start = pl.lit(START)
    return frame.select(
        cluster=pl.lit("openb"), namespace=pl.lit("openb"), pod="pod", pod_uid="pod",
        workspace=pl.format("workspace-{}", pl.col("pod").str.slice(-2)), gpu=pl.col("gpu").cast(pl.UInt32),
        fraction="fraction", starts_at=start + pl.duration(seconds=pl.col("start_s")),
        ends_at=start + pl.duration(seconds=pl.col("end_s")),
    ).filter(pl.col("starts_at") < pl.col("ends_at"))  # fmt: skip


def fill(store: Store, nodes: pl.DataFrame, pods: pl.DataFrame) -> int:
    """Put the placed trace and the built-in prices, as if they had held then, into a store; return pods unplaced."""
    gpus, allocations, unplaced = place(nodes, pods)
    named = nodes.select(
        cluster=pl.lit("openb"), node="sn", model="model", gpus=pl.col("gpu").cast(pl.Int32)
    ).with_columns(capacity_type=pl.lit("on_demand"))
    store.append(Batch("openb", {"node": named}))
    for name, frame in (("gpu", gpus), ("pod_allocation", allocations)):
        store.append_stored(name, frame.select([each for each in TABLES[name].names() if each in frame.columns]))
    book = read_price_book(None).with_columns(starts_at=pl.lit(START, PRICE.schema()["starts_at"]))
    store.append_stored("price", book.unique(["model", "capacity_type", "region"], keep="last", maintain_order=True))
    return unplaced


def count_days(store: Store, days: int) -> tuple[dict[str, tuple[int, Decimal]], int, float, float]:
    """Return microseconds and dollars by category, microseconds without price, and seconds for question and ledger.

    Stops with an error where a day's sums are not exactly those of its GPUs.
    """
    prices, policy = store.read("price"), LedgerPolicy()
    totals: defaultdict[str, tuple[int, Decimal]] = defaultdict(lambda: (0, Decimal(0)))
    unpriced, asked_s, counted_s = 0, 0.0, 0.0
    for begin, end in chunks(START, START + timedelta(days=days)):
        began = time.perf_counter()
        hours = store.engine.run(ledger_hours(store.engine, begin, end, policy))
        asked_s += time.perf_counter() - began
        began = time.perf_counter()
        lines = ledger(hours, prices, no_intervals(), policy)
        counted_s += time.perf_counter() - began
        _check(lines, end - begin)
        us = (pl.col("gpu_seconds") * 1e6).round().cast(pl.Int64)
        for category, day_us, usd in lines.group_by("category").agg(us.sum(), pl.col("cost_usd").sum()).iter_rows():
            before = totals[category]
            totals[category] = (before[0] + day_us, before[1] + (usd or Decimal(0)))
        unpriced += int(lines.filter(pl.col("cost_usd").is_null()).select(us.sum()).item() or 0)
    return dict(totals), unpriced, asked_s, counted_s


def _check(lines: pl.DataFrame, length: timedelta) -> None:
    """Stop where any GPU's day is not exactly its time, or its dollars not exactly rate times hours."""
    us = (pl.col("gpu_seconds") * 1e6).round().cast(pl.Int64)
    by_gpu = lines.group_by("gpu").agg(
        us.sum().alias("us"), pl.col("cost_usd").sum(), pl.col("usd_per_gpu_hour").first()
    )
    hours = int(length.total_seconds() // 3600)
    wrong = by_gpu.filter(
        (pl.col("us") != hours * 3_600_000_000)
        | (pl.col("usd_per_gpu_hour").is_not_null() & (pl.col("cost_usd") != pl.col("usd_per_gpu_hour") * hours))
    )
    if wrong.height:
        message = f"the sums of {wrong.height} GPUs are not exact: {wrong.row(0)}"
        raise SystemExit(message)


def main() -> None:
    """Count the whole trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=149)
    given = parser.parse_args()
    traces = find_traces(given.folder)
    if traces is None:
        message = f"{given.folder} holds no such trace"
        raise SystemExit(message)
    with Store.open(None, clock=FixedClock(START + timedelta(days=365))) as store:
        unplaced = fill(store, *traces)
        gpus, pods = store.read("gpu").height, store.read("pod_allocation")["pod_uid"].n_unique()
        totals, unpriced, asked_s, counted_s = count_days(store, given.days)
    print(f"openb       {gpus:,} GPUs, {pods:,} pods placed ({unplaced} found no place), {given.days} days; sums exact")
    for category, (us, usd) in sorted(totals.items()):
        print(f"  {category:14} {us / 3_600_000_000:16,.6f} GPU-hours {usd:20,} USD")
    whole = sum(us for us, _ in totals.values())
    print(f"  {'all':14} {whole / 3_600_000_000:16,.6f} GPU-hours {sum(usd for _, usd in totals.values()):20,} USD")
    print(f"  without price  {unpriced / 3_600_000_000:16,.6f} GPU-hours")
    print(f"  question {asked_s:.1f} s, ledger {counted_s:.1f} s: {counted_s / asked_s:.2f} times the bare question")


if __name__ == "__main__":
    main()
