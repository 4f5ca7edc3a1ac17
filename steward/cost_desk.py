"""Questions about money: what was spent by whom, why a number is what it is, and how budgets stand."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import polars as pl

from analytics.budgets import Standing, find_standings, judge_budgets, judge_ended, latest_forecasts, month_of
from analytics.chargeback import Bill, ShareIdle, bills
from analytics.cost_views import OF_LINE, check_views, spend, tidy, with_moments
from analytics.focus import Account, as_text, focus, focus_lines
from fleet.clock import as_utc
from fleet.errors import BadInput
from fleet.money_tables import BUDGET
from fleet.verdict import Verdict
from steward.compose import House
from steward.report import Report
from store.engine import Engine

_SHARES: dict[str, ShareIdle] = {"none": "none", "even": "even", "weighted": "weighted"}
SHARE_IDLE = tuple(_SHARES)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_US_PER_HOUR = 3_600_000_000
COLUMNS = (
    "gpu_hours", "used_usd", "allocated_idle_usd", "own_usd", "shared_usd", "total_usd", "efficiency",
    "unpriced_gpu_hours",
)  # fmt: skip
RULES = {
    "used": "held by a pod, times the share of the hour's samples that were active",
    "allocated_idle": "held by a pod while no sample was active",
    "unknown": "held by a pod while samples are missing",
    "unattributed": "active while nobody is known to have held it",
    "unallocated": "healthy, and held by nobody",
    "fragmentation": "the part of a GPU in MIG mode that no MIG device covers",
    "unhealthy": "called failed by a health verdict, and not used",
    "overhead": "what the cluster costs beside its nodes",
}


def window_of(engine: Engine, parameters: Mapping[str, object], now: datetime) -> tuple[datetime, datetime]:
    """Return the window asked for: `since` and `until`, or a `window` that ends where the ledger ends.

    A window is a number of hours, days or weeks (24h, 7d, 4w), `month` or `last-month`.
    """
    until_text, since_text = parameters.get("until"), parameters.get("since")
    until = _moment(str(until_text), "until") if until_text is not None else _ledger_end(engine) or now
    if since_text is not None:
        since = _moment(str(since_text), "since")
    else:
        text = str(parameters.get("window", "7d"))
        if text in {"month", "last-month"}:
            start, _ = month_of(until - timedelta(microseconds=1))
            if text == "last-month":
                return month_of(start - timedelta(days=1))[0], start
            return start, until
        since = until - _length(text)
    if since >= until:
        message = f"since: {since.isoformat()} is not before until, {until.isoformat()}"
        raise BadInput(message, field="since")
    return since, until


def _length(text: str) -> timedelta:
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal() or int(number) < 1:
        message = f"window: {text!r} is not a number of h, d or w (24h, 7d, 4w), month or last-month"
        raise BadInput(message, field="window")
    return int(number) * _UNITS[unit]


def _moment(text: str, field: str) -> datetime:
    try:
        return as_utc(datetime.fromisoformat(text), field)
    except ValueError as error:
        message = f"{field}: {text!r} is not a time such as 2026-01-31T12:00:00Z ({error})"
        raise BadInput(message, field=field) from error


def _ledger_end(engine: Engine) -> datetime | None:
    lines = engine.table("cost_line")
    found = engine.run(lines.aggregate(end=lines.ends_at.max())).item()
    return found if isinstance(found, datetime) else None


def names_of(parameters: Mapping[str, object], key: str = "by", default: str = "workspace") -> list[str]:
    """Return a comma-separated parameter as names, each once."""
    given = parameters.get(key)
    text = default if given is None else str(given)
    names = [*dict.fromkeys(name.strip() for name in text.split(",") if name.strip())]
    if key == "by":
        check_views(names)
    return names


def cost_report(house: House, parameters: Mapping[str, object]) -> Report:
    """Return what was spent in a window by a view, with what nobody held apart or shared out."""
    with house.store.snapshot() as engine:
        since, until = window_of(engine, parameters, house.clock.now())
        by = names_of(parameters)
        share_idle = str(parameters.get("share_idle", "none"))
        if share_idle not in SHARE_IDLE:
            message = f"share_idle: {share_idle!r} is not one of {', '.join(SHARE_IDLE)}"
            raise BadInput(message, field="share_idle")
        is_by_node = str(parameters.get("idle_by_node", "false")).lower() == "true"
        if str(parameters.get("form", "view")) == "focus":
            return _focus_report(engine, since, until, share_idle)
        step = parameters.get("step")
        if step is not None:
            return _stepped_report(engine, since, until, by, _length(str(step)))
        found = bills_of(engine, since, until, by, share_idle, is_by_node=is_by_node)
    return _bills_report(found, by, since, until, share_idle)


def bills_of(
    engine: Engine, since: datetime, until: datetime, by: Sequence[str], share_idle: str, *, is_by_node: bool = False
) -> list[Bill]:
    """Return the bills of a view."""
    places = () if share_idle == "none" else ("cluster", "node") if is_by_node else ("cluster",)
    keys = [*dict.fromkeys([*by, *places])]
    rows = tidy(engine.run(spend(engine, since, until, keys)), keys)
    return bills(rows, by, _SHARES[share_idle], "node" if is_by_node else "cluster")


def _bills_report(
    found: Sequence[Bill], by: Sequence[str], since: datetime, until: datetime, share_idle: str
) -> Report:
    priced = [bill.total_usd for bill in found if bill.total_usd is not None]
    unpriced = sum(bill.unpriced_us for bill in found)
    summary: dict[str, object] = {
        "since": since, "until": until, "by": ", ".join(by), "share_idle": share_idle,
        "gpu_hours": sum(bill.gpu_us for bill in found) / _US_PER_HOUR if share_idle == "none" else None,
        "total_usd": sum(priced, Decimal(0)) if priced else None,
    }  # fmt: skip
    notes = []
    if not found:
        notes.append("unknown: the ledger has no line in this window; `steward analyse` books what was collected")
    if unpriced:
        notes.append(f"{unpriced / _US_PER_HOUR:,.1f} GPU-hours have no price and are in no dollar here")
    items = [_item(bill, by) for bill in found]
    return Report("CostReport", until, summary, items, (*by, *COLUMNS), tuple(notes))


def _item(bill: Bill, by: Sequence[str]) -> dict[str, object]:
    return {
        **dict(zip(by, bill.names, strict=True)),
        "gpu_hours": bill.gpu_us / _US_PER_HOUR,
        "used_usd": bill.used_usd,
        "allocated_idle_usd": bill.idle_usd,
        "own_usd": bill.own_usd,
        "shared_usd": bill.shared_usd,
        "total_usd": bill.total_usd,
        "efficiency": bill.efficiency,
        "unpriced_gpu_hours": bill.unpriced_us / _US_PER_HOUR,
    }


def _stepped_report(engine: Engine, since: datetime, until: datetime, by: Sequence[str], step: timedelta) -> Report:
    rows = with_moments(tidy(engine.run(spend(engine, since, until, by, step)), by), since, step)
    keys = [*dict.fromkeys([*by, "category"])]
    items = [
        {"ts": row["ts"], **{name: row[name] for name in keys}, "gpu_hours": row["gpu_us"] / _US_PER_HOUR,
         "cost_usd": row["cost_usd"]}
        for row in rows.sort("ts", *keys).iter_rows(named=True)
    ]  # fmt: skip
    summary = {"since": since, "until": until, "by": ", ".join(by), "step_s": step.total_seconds()}
    return Report("CostReport", until, summary, items)


def _focus_report(engine: Engine, since: datetime, until: datetime, share_idle: str) -> Report:
    dataset = focus(
        engine.run(focus_lines(engine, since, until)), Account(), "none" if share_idle == "none" else "weighted"
    )
    items = as_text(dataset).to_dicts()
    summary = {
        "since": since,
        "until": until,
        "rows": dataset.height,
        "effective_cost_usd": dataset["EffectiveCost"].sum(),
    }
    return Report("FocusReport", until, summary, items, notes=("FOCUS 1.2 with the split-allocation columns of 1.3",))


def explain_report(house: House, parameters: Mapping[str, object]) -> Report:
    """Return the rows, rates and rules behind what somebody paid in a window."""
    with house.store.snapshot() as engine:
        since, until = window_of(engine, parameters, house.clock.now())
        lines = engine.table("cost_line")
        within = lines.filter(lines.starts_at >= since, lines.starts_at < until)
        for name in (*OF_LINE, "gpu_uuid"):
            value = parameters.get(name)
            if value is None:
                continue
            if name == "gpu_uuid":
                gpus = engine.table("gpu")
                within = within.semi_join(gpus.filter(gpus.uuid == str(value)), "gpu")
            else:
                within = within.filter(within[name] == str(value))
        us = (within.gpu_seconds * 1e6).round().cast("int64")
        keys = ("category", "resource", "model", "usd_per_gpu_hour", "is_correction")
        gpus = engine.table("gpu").select("gpu", "uuid", "model")
        joined = within.mutate(us=us, is_correction=within.adjustment.coalesce(0) > 0)
        joined = joined.left_join(gpus, "gpu").drop("gpu_right")
        grouped = joined.group_by(keys).aggregate(
            lines=joined.count(),
            gpu_us=joined.us.sum(),
            cost_usd=joined.cost_usd.sum(),
            gpus=joined.uuid.nunique(),
        )
        rows = engine.run(grouped).with_columns(pl.col("gpu_us").cast(pl.Int64)).sort(*keys, nulls_last=True)
        largest = engine.run(joined.order_by(joined.cost_usd.desc(), joined.starts_at).limit(_limit(parameters)))
    return _explained(rows, largest, since, until)


def _limit(parameters: Mapping[str, object]) -> int:
    text = str(parameters.get("limit", 20))
    if not text.isdecimal():
        message = f"limit: {text!r} is not a number of rows"
        raise BadInput(message, field="limit")
    return int(text)


def _explained(rows: pl.DataFrame, largest: pl.DataFrame, since: datetime, until: datetime) -> Report:
    dollars = rows.get_column("cost_usd")
    parts = [
        {"category": row["category"], "resource": row["resource"], "model": row["model"],
         "correction": row["is_correction"], "lines": row["lines"], "gpus": row["gpus"],
         "gpu_hours": row["gpu_us"] / _US_PER_HOUR, "usd_per_gpu_hour": row["usd_per_gpu_hour"],
         "cost_usd": row["cost_usd"], "rule": RULES.get(row["category"])}
        for row in rows.iter_rows(named=True)
    ]  # fmt: skip
    shown = [
        {"category": row["category"], "gpu": row["uuid"], "starts_at": row["starts_at"], "workload": row["workload"],
         "gpu_seconds": row["gpu_seconds"], "usd_per_gpu_hour": row["usd_per_gpu_hour"], "cost_usd": row["cost_usd"],
         "adjustment": row["adjustment"], "booked_at": row["booked_at"]}
        for row in largest.iter_rows(named=True)
    ]  # fmt: skip
    summary: dict[str, object] = {
        "since": since, "until": until, "lines": int(rows.get_column("lines").sum()),
        "gpu_hours": int(rows.get_column("gpu_us").sum() or 0) / _US_PER_HOUR,
        "cost_usd": None if dollars.null_count() == len(dollars) else dollars.sum(),
        "formula": "sum of cost_usd of the lines; a line is gpu_seconds / 3600 * usd_per_gpu_hour, its odd "
        "micro-dollars by largest remainder within its GPU and hour",
        "largest": [_one_line(row) for row in shown],
    }  # fmt: skip
    columns = ("category", "model", "correction", "lines", "gpu_hours", "usd_per_gpu_hour", "cost_usd", "rule")
    notes = () if parts else ("unknown: the ledger has no such line in this window",)
    return Report("CostExplanation", until, summary, parts, columns, notes)


def _one_line(row: Mapping[str, object]) -> str:
    at = row["starts_at"]
    when = f"{at:%Y-%m-%d %H:%M}" if isinstance(at, datetime) else "-"
    return f"{row['gpu'] or '-'} {when} {row['category']} {row['cost_usd']}"


def standings(engine: Engine, now: datetime) -> list[Standing]:
    """Return where every workspace with a budget stands in the month of `now`."""
    budgets = engine.run(engine.table("budget")).cast(pl.Schema(BUDGET.schema()))
    if budgets.is_empty():
        return []
    start, end = month_of(now)
    keys = ["workspace", "cluster"]
    spent = tidy(engine.run(spend(engine, start, end, keys)), keys)
    forecasts = engine.run(latest_forecasts(engine))
    return find_standings(budgets, spent, _ledger_end(engine), now, forecasts)


def budget_verdicts(house: House, now: datetime) -> list[Verdict]:
    """Return the verdicts on all budgets, and on workspaces whose budget has ended."""
    return [*judge_budgets(standings(house.store.engine, now), now), *judge_ended(house.store.read("budget"), now)]


def budget_report(house: House, _parameters: Mapping[str, object]) -> Report:
    """Return how budgets stand; the exit code is that of a Nagios check."""
    now = house.clock.now()
    last = _ledger_end(house.store.engine)
    at = now if last is None else min(now, last)
    found = standings(house.store.engine, at)
    items = [
        {"workspace": each.budget.workspace, "spent_usd": each.spent.usd, "usd_per_month": each.budget.usd,
         "spent_gpu_hours": each.spent.gpu_hours, "gpu_hours_per_month": each.budget.gpu_hours, "share": each.share,
         "passed": each.passed, "expected_usd": each.expected_usd, "expected_gpu_hours": each.expected_gpu_hours,
         "expected_share": each.expected_share, "basis": each.basis, "action": each.action}
        for each in found
    ]  # fmt: skip
    worst = max((_code(each) for each in found), default=0)
    notes = () if found else ("no budget is set; set one with `steward cost budget WORKSPACE --usd 1000`",)
    return Report("BudgetReport", at, {"month": f"{month_of(at)[0]:%Y-%m}"}, items, notes=notes, exit_code=worst)


def _code(standing: Standing) -> int:
    if standing.share is None:
        return 3
    return 2 if standing.share >= 1 else 1 if standing.passed is not None else 0


QUESTIONS = {"cost": cost_report, "cost-explain": explain_report, "budgets": budget_report}
