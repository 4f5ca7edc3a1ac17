"""Nodes priced by OpenCost's custom pricing: its published cases, and lists that lie or say nothing."""

import csv
import json
from decimal import Decimal
from pathlib import Path

import pytest

from collectors.price_nodes import PricedNode, node_usd_per_hour
from fleet.errors import BadInput

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
