"""Single models that forecast quantiles: those a combination has to beat, in one form.

Theta (Assimakopoulos and Nikolopoulos 2000, in the form of Hyndman and Billah 2003): simple exponential smoothing with
half the slope of the linear trend, on values whose daily shape is taken out where it shows (the autocorrelation test of
the M3 competition). The boosted model learns all series together, scaled by their range.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from analytics.backtest import Floats, Forecaster, Integers, choose_origins, roll
from analytics.centres import DAY, WEEK, fill_forward
from analytics.combination import spread_steps
from analytics.trials import LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.ensemble import HistGradientBoostingRegressor

_SMOOTHING = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99)
_SEASONAL_Z = 1.645


class QuantileForecaster(Protocol):
    """Learns from `[series, time]` with NaN for gaps; predicts `[series, horizon, level]` for `LEVELS`."""

    def fit(self, values: Floats) -> Self:
        """Learn from what was known up to now."""
        ...

    def predict_quantiles(self) -> Floats:
        """Return quantiles in order, never negative; NaN where nothing was known."""
        ...


class Theta:
    """Exponential smoothing drifting with half the trend, with a daily shape where there is one."""

    def __init__(self, season: int = DAY) -> None:
        self.season = season

    def fit(self, values: Floats) -> Self:
        """Learn level, drift and daily shape of each series; a gap counts as the last value known before it."""
        filled = fill_forward(values)
        self.shape_ = _daily_shape(filled, self.season)
        self.phase_ = values.shape[1] % self.season
        smooth = filled - np.take(self.shape_, np.arange(values.shape[1]) % self.season, axis=1)
        self.level_, self.weight_ = _smooth(smooth)
        self.slope_ = _slope(smooth)
        self.length_ = values.shape[1]
        return self

    def predict(self, horizon: int) -> Floats:
        """Return the path of each series."""
        ahead = np.arange(horizon)
        settled = (1.0 - (1.0 - self.weight_) ** self.length_) / self.weight_
        drift = 0.5 * self.slope_[:, None] * (ahead[None] + settled[:, None])
        path: Floats = self.level_[:, None] + drift + self.shape_[:, (self.phase_ + ahead) % self.season]
        return path


@dataclass
class Conformal:
    """A path forecaster with split-conformal quantiles from its own rolling-origin errors."""

    path: Forecaster
    horizon: int
    season: int = DAY

    def fit(self, values: Floats) -> Self:
        """Learn the path's errors at earlier origins, and the path from now."""
        origins = _dense_origins(values.shape[1], self.horizon, self.season)
        self.residuals_ = roll_to_now(self.path, values, self.horizon, origins)
        self.median_ = self.path.fit(values).predict(self.horizon)
        return self

    def predict_quantiles(self) -> Floats:
        """Return the path shifted by the quantiles of its errors at each step; the path itself is the median."""
        with np.errstate(all="ignore"):
            offsets = np.moveaxis(_quantiles(self.residuals_), 0, -1)
        middle = LEVELS.size // 2
        offsets[..., middle] = 0.0
        offsets[..., :middle] = np.minimum(offsets[..., :middle], 0.0)
        offsets[..., middle + 1 :] = np.maximum(offsets[..., middle + 1 :], 0.0)
        found: Floats = np.maximum(self.median_[..., None] + offsets, 0.0)
        return found


