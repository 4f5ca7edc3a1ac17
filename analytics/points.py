"""The plain forecasters: a number for each step ahead, from what was known. They are the bar for everything else."""

from typing import Self

import numpy as np

from analytics.backtest import Floats


class LastValue:
    """What was last known stays."""

    def fit(self, values: Floats) -> Self:
        """Learn the last known value."""
        self.last_ = _last_known(values)
        return self

    def predict(self, horizon: int) -> Floats:
        """Return it for each step."""
        return np.repeat(self.last_[..., None], horizon, axis=-1)


class SeasonalNaive:
    """What was last known at the same place of the season comes again; else the last value."""

    def __init__(self, season: int = 24, seasons_back: int = 8) -> None:
        self.season = season
        self.seasons_back = seasons_back

    def fit(self, values: Floats) -> Self:
        """Learn the last known value of each place of the season."""
        recent = values[..., -self.season * self.seasons_back :]
        missing = self.season * self.seasons_back - recent.shape[-1]
        padded = np.concatenate([np.full((*recent.shape[:-1], missing), np.nan), recent], axis=-1)
        by_season = padded.reshape(*recent.shape[:-1], self.seasons_back, self.season)
        pattern = _last_known(np.swapaxes(by_season, -1, -2))
        self.pattern_ = np.where(np.isnan(pattern), _last_known(values)[..., None], pattern)
        return self

    def predict(self, horizon: int) -> Floats:
        """Return the pattern, again and again."""
        pattern: Floats = self.pattern_[..., np.arange(horizon) % self.season]
        return pattern


class FadingBlend:
    """The last value first, then more and more the recent mean: the last value's weight fades by e in `fade` steps.

    The mean itself forgets by e in `memory` steps; a gap has no weight in it.
    """

    def __init__(self, fade: float = 24.0, memory: float = 72.0) -> None:
        self.fade = fade
        self.memory = memory

    def fit(self, values: Floats) -> Self:
        """Learn the last known value and the mean that forgets."""
        self.last_ = _last_known(values)
        recent = values[..., -int(6 * self.memory) :]  # what is older weighs less than 0.3 %
        known = np.isfinite(recent)
        weights = np.exp(-np.arange(recent.shape[-1])[::-1] / self.memory)
        weight = known.astype(np.float64) @ weights
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (np.where(known, recent, 0.0) @ weights) / weight
        self.mean_ = np.where(weight > 0, mean, self.last_)
        return self

    def predict(self, horizon: int) -> Floats:
        """Return the blend for each step."""
        share = np.exp(-np.arange(1, horizon + 1) / self.fade)
        blend: Floats = self.mean_[..., None] + (self.last_ - self.mean_)[..., None] * share
        return blend


def _last_known(values: Floats) -> Floats:
    """Return the last value along the last axis that is not NaN; NaN where there is none."""
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    place = values.shape[-1] - 1 - np.isfinite(values)[..., ::-1].argmax(axis=-1)
    last: Floats = np.take_along_axis(values, place[..., None], axis=-1)[..., 0]
    return last
