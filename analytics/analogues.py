"""What followed when a series stood where one stands now: errors of a path, weighed by likeness, become quantiles.

Each past origin of each series is a row: where the series stood within its own range, and how far what came later was
from the path drawn there, in units of that range. Rows that stood alike count most (a normal kernel over the place in
the range), a series' own rows together half as much as all rows of all series. Two states of their own: a series that
mostly stands at the floor of its range learns from others that do, and one that stands at its highest ever from when
others did, since what follows a record is a fall. Everything is done on histograms, so that a thousand series cost
what a few do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analytics.backtest import Floats, Integers
from analytics.centres import Centre, fill_forward

_CELLS = 256
_PLACES = 41
_SETTLED = 48
_FLOOR = 0.05


@dataclass(frozen=True, slots=True)
class Likeness:
    """How rows are weighed: `width` of the kernel in parts of a series' range, `floor` for those that are unlike.

    A series is sparse that stands at the floor of its range for more than `sparse_above` of the time; one kind of
    series counts `other_kind` of itself for the other. Within `record` of its highest ever a series is at a record;
    rows at one count `off_record` for those that are not, and the other way round.
    """

    width: float = 0.15
    floor: float = 0.01
    own: float = 0.5
    sparse_above: float = 0.25
    other_kind: float = 1.0
    record: float = 0.02
    off_record: float = 1.0


@dataclass(frozen=True, slots=True)
class Rows:
    """Past origins as rows: `[series, origin, target]` for `actual` and each path; the last origin is now.

    `reach` tells for each target how many steps after an origin it is known. `level` is the last value at each origin,
    `low` and `high` the range of all that lies before it. A row whose `is_row` is false is not learnt from.
    """

    origins: Integers
    reach: Integers
    actual: Floats
    paths: Mapping[str, Floats]
    level: Floats
    low: Floats
    high: Floats
    is_row: NDArray[np.bool_]

    def span(self, now: int) -> Floats:
        """Return the width of each series' range as known at the origin `now`; zero where it never changed."""
        return np.nan_to_num(self.high[:, now] - self.low[:, now])


def make_rows(values: Floats, steps: Integers, centres: Mapping[str, Centre], stride: int) -> Rows:
    """Return the rows of `values` (`[series, time]`, NaN for gaps) whose targets are the values `steps` ahead."""
    length = values.shape[1]
    origins, filled = _origins(values, stride), fill_forward(values)
    later = origins[:, None] + steps[None] - 1
    actual = np.where(later < length, values[:, np.minimum(later, length - 1)], np.nan)
    paths = {name: draw(filled, origins, steps) for name, draw in centres.items()}
    return _rows(values, filled, origins, steps, actual, paths)


def make_peak_rows(values: Floats, windows: Integers, stride: int) -> Rows:
    """Return the rows whose targets are the highest value within the `windows` (steps) that follow an origin.

    Two paths: the last value, and the highest value of the window just before.
    """
    length = values.shape[1]
    origins, filled = _origins(values, stride), fill_forward(values)
    ahead = np.full((values.shape[0], origins.size, windows.size), np.nan)
    before = np.empty_like(ahead)
    for place, window in enumerate(windows):
        for turn, origin in enumerate(origins):
            before[:, turn, place] = filled[:, max(0, origin - window) : origin].max(axis=1)
            part = values[:, origin : origin + window]
            if origin + window <= length:
                ahead[:, turn, place] = np.where(
                    np.isfinite(part).all(axis=1), part.max(axis=1, initial=-np.inf), np.nan
                )
    last = np.repeat(filled[:, origins - 1][:, :, None], windows.size, axis=2)
    return _rows(values, filled, origins, windows, ahead, {"stay": last, "as_before": before})


