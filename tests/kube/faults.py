"""Faults on purpose: answers that are late, refused, cut short; watches that end."""

import threading
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What befalls the next `times` requests whose line (`GET /api/v1/pods?...`) contains `match`.

    `status` answers with that instead; `delay_s` waits first; `keep` sends only so many bytes of the body and hangs
    up; with `is_honest_length` the header tells that short length, as a proxy that breaks off does.
    """

    match: str
    times: int = 1
    status: int | None = None
    delay_s: float = 0.0
    keep: int | None = None
    is_honest_length: bool = False
    retry_after: str | None = None
    body: bytes | None = None


@dataclass
class Faults:
    """The faults still to come, and how watches are treated.

    Each watch is cut after `cut_after` events (None: not), in the middle of a line with `is_cut_mid_line`.
    """

    waiting: list[Fault] = field(default_factory=list)
    cut_after: int | None = None
    is_cut_mid_line: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    generation: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> None:
        with self._lock:
            self.waiting.append(fault)

    def clear(self) -> None:
        with self._lock:
            self.waiting.clear()
            self.cut_after = None

    def take(self, line: str) -> Fault | None:
        """Return the fault that befalls a request, and count it."""
        with self._lock:
            fault = next((each for each in self.waiting if each.match in line), None)
            if fault is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self.waiting.remove(fault)
            return fault

    def cut_watches(self) -> None:
        """End every watch that is open."""
        self.generation += 1
