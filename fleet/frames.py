"""The shape of a table, and the check a frame passes where it enters or leaves a room.

Every table has two forms. The *stored* form has the small integer keys `gpu` and `slice`, which the store
hands out. The *wire* form, in which sources speak, has `gpu_uuid` and `slice_uuid` in their place.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from fleet.errors import BadFrame

UTC_MICROSECONDS = pl.Datetime("us", "UTC")
MONEY = pl.Decimal(18, 6)

Form = Literal["wire", "stored"]
Conflict = Literal["merge", "keep"]
WIRE_NAMES = {"gpu": "gpu_uuid", "slice": "slice_uuid"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name (with the unit in it), its type and what it means."""

    name: str
    dtype: pl.DataType
    meaning: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns, the key that makes a row itself, and what a second row of that key does.

    `on_conflict`: "merge" keeps the later non-null value of each column, "keep" keeps the first row.
    `time` is the column that retention, roll-ups and incremental reads go by.
    `tolerance_s`: rows equal on the key but for `time`, this close together, are one row.
    `stands_in`: a key column and the one that speaks for it where it is null. `richest`: a text of which the longer
    one stays when rows with a tolerance meet, whoever comes first.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    time: str | None = None
    on_conflict: Conflict = "merge"
    tolerance_s: float = 0.0
    stands_in: tuple[str, str] | None = None
    richest: str | None = None

    def names(self, form: Form = "stored") -> tuple[str, ...]:
        """Return the column names in the given form."""
        return tuple(self.schema(form))

    def key_names(self, form: Form = "stored") -> tuple[str, ...]:
        """Return the key's column names in the given form."""
        if form == "stored":
            return self.key
        return tuple(WIRE_NAMES.get(name, name) for name in self.key)

    def schema(self, form: Form = "stored") -> dict[str, pl.DataType]:
        """Return the polars schema, in column order, in the given form."""
        if form == "stored":
            return {column.name: column.dtype for column in self.columns}
        return {
            WIRE_NAMES.get(column.name, column.name): pl.String() if column.name in WIRE_NAMES else column.dtype
            for column in self.columns
        }

    def empty(self, form: Form = "stored") -> pl.DataFrame:
        """Return a frame of this table's schema without rows."""
        return pl.DataFrame(schema=self.schema(form))

    def required(self, form: Form = "stored") -> frozenset[str]:
        """Return the columns that may not be null: those marked so."""
        names = (column.name for column in self.columns if column.required)
        return frozenset(names if form == "stored" else (WIRE_NAMES.get(name, name) for name in names))


def conform(frame: pl.DataFrame, table: Table, form: Form = "wire") -> pl.DataFrame:
    """Return `frame` with exactly the table's columns, in order and type; missing optional columns become null.

    Raises `BadFrame` naming the table and the column where one is unknown, missing though required, null
    though required, or of a type that can't be cast without loss.
    """
    schema = table.schema(form)
    if dict(frame.schema) == schema:
        _refuse_nulls(frame, table, form)
        return frame
    _refuse_unknown(frame.columns, schema, table)
    missing = table.required(form).difference(frame.columns)
    if missing:
        _refuse(table, min(missing), "is required and is not in the frame")
    columns = []
    for name, dtype in schema.items():
        if name not in frame.columns:
            columns.append(pl.lit(None, dtype=dtype).alias(name))
        elif frame.schema[name] == dtype:
            columns.append(pl.col(name))
        else:
            columns.append(_cast(frame, name, dtype, table))
    result = frame.select(columns)
    _refuse_nulls(result, table, form)
    return result


def check(frame: pl.DataFrame, table: Table, form: Form = "stored") -> pl.DataFrame:
    """Return `frame` unchanged where it has exactly the table's columns and types, else raise `BadFrame`."""
    schema = table.schema(form)
    _refuse_unknown(frame.columns, schema, table)
    for name, dtype in schema.items():
        if name not in frame.columns:
            _refuse(table, name, "is not in the frame")
        if frame.schema[name] != dtype:
            _refuse(table, name, f"is {frame.schema[name]}, not {dtype}")
    _refuse_nulls(frame, table, form)
    return frame.select(list(schema))


def _cast(frame: pl.DataFrame, name: str, dtype: pl.DataType, table: Table) -> pl.Expr:
    found = frame.schema[name]
    if found == pl.Null:
        return pl.lit(None, dtype=dtype).alias(name)
    if dtype == UTC_MICROSECONDS and isinstance(found, pl.Datetime) and found.time_zone is None:
        _refuse(table, name, "has no time zone; times are aware UTC")
    if _kind(found) != _kind(dtype):
        _refuse(table, name, f"is {found}, not {dtype}")
    column = frame.get_column(name)
    try:
        cast = column.cast(dtype)
    except pl.exceptions.PolarsError as error:
        message = f"table {table.name}, column {name}: a value of type {found} does not fit {dtype}: {error}"
        raise BadFrame(message, place=table.name, field=name) from error
    if dtype.is_integer() and (cast != column).any():
        _refuse(table, name, f"holds fractions, and {dtype} would lose them")
    if dtype.is_float() and found.is_float() and (cast.is_infinite() != column.is_infinite()).any():
        _refuse(table, name, f"holds numbers too large for {dtype}")
    return pl.col(name).cast(dtype)


def _kind(dtype: pl.DataType) -> str:
    """Return what a type is made for; a value is never turned from one kind into another (an epoch into a time)."""
    if dtype.is_numeric():
        return "number"
    return "time" if isinstance(dtype, pl.Datetime) else str(dtype)


def _refuse_unknown(found: Iterable[str], schema: dict[str, pl.DataType], table: Table) -> None:
    for name in found:
        if name not in schema:
            _refuse(table, name, f"is unknown; the columns are {', '.join(schema)}")


def _refuse_nulls(frame: pl.DataFrame, table: Table, form: Form) -> None:
    for name in (name for name in table.names(form) if name in table.required(form)):
        if frame.get_column(name).null_count() > 0:
            row = frame.get_column(name).is_null().arg_max()
            _refuse(table, name, f"is required and is null in row {row}")


def _refuse(table: Table, name: str, why: str) -> None:
    message = f"table {table.name}, column {name}: {why}"
    raise BadFrame(message, place=table.name, field=name)