@dataclass(frozen=True, slots=True)
class _Weights:
    """What rows count at one origin: `own` `[series, row]`, `pool` `[series, state and place]`, `cells` the rows' own.

    `is_known` `[series, row, target]` says which had been seen by then.
    """

    own: Floats
    pool: Floats
    cells: Integers
    is_known: NDArray[np.bool_]


def look_up(rows: Rows, now: int, path: str, likeness: Likeness, levels: Floats) -> Floats:
    """Return quantiles `[series, target, level]` at the origin of index `now`, from what was known at that time.

    NaN where no row was known. A series that never changed is its path: it has no range for others' errors to scale to.
    """
    return _read_path(rows, now, path, _weigh(rows, now, likeness), levels)


def look_up_all(rows: Rows, now: int, likeness: Likeness, levels: Floats) -> Floats:
    """Return `[path, series, target, level]`, what `look_up` gives for each path."""
    weights = _weigh(rows, now, likeness)
    return np.stack([_read_path(rows, now, path, weights, levels) for path in rows.paths])


def _weigh(rows: Rows, now: int, likeness: Likeness) -> _Weights:
    moment, series = rows.origins[now], rows.level.shape[0]
    span = rows.span(now)
    scale = np.where(span > 0, span, 1.0)[:, None]
    place = np.clip(np.nan_to_num((rows.level[:, : now + 1] - rows.low[:, now, None]) / scale), 0.0, 1.0)
    is_known = (rows.is_row[:, :now] & (span > 0)[:, None])[:, :, None]
    is_known = is_known & (rows.origins[:now, None] + rows.reach[None] <= moment)[None]
    is_record = place >= 1.0 - likeness.record
    off = np.where(is_record[:, :now] == is_record[:, now, None], 1.0, likeness.off_record)
    own = likeness.own * off * _kernel(place[:, :now] - place[:, now, None], likeness)
    is_row = rows.is_row[:, : now + 1]
    low_share = (is_row & (place < _FLOOR)).sum(axis=1) / np.maximum(is_row.sum(axis=1), 1)
    is_sparse = low_share > likeness.sparse_above
    kinds, records = np.array([False, True, False, True]), np.array([False, False, True, True])
    kind = np.where(is_sparse[:, None] == kinds[None], 1.0, likeness.other_kind)
    counted = np.where(kinds[:2], is_sparse.sum(), series - is_sparse.sum())
    kind /= (kind[:, :2] * counted).sum(axis=1, keepdims=True)
    state = kind * np.where(is_record[:, now, None] == records[None], 1.0, likeness.off_record)
    near = _kernel(np.linspace(0.0, 1.0, _PLACES)[None] - place[:, now, None], likeness)
    pool = (state[:, :, None] * near[:, None, :]).reshape(series, -1)
    state_of_row = is_sparse[:, None] + 2 * is_record[:, :now]
    cells = np.rint(place[:, :now] * (_PLACES - 1)).astype(np.int64) + _PLACES * state_of_row
    used = np.unique(state_of_row)  # a state that no row is in needs no histogram
    kept = (used[:, None] * _PLACES + np.arange(_PLACES)[None]).reshape(-1)
    return _Weights(own, pool[:, kept], np.searchsorted(kept, cells), is_known)


def _read_path(rows: Rows, now: int, path: str, weights: _Weights, levels: Floats) -> Floats:
    series, span = rows.level.shape[0], rows.span(now)
    errors = (rows.actual[:, :now] - rows.paths[path][:, :now]) / np.where(span > 0, span, 1.0)[:, None, None]
    is_known = weights.is_known & np.isfinite(errors)
    found = np.full((series, rows.reach.size, levels.size), np.nan)
    for target in range(rows.reach.size):
        mask = is_known[:, :, target]
        if not mask.any():
            continue
        held, owner = errors[:, :, target][mask], np.nonzero(mask)[0]
        marks = _marks(held)
        cell = _nearest(marks, held)
        own = _count(owner, cell, series, marks.size, weights.own[mask])
        pool = weights.pool @ _count(weights.cells[mask], cell, weights.pool.shape[1], marks.size, None)
        found[:, target] = _read_off(own + pool, marks, levels)
    found[(span == 0) & rows.is_row[:, now]] = 0.0
    quantiles: Floats = rows.paths[path][:, now, :, None] + found * span[:, None, None]
    return quantiles


