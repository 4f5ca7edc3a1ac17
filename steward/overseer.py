"""What watches over the moves in one cluster: the kill switches and the leadership, asked before each move."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from actions.leader import Leadership
from actions.switch import ReadSwitch, why_braked
from fleet.clock import Clock
from steward.brake import reason_of
from steward.notify import Herald


def _nothing() -> None:
    """Do nothing: what most clusters need at the end."""


@dataclass(frozen=True, slots=True)
class Overseer:
    """One cluster's own kill switch, election and herald, each where the cluster has one.

    Without an election, who owns the store leads: one process at a time can open it.
    """

    switch: ReadSwitch | None = None
    leadership: Leadership | None = None
    herald: Herald | None = None
    closing: Callable[[], None] = _nothing

    def close(self) -> None:
        """Give the lead back and let go of the connections."""
        if self.leadership is not None:
            self.leadership.release()
        self.closing()


class Remembered:
    """A kill switch that is read at most once in `for_s` seconds: a plan of a thousand moves does not ask as often."""

    def __init__(self, read: ReadSwitch, clock: Clock, for_s: float = 1.0) -> None:
        """Read by `read`."""
        self._read, self._clock, self._for = read, clock, timedelta(seconds=for_s)
        self._data: Mapping[str, str] | None = None
        self._read_at: datetime | None = None

    def __call__(self) -> Mapping[str, str] | None:
        """Return the switch's data, read afresh where what is known is too old."""
        now = self._clock.now()
        if self._read_at is None or not timedelta(0) <= now - self._read_at < self._for:
            self._data, self._read_at = self._read(), now
        return self._data


def why_not_leading(overseer: Overseer | None, now: datetime) -> str | None:
    """Return why another acts in this cluster and not we; None where we lead."""
    if overseer is None or overseer.leadership is None:
        return None
    reason = overseer.leadership.why_not(now)
    return None if reason is None else f"not the leader: {reason}"


def why_stopped(
    overseer: Overseer | None, database: Path | None, now: datetime, *, even_braked: bool = False
) -> str | None:
    """Return why nothing may be moved: the brake beside the store, the switch in the cluster, or another's lead.

    `even_braked` is for taking back only: it passes by both brakes, and never by the lead.
    """
    if not even_braked:
        reason = reason_of(database)
        if reason is not None:
            return f"the kill switch is on: {reason}"
        if overseer is not None and overseer.switch is not None:
            reason = why_braked(overseer.switch)
            if reason is not None:
                return reason
    return why_not_leading(overseer, now)
