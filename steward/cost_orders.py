"""Orders about money: budgets, closing months, new prices, late data, charges, and a bill to be reconciled with."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import polars as pl

from analytics.budgets import THRESHOLDS, Budget
from analytics.cost_tables import read_charges, read_work
from analytics.reconcile import ledger_by_node, read_bill, reconcile, span_of
from fleet.errors import BadInput
from fleet.money_tables import BUDGET
from steward.booking import book_again, close_month, reprice_booked
from steward.compose import House
from steward.cost_desk import window_of
from steward.report import Report


def set_budget(house: House, parameters: Mapping[str, object]) -> Report:
    """Give a workspace a budget from now on; the one before ends. With `remove`, it has none from now on."""
    now = house.clock.now()
    if parameters.get("remove") is True:
        return _end_budget(house, str(parameters.get("workspace", "")), now)
    usd, hours, shares = parameters.get("usd"), parameters.get("gpu_hours"), parameters.get("thresholds")
    budget = Budget(
        str(parameters.get("workspace", "")),
        None if usd is None else _amount(str(usd), "usd"),
        None if hours is None else float(_amount(str(hours), "gpu_hours")),
        tuple(float(each) for each in str(shares).split(",")) if shares is not None else THRESHOLDS,
        str(parameters.get("at_limit", "notify")),
    )
    rows = house.store.read("budget").filter(pl.col("workspace") == budget.workspace, pl.col("ends_at").is_null())
    row = {
        "workspace": budget.workspace, "starts_at": now, "ends_at": None, "usd_per_month": budget.usd,
        "gpu_hours_per_month": budget.gpu_hours, "thresholds": json.dumps(budget.thresholds),
        "at_limit": budget.at_limit,
    }  # fmt: skip
    ended = rows.filter(pl.col("starts_at") < now).with_columns(ends_at=pl.lit(now, BUDGET.schema()["ends_at"]))
    house.store.append_stored("budget", pl.concat([ended, pl.DataFrame([row], schema=BUDGET.schema())]))
    return Report("BudgetSet", now, {name: value for name, value in row.items() if value is not None})


def _end_budget(house: House, workspace: str, now: datetime) -> Report:
    rows = house.store.read("budget").filter(pl.col("workspace") == workspace, pl.col("ends_at").is_null())
    if rows.is_empty():
        message = f"workspace {workspace!r} has no budget; `steward cost budgets` lists those there are"
        raise BadInput(message, field="workspace")
    house.store.append_stored("budget", rows.with_columns(ends_at=pl.lit(now, BUDGET.schema()["ends_at"])))
    return Report("BudgetRemoved", now, {"workspace": workspace, "ends_at": now})


def close(house: House, parameters: Mapping[str, object]) -> Report:
    """Close a month: from then on it is as it was billed."""
    now = house.clock.now()
    row = close_month(house, _month(str(parameters.get("month", ""))), now)
    house.store.append_stored("cost_month", row)
    return Report("MonthClosed", now, row.to_dicts()[0])


def price_again(house: House, parameters: Mapping[str, object]) -> Report:
    """Bring the booked lines of a window to the prices of now, by corrections."""
    now = house.clock.now()
    since, until = window_of(house.store.engine, parameters, now)
    return _booked(house, "CostRepriced", list(reprice_booked(house, since, until, now)), now)


def count_again(house: House, parameters: Mapping[str, object]) -> Report:
    """Count a window anew from what the store tells now, and book what differs."""
    now = house.clock.now()
    since, until = window_of(house.store.engine, parameters, now)
    return _booked(house, "CostCountedAgain", [book_again(house, since, until, now)], now)


def add_up_days(house: House, _parameters: Mapping[str, object]) -> Report:
    """Add up the ledger by day anew from its lines."""
    return Report("DaysAddedUp", house.clock.now(), {"rows": house.store.add_up_ledger()})


def _booked(house: House, kind: str, frames: list[pl.DataFrame], now: datetime) -> Report:
    lines = 0
    dollars = Decimal(0)
    for frame in frames:
        if frame.height:
            house.store.append_stored("cost_line", frame)
            lines += frame.height
            dollars += Decimal(str(frame.get_column("cost_usd").sum()))
    notes = () if lines else ("nothing differs from what is booked",)
    return Report(kind, now, {"corrections": lines, "difference_usd": dollars}, notes=notes)


def take_charges(house: House, parameters: Mapping[str, object]) -> Report:
    """Store charges beside GPUs from the text of a CSV file, and book the hours that are over."""
    now = house.clock.now()
    charges = read_charges(str(parameters.get("text", "")), str(parameters.get("place", "charges")))
    stored = house.store.append_stored("charge", charges)
    since, until = charges.get_column("starts_at").min(), charges.get_column("ends_at").max()
    frames = []
    if isinstance(since, datetime) and isinstance(until, datetime):
        end = window_of(house.store.engine, {}, now)[1]
        frames = [book_again(house, since, min(until, end), now)] if since < end else []
    report = _booked(house, "ChargesTaken", frames, now)
    return Report(report.kind, now, {"charges": stored, **report.summary}, notes=report.notes)


def take_work(house: House, parameters: Mapping[str, object]) -> Report:
    """Store work that was done (tokens, requests, steps) from the text of a CSV file."""
    work = read_work(str(parameters.get("text", "")), str(parameters.get("place", "work")))
    return Report("WorkTaken", house.clock.now(), {"rows": house.store.append_stored("work_done", work)})


def reconcile_bill(house: House, parameters: Mapping[str, object]) -> Report:
    """Compare the ledger with a provider's bill (the text of a CSV file), line by line; nothing is changed."""
    now = house.clock.now()
    bill = read_bill(str(parameters.get("text", "")), str(parameters.get("place", "bill")))
    engine = house.store.engine
    found = reconcile(engine.run(ledger_by_node(engine, *span_of(bill))), bill)
    flagged = found.filter(pl.col("verdict") != "equal")
    summary = {
        "billed_usd": bill.get_column("cost_usd").sum(),
        "ledger_usd": found.get_column("ledger_usd").drop_nulls().sum(),
        "lines": found.height, "flagged": flagged.height,
    }  # fmt: skip
    return Report("Reconciliation", now, summary, found.to_dicts(), exit_code=0)


def _amount(text: str, field: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        message = f"{field}: {text!r} is not an amount"
        raise BadInput(message, field=field) from error


def _month(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        message = f"month: {text!r} is not a month such as 2026-01"
        raise BadInput(message, field="month") from error


ORDERS = {
    "budget": set_budget,
    "cost-close": close,
    "cost-reprice": price_again,
    "cost-recount": count_again,
    "cost-days": add_up_days,
    "cost-charges": take_charges,
    "cost-work": take_work,
    "cost-reconcile": reconcile_bill,
}
