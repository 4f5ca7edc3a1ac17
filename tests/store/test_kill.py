"""A process killed -9 in the middle of appends: nothing acknowledged is lost, nothing doubled, no half batch."""

import random
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from fleet.clock import FixedClock
from store.store import Store

ROWS = 4_000
WRITER = f"""
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
import polars as pl
from fleet.batch import Batch
from fleet.clock import SystemClock
from store.store import Store
store = Store.open(Path(sys.argv[1]), clock=SystemClock())
gpus = pl.DataFrame({{"gpu_uuid": ["a"], "uuid": ["a"], "cluster": ["c"], "node": ["n"]}})
print("ready", flush=True)
number = int(sys.argv[2])
while True:
    first = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds={ROWS} * number)
    last = first + timedelta(seconds={ROWS})
    ts = pl.datetime_range(first, last, "1s", closed="left", time_zone="UTC", eager=True).alias("ts")
    samples = pl.DataFrame(ts).with_columns(gpu_uuid=pl.lit("a"), power_w=pl.lit(float(number)))
    demand = pl.DataFrame(ts.head(100)).with_columns(
        cluster=pl.lit("c"), workspace=pl.lit("w"), running_gpus=pl.lit(float(number))
    )
    frames = {{"gpu": gpus, "gpu_sample": samples, "demand_sample": demand}}
    store.append(Batch("writer", frames, read_until=last))
    print(number, flush=True)
    number += 1
"""


def kill_once(path: Path, first: int, rng: random.Random) -> int:
    """Let a writer append batches from number `first`, kill it, and return how many it acknowledged."""
    command = [sys.executable, "-c", WRITER, str(path), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:  # noqa: S603 - our own code
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for _ in range(rng.randrange(1, 6)):
            writer.stdout.readline()
        for _ in range(rng.randrange(400_000)):  # a random part of the next append's time
            pass
        writer.kill()
        rest = writer.stdout.read().splitlines()
    acknowledged = [int(line) for line in rest if line.isdigit()]
    return max(acknowledged, default=-1)


def check(path: Path, clock: FixedClock, acknowledged: int) -> int:
    """Check that batches 0..n are there whole and once, with n at least what was acknowledged; return n + 1."""
    with Store.open(path, clock=clock) as store:
        samples = Counter(store.read("gpu_sample").get_column("power_w").cast(int).to_list())
        demand = Counter(store.read("demand_sample").get_column("running_gpus").cast(int).to_list())
        mark = store.watermark("writer")
        moments = store.read("gpu_sample").get_column("ts")
    assert moments.n_unique() == len(moments)
    assert set(samples.values()) <= {ROWS}
    assert set(demand.values()) <= {100}
    assert set(samples) == set(demand) == set(range(len(samples)))
    assert len(samples) > acknowledged
    if samples:
        last = moments.max()
        assert mark is not None
        assert last == mark - timedelta(seconds=1)
    return len(samples)


def run_kills(path: Path, clock: FixedClock, kills: int, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - a seeded choice of moments, not a secret
    first = 0
    for _ in range(kills):
        first = check(path, clock, max(kill_once(path, first, rng), first - 1))
    assert first > 0


def test_five_kills_lose_nothing_acknowledged_and_double_nothing(tmp_path: Path, clock: FixedClock) -> None:
    run_kills(tmp_path / "steward.duckdb", clock, 5, seed=1)


@pytest.mark.slow
def test_fifty_kills_lose_nothing_acknowledged_and_double_nothing(tmp_path: Path, clock: FixedClock) -> None:
    run_kills(tmp_path / "steward.duckdb", clock, 50, seed=2)
