"""Make forecasts add up: workspaces to pools, models and clusters, each moved as little as its errors allow.

The trace-minimising reconciliation of Wickramasuriya, Athanasopoulos and Hyndman (2019) with the error covariance
shrunk all the way to its diagonal: there are more series than origins to learn covariances from, and the diagonal
cannot blow up. A series that was far off before gives way, one that was right stays.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analytics.backtest import Floats


def reconcile(paths: Floats, errors: Floats, members: Sequence[tuple[int, ...]], is_gone: NDArray[np.bool_]) -> Floats:
    """Return `paths` `[sum, step]` so that each sum is exactly the sum of its parts, and never below zero.

    The first `is_gone.size` rows are the parts; `members` are the parts of each row; `errors` is the mean absolute
    error of each row (GPUs), NaN where it is not known. A part that is gone or not known keeps its path and counts in
    no sum. A sum without any part left keeps its path, too.
    """
    parts = is_gone.size
    counted = ~is_gone & np.isfinite(paths[:parts]).all(axis=1)
    sums = np.array([row for row in range(parts, len(members)) if counted[list(members[row])].any()], dtype=np.int64)
    made = np.where(np.isfinite(paths), np.maximum(paths, 0.0), np.nan)
    if sums.size == 0:
        return made
    adds = np.zeros((sums.size, parts))
    for row, place in enumerate(sums):
        adds[row, list(members[place])] = 1.0
    adds *= counted
    variance = _variance(made, errors)
    base = np.where(counted[:, None], made[:parts], 0.0)
    is_told = np.isfinite(made[sums]).all(axis=1)
    told = adds[is_told]
    if is_told.any():
        # leaves move by W_b A' (W_a + A W_b A')^-1 of what is missing between a sum and its parts
        spread = variance[:parts] * counted
        missing = made[sums[is_told]] - told @ base
        weight = np.diag(variance[sums[is_told]]) + (told * spread) @ told.T
        base = np.maximum(base + spread[:, None] * (told.T @ np.linalg.solve(weight, missing)), 0.0)
    made[:parts] = np.where(counted[:, None], base, made[:parts])
    made[sums] = adds @ base
    return made


def _variance(paths: Floats, errors: Floats) -> Floats:
    """Return the weight of each row: its error squared, a tenth of its level where it was never scored."""
    with np.errstate(invalid="ignore"):
        level = np.where(np.isfinite(paths), paths, 0.0).mean(axis=1)
    variance: Floats = np.where(np.isfinite(errors), errors, 0.1 * level) ** 2 + 1e-9
    return variance
