"""Forecasts made at earlier origins: how wide they should have been, and how good they were.

Widths are conformal: the factor on the half-widths that would have been right for the trials (conformalised quantile
regression, Romano and others 2019, with the factor on the half-width).
"""

from dataclasses import dataclass

import numpy as np

from analytics.backtest import Floats, Integers

LEVELS = np.array([0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975])
MEDIAN = 3
STRETCHED = ("stretch_95", "stretch_80", "stretch_50")
_CALIBRATED = ((0, 6, 0.95), (1, 5, 0.80), (2, 4, 0.50))
_SCORES_MIN = 50


@dataclass(frozen=True, slots=True)
class Trial:
    """A forecast made at an earlier origin: `found` `[series, step, level]`, and what came.

    `last` and `seasonal` are what the last value and the seasonal naive said then.
    """

    found: Floats
    actual: Floats
    last: Floats
    seasonal: Floats
    span: Floats


@dataclass(frozen=True, slots=True)
class CombinationScore:
    """What the trials say, an array with one number a series each; NaN = could not be told.

    `mase` is the median's absolute error over the last value's (below 1 is better), `mase_seasonal` over the seasonal
    naive's, `mae` the error itself in GPUs. `wql` (the weighted quantile loss of 0.1, 0.5, 0.9) and coverages are of
    the later half of the trials, with widths held to the earlier half. `points` is how many hours were scored.
    """

    mase: Floats
    mase_seasonal: Floats
    mae: Floats
    wql: Floats
    coverage_80: Floats
    coverage_95: Floats
    points: Integers


def score_trials(trials: list[Trial], series: int, bounds: tuple[float, float]) -> CombinationScore:
    """Return how the forecasts made at earlier origins did, for each of `series` series."""
    if not trials:
        blank = np.full(series, np.nan)
        return CombinationScore(blank, blank, blank, blank, blank, blank, np.zeros(series, dtype=np.int64))
    actual = np.stack([trial.actual for trial in trials], axis=1)
    median = np.stack([trial.found[..., MEDIAN] for trial in trials], axis=1)
    last = np.stack([trial.last for trial in trials], axis=1)
    seasonal = np.stack([trial.seasonal for trial in trials], axis=1)
    is_scored = np.isfinite(actual) & np.isfinite(median) & np.isfinite(last) & np.isfinite(seasonal)
    points: Integers = is_scored.sum(axis=(1, 2))
    lost, lost_last, lost_seasonal = (
        np.where(is_scored, np.abs(actual - path), 0.0).sum(axis=(1, 2)) for path in (median, last, seasonal)
    )
    half = len(trials) // 2
    stretch = stretch_of(trials[:half], bounds)
    later = [(trial.actual, stretched(trial.found, stretch, trial.span)) for trial in trials[half:]]
    with np.errstate(invalid="ignore", divide="ignore"):
        return CombinationScore(
            lost / lost_last, lost / lost_seasonal, lost / points, _quantile_loss(later),
            _covered(later, 1, 5), _covered(later, 0, 6), points,
        )  # fmt: skip


def stretch_of(trials: list[Trial], bounds: tuple[float, float]) -> Floats:
    """Return the factor for each pair of ends that would have been right for the trials, 1 where they are too few.

    The order is that of `STRETCHED`; `bounds` is what it may be at least and at most.
    """
    stretch = np.ones(len(_CALIBRATED))
    for place, (low, high, share) in enumerate(_CALIBRATED):
        scores = [_misfit(trial.actual, trial.found, low, high, trial.span).ravel() for trial in trials]
        held = np.concatenate(scores) if scores else np.empty(0)
        held = held[np.isfinite(held)]
        if held.size >= _SCORES_MIN:
            stretch[place] = np.clip(np.quantile(held, share), *bounds)
    return stretch


def _misfit(actual: Floats, found: Floats, low: int, high: int, span: Floats) -> Floats:
    """Return by which factor the half-width on the actual's side would have just reached it."""
    median, hair = found[..., MEDIAN], np.where(span > 0, 0.01 * span, 1.0)[:, None]
    above = (actual - median) / (found[..., high] - median + hair)
    below = (median - actual) / (median - found[..., low] + hair)
    misfit: Floats = np.where(span[:, None] > 0, np.where(actual >= median, above, below), np.nan)
    return misfit


def stretched(found: Floats, stretch: Floats, span: Floats) -> Floats:
    """Return quantiles with half-widths times their factor, and a hair more where a width is nothing."""
    result = found.copy()
    median, hair = found[..., MEDIAN], 0.01 * span[:, None]
    for (low, high, _), factor in zip(_CALIBRATED, stretch, strict=True):
        more = hair * max(0.0, factor - 1.0)
        result[..., high] = median + (found[..., high] - median) * factor + more
        result[..., low] = median - (median - found[..., low]) * factor - more
    return result


def _quantile_loss(trials: list[tuple[Floats, Floats]]) -> Floats:
    """Return twice the mean pinball loss at 0.1, 0.5 and 0.9 over the mean of what came."""
    actual = np.stack([each[0] for each in trials], axis=1)
    found = np.stack([each[1] for each in trials], axis=1)
    is_scored = np.isfinite(actual) & np.isfinite(found).all(axis=3)
    held = np.where(is_scored, actual, 0.0)
    lost = np.zeros(actual.shape[0])
    for place in (1, MEDIAN, 5):
        miss = held - np.where(is_scored, found[..., place], 0.0)
        lost += np.maximum(LEVELS[place] * miss, (LEVELS[place] - 1.0) * miss).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        loss: Floats = 2.0 * lost / 3.0 / np.abs(held).sum(axis=(1, 2))
    return np.where(np.isfinite(loss), loss, np.nan)


def _covered(trials: list[tuple[Floats, Floats]], low: int, high: int) -> Floats:
    actual = np.stack([each[0] for each in trials], axis=1)
    found = np.stack([each[1] for each in trials], axis=1)
    is_scored = np.isfinite(actual) & np.isfinite(found).all(axis=3)
    inside = is_scored & (actual >= found[..., low]) & (actual <= found[..., high])
    with np.errstate(invalid="ignore"):
        share: Floats = inside.sum(axis=(1, 2)) / is_scored.sum(axis=(1, 2))
    return share
