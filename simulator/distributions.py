"""Shapes of real activity, as small tables of quantiles, and draws from them.

Source: Acme, the trace of two A100 clusters for large language models of Shanghai AI Laboratory ("Characterization
of Large Language Model Development in the Datacenter", NSDI 2024; data CC-BY-4.0). From its published cumulative
distributions we took the part above zero (of power: above 80 W, over an assumed limit of 400 W and cut off there), at
every 5 %, averaged over both clusters and rounded; ends were cut to what a ratio can be. The curves of memory,
SM and tensor activity bear no names: which is which is our reading of their shape. How the quantities of one job go
together (`near_rank`) is an assumption, since the curves are marginal.
"""

import numpy as np
from numpy.typing import NDArray

_HIGHEST_RANK = 1.0
_STEPS = np.linspace(0.0, 1.0, 21)

UTILIZATION = np.array(
    [0.01, 0.706, 0.905, 0.965, 0.975, 0.975, 0.985, 0.985, 0.985, 0.99, 0.99,
     0.99, 0.99, 0.99, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
)  # fmt: skip
MEMORY = np.array(
    [0.01, 0.197, 0.31, 0.374, 0.443, 0.501, 0.567, 0.583, 0.588, 0.603, 0.633,
     0.638, 0.673, 0.688, 0.718, 0.737, 0.765, 0.835, 0.89, 0.968, 0.98],
)  # fmt: skip
SM_ACTIVITY = np.array(
    [0.01, 0.03, 0.157, 0.301, 0.391, 0.485, 0.554, 0.594, 0.632, 0.662, 0.684,
     0.702, 0.721, 0.742, 0.769, 0.778, 0.79, 0.864, 0.883, 0.924, 1.0],
)  # fmt: skip
TENSOR_ACTIVITY = np.array(
    [0.005, 0.04, 0.079, 0.105, 0.134, 0.156, 0.165, 0.175, 0.182, 0.189, 0.194,
     0.199, 0.205, 0.21, 0.213, 0.218, 0.232, 0.247, 0.288, 0.376, 0.7],
)  # fmt: skip
POWER = np.array(
    [0.2, 0.227, 0.233, 0.237, 0.242, 0.249, 0.266, 0.299, 0.337, 0.414, 0.554,
     0.698, 0.804, 0.871, 0.915, 0.95, 0.981, 1.0, 1.0, 1.0, 1.0],
)  # fmt: skip


def quantile(table: NDArray[np.float64], rank: float) -> float:
    """Return the value of `table` at `rank` (0..1), straight lines between its points."""
    return float(np.interp(rank, _STEPS, table))


def near_rank(rank: float, spread: float, rng: np.random.Generator) -> float:
    """Return a rank near another one, so that quantities of one job go together (0..1, folded at the ends)."""
    moved = abs(rank + spread * float(rng.standard_normal()))
    return max(0.0, min(moved, 2.0 * _HIGHEST_RANK - moved))
