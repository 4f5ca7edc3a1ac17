"""Price books: exact amounts, and errors that name the entry and the field."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.price_foreign import model_of
from collectors.prices import read_book, read_price_book
from fleet.amortise import Ownership
from fleet.errors import BadInput
from fleet.models import canonical_model, idle_power_w

GOOD = """
[[price]]
model = "NVIDIA H100 80GB HBM3"
capacity_type = "on_demand"
usd_per_gpu_hour = "6.88"
starts_at = 2026-01-01T00:00:00Z
"""


CSV = """model,capacity_type,region,usd_per_gpu_hour,starts_at,ends_at
H100,on_demand,,6.88,2026-01-01T00:00:00Z,
H100,spot,us-east-1,2.50,2026-01-01T00:00:00Z,2027-01-01T00:00:00Z
"""
YAML = """
prices:
  - model: NVIDIA-H100-80GB-HBM3
    capacity_type: owned
    capex_usd: 30000
    life_years: 4
    opex_usd_per_year: 1000
    power_kw: "1.2"
    pue: 1.3
    usd_per_kwh: 0.12
    starts_at: 2026-01-01T00:00:00Z
"""
OPENCOST = """EndTimestamp,InstanceID,Region,AssetClass,InstanceIDField,InstanceType,MarketPriceHourly,Version
2019-04-17 23:34:22 UTC,pool-1,,node,metadata.name,,0.1337,
2019-04-17 23:34:22 UTC,NVIDIA-H100-80GB-HBM3,us-east-1,gpu,nvidia.com/gpu_type,,2.75,
2019-04-17 23:34:22 UTC,a100-reserved,,gpu,nvidia.com/gpu_type,,1,
"""
EGS = """cloud_provider,region,component,instance_type,vcpu,price,gpu
aws,us-east-1,compute,p5.48xlarge,192,55.04,8
gcp,us-central1,compute,a2-ultragpu-8g,96,40.55,8
azure,eastus,compute,Standard_NC40ads_H100_v5,40,6.98,1
aws,us-east-1,compute,m5.large,2,0.096,0
"""


def write(tmp_path: Path, text: str, name: str = "book.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_the_built_in_book_names_a_source_for_each_price() -> None:
    book = read_price_book(None)
    assert book.height > 5
    assert book.get_column("source").str.contains(r"USD/h.*\d{4}-\d\d-\d\d").all()
    assert set(book.get_column("capacity_type")) == {"on_demand", "spot", "reserved"}


def test_the_built_in_price_of_a_gpu_is_that_of_its_instance_over_its_gpus() -> None:
    told = re.compile(r"([\d.]+) USD/h for (\d) GPU")
    for price, source in read_price_book(None).select("usd_per_gpu_hour", "source").iter_rows():
        match = told.search(source)
        if match is not None:
            assert abs(Decimal(match[1]) / int(match[2]) - price) <= Decimal("0.0000005"), source


def test_spot_and_reserved_are_below_on_demand_in_the_built_in_book() -> None:
    book = read_price_book(None).pivot(on="capacity_type", index="model", values="usd_per_gpu_hour")
    assert (book.get_column("spot").drop_nulls().len(), book.get_column("reserved").drop_nulls().len()) == (9, 4)
    assert book.filter((pl.col("spot") >= pl.col("on_demand")) | (pl.col("reserved") >= pl.col("on_demand"))).is_empty()


def test_an_amount_is_kept_to_the_last_digit(tmp_path: Path) -> None:
    row = read_price_book(write(tmp_path, GOOD)).row(0, named=True)
    assert (row["model"], row["usd_per_gpu_hour"]) == ("H100", Decimal("6.880000"))


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        pytest.param('"6.88"', '"-1"', "usd_per_gpu_hour", id="negative"),
        pytest.param('"6.88"', '"cheap"', "usd_per_gpu_hour", id="not a number"),
        pytest.param('"6.88"', '"NaN"', "usd_per_gpu_hour", id="NaN"),
        pytest.param('"6.88"', "true", "usd_per_gpu_hour", id="a flag"),
        pytest.param('"6.88"', '"0.0000001"', "usd_per_gpu_hour", id="too fine"),
        pytest.param('usd_per_gpu_hour = "6.88"', "", "usd_per_gpu_hour", id="missing price"),
        pytest.param('"on_demand"', '"cheap"', "capacity_type", id="capacity type"),
        pytest.param("2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "starts_at", id="no zone"),
        pytest.param("2026-01-01T00:00:00Z", '"soon"', "starts_at", id="no time"),
        pytest.param("model", "modell", "modell", id="unknown key"),
        pytest.param('"6.88"', '"1e15"', "usd_per_gpu_hour", id="too much"),
        pytest.param("2026-01-01T00:00:00Z", "2026-01-01", "starts_at", id="a day"),
        pytest.param("starts_at", 'currency = "EUR"\nstarts_at', "currency", id="another currency"),
        pytest.param("starts_at", "capex_usd = 1\nstarts_at", "capex_usd", id="a price given and worked out"),
        pytest.param('usd_per_gpu_hour = "6.88"', "capex_usd = 1", "capex_usd", id="costs of owning what is rented"),
        pytest.param("starts_at", "ends_at = 2025-01-01T00:00:00Z\nstarts_at", "ends_at", id="ends before it starts"),
    ],
)
def test_a_bad_entry_is_named_with_its_field(tmp_path: Path, old: str, new: str, field: str) -> None:
    with pytest.raises(BadInput, match=rf"entry 2: {field}|entry 2.*{field}"):
        read_price_book(write(tmp_path, GOOD.replace("H100", "H200") + GOOD.replace(old, new)))


def test_two_prices_at_once_are_refused_and_one_after_the_other_is_fine(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="overlap"):
        read_price_book(write(tmp_path, GOOD + GOOD.replace("2026", "2027")))
    ended = GOOD + "ends_at = 2027-01-01T00:00:00Z\n"
    assert read_price_book(write(tmp_path, ended + GOOD.replace("2026", "2027"))).height == 2


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA-A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("Tesla T4", "T4"),
        ("V100M32", "V100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4080 SUPER", "NVIDIA GeForce RTX 4080 SUPER"),
    ],
)
def test_models_are_known_by_their_driver_names(name: str, short: str) -> None:
    assert canonical_model(name) == short


def test_the_power_of_an_unknown_model_is_unknown() -> None:
    assert idle_power_w("G2") is None
    assert idle_power_w("Tesla T4") == 10.0


def test_a_csv_of_ours_is_a_book_too(tmp_path: Path) -> None:
    rows = (
        read_price_book(write(tmp_path, CSV, "book.csv")).select("capacity_type", "region", "usd_per_gpu_hour").rows()
    )
    assert rows == [("on_demand", None, Decimal("6.880000")), ("spot", "us-east-1", Decimal("2.500000"))]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        pytest.param("6.88", "-6.88", r"line 2: usd_per_gpu_hour.*negative", id="negative"),
        pytest.param("6.88", "", r"line 2: usd_per_gpu_hour: is missing", id="missing"),
        pytest.param("6.88", "six", r"line 2: usd_per_gpu_hour.*not an amount", id="no number"),
        pytest.param("2.50,2026", "2.50,2o26", r"line 3: starts_at.*not a time", id="no time"),
        pytest.param("spot,us-east-1", "on_demand,", r"line 3: starts_at.*overlap.*line 2", id="overlap"),
        pytest.param("capacity_type", "kind", r"line 1: kind: is unknown", id="unknown column"),
        pytest.param(",ends_at", ",region", r"line 1: region: stands there twice", id="column twice"),
        pytest.param("00Z,\n", "00Z,,extra\n", r"line 2: has 7 cells", id="too many cells"),
        pytest.param("H100,spot", '"H100,spot', r"not CSV", id="open quote"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(tmp_path: Path, old: str, new: str, place: str) -> None:
    with pytest.raises(BadInput, match=rf"(?s){place}"):
        read_price_book(write(tmp_path, CSV.replace(old, new), "book.csv"))


def test_an_owned_gpu_costs_its_purchase_upkeep_and_power(tmp_path: Path) -> None:
    row = read_price_book(write(tmp_path, YAML, "book.yaml")).row(0, named=True)
    by_hand = (
        Decimal(30000) / (4 * Decimal(8766)) + Decimal(1000) / 8766 + Decimal("1.2") * Decimal("1.3") * Decimal("0.12")
    )
    assert row["model"] == "H100"
    assert row["usd_per_gpu_hour"] == round(by_hand, 6)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("life_years: 4", "life_years: 0", "life_years"),
        ("    life_years: 4\n", "", "life_years"),
        ("capex_usd: 30000", "capex_usd: -1", "capex_usd"),
        ("pue: 1.3", "pue: 0.5", "pue"),
        ('    power_kw: "1.2"\n', "", "usd_per_kwh"),
        ("capex_usd: 30000", "capex_usd: [1]", "capex_usd"),
        ("prices:", "prices: [", "YAML"),
        ("prices:", "things:", "no .*price"),
    ],
)  # fmt: skip
def test_a_bad_cost_of_owning_is_named(tmp_path: Path, old: str, new: str, field: str) -> None:
    with pytest.raises(BadInput, match=field):
        read_price_book(write(tmp_path, YAML.replace(old, new), "book.yml"))


AMOUNTS = st.decimals(0, 10**6, places=2)


@given(AMOUNTS, st.decimals(1, 20, places=1), AMOUNTS)
def test_owning_for_its_whole_life_costs_what_was_paid(capex: Decimal, years: Decimal, opex: Decimal) -> None:
    hours = years * Decimal(8766)
    paid = Ownership(capex, years, opex).usd_per_gpu_hour() * hours
    assert abs(paid - (capex + opex * years)) <= hours * Decimal("0.0000005")


def test_opencosts_gpu_prices_hold_for_every_capacity_type_that_a_name_does_not_exclude(tmp_path: Path) -> None:
    book = read_book(write(tmp_path, OPENCOST, "pricing.csv"))
    found = set(book.prices.select("model", "capacity_type", "region", "usd_per_gpu_hour").iter_rows())
    assert found == {
        *(("H100", kind, "us-east-1", Decimal("2.750000")) for kind in ("on_demand", "reserved", "spot", "owned")),
        ("A100-80GB", "reserved", None, Decimal("1.000000")),
    }
    assert [(each.kind, each.row_count) for each in book.troubles] == [("noticed", 1)]
    with pytest.raises(BadInput, match="line 3: MarketPriceHourly"):
        read_book(write(tmp_path, OPENCOST.replace("2.75", "-1"), "pricing.csv"))


def test_opencosts_own_example_books_are_read(data_root: Path) -> None:
    files = sorted((data_root / "cost").glob("opencost_pricing*.csv"))
    assert files
    for file in files:
        listed = pl.read_csv(file, infer_schema=False)
        gpus = listed.filter(pl.col("AssetClass") == "gpu")
        book = read_book(file)
        assert set(book.prices.get_column("usd_per_gpu_hour")) == {
            Decimal(price) for price in gpus.get_column("MarketPriceHourly")
        }
        assert sum(each.row_count for each in book.troubles) == listed.height - gpus.height


def test_egs_prices_of_instances_become_prices_of_their_gpus(tmp_path: Path) -> None:
    book = read_book(write(tmp_path, EGS, "egs.csv"))
    assert book.prices.select("model", "region", "usd_per_gpu_hour").rows() == [
        ("H100", "us-east-1", Decimal("6.880000")),
        ("A100-80GB", "us-central1", Decimal("5.068750")),
        ("H100", "eastus", Decimal("6.980000")),
    ]
    assert [(each.kind, each.row_count) for each in book.troubles] == [("noticed", 1)]
    with pytest.raises(BadInput, match="line 2: price"):
        read_book(write(tmp_path, EGS.replace("55.04", "much"), "egs.csv"))


@pytest.mark.parametrize(
    ("instance_type", "model"),
    [
        ("p5en.48xlarge", "H200"), ("p5.4xlarge", "H100"), ("p4d.24xlarge", "A100-40GB"), ("g6e.xlarge", "L40S"),
        ("a3-highgpu-8g", "H100"), ("a3-ultragpu-8g", "H200"), ("g2-standard-4", "L4"), ("p6-b200.48xlarge", "B200"),
        ("Standard_ND96asr_A100_v4", "A100-40GB"), ("Standard_NC24ads_A100_v4", "A100-80GB"), ("m5.large", None),
        ("p50.large", None),
    ],
)  # fmt: skip
def test_the_gpu_of_an_instance_type_is_known(instance_type: str, model: str | None) -> None:
    assert model_of(instance_type) == model


@given(st.text())
def test_no_text_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    for name in ("book.csv", "book.yaml", "book.toml"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_text(text, encoding="utf-8", errors="replace", newline="")
        with pytest.raises(BadInput):
            read_book(path)


def test_a_foreign_price_gives_way_to_a_book_of_ours(tmp_path: Path) -> None:
    starts = read_book(write(tmp_path, EGS, "egs.csv")).prices.get_column("starts_at")
    assert starts.max() == datetime(2000, 1, 1, tzinfo=UTC)


NODE_BOOK = """model,capacity_type,usd_per_node_hour,gpus_per_node,starts_at
H100,on_demand,55.04,8,2026-01-01T00:00:00Z
"""


def test_where_only_the_price_of_a_node_is_known_a_gpu_has_its_share(tmp_path: Path) -> None:
    book = read_price_book(write(tmp_path, NODE_BOOK, "book.csv"))
    assert book.get_column("usd_per_gpu_hour").to_list() == [Decimal("6.880000")]


@pytest.mark.parametrize(
    ("was", "becomes", "field"),
    [("55.04,8", "55.04,0", "gpus_per_node"), ("55.04,8", "55.04,2.5", "gpus_per_node"),
     ("55.04,8", "-1,8", "usd_per_node"), ("55.04,8", "55.04,", "gpus_per_node"),
     ("55.04,8", ",8", "usd_per_node_hour")],
    ids=["no GPU", "half a GPU", "negative", "GPUs missing", "price missing"],
)  # fmt: skip
def test_a_node_price_that_means_nothing_is_refused(tmp_path: Path, was: str, becomes: str, field: str) -> None:
    with pytest.raises(BadInput, match=f"line 2: {field}"):
        read_price_book(write(tmp_path, NODE_BOOK.replace(was, becomes), "book.csv"))


def test_a_price_is_that_of_a_gpu_or_of_a_node_and_not_both(tmp_path: Path) -> None:
    text = NODE_BOOK.replace("gpus_per_node,", "gpus_per_node,usd_per_gpu_hour,").replace(",8,", ",8,6.88,")
    with pytest.raises(BadInput, match="line 2: usd_per_gpu_hour: stands beside usd_per_node_hour"):
        read_price_book(write(tmp_path, text, "book.csv"))
