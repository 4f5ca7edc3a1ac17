"""Which events count towards "since the agent started": each once, whichever source told it first.

The driver's own events and the kernel's log tell of the same fault, and the log also of what was before this start.
"""

from collections import deque
from datetime import datetime, timedelta

import polars as pl

from fleet.tables import EVENT

_NEAR = timedelta(seconds=EVENT.tolerance_s)
_KEPT = 32  # of one GPU and code: the other source tells of it in the same turn or the next


class CountedEvents:
    """Remembers the events of late, so that one that two sources told is counted once."""

    def __init__(self, started_at: datetime) -> None:
        self._started_at = started_at
        self._told: dict[tuple[object, ...], deque[tuple[datetime, str]]] = {}

    def news(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return the events since the start that no other source told within two seconds."""
        rows = events.select("ts", "source", "node", "gpu_uuid", "kind", "code").iter_rows()
        is_new = [self._is_new(ts, source, (node, *what)) for ts, source, node, *what in rows]
        return events.filter(pl.Series(is_new, dtype=pl.Boolean()))

    def _is_new(self, ts: datetime, source: str, what: tuple[object, ...]) -> bool:
        if ts < self._started_at - _NEAR:
            return False
        told = self._told.setdefault(what, deque(maxlen=_KEPT))
        for place, (moment, teller) in enumerate(told):
            if teller != source and abs(ts - moment) <= _NEAR:
                del told[place]  # one telling answers one: two faults told by both sources are two
                return False
        told.append((ts, source))
        return True
