"""A clock that was set while we looked: an event, since the times of all that was measured before it are in doubt."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime

import polars as pl

from fleet.batch import Batch
from fleet.bounds import require_positive
from fleet.clock import Clock
from fleet.tables import EVENT


class ClockSource:
    """Compares the machine's clock with one that can't be set, from one reading to the next.

    A difference above `tolerance_s` between two readings is a clock that was set (or a machine that slept): slewing
    changes it by half a thousandth at most.
    """

    name = "clock"

    def __init__(
        self,
        clock: Clock,
        cluster: str,
        node: str,
        *,
        tolerance_s: float = 2.0,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        require_positive("tolerance_s", tolerance_s)
        self._clock, self._cluster, self._node = clock, cluster, node
        self._tolerance_s, self._monotonic_s = tolerance_s, monotonic_s
        self._last: tuple[datetime, float] | None = None

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:  # noqa: ARG002 - a live source has only now
        """Yield an event `clock_jump` where the clock was set since the last reading, else nothing."""
        now, steady_s = self._clock.now(), self._monotonic_s()
        before, self._last = self._last, (now, steady_s)
        if before is None:
            return
        jump_s = (now - before[0]).total_seconds() - (steady_s - before[1])
        if abs(jump_s) > self._tolerance_s:
            yield Batch(self.name, {"event": self._event(now, jump_s)}).checked()

    def _event(self, now: datetime, jump_s: float) -> pl.DataFrame:
        way = "forward" if jump_s > 0 else "back"
        row = {
            "ts": now, "cluster": self._cluster, "node": self._node, "kind": "clock_jump",
            "message": f"the clock was set {way} by {abs(jump_s):.1f} s", "source": self.name,
        }  # fmt: skip
        schema = EVENT.schema("wire")
        return pl.DataFrame([row], schema={name: schema[name] for name in row})
