"""Correct the ledger without rewriting it: what is counted anew is compared with what is booked, and the rest booked.

Late data and corrected prices become lines that are added to those before them. A closed month stays as it was
billed: what is found out about it later is billed in the first month that is open.
"""

from collections.abc import Collection
from datetime import datetime

import polars as pl

from analytics.apportion import apportion
from analytics.cost_segments import bill, to_dollars
from analytics.prices import with_rates
from fleet.frames import UTC_MICROSECONDS, check
from fleet.money_tables import COST_LINE

SAME = (
    "gpu", "starts_at", "cluster", "node", "workspace", "namespace", "workload", "pod_uid", "slice", "resource",
    "category",
)  # fmt: skip
"""What makes two lines speak of the same thing."""


def corrections(booked: pl.DataFrame, fresh: pl.DataFrame) -> pl.DataFrame:
    """Return the lines that, added to `booked`, make the sums of `fresh`; none where they are equal already.

    Both are cost lines of the same stretch of time. A line that was booked without a price and has one now is taken
    back and booked anew, so that its seconds are no longer counted as unpriced. A price that is gone takes nothing
    back.
    """
    before = _summed(booked, "booked").with_columns(was_priced=pl.col("booked_usd").is_not_null())
    after = _summed(fresh, "fresh")
    both = before.join(after, on=SAME, how="full", coalesce=True, nulls_equal=True)
    both = both.with_columns(
        pl.col("booked_us", "fresh_us").fill_null(0),  # no such line: no seconds
        was_priced=pl.col("was_priced").fill_null(value=True),
    )
    both = both.with_columns(fresh_usd=_kept_price())
    return _changes(both, _next(booked))


def _changes(both: pl.DataFrame, number: int) -> pl.DataFrame:
    """Return the lines that make the booked seconds and dollars of each row the fresh ones."""
    newly = ~pl.col("was_priced") & pl.col("fresh_usd").is_not_null()
    changed = both.filter(~newly).with_columns(
        us=pl.col("fresh_us") - pl.col("booked_us"),
        micro_usd=pl.when("was_priced").then(_or_nothing("fresh_usd") - _or_nothing("booked_usd")),
        adjustment=pl.lit(number, pl.Int32()),
    )
    # Where nothing at all has a price, no dollars are told; where only the seconds moved, they stay told as none.
    is_unpriced = pl.col("booked_usd").is_null() & pl.col("fresh_usd").is_null()
    changed = changed.with_columns(micro_usd=pl.when(~is_unpriced).then("micro_usd"))
    changed = changed.filter((pl.col("us") != 0) | (pl.col("micro_usd").fill_null(0) != 0))  # unpriced: no dollars
    priced = both.filter(newly)
    taken_back = priced.with_columns(
        us=-pl.col("booked_us"),
        micro_usd=pl.lit(None, pl.Int64()),
        adjustment=pl.lit(number, pl.Int32()),
    )
    anew = priced.with_columns(us=pl.col("fresh_us"), micro_usd="fresh_usd", adjustment=pl.lit(number + 1, pl.Int32()))
    return _lines(pl.concat([changed, taken_back, anew], how="diagonal"))


