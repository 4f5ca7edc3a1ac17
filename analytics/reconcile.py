"""Reconcile the ledger with a provider's bill: node by node and day by day, each difference explained or flagged."""

from datetime import datetime, timedelta
from decimal import Decimal

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables
from analytics.cost_tables import moment, money, read_lines, refuse
from fleet.errors import BadInput
from fleet.frames import MONEY, UTC_MICROSECONDS

BILL = {"day": UTC_MICROSECONDS, "node": pl.String(), "cost_usd": MONEY}
_NAMES = {"ChargePeriodStart": "day", "date": "day", "ResourceId": "node", "resource": "node"}
_COSTS = ("EffectiveCost", "BilledCost", "cost_usd", "cost")
_CURRENCIES = ("BillingCurrency", "currency")
TOLERANCE_USD = Decimal("0.01")


def read_bill(text: str, place: str) -> pl.DataFrame:
    """Return a bill by day and node from CSV.

    Its columns are `day`, `node`, `cost_usd`, or FOCUS's ChargePeriodStart, ResourceId and EffectiveCost (else
    BilledCost). Other columns are left alone; a currency that is not USD is refused.
    """
    rows = []
    for number, line in read_lines(text, place):
        for name in _CURRENCIES:
            if line.get(name, "USD") != "USD":
                refuse(place, number, name, f"is {line[name]}; the ledger is kept in USD, convert it first")
        named = {_NAMES.get(name, name): value for name, value in line.items()}
        cost = next((name for name in _COSTS if name in line), None)
        for name in ("day", "node"):
            if name not in named:
                refuse(place, number, name, "is missing")
        if cost is None:
            refuse(place, number, "cost_usd", "is missing")
        text_of_day = named["day"] if "T" in named["day"] else f"{named['day']}T00:00:00+00:00"
        day = moment(text_of_day, place, number, "day").replace(hour=0, minute=0, second=0, microsecond=0)
        rows.append({"day": day, "node": named["node"], "cost_usd": money(line[str(cost)], place, number, str(cost))})
    if not rows:
        message = f"{place}: there is no line"
        raise BadInput(message, place=place)
    return pl.DataFrame(rows, schema=BILL).group_by("day", "node").agg(pl.col("cost_usd").sum()).sort("day", "node")


def ledger_by_node(tables: Tables, since: datetime, until: datetime) -> ir.Table:
    """Return what the ledger has of each node and day: GPU-microseconds, dollars, GPUs."""
    lines = tables["cost_line"]
    lines = lines.filter(lines.starts_at >= ibis.literal(since), lines.starts_at < ibis.literal(until))
    lines = lines.left_join(tables["gpu"].select("gpu", gpu_node="node"), "gpu").drop("gpu_right")
    lines = lines.mutate(node=ibis.coalesce(lines.gpu_node, lines.node), day=lines.starts_at.truncate("D"))
    us = (lines.gpu_seconds * 1e6).round().cast("int64")
    return (
        lines.filter(lines.node.notnull())
        .group_by("day", "node")
        .aggregate(
            gpu_us=us.sum(), ledger_usd=lines.cost_usd.sum(), gpus=lines.gpu.nunique(),
        )
    )  # fmt: skip


def span_of(bill: pl.DataFrame) -> tuple[datetime, datetime]:
    """Return the days that a bill is for."""
    first, last = bill.get_column("day").min(), bill.get_column("day").max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        message = "bill: there is no line"
        raise BadInput(message, field="bill")
    return first, last + timedelta(days=1)


def reconcile(ledger: pl.DataFrame, bill: pl.DataFrame) -> pl.DataFrame:
    """Return each node and day of either side with both amounts, their difference, a verdict and why.

    Verdicts: equal (to a cent), explained (the ledger saw the node for part of the day and agrees by the hour),
    price (it saw all of it at another rate), unpriced, not_in_bill, not_in_ledger.
    """
    both = ledger.with_columns(
        pl.col("day").cast(UTC_MICROSECONDS), pl.col("ledger_usd").cast(MONEY), pl.col("gpu_us").cast(pl.Int64)
    ).join(bill.rename({"cost_usd": "billed_usd"}), on=["day", "node"], how="full", coalesce=True)
    rows = [{**row, **_judge(row)} for row in both.sort("day", "node").iter_rows(named=True)]
    schema = {
        "day": UTC_MICROSECONDS, "node": pl.String(), "billed_usd": MONEY, "ledger_usd": MONEY, "difference_usd": MONEY,
        "gpu_hours": pl.Float64(), "verdict": pl.String(), "why": pl.String(),
    }  # fmt: skip
    return pl.DataFrame([{name: row[name] for name in schema} for row in rows], schema=schema)


def _judge(row: dict[str, object]) -> dict[str, object]:
    billed, booked, us, gpus = row["billed_usd"], row["ledger_usd"], row["gpu_us"], row["gpus"]
    hours = int(us) / 3_600_000_000 if isinstance(us, int) else None
    found: dict[str, object] = {"gpu_hours": hours, "difference_usd": None}
    if hours is None:
        return {**found, "verdict": "not_in_ledger", "why": "no GPU of this node was collected on this day"}
    if not isinstance(billed, Decimal):
        return {**found, "verdict": "not_in_bill", "why": "the ledger has this node, the bill has not"}
    if not isinstance(booked, Decimal):
        return {**found, "verdict": "unpriced", "why": "no price of the price book holds for its GPUs"}
    verdict, why = _compare(billed, booked, hours, 24 * (gpus if isinstance(gpus, int) else 0))
    return {**found, "difference_usd": billed - booked, "verdict": verdict, "why": why}


def _compare(billed: Decimal, booked: Decimal, hours: float, whole: float) -> tuple[str, str]:
    if abs(billed - booked) <= TOLERANCE_USD:
        return "equal", "to a cent"
    if not hours:
        return "price", "the ledger has dollars without hours for it"
    if hours < whole and abs(booked * Decimal(str(whole / hours)) - billed) <= TOLERANCE_USD:
        return "explained", f"seen for {hours:.2f} of {whole} GPU-hours, and billed for all"
    each = [f"{amount / Decimal(str(hours)):.6f}" for amount in (billed, booked)]
    return "price", f"{each[0]} a GPU-hour in the bill, {each[1]} in the ledger"
