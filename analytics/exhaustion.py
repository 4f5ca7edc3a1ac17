"""Will demand pass what there is, within a window? The window's peak is forecast itself.

Taking the highest of many hourly probabilities would count one long burst again and again, so what is looked up is how
high the windows went that followed moments like this one (`make_peak_rows`): once from the last value, once from the
peak of the window just before. Both distributions count alike.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from analytics.analogues import Likeness, look_up, make_peak_rows
from analytics.backtest import Floats

_LEVELS = (np.arange(200) + 0.5) / 200


@dataclass(frozen=True, slots=True)
class PeakPolicy:
    """`windows_h` are the windows asked for; `stride` the steps between the past moments that are compared."""

    windows_h: tuple[int, ...] = (24, 168, 720)
    stride: int = 6
    likeness: Likeness = field(default_factory=Likeness)


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
