"""Fit: rows in wire form become rows in stored form; what can't be stored is left out and counted."""

from datetime import UTC, datetime, timedelta

import polars as pl

from fleet.batch import Trouble
from fleet.errors import BadFrame
from fleet.frames import Table
from store.keys import DIMENSIONS, Keys

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=1)
# A price, a quota or a membership may be agreed long before it begins; a measurement can't be.
_AGREED_AHEAD = frozenset({"price", "quota", "workspace_member"})


def fit(frame: pl.DataFrame, table: Table, keys: Keys, now: datetime, troubles: list[Trouble]) -> pl.DataFrame:
    """Return the rows in stored form; rows and numbers that can't be stored are added to `troubles`."""
    fitted = _without_absurd_times(frame, table, now, troubles)
    fitted = without_nan(fitted, table, troubles)
    if table.name in DIMENSIONS:
        fitted = fitted.with_columns(pl.coalesce("first_seen_at", "last_seen_at", pl.lit(now)).alias("first_seen_at"))
        reason = f"{table.name}_uuid and uuid are not the same"
        strange = pl.col(f"{table.name}_uuid") != pl.col("uuid")
        fitted = _reject(fitted, strange, f"{table.name}.uuid", reason, troubles)
    return _with_keys(fitted, table, keys, troubles)


def is_absurd(moment: datetime, now: datetime) -> bool:
    """Tell whether a moment can't have been measured: before 2000, or more than a day ahead of the clock."""
    return moment < EARLIEST or moment > now + AHEAD


def without_nan(frame: pl.DataFrame, table: Table, troubles: list[Trouble]) -> pl.DataFrame:
    """Return the frame with null for NaN and infinity, counted by column; a row that needs the number goes."""
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    if not floats or frame.is_empty():
        return frame
    counts = frame.select((pl.col(name).is_finite() == pl.lit(value=False)).sum() for name in floats).row(0)
    bad = {name: count for name, count in zip(floats, counts, strict=True) if count > 0}
    required = [name for name in bad if name in table.required()]
    for name, count in bad.items():
        what = "its row is left out" if name in required else "stored as null"
        troubles.append(Trouble("rejected", f"{table.name}.{name}", f"not a finite number, {what}", count))
    if not bad:
        return frame
    cleaned = frame.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in bad)
    return cleaned.drop_nulls(required) if required else cleaned


def refuse_required_nan(frame: pl.DataFrame, table: Table) -> None:
    """Raise `BadFrame` where a number that every row needs is none: parts of a whole are not left out."""
    for name in sorted(table.required()):
        if table.schema()[name].is_float() and not frame.get_column(name).is_finite().all():
            message = f"table {table.name}, column {name}: is required and holds NaN or infinity"
            raise BadFrame(message, place=table.name, field=name)


def _without_absurd_times(frame: pl.DataFrame, table: Table, now: datetime, troubles: list[Trouble]) -> pl.DataFrame:
    if table.time is None:
        return frame
    latest = datetime.max.replace(tzinfo=UTC) if table.name in _AGREED_AHEAD else now + AHEAD
    moment = frame.get_column(table.time)
    first, last = moment.min(), moment.max()
    if not isinstance(first, datetime) or not isinstance(last, datetime) or (first >= EARLIEST and last <= latest):
        return frame
    absurd = (pl.col(table.time) < EARLIEST) | (pl.col(table.time) > latest)
    reason = "the time is before 2000 or more than a day ahead of the clock"
    return _reject(frame, absurd, f"{table.name}.{table.time}", reason, troubles)


def _with_keys(frame: pl.DataFrame, table: Table, keys: Keys, troubles: list[Trouble]) -> pl.DataFrame:
    for name in DIMENSIONS:  # a slice meets its GPU first: one without a GPU gets no key
        wire = f"{name}_uuid"
        if name not in table.schema():
            continue
        if table.name == name:
            keys.announce(name, frame.get_column(wire))
        frame = frame.join(keys.lookup(name, wire), on=wire, how="left", maintain_order="left")
        unknown = pl.col(name).is_null() & pl.col(wire).is_not_null()
        reason = f"the {name} was never announced in the table {name}"
        frame = _reject(frame, unknown, f"{table.name}.{wire}", reason, troubles)
    return frame.select(table.names())


def _reject(frame: pl.DataFrame, is_bad: pl.Expr, place: str, reason: str, troubles: list[Trouble]) -> pl.DataFrame:
    """Return the rows that are not bad (null is not bad) and count the others under `place`, "table.column"."""
    verdict = frame.select(is_bad.fill_null(value=False)).to_series()
    if not verdict.any():
        return frame
    bad = frame.filter(verdict)
    example = str(bad.get_column(place.partition(".")[2])[0])
    troubles.append(Trouble("rejected", place, reason, bad.height, example))
    return frame.filter(~verdict)
