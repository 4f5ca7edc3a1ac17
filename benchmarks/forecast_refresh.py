"""Time a refresh of 1,000 workspaces x 8 weeks of hours: all of it, and the update one hour later.

`python benchmarks/forecast_refresh.py [--workspaces N]`. The targets are 60 s and 2 GiB, and 5 s.
"""

import argparse
import resource
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from analytics.exhaustion import judge_exhaustion
from analytics.forecast import panel_of, refresh
from analytics.forecast_policy import ForecastPolicy
from fleet.tables import QUOTA

NOW = datetime(2026, 3, 2, tzinfo=UTC)
CHANGES = 0.03  # share of the hours that begin at another level


def demand(workspaces: int, hours: int) -> pl.DataFrame:
    """Return demand that steps and bursts, of workspaces in four pools."""
    generator = np.random.default_rng(0)
    size = (workspaces, hours)
    steps = np.where(generator.random(size) < CHANGES, generator.normal(0, 20, size), 0.0)
    values = np.clip(40 + np.cumsum(steps, axis=1), 0, 100)
    moments = pl.Series([NOW - timedelta(hours=hours - place) for place in range(hours)]).cast(pl.Datetime("us", "UTC"))
    names = pl.Series([f"w{place:05}" for place in range(workspaces)])
    pools = pl.Series([f"p{place % 4}" for place in range(workspaces)])
    at = np.repeat(np.arange(workspaces), hours)
    columns = {"workspace": names.gather(at), "pool": pools.gather(at), "running_gpus_mean": values.ravel()}
    return pl.DataFrame(columns).with_columns(
        pl.lit("c").alias("cluster"), pl.lit(None, pl.String).alias("model"),
        pl.concat([moments] * workspaces).alias("ts"), pl.lit(0.0).alias("pending_gpus_mean"),
        pl.lit(100.0).alias("capacity_gpus_max"),
    )  # fmt: skip


def main() -> None:
    """Print seconds of clock and CPU, and the memory taken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspaces", type=int, default=1000)
    arguments = parser.parse_args()
    policy = ForecastPolicy()
    frame = demand(arguments.workspaces, policy.context_days * 24)
    clock, cpu = time.perf_counter(), time.process_time()
    made = refresh(frame, policy, NOW)
    panel = panel_of(frame, policy, NOW)
    if panel is not None:
        judge_exhaustion(panel, QUOTA.empty(), NOW)
    series = made.forecasts.select("cluster", "workspace", "pool", "model").n_unique()
    print(f"full refresh of {series} series: {_since(clock, cpu)}; target 60 s")
    clock, cpu = time.perf_counter(), time.process_time()
    refresh(frame, policy, NOW + timedelta(hours=1), made.scores)
    print(f"update one hour later: {_since(clock, cpu)}; target 5 s")
    print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB; target 2 GiB")


def _since(clock: float, cpu: float) -> str:
    return f"{time.perf_counter() - clock:.1f} s by the clock, {time.process_time() - cpu:.1f} CPU-s"


if __name__ == "__main__":
    main()
