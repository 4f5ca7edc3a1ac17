"""The port through which moves reach a cluster; the simulator and Kubernetes fill it."""

from typing import Protocol

from fleet.move import Move
from fleet.state import FleetState


class Cluster(Protocol):
    """Something that can be looked at and moved."""

    @property
    def name(self) -> str:
        """Return the cluster's name."""
        ...

    def observe(self) -> FleetState:
        """Return the state of now, read afresh; raises `SourceFailed` where it can't be read."""
        ...

    def observe_for(self, move: Move) -> FleetState:
        """Return a state in which the target of `move` is read afresh, and what else its guard looks at (its pods).

        The rest may be as old as the last `observe`. Raises `SourceFailed` where the target can't be read.
        """
        ...

    def rehearse(self, move: Move) -> None:
        """Check a move without making it (server-side dry run).

        Raises `MoveRefused` where it would not be allowed and `StaleState` where the target has changed.
        """
        ...

    def make(self, move: Move) -> str:
        """Make one move and return the fields it changed, as they were before, as a JSON object.

        The result is what `actions.undo.invert` needs. Raises `MoveRefused` and `StaleState` as `rehearse` does;
        after either of them nothing has changed.
        """
        ...
