"""Score a forecaster of your own by the house's back-test (open as a notebook with jupytext, format py:percent)."""

# %% [markdown]
# # Forecast lab
#
# Score a model of your own by the back-test that the house scores its own models by. A model is a class whose `fit`
# learns from `[series, time]` (NaN for gaps) and whose `predict` returns `[series, horizon]`. Set `SERIES` to a Parquet
# file with `series_id`, `ts` (hourly) and `gpus_in_use` to use data of yours; without one, demand is made up.

# %%
import os
from pathlib import Path

import numpy as np
import polars as pl

from analytics.backtest import back_test
from analytics.combination import Combination, score_combination
from analytics.points import FadingBlend, LastValue, SeasonalNaive

HORIZON_H, SEASON_H = 24, 24
CHANGES = 0.03  # share of made-up hours that begin at another level
SERIES = os.environ.get("SERIES")


# %%
def made_up(series: int = 8, hours: int = 24 * 28, seed: int = 0) -> np.ndarray:
    """Return demand that steps and bursts, as that of tenants does."""
    generator = np.random.default_rng(seed)
    steps = np.where(generator.random((series, hours)) < CHANGES, generator.normal(0, 20, (series, hours)), 0.0)
    return np.clip(40 + np.cumsum(steps, axis=1), 0, 100)


def read(path: Path) -> np.ndarray:
    """Return the hourly series of a file, the last eight weeks."""
    wide = (
        pl.read_parquet(path).pivot("series_id", index="ts", values="gpus_in_use").sort("ts").upsample("ts", every="1h")
    )
    return wide.drop("ts").to_numpy().T.astype(np.float64)[:, -24 * 56 :]


values = made_up() if SERIES is None else read(Path(SERIES))


# %% [markdown]
# ## A model of your own
# This one says the median of the last three days. Put yours in its place.


# %%
class MyModel:
    """What was usual in the last three days goes on."""

    def fit(self, values: np.ndarray) -> "MyModel":
        """Learn the median of the last 72 hours; a gap has no weight."""
        self.median_ = np.nanmedian(values[:, -72:], axis=1)
        return self

    def predict(self, horizon: int) -> np.ndarray:
        """Return it for each hour."""
        return np.repeat(self.median_[:, None], horizon, axis=1)


# %% [markdown]
# ## The score
# Errors are those at up to 200 rolling origins, over the last value's and the seasonal naive's at the same hours: below
# 1 is better. The house's combination is scored at ten origins of the last third.

# %%
models = {
    "last_value": LastValue(),
    "seasonal_naive": SeasonalNaive(SEASON_H),
    "fading_blend": FadingBlend(),
    "mine": MyModel(),
}
scores = back_test(models, values, HORIZON_H, SEASON_H)
ours = score_combination(Combination(HORIZON_H).fit(values))
table = pl.DataFrame(
    [
        {
            "forecaster": name,
            "mase": float(np.nanmean(score.mase)),
            "mase_seasonal": float(np.nanmean(score.mase_seasonal)),
            "coverage_80": float(np.nanmean(score.coverage_80)),
        }
        for name, score in [*scores.items(), ("combination", ours)]
    ]
).sort("mase")
table
