"""DCGM's XID gauge becomes events: it holds the last value for ever, so only what changes, or first shows, is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


def nothing_told() -> Mapping[str, int]:
    """Return no codes: nothing was told before."""
    return {}


@dataclass(slots=True)
class XidMemory:
    """What each device's gauge last showed, and when (milliseconds).

    `told` gives, by GPU, the code of the last XID that is stored; asked once, when the first gauge is read, so that a
    gauge which stood there before a restart is not told again.
    """

    told: Callable[[], Mapping[str, int]] = nothing_told
    shown: dict[tuple[str, str | None], tuple[int, int]] = field(default_factory=dict)
    before: Mapping[str, int] | None = None


def changes(
    devices: NDArray[np.int64],
    ts: NDArray[np.int64],
    codes: NDArray[np.int64],
    names: Mapping[int, tuple[str, str | None]],
    memory: XidMemory,
) -> list[tuple[int, int, int, str]]:
    """Return (device, ts, code, what happened) for each change of a gauge, and remember what it shows now.

    The arrays hold one sample each; `names` gives a device's GPU and MIG device.
    """
    found = []
    order = np.lexsort((ts, devices))
    devices, ts, codes = devices[order], ts[order], codes[order]
    starts = np.flatnonzero(np.diff(devices, prepend=-1))
    for start, stop in zip(starts, [*starts, len(devices)][1:], strict=True):
        device = int(devices[start])
        moments, values = ts[start:stop], codes[start:stop]
        if _is_news(names[device], int(moments[0]), int(values[0]), memory):
            found.append((device, int(moments[0]), int(values[0]), _words(names[device], int(values[0]), memory)))
        for place in np.flatnonzero((values[1:] != values[:-1]) & (values[1:] != 0)) + 1:
            code = int(values[place])
            found.append((device, int(moments[place]), code, f"the exporter's gauge changed to XID {code}"))
        latest = memory.shown.get(names[device])
        if latest is None or latest[0] <= int(moments[-1]):
            memory.shown[names[device]] = (int(moments[-1]), int(values[-1]))
    return found


def _is_news(name: tuple[str, str | None], moment: int, code: int, memory: XidMemory) -> bool:
    """Tell whether a reading's first value of a device is one that was not told before."""
    if code == 0:
        return False
    latest = memory.shown.get(name)
    if latest is not None:
        return latest[0] < moment and latest[1] != code  # what is older was read before
    if memory.before is None:
        memory.before = dict(memory.told())
    return memory.before.get(name[0]) != code


def _words(name: tuple[str, str | None], code: int, memory: XidMemory) -> str:
    if name in memory.shown:
        return f"the exporter's gauge changed to XID {code}"
    return f"the exporter's gauge first shows XID {code}, which may be older"
