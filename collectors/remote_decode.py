"""Remote-write v1 on the wire: a protobuf WriteRequest becomes arrays of samples, a series found by its labels' bytes.

Prometheus writes the labels of a series once, then its samples, each 18 bytes long (9 where the value is zero, which
protobuf leaves out). So labels are looked up as one piece of bytes, and samples of that shape are cut out of the
message all at once; whatever else is allowed (other orders, longer numbers, unknown fields) is read field by field.
The format: https://prometheus.io/docs/specs/prw/remote_write_spec/ and prompb/types.proto.
"""

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from collectors.prometheus_wide import Samples
from fleet.errors import BadInput

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SERIES_TAG, _LABEL_TAG, _SAMPLE_TAG = 0x0A, 0x0A, 0x12
_MORE = 0x80
_VARINT_MAX = 10
_TIME_TAG = 0x10
_FULL, _ZERO = 18, 9
_ONE_SAMPLE = re.compile(
    rb"\x12\x10\x09.{8}\x10[\x80-\xff]{5}[\x00-\x7f]|\x12\x07\x10[\x80-\xff]{5}[\x00-\x7f]", re.DOTALL
)
_KEPT_MAX = 500_000
# Fewer series than this are cut one by one: a step for all of them would cost more than it saves.
_MANY = 8
_PADDING = bytes(_FULL)  # so that a sample that is cut off can be looked at before it is refused

Find = Callable[[Mapping[str, str]], int]


class BadWrite(BadInput):
    """A write request that can't be read; sending it again would not help."""


@dataclass(frozen=True, slots=True)
class Write:
    """What one request holds: samples of series that are ours, and counts of what is not stored."""

    samples: Samples
    sample_count: int
    nameless_count: int = 0
    histogram_count: int = 0


