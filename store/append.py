"""Append: frames of a batch become rows, each once, all of them or none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import duckdb
import polars as pl

from fleet.batch import Batch, Trouble
from fleet.frames import Table
from fleet.tables import SOURCE_FAILURE, TABLES, WATERMARK
from store.ask import ask
from store.dedup import once_each
from store.merge import insert, merge
from store.upkeep import EPOCH

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=1)
DIMENSIONS = ("gpu", "slice")


@dataclass(slots=True)
class Keys:
    """The small integer keys by UUID, and the newest time stored by table."""

    by_uuid: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in DIMENSIONS})
    newest: dict[str, datetime | None] = field(default_factory=dict)

    @classmethod
    def load(cls, connection: duckdb.DuckDBPyConnection) -> "Keys":
        """Read the keys that were handed out before."""
        keys = cls()
        for name in DIMENSIONS:
            rows = ask(connection, f"SELECT uuid, {name} FROM {name}")  # noqa: S608 - our own table names
            keys.by_uuid[name] = dict(rows)
        return keys

    def copy(self) -> "Keys":
        """Return a copy to go back to."""
        return Keys({name: dict(keys) for name, keys in self.by_uuid.items()}, dict(self.newest))

    def restore(self, before: "Keys") -> None:
        """Go back to a copy."""
        self.by_uuid, self.newest = before.by_uuid, before.newest

    def announce(self, dimension: str, uuids: pl.Series) -> None:
        """Hand out keys to UUIDs that have none."""
        known = self.by_uuid[dimension]
        for uuid in uuids.unique(maintain_order=True):
            known.setdefault(uuid, len(known))


def write_batch(cursor: duckdb.DuckDBPyConnection, batch: Batch, keys: Keys, now: datetime) -> dict[str, int]:
    """Write a checked batch inside the caller's transaction; return rows new or changed by table."""
    troubles = list(batch.troubles)
    written = {}
    order = [name for name in TABLES if name in batch.frames]
    for name in sorted(order, key=lambda name: name not in DIMENSIONS):
        frame = _fit(batch.frames[name], TABLES[name], keys, now, troubles)
        written[name] = write_rows(cursor, TABLES[name], frame, keys)
    if batch.read_until is not None:
        mark = pl.DataFrame({"source": [batch.source], "ts": [batch.read_until]}, schema=WATERMARK.schema())
        write_rows(cursor, WATERMARK, mark, keys)
    if troubles:
        write_rows(cursor, SOURCE_FAILURE, _trouble_frame(batch.source, troubles, now), keys)
    return written


def write_rows(cursor: duckdb.DuckDBPyConnection, table: Table, frame: pl.DataFrame, keys: Keys) -> int:
    """Write rows in stored form inside the caller's transaction; return how many were new or changed."""
    if frame.is_empty():
        return 0
    rows = once_each(frame, table)
    if table.time is None:
        return merge(cursor, table, rows)
    newest = _newest(cursor, table, keys)
    first, last = rows.get_column(table.time).min(), rows.get_column(table.time).max()
    is_append = table.time in table.key and isinstance(first, datetime) and (newest is None or first > newest)
    is_append = is_append and table.tolerance_s == 0
    written = insert(cursor, table, rows) if is_append else merge(cursor, table, rows)
    if isinstance(last, datetime):
        keys.newest[table.name] = last if newest is None else max(newest, last)
    return written


def _newest(cursor: duckdb.DuckDBPyConnection, table: Table, keys: Keys) -> datetime | None:
    if table.name not in keys.newest:
        ((microseconds,),) = ask(cursor, f"SELECT epoch_us(max({table.time})) FROM {table.name}")  # noqa: S608 - our own names
        keys.newest[table.name] = None if microseconds is None else EPOCH + timedelta(microseconds=microseconds)
    return keys.newest[table.name]


def _fit(frame: pl.DataFrame, table: Table, keys: Keys, now: datetime, troubles: list[Trouble]) -> pl.DataFrame:
    fitted = _without_absurd_times(frame, table, now, troubles)
    fitted = _without_nan(fitted, table, troubles)
    if table.name in DIMENSIONS:
        keys.announce(table.name, fitted.get_column("uuid"))
        fitted = fitted.with_columns(pl.coalesce("first_seen_at", "last_seen_at", pl.lit(now)).alias("first_seen_at"))
    return _with_keys(fitted, table, keys.by_uuid, troubles)


def _without_absurd_times(frame: pl.DataFrame, table: Table, now: datetime, troubles: list[Trouble]) -> pl.DataFrame:
    if table.time is None:
        return frame
    moment = frame.get_column(table.time)
    first, last = moment.min(), moment.max()
    if not isinstance(first, datetime) or not isinstance(last, datetime) or (first >= EARLIEST and last <= now + AHEAD):
        return frame
    is_absurd = (pl.col(table.time) < EARLIEST) | (pl.col(table.time) > now + AHEAD)
    is_absurd = is_absurd.fill_null(value=False)
    absurd = frame.filter(is_absurd)
    reason = "the time is before 2000 or more than a day ahead of the clock"
    place = f"{table.name}.{table.time}"
    troubles.append(Trouble("rejected", place, reason, absurd.height, str(absurd.get_column(table.time)[0])))
    return frame.filter(~is_absurd)


def _without_nan(frame: pl.DataFrame, table: Table, troubles: list[Trouble]) -> pl.DataFrame:
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    if not floats or frame.is_empty():
        return frame
    counts = frame.select((pl.col(name).is_finite() == pl.lit(value=False)).sum() for name in floats).row(0)
    bad = {name: count for name, count in zip(floats, counts, strict=True) if count}
    if not bad:
        return frame
    for name, count in bad.items():
        troubles.append(Trouble("rejected", f"{table.name}.{name}", "not a finite number, stored as null", count))
    cleaned = frame.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in bad)
    required = [name for name in bad if name in table.required("wire")]
    return cleaned.drop_nulls(required) if required else cleaned


def _with_keys(
    frame: pl.DataFrame, table: Table, by_uuid: Mapping[str, Mapping[str, int]], troubles: list[Trouble]
) -> pl.DataFrame:
    for name in DIMENSIONS:
        wire = f"{name}_uuid"
        if name not in table.schema() or wire not in frame.columns:
            continue
        source = "uuid" if table.name == name else wire
        known = by_uuid[name]
        lookup = pl.DataFrame(
            {source: list(known), name: list(known.values())}, schema={source: pl.String(), name: pl.UInt32()}
        )
        frame = frame.join(lookup, on=source, how="left", maintain_order="left")
        strange = frame.filter(pl.col(name).is_null() & pl.col(source).is_not_null())
        if strange.height:
            reason = f"the {name} was never announced in the table {name}"
            example = str(strange.get_column(source)[0])
            troubles.append(Trouble("rejected", f"{table.name}.{wire}", reason, strange.height, example))
            frame = frame.filter(pl.col(name).is_not_null() | pl.col(source).is_null())
    return frame.select(table.names())


def _trouble_frame(source: str, troubles: list[Trouble], now: datetime) -> pl.DataFrame:
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
    return pl.DataFrame(rows, schema=SOURCE_FAILURE.schema())
