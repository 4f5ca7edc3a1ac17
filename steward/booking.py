"""Booking: the clock hours that are over become lines of the ledger, once; what is found out later corrects them.

Every computation reads one pinned moment of the store.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from analytics.activity import hour_start
from analytics.cost import ledger, unhealthy_intervals
from analytics.cost_beside import charge_lines, overhead_lines
from analytics.cost_corrections import billed, corrections, month_of_bill, reprice
from analytics.cost_hosts import split_hosts
from analytics.cost_hours import ledger_hours, mig_devices
from analytics.cost_policy import LedgerPolicy
from analytics.prices import host_of_gpus, priced_gpus
from fleet.errors import BadInput
from fleet.frames import Table
from fleet.money_tables import CHARGE, COST_LINE, COST_MONTH
from fleet.tables import POD, PRICE, VERDICT, WORKSPACE_MEMBER
from steward.compose import House
from store.engine import Engine

_LOOK_BACK = timedelta(days=2)  # how far before an hour the verdicts stand that say a GPU was failed in it
_CHUNK = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Books:
    """What a booking reads beside the hours, all of one moment."""

    engine: Engine
    policy: LedgerPolicy
    prices: pl.DataFrame
    verdicts: pl.DataFrame
    closed: tuple[datetime, ...]


def open_books(house: House, engine: Engine, verdicts: pl.DataFrame | None = None) -> Books:
    """Read what bookings share; `verdicts` are those that are found but not stored yet."""
    found = VERDICT.empty() if verdicts is None else verdicts
    closed = tuple(sorted(_rows(engine, COST_MONTH).get_column("month_at").to_list()))
    return Books(engine, house.settings.cost, _rows(engine, PRICE), found, closed)


def charge(house: House, verdicts: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Return the lines of the whole clock hours since the last that was booked, and corrections of those before."""
    with house.store.snapshot() as engine:
        until = hour_start(now)
        booked_until = _moment(engine, "cost_line", "ends_at", latest=True)
        since = booked_until if booked_until is not None else _beginning(engine)
        if since is None or since >= until:
            return COST_LINE.empty()
        books = open_books(house, engine, verdicts)
        new = [count_anew(books, start, end) for start, end in chunks(since, until)]
        again = _again(books, since) if booked_until is not None else []
        lines = pl.concat([*new, *again]) if new or again else COST_LINE.empty()
        return billed(lines, books.closed, now)


def _beginning(engine: Engine) -> datetime | None:
    """Return the first hour that was rolled up, else, where nothing measures, the first that a pod held a GPU."""
    measured = _moment(engine, "gpu_hour", "hour_at", latest=False)
    held = _moment(engine, "pod_allocation", "starts_at", latest=False) if measured is None else None
    return measured if held is None else hour_start(held)


def _kept_from(engine: Engine, since: datetime) -> datetime | None:
    """Return from when on what was booked as used since `since` still has its samples; None: all of it has."""
    lines = engine.table("cost_line")
    used = lines.filter(lines.starts_at >= since, lines.category == "used", lines.gpu.notnull())
    found = []
    for table, column, of in (
        ("gpu_hour", "hour_at", used.filter(used.slice.isnull())),
        ("slice_sample", "ts", used.filter(used.slice.notnull())),
    ):
        told = _moment(engine, table, column, latest=False)
        first, last = engine.run(of.aggregate(first=of.starts_at.min(), last=of.ends_at.max())).row(0)
        if not isinstance(first, datetime):
            continue
        if told is None:
            found.append(_hour_end(last))
        elif hour_start(first) < hour_start(told):
            found.append(_hour_end(told))
    return max(found, default=None)


def _hour_end(moment: datetime) -> datetime:
    start = hour_start(moment)
    return start if start == moment else start + timedelta(hours=1)


def _again(books: Books, since: datetime) -> list[pl.DataFrame]:
    first = _moment(books.engine, "cost_line", "starts_at", latest=False)
    start = since - timedelta(hours=books.policy.late_hours)
    start = hour_start(start if first is None else max(start, first))
    kept_from = _kept_from(books.engine, start)
    start = start if kept_from is None else max(start, kept_from)
    return [_correct(books, begin, end) for begin, end in chunks(start, since)]


def book_again(house: House, since: datetime, until: datetime, now: datetime) -> pl.DataFrame:
    """Return what corrects the booked lines of the clock hours of `[since, until)` to what the store tells now.

    Hours that were never booked are left to `charge`, so that it finds the ledger without a hole.
    """
    with house.store.snapshot() as engine:
        books = open_books(house, engine)
        booked_until = _moment(engine, "cost_line", "ends_at", latest=True)
        if booked_until is None:
            return COST_LINE.empty()
        end = min(_hour_end(until), booked_until, hour_start(now))
        kept_from = _kept_from(engine, hour_start(since))
        if kept_from is not None and kept_from > hour_start(since):
            message = (
                f"since: the samples before {kept_from.isoformat()} are no longer kept, and counting without them would"
                " take back what they told; name a later time, or use `steward cost reprice` for new prices"
            )
            raise BadInput(message, field="since")
        parts = [_correct(books, begin, finish) for begin, finish in chunks(hour_start(since), end)]
        return billed(pl.concat(parts) if parts else COST_LINE.empty(), books.closed, now)


