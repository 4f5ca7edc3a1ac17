"""Quote waits for jobs of a recorded queue: `python benchmarks/wait_time.py [--jobs FILE]`.

The record has submissions and run times, not starts: waits are simulated by our replay of each workspace on GPUs of
its own, not observed. It has as many GPUs as its
jobs would keep busy to `--load`, so that there is a queue at all. A job is quoted at the moment it comes, from what was
known then. Baselines: the recent median wait of its workspace (said for every quantile), and the recent quantiles.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analytics.backtest import Floats
from analytics.queue_replay import Jobs, Rules, replay
from analytics.wait_time import LEVELS, Ask, QueueNow, Running, WaitPolicy, quote_wait

RECENT = 100
JOBS_MIN = 400


def read(jobs: Path, load: float) -> list[tuple[str, Jobs, Rules]]:
    """Return jobs and rules of each workspace with jobs enough to learn from."""
    frame = pl.read_parquet(jobs).with_columns(s=pl.col("timestamp").dt.epoch("us") / 1e6).sort("s")
    found = []
    for name in frame["vc"].unique().sort().to_list():
        own = frame.filter(pl.col("vc") == name, pl.col("num_gpus") > 0, pl.col("duration") > 0)
        if own.height < JOBS_MIN:
            continue
        submitted, gpus, run = (own[column].cast(pl.Float64).to_numpy() for column in ("s", "num_gpus", "duration"))
        busy = float((gpus * run).sum()) / (submitted[-1] - submitted[0])
        there = float(max(np.ceil(busy / load), gpus.max()))
        nought = np.zeros(own.height, dtype=np.int64)
        found.append((name, Jobs(submitted, gpus, run, nought, nought), Rules(there, (there,))))
    return found


def stand_at(jobs: Jobs, started: Floats, rules: Rules, job: int, recent: Floats) -> QueueNow:
    """Return the queue as it was seen when a job came."""
    now = float(jobs.submitted_s[job])
    ends = started + jobs.run_s
    before = np.arange(jobs.count) < job
    runs = before & (started < now) & (ends > now)
    waits = before & ~(started < now)
    done = before & (ends <= now)
    return QueueNow(
        now, rules, Running(jobs.gpus[runs], jobs.workspace[runs], now - started[runs]), take(jobs, waits),
        take(jobs, done), recent,
    )  # fmt: skip


def take(jobs: Jobs, kept: NDArray[np.bool_]) -> Jobs:
    """Return some of the jobs."""
    return Jobs(jobs.submitted_s[kept], jobs.gpus[kept], jobs.run_s[kept], jobs.workspace[kept], jobs.priority[kept])


def pinball(wait: float, quantiles: Floats) -> float:
    """Return the mean pinball loss over the levels, in seconds."""
    miss = wait - quantiles
    return float(np.maximum(LEVELS * miss, (LEVELS - 1) * miss).mean())


def main() -> None:
    """Quote and print, by workspace and altogether."""
    parser = argparse.ArgumentParser(description=__doc__)
    traces = Path("../shared/data/traces")
    parser.add_argument("--jobs", type=Path, default=traces / "philly_jobs.parquet")
    parser.add_argument("--load", type=float, default=0.6, help="share of the GPUs that the jobs keep busy")
    parser.add_argument("--quotes", type=int, default=60, help="jobs quoted of each workspace")
    parser.add_argument("--draws", type=int, default=30)
    arguments = parser.parse_args()
    losses: dict[str, list[float]] = {"ours": [], "recent median": [], "recent quantiles": []}
    inside: list[bool] = []
    waited: list[bool] = []
    began = time.process_time()
    generator = np.random.default_rng(0)
    for name, jobs, rules in read(arguments.jobs, arguments.load):
        started = replay(jobs, rules)
        waits = started - jobs.submitted_s
        first = jobs.count // 4
        if jobs.count - first < RECENT:
            continue
        quoted = np.sort(generator.choice(np.arange(first, jobs.count), min(arguments.quotes, jobs.count - first)))
        own: dict[str, list[float]] = {key: [] for key in losses}
        for job in quoted.tolist():
            known = waits[:job][started[:job] < jobs.submitted_s[job]][-RECENT:]
            queue = stand_at(jobs, started, rules, job, known)
            made = quote_wait(queue, Ask(float(jobs.gpus[job]), 0), job, policy=WaitPolicy(draws=arguments.draws))
            own["ours"].append(pinball(waits[job], made))
            own["recent median"].append(pinball(waits[job], np.full(LEVELS.size, np.median(known))))
            own["recent quantiles"].append(pinball(waits[job], np.quantile(known, LEVELS)))
            inside.append(bool(made[0] <= waits[job] <= made[-1]))
            waited.append(bool(waits[job] > 0))
        print(f"{name:8} {jobs.count:6} jobs, {rules.gpus:4.0f} GPUs, {np.mean(waits > 0):5.1%} waited: ", end="")
        print(", ".join(f"{key} {np.mean(each):9.0f} s" for key, each in own.items()))
        for key, each in own.items():
            losses[key] += each
    print(f"\n{len(inside)} quotes, waits simulated by the replay, {np.mean(waited):.1%} of them waited")
    for key, each in losses.items():
        print(f"pinball {key:18} {np.mean(each):9.0f} s, ours over it {np.mean(losses['ours']) / np.mean(each):.3f}")
    late = np.array(inside)[np.array(waited)]
    print(f"inside the 80 % interval: {np.mean(inside):.1%} of all, {np.mean(late):.1%} of those that waited")
    print(f"{(time.process_time() - began) / len(inside):.2f} CPU-s a quote")


if __name__ == "__main__":
    main()
