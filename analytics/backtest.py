"""Rolling-origin back-tests: how far each forecaster was off, and what intervals its errors allow.

Arrays are `[series, time]`; residuals are `[series, origin, horizon]`, actual minus forecast, NaN where either is
not known. Everything is numpy and works on all series at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LAST_VALUE = "last_value"
ORIGINS_MAX = 200


class Forecaster(Protocol):
    """Learns from `[..., time]` with NaN for gaps and predicts `[..., horizon]`."""

    def fit(self, values: Floats) -> Self:
        """Learn from what was known up to the origin."""
        ...

    def predict(self, horizon: int) -> Floats:
        """Return the next `horizon` steps, NaN where nothing was ever known."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """What a back-test says of one forecaster, an array with one number a series each; NaN = could not be told.

    `mase` is its error over the last value's at the same horizon (below 1 is better), `mase_seasonal` the last
    value's place taken by the seasonal naive. Coverages come from the later half of the origins, with intervals
    from residuals of the earlier half that were known by then.
    """

    mase: Floats
    mase_seasonal: Floats
    coverage_80: Floats
    coverage_95: Floats
    residuals: Floats


def choose_origins(length: int, horizon: int, training: int, season: int) -> Integers:
    """Return the positions that forecasts start from, `training` steps behind the first, `horizon` left at the last.

    At most `ORIGINS_MAX`, with a stride that has no factor in common with the season, so that all hours of the
    day serve as origins.
    """
    span = length - horizon - training
    if span < 0:
        return np.empty(0, dtype=np.int64)
    stride = max(1, math.ceil((span + 1) / ORIGINS_MAX))
    while math.gcd(stride, season) > 1:
        stride += 1
    return np.arange(length - horizon, training - 1, -stride, dtype=np.int64)[::-1]


def roll(forecaster: Forecaster, values: Floats, horizon: int, origins: Integers) -> Floats:
    """Return the residuals of a forecaster that sees, at each origin, only what lies before it."""
    residuals = np.full((values.shape[0], origins.size, horizon), np.nan)
    for place, origin in enumerate(origins):
        forecast = forecaster.fit(values[:, :origin]).predict(horizon)
        residuals[:, place, :] = values[:, origin : origin + horizon] - forecast
    return residuals


def scaled_error(residuals: Floats, reference: Floats) -> Floats:
    """Return, for each series, the mean over horizons of the absolute error over the reference's at that horizon.

    Only points that both were scored on count. NaN where there are none or where both were never off;
    infinite where only the reference was never off.
    """
    known = np.isfinite(residuals) & np.isfinite(reference)
    own = np.where(known, np.abs(residuals), 0.0).sum(axis=1)
    other = np.where(known, np.abs(reference), 0.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _mean_of_known(own / other)


def conformal_offsets(residuals: Floats, share: float) -> tuple[Floats, Floats]:
    """Return what to add to a forecast for the lower and upper end of its interval, `[series, horizon]`.

    Split-conformal with one tail each side: the ends are order statistics of the residuals at that horizon, with
    the correction for their finite number. Infinite where there are too few (a 95 % interval takes 39).
    """
    ordered = np.sort(residuals, axis=1)  # NaN come last
    count = np.isfinite(residuals).sum(axis=1)
    tail = (1.0 - share) / 2.0
    # the hair keeps 40 * 0.025 = 1.0000000000000009 from asking for one residual more
    below = np.floor((count + 1) * tail + 1e-9).astype(np.int64)
    enough = below >= 1
    if ordered.shape[1] == 0:
        return np.full(count.shape, -np.inf), np.full(count.shape, np.inf)
    lower = np.take_along_axis(ordered, np.where(enough, below - 1, 0)[:, None, :], axis=1)[:, 0, :]
    upper = np.take_along_axis(ordered, np.where(enough, count - below, 0)[:, None, :], axis=1)[:, 0, :]
    return np.where(enough, lower, -np.inf), np.where(enough, upper, np.inf)


def coverage(residuals: Floats, share: float, origins: Integers) -> Floats:
    """Return, for each series, the share of the later half's points inside intervals made from the earlier half.

    Points whose interval could not be made (too few residuals) do not count; NaN where none is left.
    """
    half = origins.size // 2
    if half == 0:
        return np.full(residuals.shape[0], np.nan)
    # an interval given at the first origin of the later half knows only what had happened by then
    known_by = origins[:half, None] + np.arange(residuals.shape[2])[None, :] < origins[half]
    lower, upper = conformal_offsets(np.where(known_by[None], residuals[:, :half], np.nan), share)
    later = residuals[:, half:]
    scored = np.isfinite(later) & np.isfinite(lower)[:, None, :]
    inside = scored & (later >= lower[:, None, :]) & (later <= upper[:, None, :])
    with np.errstate(invalid="ignore"):
        ratio: Floats = inside.sum(axis=(1, 2)) / scored.sum(axis=(1, 2))
    return ratio


def back_test(
    forecasters: Mapping[str, Forecaster], values: Floats, horizon: int, season: int, seasonal: str = "seasonal_naive"
) -> dict[str, Score]:
    """Score each forecaster over the same rolling origins; `forecasters` must hold `last_value` and `seasonal`."""
    origins = choose_origins(values.shape[1], horizon, 2 * season, season)
    residuals = {name: roll(forecaster, values, horizon, origins) for name, forecaster in forecasters.items()}
    return {
        name: Score(
            mase=scaled_error(own, residuals[LAST_VALUE]),
            mase_seasonal=scaled_error(own, residuals[seasonal]),
            coverage_80=coverage(own, 0.80, origins),
            coverage_95=coverage(own, 0.95, origins),
            residuals=own,
        )
        for name, own in residuals.items()
    }


def _mean_of_known(ratios: Floats) -> Floats:
    known = ~np.isnan(ratios)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, ratios, 0.0).sum(axis=1) / known.sum(axis=1)
    return mean
