"""Find where a series left its level for another: a step that stayed, not a burst.

At each moment the median of the last two days stands against that of the week before; the level has changed where they
lie further apart than both stretches scatter (their median absolute deviations) and than a tenth of the range.
"""

from dataclasses import dataclass

import numpy as np

from analytics.backtest import Floats

_RECENT, _BEFORE = 48, 168
_APART = 4.0


@dataclass(frozen=True, slots=True)
class LevelShift:
    """`age` steps ago the level went from `before` to `after` (GPUs)."""

    age: int
    before: float
    after: float


def find_shift(values: Floats, recent: int = _RECENT, before: int = _BEFORE) -> LevelShift | None:
    """Return the latest change of level in one series (NaN for gaps) within its last `before` steps; None: none."""
    for age in range(recent, min(before, values.size - recent) + 1, 6):
        place = values.size - age
        shift = _shift_at(values, place, recent, before)
        if shift is not None:
            edge = _edge(values[max(0, place - recent) : place + recent], *shift)
            return LevelShift(values.size - (max(0, place - recent) + edge), *shift)
    return None


def _shift_at(values: Floats, place: int, recent: int, before: int) -> tuple[float, float] | None:
    new, old = _known(values[place : place + recent]), _known(values[max(0, place - before) : place])
    if new.size < recent // 2 or old.size < recent // 2:
        return None
    level, was = float(np.median(new)), float(np.median(old))
    scatter = float(np.median(np.abs(new - level)) + np.median(np.abs(old - was)))
    known = _known(values)
    span = float(known.max() - known.min())
    return (was, level) if abs(level - was) > max(_APART * scatter, 0.1 * span, 1e-9) else None


def _edge(window: Floats, before: float, after: float) -> int:
    """Return the place in the window that parts it best into a stretch at `before` and one at `after`."""
    miss_before = np.nancumsum(np.concatenate([[0.0], np.abs(window - before)]))
    miss_after = np.nancumsum(np.concatenate([[0.0], np.abs(window - after)]))
    return int(np.argmin(miss_before + miss_after[-1] - miss_after))


def _known(values: Floats) -> Floats:
    known: Floats = values[np.isfinite(values)]
    return known
