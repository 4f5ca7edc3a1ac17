"""Time one look at the fleet's health: 10,000 GPUs x 24 h at 60 s and a million events, in a store on disk.

The look is `steward.health_turn.judge_fleet_health`: rules, silence, peers, record, risk and stakes. Printed: seconds
(best of the rounds), peak memory beyond what was resident with the store open, what was found against what was put
in, and, as the baseline, how long it takes just to read the day's samples once.

    python benchmarks/health.py [--gpus 10000] [--hours 24] [--events 1000000]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from fleet.clock import FixedClock
from fleet.tables import TABLES
from steward.config import load_settings
from steward.health_turn import judge_fleet_health
from store.store import Store

NOW = datetime(2026, 3, 2, tzinfo=UTC)
INTERVAL_S = 60
LIMIT_S = 5.0
LIMIT_MIB = 3072
FIRST_LOST, FIRST_SLOW, FIRST_STORM = 300, 100, 200
LOST, SLOW, STORM, FATAL = 3, 5, 1, 20
"""GPUs made to fall silent, to be slowed by the hardware, to storm with corrected errors, to fall off the bus."""


def make_store(path: Path, gpus: int, hours: int, events: int, seed: int) -> None:
    """Write a store with a day of samples, gangs of 64, and events most of which are applications' own."""
    with Store.open(path, clock=FixedClock(NOW)):
        pass
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone='UTC'")
        _put(connection, "gpu", _gpus(gpus, hours))
        _put(connection, "pod_allocation", _gangs(gpus, hours))
        _put(connection, "event", _events(gpus, hours, events, seed))
        chunk = 1000
        for first in range(0, gpus, chunk):
            _put(connection, "gpu_sample", _samples(first, min(chunk, gpus - first), hours, seed))


def _put(connection: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame) -> None:
    connection.register("rows", frame)
    names = ", ".join(frame.columns)
    connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM rows")  # noqa: S608 - our own names
    connection.unregister("rows")


