"""The desk's answers about prices: those in force with their sources, what is unpriced, and whether a book is sound."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from analytics.prices import priced_gpus, with_rates
from collectors.prices import read_book
from steward.compose import House
from steward.report import Report

_COLUMNS = ("model", "capacity_type", "region", "usd_per_gpu_hour", "starts_at", "ends_at", "source")


def prices_report(house: House, parameters: Mapping[str, object]) -> Report:
    """Return the prices in force now and the GPUs without one; with `check`, a file's prices, storing nothing."""
    file = parameters.get("check")
    return _in_force(house) if file is None else _checked(house, Path(str(file)))


def _in_force(house: House) -> Report:
    now = house.clock.now()
    prices = house.store.read("price")
    is_over = pl.col("ends_at").is_not_null() & (pl.col("ends_at") <= now)
    gpus = house.store.engine.run(priced_gpus(house.store.engine))
    rated = with_rates(gpus.with_columns(at=pl.lit(now)), prices, "at")
    without = rated.filter(pl.col("usd_per_gpu_hour").is_null())
    summary: dict[str, object] = {
        "prices": prices.filter(~is_over).height,
        "gpus priced": rated.height - without.height,
        "gpus unpriced": without.height,
    }
    grouped = without.group_by("model", "capacity_type", "region").len().sort("len", "model", descending=[True, False])
    notes = tuple(
        f"unpriced: {count} x {model or 'a GPU of unknown model'}, {kind or 'capacity type not known'}"
        f"{f', {region}' if region else ''}; give a price in a book under [prices] book"
        for model, kind, region, count in grouped.iter_rows()
    )
    return Report("PricesReport", now, summary, _items(prices.filter(~is_over)), _COLUMNS, notes)


def _checked(house: House, file: Path) -> Report:
    book = read_book(file)
    summary: dict[str, object] = {"file": str(file), "prices": book.prices.height, "stored": "nothing: a check only"}
    notes = tuple(f"{each.reason}: {each.row_count}, for example {each.example}" for each in book.troubles)
    return Report("PricesReport", house.clock.now(), summary, _items(book.prices), _COLUMNS, notes)


def _items(prices: pl.DataFrame) -> list[dict[str, object]]:
    return prices.select(_COLUMNS).sort("model", "capacity_type", "region", "starts_at").to_dicts()
