"""Upkeep: roll-ups, retention, compaction, export, and what the doctor asks."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from fleet.errors import BadInput, StoreError
from fleet.tables import GPU_SAMPLE, TABLES
from store.ask import ask, count

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ACTIVE_ABOVE = 0.05
# What was decided, done and charged is kept for ever.
_KEPT = frozenset({"plan", "move", "outcome", "cost_line", "gpu", "slice", "node", "watermark"})


def roll_up(cursor: duckdb.DuckDBPyConnection, since: datetime | None, until: datetime) -> int:
    """Rebuild gpu_hour for the clock hours touched by `[since, until)`.

    Activity is the best signal of a sample: SM, then GR engine, then NVML utilization (not on MIG parents,
    where it is not measured). A sample is active when any of them is above 5 %.
    """
    first = EPOCH if since is None else _hour(since)
    last = _hour(until) if until == _hour(until) else _hour(until) + timedelta(hours=1)
    span = [first, last]
    ask(cursor, "DELETE FROM gpu_hour WHERE hour_at >= ? AND hour_at < ?", span)
    return count(
        cursor,
        f"""
        INSERT INTO gpu_hour BY NAME
        WITH sample AS (
            SELECT s.gpu, time_bucket(INTERVAL 1 HOUR, s.ts) AS hour_at, s.memory_used_mib, s.power_w, s.temperature_c,
                coalesce(s.sm_activity, s.gr_activity, CASE WHEN g.mig_enabled THEN NULL ELSE s.utilization END)
                    AS activity,
                greatest(s.sm_activity, s.gr_activity, CASE WHEN g.mig_enabled THEN NULL ELSE s.utilization END)
                    AS most_activity
            FROM gpu_sample s JOIN gpu g USING (gpu) WHERE s.ts >= ? AND s.ts < ?
        )
        SELECT gpu, hour_at, count(*)::INTEGER AS sample_count, avg(activity)::FLOAT AS activity_mean,
            max(activity) AS activity_max, count_if(most_activity > {ACTIVE_ABOVE})::INTEGER AS active_sample_count,
            count(activity)::INTEGER AS known_sample_count, max(memory_used_mib) AS memory_used_mib_max,
            avg(power_w)::FLOAT AS power_w_mean, max(temperature_c) AS temperature_c_max
        FROM sample GROUP BY gpu, hour_at ORDER BY gpu, hour_at
        """,  # noqa: S608 - the only value put in is our own number
        span,
    )


def retain(cursor: duckdb.DuckDBPyConnection, keep: Mapping[str, timedelta], now: datetime) -> dict[str, int]:
    """Drop rows older than `keep` says, by table; return how many."""
    dropped = {}
    for name, age in keep.items():
        time = TABLES[name].time if name in TABLES else None
        if time is None or name in _KEPT:
            message = f"retention: rows of {name} are never dropped; tables with an age to keep are " + ", ".join(
                sorted(table for table, shape in TABLES.items() if shape.time is not None and table not in _KEPT)
            )
            raise BadInput(message, field=name)
        dropped[name] = count(cursor, f"DELETE FROM {name} WHERE {time} < ?", [now - age])  # noqa: S608 - our own names
    return dropped


def compact(cursor: duckdb.DuckDBPyConnection, day: datetime) -> int:
    """Rewrite one day of gpu_sample sorted by (gpu, ts); return its rows."""
    first = day.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    span = [first, first + timedelta(days=1)]
    where = "WHERE ts >= ? AND ts < ?"
    ask(cursor, f"CREATE OR REPLACE TEMP TABLE one_day AS FROM {GPU_SAMPLE.name} {where}", span)
    ask(cursor, f"DELETE FROM {GPU_SAMPLE.name} {where}", span)  # noqa: S608 - our own names
    rows = count(cursor, f"INSERT INTO {GPU_SAMPLE.name} FROM one_day ORDER BY gpu, ts")
    ask(cursor, "DROP TABLE one_day")
    return rows


def export(cursor: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, int]:
    """Write each table to `<folder>/<table>.parquet`; the folder appears only when all of it is written."""
    if folder.exists():
        message = f"export: {folder} is there already; name a new folder"
        raise BadInput(message, field="folder")
    draft = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        rows = {}
        for name, table in TABLES.items():
            order = ", ".join(table.key)
            file = str(draft / f"{name}.parquet").replace("'", "''")
            rows[name] = count(
                cursor,
                f"COPY (SELECT * FROM {name} ORDER BY {order}) TO '{file}' (FORMAT parquet)",  # noqa: S608 - our own names
            )
        draft.rename(folder)
    except OSError as error:
        message = f"export: {folder} can't be written ({error.strerror}); free room or name another folder"
        raise StoreError(message) from error
    return rows


def describe(cursor: duckdb.DuckDBPyConnection, path: Path | None) -> dict[str, object]:
    """Return path, schema number, size, rows by table, and the time of the first and the last sample."""
    rows = {}
    for name in TABLES:
        rows[name] = count(cursor, f"SELECT count(*) FROM {name}")  # noqa: S608 - our own names
    (span,) = ask(cursor, "SELECT epoch_us(min(ts)), epoch_us(max(ts)) FROM gpu_sample")
    return {
        "path": None if path is None else str(path),
        "schema": count(cursor, "SELECT max(number) FROM migration"),
        "size_bytes": path.stat().st_size if path is not None and path.exists() else None,
        "rows": rows,
        "first_sample_at": None if span[0] is None else EPOCH + timedelta(microseconds=span[0]),
        "last_sample_at": None if span[1] is None else EPOCH + timedelta(microseconds=span[1]),
    }


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
