"""Time as an argument: whoever needs to know the time is handed a clock."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from fleet.errors import BadInput


class Clock(Protocol):
    """Tells the time as an aware UTC datetime."""

    def now(self) -> datetime:
        """Return the present moment in UTC."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the present moment in UTC."""
        return datetime.now(UTC)


class FixedClock:
    """A clock that stands still until it is moved; for replays, simulations and tests."""

    def __init__(self, now: datetime) -> None:
        """Start at `now` (aware)."""
        self._now = as_utc(now, "now")

    def now(self) -> datetime:
        """Return the moment the clock was last set to."""
        return self._now

    def move(self, by: timedelta) -> None:
        """Move the clock forwards, or backwards where `by` is negative."""
        self._now += by

    def set(self, now: datetime) -> None:
        """Set the clock to `now` (aware)."""
        self._now = as_utc(now, "now")


def as_utc(moment: datetime, field: str) -> datetime:
    """Return `moment` in UTC, or raise `BadInput` naming `field` where it has no time zone."""
    if moment.tzinfo is None:
        message = f"{field}: {moment.isoformat()} has no time zone; write {moment.isoformat()}Z for UTC"
        raise BadInput(message, field=field)
    return moment.astimezone(UTC)


def monotonic_from(clock: Clock) -> Callable[[], datetime]:
    """Return a function that reads `clock` and never goes back: a clock set back stands still until it catches up."""
    latest: list[datetime] = []

    def read() -> datetime:
        now = clock.now()
        if latest and now < latest[0]:
            return latest[0]
        latest[:] = [now]
        return now

    return read
