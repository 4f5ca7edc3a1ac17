"""The forecaster of the house: several paths with their analogues, weighed by how each did lately, and calibrated.

The combination is of quantiles: each path's quantiles are averaged with weights that fall off with its recent error for
that series and horizon (exponentially weighted averaging, Cesa-Bianchi and Lugosi 2006, chapter 2). Then the widths are
stretched by the factor that would have been right at several earlier origins (`trials`).
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from analytics.analogues import Likeness, look_up_all, make_rows, recent_error
from analytics.backtest import Floats, Integers
from analytics.centres import CENTRES, DAY, repeat_season
from analytics.trials import LEVELS, MEDIAN, CombinationScore, Trial, score_trials, stretch_of, stretched


@dataclass(frozen=True, slots=True)
class CombinationPolicy:
    """`sharpness`: how fast weight falls with relative error; `memory`: steps in which errors are forgotten by e.

    `calibrations`: earlier origins that the widths are held to. `stretch_max` bounds what they may do. `season` is
    that of the seasonal naive that the trials are scored against.
    """

    stride: int = 6
    sharpness: float = 8.0
    memory: float = 336.0
    calibrations: int = 10
    stretch_min: float = 0.8
    stretch_max: float = 2.5
    season: int = DAY
    likeness: Likeness = field(default_factory=lambda: Likeness(other_kind=0.1, off_record=0.02))


class Combination:
    """Quantile forecasts of all series at once. `fit` learns `rows_`, `trials_` and `stretch_`; predicting reads."""

    def __init__(self, horizon: int, policy: CombinationPolicy = CombinationPolicy()) -> None:
        self.horizon = horizon
        self.policy = policy

    def fit(self, values: Floats, stretch: Floats | None = None) -> Self:
        """Learn from `[series, time]`, NaN for gaps; widths calibrated before (`stretch_`) may be kept for a while."""
        self.values_ = values
        self.steps_ = spread_steps(self.horizon)
        self.rows_ = make_rows(values, self.steps_, CENTRES, self.policy.stride)
        self.trials_ = [self._try(now) for now in self._calibration_origins()] if stretch is None else []
        self.stretch_ = (
            stretch_of(self.trials_, (self.policy.stretch_min, self.policy.stretch_max)) if stretch is None else stretch
        )
        return self

    def predict_quantiles(self) -> Floats:
        """Return `[series, horizon, level]` for `LEVELS`, never negative, in order; NaN where nothing was known.

        Where there is too little history for intervals the median alone is there.
        """
        rows, now = self.rows_, self.rows_.origins.size - 1
        found = stretched(self._combine(now), self.stretch_, rows.span(now))
        path = np.mean([drawn[:, -1] for drawn in rows.paths.values()], axis=0)
        found[..., MEDIAN] = np.where(np.isnan(found[..., MEDIAN]), path, found[..., MEDIAN])
        bounded = np.clip(found, 0.0, (rows.high[:, now] + rows.span(now))[:, None, None])
        is_whole = np.isfinite(bounded).all(axis=2, keepdims=True)
        ordered = np.where(is_whole, np.sort(bounded, axis=2), bounded)
        return _between(ordered, self.steps_, self.horizon)

    def _combine(self, now: int) -> Floats:
        rows, policy = self.rows_, self.policy
        errors = np.stack([recent_error(rows, now, path, policy.memory) for path in rows.paths])
        least = np.maximum(np.nan_to_num(errors, nan=np.inf).min(axis=0), 1e-12)
        weight = np.exp(-policy.sharpness * np.minimum(np.nan_to_num(errors, nan=0.0) / least - 1.0, 100.0))
        weight /= weight.sum(axis=0)
        found = look_up_all(rows, now, policy.likeness, LEVELS)
        combined: Floats = (found * weight[..., None]).sum(axis=0)
        return combined

    def _calibration_origins(self) -> list[int]:
        length = self.values_.shape[1]
        first, last = max(4 * 24, 2 * length // 3), length - min(24, self.horizon)
        if first >= last:
            return []
        moments = np.linspace(first, last, self.policy.calibrations)
        return sorted({int(now) for now in np.searchsorted(self.rows_.origins, moments)} - {0})

    def _try(self, now: int) -> Trial:
        """Return the forecast that would have been made at an earlier origin, with what became of it since."""
        rows = self.rows_
        is_past = rows.origins[now] + rows.reach <= self.values_.shape[1]
        actual = np.where(is_past[None], rows.actual[:, now], np.nan)
        seasonal = repeat_season(self.values_[:, : rows.origins[now]], rows.reach, self.policy.season)
        return Trial(self._combine(now), actual, rows.paths["stay"][:, now], seasonal, rows.span(now))


def spread_steps(horizon: int) -> Integers:
    """Return the steps that are forecast themselves; those between are drawn between them."""
    if horizon <= 24:  # noqa: PLR2004 - a day is forecast hour by hour
        return np.arange(1, horizon + 1)
    early = np.array([1, 2, 4, 6, 9, 12, 18])
    return np.unique(np.concatenate([early, np.arange(24, horizon + 1, 12), [horizon]]))


def _between(found: Floats, steps: Integers, horizon: int) -> Floats:
    if steps.size == horizon:
        return found
    wanted = np.arange(1, horizon + 1)
    right = np.clip(np.searchsorted(steps, wanted), 1, steps.size - 1)
    share = (wanted - steps[right - 1]) / (steps[right] - steps[right - 1])
    drawn: Floats = found[:, right - 1] * (1 - share)[None, :, None] + found[:, right] * share[None, :, None]
    return drawn


def score_combination(combination: Combination) -> CombinationScore:
    """Return how a fitted combination did at its earlier origins."""
    policy = combination.policy
    bounds = (policy.stretch_min, policy.stretch_max)
    return score_trials(combination.trials_, combination.rows_.level.shape[0], bounds)
