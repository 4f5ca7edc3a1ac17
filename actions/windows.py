"""Maintenance windows: when moves that take something may be made, and when never, by the clock of a time zone.

A window is told in local wall-clock time and asked in UTC. Where clocks are set forward, the hour that is skipped is in
no window; where they are set back, the hour that comes twice is in its window both times.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fleet.errors import BadInput

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MIDNIGHT = time(0, 0)


@dataclass(frozen=True, slots=True)
class Window:
    """One window: `only` inside it, or `never` inside it (a freeze).

    It is open on `days` from `starts` until before `ends` (HH:MM; not later than `starts` means on the next day, and
    both the same the whole day), in `zone`, from the day `first` to the day `last` where they are given (YYYY-MM-DD).
    It holds for the moves of these `rules`, `clusters` and `pools`; none named means all.
    """

    name: str
    moves: Literal["only", "never"] = "only"
    days: tuple[str, ...] = DAYS
    starts: str = "00:00"
    ends: str = "00:00"
    zone: str = "UTC"
    first: str | None = None
    last: str | None = None
    rules: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a window that means nothing."""
        if self.moves not in {"only", "never"}:
            self._refuse("moves", f"{self.moves!r} is not one of only, never")
        unknown = [day for day in self.days if day not in DAYS]
        if unknown or not self.days:
            self._refuse("days", f"{', '.join(map(repr, unknown)) or 'no day'} is not of {', '.join(DAYS)}")
        for name, text in (("starts", self.starts), ("ends", self.ends)):
            if _clock(text) is None:
                self._refuse(name, f"{text!r} is not a time such as 22:30")
        for name, day in (("first", self.first), ("last", self.last)):
            if day is not None and _date(day) is None:
                self._refuse(name, f"{day!r} is not a day such as 2026-12-24")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError):
            self._refuse("zone", f"{self.zone!r} is not a time zone such as Europe/Berlin")

    def concerns(self, rule: str, cluster: str, pools: Iterable[str | None]) -> bool:
        """Return whether it holds for a rule's move in that cluster that touches one of these pools."""
        touched = set(pools) or {None}
        return (
            (not self.rules or rule in self.rules)
            and (not self.clusters or cluster in self.clusters)
            and (not self.pools or not touched.isdisjoint(self.pools))
        )

    def is_open(self, now: datetime) -> bool:
        """Return whether a moment lies inside."""
        local = now.astimezone(ZoneInfo(self.zone))
        clock = local.time().replace(tzinfo=None)
        starts, ends = _clock(self.starts) or _MIDNIGHT, _clock(self.ends) or _MIDNIGHT
        if starts < ends:
            return starts <= clock < ends and self._is_on(local)
        # it ends on the day after: in its evening by today, in its morning by yesterday
        return (clock >= starts and self._is_on(local)) or (clock < ends and self._is_on(local - timedelta(days=1)))

    def _is_on(self, day: datetime) -> bool:
        """Return whether the window that starts on that local day is one of ours."""
        text = day.date().isoformat()
        is_in_span = (self.first is None or self.first <= text) and (self.last is None or text <= self.last)
        return is_in_span and DAYS[day.weekday()] in self.days

    def _refuse(self, field: str, why: str) -> None:
        message = f"windows.{self.name}.{field}: {why}"
        raise BadInput(message, field=f"windows.{self.name}.{field}")


def why_closed(
    windows: Iterable[Window], rule: str, cluster: str, pools: Iterable[str | None], now: datetime
) -> str | None:
    """Say which window keeps a move from being made now, or None.

    It must be in no freeze, and, where windows are meant for it at all, in one of them for each pool it touches.
    """
    touched = tuple(dict.fromkeys(pools)) or (None,)
    for window in windows:
        if window.moves == "never" and window.concerns(rule, cluster, touched) and window.is_open(now):
            return f"window {window.name}: nothing is moved now ({_told(window)})"
    for pool in touched:
        meant = [each for each in windows if each.moves == "only" and each.concerns(rule, cluster, (pool,))]
        if meant and not any(each.is_open(now) for each in meant):
            return f"windows {', '.join(each.name for each in meant)}: only then; now is {_utc(now)}"
    return None


def _told(window: Window) -> str:
    return f"{', '.join(window.days)} {window.starts} to {window.ends} {window.zone}"


def _utc(now: datetime) -> str:
    return f"{now.astimezone(UTC):%a %H:%M} UTC"


def _clock(text: str) -> time | None:
    try:
        return datetime.strptime(text, "%H:%M").replace(tzinfo=UTC).time()
    except ValueError:
        return None


def _date(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
