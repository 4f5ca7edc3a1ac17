"""The forecaster of the house: several paths with their analogues, weighed by how each did lately, and calibrated.

The combination is of quantiles: each path's quantiles are averaged with weights that fall off with its recent error for
that series and horizon (exponentially weighted averaging, Cesa-Bianchi and Lugosi 2006, chapter 2). Then the widths are
stretched by the factor that would have been right at several earlier origins (conformalised quantile regression, Romano
and others 2019, with the factor on the half-width).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from analytics.analogues import Likeness, Rows, look_up, make_rows, recent_error
from analytics.backtest import Floats, Integers
from analytics.centres import CENTRES

LEVELS = np.array([0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975])
_MEDIAN = 3
_CALIBRATED = ((0, 6, 0.95), (1, 5, 0.80), (2, 4, 0.50))
_SCORES_MIN = 50


@dataclass(frozen=True, slots=True)
class CombinationPolicy:
    """`sharpness`: how fast weight falls with relative error; `memory`: steps in which errors are forgotten by e.

    `calibrations`: earlier origins that the widths are held to. `stretch_max` bounds what they may do.
    """

    stride: int = 6
    sharpness: float = 8.0
    memory: float = 336.0
    calibrations: int = 6
    stretch_min: float = 0.8
    stretch_max: float = 2.5
    likeness: Likeness = Likeness()


class Combination:
    """Quantile forecasts of all series at once. `fit` learns `rows_` and `stretch_`; `predict_quantiles` reads."""

    def __init__(self, horizon: int, policy: CombinationPolicy = CombinationPolicy()) -> None:
        self.horizon = horizon
        self.policy = policy

    def fit(self, values: Floats) -> Self:
        """Learn from `[series, time]`, NaN for gaps."""
        self.values_ = values
        self.steps_ = spread_steps(self.horizon)
        self.rows_ = make_rows(values, self.steps_, CENTRES, self.policy.stride)
        self.stretch_ = self._calibrate(self.rows_)
        return self

    def predict_quantiles(self) -> Floats:
        """Return `[series, horizon, level]` for `LEVELS`, never negative, in order; NaN where nothing was known.

        Where there is too little history for intervals the median alone is there.
        """
        rows = self.rows_
        found = _stretched(self._combine(rows, rows.origins.size - 1), self.stretch_, rows.span)
        path = np.mean([drawn[:, -1] for drawn in rows.paths.values()], axis=0)
        found[..., _MEDIAN] = np.where(np.isnan(found[..., _MEDIAN]), path, found[..., _MEDIAN])
        highest = np.where(np.isfinite(self.values_), self.values_, -np.inf).max(axis=1, initial=-np.inf)
        bounded = np.clip(found, 0.0, (highest + rows.span)[:, None, None])
        is_whole = np.isfinite(bounded).all(axis=2, keepdims=True)
        ordered = np.where(is_whole, np.sort(bounded, axis=2), bounded)
        return _between(ordered, self.steps_, self.horizon)

    def _combine(self, rows: Rows, now: int) -> Floats:
        policy = self.policy
        errors = np.stack([recent_error(rows, now, path, policy.memory) for path in rows.paths])
        least = np.maximum(np.nanmin(np.nan_to_num(errors, nan=np.inf), axis=0), 1e-12)
        weight = np.exp(-policy.sharpness * np.minimum(np.nan_to_num(errors, nan=0.0) / least - 1.0, 100.0))
        weight /= weight.sum(axis=0)
        found = np.stack([look_up(rows, now, path, policy.likeness, LEVELS) for path in rows.paths])
        combined: Floats = (found * weight[..., None]).sum(axis=0)
        return combined

    def _calibrate(self, rows: Rows) -> Floats:
        """Return the factor for each pair of ends, 1 where there was too little to tell."""
        length, count = self.values_.shape[1], self.policy.calibrations
        first = max(4 * 24, 2 * length // 3)
        scores: list[list[Floats]] = [[] for _ in _CALIBRATED]
        for moment in np.linspace(first, length - min(24, self.horizon), count) if first < length else ():
            now = int(np.searchsorted(rows.origins, moment))
            if not 0 < now < rows.origins.size - 1:
                continue
            found, actual = self._combine(rows, now), rows.actual[:, now]
            for place, (low, high, _) in enumerate(_CALIBRATED):
                score = _misfit(actual, found, low, high, rows.span)
                scores[place].append(score[np.isfinite(score)])
        stretch = np.ones(len(_CALIBRATED))
        for place, (_, _, share) in enumerate(_CALIBRATED):
            held = np.concatenate(scores[place]) if scores[place] else np.empty(0)
            if held.size >= _SCORES_MIN:
                stretch[place] = np.clip(np.quantile(held, share), self.policy.stretch_min, self.policy.stretch_max)
        return stretch


def spread_steps(horizon: int) -> Integers:
    """Return the steps that are forecast themselves; those between are drawn between them."""
    if horizon <= 24:  # noqa: PLR2004 - a day is forecast hour by hour
        return np.arange(1, horizon + 1)
    early = np.array([1, 2, 4, 6, 9, 12, 18])
    return np.unique(np.concatenate([early, np.arange(24, horizon + 1, 12), [horizon]]))


def _misfit(actual: Floats, found: Floats, low: int, high: int, span: Floats) -> Floats:
    """Return by which factor the half-width on the actual's side would have just reached it."""
    median, hair = found[..., _MEDIAN], np.where(span > 0, 0.01 * span, 1.0)[:, None]
    above = (actual - median) / (found[..., high] - median + hair)
    below = (median - actual) / (median - found[..., low] + hair)
    misfit: Floats = np.where(span[:, None] > 0, np.where(actual >= median, above, below), np.nan)
    return misfit


def _stretched(found: Floats, stretch: Floats, span: Floats) -> Floats:
    result = found.copy()
    median, hair = found[..., _MEDIAN], 0.01 * span[:, None]
    for (low, high, _), factor in zip(_CALIBRATED, stretch, strict=True):
        more = hair * max(0.0, factor - 1.0)
        result[..., high] = median + (found[..., high] - median) * factor + more
        result[..., low] = median - (median - found[..., low]) * factor - more
    return result


def _between(found: Floats, steps: Integers, horizon: int) -> Floats:
    if steps.size == horizon:
        return found
    wanted = np.arange(1, horizon + 1)
    right = np.clip(np.searchsorted(steps, wanted), 1, steps.size - 1)
    share = (wanted - steps[right - 1]) / (steps[right] - steps[right - 1])
    drawn: Floats = found[:, right - 1] * (1 - share)[None, :, None] + found[:, right] * share[None, :, None]
    return drawn
