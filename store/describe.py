"""Describe: what the doctor tells of the store."""

from pathlib import Path

import duckdb

from fleet.tables import TABLES
from store.ask import ask, count
from store.moments import from_microseconds


def describe(cursor: duckdb.DuckDBPyConnection, path: Path | None) -> dict[str, object]:
    """Return path, schema number, size, rows by table, and the time of the first and the last sample."""
    rows = {name: count(cursor, f"SELECT count(*) FROM {name}") for name in TABLES}  # noqa: S608 - our own names
    ((first, last),) = ask(cursor, "SELECT epoch_us(min(ts)), epoch_us(max(ts)) FROM gpu_sample")
    return {
        "path": None if path is None else str(path),
        "schema": count(cursor, "SELECT max(number) FROM migration"),
        "size_bytes": None if path is None else _size_bytes(path),
        "rows": rows,
        "first_sample_at": from_microseconds(first),
        "last_sample_at": from_microseconds(last),
    }


def _size_bytes(path: Path) -> int:
    """Return the size of the file and of the log beside it, in which the newest rows wait."""
    files = (path, path.with_name(path.name + ".wal"))
    return sum(file.stat().st_size for file in files if file.exists())
