"""Compaction: days that are over are rewritten in the order in which they are asked for."""

from datetime import datetime

import duckdb

from store.ask import ask, count
from store.moments import DAY, EPOCH, day_of

_DAY_US = 86_400_000_000
_OF_DAY = "FROM gpu_sample WHERE ts >= ? AND ts < ?"


def unsorted_days(cursor: duckdb.DuckDBPyConnection, now: datetime) -> list[datetime]:
    """Return the days before today that do not lie sorted by (gpu, ts)."""
    rows = ask(
        cursor,
        f"SELECT DISTINCT epoch_us(ts) // {_DAY_US} AS day FROM gpu_sample WHERE ts < ? ORDER BY day",  # noqa: S608 - our own number
        [day_of(now)],
    )
    days = [EPOCH + number * DAY for (number,) in rows]
    return [day for day in days if not _is_sorted(cursor, day)]


def compact_day(cursor: duckdb.DuckDBPyConnection, day: datetime) -> int:
    """Rewrite one day of gpu_sample sorted by (gpu, ts) inside the caller's transaction; return its rows."""
    span = [day, day + DAY]
    ask(cursor, f"CREATE OR REPLACE TEMP TABLE one_day AS {_OF_DAY}", span)
    ask(cursor, f"DELETE {_OF_DAY}", span)
    rows = count(cursor, "INSERT INTO gpu_sample FROM one_day ORDER BY gpu, ts")
    ask(cursor, "DROP TABLE one_day")
    return rows


def _is_sorted(cursor: duckdb.DuckDBPyConnection, day: datetime) -> bool:
    """Tell whether no row of a day precedes the one stored before it (a window without order sees them as stored)."""
    steps = f"SELECT gpu, ts, lag(gpu) OVER () AS gpu_before, lag(ts) OVER () AS ts_before {_OF_DAY}"
    late = "gpu < gpu_before OR (gpu = gpu_before AND ts < ts_before)"
    return not ask(cursor, f"SELECT 1 FROM ({steps}) WHERE {late} LIMIT 1", [day, day + DAY])  # noqa: S608 - our own names
