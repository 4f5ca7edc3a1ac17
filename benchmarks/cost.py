"""Time the ledger: a week of 10,000 GPUs and 1,000 workspaces, questions to it, and a month at new prices.

The baseline of booking is its own heavy question (who held what in each hour, on DuckDB), of a view the bare sum of
the ledger's dollars, of repricing the booking of the same month. Limits: booking 10 s and 4 GiB, a view 50 ms, a month
60 s. Every run is refused unless its sums are exact.

    python -m benchmarks.cost [--gpus 10000] [--workspaces 1000] [--month-gpus 10000]
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl

from analytics.chargeback import bills
from analytics.cost_hours import ledger_hours
from analytics.cost_policy import LedgerPolicy
from analytics.cost_views import spend, tidy
from benchmarks.cost_fleet import START, fill, make_prices
from fleet.clock import FixedClock
from fleet.tables import VERDICT
from steward.booking import charge, chunks, count_anew, open_books, reprice_booked
from steward.compose import House
from steward.config import Settings
from store.store import Store

LIMIT_BOOK_S, LIMIT_BOOK_MIB, LIMIT_VIEW_MS, LIMIT_MONTH_S = 10.0, 4096.0, 50.0, 60.0
ROUNDS = 5
WEEK_HOURS, MONTH_HOURS = 7 * 24, 30 * 24


def timed(what: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    what()
    return time.perf_counter() - wall, time.process_time() - processor


def house_of(folder: Path, gpus: int, workspaces: int, hours: int) -> House:
    """Return a house over a new store file with a fleet in it."""
    clock = FixedClock(START + timedelta(hours=hours))
    store = Store.open(folder / f"{gpus}-{hours}.duckdb", clock=clock)
    fill(store, gpus, workspaces, hours)
    return House(Settings(), store, clock)


def book_week(house: House) -> None:
    """Book the week as a turn of the loop does, in one computation, and store it."""
    lines = charge(house, VERDICT.empty(), house.clock.now())
    house.store.append_stored("cost_line", lines)


def book_by_day(house: House, until: datetime) -> None:
    """Book day by day, for months that are too long to hold at once."""
    with house.store.snapshot() as engine:
        books = open_books(house, engine)
        for begin, end in chunks(START, until):
            house.store.append_stored("cost_line", count_anew(books, begin, end))


def exact_total(house: House, gpus: int, hours: int) -> Decimal:
    """Return the ledger's dollars, or stop where they are not those of the fleet."""
    priced = dict(make_prices().select("model", "usd_per_gpu_hour").iter_rows())
    counts = house.store.read("gpu").group_by("model").len()
    want = sum((priced[model] * count * hours for model, count in counts.iter_rows()), Decimal(0))
    lines = house.store.engine.table("cost_line")
    found = house.store.engine.run(lines.aggregate(usd=lines.cost_usd.sum())).item()
    if found != want:
        message = f"the ledger sums to {found}, the fleet of {gpus} GPUs costs {want}"
        raise SystemExit(message)
    return want


def time_week(folder: Path, gpus: int, workspaces: int) -> None:
    """Print what booking a week takes, and questions to it."""
    house = house_of(folder, gpus, workspaces, WEEK_HOURS)
    policy, engine, until = LedgerPolicy(), house.store.engine, house.clock.now()
    bare, bare_cpu = timed(lambda: [engine.run(ledger_hours(engine, a, b, policy)) for a, b in chunks(START, until)])
    wall, processor = timed(lambda: book_week(house))
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    total = exact_total(house, gpus, WEEK_HOURS)
    lines = engine.run(engine.table("cost_line").count().as_table()).item()
    print(f"booking     {gpus} GPUs, {workspaces} workspaces, 7 days: {lines:,} lines, {total} USD, sums exact")
    print(f"  wall      {wall:6.2f} s  ({processor:.2f} s of processor)   limit {LIMIT_BOOK_S} s")
    print(f"  memory    {mib:6.0f} MiB at most   limit {LIMIT_BOOK_MIB:.0f} MiB")
    print(f"  ratio     {wall / bare:6.2f} times the bare question on DuckDB ({bare:.2f} s, {bare_cpu:.2f} s busy)")
    time_views(house, until)
    house.store.close()


def time_views(house: House, until: datetime) -> None:
    """Print what views of the booked week take."""
    engine = house.store.engine
    table = engine.table("cost_line")
    bare = min(timed(lambda: engine.run(table.aggregate(usd=table.cost_usd.sum())))[0] for _ in range(ROUNDS))
    print(f"views       best of {ROUNDS}; limit {LIMIT_VIEW_MS} ms; the bare sum of all lines {bare * 1000:.1f} ms")
    for by in (("workspace",), ("category",), ("namespace",), ("workspace", "model")):
        keys = [*dict.fromkeys([*by, "cluster"])]
        view = lambda keys=keys, by=by: bills(tidy(engine.run(spend(engine, START, until, keys)), keys), by)  # noqa: E731 - timed only
        question = lambda by=by: engine.run(spend(engine, START, until, by))  # noqa: E731 - likewise
        asked = min(timed(question)[0] for _ in range(ROUNDS))
        best = min(timed(view)[0] for _ in range(ROUNDS))
        print(f"  by {', '.join(by):18} {asked * 1000:7.1f} ms, {best * 1000:7.1f} ms with the bills made of it")


def time_month(folder: Path, gpus: int) -> None:
    """Print what bringing a booked month to new prices takes."""
    house = house_of(folder, gpus, 1000, MONTH_HOURS)
    until = house.clock.now()
    booking, _ = timed(lambda: book_by_day(house, until))
    before = exact_total(house, gpus, MONTH_HOURS)
    house.store.append_stored("price", make_prices("1.25"))

    def again() -> None:
        for lines in reprice_booked(house, START, until, until):
            house.store.append_stored("cost_line", lines)

    wall, processor = timed(again)
    lines = house.store.engine.table("cost_line")
    after = house.store.engine.run(lines.aggregate(usd=lines.cost_usd.sum())).item()
    counts = house.store.read("gpu").group_by("model").len()
    priced = dict(make_prices("1.25").select("model", pl.col("usd_per_gpu_hour")).iter_rows())
    want = sum((priced[model] * count * MONTH_HOURS for model, count in counts.iter_rows()), Decimal(0))
    if after != want:
        message = f"the repriced ledger sums to {after}, not {want}"
        raise SystemExit(message)
    print(f"repricing   {gpus} GPUs, 30 days: {before} USD becomes {after} USD, sums exact")
    print(f"  wall      {wall:6.2f} s  ({processor:.2f} s of processor)   limit {LIMIT_MONTH_S} s")
    print(f"  ratio     {wall / booking:6.2f} times the booking of the month ({booking:.2f} s)")
    house.store.close()


def main() -> None:
    """Time both in a folder that is thrown away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=10_000)
    parser.add_argument("--workspaces", type=int, default=1_000)
    parser.add_argument("--month-gpus", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        time_week(Path(folder), given.gpus, given.workspaces)
        if given.month_gpus:
            time_month(Path(folder), given.month_gpus)


if __name__ == "__main__":
    main()
