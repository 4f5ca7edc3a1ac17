"""Where a series is headed, drawn from many origins at once: the middle paths that the combination weighs.

Arrays are `[series, time]` with NaN for gaps; paths are `[series, origin, horizon]`. A path from an origin reads only
what lies before it.
"""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from analytics.backtest import Floats, Integers

DAY = 24
WEEK = 168

Centre = Callable[[Floats, Integers, Integers], Floats]


def fill_forward(values: Floats) -> Floats:
    """Return `values` with each gap at the last value known before it; the first known value stands before itself."""
    known = np.isfinite(values)
    places = np.where(known, np.arange(values.shape[1]), 0)
    places = np.maximum.accumulate(places, axis=1)
    first = np.where(known.any(axis=1), known.argmax(axis=1), 0)
    filled: Floats = np.take_along_axis(values, np.maximum(places, first[:, None]), axis=1)
    return filled


def stay(filled: Floats, origins: Integers, steps: Integers) -> Floats:
    """Return the last value, for every step."""
    return np.repeat(filled[:, origins - 1][:, :, None], steps.size, axis=2)


def repeat_season(values: Floats, steps: Integers, season: int) -> Floats:
    """Return what was last known a whole number of seasons before each step `[series, step]`; else the last value."""
    filled = fill_forward(values)
    back = values.shape[1] - 1 + steps - season * (-(-steps // season))
    said: Floats = filled[:, np.where(back >= 0, back, values.shape[1] - 1)]
    return said


def fade_to_level(memory: float, fade: float) -> Centre:
    """Return a path from the last value to a mean that forgets by half in `memory` steps; by e in `fade` steps."""

    def draw(filled: Floats, origins: Integers, steps: Integers) -> Floats:
        return _fade(filled, _forgetting_mean(filled, memory)[:, origins - 1][:, :, None], origins, steps, fade)

    return draw


def fade_to_median(window: int, fade: float) -> Centre:
    """Return a path from the last value to the median of the last `window` steps; by e in `fade` steps."""

    def draw(filled: Floats, origins: Integers, steps: Integers) -> Floats:
        levels = np.stack([np.median(filled[:, max(0, end - window) : end], axis=1) for end in origins], axis=1)
        return _fade(filled, levels[:, :, None], origins, steps, fade)

    return draw


def return_to_median(filled: Floats, origins: Integers, steps: Integers) -> Floats:
    """Return the median of all that lies before the origin, for every step."""
    levels = np.stack([_running_median(row)[origins - 1] for row in filled])
    return np.repeat(levels[:, :, None], steps.size, axis=2)


CENTRES: Mapping[str, Centre] = {
    "stay": stay,
    "fade_to_level": fade_to_level(50.0, 24.0),
    "fade_to_median": fade_to_median(WEEK, 72.0),
    "return_to_median": return_to_median,
}


def _fade(filled: Floats, levels: Floats, origins: Integers, steps: Integers, fade: float) -> Floats:
    share = np.exp(-steps / fade)
    path: Floats = filled[:, origins - 1][:, :, None] * share + levels * (1.0 - share)
    return path


def _forgetting_mean(filled: Floats, memory: float) -> Floats:
    frame = pl.DataFrame(filled.T, orient="row" if filled.size else None)
    means: Floats = frame.select(pl.all().ewm_mean(half_life=memory, ignore_nulls=True)).to_numpy().T
    return means


def _running_median(row: Floats) -> Floats:
    median: Floats = pl.Series(row).rolling_median(row.size, min_samples=1).to_numpy()
    return median
