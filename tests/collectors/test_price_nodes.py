"""Nodes priced by OpenCost's custom pricing: its published cases, and lists that lie or say nothing."""

import csv
import json
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from collectors.price_nodes import PricedNode, node_usd_per_hour, read_node_prices
from fleet.errors import BadInput
from fleet.tables import NODE

HEADER = "EndTimestamp,InstanceID,Region,AssetClass,InstanceIDField,InstanceType,MarketPriceHourly,Version\n"


def book(folder: Path, *rows: str) -> Path:
    path = folder / "pricing.csv"
    path.write_text(HEADER + "".join(f"2028-01-01,{row},\n" for row in rows))
    return path


def test_published_books_give_the_published_costs_of_nodes(data_root: Path) -> None:
    files = [json.loads(path.read_text()) for path in sorted((data_root / "cost").rglob("*.json"))]
    cases = [case for each in files if isinstance(each, dict) for case in each.get("csv_price_book", [])]
    if not cases:
        pytest.skip("no file of cases with csv_price_book")
    for case in cases:
        (path,) = (data_root / "cost").rglob(case["csv"])
        with path.open(newline="") as file:
            names = [row["InstanceID"] for row in csv.DictReader(file) if row["InstanceIDField"] == "metadata.name"]
        # A case that names no node is of the one that its book names.
        name = case.get("name", names[0] if len(names) == 1 else None)
        node = PricedNode(name, case.get("provider_id"), case.get("region"), case["node_labels"], case["gpus"])
        assert node_usd_per_hour(path, node) == Decimal(str(case["expected_node_cost"]))


@pytest.mark.parametrize(
    ("row", "node", "expected"),
    [
        ("n1,,node,metadata.name,,0.5", PricedNode("n1"), "0.5"),
        ("aws:///i-1,,node,spec.providerID,,0.5", PricedNode(provider_id="aws:///i-1"), "0.5"),
        ("spot,,node,metadata.labels.tier,,0", PricedNode(labels={"tier": "spot"}), "0"),
        ("n1,west,node,metadata.name,,0.5", PricedNode("n1", region="east"), None),
        ("n2,,node,metadata.name,,0.5", PricedNode("n1"), None),
        ("n1,,node,metadata.name,,0.5", PricedNode(), None),
        ("t4,,gpu,kind,,2", PricedNode(labels={"kind": "T4"}, gpus=3), "6"),
        ("n1,,pv,metadata.name,,0.5", PricedNode("n1"), None),
    ],
    ids=["name", "provider", "label, for nothing", "another region", "another node", "nothing known", "GPUs only",
         "a volume"],
)  # fmt: skip
def test_a_node_costs_what_the_line_that_speaks_of_it_says(
    tmp_path: Path, row: str, node: PricedNode, expected: str | None
) -> None:
    found = node_usd_per_hour(book(tmp_path, row), node)
    assert found == (None if expected is None else Decimal(expected))


def test_a_price_that_is_none_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="line 2: MarketPriceHourly"):
        node_usd_per_hour(book(tmp_path, "n1,,node,metadata.name,,-1"), PricedNode("n1"))
    other = tmp_path / "other.csv"
    other.write_text("model,usd_per_gpu_hour\nT4,1\n")
    with pytest.raises(BadInput, match="no custom pricing of OpenCost"):
        node_usd_per_hour(other, PricedNode("n1"))


def nodes(*changes: dict[str, object]) -> pl.DataFrame:
    row = {"cluster": "c", "node": "n1", "model": "NVIDIA H100 80GB HBM3", "gpus": 8, "capacity_type": "on_demand",
           "region": "west", "labels": json.dumps({"kind": "big"})}  # fmt: skip
    return pl.DataFrame([{**row, **change} for change in changes], schema=NODE.schema())


def test_the_price_of_known_nodes_over_their_gpus_is_that_of_a_gpu(tmp_path: Path) -> None:
    path = book(tmp_path, "big,,node,metadata.labels.kind,,20", "h100,,gpu,metadata.labels.card,,1")
    labels = json.dumps({"kind": "big", "card": "H100"})
    with_card: dict[str, object] = {"node": "n3", "region": "east", "labels": labels}
    known = nodes({}, {"node": "n2"}, with_card, {"node": "cpu", "labels": "{}", "gpus": None})
    prices, troubles = read_node_prices(path, known)
    assert troubles == []
    assert sorted(prices.select("model", "capacity_type", "region", "usd_per_gpu_hour").rows()) == [
        ("H100", "on_demand", "east", Decimal("3.500000")),
        ("H100", "on_demand", "west", Decimal("2.500000")),
    ]


def test_nodes_of_one_kind_with_two_prices_and_nodes_of_no_known_kind_are_told_of(tmp_path: Path) -> None:
    path = book(tmp_path, "n1,,node,metadata.name,,20", "n2,,node,metadata.name,,30", "n3,,node,metadata.name,,30")
    unknown: dict[str, object] = {"node": "n3", "region": "far", "capacity_type": None}
    prices, troubles = read_node_prices(path, nodes({}, {"node": "n2"}, unknown))
    assert prices.is_empty()
    assert ["different prices" in each.reason for each in troubles] == [True, False]
    assert ["not known" in each.reason for each in troubles] == [False, True]
    assert [(each.row_count, each.example) for each in troubles] == [(1, "H100 on_demand"), (1, "n3")]


@pytest.mark.parametrize("gpus", [None, 0])
def test_a_node_whose_gpus_are_not_known_prices_none(tmp_path: Path, gpus: int | None) -> None:
    prices, troubles = read_node_prices(book(tmp_path, "n1,,node,metadata.name,,20"), nodes({"gpus": gpus}))
    assert prices.is_empty()
    assert len(troubles) == 1


def test_lists_of_others_speak_of_no_machine(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("model,usd_per_gpu_hour\nT4,1\n")
    for path in (None, other):
        prices, troubles = read_node_prices(path, nodes({}))
        assert prices.is_empty()
        assert troubles == []
