"""What a forecast says of one workspace, as equally likely demands: the form in which quotas are weighed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MEDIAN, UPPER, QUANTILES = "forecast_gpus", "forecast_upper_gpus", "forecast_quantiles"
UPPER_LEVEL = 0.9
SCENARIOS = 40
_LEVELS = (np.arange(SCENARIOS) + 0.5) / SCENARIOS


@dataclass(frozen=True, slots=True)
class Outlook:
    """A workspace's demand ahead, in GPUs, by quantile level; one level alone says nothing of what may come."""

    median: float
    levels: tuple[float, ...]
    gpus: tuple[float, ...]

    @property
    def has_spread(self) -> bool:
        """Return whether it says how far demand may go above its median."""
        return len(self.levels) > 1

    def at(self, level: float) -> float:
        """Return the demand that is not passed with probability `level`."""
        return float(self.read(np.array([level]))[0])

    def scenarios(self) -> Floats:
        """Return equally likely demands, ascending."""
        return self.read(_LEVELS)

    def read(self, levels: Floats) -> Floats:
        """Return demands at levels: straight lines between those told, their slopes kept beyond, never below zero."""
        known, gpus = np.array(self.levels), np.array(self.gpus)
        found = np.interp(levels, known, gpus)
        if known.size > 1:
            first = (gpus[1] - gpus[0]) / (known[1] - known[0])
            last = (gpus[-1] - gpus[-2]) / (known[-1] - known[-2])
            found = found + np.minimum(levels - known[0], 0) * first + np.maximum(levels - known[-1], 0) * last
        read: Floats = np.maximum(found, 0.0)
        return read


def outlook_of(evidence: Mapping[str, object]) -> Outlook | str:
    """Return the outlook that a demand verdict's evidence gives, or why it gives none.

    Its `forecast_quantiles` (GPUs by level) are read where they are there, else its median and the upper end of its
    80 % interval. An upper end that is missing or below the median leaves the median alone.
    """
    median = number(evidence.get(MEDIAN))
    if median is None:
        return f"its {MEDIAN} is not a number of GPUs"
    told = evidence.get(QUANTILES)
    if told is None:
        upper = number(evidence.get(UPPER))
        if upper is None or upper < median:
            return Outlook(median, (0.5,), (median,))
        return Outlook(median, (0.5, UPPER_LEVEL), (median, upper))
    pairs = _pairs(told)
    if pairs is None:
        return f"its {QUANTILES} are not numbers of GPUs that rise with their levels"
    levels, gpus = zip(*pairs, strict=True)
    return Outlook(median, levels, gpus)


def number(value: object) -> float | None:
    """Return a count of GPUs, None where the value is no finite number from zero up."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def _pairs(told: object) -> list[tuple[float, float]] | None:
    if not isinstance(told, Mapping) or not told:
        return None
    found = []
    for key, value in told.items():
        try:
            level = float(key)
        except (TypeError, ValueError):
            return None
        gpus = number(value)
        if gpus is None or not 0 < level < 1:
            return None
        found.append((level, gpus))
    found.sort()
    rises = all(below[0] < above[0] and below[1] <= above[1] for below, above in pairwise(found))
    return found if rises else None
