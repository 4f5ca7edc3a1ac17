"""Read the CSV files that money comes in: charges beside GPUs, and work that was done. Every fault has its line."""

import csv
import hashlib
import io
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation

import polars as pl

from fleet.clock import as_utc
from fleet.errors import BadInput
from fleet.frames import Table, check
from fleet.money_tables import CHARGE, WORK_DONE

_PLACES = 6
_DOLLARS = frozenset({"", "USD", "usd", "$"})


def read_charges(text: str, place: str) -> pl.DataFrame:
    """Return charges from CSV with the columns of the table `charge`, and where wanted `currency` (USD only).

    A line without `charge_id` gets one that is made of the line.
    """
    rows = []
    for number, line in read_lines(text, place):
        currency = line.pop("currency", None)
        if currency is not None and currency not in _DOLLARS:
            refuse(place, number, "currency", f"is {currency}; the ledger is kept in USD, convert it first")
        row = _row(line, CHARGE, place, number)
        row["source"] = row["source"] or place
        row["charge_id"] = row["charge_id"] or hashlib.sha256(json_of(row).encode()).hexdigest()[:16]
        rows.append(row)
    return _frame(rows, CHARGE, place)


def read_work(text: str, place: str) -> pl.DataFrame:
    """Return work from CSV with the columns of the table `work_done`."""
    return _frame([_row(line, WORK_DONE, place, number) for number, line in read_lines(text, place)], WORK_DONE, place)


def json_of(row: Mapping[str, object]) -> str:
    """Return a row as one text that is the same for the same row."""
    return "|".join(f"{name}={row[name]}" for name in sorted(row))


def read_lines(text: str, place: str) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a CSV text with a header, each with its number; empty cells are left out."""
    reader = csv.DictReader(io.StringIO(text))
    if not reader.fieldnames:
        message = f"{place}: there is no header line"
        raise BadInput(message, place=place)
    lines = []
    for row in reader:
        if None in row:
            refuse(place, reader.line_num, "line", "has more cells than the header")
        told = {name.strip(): value.strip() for name, value in row.items() if value and value.strip()}
        lines.append((reader.line_num, told))
    if not lines:
        message = f"{place}: there is no line below the header"
        raise BadInput(message, place=place)
    return lines


def refuse(place: str, number: int, field: str, why: str) -> None:
    """Raise `BadInput` naming file, line and field."""
    message = f"{place}, line {number}: {field}: {why}"
    raise BadInput(message, place=f"{place}, line {number}", field=field)


def money(text: str, place: str, number: int, field: str) -> Decimal:
    """Return an exact amount, or raise `BadInput` naming file, line and field."""
    try:
        amount = Decimal(text.replace("$", "").replace(",", ""))
    except InvalidOperation as error:
        message = f"{place}, line {number}: {field}: {text!r} is not an amount"
        raise BadInput(message, place=f"{place}, line {number}", field=field) from error
    if not amount.is_finite() or round(amount, _PLACES) != amount:
        refuse(place, number, field, f"{text!r} is no amount of at most {_PLACES} decimal places")
    return amount


def moment(text: str, place: str, number: int, field: str) -> datetime:
    """Return a time with its zone, or raise `BadInput` naming file, line and field."""
    try:
        return as_utc(datetime.fromisoformat(text), field)
    except ValueError as error:
        message = f"{place}, line {number}: {field}: {text!r} is not a time such as 2026-01-31T12:00:00Z"
        raise BadInput(message, place=f"{place}, line {number}", field=field) from error


def _number(text: str, place: str, number: int, field: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        message = f"{place}, line {number}: {field}: {text!r} is not a number"
        raise BadInput(message, place=f"{place}, line {number}", field=field) from error
    if not math.isfinite(value) or value < 0:
        refuse(place, number, field, f"{text!r} is negative or no number")
    return value


_READERS: dict[str, Callable[[str, str, int, str], object]] = {
    "Datetime": moment,
    "Decimal": money,
    "Float64": _number,
}


def _row(line: Mapping[str, str], table: Table, place: str, number: int) -> dict[str, object]:
    row: dict[str, object] = {}
    for name in line:
        if name not in table.names():
            refuse(place, number, name, f"is unknown; the columns are {', '.join(table.names())}")
    for column in table.columns:
        text = line.get(column.name)
        if text is None:
            if column.required and column.name != "charge_id":
                refuse(place, number, column.name, "is missing")
            row[column.name] = None
            continue
        reader = _READERS.get(str(column.dtype.base_type()))
        row[column.name] = text if reader is None else reader(text, place, number, column.name)
    starts_at, ends_at = row["starts_at"], row["ends_at"]
    if isinstance(starts_at, datetime) and isinstance(ends_at, datetime) and ends_at <= starts_at:
        refuse(place, number, "ends_at", "is not after starts_at")
    return row


def _frame(rows: list[dict[str, object]], table: Table, place: str) -> pl.DataFrame:
    frame = check(pl.DataFrame(rows, schema=table.schema()), table)
    twice = frame.select(pl.struct(table.key).is_duplicated()).to_series()
    if twice.any():
        message = f"{place}: line {int(twice.arg_max() or 0) + 2}: the same row stands there twice"
        raise BadInput(message, place=place)
    return frame
