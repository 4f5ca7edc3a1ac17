"""Rows of the tables `job`, `quota` and `cost_line` as what a replay of a queue takes."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import polars as pl

from analytics.backtest import Floats
from analytics.demand import UNATTRIBUTED
from analytics.queue_replay import Jobs
from analytics.wait_time import Running


def read_jobs(frame: pl.DataFrame, names: Sequence[str], until_s: float) -> Jobs:
    """Return rows of the table `job` as jobs, in order; `names` are the workspaces. Open jobs run until `until_s`.

    A job counts if it has GPUs and ran: what it ran is from start to end, else the duration that was recorded.
    """
    numbers = {name: place for place, name in enumerate(names)}
    epochs = {name: pl.col(name).dt.epoch("us") / 1e6 for name in ("submitted_at", "started_at", "ended_at")}
    ended = pl.coalesce(epochs["ended_at"], pl.when(pl.col("started_at").is_not_null()).then(pl.lit(until_s)))
    told = frame.select(
        submitted=epochs["submitted_at"],
        gpus="gpus",
        run=pl.coalesce(ended - epochs["started_at"], "duration_s"),
        workspace=pl.col("workspace")
        .fill_null(UNATTRIBUTED)
        .replace_strict(numbers, default=None, return_dtype=pl.Int64),
    ).filter(
        pl.col("gpus").is_finite() & (pl.col("gpus") > 0) & pl.col("run").is_finite() & (pl.col("run") > 0),
        pl.col("workspace").is_not_null(),
    )
    told = told.sort("submitted", maintain_order=True)
    return Jobs(
        told["submitted"].to_numpy(),
        told["gpus"].to_numpy(),
        told["run"].to_numpy(),
        told["workspace"].to_numpy(),
        np.zeros(told.height, dtype=np.int64),
    )


def workspaces_of(frame: pl.DataFrame) -> tuple[str, ...]:
    """Return the workspaces of rows of the table `job`, sorted; those that name none are one of their own."""
    return tuple(frame.select(_named().unique().sort()).to_series().to_list())


def quotas_of(quotas: pl.DataFrame, cluster: str, names: Sequence[str], now: datetime) -> tuple[float, ...]:
    """Return the quota in force of each workspace, infinite where it has none."""
    in_force = quotas.filter(
        pl.col("cluster") == cluster,
        pl.col("starts_at") <= now,
        pl.col("ends_at").is_null() | (pl.col("ends_at") > now),
    )
    granted = dict(in_force.group_by("workspace").agg(pl.col("gpus").sum()).iter_rows())
    return tuple(float(granted.get(name, np.inf)) for name in names)


def idle_shares(lines: pl.DataFrame, cluster: str, names: Sequence[str]) -> tuple[tuple[int, float], ...]:
    """Return, by workspace, the part of the GPU time it held that did nothing, from the ledger's lines."""
    held = lines.filter(pl.col("cluster") == cluster, pl.col("category").is_in(["used", "allocated_idle"]))
    shares = held.group_by("workspace").agg(
        (
            pl.col("gpu_seconds").filter(pl.col("category") == "allocated_idle").sum() / pl.col("gpu_seconds").sum()
        ).alias("share")
    )
    known = {name: share for name, share in shares.iter_rows() if share is not None}
    return tuple((place, float(known[name])) for place, name in enumerate(names) if name in known)


def queue_at(frame: pl.DataFrame, names: Sequence[str], now: datetime) -> tuple[Running, Jobs, Jobs]:
    """Return what runs at `now`, what waits, and the jobs that ended before, from rows of the table `job`."""
    at = now.timestamp()
    wanted = frame.filter(pl.col("submitted_at") <= now, pl.col("gpus").is_finite() & (pl.col("gpus") > 0))
    is_over = (pl.col("ended_at") <= now) | (
        pl.col("ended_at").is_null() & pl.col("status").is_in(["running", "pending"]).not_().fill_null(value=True)
    )
    open_jobs = wanted.filter(~is_over.fill_null(value=False))
    begun = (pl.col("started_at") <= now).fill_null(value=False)
    numbers = {name: place for place, name in enumerate(names)}
    number = _named().replace_strict(numbers, default=None, return_dtype=pl.Int64)
    runs = open_jobs.filter(begun).with_columns(number=number).drop_nulls("number")
    waits = open_jobs.filter(~begun).with_columns(number=number).drop_nulls("number").sort("submitted_at")
    started = (runs["started_at"].dt.epoch("us") / 1e6).to_numpy()
    running = Running(runs["gpus"].to_numpy(), runs["number"].to_numpy(), at - started)
    nought = np.zeros(waits.height)
    waiting = Jobs(
        (waits["submitted_at"].dt.epoch("us") / 1e6).to_numpy(), waits["gpus"].to_numpy(), nought,
        waits["number"].to_numpy(), nought.astype(np.int64),
    )  # fmt: skip
    return running, waiting, read_jobs(wanted.filter(is_over.fill_null(value=False)), names, at)


def recent_waits(frame: pl.DataFrame, workspace: str, now: datetime, count: int = 100) -> Floats:
    """Return how long the last jobs of a workspace that started before `now` had waited, in seconds."""
    begun = frame.filter(_named() == workspace, pl.col("started_at") <= now).sort("started_at").tail(count)
    waits: Floats = ((begun["started_at"] - begun["submitted_at"]).dt.total_microseconds() / 1e6).to_numpy()
    return waits


def _named() -> pl.Expr:
    return pl.col("workspace").fill_null(UNATTRIBUTED)