def reprice_booked(house: House, since: datetime, until: datetime, now: datetime) -> Iterator[pl.DataFrame]:
    """Yield, day by day, what brings the booked GPU lines of `[since, until)` to the prices of now."""
    with house.store.snapshot() as engine:
        books = open_books(house, engine)
        gpus = engine.run(priced_gpus(engine))
        for begin, end in chunks(hour_start(since), until):
            yield billed(reprice(_booked(engine, begin, end), gpus, books.prices), books.closed, now)


def close_month(house: House, month: datetime, now: datetime) -> pl.DataFrame:
    """Return the row that closes the month that begins at `month`; it must be over, and follow the last closed one."""
    with house.store.snapshot() as engine:
        closed = open_books(house, engine).closed
        after = (month + timedelta(days=32)).replace(day=1)
        if month != month.replace(day=1, hour=0, minute=0, second=0, microsecond=0):
            message = f"month: {month.isoformat()} is not the first moment of a month"
            raise BadInput(message, field="month")
        if after > now:
            message = f"month: {month:%Y-%m} is not over yet"
            raise BadInput(message, field="month")
        if month in closed:
            message = f"month: {month:%Y-%m} is closed already"
            raise BadInput(message, field="month")
        if closed and month != (closed[-1] + timedelta(days=32)).replace(day=1):
            message = f"month: the last closed month is {closed[-1]:%Y-%m}; the next to close is the one after it"
            raise BadInput(message, field="month")
        lines = _rows_of(engine, COST_LINE, None, after)
        lines = lines.filter(month_of_bill() == month)
        dollars = lines.get_column("cost_usd")
        row = {
            "month_at": month,
            "closed_at": now,
            "line_count": lines.height,
            "gpu_seconds": lines.get_column("gpu_seconds").sum(),
            "cost_usd": None if dollars.null_count() == lines.height else dollars.sum(),
        }
        return pl.DataFrame([row], schema=COST_MONTH.schema())


def count_anew(books: Books, since: datetime, until: datetime) -> pl.DataFrame:
    """Return the lines of `[since, until)` as the store tells now."""
    engine, policy = books.engine, books.policy
    recent = engine.table("verdict")
    health = recent.filter(recent.topic == "health", recent.made_at >= since - _LOOK_BACK)
    unhealthy = unhealthy_intervals(
        pl.concat([engine.run(health).cast(pl.Schema(VERDICT.schema())), books.verdicts]), until
    )
    hours = engine.run(ledger_hours(engine, since, until, policy))
    gpu_lines = ledger(hours, books.prices, unhealthy, policy, engine.run(mig_devices(engine)))
    overhead = overhead_lines(gpu_lines, policy)
    if policy.split_nodes:
        gpu_lines = split_hosts(gpu_lines, engine.run(host_of_gpus(engine)), _rows(engine, POD), policy)
    beside = charge_lines(_rows(engine, CHARGE), _rows(engine, WORKSPACE_MEMBER), since, until)
    return pl.concat([gpu_lines, overhead, beside])


def chunks(since: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """Return the days of `[since, until)`: the ledger of each by itself is the ledger of all."""
    found = []
    start = since
    while start < until:
        end = min(until, start.replace(hour=0, minute=0, second=0, microsecond=0) + _CHUNK)
        found.append((start, end))
        start = end
    return found


def _correct(books: Books, since: datetime, until: datetime) -> pl.DataFrame:
    return corrections(_booked(books.engine, since, until), count_anew(books, since, until))


def _booked(engine: Engine, since: datetime, until: datetime) -> pl.DataFrame:
    return _rows_of(engine, COST_LINE, since, until)


def _rows_of(engine: Engine, table: Table, since: datetime | None, until: datetime) -> pl.DataFrame:
    rows = engine.table(table.name)
    within = (
        rows.filter(rows.starts_at < until)
        if since is None
        else rows.filter(rows.starts_at >= since, rows.starts_at < until)
    )
    return engine.run(within).cast(pl.Schema(table.schema()))


def _rows(engine: Engine, table: Table) -> pl.DataFrame:
    return engine.run(engine.table(table.name)).cast(pl.Schema(table.schema()))


def _moment(engine: Engine, table: str, column: str, *, latest: bool) -> datetime | None:
    rows = engine.table(table)
    if table == "cost_line":
        rows = rows.filter(rows.gpu.notnull())
    found = engine.run(rows.aggregate(moment=rows[column].max() if latest else rows[column].min())).item()
    return found if isinstance(found, datetime) else None
