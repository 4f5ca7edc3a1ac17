"""Prices: a price book becomes rows of the table `price`, or an error that names the entry and the field."""

import tomllib
from datetime import datetime
from decimal import Decimal, InvalidOperation
from importlib import resources
from pathlib import Path

import polars as pl

from fleet.clock import as_utc
from fleet.errors import BadInput
from fleet.frames import check
from fleet.models import canonical_model
from fleet.tables import PRICE

CAPACITY_TYPES = ("on_demand", "reserved", "spot", "owned")
_KEYS = frozenset({"model", "capacity_type", "region", "usd_per_gpu_hour", "starts_at", "ends_at", "source"})
_PLACES = 6  # DECIMAL(18, 6)


def read_price_book(path: Path | None) -> pl.DataFrame:
    """Return a price book (None: the built-in list prices) as a frame of the table `price`.

    A book is TOML with one `[[price]]` table an entry: `model`, `capacity_type`, `usd_per_gpu_hour` (text or
    number), `starts_at`, and where wanted `region`, `ends_at`, `source`. Raises `BadInput` naming entry and field
    for what is missing, unknown, mistyped, negative or overlapping. A model that no entry names has no price.
    """
    place = "the built-in price book" if path is None else str(path)
    entries = _entries(path, place)
    rows = [_row(entry, f"{place}, entry {number}") for number, entry in enumerate(entries, start=1)]
    _refuse_overlaps(rows, place)
    return check(pl.DataFrame(rows, schema=PRICE.schema()), PRICE)


def _entries(path: Path | None, place: str) -> list[dict[str, object]]:
    try:
        text = (resources.files("collectors") / "price_book.toml").read_text() if path is None else path.read_text()
        book = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{place}: this is not TOML: {error}"
        raise BadInput(message, place=place) from error
    except (OSError, UnicodeDecodeError) as error:
        message = f"{place}: can't be read: {error}"
        raise BadInput(message, place=place) from error
    entries = book.get("price")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
        message = f"{place}: there is no [[price]] entry"
        raise BadInput(message, place=place, field="price")
    return entries


def _row(entry: dict[str, object], place: str) -> dict[str, object]:
    for key in entry:
        if key not in _KEYS:
            _refuse(place, key, f"is unknown; the keys are {', '.join(sorted(_KEYS))}")
    starts_at, ends_at = _moment(entry, "starts_at", place), _moment(entry, "ends_at", place)
    if starts_at is None:
        _refuse(place, "starts_at", "is missing")
    elif ends_at is not None and ends_at <= starts_at:
        _refuse(place, "ends_at", "is not after starts_at")
    capacity_type = _text(entry, "capacity_type", place)
    if capacity_type not in CAPACITY_TYPES:
        _refuse(place, "capacity_type", f"{capacity_type!r} is not one of {', '.join(CAPACITY_TYPES)}")
    return {
        "model": canonical_model(_text(entry, "model", place)),
        "capacity_type": capacity_type,
        "region": _text(entry, "region", place) if "region" in entry else None,
        "usd_per_gpu_hour": _money(entry, place),
        "source": _text(entry, "source", place) if "source" in entry else place,
        "starts_at": starts_at,
        "ends_at": ends_at,
    }


def _text(entry: dict[str, object], key: str, place: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        _refuse(place, key, "is missing" if value is None else f"{value!r} is not a name")
    return str(value)


def _money(entry: dict[str, object], place: str) -> Decimal:
    value = entry.get("usd_per_gpu_hour")
    if value is None or isinstance(value, bool) or not isinstance(value, (str, int, float)):
        _refuse(place, "usd_per_gpu_hour", "is missing" if value is None else f"{value!r} is not an amount")
    try:
        amount = Decimal(str(value))
    except InvalidOperation as error:
        message = f"{place}: usd_per_gpu_hour: {value!r} is not an amount"
        raise BadInput(message, place=place, field="usd_per_gpu_hour") from error
    if not amount.is_finite() or amount < 0:
        _refuse(place, "usd_per_gpu_hour", f"{value!r} is negative or no number")
    if round(amount, _PLACES) != amount:
        _refuse(place, "usd_per_gpu_hour", f"{value!r} has more than {_PLACES} decimal places")
    return amount


def _moment(entry: dict[str, object], key: str, place: str) -> datetime | None:
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, datetime):
        _refuse(place, key, f"{value!r} is not a time; write it as 2026-01-01T00:00:00Z")
        return None
    return as_utc(value, f"{place}: {key}")


def _refuse_overlaps(rows: list[dict[str, object]], place: str) -> None:
    latest: dict[tuple[object, ...], dict[str, object]] = {}
    for row in sorted(rows, key=lambda row: str(row["starts_at"])):
        key = (row["model"], row["capacity_type"], row["region"])
        before = latest.get(key)
        latest[key] = row
        starts_at, ended_at = row["starts_at"], before["ends_at"] if before is not None else None
        if before is None:
            continue
        if ended_at is None or (
            isinstance(ended_at, datetime) and isinstance(starts_at, datetime) and ended_at > starts_at
        ):
            _refuse(place, "starts_at", f"two prices of {row['model']} ({row['capacity_type']}) overlap at {starts_at}")


def _refuse(place: str, field: str, why: str) -> None:
    message = f"{place}: {field}: {why}"
    raise BadInput(message, place=place, field=field)