class BoostedQuantiles:
    """One gradient-boosted tree model a level for all series: lags, levels and calendar, in units of each range."""

    def __init__(self, horizon: int, seed: int = 0, rows_max: int = 40_000) -> None:
        self.horizon = horizon
        self.seed = seed
        self.rows_max = rows_max

    def fit(self, values: Floats) -> Self:
        """Learn from the origins every 6 hours of all series."""
        self.steps_ = spread_steps(self.horizon)
        filled = fill_forward(values)
        low = filled.min(axis=1)
        span = np.maximum(filled.max(axis=1) - low, 1e-9)
        scaled = (filled - low[:, None]) / span[:, None]
        origins = np.arange(values.shape[1] - 1, min(WEEK, values.shape[1] // 2), -6)[::-1]
        later = origins[:, None] + self.steps_[None] - 1
        is_there = later < values.shape[1]
        target = np.where(
            is_there, ((values - low[:, None]) / span[:, None])[:, np.minimum(later, values.shape[1] - 1)], np.nan
        )
        features, targets = _flat(_features(scaled, origins), self.steps_, target)
        generator = np.random.default_rng(self.seed)
        if targets.size > self.rows_max:
            kept = generator.choice(targets.size, self.rows_max, replace=False)
            features, targets = features[kept], targets[kept]
        self.models_ = [_boost(level, self.seed).fit(features, targets) for level in LEVELS]
        now = np.array([values.shape[1]])
        self.now_, _ = _flat(_features(scaled, now), self.steps_, None)
        self.scale_ = (low, span)
        return self

    def predict_quantiles(self) -> Floats:
        """Return the quantiles of each series, drawn between the steps that were learnt."""
        low, span = self.scale_
        made = np.stack([model.predict(self.now_).reshape(low.size, self.steps_.size) for model in self.models_], -1)
        found = np.sort(np.maximum(made * span[:, None, None] + low[:, None, None], 0.0), axis=-1)
        wanted = np.arange(1, self.horizon + 1)
        return np.stack(
            [
                np.stack([np.interp(wanted, self.steps_, row[:, level]) for level in range(LEVELS.size)], -1)
                for row in found
            ]
        )


def roll_to_now(forecaster: Forecaster, values: Floats, horizon: int, origins: Integers) -> Floats:
    """Return residuals `[series, origin, horizon]` as `roll` does, NaN where a step lies past the end."""
    padded = np.concatenate([values, np.full((values.shape[0], horizon), np.nan)], axis=1)
    return roll(forecaster, padded, horizon, origins)


def _dense_origins(length: int, horizon: int, season: int) -> Integers:
    known = choose_origins(length + horizon - 1, horizon, 2 * season, season)
    return known[known < length]


def _quantiles(residuals: Floats) -> Floats:
    known: NDArray[np.bool_] = np.asarray(np.isfinite(residuals).any(axis=1))
    filled = np.where(known[:, None, :], residuals, 0.0)
    found = np.nanquantile(filled, LEVELS, axis=1)
    blank: Floats = np.where(known[None], found, np.nan)
    return blank


def _daily_shape(filled: Floats, season: int) -> Floats:
    """Return the mean of each place of the season less the overall mean; zero where autocorrelation shows none."""
    length = filled.shape[1]
    if length < 3 * season:
        return np.zeros((filled.shape[0], season))
    centred = filled - filled.mean(axis=1, keepdims=True)
    power = np.maximum((centred**2).sum(axis=1), 1e-12)
    lags = [(centred[:, lag:] * centred[:, :-lag]).sum(axis=1) / power for lag in range(1, season + 1)]
    limit = _SEASONAL_Z * np.sqrt((1 + 2 * np.sum(np.square(lags[:-1]), axis=0)) / length)
    whole = length // season * season
    recent = centred[:, length - whole :].reshape(filled.shape[0], -1, season)
    shape = np.roll(recent.mean(axis=1), length % season, axis=1)
    shown: Floats = np.where((np.abs(lags[-1]) > limit)[:, None], shape, 0.0)
    return shown


def _smooth(values: Floats) -> tuple[Floats, Floats]:
    """Return level and smoothing weight of each series: the weight with the least squared one-step error."""
    levels, lost = [], []
    for weight in _SMOOTHING:
        level, error = values[:, 0].copy(), np.zeros(values.shape[0])
        for step in range(1, values.shape[1]):
            miss = values[:, step] - level
            error += miss**2
            level = level + weight * miss
        levels.append(level)
        lost.append(error)
    best = np.argmin(np.stack(lost), axis=0)
    series = np.arange(values.shape[0])
    return np.stack(levels)[best, series], np.array(_SMOOTHING)[best]


def _slope(values: Floats) -> Floats:
    time = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    slope: Floats = values @ time / max(float((time**2).sum()), 1e-12)
    return slope


def _features(scaled: Floats, origins: Integers) -> Floats:
    """Return `[series, origin, feature]`: last value, means and extremes of windows, seasonal lags, recent change."""
    parts = [scaled[:, origins - 1]]
    for window in (6, 24, 72, 168, 336):
        pieces = [scaled[:, max(0, end - window) : end] for end in origins]
        parts.append(np.stack([piece.mean(axis=1) for piece in pieces], axis=1))
        parts.append(np.stack([piece.std(axis=1) for piece in pieces], axis=1))
    parts += [scaled[:, np.maximum(origins - lag, 0)] for lag in (24, 48, 168)]
    parts.append(np.broadcast_to(origins % DAY, parts[0].shape).astype(np.float64))
    parts.append(np.broadcast_to(origins // DAY % 7, parts[0].shape).astype(np.float64))
    return np.stack(parts, axis=-1)


def _flat(features: Floats, steps: Integers, target: Floats | None) -> tuple[Floats, Floats]:
    series, origins, width = features.shape
    wide = np.broadcast_to(features[:, :, None, :], (series, origins, steps.size, width))
    step = np.broadcast_to(steps[None, None, :, None].astype(np.float64), (series, origins, steps.size, 1))
    rows = np.concatenate([wide, step], axis=-1).reshape(-1, width + 1)
    if target is None:
        return rows, np.empty(0)
    flat = target.reshape(-1)
    kept: NDArray[np.bool_] = np.isfinite(flat)
    return rows[kept], flat[kept]


def _boost(level: float, seed: int) -> "HistGradientBoostingRegressor":
    from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415 - only comparisons need it

    return HistGradientBoostingRegressor(
        loss="quantile", quantile=level, max_iter=60, max_leaf_nodes=15, min_samples_leaf=50, random_state=seed
    )