def recent_error(rows: Rows, now: int, path: str, memory: float) -> Floats:
    """Return the mean absolute error `[series, target]` of a path up to the origin `now`; NaN where none is known.

    Errors are forgotten by e in `memory` steps; half of each comes from all targets together, so that one target's
    few rows do not rule alone.
    """
    moment = rows.origins[now]
    errors = np.abs(rows.actual[:, :now] - rows.paths[path][:, :now])
    is_known = np.isfinite(errors) & (rows.origins[:now, None] + rows.reach[None] <= moment)[None]
    weight = np.where(is_known, np.exp((rows.origins[:now] - moment) / memory)[None, :, None], 0.0)
    lost = np.where(is_known, errors, 0.0) * weight
    with np.errstate(invalid="ignore"):
        by_target = lost.sum(axis=1) / weight.sum(axis=1)
        overall = lost.sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
    error: Floats = np.where(np.isfinite(by_target), 0.5 * (by_target + overall[:, None]), overall[:, None])
    return error


def _origins(values: Floats, stride: int) -> Integers:
    return np.arange(values.shape[1], 0, -stride, dtype=np.int64)[::-1].copy()


def _rows(  # noqa: PLR0917 - private, and called with what its two callers name alike
    values: Floats, filled: Floats, origins: Integers, reach: Integers, actual: Floats, paths: Mapping[str, Floats]
) -> Rows:
    known = np.isfinite(values)
    low = np.minimum.accumulate(np.where(known, values, np.inf), axis=1)[:, origins - 1]
    high = np.maximum.accumulate(np.where(known, values, -np.inf), axis=1)[:, origins - 1]
    is_known = np.isfinite(low)
    first = np.where(known.any(axis=1), known.argmax(axis=1), values.shape[1])
    # an origin just after the beginning has no level to speak of
    is_row = origins[None] > first[:, None] + min(_SETTLED, values.shape[1] // 4)
    return Rows(
        origins, reach, actual, paths, filled[:, origins - 1],
        np.where(is_known, low, np.nan), np.where(is_known, high, np.nan), is_row,
    )  # fmt: skip


def _kernel(distance: Floats, likeness: Likeness) -> Floats:
    weight: Floats = np.exp(-0.5 * (distance / likeness.width) ** 2) + likeness.floor
    return weight


def _marks(held: Floats) -> Floats:
    """Return the values that stand for all: evenly spaced order statistics, each once."""
    ordered = np.sort(held)
    return np.unique(ordered[np.linspace(0, ordered.size - 1, min(_CELLS, ordered.size)).astype(np.int64)])


def _nearest(marks: Floats, held: Floats) -> Integers:
    right = np.clip(np.searchsorted(marks, held), 1, max(1, marks.size - 1))
    if marks.size == 1:
        return np.zeros(held.size, dtype=np.int64)
    left = right - 1
    nearest: Integers = np.where(held - marks[left] <= marks[right] - held, left, right)
    return nearest


def _count(groups: Integers, cells: Integers, height: int, width: int, weights: Floats | None) -> Floats:
    counted = np.bincount(groups * width + cells, weights=weights, minlength=height * width)
    return counted.reshape(height, width).astype(np.float64)


def _read_off(weight: Floats, marks: Floats, levels: Floats) -> Floats:
    cumulated = np.cumsum(weight, axis=1)
    share = cumulated / cumulated[:, -1:]
    places = np.stack([(share < level - 1e-12).sum(axis=1) for level in levels], axis=1)
    read: Floats = marks[np.minimum(places, marks.size - 1)]
    return read
