"""Long to wide: samples as arrays, in the columns' units, become one row a device and moment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from collectors.series_book import COLUMNS, Facts, SeriesBook
from collectors.twins import TIME_END_MS
from fleet.batch import Trouble
from fleet.frames import UTC_MICROSECONDS

_TIME_BITS = TIME_END_MS.bit_length() - 1


@dataclass(frozen=True, slots=True)
class Samples:
    """One sample of each array: its series' number, its moment in milliseconds, its value."""

    series: NDArray[np.int64]
    ts: NDArray[np.int64]
    values: NDArray[np.float64]

    def where(self, is_wanted: NDArray[np.bool_]) -> "Samples":
        """Return the samples that are wanted."""
        if is_wanted.all():
            return self
        return Samples(self.series[is_wanted], self.ts[is_wanted], self.values[is_wanted])


def last_of_each(numbers: NDArray[np.int64], ts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers that occur, each once, and the greatest moment of each."""
    if not len(numbers):
        return numbers, ts
    found, places = np.unique(numbers, return_inverse=True)
    last = np.full(len(found), np.iinfo(np.int64).min)
    np.maximum.at(last, places, ts)
    return found, last


def scaled(samples: Samples, book: SeriesBook, percent: dict[str, bool], troubles: list[Trouble]) -> Samples:
    """Return the samples in the columns' units; what can't have been measured is left out and counted in `troubles`.

    `percent` tells of nodes whether their doubtful names stand for percent; what this reading shows is added to it.
    """
    facts = book.facts()
    divisor = facts.divisor[samples.series]
    doubtful = facts.is_doubtful[samples.series]
    is_known = np.ones(len(doubtful), dtype=np.bool_)
    if doubtful.any():
        nodes = [book.devices[number].node for number in facts.device[samples.series[doubtful]]]
        _learn(nodes, samples.values[doubtful], percent)
        divisor[doubtful] = [100.0 if percent.get(node, False) else 1.0 for node in nodes]
        # A lone 1 is one percent or all of it: nobody can tell.
        is_known[doubtful] = [node in percent for node in nodes] | (samples.values[doubtful] != 1.0)
    values = samples.values / divisor
    is_possible = (values >= facts.low[samples.series]) & (values <= facts.high[samples.series])
    _tell(samples, facts, ~is_possible, "no such value can be measured", troubles)
    _tell(samples, facts, ~is_known, "1 may be one percent or the whole; the node shows no other value", troubles)
    return Samples(samples.series, samples.ts, values).where(is_possible & is_known)


def wide(samples: Samples, facts: Facts) -> pl.DataFrame:
    """Return a row for each device (by number) and moment, sorted, with a column for each metric that occurs.

    Where two names of one column have a value at one moment, the one of the higher rank speaks.
    """
    keys = (facts.device[samples.series] << _TIME_BITS) | samples.ts
    rows, places = np.unique(keys, return_inverse=True)
    ranks = facts.rank[samples.series].astype(np.int16)
    order = np.argsort(ranks, kind="stable")
    ranks, places, values = ranks[order], places[order], samples.values[order]
    columns: dict[str, NDArray[np.float64]] = {}
    borders = np.flatnonzero(np.diff(ranks, prepend=-1)).tolist()
    names = facts.column[samples.series[order[borders]]].tolist()
    for start, stop, name in zip(borders, [*borders, len(ranks)][1:], names, strict=True):
        column = columns.setdefault(COLUMNS[name], np.full(len(rows), np.nan))
        column[places[start:stop]] = values[start:stop]
    return pl.DataFrame(
        [
            pl.Series("device", rows >> _TIME_BITS, dtype=pl.Int64()),
            pl.Series("ts", (rows & (TIME_END_MS - 1)) * 1000, dtype=pl.Int64()).cast(UTC_MICROSECONDS),
            *(pl.Series(name, values, nan_to_null=True) for name, values in columns.items()),
        ]
    )


def _learn(nodes: Sequence[str], values: NDArray[np.float64], percent: dict[str, bool]) -> None:
    for node, value in zip(nodes, values.tolist(), strict=True):
        if value > 1.0:
            percent[node] = True
        elif 0.0 < value < 1.0:
            percent.setdefault(node, False)


def _tell(samples: Samples, facts: Facts, is_bad: NDArray[np.bool_], reason: str, troubles: list[Trouble]) -> None:
    if not is_bad.any():
        return
    columns = facts.column[samples.series[is_bad]]
    values = samples.values[is_bad]
    for column in dict.fromkeys(columns.tolist()):
        same = columns == column
        place = f"gpu_sample.{COLUMNS[column]}"
        troubles.append(Trouble("rejected", place, reason, int(same.sum()), f"{values[same][0]:g}"))
