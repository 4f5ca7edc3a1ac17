"""A cluster that misbehaves as real ones do: no answer, late answers, stale reads, rejections, a dying client."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from actions.port import Cluster
from fleet.errors import MoveRefused, SourceFailed, StaleState
from fleet.move import Move
from fleet.state import FleetState


class Died(BaseException):
    """The process that was acting has died; nothing but what it recorded is left of it."""


@dataclass(frozen=True, slots=True)
class Odds:
    """How often what goes wrong, ratios of calls."""

    read_fails: float = 0.05
    read_is_stale: float = 0.1
    rehearsal_fails: float = 0.03
    rehearsal_is_refused: float = 0.03
    write_is_refused: float = 0.03
    write_conflicts: float = 0.05
    write_fails: float = 0.05
    answer_is_lost: float = 0.05
    dies_before: float = 0.02
    dies_after: float = 0.02


QUIET = Odds(*(0.0,) * 10)


class FaultyCluster:
    """A Cluster in front of another: what it passes on is real, what it answers may not be."""

    def __init__(self, inner: Cluster, rng: Random, odds: Odds, meanwhile: Callable[[Move], None]) -> None:
        """Stand before `inner`; `meanwhile` is what others do between the last look at a target and the write."""
        self.odds = odds
        self._inner = inner
        self._rng = rng
        self._meanwhile = meanwhile
        self._earlier: FleetState | None = None

    @property
    def name(self) -> str:
        """Return the inner cluster's name."""
        return self._inner.name

    def observe(self) -> FleetState:
        """Return the state of now, or an earlier one that passes for it, or no answer."""
        self._fail(self.odds.read_fails, "the server is unavailable (503)")
        state = self._inner.observe()
        if self._earlier is not None and self._happens(self.odds.read_is_stale):
            return self._earlier
        self._earlier = state
        return state

    def observe_for(self, move: Move) -> FleetState:
        """Return the state of now, read past every cache, or no answer."""
        self._fail(self.odds.read_fails, "too many requests (429)")
        return self._inner.observe_for(move)

    def rehearse(self, move: Move) -> None:
        """Rehearse a move, unless the server is in the way."""
        self._fail(self.odds.rehearsal_fails, "the server broke off (500)")
        self._refuse(self.odds.rehearsal_is_refused)
        self._inner.rehearse(move)

    def make(self, move: Move) -> str:
        """Make a move; the answer, or the one who asks, may get lost."""
        self._die(self.odds.dies_before)
        self._meanwhile(move)
        self._refuse(self.odds.write_is_refused)
        if self._happens(self.odds.write_conflicts):
            message = f"{move.target} has been modified (409)"
            raise StaleState(message)
        self._fail(self.odds.write_fails, "the connection was reset")
        prior = self._inner.make(move)
        self._die(self.odds.dies_after)
        self._fail(self.odds.answer_is_lost, "no answer in time")
        return prior

    def _happens(self, odds: float) -> bool:
        return self._rng.random() < odds

    def _fail(self, odds: float, message: str) -> None:
        if self._happens(odds):
            raise SourceFailed(message)

    def _refuse(self, odds: float) -> None:
        if self._happens(odds):
            message = "an admission webhook denied the request (403)"
            raise MoveRefused(message)

    def _die(self, odds: float) -> None:
        if self._happens(odds):
            raise Died
