"""A snapshot: questions that must fit each other are answered from one moment of the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import polars as pl

from store.ask import ask
from store.engine import Engine, whole
from store.errors import translated


class PinnedEngine(Engine):
    """Runs every expression inside one transaction; for the thread that opened it."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, path: Path | None) -> None:
        """Ask over a cursor that is in a transaction."""
        super().__init__(cursor, path)
        self._cursor = cursor
        self._place = path

    def query(self, sql: str) -> pl.DataFrame:
        """Run SQL of this room's own and return its rows, in one piece."""
        with translated(self._place):
            return whole(self._cursor.sql(sql).pl())


@contextmanager
def pinned(connection: duckdb.DuckDBPyConnection, path: Path | None) -> Iterator[Engine]:
    """Open a transaction that only reads, and close it at the end."""
    with translated(path), connection.cursor() as cursor:
        ask(cursor, "BEGIN")
        try:
            ask(cursor, "SELECT count(*) FROM migration")  # DuckDB takes the moment with the first row it reads
            yield PinnedEngine(cursor, path)
        finally:
            ask(cursor, "ROLLBACK")  # nothing was changed
