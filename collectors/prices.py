"""Prices: a price book becomes rows of the table `price`, or an error that names the line and the field."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from collectors.price_entries import CAPACITY_TYPES, KEYS, price_row, refuse
from collectors.price_files import BUILT_IN, entries_of
from collectors.price_foreign import EGS, OPENCOST, egs_rows, is_of, opencost_rows
from fleet.batch import Trouble
from fleet.errors import BadInput
from fleet.frames import check
from fleet.tables import PRICE

__all__ = ["CAPACITY_TYPES", "Book", "read_book", "read_price_book"]


@dataclass(frozen=True, slots=True)
class Book:
    """A price book: its prices as a frame of the table `price`, and what of it is not used."""

    prices: pl.DataFrame
    troubles: tuple[Trouble, ...] = ()


def read_price_book(path: Path | None) -> pl.DataFrame:
    """Return the prices of a book (None: the built-in list prices) as a frame of the table `price`."""
    return read_book(path).prices


def read_book(path: Path | None) -> Book:
    """Return a price book: TOML, YAML or CSV of ours, OpenCost's custom pricing CSV or EGS's pricing CSV.

    An entry of ours has `model`, `capacity_type`, `usd_per_gpu_hour` (text or number) or the costs of owning, and
    `starts_at`; where wanted `region`, `ends_at`, `source`. Raises `BadInput` naming entry or line and field for what
    is missing, unknown, mistyped, negative, of another currency or overlapping. A model that no entry names has no
    price.
    """
    place = BUILT_IN if path is None else str(path)
    entries, header = entries_of(path)
    troubles: list[Trouble] = []
    if is_of(header, OPENCOST):
        rows, troubles = opencost_rows(entries)
    elif is_of(header, EGS):
        rows, troubles = egs_rows(entries)
    else:
        _refuse_columns(header, place)
        rows = [price_row(entry, where) for where, entry in entries]
    places = [where for where, _ in entries] if len(rows) == len(entries) else [str(row["source"]) for row in rows]
    _refuse_overlaps(list(zip(places, rows, strict=True)))
    return Book(check(pl.DataFrame(rows, schema=PRICE.schema()), PRICE), tuple(troubles))


def _refuse_columns(header: tuple[str, ...], place: str) -> None:
    for name in header:
        if name not in KEYS:
            message = (
                f"{place}, line 1: {name}: is unknown; the columns are {', '.join(sorted(KEYS))},"
                " or those of OpenCost's custom pricing or of EGS's prices"
            )
            raise BadInput(message, place=place, field=name)
    if len(set(header)) < len(header):
        refuse(f"{place}, line 1", next(name for name in header if header.count(name) > 1), "stands there twice")


def _refuse_overlaps(rows: list[tuple[str, dict[str, object]]]) -> None:
    latest: dict[tuple[object, ...], tuple[str, dict[str, object]]] = {}
    for place, row in sorted(rows, key=lambda each: str(each[1]["starts_at"])):
        key = (row["model"], row["capacity_type"], row["region"])
        before = latest.get(key)
        latest[key] = place, row
        if before is None:
            continue
        ended_at = before[1]["ends_at"]
        if ended_at is None or str(ended_at) > str(row["starts_at"]):
            what = f"two prices of {row['model']} ({row['capacity_type']}) overlap at {row['starts_at']}"
            refuse(place, "starts_at", f"{what}; the other one is {before[0]}")
