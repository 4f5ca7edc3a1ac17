"""The store: one DuckDB file (or memory), opened by one process, safe to use from its threads."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import duckdb
import polars as pl

from fleet.batch import Batch
from fleet.clock import Clock
from fleet.errors import BadInput, NotAStore, StoreError
from fleet.frames import Table, check, conform
from fleet.tables import TABLES
from store.append import write_batch, write_stored
from store.ask import ask
from store.compact import compact_day, unsorted_days
from store.describe import describe
from store.engine import Engine
from store.errors import translated
from store.export import export
from store.fit import refuse_required_nan
from store.keys import Keys
from store.ledger_days import add_up_days
from store.migrate import migrate
from store.moments import from_microseconds
from store.retain import retain
from store.rollup import roll_up
from store.snapshot import pinned


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
            connection = _connect(path)
            try:
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
        with translated(self.path):
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
        """Store rows that are in stored form already; return how many were new or changed.

        NaN and infinity become null, counted in `source_failure`; where a number is required they are refused.
        """
        shape = _table(table)
        rows = conform(frame, shape, "stored")
        refuse_required_nan(rows, shape)
        with self._transaction() as cursor:
            return write_stored(cursor, shape, rows, self._shared.keys, self._clock.now())

    def read(self, table: str) -> pl.DataFrame:
        """Return a whole table in stored form; meant for the small ones."""
        shape = _table(table)
        frame = self.engine.query(f"SELECT {', '.join(shape.names())} FROM {shape.name}")  # noqa: S608 - our own names
        return check(frame.cast(pl.Schema(shape.schema())), shape)

    @contextmanager
    def snapshot(self) -> Iterator[Engine]:
        """Give an engine whose answers are all of one moment, whatever is written meanwhile."""
        with pinned(self._connection, self.path) as engine:
            yield engine

    def watermark(self, source: str) -> datetime | None:
        """Return how far a source has been read; None where it never was."""
        with translated(self.path), self._connection.cursor() as cursor:
            found = ask(cursor, "SELECT epoch_us(ts) FROM watermark WHERE source = ?", [source])
        return from_microseconds(found[0][0]) if found else None

    def cursor(self, source: str) -> str | None:
        """Return the place that a source gave with its watermark; None where it gave none."""
        with translated(self.path), self._connection.cursor() as cursor:
            found = ask(cursor, "SELECT cursor FROM watermark WHERE source = ?", [source])
        return str(found[0][0]) if found and found[0][0] is not None else None

    def roll_up(self, since: datetime | None, until: datetime) -> int:
        """Rebuild the hourly roll-up of every clock hour touched by `[since, until)`; return the hours written."""
        with self._transaction() as cursor:
            return roll_up(cursor, since, until)

    def add_up_ledger(self) -> int:
        """Rebuild the daily sums of the whole ledger from its lines; return the rows written."""
        with self._transaction() as cursor:
            return add_up_days(cursor, None)

    def retain(self, keep: Mapping[str, timedelta], now: datetime) -> dict[str, int]:
        """Drop rows older than each table's time to keep; what is still open, the audit and the ledger stay."""
        with self._transaction() as cursor:
            return retain(cursor, keep, now)

    def compact(self) -> int:
        """Rewrite the days that are over sorted by GPU and time, which makes reading them faster; return the rows.

        A day that lies sorted already is left alone. Each day is a transaction of its own.
        """
        with translated(self.path), self._connection.cursor() as cursor:
            days = unsorted_days(cursor, self._clock.now())
        rows = 0
        for day in days:
            with self._transaction() as cursor:
                rows += compact_day(cursor, day)
        return rows

    def export(self, folder: Path) -> dict[str, int]:
        """Write every table as Parquet into `folder` (which must not exist yet); return rows by table."""
        with translated(self.path), self._connection.cursor() as cursor:
            return export(cursor, folder)

    def describe(self) -> dict[str, object]:
        """Return what `doctor` tells of the store: path, schema, size, rows by table, first and last sample."""
        with translated(self.path), self._connection.cursor() as cursor:
            return describe(cursor, self.path)

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with translated(self.path), self._shared.lock, self._connection.cursor() as cursor:
            ask(cursor, "BEGIN")
            before = self._shared.keys.copy()
            try:
                yield cursor
                ask(cursor, "COMMIT")
            except BaseException:
                self._shared.keys.restore(before)
                _roll_back(cursor)
                raise


def _connect(path: Path | None) -> duckdb.DuckDBPyConnection:
    """Connect, once a process: DuckDB refuses a second connection to one file that is configured differently.

    Two stores over one file would each hand out keys without knowing of the other. Nothing is ever downloaded.
    """
    name = ":memory:" if path is None else str(path.absolute())
    agent = f"gpu-steward/{uuid4()}"
    return duckdb.connect(
        name, config={"TimeZone": "UTC", "autoinstall_known_extensions": False, "custom_user_agent": agent}
    )


def _table(name: str) -> Table:
    if name not in TABLES:
        message = f"there is no table {name}; the tables are {', '.join(TABLES)}"
        raise BadInput(message, field=name)
    return TABLES[name]


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
