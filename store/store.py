"""The store: one DuckDB file (or memory), opened by one process, safe to use from its threads."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import polars as pl

from fleet.batch import Batch
from fleet.clock import Clock
from fleet.errors import NotAStore, StoreError
from fleet.frames import check, conform
from fleet.tables import TABLES
from store import upkeep
from store.append import Keys, write_batch, write_rows
from store.ask import ask
from store.engine import Engine
from store.errors import translated
from store.migrate import migrate


@dataclass(slots=True)
class _Shared:
    """What all handles on one open store share."""

    keys: Keys
    lock: threading.RLock = field(default_factory=threading.RLock)


class Store:
    """A handle on the store. Reads run side by side; writes wait for each other."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path | None, clock: Clock, shared: _Shared) -> None:
        """Use `Store.open`."""
        self._connection = connection
        self._shared = shared
        self._clock = clock
        self.path = path
        self.engine = Engine(connection, path)

    @classmethod
    def open(cls, path: Path | None, *, clock: Clock) -> "Store":
        """Open the store at `path` (None: in memory), make it where there is none, and migrate it.

        Raises `StoreBusy`, `StoreTooNew`, `NotAStore`, `StoreFull` or `StoreError`, each saying what to do.
        """
        if path is not None:
            _prepare(path)
        with translated(path):
            connection = duckdb.connect(":memory:" if path is None else str(path))
            try:
                ask(connection, "SET TimeZone='UTC'")
                migrate(connection, path, clock)
                keys = Keys.load(connection)
            except BaseException:
                connection.close()
                raise
        return cls(connection, path, clock, _Shared(keys))

    def session(self) -> "Store":
        """Return another handle on the same open store, for another thread."""
        return Store(self._connection.cursor(), self.path, self._clock, self._shared)

    def close(self) -> None:
        """Close this handle; the file is closed with the last one."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def append(self, batch: Batch) -> dict[str, int]:
        """Store a batch whole or not at all; return the rows that were new or changed, by table.

        The same batch twice is stored once; overlapping batches give their union. Rows that can't be stored
        (a GPU never announced, a time before 2000 or more than a day ahead) are counted in `source_failure`.
        """
        checked = batch.checked()
        with self._transaction() as cursor:
            return write_batch(cursor, checked, self._shared.keys, self._clock.now())

    def append_stored(self, table: str, frame: pl.DataFrame) -> int:
        """Store rows that are in stored form already; return how many were new or changed."""
        rows = conform(frame, TABLES[table], "stored")
        with self._transaction() as cursor:
            return write_rows(cursor, TABLES[table], rows, self._shared.keys)

    def read(self, table: str) -> pl.DataFrame:
        """Return a whole table in stored form; meant for the small ones."""
        frame = self.engine.query(f"SELECT {', '.join(TABLES[table].names())} FROM {table}")  # noqa: S608 - our own names
        return check(frame.cast(pl.Schema(TABLES[table].schema())), TABLES[table])

    def watermark(self, source: str) -> datetime | None:
        """Return how far a source has been read; None where it never was."""
        with translated(self.path), self._connection.cursor() as cursor:
            ask(cursor, "SET TimeZone='UTC'")
            found = ask(cursor, "SELECT epoch_us(ts) FROM watermark WHERE source = ?", [source])
        return upkeep.EPOCH + timedelta(microseconds=found[0][0]) if found else None

    def roll_up(self, since: datetime | None, until: datetime) -> int:
        """Rebuild the hourly roll-up of every clock hour touched by `[since, until)`; return the hours written."""
        with self._transaction() as cursor:
            return upkeep.roll_up(cursor, since, until)

    def retain(self, keep: Mapping[str, timedelta], now: datetime) -> dict[str, int]:
        """Drop rows older than each table's time to keep; the audit and the ledger are never touched."""
        with self._transaction() as cursor:
            return upkeep.retain(cursor, keep, now)

    def compact(self, day: datetime) -> int:
        """Rewrite one closed day of samples sorted by GPU and time, which makes reading it faster."""
        with self._transaction() as cursor:
            return upkeep.compact(cursor, day)

    def export(self, folder: Path) -> dict[str, int]:
        """Write every table as Parquet into `folder` (which must not exist yet); return rows by table."""
        with translated(self.path), self._shared.lock, self._connection.cursor() as cursor:
            return upkeep.export(cursor, folder)

    def describe(self) -> dict[str, object]:
        """Return what `doctor` tells of the store: path, schema, size, rows by table, first and last sample."""
        with translated(self.path), self._connection.cursor() as cursor:
            return upkeep.describe(cursor, self.path)

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with translated(self.path), self._shared.lock, self._connection.cursor() as cursor:
            ask(cursor, "SET TimeZone='UTC'")
            ask(cursor, "BEGIN")
            before = self._shared.keys.copy()
            try:
                yield cursor
                ask(cursor, "COMMIT")
            except BaseException:
                self._shared.keys.restore(before)
                _roll_back(cursor)
                raise


def _roll_back(cursor: duckdb.DuckDBPyConnection) -> None:
    try:
        ask(cursor, "ROLLBACK")
    except duckdb.Error:
        # A commit that failed has ended its transaction already, and the first error is the one to tell.
        return


def _prepare(path: Path) -> None:
    if path.is_dir():
        message = f"the store {path} is a folder; name a file, for example {path / 'steward.duckdb'}"
        raise NotAStore(message)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the folder {path.parent} can't be made ({error.strerror}); name another place with --store"
        raise StoreError(message) from error