def _kept_price() -> pl.Expr:
    """Return the fresh dollars; where the price is gone, the booked ones in proportion of the seconds."""
    is_lost = pl.col("fresh_usd").is_null() & pl.col("booked_usd").is_not_null() & (pl.col("fresh_us") > 0)
    ratio = pl.col("booked_usd").cast(pl.Int128()) * pl.col("fresh_us").cast(pl.Int128())
    kept = (ratio // pl.when(pl.col("booked_us") > 0).then("booked_us").cast(pl.Int128())).cast(pl.Int64)
    return pl.when(is_lost).then(kept).otherwise("fresh_usd")


def _or_nothing(column: str) -> pl.Expr:
    return pl.col(column).fill_null(0)  # no such line: no dollars


def _next(booked: pl.DataFrame) -> int:
    latest = booked.get_column("adjustment").max()
    return latest + 1 if isinstance(latest, int) else 1


def _summed(lines: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return seconds and dollars by what lines speak of; dollars are null where no line has any."""
    micro = (pl.col("cost_usd").cast(pl.Decimal(38, 6)) * 1_000_000).cast(pl.Int64)
    seconds = (pl.col("gpu_seconds") * 1e6).round().cast(pl.Int64)
    rate = (pl.col("usd_per_gpu_hour").cast(pl.Decimal(38, 6)) * 1_000_000).cast(pl.Int64)
    counted = lines.with_columns(
        us=seconds, micro=micro, rate=rate, adjustment=pl.col("adjustment").fill_null(0),  # null: as first booked
        resource=pl.col("resource").fill_null("gpu"),
    )  # fmt: skip
    if not (counted.get_column("adjustment") != 0).any():
        # As first booked, each thing has one line.
        return counted.select(
            *SAME, pl.col("us").alias(f"{name}_us"), pl.col("micro").alias(f"{name}_usd"),
            pl.col("ends_at").alias(f"{name}_ends_at"), pl.col("rate").alias(f"{name}_rate"),
        )  # fmt: skip
    last = pl.col("adjustment").arg_max()
    # Seconds of an unpriced line that was taken back are no dollars of nothing.
    dollars = pl.when(pl.col("micro").is_not_null().any()).then(pl.col("micro").sum())
    return counted.group_by(SAME).agg(
        pl.col("us").sum().alias(f"{name}_us"), dollars.alias(f"{name}_usd"),
        pl.col("ends_at").get(last).alias(f"{name}_ends_at"), pl.col("rate").get(last).alias(f"{name}_rate"),
    )  # fmt: skip


def _lines(changes: pl.DataFrame) -> pl.DataFrame:
    is_priced = pl.col("micro_usd").is_not_null()
    named = changes.with_columns(
        rate=pl.when(is_priced).then(pl.coalesce("fresh_rate", "booked_rate")),
        ends_at=pl.coalesce("fresh_ends_at", "booked_ends_at"),
    )
    moment = UTC_MICROSECONDS
    lines = named.select(
        "gpu", "starts_at", "ends_at", "cluster", "workspace", "namespace", "workload", "pod_uid", "category",
        gpu_seconds=pl.col("us") / 1e6, usd_per_gpu_hour=to_dollars("rate"), cost_usd=to_dollars("micro_usd"),
        slice=pl.col("slice"), node=pl.col("node"), resource=pl.col("resource"), adjustment=pl.col("adjustment"),
        booked_at=pl.lit(None, moment), billed_at=pl.lit(None, moment),
    )  # fmt: skip
    return check(lines.sort(*SAME, "adjustment", nulls_last=True), COST_LINE)


def reprice(booked: pl.DataFrame, gpus: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """Return the corrections that bring booked GPU lines to the prices of now, without counting anything anew.

    `gpus` are the rows of `priced_gpus`. Seconds stay as they are booked; a stretch is divided over its lines as the
    ledger divides it. Prices that begin within a stretch count from the next.
    """
    of_gpus = booked.filter(pl.col("gpu").is_not_null() & (pl.col("resource").fill_null("gpu") == "gpu"))
    sums = _summed(of_gpus, "booked").filter(pl.col("booked_us") > 0)
    facts = gpus.select("gpu", "model", "capacity_type", "region")
    stretches = sums.select("gpu", "starts_at", ends_at="booked_ends_at").unique(["gpu", "starts_at"], keep="any")
    stretches = stretches.sort("gpu", "starts_at").with_row_index("seg").join(facts, on="gpu", how="left")
    rated = with_rates(stretches, prices, "starts_at")
    rated = rated.with_columns(rate=(pl.col("usd_per_gpu_hour") * 1_000_000).cast(pl.Int64))
    rated = rated.with_columns(bill=bill(pl.col("rate")))
    lines = sums.join(rated.select("gpu", "starts_at", "seg", "rate", "bill"), on=["gpu", "starts_at"])
    # In the ledger's own order: else odd micro-dollars would move between lines at every new price.
    lines = lines.sort("seg", "pod_uid", "slice", "category", *SAME, nulls_last=True)
    lines = apportion(lines, ["seg"], "bill", "booked_us", "micro_usd")
    both = lines.with_columns(
        fresh_us="booked_us", fresh_rate="rate", fresh_ends_at="booked_ends_at",
        fresh_usd=pl.coalesce("micro_usd", "booked_usd"),  # a price that is gone takes nothing back
        was_priced=pl.col("booked_usd").is_not_null(),
    ).drop("rate", "bill", "seg", "micro_usd")  # fmt: skip
    differs = pl.col("fresh_usd").ne_missing(pl.col("booked_usd"))
    return _changes(both.filter(differs), _next(of_gpus))


def billed(lines: pl.DataFrame, closed: Collection[datetime], now: datetime) -> pl.DataFrame:
    """Return lines with the moment of their booking and, where their own month is closed, the month that pays.

    `closed` are first moments of months. The month that pays is the one after the last closed.
    """
    month = pl.col("starts_at").dt.truncate("1mo")
    pays = pl.lit(None, UTC_MICROSECONDS)
    if closed:
        after = pl.lit(max(closed), UTC_MICROSECONDS).dt.offset_by("1mo")
        pays = pl.when(month.is_in(list(closed))).then(after)
    return lines.with_columns(booked_at=pl.lit(now, UTC_MICROSECONDS), billed_at=pays.cast(UTC_MICROSECONDS))


def month_of_bill() -> pl.Expr:
    """Return the month that a line is billed in."""
    return pl.coalesce("billed_at", pl.col("starts_at").dt.truncate("1mo"))
