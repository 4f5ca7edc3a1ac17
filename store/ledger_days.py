"""The ledger by day: sums of its lines, made anew for every day that lines are written to, in the same transaction."""

from collections.abc import Collection
from datetime import datetime, timedelta

import duckdb
import polars as pl

from store.ask import ask, count
from store.moments import DAY, EPOCH

_DAY_US = DAY // timedelta(microseconds=1)


def days_of(lines: pl.DataFrame) -> list[datetime]:
    """Return the days (UTC) in which cost lines start, in order."""
    return lines.select(pl.col("starts_at").dt.truncate("1d").unique().sort()).to_series().to_list()


def add_up_days(cursor: duckdb.DuckDBPyConnection, days: Collection[datetime] | None) -> int:
    """Rebuild cost_day for whole days (UTC), or for all of the ledger; return the rows written.

    Seconds are summed as whole microseconds and dollars as decimals, so a day's row is exactly its lines. Dollars are
    null where no line of the row has a price; `unpriced_us` says how much time that leaves out.
    """
    if days is None:
        ask(cursor, "DELETE FROM cost_day")
        return count(cursor, _sums("true"))
    written = 0
    for day in sorted(days):
        start_us = (day - EPOCH) // timedelta(microseconds=1)
        ask(cursor, "DELETE FROM cost_day WHERE day_at = make_timestamptz(?::BIGINT)", [start_us])
        within = "starts_at >= make_timestamptz(?::BIGINT) AND starts_at < make_timestamptz(?::BIGINT)"
        written += count(cursor, _sums(within), [start_us, start_us + _DAY_US])
    return written


def _sums(where: str) -> str:
    return f"""
        INSERT INTO cost_day BY NAME
        SELECT make_timestamptz(epoch_us(starts_at) // {_DAY_US} * {_DAY_US}) AS day_at, gpu, cluster, node,
            workspace, namespace, workload, pod_uid, category, resource,
            sum(round(gpu_seconds * 1e6)::BIGINT)::BIGINT AS gpu_us,
            sum(cost_usd)::DECIMAL(18, 6) AS cost_usd,
            coalesce(sum(round(gpu_seconds * 1e6)::BIGINT) FILTER (WHERE cost_usd IS NULL), 0)::BIGINT AS unpriced_us
        FROM cost_line WHERE {where} GROUP BY ALL ORDER BY day_at, workspace, gpu
        """  # noqa: S608 - the only values put in are our own numbers
