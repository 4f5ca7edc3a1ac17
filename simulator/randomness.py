"""Where chance comes from: a generator of its own for each purpose and each thing.

Because no two purposes share a generator, neither the order in which things are asked nor the size of the chunks
in which time is read changes what is drawn.
"""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a generator is for."""

    FABRIC = 1
    DEMAND = 2
    SHAPE = 3
    TASK = 4
    WORKLOAD = 5
    FAULT = 6
    FAULT_DAY = 7
    TELEMETRY = 8
    LIFETIME = 9
    SLICES = 10


def generator(seed: int, purpose: Purpose, *indices: int) -> np.random.Generator:
    """Return the generator of one purpose and one thing (a task, a day, a block of ticks)."""
    return np.random.default_rng([seed, int(purpose), *indices])