class Decoder:
    """Decodes requests; `find` gives a series its number by its labels (negative: not stored), once for its bytes.

    The number `nameless` is counted, once a series.
    """

    def __init__(self, find: Find, nameless: int) -> None:
        self._find, self._nameless, self._nameless_count = find, nameless, 0
        self._known: dict[bytes, int] = {}

    def decode(self, message: bytes) -> Write:
        """Return the samples of a WriteRequest, or raise `BadWrite` saying what is wrong with it and where."""
        try:
            return self._decode(message)
        except IndexError:
            _refuse("the write request is cut off in the middle", "body")

    def _decode(self, message: bytes) -> Write:
        numbers: list[int] = []
        starts: list[int] = []
        stops: list[int] = []
        known = self._known
        at, end = 0, len(message)
        while at < end:
            if message[at] != _SERIES_TAG:
                at = _skip(message, at, end)
                continue
            size = message[at + 1]
            at += 2
            if size >= _MORE:
                size, at = _varint(message, at - 1)
            stop = at + size
            if stop > end:
                _refuse("the write request is cut off in the middle", "timeseries")
            first = at
            while at < stop and message[at] == _LABEL_TAG:
                length = message[at + 1]
                if length < _MORE:
                    at += 2 + length
                else:
                    length, at = _varint(message, at + 1)
                    at += length
            if at > stop:
                _refuse("a label reaches beyond its series", "labels")
            key = message[first:at]
            number = known.get(key)
            if number is None:
                number = self._number(key)
            numbers.append(number)
            starts.append(at)
            stops.append(stop)
            at = stop
        return self._cut(message, np.array(numbers, np.int64), np.array(starts, np.int64), np.array(stops, np.int64))

    def _number(self, key: bytes) -> int:
        if len(self._known) >= _KEPT_MAX:
            self._known.clear()
        number = self._known[key] = self._find(_labels(key))
        self._nameless_count += number == self._nameless
        return number

    def _cut(
        self, message: bytes, numbers: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> Write:
        """Return the samples that stand between the starts and stops, one pair a series."""
        data = np.frombuffer(message + _PADDING, dtype=np.uint8)
        sizes = stops - starts
        pieces, left = [], sizes > 0
        for size in (_FULL, _ZERO):
            places = np.flatnonzero(left & (sizes % size == 0))
            piece, is_good = _alike(data, starts[places], sizes[places], size)
            left[places[is_good]] = False
            pieces.append((np.repeat(places[is_good], sizes[places[is_good]] // size), *piece))
        mixed = np.flatnonzero(left)
        if len(mixed) >= _MANY:
            owners, piece = _stepwise(data, starts[mixed], stops[mixed])
            pieces.append((mixed[owners], *piece))
            left[mixed[owners]] = False
        histograms = 0
        for place in np.flatnonzero(left).tolist():
            piece, count = _mixed(message, data, int(starts[place]), int(stops[place]))
            histograms += count
            pieces.append((np.full(len(piece[0]), place), *piece))
        places, ts, values = (np.concatenate([piece[part] for piece in pieces]) for part in range(3))
        series = numbers[places] if len(places) else places
        nameless, self._nameless_count = self._nameless_count, 0
        return Write(Samples(series, ts, values).where(series >= 0), len(ts), nameless, histograms)


Cut = tuple[NDArray[np.int64], NDArray[np.float64]]


def _alike(
    data: NDArray[np.uint8], starts: NDArray[np.int64], sizes: NDArray[np.int64], size: int
) -> tuple[Cut, NDArray[np.bool_]]:
    """Return the samples of the series that hold nothing but samples of this size, and which series those are."""
    counts = sizes // size
    if not len(counts):
        return (np.empty(0, np.int64), np.empty(0, np.float64)), np.empty(0, np.bool_)
    firsts = np.cumsum(counts) - counts
    at = np.repeat(starts - firsts * size, counts) + np.arange(counts.sum()) * size
    rows = data[at[:, None] + np.arange(size)]
    fits = _has_shape(rows)
    is_good = np.logical_and.reduceat(fits, firsts)
    good = rows[np.repeat(is_good, counts)]
    return _values(good), is_good


def _has_shape(rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
    size = rows.shape[1]
    inside = (rows[:, 0] == _SAMPLE_TAG) & (rows[:, 1] == size - 2) & (rows[:, size - 7] == _TIME_TAG)
    if size == _FULL:
        inside &= rows[:, 2] == 0x09  # noqa: PLR2004 - the tag of a value
    time = rows[:, size - 6 :]
    fits: NDArray[np.bool_] = inside & (time[:, :5] >= _MORE).all(axis=1) & (time[:, 5] < _MORE)
    return fits


def _values(rows: NDArray[np.uint8]) -> Cut:
    size = rows.shape[1]
    ts = np.zeros(len(rows), dtype=np.int64)
    for place in range(6):
        ts |= (rows[:, size - 6 + place].astype(np.int64) & 0x7F) << (7 * place)
    if size == _ZERO:
        return ts, np.zeros(len(rows))
    return ts, np.ascontiguousarray(rows[:, 3:11]).view("<f8").reshape(-1)


def _stepwise(
    data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Cut]:
    """Return the samples of series whose samples are of either shape, all series a sample at a time, and whose each is.

    A series that holds anything else is left out whole.
    """
    at, owner = starts.copy(), np.arange(len(starts))
    is_good = np.ones(len(starts), dtype=np.bool_)
    found: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {_FULL: [], _ZERO: []}
    while len(at):
        size = data[at + 1].astype(np.int64) + 2
        fits = ((size == _FULL) | (size == _ZERO)) & (at + size <= stops[owner])
        if not fits.all():
            is_good[owner[~fits]] = False
            at, owner, size = at[fits], owner[fits], size[fits]
        for each, places in found.items():
            chosen = size == each
            places.append((owner[chosen], at[chosen]))
        at = at + size
        goes_on = at < stops[owner]
        at, owner = at[goes_on], owner[goes_on]
    pieces = []
    for each, places in found.items():
        owners, firsts = (np.concatenate([place[part] for place in places]) for part in range(2))
        rows = data[firsts[:, None] + np.arange(each)]
        is_good[owners[~_has_shape(rows)]] = False
        pieces.append((owners, *_values(rows)))
    owners, ts, values = (np.concatenate([piece[part] for piece in pieces]) for part in range(3))
    kept = is_good[owners]
    return owners[kept], (ts[kept], values[kept])


def _mixed(message: bytes, data: NDArray[np.uint8], start: int, stop: int) -> tuple[Cut, int]:
    """Return the samples of one series whose samples are not all of one shape, and how many histograms it holds."""
    found = [match.span() for match in _ONE_SAMPLE.finditer(message, start, stop)]
    if sum(last - first for first, last in found) != stop - start:
        return _field_by_field(message, start, stop)
    spans = np.array(found, dtype=np.int64)
    ts, values = np.zeros(len(spans), np.int64), np.zeros(len(spans), np.float64)
    for size in (_FULL, _ZERO):
        fits = (spans[:, 1] - spans[:, 0]) == size
        ts[fits], values[fits] = _values(data[spans[fits, 0][:, None] + np.arange(size)])
    return (ts, values), 0


def _field_by_field(message: bytes, start: int, stop: int) -> tuple[Cut, int]:
    ts, values, histograms = [], [], 0
    for field, kind, content in _fields(message, start, stop):
        if field == 1:
            _refuse("the labels of a series do not stand together", "labels")
        if field == 4:  # noqa: PLR2004 - a native histogram
            histograms += 1
        if field == 2:  # noqa: PLR2004 - a sample
            if kind != _BYTES:
                _refuse("a sample is no message", "samples")
            value, moment = _sample(message, *content)
            values.append(value)
            ts.append(moment)
    return (np.array(ts, np.int64), np.array(values, np.float64)), histograms


def _sample(message: bytes, start: int, stop: int) -> tuple[float, int]:
    value, moment = 0.0, 0
    for field, kind, (first, last) in _fields(message, start, stop):
        if field == 1 and kind == _FIXED64:
            (value,) = struct.unpack_from("<d", message, first)
        elif field == 2 and kind == _VARINT:  # noqa: PLR2004 - the timestamp
            number, _ = _varint(message, first)
            moment = number - (1 << 64) if number >= 1 << 63 else number
        elif field in {1, 2}:
            _refuse(f"field {field} of a sample has the wire type {kind}", "samples")
        assert last <= stop  # noqa: S101 - _fields has looked
    return value, moment


def _labels(key: bytes) -> dict[str, str]:
    """Return the labels of a series; raises `BadWrite` where one is twice, has no name, or is no text."""
    labels: dict[str, str] = {}
    for _, kind, (start, stop) in _fields(key, 0, len(key)):
        if kind != _BYTES:
            _refuse("a label is no message", "labels")
        parts = {1: b"", 2: b""}
        for field, inner, (first, last) in _fields(key, start, stop):
            if field in parts and inner != _BYTES:
                _refuse("the name or value of a label is no text", "labels")
            if field in parts:
                parts[field] = key[first:last]
        try:
            name, value = parts[1].decode(), parts[2].decode()
        except UnicodeDecodeError:
            _refuse(f"a label is not UTF-8: {parts[1]!r}", "labels")
        if not name or name in labels:
            _refuse(f"label {name!r} has no name or stands there twice", "labels")
        labels[name] = value
    if not labels.get("__name__"):
        _refuse(f"a series has no name: {labels}", "__name__")
    return labels


def _fields(message: bytes, start: int, stop: int) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Yield number, wire type and span of the content of each field between start and stop."""
    at = start
    while at < stop:
        tag, at = _varint(message, at)
        kind, field = tag & 7, tag >> 3
        if field == 0:
            _refuse("a field has the number 0", "body")
        if kind == _VARINT:
            _, after = _varint(message, at)
        elif kind == _BYTES:
            size, at = _varint(message, at)
            after = at + size
        elif kind in {_FIXED64, _FIXED32}:
            after = at + (8 if kind == _FIXED64 else 4)
        else:
            _refuse(f"field {field} has the wire type {kind}, which is none", "body")
        if after > stop:
            _refuse("a field reaches beyond its message", "body")
        yield field, kind, (at, after)
        at = after


def _skip(message: bytes, at: int, end: int) -> int:
    """Return where the field that begins at `at` ends."""
    for field, kind, (_, after) in _fields(message, at, end):
        if field == 1 and kind != _BYTES:
            _refuse("a series is no message", "timeseries")
        if field == 1:
            _refuse("a series has an unusual tag", "timeseries")
        return after
    return end


def _refuse(why: str, field: str) -> NoReturn:
    raise BadWrite(why, field=field)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place in range(_VARINT_MAX):
        byte = message[at + place]
        number |= (byte & 0x7F) << (7 * place)
        if byte < _MORE:
            if number >= 1 << 64:
                break
            return number, at + place + 1
    _refuse("a number is longer than 64 bits", "body")
