"""What must hold of any FOCUS dataset, ours or a provider's: the rules that go across rows."""

import json
from decimal import Decimal, InvalidOperation

import polars as pl

NOT_NULL = (
    "BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory",
    "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost",
    "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
)  # fmt: skip
CHARGE_CATEGORIES = frozenset({"Usage", "Purchase", "Tax", "Credit", "Adjustment"})
_TOLERANCE = Decimal("0.01")


def focus_faults(dataset: pl.DataFrame, *, is_whole: bool = True) -> list[str]:
    """Return what is wrong with a FOCUS dataset (columns as text or typed), one sentence each.

    With `is_whole` false it is an extract: columns may be missing, and what is bought need not match what is used.
    """
    rows = [{name: _value(value) for name, value in row.items()} for row in dataset.iter_rows(named=True)]
    faults = _missing(dataset, rows, is_whole=is_whole)
    for number, row in enumerate(rows, start=1):
        category = row.get("ChargeCategory")
        if category is not None and category not in CHARGE_CATEGORIES:
            faults.append(f"row {number}: ChargeCategory {category!r} is none of FOCUS")
        effective = _number(row.get("EffectiveCost"))
        is_commitment = row.get("CommitmentDiscountId") is not None
        if category == "Purchase" and is_commitment and effective:
            faults.append(f"row {number}: EffectiveCost of the purchase of a commitment is {effective}, not 0")
        if (row.get("CommitmentDiscountStatus") is not None) and not is_commitment:
            faults.append(f"row {number}: CommitmentDiscountStatus without CommitmentDiscountId")
    return faults + _commitment_faults(rows, is_whole=is_whole) + _split_faults(rows)


def _missing(dataset: pl.DataFrame, rows: list[dict[str, str | None]], *, is_whole: bool) -> list[str]:
    faults = []
    for name in NOT_NULL:
        if name not in dataset.columns:
            faults += [f"column {name} is missing"] if is_whole else []
            continue
        faults += [f"row {number}: {name} is null" for number, row in enumerate(rows, start=1) if row[name] is None]
    return faults


def _commitment_faults(rows: list[dict[str, str | None]], *, is_whole: bool) -> list[str]:
    faults = []
    for commitment in sorted({row["CommitmentDiscountId"] or "" for row in rows if row.get("CommitmentDiscountId")}):
        of = [row for row in rows if row.get("CommitmentDiscountId") == commitment]
        usage = [row for row in of if row.get("ChargeCategory") == "Usage"]
        used = _sum(usage, "EffectiveCost")
        parts = _sum(
            [row for row in usage if row.get("CommitmentDiscountStatus") in {"Used", "Unused"}], "EffectiveCost"
        )
        if abs(used - parts) > _TOLERANCE:
            faults.append(f"{commitment}: used and unused sum to {parts}, its usage to {used}")
        bought = _sum([row for row in of if row.get("ChargeCategory") == "Purchase"], "BilledCost")
        if is_whole and abs(used - bought) > _TOLERANCE:
            faults.append(f"{commitment}: its usage costs {used}, its purchase {bought}")
    return faults


def _split_faults(rows: list[dict[str, str | None]]) -> list[str]:
    """Return the origins whose ratios do not sum to 1."""
    ratios: dict[tuple[str | None, ...], Decimal] = {}
    for row in rows:
        details = row.get("AllocatedMethodDetails")
        if details is None:
            continue
        key = tuple(
            row.get(name)
            for name in (
                "AllocatedResourceId",
                "SkuId",
                "RegionId",
                "AvailabilityZone",
                "ChargeClass",
                "BillingPeriodStart",
            )
        )
        elements = json.loads(details, parse_float=Decimal, parse_int=Decimal)["Elements"]
        ratios[key] = ratios.get(key, Decimal(0)) + sum((each["AllocatedRatio"] for each in elements), Decimal(0))
    return [f"{key[0]}: the ratios sum to {ratio}, not 1" for key, ratio in ratios.items() if ratio != 1]


def _value(value: object) -> str | None:
    text = None if value is None else str(value).strip()
    return None if text in {None, "", "null"} else text


def _number(text: str | None) -> Decimal | None:
    if text is None:
        return None
    plain = text.replace("$", "").replace(",", "").strip()
    try:
        return Decimal(plain)
    except InvalidOperation:
        return None


def _sum(rows: list[dict[str, str | None]], name: str) -> Decimal:
    return sum((number for row in rows if (number := _number(row.get(name))) is not None), Decimal(0))
