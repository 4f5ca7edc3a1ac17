from datetime import UTC, datetime, timedelta, timezone

import pytest

from fleet.clock import FixedClock, SystemClock, as_utc, monotonic_from
from fleet.errors import BadInput

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_the_system_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)


def test_a_fixed_clock_stands_still_until_it_is_moved() -> None:
    clock = FixedClock(NOON)
    assert clock.now() == clock.now() == NOON
    clock.move(timedelta(hours=1))
    assert clock.now() == NOON + timedelta(hours=1)
    clock.move(timedelta(hours=-3))
    assert clock.now() == NOON - timedelta(hours=2)
    clock.set(NOON)
    assert clock.now() == NOON


def test_a_moment_of_another_zone_becomes_the_same_moment_in_utc() -> None:
    east = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert as_utc(east, "since") == NOON
    assert as_utc(east, "since").utcoffset() == timedelta(0)


def test_a_moment_without_a_zone_is_refused_by_the_name_of_its_field() -> None:
    naive = NOON.replace(tzinfo=None)
    with pytest.raises(BadInput, match=r"since: 2026-03-02T12:00:00 has no time zone; .*2026-03-02T12:00:00Z") as told:
        as_utc(naive, "since")
    assert told.value.field == "since"
    with pytest.raises(BadInput, match="now: "):
        FixedClock(naive)
    with pytest.raises(BadInput, match="now: "):
        FixedClock(NOON).set(naive)


def test_a_clock_set_back_stands_still_until_it_has_caught_up() -> None:
    clock = FixedClock(NOON)
    read = monotonic_from(clock)
    seen = []
    for by_minutes in (0, 5, -10, 4, 6, 0):
        clock.move(timedelta(minutes=by_minutes))
        seen.append(read())
    assert [(moment - NOON) // timedelta(minutes=1) for moment in seen] == [0, 5, 5, 5, 5, 5]
    clock.move(timedelta(minutes=1))
    assert read() == NOON + timedelta(minutes=6)


def test_each_reader_of_a_clock_keeps_its_own_latest_moment() -> None:
    clock = FixedClock(NOON)
    first = monotonic_from(clock)
    assert first() == NOON
    clock.move(timedelta(hours=-1))
    assert monotonic_from(clock)() == NOON - timedelta(hours=1)
    assert first() == NOON
