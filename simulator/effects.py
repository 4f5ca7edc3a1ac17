"""What faults do to telemetry: cells of a window that are hidden, raised, set or counted up."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from simulator.fabric import Flags
from simulator.window import Window
from simulator.work import HOUR_S
from simulator.world import Effect, World

Columns = dict[str, NDArray[np.generic] | pl.Series]
_HIDE = "hide"


def apply_effects(world: World, window: Window, columns: Columns, told: Flags) -> None:
    """Apply every effect that reaches into the window; columns that it touches are spread out over the ticks."""
    for effect in world.effects:
        first = window.column_of(effect.starts_s, effect.gpu)
        last = window.ticks if effect.ends_s is None else window.column_of(effect.ends_s, effect.gpu)
        if first >= last:
            continue
        if effect.operation == _HIDE:
            told[effect.gpu, first:last] = False
            continue
        values = _spread(columns[effect.column], window.ticks)
        columns[effect.column] = values
        cells = values[effect.gpu, first:last]
        values[effect.gpu, first:last] = _changed(effect, window, cells, first)


def _changed(effect: Effect, window: Window, cells: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    match effect.operation:
        case "set":
            return np.full_like(cells, effect.value)
        case "add":
            return cells + effect.value
        case "times":
            return np.asarray(np.round(cells * effect.value, 1), dtype=np.float64)
        case "at_least":
            ticks = window.first_tick + first + np.arange(len(cells))
            return np.asarray(np.maximum(cells, effect.value + ticks % 3), dtype=np.float64)
        case "or_bits":
            return np.asarray(cells.astype(np.int64) | int(effect.value), dtype=np.float64)
        case _:
            ticks = window.first_tick + first + np.arange(len(cells))
            now_s = ticks * window.interval_s + int(window.gpu_offset_s[effect.gpu]) - window.lag_s
            return np.asarray(cells + np.floor(effect.value * (now_s - effect.starts_s) / HOUR_S), dtype=np.float64)


def _spread(values: NDArray[np.generic] | pl.Series, ticks: int) -> NDArray[np.float64]:
    if isinstance(values, pl.Series):
        per_gpu = values.cast(pl.Float64).to_numpy().astype(np.float64)
        return np.repeat(per_gpu[:, None], ticks, axis=1)
    return values.astype(np.float64)
