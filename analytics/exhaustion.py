"""Will demand pass what there is, within a window? The window's peak is forecast itself.

Taking the highest of many hourly probabilities would count one long burst again and again, so what is looked up is how
high the windows went that followed moments like this one (`make_peak_rows`): once from the last value, once from the
peak of the window just before. Both distributions count alike.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

import numpy as np
import polars as pl

from analytics.analogues import Likeness, look_up, make_peak_rows
from analytics.backtest import Floats
from analytics.forecast_series import KEYS, Panel
from fleet.frames import UTC_MICROSECONDS, check, conform
from fleet.tables import EXHAUSTION, QUOTA

_LEVELS = (np.arange(200) + 0.5) / 200


@dataclass(frozen=True, slots=True)
class PeakPolicy:
    """`windows_h` are the windows asked for; `stride` the steps between the past moments that are compared."""

    windows_h: tuple[int, ...] = (24, 168, 720)
    stride: int = 6
    likeness: Likeness = field(default_factory=Likeness)


@dataclass(frozen=True, slots=True)
class OutlookPolicy:
    """`windows_h` that are told of; `looked_at_h` that dates are read off, each a multiple of a day."""

    windows_h: tuple[int, ...] = (24, 168, 720)
    looked_at_h: tuple[int, ...] = (24, 48, 72, 120, 168, 336, 720)
    possible: float = 0.1
    likely: float = 0.5


_OUTLOOK = OutlookPolicy()


class PeakForecast:
    """The distribution of each series' highest value in each window ahead. `fit` learns `sorted_` peaks."""

    def __init__(self, policy: PeakPolicy = PeakPolicy()) -> None:
        self.policy = policy

    def fit(self, values: Floats) -> Self:
        """Learn from `[series, time]`, NaN for gaps."""
        rows = make_peak_rows(values, np.array(self.policy.windows_h), self.policy.stride)
        now = rows.origins.size - 1
        drawn = [look_up(rows, now, path, self.policy.likeness, _LEVELS) for path in rows.paths]
        self.sorted_ = np.sort(np.maximum(np.concatenate(drawn, axis=2), 0.0), axis=2)
        return self

    def quantiles(self, levels: Floats) -> Floats:
        """Return `[series, window, level]` of the peak; NaN where too little was known."""
        size = self.sorted_.shape[2]
        read: Floats = self.sorted_[..., np.minimum((np.asarray(levels) * size).astype(np.int64), size - 1)]
        return read

    def probability_above(self, limits: Floats) -> Floats:
        """Return, `[series, window]`, the probability that the peak is above each series' limit; NaN = unknown."""
        is_known = np.isfinite(self.sorted_).all(axis=2) & np.isfinite(limits)[:, None]
        share = (self.sorted_ > limits[:, None, None]).mean(axis=2)
        probability: Floats = np.where(is_known, share, np.nan)
        return probability


def judge_exhaustion(
    panel: Panel, quotas: pl.DataFrame, now: datetime, history_min_days: int = 14, policy: OutlookPolicy = _OUTLOOK
) -> pl.DataFrame:
    """Return rows of `exhaustion`: how likely each series' demand (hourly) is to pass its limit within each window.

    The limit of a workspace is its quota in force (table `quota`) where it has one; of everything else, and of a
    workspace without a quota, it is the capacity that its queues told of. A series without either is not judged.
    """
    told = panel.series.with_row_index("row").join(_granted(quotas, now), on=list(KEYS), how="left", nulls_equal=True)
    told = told.sort("row").with_columns(
        limit_gpus=pl.coalesce("quota_gpus", "capacity_gpus"),
        limit_kind=pl.when(pl.col("quota_gpus").is_not_null()).then(pl.lit("quota")).otherwise(pl.lit("capacity")),
    )
    limits = told["limit_gpus"].cast(pl.Float64).to_numpy()
    peaks = PeakForecast(PeakPolicy(windows_h=policy.looked_at_h)).fit(panel.values)
    peaks.sorted_ = peaks.sorted_[panel.place]
    # a longer window holds the shorter one: what is drawn for it separately must not say less
    odds = np.maximum.accumulate(peaks.probability_above(limits), axis=1)
    quantiles = np.maximum.accumulate(peaks.quantiles(np.array([0.5, 0.9])), axis=1)
    dates = {
        "earliest_at": _first_above(odds, policy.possible, policy.looked_at_h, now),
        "likely_at": _first_above(odds, policy.likely, policy.looked_at_h, now),
    }
    known = np.isfinite(panel.values)[panel.place]
    days = (known.shape[1] - known.argmax(axis=1)) / 24 * known.any(axis=1)
    notes = [f"history under {history_min_days} days: {each:.1f}" if each < history_min_days else None for each in days]
    parts = [
        told.select(*KEYS, "limit_kind", "limit_gpus").with_columns(
            pl.lit(window, dtype=pl.Int32).alias("window_hours"),
            pl.Series("probability", odds[:, at], nan_to_null=True),
            pl.Series("peak_gpus", quantiles[:, at, 0], nan_to_null=True),
            pl.Series("peak_gpus_upper_80", quantiles[:, at, 1], nan_to_null=True),
            pl.Series("note", notes, dtype=pl.String),
            pl.lit(now.astimezone(UTC), dtype=UTC_MICROSECONDS).alias("made_at"),
            *(pl.Series(name, each, dtype=UTC_MICROSECONDS) for name, each in dates.items()),
        )
        for window in policy.windows_h
        for at in [policy.looked_at_h.index(window)]
    ]
    return conform(pl.concat(parts).filter(pl.col("limit_gpus").is_not_null()), EXHAUSTION, "stored")


def _granted(quotas: pl.DataFrame, now: datetime) -> pl.DataFrame:
    in_force = check(quotas, QUOTA).filter(
        pl.col("starts_at") <= now, pl.col("ends_at").is_null() | (pl.col("ends_at") > now)
    )
    by_part = in_force.group_by(KEYS).agg(pl.col("gpus").sum().alias("quota_gpus"))
    whole = in_force.group_by("cluster", "workspace").agg(pl.col("gpus").sum().alias("quota_gpus"))
    whole = whole.with_columns(pool=pl.lit(None, pl.String), model=pl.lit(None, pl.String)).select(by_part.columns)
    return pl.concat([by_part.filter(pl.col("pool").is_not_null() | pl.col("model").is_not_null()), whole])


def _first_above(odds: Floats, share: float, windows_h: tuple[int, ...], now: datetime) -> list[datetime | None]:
    passed = odds >= share
    return [
        now.astimezone(UTC) + timedelta(hours=windows_h[int(row.argmax())]) if row.any() else None for row in passed
    ]
