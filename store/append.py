"""Append: frames of a batch become rows, each once, all of them or none."""

from datetime import datetime, timedelta

import duckdb
import polars as pl

from fleet.batch import Batch, Trouble
from fleet.clock import as_utc
from fleet.frames import Table
from fleet.tables import SOURCE_FAILURE, SOURCE_GPU, TABLES, WATERMARK
from store.ask import ask
from store.dedup import once_each
from store.fit import fit, is_absurd, without_nan
from store.keys import DIMENSIONS, Keys
from store.ledger_days import add_up_days, days_of
from store.merge import add_up, enrich, far_from_stored, insert, is_any_near, merge
from store.moments import EPOCH


def write_batch(cursor: duckdb.DuckDBPyConnection, batch: Batch, keys: Keys, now: datetime) -> dict[str, int]:
    """Write a checked batch inside the caller's transaction; return rows new or changed by table."""
    troubles = list(batch.troubles)
    written = {}
    order = [name for name in TABLES if name in batch.frames]
    for name in sorted(order, key=lambda name: name not in DIMENSIONS):
        rows = fit(batch.frames[name], TABLES[name], keys, now, troubles)
        written[name] = write_rows(cursor, TABLES[name], rows, keys)
        if name == "gpu_sample":
            _write_told(cursor, batch.source, rows, keys)
    if batch.read_until is not None:
        _write_mark(cursor, batch, as_utc(batch.read_until, "read_until"), keys, now, troubles)
    _write_troubles(cursor, batch.source, troubles, now)
    return written


def _write_told(cursor: duckdb.DuckDBPyConnection, source: str, samples: pl.DataFrame, keys: Keys) -> None:
    """Write which GPUs a source gives samples of, each once."""
    gpus = samples.get_column("gpu").unique()
    new = [gpu for gpu in gpus if (source, gpu) not in keys.told]
    if not new:
        return
    first = samples.filter(pl.col("gpu").is_in(new)).group_by("gpu").agg(pl.col("ts").min().alias("first_seen_at"))
    rows = first.with_columns(source=pl.lit(source)).select(SOURCE_GPU.names()).sort("gpu")
    insert(cursor, SOURCE_GPU, rows)
    keys.told.update((source, gpu) for gpu in new)


def write_stored(
    cursor: duckdb.DuckDBPyConnection, table: Table, frame: pl.DataFrame, keys: Keys, now: datetime
) -> int:
    """Write rows of our own rooms inside the caller's transaction; return how many were new or changed."""
    troubles: list[Trouble] = []
    written = write_rows(cursor, table, without_nan(frame, table, troubles), keys)
    _write_troubles(cursor, "gpu-steward", troubles, now)
    return written


def write_rows(cursor: duckdb.DuckDBPyConnection, table: Table, frame: pl.DataFrame, keys: Keys) -> int:
    """Write rows in stored form inside the caller's transaction; return how many were new or changed."""
    if frame.is_empty():
        return 0
    written = _write(cursor, table, frame, keys)
    if table.name == "cost_line" and written > 0:
        add_up_days(cursor, days_of(frame))
    return written


def _write(cursor: duckdb.DuckDBPyConnection, table: Table, frame: pl.DataFrame, keys: Keys) -> int:
    if table.tolerance_s > 0:
        # What is stored already speaks first: else a row could be dropped for one that is dropped itself.
        told = enrich(cursor, table, frame)
        rows = once_each(far_from_stored(cursor, table, frame), table)
        return told + insert(cursor, table, rows)
    rows = once_each(frame, table)
    if table.time is None or table.time not in table.key:
        return merge(cursor, table, rows)
    newest = _newest(cursor, table, keys)
    first, last = rows.get_column(table.time).min(), rows.get_column(table.time).max()
    is_later = isinstance(first, datetime) and (newest is None or first > newest)
    is_new = is_later or not is_any_near(cursor, table, rows)
    written = insert(cursor, table, rows) if is_new else merge(cursor, table, rows)
    if isinstance(last, datetime):
        keys.newest[table.name] = last if newest is None else max(newest, last)
    return written


def _newest(cursor: duckdb.DuckDBPyConnection, table: Table, keys: Keys) -> datetime | None:
    if table.name not in keys.newest:
        ((microseconds,),) = ask(cursor, f"SELECT epoch_us(max({table.time})) FROM {table.name}")  # noqa: S608 - our own names
        keys.newest[table.name] = None if microseconds is None else EPOCH + timedelta(microseconds=microseconds)
    return keys.newest[table.name]


def _write_mark(  # noqa: PLR0917 - what every writer here takes
    cursor: duckdb.DuckDBPyConnection,
    batch: Batch,
    read_until: datetime,
    keys: Keys,
    now: datetime,
    troubles: list[Trouble],
) -> None:
    if is_absurd(read_until, now):
        # Believed, it would keep the source from being read again until that day.
        reason = "the time is before 2000 or more than a day ahead of the clock"
        troubles.append(Trouble("rejected", "watermark.ts", reason, 1, str(read_until)))
        return
    mark = pl.DataFrame(
        {"source": [batch.source], "ts": [read_until], "cursor": [batch.cursor]}, schema=WATERMARK.schema()
    )
    write_rows(cursor, WATERMARK, mark, keys)


def _write_troubles(cursor: duckdb.DuckDBPyConnection, source: str, troubles: list[Trouble], now: datetime) -> None:
    if not troubles:
        return
    rows = [
        {
            "ts": now,
            "source": source,
            "kind": trouble.kind,
            "place": trouble.place,
            "reason": trouble.reason,
            "row_count": trouble.row_count,
            "example": trouble.example,
        }
        for trouble in troubles
    ]
    frame = pl.DataFrame(rows, schema=SOURCE_FAILURE.schema())
    told = pl.col("example").drop_nulls().first()
    summed = frame.group_by(SOURCE_FAILURE.key, maintain_order=True).agg(pl.col("row_count").sum(), told)
    add_up(cursor, SOURCE_FAILURE, summed.select(SOURCE_FAILURE.names()), "row_count")
