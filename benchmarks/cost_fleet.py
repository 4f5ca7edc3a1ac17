"""Make a fleet for the ledger's benchmarks: GPUs, their hourly activity and who held them, as a store has it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl

from fleet.frames import UTC_MICROSECONDS
from fleet.tables import PRICE, TABLES
from store.store import Store

START = datetime(2026, 3, 2, tzinfo=UTC)
MODELS = ("H100", "A100-80GB", "L4")
GPUS_PER_NODE = 8
FREE_SHARE = 0.15
BUSY_SHARE = 0.6
SHARED_SHARE = 0.1


def make_prices(factor: str = "1") -> pl.DataFrame:
    """Return a price of each model; `factor` multiplies them."""
    rows = [
        {"model": model, "capacity_type": "on_demand", "usd_per_gpu_hour": Decimal(usd) * Decimal(factor),
         "source": "benchmark", "starts_at": datetime(2020, 1, 1, tzinfo=UTC)}
        for model, usd in zip(MODELS, ("6.88", "3.430725", "0.8048"), strict=True)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=PRICE.schema())


def fill(store: Store, gpus: int, workspaces: int, hours: int, seed: int = 7) -> None:
    """Put `gpus` GPUs with `hours` of roll-up and of allocations over `workspaces` into an open store."""
    random = np.random.default_rng(seed)
    numbers = np.arange(1, gpus + 1, dtype=np.uint32)
    node = (numbers - 1) // GPUS_PER_NODE
    frames = {
        "node": pl.DataFrame({"node": [f"node-{each}" for each in range(node.max() + 1)]}).with_columns(
            cluster=pl.lit("c1"), capacity_type=pl.lit("on_demand"), model=pl.lit(None, pl.String())
        ),
        "gpu": pl.DataFrame({"gpu": numbers, "node": [f"node-{each}" for each in node]}).with_columns(
            uuid=pl.format("GPU-{}", "gpu"), cluster=pl.lit("c1"),
            model=pl.Series([MODELS[each % len(MODELS)] for each in node]),
            first_seen_at=pl.lit(START, UTC_MICROSECONDS),
            last_seen_at=pl.lit(START + timedelta(hours=hours), UTC_MICROSECONDS),
        ),
        "gpu_hour": _activity(random, numbers, hours),
        "pod_allocation": _allocations(random, numbers, workspaces, hours),
        "price": make_prices(),
    }  # fmt: skip
    for name, frame in frames.items():
        store.append_stored(name, frame.select([each for each in TABLES[name].names() if each in frame.columns]))


def _activity(random: np.random.Generator, numbers: np.ndarray, hours: int) -> pl.DataFrame:
    count = numbers.size * hours
    active = np.where(random.random(count) < BUSY_SHARE, random.integers(30, 61, count), 0).astype(np.int32)
    return pl.DataFrame({"gpu": np.repeat(numbers, hours), "hour": np.tile(np.arange(hours), numbers.size)}).select(
        "gpu",
        hour_at=(pl.lit(START, UTC_MICROSECONDS) + pl.duration(hours=pl.col("hour"))).cast(UTC_MICROSECONDS),
        sample_count=pl.lit(60, pl.Int32()),
        known_sample_count=pl.lit(60, pl.Int32()),
        active_sample_count=pl.Series(active),
    )


def _allocations(random: np.random.Generator, numbers: np.ndarray, workspaces: int, hours: int) -> pl.DataFrame:
    """Return jobs of 1 to 60 hours end to end on each GPU, some hours free between, some GPUs shared by two pods."""
    jobs_a_gpu = max(2, hours // 12)
    lengths = random.integers(3600, 24 * 3600, (numbers.size, jobs_a_gpu))
    gaps = np.where(random.random(lengths.shape) < FREE_SHARE, random.integers(60, 6 * 3600, lengths.shape), 0)
    ends = np.cumsum(lengths + gaps, axis=1)
    starts = ends - lengths
    shared = random.random(numbers.size) < SHARED_SHARE
    frame = pl.DataFrame(
        {
            "gpu": np.repeat(numbers, jobs_a_gpu),
            "start_s": starts.ravel(),
            "end_s": ends.ravel(),
            "space": random.integers(0, workspaces, starts.size),
            "shared": np.repeat(shared, jobs_a_gpu),
        }
    ).with_row_index("job")
    twice = frame.filter("shared").with_columns(
        space=(pl.col("space") + 1) % workspaces, job=pl.col("job") + starts.size
    )
    both = pl.concat([frame, twice]).filter(pl.col("start_s") < hours * 3600)
    start = pl.lit(START, UTC_MICROSECONDS)
    return both.select(
        cluster=pl.lit("c1"), namespace=pl.format("team-{}", "space"), pod=pl.format("job-{}-0", "job"),
        pod_uid=pl.format("uid-{}", "job"), workload_kind=pl.lit("Job"), workload=pl.format("job-{}", "job"),
        workspace=pl.format("workspace-{}", "space"), gpu="gpu",
        fraction=pl.when("shared").then(0.5).otherwise(1.0),
        starts_at=(start + pl.duration(seconds=pl.col("start_s"))).cast(UTC_MICROSECONDS),
        ends_at=(start + pl.duration(seconds=pl.col("end_s"))).cast(UTC_MICROSECONDS),
    )  # fmt: skip
