"""The order `ingest`: a node agent hands a batch over to the server that owns the store.

A batch travels as JSON with its frames as Arrow streams in base64. It is stored whole or not at all, and taken twice
without harm, so an agent that got no answer sends it again.
"""

import base64
import binascii
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NoReturn

import polars as pl
import pyarrow as pa

from fleet.batch import Batch, Trouble
from fleet.clock import as_utc
from fleet.errors import BadInput
from steward.compose import House
from steward.report import Report
from store.store import Store

ROLL_UP_EVERY = timedelta(minutes=1)
SKEW_MAX = timedelta(seconds=30)
_KINDS = ("failed", "rejected", "noticed")


class RollingUp:
    """Rolls up what was stored, a minute's worth at a time; the first time also what a kill may have left undone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._rolled_at: datetime | None = None

    def after(self, store: Store, batch: Batch, now: datetime) -> None:
        """Note the samples of a stored batch, and roll up where a minute has passed since the last time."""
        with self._lock:
            for moment in _span(batch) or ():
                self._first = moment if self._first is None else min(self._first, moment)
                self._last = moment if self._last is None else max(self._last, moment)
            if self._first is None or self._last is None:
                return
            if self._rolled_at is not None and abs(now - self._rolled_at) < ROLL_UP_EVERY:
                return
            since = self._first if self._rolled_at is not None else min(self._first, now - timedelta(hours=1))
            store.roll_up(since, self._last + timedelta(seconds=1))
            self._first, self._last, self._rolled_at = None, None, now


class IngestDesk:
    """Takes batches into one house; the store orders its writers, so no turn is waited for."""

    def __init__(self, house: House) -> None:
        self._house, self._rolling = house, RollingUp()

    def take(self, parameters: Mapping[str, object]) -> Report:
        """Store one batch and say how many rows were new or changed, by table; raise `BadInput` where it is none."""
        now = self._house.clock.now()
        batch = unpack(parameters)
        batch = replace(batch, troubles=batch.troubles + _skew(parameters, now))
        written = self._house.store.append(batch)
        self._rolling.after(self._house.store, batch, now)
        return Report("IngestReport", now, {f"{table} rows": count for table, count in sorted(written.items())})


def pack(batch: Batch, node: str, sent_at: datetime) -> dict[str, object]:
    """Return a batch as the parameters of the order, with who sends it and the time on the sender's clock."""
    return {
        "node": node,
        "sent_at": sent_at.isoformat(),
        "source": batch.source,
        "read_until": None if batch.read_until is None else batch.read_until.isoformat(),
        "cursor": batch.cursor,
        "troubles": [
            {
                "kind": each.kind,
                "place": each.place,
                "reason": each.reason,
                "rows": each.row_count,
                "example": each.example,
            }
            for each in batch.troubles
        ],
        "frames": {name: _written(frame) for name, frame in batch.frames.items()},
    }


def unpack(parameters: Mapping[str, object]) -> Batch:
    """Return the batch that the parameters of the order hold, or raise `BadInput` naming what is wrong."""
    until = parameters.get("read_until")
    frames, troubles = parameters.get("frames", {}), parameters.get("troubles", [])
    if not isinstance(frames, dict) or not isinstance(troubles, list):
        _refuse("frames" if not isinstance(frames, dict) else "troubles", "is of another type")
    return Batch(
        _text(parameters, "source"),
        {str(name): _read(str(name), body) for name, body in frames.items()},
        None if until is None else _moment(parameters, "read_until"),
        tuple(_trouble(each) for each in troubles),
        None if parameters.get("cursor") is None else _text(parameters, "cursor"),
    ).checked()


def _skew(parameters: Mapping[str, object], now: datetime) -> tuple[Trouble, ...]:
    ahead = _moment(parameters, "sent_at") - now
    if abs(ahead) <= SKEW_MAX:
        return ()
    way = "ahead of" if ahead > timedelta() else "behind"
    # In whole minutes, so that one lasting skew is one trouble and not a new one with each batch.
    minutes = round(abs(ahead).total_seconds() / 60)
    reason = f"its clock is about {minutes} minutes {way} that of the store; its times are kept as they came"
    return (Trouble("noticed", f"{_text(parameters, 'node')}, clock", reason),)


def _written(frame: pl.DataFrame) -> str:
    table = frame.to_arrow()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue()).decode()


def _read(name: str, body: object) -> pl.DataFrame:
    try:
        stream = base64.b64decode(str(body), validate=True)
        with pa.ipc.open_stream(stream) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (binascii.Error, pa.ArrowException, OSError, ValueError) as error:
        _refuse(f"frames.{name}", f"is not an Arrow stream in base64 ({error})", error)
    frame = pl.from_arrow(table)
    if not isinstance(frame, pl.DataFrame):
        _refuse(f"frames.{name}", "is no table")
    return frame


def _trouble(told: object) -> Trouble:
    if not isinstance(told, dict) or told.get("kind") not in _KINDS:
        _refuse("troubles", f"holds what is no trouble of kind {', '.join(_KINDS)}")
    rows, example = told.get("rows", 0), told.get("example")
    if not isinstance(rows, int) or rows < 0:
        _refuse("troubles.rows", "is not a number of rows")
    return Trouble(
        str(told["kind"]), _text(told, "place"), _text(told, "reason"), rows, None if example is None else str(example)
    )


def _text(parameters: Mapping[str, object], field: str) -> str:
    value = parameters.get(field)
    if not isinstance(value, str) or not value:
        _refuse(field, "is not a text")
    return value


def _moment(parameters: Mapping[str, object], field: str) -> datetime:
    text = _text(parameters, field)
    try:
        return as_utc(datetime.fromisoformat(text), field)
    except ValueError as error:
        _refuse(field, f"is not a time ({error})", error)


def _refuse(field: str, why: str, cause: Exception | None = None) -> NoReturn:
    message = f"ingest: {field} {why}"
    raise BadInput(message, place="ingest", field=field) from cause


def _span(batch: Batch) -> tuple[datetime, datetime] | None:
    """Return the moments of the first and the last sample of a GPU; None where there is none."""
    frame = batch.frames.get("gpu_sample")
    if frame is None or frame.is_empty():
        return None
    first, last = frame.select(first=pl.col("ts").min(), last=pl.col("ts").max()).row(0)
    return first, last
