"""Merge: rows meet the rows of the same key that are stored already."""

from datetime import datetime, timedelta

import duckdb
import polars as pl

from fleet.frames import Table
from store.ask import ask, count

# What two rows of one key agree on, where it is not simply the later value that counts.
_RULES = {"first_seen_at": "least", "last_seen_at": "greatest"}
_NUMBER = {"gpu", "slice"}


def insert(cursor: duckdb.DuckDBPyConnection, table: Table, rows: pl.DataFrame) -> int:
    """Insert rows whose keys are known to be new."""
    cursor.register("incoming", rows.to_arrow())
    names = ", ".join(table.names())
    ask(cursor, f"INSERT INTO {table.name} ({names}) SELECT {names} FROM incoming")  # noqa: S608 - our own names
    cursor.unregister("incoming")
    return rows.height


def merge(cursor: duckdb.DuckDBPyConnection, table: Table, rows: pl.DataFrame) -> int:
    """Insert rows that are new and change those that say more than before; return how many were either."""
    cursor.register("incoming", rows.to_arrow())
    near = _near(table, rows)
    match = " AND ".join(_equal(table, name) for name in table.key)
    write = _keep if table.on_conflict == "keep" else _merge
    written = write(cursor, table, near, match)
    cursor.unregister("incoming")
    return written


def _keep(cursor: duckdb.DuckDBPyConnection, table: Table, near: str, match: str) -> int:
    names = ", ".join(f"i.{name}" for name in table.names())
    return count(
        cursor,
        f"INSERT INTO {table.name} SELECT {names} FROM incoming i WHERE NOT EXISTS "  # noqa: S608 - our own names
        f"(SELECT 1 FROM {table.name} e WHERE {near} AND {match})",
    )


def _merge(cursor: duckdb.DuckDBPyConnection, table: Table, near: str, match: str) -> int:
    told = {name: _told(table, name) for name in table.names() if name not in table.key}
    columns = ", ".join([f"i.{name}" for name in table.key] + [f"{told[name]} AS {name}" for name in told])
    changed = " OR ".join(f"{told[name]} IS DISTINCT FROM e.{name}" for name in told) or "false"
    ask(
        cursor,
        f"CREATE OR REPLACE TEMP TABLE merged AS SELECT {columns} FROM incoming i "  # noqa: S608 - our own names
        f"LEFT JOIN (SELECT *, true AS is_there FROM {table.name} e WHERE {near}) e ON {match} "
        f"WHERE e.is_there IS NULL OR {changed}",
    )
    changes = count(cursor, "SELECT count(*) FROM merged")
    if changes == 0:
        return 0
    again = " AND ".join(_equal(table, name, "m") for name in table.key)
    names = ", ".join(table.names())
    ask(cursor, f"DELETE FROM {table.name} AS e USING merged m WHERE {near} AND {again}")  # noqa: S608 - our own names
    ask(cursor, f"INSERT INTO {table.name} ({names}) SELECT {names} FROM merged")  # noqa: S608 - our own names
    return changes


def _told(table: Table, name: str) -> str:
    if name in _RULES:
        return f"{_RULES[name]}(i.{name}, e.{name})"
    if table.name == "watermark" and name == "ts":
        return f"greatest(i.{name}, e.{name})"
    if name in _NUMBER and table.name == name:
        return f"coalesce(e.{name}, i.{name})"
    return f"coalesce(i.{name}, e.{name})"


def _equal(table: Table, name: str, other: str = "i") -> str:
    if name == table.time and table.tolerance_s > 0:
        microseconds = int(table.tolerance_s * 1_000_000)
        return f"abs(epoch_us(e.{name}) - epoch_us({other}.{name})) <= {microseconds}"
    if name in table.required():
        return f"e.{name} = {other}.{name}"
    return f"e.{name} IS NOT DISTINCT FROM {other}.{name}"


def _near(table: Table, rows: pl.DataFrame) -> str:
    """Return a bound on time that lets DuckDB skip row groups that can't hold any of the keys."""
    if table.time is None or table.time not in table.key:
        return "true"
    first, last = rows.get_column(table.time).min(), rows.get_column(table.time).max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return "true"
    slack = timedelta(seconds=table.tolerance_s)
    return f"e.{table.time} BETWEEN TIMESTAMPTZ '{first - slack}' AND TIMESTAMPTZ '{last + slack}'"
