"""`steward prices`: what is in force, what has no price, and books that are checked without being stored."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput
from steward.cli import app
from steward.compose import House, load_prices
from steward.config import PriceSection, load_settings
from steward.cycle import collect
from steward.prices_desk import prices_report
from store.store import Store

BAD = """model,capacity_type,usd_per_gpu_hour,starts_at
H100,on_demand,1.00,2026-01-01T00:00:00Z
H100,on_demand,-2,2027-01-01T00:00:00Z
"""


@pytest.fixture
def house(clock: FixedClock) -> Iterator[House]:
    with Store.open(None, clock=clock) as store:
        house = House(load_settings(None, {}), store, clock)
        load_prices(house.settings, store)
        yield house


def fleet_of(house: House, model: str, capacity_type: str) -> None:
    node = pl.DataFrame({"cluster": ["c"], "node": ["n"], "capacity_type": [capacity_type]})
    gpu = pl.DataFrame({"gpu_uuid": ["GPU-1"], "uuid": ["GPU-1"], "cluster": ["c"], "node": ["n"], "model": [model]})
    house.store.append(Batch("test", {"node": node, "gpu": gpu}))


def test_every_price_comes_with_who_says_so(house: House) -> None:
    report = prices_report(house, {})
    assert report.items
    assert all(item["source"] for item in report.items)


@pytest.mark.parametrize("model", ["NVIDIA H100 80GB HBM3", "NVIDIA-H100-80GB-HBM3", "H100"])
def test_a_gpu_is_priced_by_any_name_of_its_model(house: House, model: str) -> None:
    fleet_of(house, model, "on_demand")
    assert prices_report(house, {}).summary["gpus unpriced"] == 0


def test_what_has_no_price_is_said_to_be_unpriced_and_is_not_free(house: House) -> None:
    fleet_of(house, "Tesla T4", "owned")
    report = prices_report(house, {})
    assert (report.summary["gpus priced"], report.summary["gpus unpriced"]) == (0, 1)
    assert report.notes == ("unpriced: 1 x Tesla T4, owned; give a price in a book under [prices] book",)


def test_a_book_that_is_checked_is_shown_and_not_stored(house: House, tmp_path: Path) -> None:
    before = house.store.read("price")
    file = tmp_path / "book.csv"
    file.write_text("model,capacity_type,usd_per_gpu_hour,starts_at\nT4,owned,0.1,2026-01-01T00:00:00Z\n")
    report = prices_report(house, {"check": str(file)})
    assert [(item["model"], str(item["usd_per_gpu_hour"])) for item in report.items] == [("T4", "0.100000")]
    assert house.store.read("price").equals(before)


def test_a_bad_book_changes_nothing_that_is_stored(house: House, tmp_path: Path) -> None:
    before = house.store.read("price")
    file = tmp_path / "book.csv"
    file.write_text(BAD)
    settings = house.settings.model_copy(update={"prices": PriceSection(book=file)})
    with pytest.raises(BadInput, match="line 3: usd_per_gpu_hour: '-2' is negative"):
        load_prices(settings, house.store)
    assert house.store.read("price").equals(before)


def test_the_command_prints_prices_as_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--store", str(tmp_path / "s.duckdb"), "prices", "-o", "json"])
    assert result.exit_code == 0
    body = json.loads(result.stdout)
    assert body["kind"] == "PricesReport"
    assert all("." in item["usd_per_gpu_hour"] for item in body["items"])


def test_nodes_seen_in_a_turn_are_priced_by_a_list_that_prices_nodes(tmp_path: Path, clock: FixedClock) -> None:
    file = tmp_path / "pricing.csv"
    file.write_text(
        "EndTimestamp,InstanceID,Region,AssetClass,InstanceIDField,InstanceType,MarketPriceHourly,Version\n"
        "2028-01-01,n,,node,metadata.name,,24.00,\n"
    )
    settings = load_settings(None, {}).model_copy(update={"prices": PriceSection(book=file)})
    with Store.open(None, clock=clock) as store:
        house = House(settings, store, clock)
        load_prices(settings, store)
        assert store.read("price").is_empty()
        fleet_of(house, "H100", "on_demand")
        told = pl.DataFrame({"cluster": ["c"], "node": ["n"], "gpus": [8], "model": ["H100"]})
        store.append(Batch("test", {"node": told.cast({"gpus": pl.Int32})}))
        collect(house, clock.now())
        assert [str(item["usd_per_gpu_hour"]) for item in prices_report(house, {}).items] == ["3.000000"]
        assert prices_report(house, {}).summary["gpus unpriced"] == 0
        file.write_text("broken")
        assert [(name, each.kind) for name, each in collect(house, clock.now()).troubles] == [("prices", "failed")]
