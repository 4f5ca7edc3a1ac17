"""How fast the simulator is, and what it draws: python benchmarks/simulate.py [GPUs] [days]."""

import resource
import sys
import time

import polars as pl

from simulator import truth
from simulator.presets import default_spec
from simulator.source import SimulatorSource
from simulator.step import build


def main(gpus: int, days: float) -> None:
    """Simulate the default fleet and print time, memory and the shares of samples and GPU-hours."""
    spec = default_spec(gpus, days)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    world = build(spec)
    rows, zeros, known, cells = 0, 0, 0, 0
    for batch in SimulatorSource(world).collect(None, spec.ends_at):
        samples = batch.frames["gpu_sample"]
        rows += samples.height
        cells += samples.height * samples.width - sum(samples.null_count().row(0))
        known += samples["utilization"].count()
        zeros += int((samples["utilization"] == 0).sum())
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{gpus} GPUs, {days:g} days, {spec.interval_s} s: {rows / 1e6:.2f} M samples, {cells / rows:.1f} values each"
    )
    print(f"CPU {cpu_s:.1f} s, wall {wall_s:.1f} s: {rows / cpu_s / 1e6:.2f} M samples a CPU-second")
    print(f"peak {peak_mib:.0f} MiB")
    print(f"share of samples at zero utilisation: {zeros / known:.3f}")
    work = truth.work_intervals(world)
    hours = (work["ends_at"] - work["starts_at"]).dt.total_seconds() / 3600
    print(work.with_columns(gpu_hours=hours).group_by("state").agg(pl.col("gpu_hours").sum().round(0)).sort("state"))
    pl.Config.set_tbl_rows(-1)
    faults = truth.faults(world)
    print(faults.group_by("kind", "is_actionable").len().sort("kind"))


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    main(int(given.get(0, "512")), float(given.get(1, "14")))
