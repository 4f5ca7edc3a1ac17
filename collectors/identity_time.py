"""Time and sharing: claims on devices become intervals whose parts of a device never sum to more than it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from collectors.identity_facts import Device

_OPEN = datetime.max.replace(tzinfo=UTC)
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody (`key`) holds a device from, to; `part` is the device's part of its GPU (ratio).

    `fraction` is the holder's part of the GPU where it is known (MIG, replicas), None where holders share evenly.
    """

    key: tuple[str, str | None]  # pod UID and container
    device: Device
    part: float
    fraction: float | None
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Share:
    """A claim's part of the GPU during an interval `[starts_at, ends_at)`; null = open."""

    claim: Claim
    fraction: float
    starts_at: datetime
    ends_at: datetime | None

    @property
    def is_crowded(self) -> bool:
        """Tell whether others hold so much of the device that less is left than was told."""
        return self.claim.fraction is not None and self.fraction < self.claim.fraction - _SLACK


def share_out(claims: Iterable[Claim]) -> list[Share]:
    """Return the claims with their parts of the GPU, cut where the number of holders changes what each has.

    Where the known parts of a device's holders sum to more than the device, all are scaled down alike.
    """
    by_device: defaultdict[Device, list[Claim]] = defaultdict(list)
    for claim in claims:
        if claim.ends_at is None or claim.ends_at > claim.starts_at:
            by_device[claim.device].append(claim)
    return [share for each in by_device.values() for together in _together(each) for share in _of_device(together)]


def cut(
    starts_at: datetime, ends_at: datetime | None, at: Iterable[datetime]
) -> Iterator[tuple[datetime, datetime | None]]:
    """Yield an interval in pieces, cut at every moment that lies within it."""
    inner = sorted({moment for moment in at if starts_at < moment < (ends_at or _OPEN)})
    edges: list[datetime | None] = [starts_at, *inner, ends_at]
    for start, end in pairwise(edges):
        if start is not None:
            yield start, end


def _together(claims: Iterable[Claim]) -> Iterator[list[Claim]]:
    """Yield the claims in groups that share no moment with each other."""
    group: list[Claim] = []
    until = datetime.min.replace(tzinfo=UTC)
    for claim in sorted(claims, key=lambda each: (each.starts_at, each.key[0], each.key[1] or "")):
        if group and claim.starts_at >= until:
            yield group
            group = []
        until = max(until, claim.ends_at or _OPEN) if group else claim.ends_at or _OPEN
        group.append(claim)
    if group:
        yield group


def _of_device(claims: Sequence[Claim]) -> list[Share]:
    if len(claims) == 1 or (_is_known(claims) and _sum(claims) <= claims[0].part + _SLACK):
        return [_alone(claim) for claim in claims]
    edges = {edge for claim in claims for edge in (claim.starts_at, claim.ends_at) if edge is not None}
    found: list[Share] = []
    for claim in claims:
        for start, end in cut(claim.starts_at, claim.ends_at, edges):
            beside = [each for each in claims if each.starts_at <= start and (each.ends_at or _OPEN) > start]
            fraction = _fractions(beside)[claim]
            last = found[-1] if found else None
            if last is not None and last.claim is claim and abs(last.fraction - fraction) < _SLACK:
                found[-1] = Share(claim, fraction, last.starts_at, end)
            else:
                found.append(Share(claim, fraction, start, end))
    return found


def _fractions(claims: Sequence[Claim]) -> Mapping[Claim, float]:
    part = claims[0].part
    even = part / len(claims)
    wanted = {claim: even if claim.fraction is None else claim.fraction for claim in claims}
    total = sum(wanted.values())
    scale = 1.0 if total <= part + _SLACK else part / total
    return {claim: fraction * scale for claim, fraction in wanted.items()}


def _alone(claim: Claim) -> Share:
    fraction = claim.part if claim.fraction is None else min(claim.fraction, claim.part)
    return Share(claim, fraction, claim.starts_at, claim.ends_at)


def _is_known(claims: Sequence[Claim]) -> bool:
    return all(claim.fraction is not None for claim in claims)


def _sum(claims: Iterable[Claim]) -> float:
    return sum(claim.fraction for claim in claims if claim.fraction is not None)