def _gpus(gpus: int, hours: int) -> pl.DataFrame:
    number = pl.int_range(gpus, eager=True)
    return pl.DataFrame({"gpu": number.cast(pl.UInt32)}).with_columns(
        uuid=pl.format("GPU-{}", "gpu"), cluster=pl.lit("c"), node=pl.format("n{}", pl.col("gpu") // 8),
        model=pl.lit("H100"), pci_bus_id=pl.format("00000000:{}0:00.0", pl.col("gpu") % 8),
        mig_enabled=pl.lit(value=False),
        first_seen_at=pl.lit(NOW - timedelta(hours=hours)), last_seen_at=pl.lit(NOW),
    )  # fmt: skip


def _gangs(gpus: int, hours: int) -> pl.DataFrame:
    gpu = pl.int_range(gpus, eager=True).cast(pl.UInt32)
    told = pl.DataFrame({"gpu": gpu}).with_columns(gang=pl.col("gpu") // 64)
    return told.select(
        "gpu", cluster=pl.lit("c"), namespace=pl.lit("team"), pod=pl.format("train-{}-{}", "gang", "gpu"),
        pod_uid=pl.format("uid-{}", "gpu"), workload_kind=pl.lit("PyTorchJob"), workload=pl.format("train-{}", "gang"),
        fraction=pl.lit(1.0), starts_at=pl.lit(NOW - timedelta(hours=hours)),
    )  # fmt: skip


def _events(gpus: int, hours: int, events: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    code = random.choice([13, 31, 43, 45], size=events)
    # A quarter of them is one application that errs again and again on few GPUs.
    gpu = np.where(random.random(events) < 0.25, random.integers(0, 64, events), random.integers(0, gpus, events))  # noqa: PLR2004
    second = random.integers(0, hours * 3600, events)
    code[:FATAL], gpu[:FATAL], second[:FATAL] = 79, np.arange(FATAL) * 97 % gpus, hours * 3600 - 7200
    return pl.DataFrame({"code": code.astype(np.int32), "gpu": gpu, "second": second}).select(
        "code", ts=NOW - timedelta(hours=hours) + pl.duration(seconds="second"), cluster=pl.lit("c"),
        node=pl.format("n{}", pl.col("gpu") // 8), gpu_uuid=pl.format("GPU-{}", "gpu"), kind=pl.lit("xid"),
        message=pl.lit("as the driver says it"), source=pl.lit("kmsg"),
    )  # fmt: skip


def _samples(first: int, gpus: int, hours: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed + first)
    steps = hours * 3600 // INTERVAL_S
    count = gpus * steps
    gpu = np.repeat(np.arange(first, first + gpus, dtype=np.uint32), steps)
    step = np.tile(np.arange(steps), gpus)
    is_slow = (gpu >= FIRST_SLOW) & (gpu < FIRST_SLOW + SLOW) & (step >= steps - 60)
    corrected = np.where((gpu >= FIRST_STORM) & (gpu < FIRST_STORM + STORM), step * 17_700 * INTERVAL_S, 0)
    frame = pl.DataFrame(
        {
            "gpu": gpu, "step": step,
            "utilization": (0.85 + 0.1 * random.random(count)).astype("f4"),
            "sm_activity": (0.70 + 0.1 * random.random(count)).astype("f4"),
            "power_w": (580 + 40 * random.random(count)).astype("f4"),
            "temperature_c": (58 + 8 * random.random(count)).astype("f4"),
            "sm_clock_mhz": (1740 + 30 * random.random(count)).astype("i4"),
            "memory_used_mib": np.full(count, 60_000, "i4"),
            "clock_event_bits": np.where(is_slow, 0x48, 0).astype("i8"),
            "ecc_corrected_count": corrected.astype("i8"), "ecc_uncorrected_count": np.zeros(count, "i8"),
            "pcie_replay_count": np.zeros(count, "i8"), "pcie_width": np.full(count, 16, "i4"),
            "pcie_generation": np.full(count, 5, "i4"), "recovery_action": np.zeros(count, "i4"),
            "is_remap_pending": np.zeros(count, bool), "is_remap_failed": np.zeros(count, bool),
        }
    )  # fmt: skip
    moment = pl.duration(seconds=pl.col("step") * INTERVAL_S + INTERVAL_S // 2)
    frame = frame.with_columns(ts=NOW - timedelta(hours=hours) + moment)
    is_lost = pl.col("gpu").is_in(list(range(FIRST_LOST, FIRST_LOST + LOST))) & (pl.col("step") >= steps - 2)
    return frame.filter(~is_lost).drop("step").cast({"ts": TABLES["gpu_sample"].schema()["ts"]})


def measure(path: Path, rounds: int) -> int:
    """Look at the store's health and print the figures; 1 where a target is missed or a planted fault is."""
    settings = load_settings(None, {})
    with Store.open(path, clock=FixedClock(NOW)) as store:
        baseline = _read_once(store)
        before_mib = resident_mib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak until here: proc(5), VmHWM
        taken = []
        for _ in range(rounds):
            begun = time.perf_counter()
            turned = judge_fleet_health(store.engine, settings, {}, NOW)
            taken.append(time.perf_counter() - begun)
        peak_mib = resident_mib("VmHWM")
        rows = store.describe()["rows"]
    states = Counter(verdict.state for verdict in turned.verdicts if verdict.subject_kind == "gpu")
    rules = Counter(verdict.rule for verdict in turned.verdicts if verdict.state not in {"healthy", "unknown"})
    print(f"rows: {rows['gpu_sample']:,} samples, {rows['event']:,} events" if isinstance(rows, dict) else "")
    print(f"states: {dict(states)}; rules: {dict(rules)}")
    print(f"one health turn: {min(taken):.2f} s (all: {', '.join(f'{each:.2f}' for each in taken)})")
    print(f"ratio to reading the day's samples once ({baseline:.2f} s): {min(taken) / baseline:.1f}")
    print(f"peak memory {peak_mib:.0f} MiB, of which {before_mib:.0f} MiB before the first look")
    is_found = rules["gpu_lost"] >= LOST and rules["xid_79"] == FATAL and states["degraded"] >= SLOW + STORM
    is_quiet = sum(states.values()) - states["healthy"] <= LOST + FATAL + SLOW + STORM
    is_met = min(taken) < LIMIT_S and peak_mib < LIMIT_MIB
    print(f"all planted faults found: {is_found}, no others: {is_quiet}; under {LIMIT_S} s, {LIMIT_MIB} MiB: {is_met}")
    return 0 if is_found and is_quiet and is_met else 1


def _read_once(store: Store) -> float:
    begun = time.perf_counter()
    samples = store.engine.table("gpu_sample")
    store.engine.run(
        samples.aggregate(power_w=samples.power_w.mean(), ts=samples.ts.max(), width=samples.pcie_width.max())
    )
    return time.perf_counter() - begun


def resident_mib(field: str) -> float:
    """Return this process's resident memory in MiB: `VmRSS` now, `VmHWM` its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> int:
    """Make a store, then look at it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=10_000)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--store", type=Path, help="keep the store here, and use it where it is there already")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        path = options.store or Path(folder) / "health.duckdb"
        if not path.exists():
            make_store(path, options.gpus, options.hours, options.events, options.seed)
        command = [sys.executable, __file__, "--measure", str(path), "--rounds", str(options.rounds)]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - ourselves


if __name__ == "__main__":
    sys.exit(main())
