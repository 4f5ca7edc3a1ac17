"""The loop of the server: turn after turn until it is told to stop; an error is recorded and the next turn comes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from fleet.clock import Clock

log = structlog.get_logger()


@dataclass(slots=True)
class LoopState:
    """What the probes and metrics tell of the loop."""

    turns: int = 0
    failures: int = 0
    last_turn_at: datetime | None = None
    last_error: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def succeeded(self, now: datetime) -> None:
        """Note a turn that went well."""
        with self.lock:
            self.turns += 1
            self.last_turn_at = now
            self.last_error = None

    def failed(self, error: str) -> None:
        """Note a turn that did not."""
        with self.lock:
            self.failures += 1
            self.last_error = error


def run_loop(
    turn: Callable[[], object], clock: Clock, interval_s: float, stop: threading.Event, state: LoopState
) -> None:
    """Turn every `interval_s` seconds until `stop` is set; the first turn comes at once."""
    while not stop.is_set():
        try:
            turn()
        except Exception as error:  # the one broad catch of the house: a bad turn must not end the server
            state.failed(f"{type(error).__name__}: {error}")
            log.exception("turn failed")
        else:
            state.succeeded(clock.now())
        stop.wait(interval_s)
