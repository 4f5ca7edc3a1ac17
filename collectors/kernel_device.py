"""The door to `/dev/kmsg`: the kernel's ring buffer, one record a reading, and since when the kernel runs."""

import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from fleet.clock import Clock
from fleet.errors import SourceUnavailable

DEVICE = Path("/dev/kmsg")
_RECORD_BYTES = 16384  # the kernel answers EINVAL where a record does not fit; none is longer than 8 KiB
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Boot:
    """Which start of the kernel this is, and when its clock stood at zero."""

    boot_id: str
    at: datetime


class Ring(Protocol):
    """The kernel's ring buffer, read from its oldest record on."""

    def read(self) -> str | None:
        """Return the next record, None where there is none yet; `BrokenPipeError` where it was overwritten."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Kmsg:
    """A ring buffer behind a file descriptor that does not block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> str | None:
        """Return the next record, None where there is none yet; `BrokenPipeError` where it was overwritten."""
        try:
            return os.read(self._descriptor, _RECORD_BYTES).decode("utf-8", "replace") or None
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


def open_kmsg(path: Path) -> Kmsg:
    """Open the ring buffer at its oldest record, or raise `SourceUnavailable` saying what is missing."""
    try:
        return Kmsg(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError as error:
        message = f"{path}: not allowed; reading the kernel log needs root or the capability CAP_SYSLOG"
        raise SourceUnavailable(message) from error
    except OSError as error:
        message = f"{path}: can't be opened ({error.strerror}); name an exported log with [collect] kernel_log"
        raise SourceUnavailable(message) from error


def read_boot(clock: Clock) -> Boot:
    """Return which start of the kernel this is; it is good to a second, as far as the clock is."""
    try:
        boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{_BOOT_ID}: can't be read, so records of one boot can't be told from those of the next"
        raise SourceUnavailable(message) from error
    return Boot(boot_id, clock.now() - timedelta(seconds=time.clock_gettime(time.CLOCK_MONOTONIC)))
