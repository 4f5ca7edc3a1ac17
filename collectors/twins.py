"""Twins: a GPU that two exporters (or two replicas of Prometheus) tell of is measured once.

The exporter that was first goes on being believed; another one fills in where the first says nothing for longer than
it takes between two samples, and is believed from then on where the first stays away.
"""

import numpy as np
from numpy.typing import NDArray

_FIRST_STEP_MS = 30_000
_TIME_BITS = 42
TIME_END_MS = 1 << _TIME_BITS  # the year 2109: a device and a moment fit one number

Whole = NDArray[np.int64]


class Twins:
    """Which exporter is believed of each device and column, when it last spoke, and how often it does."""

    def __init__(self, patience: float) -> None:
        """`patience` is how many steps between samples the believed exporter may be silent."""
        self._patience = patience
        # Up to `since` the former exporter was believed, so that what is read again is judged as it was.
        self._exporter = np.full((0, 0), -1, dtype=np.int64)
        self._former = np.full((0, 0), -1, dtype=np.int64)
        self._since = np.zeros((0, 0), dtype=np.int64)
        self._last = np.zeros((0, 0), dtype=np.int64)
        self._step = np.zeros((0, 0), dtype=np.int64)

    def forget(self, device: Whole, column: Whole, exporter: Whole) -> None:
        """Take it that these exporters do not tell of these devices and columns any more."""
        self._grow(device, column)
        gone = self._exporter[device, column] == exporter
        place = (device[gone], column[gone])
        self._former[place], self._exporter[place], self._since[place] = exporter[gone], -1, self._last[place] + 1

    def choose(self, device: Whole, column: Whole, exporter: Whole, ts: Whole) -> NDArray[np.bool_]:
        """Return which samples (one of each array, `ts` in milliseconds) to keep."""
        keep = np.ones(len(ts), dtype=np.bool_)
        if not len(ts):
            return keep
        self._grow(device, column)
        is_first = self._believed(device, column, exporter, ts) == exporter
        if not is_first.all():
            keep = is_first | self._fills(device, column, ts, is_first)
        pair = device[is_first] * self._last.shape[1] + column[is_first]
        np.maximum.at(self._last.reshape(-1), pair, ts[is_first])
        self._hand_over(*(each[keep & ~is_first] for each in (device, column, exporter, ts)))
        return keep

    def _believed(self, device: Whole, column: Whole, exporter: Whole, ts: Whole) -> Whole:
        """Return for each sample the exporter that is believed; a new device takes its lowest number."""
        is_new = self._exporter[device, column] == -1
        if is_new.any():
            lowest = np.full(self._exporter.size, np.iinfo(np.int64).max)
            pair = device[is_new] * self._exporter.shape[1] + column[is_new]
            np.minimum.at(lowest, pair, exporter[is_new])
            self._exporter.reshape(-1)[pair] = lowest[pair]
        is_now = ts >= self._since[device, column]
        believed: Whole = np.where(is_now, self._exporter[device, column], self._former[device, column])
        return believed

    def _fills(self, device: Whole, column: Whole, ts: Whole, is_first: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which samples stand further from every believed sample than patience lasts."""
        pair = device * self._exporter.shape[1] + column
        known = np.sort((pair[is_first] << _TIME_BITS) | ts[is_first])
        wanted = (pair << _TIME_BITS) | ts
        place = np.searchsorted(known, wanted)
        far = np.iinfo(np.int64).max
        distance = np.abs(ts - self._last[device, column])
        distance[self._last[device, column] == 0] = far
        for neighbour in (place - 1, place):
            inside = (neighbour >= 0) & (neighbour < len(known))
            near = known[np.clip(neighbour, 0, max(len(known) - 1, 0))] if len(known) else wanted
            same = inside & ((near >> _TIME_BITS) == pair)
            distance = np.where(same, np.minimum(distance, np.abs(wanted - near)), distance)
        is_far: NDArray[np.bool_] = distance > self._patience * self._steps(device, column, ts, is_first)
        return is_far

    def _steps(self, device: Whole, column: Whole, ts: Whole, is_first: NDArray[np.bool_]) -> Whole:
        """Return the milliseconds between two believed samples, for each sample."""
        count = np.zeros(self._exporter.shape, dtype=np.int64)
        np.add.at(count, (device[is_first], column[is_first]), 1)
        low, high = np.full(count.shape, TIME_END_MS), np.zeros(count.shape, dtype=np.int64)
        np.minimum.at(low, (device[is_first], column[is_first]), ts[is_first])
        np.maximum.at(high, (device[is_first], column[is_first]), ts[is_first])
        here = np.where(count > 1, (high - low) // np.maximum(count - 1, 1), self._step)
        self._step = np.where(here > 0, here, _FIRST_STEP_MS)
        steps: Whole = self._step[device, column]
        return steps

    def _hand_over(self, device: Whole, column: Whole, exporter: Whole, ts: Whole) -> None:
        """Believe from now on those whose kept samples are later than any of the one that was believed."""
        later = ts > self._last[device, column]
        if not later.any():
            return
        device, column, exporter, ts = device[later], column[later], exporter[later], ts[later]
        order = np.lexsort((-ts, device, column))  # the earliest stands last and is what stays
        place = (device[order], column[order])
        self._former[place] = self._exporter[place]
        self._since[place] = ts[order]
        self._exporter[place] = exporter[order]
        np.maximum.at(self._last, (device, column), ts)

    def _grow(self, device: Whole, column: Whole) -> None:
        if not len(device):
            return
        rows, columns = self._exporter.shape
        needed = (int(device.max()) + 1, int(column.max()) + 1)
        if needed[0] <= rows and needed[1] <= columns:
            return
        shape = (max(2 * rows, needed[0]), max(columns, needed[1]))
        for name, filler in (("_exporter", -1), ("_former", -1), ("_since", 0), ("_last", 0), ("_step", 0)):
            grown = np.full(shape, filler, dtype=np.int64)
            grown[:rows, :columns] = getattr(self, name)
            setattr(self, name, grown)
