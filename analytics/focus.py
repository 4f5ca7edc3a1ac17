"""The ledger as FOCUS 1.2 (FinOps Open Cost and Usage Specification), with the split-allocation columns of 1.3.

A row is a day of one workspace, workload, category and kind of GPU. Amounts are exact: the effective costs sum to the
ledger. What is reserved is a commitment: its usage has an effective cost and no bill, and one purchase a billing
period has the bill and no effective cost.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables
from analytics.apportion import apportion
from analytics.cost_segments import to_dollars
from fleet.frames import UTC_MICROSECONDS

QUANTITY = pl.Decimal(38, 9)
_DAY_OF = ("day", "month", "cluster")
_APART = ("unattributed", "unallocated", "fragmentation", "unhealthy", "overhead")
_HELD = ("used", "allocated_idle", "unknown")
_PRICING = {"on_demand": "Standard", "spot": "Dynamic", "reserved": "Committed", "owned": "Other"}
_RATIO_PARTS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Account:
    """Who bills: FOCUS asks for an account, a provider, a publisher and an issuer."""

    billing_account_id: str = "gpu-fleet"
    billing_account_name: str = "GPU fleet"
    provider: str = "GPU Steward"


def focus_lines(tables: Tables, since: datetime, until: datetime) -> ir.Table:
    """Return the priced lines that start in `[since, until)` by day, month of the bill, holder, category and SKU."""
    lines = tables["cost_line"]
    lines = lines.filter(lines.starts_at >= ibis.literal(since), lines.starts_at < ibis.literal(until))
    lines = lines.filter(lines.cost_usd.notnull())
    gpus = tables["gpu"].select("gpu", "model", gpu_node="node")
    lines = lines.left_join(gpus, "gpu").drop("gpu_right")
    lines = lines.mutate(node=ibis.coalesce(lines.gpu_node, lines.node))
    nodes = tables["node"].select("cluster", "node", "capacity_type", "region", "zone")
    lines = lines.left_join(nodes, ["cluster", "node"]).drop("cluster_right", "node_right")
    lines = lines.mutate(
        day=lines.starts_at.truncate("D"), month=ibis.coalesce(lines.billed_at, lines.starts_at.truncate("M")),
        is_correction=lines.billed_at.notnull(), resource=lines.resource.coalesce("gpu"),
    )  # fmt: skip
    keys = (
        "day", "month", "is_correction", "cluster", "workspace", "namespace", "workload", "category", "resource",
        "model", "capacity_type", "region", "zone",
    )  # fmt: skip
    us = (lines.gpu_seconds * 1e6).round().cast("int64")
    return lines.group_by(keys).aggregate(us=us.sum(), cost_usd=lines.cost_usd.sum())


def focus(rows: pl.DataFrame, account: Account, share_idle: Literal["none", "weighted"] = "none") -> pl.DataFrame:
    """Return the rows of `focus_lines` as a FOCUS dataset; with `weighted`, what nobody held is split over holders.

    A split row names what it was split from, and its ratio; the ratios of one origin sum to 1 and the amounts to it.
    """
    charges = rows.with_columns(
        pl.col("us").cast(pl.Int64), micro_usd=(pl.col("cost_usd").cast(pl.Decimal(38, 6)) * 1_000_000).cast(pl.Int64)
    )
    charges = charges.filter((pl.col("micro_usd") != 0) | (pl.col("us") != 0))
    no_text = pl.lit(None, pl.String())
    charges = charges.with_columns(origin=no_text, ratio=no_text)
    if share_idle == "weighted":
        charges = _split(charges)
    usage = _usage(charges, account)
    purchases = _purchases(charges, account)
    return pl.concat([usage, purchases], how="diagonal").select(COLUMNS).sort(
        "BillingPeriodStart", "ChargePeriodStart", "SubAccountId", "ResourceId", "ChargeCategory", "SkuId",
        "x_Category",
        "AllocatedResourceId", nulls_last=True,
    )  # fmt: skip


def _split(charges: pl.DataFrame) -> pl.DataFrame:
    origins = charges.filter(pl.col("category").is_in(_APART)).with_row_index("line")
    held = charges.filter(pl.col("category").is_in(_HELD))
    holders = held.group_by(*_DAY_OF, "workspace").agg(weight=pl.col("micro_usd").sum()).filter(pl.col("weight") > 0)
    met = (
        origins.drop("workspace")
        .join(holders, on=list(_DAY_OF), nulls_equal=True)
        .sort("line", "workspace", nulls_last=True)
    )
    met = met.with_columns(whole=pl.lit(_RATIO_PARTS, pl.Int64()))
    met = apportion(met, ["line"], "micro_usd", "weight", "part")
    met = apportion(met, ["line"], "us", "weight", "part_us")
    met = apportion(met, ["line"], "whole", "weight", "part_of_one")
    name = pl.format(
        "{}/{}/{}/{}", "cluster", "category", pl.col("model").fill_null("-"), pl.col("day").dt.strftime("%Y-%m-%d")
    )
    ratio = (pl.col("part_of_one").cast(QUANTITY) / _RATIO_PARTS).cast(QUANTITY).cast(pl.String())
    met = met.with_columns(micro_usd="part", us="part_us", origin=name, ratio=ratio)
    kept = origins.join(met.select("line").unique(), on="line", how="anti")
    return pl.concat([held, kept.select(held.columns), met.select(held.columns)])


def _usage(charges: pl.DataFrame, account: Account) -> pl.DataFrame:
    cost = to_dollars("micro_usd")
    is_gpu = pl.col("resource") == "gpu"
    quantity = (
        pl.when(is_gpu)
        .then((pl.col("us").cast(QUANTITY) / 3_600_000_000).cast(QUANTITY))
        .otherwise(pl.lit(1).cast(QUANTITY))
    )
    unit = pl.when(is_gpu).then(pl.lit("Hours")).otherwise(pl.lit("Units"))
    price = pl.when(quantity != 0).then((cost.cast(QUANTITY) / quantity).cast(QUANTITY)).otherwise(cost.cast(QUANTITY))
    is_committed = pl.col("capacity_type").eq_missing(pl.lit("reserved")) & is_gpu
    is_held, split = pl.col("category").is_in(_HELD), pl.col("origin").is_not_null()
    commitment = pl.when(is_committed).then(_commitment())
    place_of_category = pl.col("capacity_type").replace_strict(_PRICING, default="Other")
    pricing = pl.when(is_gpu).then(place_of_category).otherwise(pl.lit("Standard"))
    is_used = pl.when(is_held | split).then(pl.lit("Used")).otherwise(pl.lit("Unused"))
    sku = pl.format("{}/{}", pl.coalesce("model", "resource"), pl.col("capacity_type").fill_null("unknown"))
    kind = pl.when(is_gpu).then(pl.lit("GPU")).otherwise(pl.col("resource"))
    zone = pl.when(pl.col("region").is_not_null()).then("zone")
    resource_type = pl.when(pl.col("workload").is_not_null()).then(pl.lit("Workload")).otherwise(kind)
    holder = pl.coalesce("workload", pl.format("{}/{}", "cluster", "category"))
    return charges.with_columns(_account(account)).with_columns(
        BilledCost=pl.when(is_committed).then(pl.lit(0).cast(pl.Decimal(18, 6))).otherwise(cost),
        EffectiveCost=cost, ListCost=cost, ContractedCost=cost, **_periods(),
        ChargeCategory=pl.lit("Usage"), ChargeClass=pl.when("is_correction").then(pl.lit("Correction")),
        ChargeDescription=pl.format("{} {}: {}", kind, pl.coalesce("model", "resource"), "category"),
        ChargeFrequency=pl.lit("Usage-Based"),
        ConsumedQuantity=quantity, ConsumedUnit=unit, PricingQuantity=quantity, PricingUnit=unit,
        ListUnitPrice=price, ContractedUnitPrice=price,
        PricingCategory=pricing,
        RegionId="region", RegionName="region", AvailabilityZone=zone,
        ResourceId=holder, ResourceName=holder, ResourceType=resource_type,
        ServiceCategory=pl.lit("Compute"), ServiceSubcategory=pl.lit("Other (Compute)"),
        ServiceName=pl.lit("GPU fleet"), SkuId=sku, SkuPriceId=sku, SkuMeter=kind,
        SkuPriceDetails=pl.when(pl.col("model").is_not_null()).then(_json(x_GpuModel=pl.col("model"))),
        SubAccountId="workspace", SubAccountName="workspace",
        SubAccountType=pl.when(pl.col("workspace").is_not_null()).then(pl.lit("Workspace")),
        Tags=_json(cluster=pl.col("cluster"), namespace=pl.col("namespace"), category=pl.col("category")),
        CommitmentDiscountId=commitment, CommitmentDiscountName=commitment,
        CommitmentDiscountCategory=pl.when(is_committed).then(pl.lit("Usage")),
        CommitmentDiscountType=pl.when(is_committed).then(pl.lit("Reserved")),
        CommitmentDiscountStatus=pl.when(is_committed).then(is_used),
        CommitmentDiscountQuantity=pl.when(is_committed).then(quantity),
        CommitmentDiscountUnit=pl.when(is_committed).then(unit),
        AllocatedMethodId=pl.when(split).then(pl.lit("idle-weighted-by-cost")),
        AllocatedMethodDetails=pl.when(split).then(_elements(pl.col("ratio"), unit, quantity)),
        AllocatedResourceId="origin", AllocatedResourceName="origin",
        AllocatedTags=pl.when(split).then(_json(category=pl.col("category"))),
        x_Category="category", x_Cluster="cluster", x_Namespace="namespace",
    )  # fmt: skip


def _json(**members: pl.Expr) -> pl.Expr:
    told = [value.fill_null("").alias(name) for name, value in members.items()]
    return pl.struct(told).struct.json_encode()


def _elements(ratio: pl.Expr, unit: pl.Expr, quantity: pl.Expr) -> pl.Expr:
    """Return AllocatedMethodDetails; the ratio is written as it stands, since a float would lose of it."""
    amount = quantity.cast(pl.String())
    start, middle, end = '{"Elements": [{"AllocatedRatio": ', ', "UsageUnit": "', '", "UsageQuantity": '
    return pl.concat_str(pl.lit(start), ratio, pl.lit(middle), unit, pl.lit(end), amount, pl.lit("}]}"))


def _commitment() -> pl.Expr:
    return pl.format("reserved/{}/{}", pl.col("cluster").fill_null("-"), pl.col("model").fill_null("-"))


def _purchases(charges: pl.DataFrame, account: Account) -> pl.DataFrame:
    """Return the purchase of each commitment in each billing period: its bill is the effective cost of its usage."""
    is_committed = pl.col("capacity_type").eq_missing(pl.lit("reserved")) & (pl.col("resource") == "gpu")
    bought = charges.filter(is_committed).with_columns(commitment=_commitment())
    bought = bought.group_by("commitment", "month", "model").agg(
        pl.col("micro_usd", "us").sum(), day=pl.col("month").first()
    )
    cost = to_dollars("micro_usd")
    quantity = (pl.col("us").cast(QUANTITY) / 3_600_000_000).cast(QUANTITY)
    price = pl.when(quantity != 0).then((cost.cast(QUANTITY) / quantity).cast(QUANTITY)).otherwise(cost.cast(QUANTITY))
    whole_month = {**_periods(), "ChargePeriodEnd": _periods()["BillingPeriodEnd"]}
    sku = pl.format("{}/commitment", pl.col("model").fill_null("-"))
    return bought.with_columns(_account(account)).with_columns(
        BilledCost=cost, EffectiveCost=pl.lit(0).cast(pl.Decimal(18, 6)), ListCost=cost, ContractedCost=cost,
        **whole_month, ChargeCategory=pl.lit("Purchase"),
        ChargeDescription=pl.format("Reserved {}", pl.col("model").fill_null("-")),
        ChargeFrequency=pl.lit("Recurring"), PricingQuantity=quantity, PricingUnit=pl.lit("Hours"),
        ListUnitPrice=price, ContractedUnitPrice=price, PricingCategory=pl.lit("Standard"),
        ResourceId="commitment", ResourceName="commitment", ResourceType=pl.lit("Commitment"),
        ServiceCategory=pl.lit("Compute"), ServiceSubcategory=pl.lit("Other (Compute)"),
        ServiceName=pl.lit("GPU fleet"), SkuId=sku, SkuPriceId=sku, SkuMeter=pl.lit("GPU"), Tags=pl.lit("{}"),
        CommitmentDiscountId="commitment", CommitmentDiscountName="commitment",
        CommitmentDiscountCategory=pl.lit("Usage"), CommitmentDiscountType=pl.lit("Reserved"),
        CommitmentDiscountQuantity=quantity, CommitmentDiscountUnit=pl.lit("Hours"),
        **{name: pl.lit(None, pl.String()) for name in _ONLY_USAGE},
        ConsumedQuantity=pl.lit(None, QUANTITY),
    )  # fmt: skip


def _periods() -> dict[str, pl.Expr]:
    month, day = pl.col("month").cast(UTC_MICROSECONDS), pl.col("day").cast(UTC_MICROSECONDS)
    return {
        "BillingPeriodStart": month, "BillingPeriodEnd": month.dt.offset_by("1mo"), "ChargePeriodStart": day,
        "ChargePeriodEnd": day.dt.offset_by("1d"),
    }  # fmt: skip


def _account(account: Account) -> list[pl.Expr]:
    words = {
        "BillingAccountId": account.billing_account_id, "BillingAccountName": account.billing_account_name,
        "BillingAccountType": "Fleet", "BillingCurrency": "USD", "ProviderName": account.provider,
        "PublisherName": account.provider, "InvoiceIssuerName": account.provider,
    }  # fmt: skip
    texts = ("InvoiceId", "CapacityReservationId", "CapacityReservationStatus")
    none = [pl.lit(None, pl.String()).alias(name) for name in texts]
    return [*(pl.lit(word).alias(name) for name, word in words.items()), *none]


_ONLY_USAGE = (
    "ChargeClass", "ConsumedUnit", "RegionId", "RegionName", "AvailabilityZone", "SkuPriceDetails", "SubAccountId",
    "SubAccountName", "SubAccountType", "CommitmentDiscountStatus", "AllocatedMethodId", "AllocatedMethodDetails",
    "AllocatedResourceId", "AllocatedResourceName", "AllocatedTags", "x_Category", "x_Cluster", "x_Namespace",
)  # fmt: skip

COLUMNS = (
    "AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency",
    "BillingPeriodEnd", "BillingPeriodStart", "CapacityReservationId", "CapacityReservationStatus", "ChargeCategory",
    "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
    "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus", "CommitmentDiscountType", "CommitmentDiscountUnit", "ConsumedQuantity", "ConsumedUnit",
    "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "InvoiceId", "InvoiceIssuerName", "ListCost",
    "ListUnitPrice", "PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "RegionId",
    "RegionName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory", "ServiceName", "ServiceSubcategory",
    "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName", "SubAccountType", "Tags",
    "AllocatedMethodId", "AllocatedMethodDetails", "AllocatedResourceId", "AllocatedResourceName", "AllocatedTags",
    "x_Category", "x_Cluster", "x_Namespace",
)  # fmt: skip


def as_text(dataset: pl.DataFrame) -> pl.DataFrame:
    """Return a dataset as FOCUS writes it: times as 2026-01-31T00:00:00Z, numbers plainly, missing values missing."""
    times = [name for name, dtype in dataset.schema.items() if isinstance(dtype, pl.Datetime)]
    numbers = [name for name, dtype in dataset.schema.items() if isinstance(dtype, pl.Decimal)]
    return dataset.with_columns(
        pl.col(times).dt.strftime("%Y-%m-%dT%H:%M:%SZ"), pl.col(numbers).cast(pl.String()),
    )  # fmt: skip


def typed(rows: object) -> pl.DataFrame:
    """Return rows of text, as `as_text` wrote them or any report's, with the types of times and amounts."""
    frame = pl.DataFrame(rows if isinstance(rows, list) else [], infer_schema_length=None)
    moments = [name for name in frame.columns if name.endswith(("PeriodStart", "PeriodEnd"))]
    numbers = [name for name in frame.columns if name.endswith(("Cost", "Quantity", "UnitPrice", "_usd"))]
    return frame.with_columns(
        pl.col(moments).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC"),
        pl.col(numbers).cast(QUANTITY),
    )
