"""FOCUS: our export keeps the rules of its columns, and the check finds what breaks them in anybody's."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analytics.focus import COLUMNS, Account, as_text, focus, typed
from analytics.focus_check import focus_faults

DAY = datetime(2026, 3, 2, tzinfo=UTC)
ROW = {
    "day": DAY, "month": DAY.replace(day=1), "is_correction": False, "cluster": "c1", "workspace": "a",
    "namespace": "team", "workload": "Job/team/x", "category": "used", "resource": "gpu", "model": "H100",
    "capacity_type": "on_demand", "region": "us-east-1", "zone": "us-east-1a", "us": 3 * 3_600_000_000,
    "cost_usd": Decimal("6.000001"),
}  # fmt: skip
SCHEMA = {
    **dict.fromkeys(ROW, pl.String()), "day": pl.Datetime("us", "UTC"), "month": pl.Datetime("us", "UTC"),
    "is_correction": pl.Boolean(), "us": pl.Int64(), "cost_usd": pl.Decimal(18, 6),
}  # fmt: skip


def rows(*changes: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{**ROW, **change} for change in changes], schema=SCHEMA)


def some_rows() -> pl.DataFrame:
    nobody = {"workspace": None, "namespace": None, "workload": None, "category": "unallocated"}
    return rows(
        {}, {"workspace": "b", "category": "allocated_idle", "cost_usd": Decimal("1.5")},
        {**nobody, "cost_usd": Decimal("7.000003")}, {**nobody, "category": "unhealthy", "model": None},
        {"capacity_type": "reserved", "model": "A100"}, {**nobody, "capacity_type": "reserved", "model": "A100"},
        {"capacity_type": "spot", "region": None}, {"capacity_type": None, "zone": None},
        {**nobody, "category": "overhead", "resource": "overhead", "model": None, "us": 0, "capacity_type": None},
        {"resource": "storage", "model": None, "us": 0, "workload": None, "capacity_type": None},
        {"is_correction": True, "month": DAY.replace(month=4, day=1), "cost_usd": Decimal(-1), "us": 0},
    )  # fmt: skip


def columns_of(root: Path) -> dict[str, dict[str, Any]]:
    """Read the columns' own rules: id, whether nulls are allowed, feature level, data type, allowed values."""
    found = {}
    for path in sorted((root / "cost").rglob("columns/*.md")):
        text = path.read_text()
        name = re.search(r"## Column ID\s+(\S+)", text)
        if name is None:
            continue
        cells = {
            match[1].strip().lower(): match[2].strip()
            for match in re.finditer(r"^\|\s*([^|]+?)\s*\|\s*([^|]+?)\s*\|", text, re.MULTILINE)
        }
        after = text.split("Allowed values:")[-1] if "Allowed values:" in text else ""
        table = re.findall(r"^\|\s*([^|:]+?)\s*\|", after, re.MULTILINE)
        found[name[1]] = {
            "nulls": cells.get("allows nulls", "True") == "True", "level": cells.get("feature level"),
            "type": cells.get("data type"), "values": [] if name[1] == "ServiceSubcategory" else table[1:],
        }  # fmt: skip
    if not found:
        pytest.skip("no columns of FOCUS are there")
    return found


@pytest.mark.parametrize("how", ["none", "weighted"])
def test_every_column_keeps_the_rules_of_its_page(data_root: Path, how: Any) -> None:
    exported = focus(some_rows(), Account(), how)
    for name, rule in columns_of(data_root).items():
        if rule["level"] == "Mandatory":
            assert name in exported.columns, name
        if name not in exported.columns:
            continue
        if not rule["nulls"]:
            assert exported[name].null_count() == 0, name
        kind = {"Decimal": pl.Decimal, "Date/Time": pl.Datetime}.get(rule["type"], pl.String)
        assert exported.schema[name].base_type() == kind, name
        if rule["values"]:
            assert set(exported[name].drop_nulls()) <= set(rule["values"]), name


@pytest.mark.parametrize("how", ["none", "weighted"])
def test_an_export_holds_the_rules_across_rows_and_keeps_every_micro_dollar(how: Any) -> None:
    given = some_rows()
    exported = focus(given, Account(), how)
    assert focus_faults(exported) == []
    assert focus_faults(as_text(exported)) == []
    assert exported["EffectiveCost"].sum() == given["cost_usd"].sum()
    assert exported["BilledCost"].sum() == given["cost_usd"].sum()
    assert exported.columns == list(COLUMNS)
    assert typed(as_text(exported).to_dicts())["EffectiveCost"].sum() == given["cost_usd"].sum()


def test_what_nobody_held_is_split_by_cost_and_says_so() -> None:
    exported = focus(some_rows(), Account(), "weighted").filter(pl.col("AllocatedMethodId").is_not_null())
    assert set(exported["SubAccountId"]) == {"a", "b"}
    assert exported.filter(pl.col("x_Category") == "unallocated")["EffectiveCost"].sum() == Decimal("13.000004")


def test_units_times_price_are_the_cost() -> None:
    exported = focus(some_rows(), Account()).filter(pl.col("PricingQuantity") != 0)
    product = exported["PricingQuantity"].cast(pl.Float64) * exported["ContractedUnitPrice"].cast(pl.Float64)
    assert (product - exported["ContractedCost"].cast(pl.Float64)).abs().max() < 1e-6  # type: ignore[operator]


def test_a_correction_of_a_closed_month_is_called_one() -> None:
    exported = focus(some_rows(), Account())
    found = exported.filter(pl.col("ChargeClass") == "Correction")
    assert found["BillingPeriodStart"].to_list() == [datetime(2026, 4, 1, tzinfo=UTC)]
    assert found["ChargePeriodStart"].to_list() == [DAY]


def test_sheets_of_others_are_read_and_hold_their_invariants(data_root: Path) -> None:
    sheets = sorted((data_root / "cost").rglob("focus/**/*.csv"))
    if not sheets:
        pytest.skip("no sheet of FOCUS is there")
    for path in sheets:
        sheet = pl.read_csv(path, infer_schema=False)
        allowed = [fault for fault in focus_faults(sheet, is_whole=False) if not fault.endswith("is null")]
        assert allowed == [], path.name


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param({"ServiceName": None}, "ServiceName is null", id="null"),
        pytest.param({"ChargeCategory": "Gift"}, "Gift", id="category"),
        pytest.param({"CommitmentDiscountStatus": "Used"}, "without CommitmentDiscountId", id="status"),
        pytest.param({"CommitmentDiscountId": "x", "CommitmentDiscountStatus": "Used"}, "purchase 0", id="unbought"),
        pytest.param({"CommitmentDiscountId": "x"}, "used and unused sum to 0", id="neither"),
        pytest.param(
            {"ChargeCategory": "Purchase", "CommitmentDiscountId": "x"}, "of the purchase of a commitment", id="twice"
        ),
        pytest.param(
            {"AllocatedMethodDetails": '{"Elements": [{"AllocatedRatio": 0.4}]}', "AllocatedResourceId": "o"},
            "the ratios sum to 0.4", id="ratio",
        ),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_found(change: dict[str, str], word: str) -> None:
    sheet = as_text(focus(rows({}), Account())).with_columns(
        pl.lit(value).alias(name) for name, value in change.items()
    )
    assert any(word in fault for fault in focus_faults(sheet)), focus_faults(sheet)
    assert focus_faults(sheet.drop("ProviderName"))[0] == "column ProviderName is missing"
