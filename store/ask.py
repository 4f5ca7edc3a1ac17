"""Ask DuckDB one thing and take the whole answer: a connection with an unread answer refuses the next question."""

from collections.abc import Sequence
from typing import Any

import duckdb


def ask(connection: duckdb.DuckDBPyConnection, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """Run one statement and return all its rows."""
    return connection.execute(sql, list(values)).fetchall() if values else connection.execute(sql).fetchall()


def count(connection: duckdb.DuckDBPyConnection, sql: str, values: Sequence[object] = ()) -> int:
    """Run a statement whose answer is one number, such as an INSERT; 0 where it answers nothing."""
    rows = ask(connection, sql, values)
    return int(rows[0][0]) if rows and rows[0][0] is not None else 0
