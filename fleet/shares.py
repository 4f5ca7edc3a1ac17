"""Shares: what several holders of one device did, when only the device as a whole was measured."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

H = TypeVar("H", bound=Hashable)


def split_activity(activity: float | None, own: Mapping[H, float | None]) -> dict[H, float | None]:
    """Return each holder's part of a device's activity (ratio); the parts never sum to more than the device.

    `own` gives for each holder what was measured of its processes, as a ratio of the device's time, null where
    nothing was. What is known is kept, scaled down where its sum is more than the device did; what it leaves of the
    device goes to the others in equal parts. Nobody is given what all are known not to have used. A device that was
    not measured gives null to those who were not either.
    """
    known = {holder: value for holder, value in own.items() if value is not None}
    if activity is None:
        return dict(own)
    total = sum(known.values())
    scale = 1.0 if total <= activity else activity / total
    others = len(own) - len(known)
    rest = max(0.0, activity - total * scale) / others if others > 0 else 0.0
    return {holder: rest if value is None else value * scale for holder, value in own.items()}
