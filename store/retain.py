"""Retention: what is older than it should be kept goes, except what must be kept for ever."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import duckdb

from fleet.errors import BadInput
from fleet.frames import Table
from fleet.tables import TABLES
from store.ask import count
from store.moments import hour_of

# What was planned, done and charged is the audit; the dimensions are what the rows' keys stand for.
KEPT = frozenset(
    {
        "plan",
        "move",
        "outcome",
        "approval",
        "cost_line",
        "cost_day",
        "cost_month",
        "budget",
        "charge",
        "gpu",
        "slice",
        "node",
        "watermark",
    }
)
# What has not ended is not old, however long ago it began.
_ENDS = ("ends_at", "ended_at")


def retain(cursor: duckdb.DuckDBPyConnection, keep: Mapping[str, timedelta], now: datetime) -> dict[str, int]:
    """Drop rows older than `keep` says, by table; return how many.

    Raises `BadInput` for a table that is kept for ever and for an age that is not above zero.
    """
    for name, age in keep.items():
        _refuse_kept(name)
        if age <= timedelta(0):
            message = f"retention: {name} for {age} is not above zero"
            raise BadInput(message, field=name)
    return {name: _drop_before(cursor, TABLES[name], now - age) for name, age in keep.items()}


def _refuse_kept(name: str) -> None:
    if name in TABLES and TABLES[name].time is not None and name not in KEPT:
        return
    known = sorted(table for table, shape in TABLES.items() if shape.time is not None and table not in KEPT)
    message = f"retention: rows of {name} are never dropped; tables with an age to keep are {', '.join(known)}"
    raise BadInput(message, field=name)


def _drop_before(cursor: duckdb.DuckDBPyConnection, table: Table, moment: datetime) -> int:
    # Samples go by whole hours, so that a roll-up of what is left never sees half an hour.
    before = hour_of(moment) if table.name == "gpu_sample" else moment
    times = [table.time, *(name for name in _ENDS if name in table.schema())]
    where = " AND ".join(f"{name} < ?" for name in times)
    return count(cursor, f"DELETE FROM {table.name} WHERE {where}", [before] * len(times))  # noqa: S608 - our own names
