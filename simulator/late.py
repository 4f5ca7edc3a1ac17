"""A world that is lived when somebody first looks at it, so that who asks the store alone need not wait for it."""

import threading
from collections.abc import Callable

from simulator.world import World


class LateWorld:
    """Call it to get the world; it is made once, by whoever asks first."""

    def __init__(self, live: Callable[[], World]) -> None:
        """Make the world with `live`, later."""
        self._live = live
        self._world: World | None = None
        self._lock = threading.Lock()

    def __call__(self) -> World:
        """Return the world."""
        with self._lock:
            if self._world is None:
                self._world = self._live()
            return self._world


def when_asked(world: World | Callable[[], World]) -> Callable[[], World]:
    """Return what gives the world when called, whether it stands already or not."""
    return world if callable(world) else lambda: world
