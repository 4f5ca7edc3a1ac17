"""Merge: rows meet the rows of the same key that are stored already."""

from datetime import datetime, timedelta

import duckdb
import polars as pl

from fleet.frames import Table
from store.ask import ask, count
from store.dedup import extreme
from store.keys import DIMENSIONS


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


def is_any_near(cursor: duckdb.DuckDBPyConnection, table: Table, rows: pl.DataFrame) -> bool:
    """Tell whether anything stored lies in the rows' span of time and keys; where nothing does, all rows are new."""
    return bool(ask(cursor, f"SELECT EXISTS (FROM {table.name} e WHERE {_near(table, rows)})")[0][0])


def far_from_stored(cursor: duckdb.DuckDBPyConnection, table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that have no stored row of their key within the table's tolerance."""
    cursor.register("incoming", rows.with_row_index("row_number").to_arrow())
    match = " AND ".join(_equal(table, name) for name in table.key)
    kept = ask(
        cursor,
        f"SELECT row_number FROM incoming i WHERE NOT EXISTS "  # noqa: S608 - our own names
        f"(SELECT 1 FROM {table.name} e WHERE {_near(table, rows)} AND {match}) ORDER BY row_number",
    )
    cursor.unregister("incoming")
    return rows[[number for (number,) in kept]]


def enrich(cursor: duckdb.DuckDBPyConnection, table: Table, rows: pl.DataFrame) -> int:
    """Give stored rows the richer text of rows within the table's tolerance; return how many had less to say."""
    if table.richest is None or rows.is_empty():
        return 0
    text = table.richest
    cursor.register("incoming", rows.to_arrow())
    match = " AND ".join(_equal(table, name) for name in table.key)
    found = f"e.rowid = f.row_number AND length(f.text) > coalesce(length(e.{text}), -1)"
    changes = count(
        cursor,
        f"UPDATE {table.name} AS e SET {text} = f.text FROM (SELECT e.rowid AS row_number, "  # noqa: S608 - our own names
        f"arg_max(i.{text}, length(i.{text})) AS text FROM {table.name} e JOIN incoming i "
        f"ON {_near(table, rows)} AND {match} GROUP BY e.rowid) f WHERE {found}",
    )
    cursor.unregister("incoming")
    return changes


def add_up(cursor: duckdb.DuckDBPyConnection, table: Table, rows: pl.DataFrame, counted: str) -> None:
    """Insert rows, or add their count to that of the row of the same key; the rows' keys must differ."""
    cursor.register("incoming", rows.to_arrow())
    match = " AND ".join(_equal(table, name) for name in table.key)
    names = ", ".join(f"i.{name}" for name in table.names())
    ask(
        cursor,
        f"UPDATE {table.name} AS e SET {counted} = e.{counted} + i.{counted} FROM incoming i WHERE {match}",  # noqa: S608 - our own names
    )
    ask(
        cursor,
        f"INSERT INTO {table.name} SELECT {names} FROM incoming i WHERE NOT EXISTS "  # noqa: S608 - our own names
        f"(SELECT 1 FROM {table.name} e WHERE {match})",
    )
    cursor.unregister("incoming")


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
    chosen = extreme(table, name)
    if chosen is not None:
        return f"{chosen}(i.{name}, e.{name})"
    if name in DIMENSIONS and table.name == name:  # a key that was handed out stays
        return f"coalesce(e.{name}, i.{name})"
    return f"coalesce(i.{name}, e.{name})"


def _equal(table: Table, name: str, other: str = "i") -> str:
    if name == table.time and table.tolerance_s > 0:
        microseconds = int(table.tolerance_s * 1_000_000)
        return f"abs(epoch_us(e.{name}) - epoch_us({other}.{name})) <= {microseconds}"
    if table.stands_in is not None and name == table.stands_in[0]:
        speaks = table.stands_in[1]
        return f"coalesce(e.{name}, e.{speaks}) IS NOT DISTINCT FROM coalesce({other}.{name}, {other}.{speaks})"
    if name in table.required():
        return f"e.{name} = {other}.{name}"
    return f"e.{name} IS NOT DISTINCT FROM {other}.{name}"


def _near(table: Table, rows: pl.DataFrame) -> str:
    """Return bounds on time and key that let DuckDB skip row groups that can't hold any of the rows' keys."""
    bounds = []
    if table.time is not None and table.time in table.key:
        first, last = rows.get_column(table.time).min(), rows.get_column(table.time).max()
        slack = timedelta(seconds=table.tolerance_s)
        if isinstance(first, datetime) and isinstance(last, datetime):
            span = f"TIMESTAMPTZ '{first - slack}' AND TIMESTAMPTZ '{last + slack}'"
            bounds.append(f"e.{table.time} BETWEEN {span}")
    keys = [name for name in DIMENSIONS if name in table.key and name in table.required()]
    bounds += [f"e.{name} BETWEEN {rows.get_column(name).min()!r} AND {rows.get_column(name).max()!r}" for name in keys]
    return " AND ".join(bounds) or "true"
