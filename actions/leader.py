"""Who may act: of several stewards that watch one cluster, the one that holds its lease. The decision is pure.

The moments in a lease are another machine's clock, and clocks differ. So a lease is not judged by them: it is over
where it has not changed for its whole duration by our own clock (as Kubernetes' own leader election does it).
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from fleet.errors import ActionError, SourceFailed, StaleState

LEASE_S = 30.0
_SKEW = timedelta(minutes=5)  # no two clocks differ more: a lease that much past its end is over at first sight
RENEW_SHARE = 2 / 3  # who could not renew for this share of the lease stops acting before another may begin


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it stands in the cluster; `version` is that of its object, "" where there is none yet."""

    holder: str | None
    renewed_at: datetime | None
    duration_s: float = LEASE_S
    acquired_at: datetime | None = None
    transitions: int = 0
    version: str = ""


class LeaseStore(Protocol):
    """Where the lease stands."""

    def read(self) -> Lease | None:
        """Return the lease, None where there is none yet; raises `SourceFailed` where it can't be read."""
        ...

    def write(self, lease: Lease) -> Lease:
        """Write the lease over the version it was read at and return it as it stands then.

        Raises `StaleState` where another was faster, `SourceFailed` where it can't be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """A lease and since when, by our clock, it has stood unchanged."""

    lease: Lease | None
    since: datetime


@dataclass(frozen=True, slots=True)
class Lead:
    """Why we may not act (None: we may), and the lease to write where it is ours to take or renew."""

    why_not: str | None = None
    write: Lease | None = None


def see(before: Seen | None, lease: Lease | None, now: datetime) -> Seen:
    """Return what is known of a lease once it was read again."""
    if before is not None and before.lease is not None and lease is not None and _is_same(before.lease, lease):
        return Seen(lease, before.since)
    return Seen(lease, now)


def decide(seen: Seen, ours: str, now: datetime, duration_s: float = LEASE_S) -> Lead:
    """Decide whether `ours` may take or renew the lease: nobody's, our own, or one that stood still too long."""
    lease = seen.lease
    if lease is None or not lease.holder:
        transitions = 0 if lease is None else lease.transitions
        version = "" if lease is None else lease.version
        return Lead(write=Lease(ours, now, duration_s, now, transitions, version))
    if lease.holder == ours:
        return Lead(write=replace(lease, renewed_at=now, duration_s=duration_s))
    has_stood = now - seen.since >= timedelta(seconds=lease.duration_s)
    is_long_past = lease.renewed_at is not None and now - lease.renewed_at > timedelta(seconds=lease.duration_s) + _SKEW
    if not (has_stood or is_long_past):
        return Lead(f"{lease.holder} leads and its lease runs")
    taken = Lease(ours, now, duration_s, now, lease.transitions + 1, lease.version)
    return Lead(write=taken)


class Leadership:
    """Our part in one cluster's election; ask before each plan, and before each move."""

    def __init__(self, store: LeaseStore, ours: str, duration_s: float = LEASE_S) -> None:
        """Take part as `ours`, a name that no other process has."""
        self._store, self._ours, self._duration_s = store, ours, duration_s
        self._seen: Seen | None = None
        self._held_since: datetime | None = None  # when we last wrote our lease, by our own clock

    def renew(self, now: datetime) -> str | None:
        """Take or renew the lease; return None where we lead, else why not."""
        try:
            lease = self._store.read()
            self._seen = see(self._seen, lease, now)
            lead = decide(self._seen, self._ours, now, self._duration_s)
            if lead.write is not None:
                self._seen = Seen(self._store.write(lead.write), now)
                self._held_since = now
        except SourceFailed as error:
            return self._in_doubt(now, str(error))
        except StaleState as error:
            self._held_since = None
            return f"another took the lease first: {error}"
        except ActionError as error:
            self._held_since = None
            return f"the lease can't be taken: {error}"
        if lead.why_not is not None:
            self._held_since = None
        return lead.why_not

    def why_not(self, now: datetime) -> str | None:
        """Return None where our lease still holds for sure; it is renewed where half of that time is over."""
        half = timedelta(seconds=self._duration_s * RENEW_SHARE / 2)
        if self._held_since is not None and timedelta(0) <= now - self._held_since < half:
            return None
        return self.renew(now)

    def told(self) -> str:
        """Say who leads, as the lease has it; nothing is written."""
        try:
            lease = self._store.read()
        except SourceFailed as error:
            return f"the lease can't be read: {error}"
        if lease is None or not lease.holder:
            return "nobody leads"
        return f"{lease.holder} leads" + (", that is us" if lease.holder == self._ours else "")

    def release(self) -> None:
        """Give the lease back, so that another need not wait for its end; one that is not ours stays as it is."""
        held, self._held_since = self._held_since, None
        if held is None or self._seen is None or self._seen.lease is None:
            return
        with suppress(SourceFailed, ActionError):
            self._store.write(replace(self._seen.lease, holder=None))

    def _in_doubt(self, now: datetime, why: str) -> str | None:
        """A leader whose renewal got no answer goes on until its lease could be over, and not a moment longer."""
        held = self._held_since
        if held is not None and timedelta(0) <= now - held < timedelta(seconds=self._duration_s * RENEW_SHARE):
            return None
        return f"the lease can't be renewed: {why}"


def _is_same(one: Lease, other: Lease) -> bool:
    return (one.holder, one.renewed_at, one.transitions) == (other.holder, other.renewed_at, other.transitions)
