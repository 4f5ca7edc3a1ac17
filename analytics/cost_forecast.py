"""What will a workspace have cost at the end of the month: what it has, and what its demand will."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import polars as pl

_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class MonthEnd:
    """Dollars at the month's end: median and 80 % interval, of which `spent_usd` is spent; `hours` are forecast.

    `reaches` is false where the forecast ends before the month does; the rest then goes on at its last hour.
    """

    workspace: str
    spent_usd: Decimal
    usd: Decimal
    usd_lower_80: Decimal | None
    usd_upper_80: Decimal | None
    hours: int
    reaches: bool


def forecast_month_end(
    forecasts: pl.DataFrame,
    rates_usd_per_gpu_hour: dict[str, Decimal],
    spent_usd: dict[str, Decimal],
    now: datetime,
    next_month: datetime,
) -> list[MonthEnd]:
    """Return the month's end of each workspace that has a rate and a forecast (rows of the table `forecast`).

    Clusters are added up. Demand is charged as if all of it runs, up to the capacity where that is known. Ends of the
    intervals are added hour by hour, as if all hours missed the same way: the widest it can be, not the likeliest.
    """
    ahead = forecasts.filter(
        pl.col("workspace") != "*", pl.col("pool").is_null(), pl.col("model").is_null(),
        pl.col("ts") >= now.replace(minute=0, second=0, microsecond=0), pl.col("ts") < next_month,
    )  # fmt: skip
    found = []
    for (name,), rows in ahead.group_by("workspace", maintain_order=True):
        workspace = str(name)
        rate = rates_usd_per_gpu_hour.get(workspace)
        if rate is None or rows["gpus"].null_count() > 0:
            continue
        spent = spent_usd.get(workspace, Decimal(0))
        sums = {column: _gpu_hours(rows, column, now, next_month) for column in ("gpus", *_ENDS)}
        last = rows["ts"].max()
        reaches = isinstance(last, datetime) and last + timedelta(hours=1) >= next_month
        ends = [None if sums[name] is None else _dollars(spent, sums[name], rate) for name in ("gpus", *_ENDS)]
        if ends[0] is not None:
            found.append(MonthEnd(workspace, spent, ends[0], ends[1], ends[2], rows["ts"].n_unique(), reaches))
    return found


_ENDS = ("gpus_lower_80", "gpus_upper_80")


def _gpu_hours(rows: pl.DataFrame, column: str, now: datetime, next_month: datetime) -> Decimal | None:
    """Return GPU-hours from `now` to the month's end; None where an hour is not known."""
    if rows[column].null_count() > 0:
        return None
    served = pl.min_horizontal(pl.col(column), pl.col("capacity_gpus"))
    by_hour = rows.group_by("ts").agg(served.sum().alias("gpus")).sort("ts")
    total = Decimal(0)
    for ts, gpus in by_hour.iter_rows():
        share = (min(ts + timedelta(hours=1), next_month) - max(ts, now)) / timedelta(hours=1)
        total += Decimal(str(gpus)) * Decimal(str(max(share, 0.0)))
    last_ts, last = by_hour.row(-1)
    left = max((next_month - last_ts) / timedelta(hours=1) - 1.0, 0.0)
    return total + Decimal(str(last)) * Decimal(str(left))


def _dollars(spent: Decimal, gpu_hours: Decimal | None, rate: Decimal) -> Decimal:
    return (spent + (gpu_hours or Decimal(0)) * rate).quantize(_CENT)
