"""Moments: times between Python and SQL, as microseconds since 1970 in UTC."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def hour_of(moment: datetime) -> datetime:
    """Return the start of the clock hour (UTC) that `moment` is in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def day_of(moment: datetime) -> datetime:
    """Return the start of the day (UTC) that `moment` is in."""
    return hour_of(moment).replace(hour=0)


def from_microseconds(count: int | None) -> datetime | None:
    """Return the moment, or None for none."""
    return None if count is None else EPOCH + timedelta(microseconds=count)
