"""Whatever happened, the ledger adds up: to the bill, in any order of rows, over any division of the time."""

from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics.cost import ledger
from analytics.cost_corrections import SAME, billed, corrections, reprice
from analytics.cost_policy import LedgerPolicy
from fleet.money_tables import COST_LINE
from tests.analytics import ledger_histories as told

POLICY = LedgerPolicy()
Held = list[tuple[int, int, int, int, float, int | None]]
Active = dict[tuple[int, int], tuple[int, int]]
few = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)


def micro(lines: pl.DataFrame, column: str = "gpu_seconds") -> int:
    scaled = lines.get_column(column).cast(pl.Float64) if column == "gpu_seconds" else lines.get_column(column)
    return sum(round(Decimal(str(value)) * 1_000_000) for value in scaled.to_list() if value is not None)


def sums(lines: pl.DataFrame) -> dict[tuple[object, ...], tuple[int, int]]:
    found: dict[tuple[object, ...], tuple[int, int]] = {}
    for row in lines.iter_rows(named=True):
        key = tuple(row[name] for name in SAME)
        us, usd = found.get(key, (0, 0))
        cost = row["cost_usd"]
        found[key] = (us + round(row["gpu_seconds"] * 1e6), usd + (0 if cost is None else int(cost * 1_000_000)))
    return {key: value for key, value in found.items() if value != (0, 0)}


@few
@given(
    held=st.lists(told.pods, max_size=8),
    active=told.activity,
    bad=told.failures,
    first=told.rates,
    later=told.changes,
    shuffle=st.randoms(use_true_random=False),
)
def test_parts_sum_to_time_and_bill_whatever_happened_in_any_order(  # noqa: PLR0917 - hypothesis calls by name
    held: Held,
    active: Active,
    bad: list[tuple[int, int, int]],
    first: Decimal,
    later: list[tuple[int, Decimal]],
    shuffle: Any,
) -> None:
    prices, failed, layout = told.prices_of(first, later), told.failures_of(bad), told.devices()
    lines = ledger(told.hours_of(held, active), prices, failed, POLICY, layout)
    for gpu in told.GPUS:
        of_gpu = lines.filter(pl.col("gpu") == gpu)
        assert micro(of_gpu) == told.HOURS * 3_600_000_000
        assert abs(micro(of_gpu, "cost_usd") - exact_bill(prices)) <= len(later)  # rounded where prices change only
    assert (lines["gpu_seconds"] > 0).all()
    assert (lines["cost_usd"] >= 0).all()
    assert not lines.select(COST_LINE.key).is_duplicated().any()
    shuffle.shuffle(held)
    mixed = told.hours_of(held, active).sample(fraction=1, shuffle=True, seed=shuffle.randint(0, 99))
    assert ledger(mixed, prices.sample(fraction=1, shuffle=True, seed=1), failed, POLICY, layout).equals(lines)


def exact_bill(prices: pl.DataFrame) -> int:
    whole = Decimal(0)
    end_of_all = told.MOMENT + told.HOUR * told.HOURS
    for row in prices.iter_rows(named=True):
        start = max(row["starts_at"], told.MOMENT)
        end = min(row["ends_at"] or end_of_all, end_of_all)
        microseconds = round((end - start).total_seconds() * 1_000_000)
        whole += row["usd_per_gpu_hour"] * 1_000_000 * microseconds / 3_600_000_000
    return round(whole)


@few
@given(held=st.lists(told.pods, max_size=6), active=told.activity, first=told.rates, later=told.changes)
def test_a_window_divided_into_hours_adds_up_to_the_whole(
    held: Held, active: Active, first: Decimal, later: list[tuple[int, Decimal]]
) -> None:
    prices, failed = told.prices_of(first, later), told.failures_of([(1, 100, 5000)])
    whole = ledger(told.hours_of(held, active), prices, failed, POLICY, told.devices())
    parts = [
        ledger(told.hours_of(held, active, range(hour, hour + 1)), prices, failed, POLICY, told.devices())
        for hour in range(told.HOURS)
    ]
    assert sums(pl.concat(parts)) == sums(whole)


@few
@given(
    before=st.lists(told.pods, max_size=4),
    after=st.lists(told.pods, max_size=4),
    active=told.activity,
    first=told.rates,
    then=told.rates,
)
def test_corrections_make_what_is_booked_what_is_true_and_are_none_the_second_time(
    before: Held, after: Held, active: Active, first: Decimal, then: Decimal
) -> None:
    booked = ledger(told.hours_of(before, {}), told.prices_of(first, []), told.failures_of([]), POLICY)
    fresh = ledger(told.hours_of(after, active), told.prices_of(then, []), told.failures_of([(2, 0, 900)]), POLICY)
    lines = pl.concat([booked, corrections(booked, fresh)])
    assert sums(lines) == sums(fresh)
    assert not lines.select(COST_LINE.key).is_duplicated().any()
    assert corrections(lines, fresh).is_empty()


@few
@given(held=st.lists(told.pods, max_size=4), active=told.activity, first=told.rates, then=told.rates)
def test_repricing_what_is_booked_gives_the_ledger_at_the_new_price(
    held: Held, active: Active, first: Decimal, then: Decimal
) -> None:
    hours, failed = told.hours_of(held, active), told.failures_of([(3, 50, 2000)])
    booked = ledger(hours, told.prices_of(first, []), failed, POLICY)
    gpus = hours.select("gpu", "uuid", "model", "capacity_type", "region").unique()
    assert reprice(booked, gpus, told.prices_of(first, [])).is_empty()
    changed = pl.concat([booked, reprice(booked, gpus, told.prices_of(then, []))])
    of_gpu = {gpu: micro(changed.filter(pl.col("gpu") == gpu), "cost_usd") for gpu in told.GPUS}
    assert of_gpu == dict.fromkeys(told.GPUS, int(then * 1_000_000) * told.HOURS)
    assert micro(changed) == micro(booked)


def test_a_price_found_later_is_booked_and_no_second_stays_unpriced() -> None:
    hours, failed = told.hours_of([(1, 1, 0, 3_600_000_000, 1.0, None)], {}), told.failures_of([])
    nothing = told.prices_of(Decimal(1), []).clear()
    booked = ledger(hours, nothing, failed, POLICY)
    assert booked["cost_usd"].null_count() == booked.height
    fresh = ledger(hours, told.prices_of(Decimal(2), []), failed, POLICY)
    lines = pl.concat([booked, corrections(booked, fresh)])
    assert lines["cost_usd"].sum() == Decimal(18)
    assert lines.filter(pl.col("cost_usd").is_null())["gpu_seconds"].sum() == 0
    assert corrections(lines, ledger(hours, nothing, failed, POLICY)).is_empty()


def test_what_is_found_out_of_a_closed_month_is_billed_in_the_next() -> None:
    booked = ledger(told.hours_of([], {}), told.prices_of(Decimal(1), []), told.failures_of([]), POLICY)
    march = told.MOMENT.replace(day=1)
    lines = billed(booked, [march], told.MOMENT)
    assert lines["billed_at"].unique().to_list() == [march.replace(month=4)]
    assert billed(booked, [march.replace(month=2)], told.MOMENT)["billed_at"].null_count() == booked.height
