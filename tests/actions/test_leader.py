"""Leadership by clocks alone: two stewards, one lease, clocks that differ, a store that fails."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.leader import Leadership, Lease, Seen, decide, see
from fleet.errors import MoveRefused, SourceFailed, StaleState

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
S = timedelta(seconds=1)


class Shelf:
    """A lease store in memory that can fail."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.is_broken = False
        self.is_forbidden = False
        self.writes = 0

    def read(self) -> Lease | None:
        if self.is_broken:
            message = "no route"
            raise SourceFailed(message)
        return self.lease

    def write(self, lease: Lease) -> Lease:
        if self.is_broken:
            message = "no route"
            raise SourceFailed(message)
        if self.is_forbidden:
            message = "403"
            raise MoveRefused(message)
        if lease.version != ("" if self.lease is None else self.lease.version):
            message = "409"
            raise StaleState(message)
        self.writes += 1
        self.lease = replace(lease, version=str(self.writes))
        return self.lease


def test_the_first_leads_and_the_second_does_nothing_and_says_who_leads() -> None:
    shelf = Shelf()
    first, second = Leadership(shelf, "a"), Leadership(shelf, "b")
    assert first.why_not(NOW) is None
    assert second.why_not(NOW) == "a leads and its lease runs"
    for tick in range(1, 20):
        now = NOW + tick * 7 * S
        assert first.why_not(now) is None
        assert second.why_not(now) is not None
    assert shelf.lease is not None
    assert (shelf.lease.holder, shelf.lease.transitions) == ("a", 0)


def test_the_second_takes_over_once_the_lease_stood_still_for_its_duration_and_the_first_stops() -> None:
    shelf = Shelf()
    first, second = Leadership(shelf, "a"), Leadership(shelf, "b")
    assert first.why_not(NOW) is None
    assert second.why_not(NOW + 1 * S) is not None
    assert second.why_not(NOW + 30 * S) is not None, "it looked at NOW + 1 s first"
    assert second.why_not(NOW + 31 * S) is None
    assert first.why_not(NOW + 32 * S) == "b leads and its lease runs"
    assert shelf.lease is not None
    assert (shelf.lease.holder, shelf.lease.transitions) == ("b", 1)


@pytest.mark.parametrize("skew_s", [-3600, -40, 0, 40, 200], ids=str)
def test_a_clock_that_differs_takes_no_lease_that_is_renewed(skew_s: int) -> None:
    shelf = Shelf()
    first, second = Leadership(shelf, "a"), Leadership(shelf, "b")
    for tick in range(20):
        now = NOW + tick * 8 * S
        assert first.why_not(now) is None
        assert second.why_not(now + skew_s * S) is not None


def test_a_lease_long_past_is_over_at_first_sight_for_a_command_that_lives_a_second() -> None:
    lease = Lease("dead", NOW - timedelta(minutes=10))
    assert decide(Seen(lease, NOW), "a", NOW).why_not is None
    assert decide(Seen(replace(lease, renewed_at=NOW - 60 * S), NOW), "a", NOW).why_not is not None


def test_a_leader_that_gets_no_answer_goes_on_until_its_lease_could_be_over_and_no_longer() -> None:
    shelf = Shelf()
    leader = Leadership(shelf, "a")
    assert leader.why_not(NOW) is None
    shelf.is_broken = True
    assert leader.why_not(NOW + 15 * S) is None
    assert "can't be renewed" in str(leader.why_not(NOW + 20 * S))
    shelf.is_broken = False
    assert leader.why_not(NOW + 21 * S) is None


def test_who_never_held_the_lease_does_not_act_while_it_cannot_be_read_or_written() -> None:
    shelf = Shelf()
    shelf.is_broken = True
    assert "can't be renewed" in str(Leadership(shelf, "a").why_not(NOW))
    shelf.is_broken, shelf.is_forbidden = False, True
    assert Leadership(shelf, "a").why_not(NOW) == "the lease can't be taken: 403"


def test_two_that_reach_for_a_free_lease_at_once_do_not_both_get_it() -> None:
    shelf = Shelf()

    class Raced(Shelf):
        def read(self) -> Lease | None:
            seen = shelf.lease
            if shelf.lease is None:
                shelf.write(Lease("b", NOW))  # between our look and our write
            return seen

        def write(self, lease: Lease) -> Lease:
            return shelf.write(lease)

    assert "another took the lease first" in str(Leadership(Raced(), "a").why_not(NOW))
    assert shelf.lease is not None
    assert shelf.lease.holder == "b"


def test_a_lease_given_back_is_free_at_once_and_anothers_is_never_given_back() -> None:
    shelf = Shelf()
    first, second = Leadership(shelf, "a"), Leadership(shelf, "b")
    assert first.why_not(NOW) is None
    second.release()
    assert shelf.lease is not None
    assert shelf.lease.holder == "a"
    first.release()
    assert second.why_not(NOW + 1 * S) is None


def test_a_clock_set_back_keeps_nobody_in_the_lead_by_itself() -> None:
    shelf = Shelf()
    leader = Leadership(shelf, "a")
    assert leader.why_not(NOW) is None
    shelf.is_broken = True
    assert leader.why_not(NOW - timedelta(hours=1)) is not None


def test_who_leads_is_told_without_taking_the_lead() -> None:
    shelf = Shelf()
    first, second = Leadership(shelf, "a"), Leadership(shelf, "b")
    assert (first.told(), shelf.writes) == ("nobody leads", 0)
    first.renew(NOW)
    assert (first.told(), second.told(), shelf.writes) == ("a leads, that is us", "a leads", 1)
    shelf.is_broken = True
    assert second.told() == "the lease can't be read: no route"


def test_a_lease_is_seen_as_unchanged_since_it_last_changed() -> None:
    lease = Lease("a", NOW)
    first = see(None, lease, NOW)
    assert see(first, lease, NOW + 5 * S).since == NOW
    assert see(first, replace(lease, renewed_at=NOW + 1 * S), NOW + 5 * S).since == NOW + 5 * S
