"""Against what is stored: which rows of `pod_allocation` to write, so that a join made again changes nothing.

A row that turned out wrong is ended where it began: it holds nothing any more. The store never opens again what was
closed, so where a closed row turns out to be open it goes on from a new row, a microsecond later.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import polars as pl

from fleet.tables import POD_ALLOCATION

_STEP = timedelta(microseconds=1)
_SLACK = timedelta(milliseconds=1)
_EXACT = 1e-9
_SERIES = ("pod_uid", "container", "gpu_uuid", "slice_uuid")
Row = dict[str, object]


def rows_to_write(joined: pl.DataFrame, stored: pl.DataFrame, settled: datetime) -> pl.DataFrame:
    """Return the rows that turn `stored` into `joined`; all three in wire form, both of the same pods.

    What began before `settled` keeps its beginning, where the join no longer sees so far back.
    """
    wanted, there = _by_series(joined), _by_series(stored)
    rows = [row for key in {**wanted, **there} for row in _of_series(wanted.get(key, []), there.get(key, []), settled)]
    return pl.DataFrame(rows, schema=POD_ALLOCATION.schema("wire")).sort("starts_at", "pod_uid", "gpu_uuid")


def _by_series(frame: pl.DataFrame) -> Mapping[tuple[object, ...], list[Row]]:
    grouped: defaultdict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in frame.sort("starts_at").iter_rows(named=True):
        grouped[tuple(row[name] for name in _SERIES)].append(row)
    return grouped


def _of_series(wanted: Sequence[Row], stored: Sequence[Row], settled: datetime) -> list[Row]:
    standing = [row for row in stored if row["ends_at"] is None or row["ends_at"] != row["starts_at"]]
    taken = {row["starts_at"]: row["ends_at"] for row in stored}
    rows: list[Row] = []
    kept: set[object] = set()
    for row in wanted:
        match = next((each for each in standing if _is_start(each, row)), None)
        if match is None and row is wanted[0]:
            match = next((each for each in standing if _reaches(each, row, settled)), None)
        if match is not None and (match["ends_at"] is None or row["ends_at"] is not None):
            kept.add(match["starts_at"])
            if not _is_same(match, row):
                rows.append({**row, "starts_at": match["starts_at"]})
            continue
        rows.append({**row, "starts_at": _free(row, taken)})
    gone = [row for row in standing if row["starts_at"] not in kept]
    return [{**row, "ends_at": row["starts_at"]} for row in gone] + rows


def _free(row: Row, taken: Mapping[object, object]) -> object:
    """Return the row's start, or the first moment after it at which no closed row begins that an open one can't be."""
    moment = row["starts_at"]
    while moment in taken and isinstance(moment, datetime) and taken[moment] is not None and row["ends_at"] is None:
        moment += _STEP
    return moment


def _is_start(one: Row, other: Row) -> bool:
    first, second = one["starts_at"], other["starts_at"]
    return isinstance(first, datetime) and isinstance(second, datetime) and abs(first - second) < _SLACK


def _reaches(old: Row, row: Row, settled: datetime) -> bool:
    """Tell whether an old row began before all that is looked at, and lasts until the row begins."""
    start, end, begin = old["starts_at"], old["ends_at"], row["starts_at"]
    if not isinstance(start, datetime) or not isinstance(begin, datetime):
        return False
    return start < settled and start < begin and (not isinstance(end, datetime) or end >= begin)


def _is_same(stored: Row, row: Row) -> bool:
    """Tell whether a stored row says all that a row says; what the row does not know, the store keeps."""
    fraction, other = stored["fraction"], row["fraction"]
    is_close = isinstance(fraction, float) and isinstance(other, float) and abs(fraction - other) < _EXACT
    rest = (name for name in row if name not in {"starts_at", "fraction"})
    return is_close and all(row[name] is None or stored[name] == row[name] for name in rest)
