"""The ledger by day: whatever is booked, corrected or booked twice, its rows and its views are those of the lines."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.cost_views import spend, tidy
from fleet.clock import FixedClock
from fleet.money_tables import COST_DAY, COST_LINE
from store.store import Store

T0 = datetime(2026, 3, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS = 80
KEYS = [name for name in COST_DAY.names() if name not in {"gpu_us", "cost_usd", "unpriced_us"}]

lines = st.fixed_dictionaries(
    {
        "gpu": st.sampled_from([None, 1, 2]),
        "hour": st.integers(0, HOURS),
        "cluster": st.sampled_from([None, "east"]),
        "workspace": st.sampled_from([None, "research", "serving"]),
        "pod_uid": st.sampled_from([None, "a"]),
        "category": st.sampled_from(["used", "allocated_idle", "unallocated"]),
        "us": st.integers(-3_600_000_000, 3_600_000_000),
        "cost_usd": st.none() | st.decimals("-2999", "2999", places=6),
        "adjustment": st.sampled_from([None, 0, 1, 2]),
        "slice": st.sampled_from([None, 7]),
    }
)
histories = st.lists(st.lists(lines, max_size=6), max_size=4)


def frame_of(rows: list[dict[str, object]]) -> pl.DataFrame:
    moments = [T0 + HOUR * int(str(row["hour"])) for row in rows]
    made = [
        {**{name: value for name, value in row.items() if name not in {"hour", "us"}}, "starts_at": at,
         "ends_at": at + HOUR, "gpu_seconds": int(str(row["us"])) / 1e6}
        for row, at in zip(rows, moments, strict=True)
    ]  # fmt: skip
    return pl.DataFrame(made, schema={name: COST_LINE.schema()[name] for name in COST_LINE.schema()})


def stored(store: Store, history: list[list[dict[str, object]]]) -> None:
    for rows in history:
        store.append_stored("cost_line", frame_of(rows))


def sums_of_lines(store: Store) -> pl.DataFrame:
    """Add up the lines by themselves, in polars."""
    us = (pl.col("gpu_seconds") * 1e6).round().cast(pl.Int64)
    is_unpriced = pl.col("cost_usd").is_null()
    counted = store.read("cost_line").with_columns(us=us, day_at=pl.col("starts_at").dt.truncate("1d"))
    return counted.group_by(KEYS).agg(
        gpu_us=pl.col("us").sum(),
        cost_usd=pl.when(~is_unpriced.all()).then(pl.col("cost_usd").sum()).cast(COST_DAY.schema()["cost_usd"]),
        unpriced_us=pl.col("us").filter(is_unpriced).sum(),
    )


def in_order(rows: pl.DataFrame) -> list[tuple[object, ...]]:
    return sorted(rows.select(COST_DAY.names()).rows(), key=repr)


@settings(max_examples=25, deadline=None)
@given(history=histories)
def test_the_days_are_the_lines_for_any_history_of_bookings_and_corrections(
    history: list[list[dict[str, object]]],
) -> None:
    with Store.open(None, clock=FixedClock(T0)) as store:
        stored(store, history)
        kept = in_order(store.read("cost_day"))
        assert kept == in_order(sums_of_lines(store))
        store.add_up_ledger()
        assert in_order(store.read("cost_day")) == kept


@settings(max_examples=25, deadline=None)
@given(
    history=histories,
    start_us=st.integers(-5_000_000_000, HOURS * 3_600_000_000),
    length_us=st.integers(1, HOURS * 3_600_000_000),
    by=st.sampled_from([["workspace"], ["category"], ["cluster", "pod_uid"], ["gpu_uuid"], ["team"], ["pool"]]),
)
def test_a_view_of_any_window_is_the_sum_of_the_windows_lines(
    history: list[list[dict[str, object]]], start_us: int, length_us: int, by: list[str]
) -> None:
    since = T0 + timedelta(microseconds=start_us)
    until = since + timedelta(microseconds=length_us)
    with Store.open(None, clock=FixedClock(T0)) as store:
        stored(store, history)
        found = tidy(store.engine.run(spend(store.engine, since, until, by)), by)
        within = store.read("cost_line").filter(pl.col("starts_at") >= since, pl.col("starts_at") < until)
    dollars = [cost for cost in within["cost_usd"] if cost is not None]
    unpriced = within.filter(pl.col("cost_usd").is_null())
    assert found["gpu_us"].sum() == sum(round(each * 1e6) for each in within["gpu_seconds"])
    assert found["unpriced_us"].sum() == sum(round(each * 1e6) for each in unpriced["gpu_seconds"])
    assert sum(found["cost_usd"].drop_nulls(), Decimal(0)) == sum(dollars, Decimal(0))


@pytest.mark.parametrize("shift", [timedelta(0), HOUR, timedelta(microseconds=1)], ids=["midnight", "hour", "moment"])
def test_views_by_day_are_those_of_the_lines_whenever_they_begin(shift: timedelta) -> None:
    row = {"gpu": 1, "cluster": "east", "workspace": "research", "pod_uid": None, "category": "used",
           "cost_usd": Decimal("1.5"), "us": 3_600_000_000, "adjustment": 0, "slice": None}  # fmt: skip
    since, day = T0 + shift, timedelta(days=1)
    with Store.open(None, clock=FixedClock(T0)) as store:
        stored(store, [[{**row, "hour": hour} for hour in range(72)]])
        by_day = store.engine.run(spend(store.engine, since, T0 + 3 * day, ["workspace"], day))
    last = 24 if shift == timedelta(0) else 23
    assert sorted(by_day.select("step", "gpu_us").cast(pl.Int64).rows()) == [
        (0, 24 * 3_600_000_000), (1, 24 * 3_600_000_000), (2, last * 3_600_000_000),
    ]  # fmt: skip


def test_views_of_whole_days_read_the_days_and_not_the_lines() -> None:
    with Store.open(None, clock=FixedClock(T0)) as store:
        engine = store.engine
        whole = spend(engine, T0, T0 + timedelta(days=7), ["workspace"])
        hours = spend(engine, T0, T0 + 5 * HOUR, ["workspace"])
        assert [table for table in ("cost_line", "cost_day") if table in _tables_of(whole)] == ["cost_day"]
        assert [table for table in ("cost_line", "cost_day") if table in _tables_of(hours)] == ["cost_line"]


def test_a_day_without_lines_any_more_has_no_row() -> None:
    row = {"gpu": 1, "hour": 0, "cluster": "east", "workspace": None, "pod_uid": None, "category": "unallocated",
           "us": 1, "cost_usd": None, "adjustment": 0, "slice": None}  # fmt: skip
    with Store.open(None, clock=FixedClock(T0)) as store:
        stray = {**dict.fromkeys(COST_DAY.names()), "day_at": T0, "category": "used", "gpu_us": 5, "unpriced_us": 0}
        store.append_stored("cost_day", pl.DataFrame([stray], schema=COST_DAY.schema()))
        stored(store, [[row]])
        assert store.read("cost_day").select("category", "gpu_us", "cost_usd", "unpriced_us").rows() == [
            ("unallocated", 1, None, 1)
        ]


def _tables_of(expression: object) -> str:
    return repr(expression)
