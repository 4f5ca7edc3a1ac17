"""The forecaster of the house: several paths with their analogues, weighed by how each did lately, and calibrated.

The combination is of quantiles: each path's quantiles are averaged with weights that fall off with its recent error for
that series and horizon (exponentially weighted averaging, Cesa-Bianchi and Lugosi 2006, chapter 2). Then the widths are
stretched by the factor that would have been right at several earlier origins (conformalised quantile regression, Romano
and others 2019, with the factor on the half-width).
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from analytics.analogues import Likeness, look_up, make_rows, recent_error
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
    calibrations: int = 10
    stretch_min: float = 0.8
    stretch_max: float = 2.5
    likeness: Likeness = field(default_factory=Likeness)


@dataclass(frozen=True, slots=True)
class Trial:
    """A forecast made at an earlier origin: `found` `[series, step, level]`, what came, and the last value then."""

    found: Floats
    actual: Floats
    last: Floats
    span: Floats


@dataclass(frozen=True, slots=True)
class CombinationScore:
    """What the trials say, an array with one number a series each; NaN = could not be told.

    `mase` is the median's absolute error over the last value's (below 1 is better). Coverages are of the later half of
    the trials, with widths held to the earlier half.
    """

    mase: Floats
    coverage_80: Floats
    coverage_95: Floats


class Combination:
    """Quantile forecasts of all series at once. `fit` learns `rows_`, `trials_` and `stretch_`; predicting reads."""

    def __init__(self, horizon: int, policy: CombinationPolicy = CombinationPolicy()) -> None:
        self.horizon = horizon
        self.policy = policy

    def fit(self, values: Floats) -> Self:
        """Learn from `[series, time]`, NaN for gaps."""
        self.values_ = values
        self.steps_ = spread_steps(self.horizon)
        self.rows_ = make_rows(values, self.steps_, CENTRES, self.policy.stride)
        self.trials_ = [self._try(now) for now in self._calibration_origins()]
        self.stretch_ = _stretch(self.trials_, self.policy)
        return self

    def predict_quantiles(self) -> Floats:
        """Return `[series, horizon, level]` for `LEVELS`, never negative, in order; NaN where nothing was known.

        Where there is too little history for intervals the median alone is there.
        """
        rows, now = self.rows_, self.rows_.origins.size - 1
        found = _stretched(self._combine(now), self.stretch_, rows.span(now))
        path = np.mean([drawn[:, -1] for drawn in rows.paths.values()], axis=0)
        found[..., _MEDIAN] = np.where(np.isnan(found[..., _MEDIAN]), path, found[..., _MEDIAN])
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
        found = np.stack([look_up(rows, now, path, policy.likeness, LEVELS) for path in rows.paths])
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
        return Trial(self._combine(now), actual, rows.paths["stay"][:, now], rows.span(now))


def score_combination(combination: Combination) -> CombinationScore:
    """Return how a fitted combination did at its earlier origins."""
    trials = combination.trials_
    series = combination.rows_.level.shape[0]
    unknown = np.full(series, np.nan)
    if not trials:
        return CombinationScore(unknown, unknown, unknown)
    actual = np.stack([trial.actual for trial in trials], axis=1)
    median = np.stack([trial.found[..., _MEDIAN] for trial in trials], axis=1)
    last = np.stack([trial.last for trial in trials], axis=1)
    is_scored = np.isfinite(actual) & np.isfinite(median) & np.isfinite(last)
    with np.errstate(invalid="ignore", divide="ignore"):
        lost = np.where(is_scored, np.abs(actual - median), 0.0).sum(axis=(1, 2))
        mase: Floats = lost / np.where(is_scored, np.abs(actual - last), 0.0).sum(axis=(1, 2))
    half = len(trials) // 2
    stretch = _stretch(trials[:half], combination.policy)
    later = [(trial.actual, _stretched(trial.found, stretch, trial.span)) for trial in trials[half:]]
    return CombinationScore(mase, *(_covered(later, low, high) for low, high in ((1, 5), (0, 6))))


def _covered(trials: list[tuple[Floats, Floats]], low: int, high: int) -> Floats:
    actual = np.stack([each[0] for each in trials], axis=1)
    found = np.stack([each[1] for each in trials], axis=1)
    is_scored = np.isfinite(actual) & np.isfinite(found).all(axis=3)
    inside = is_scored & (actual >= found[..., low]) & (actual <= found[..., high])
    with np.errstate(invalid="ignore"):
        share: Floats = inside.sum(axis=(1, 2)) / is_scored.sum(axis=(1, 2))
    return share


def _stretch(trials: list[Trial], policy: CombinationPolicy) -> Floats:
    """Return the factor for each pair of ends that would have been right for the trials, 1 where they are too few."""
    stretch = np.ones(len(_CALIBRATED))
    for place, (low, high, share) in enumerate(_CALIBRATED):
        scores = [_misfit(trial.actual, trial.found, low, high, trial.span).ravel() for trial in trials]
        held = np.concatenate(scores) if scores else np.empty(0)
        held = held[np.isfinite(held)]
        if held.size >= _SCORES_MIN:
            stretch[place] = np.clip(np.quantile(held, share), policy.stretch_min, policy.stretch_max)
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
