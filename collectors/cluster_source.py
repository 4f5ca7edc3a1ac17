"""The Kubernetes source, read-only: one cluster followed by list and watch, told as rows turn by turn.

A thread of its own looks at the cluster, at the turn and every few seconds between turns, so that short-lived pods are
seen before the API server forgets them, several clusters are read at once, and a dead one holds up no other.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from time import monotonic

from collectors.cluster import ApiServer
from collectors.cluster_look import WATCH_S, Look, Snapshot
from collectors.cluster_rows import Known, Memory, Place, frames_of
from fleet.batch import Batch
from fleet.clock import Clock
from fleet.errors import SourceFailed


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a cluster may take, how often it is looked at between turns, and how long a watch lasts.

    Patience counts from when the look began, so that many clusters that hang cost a turn as much as one, and one that
    still hangs costs the next turn nothing.
    """

    patience_s: float = 30.0
    between_s: float = 10.0
    watch_s: int = WATCH_S


class ClusterSource:
    """One cluster as a `Source`: what there is now, and what began and ended since the last look.

    `context` names the entry of the kubeconfig (None: the current one, or the service account of the pod we run in).
    `known` gives what the store has of this cluster, so that intervals go on after a restart.
    """

    def __init__(
        self,
        clock: Clock,
        cluster: str,
        context: str | None = None,
        known: Callable[[], Known] = Known,
        pace: Pace = Pace(),
    ) -> None:
        self._cluster, self._context, self._known, self._pace = cluster, context, known, pace
        self._is_closed, self._is_turn = Event(), Event()
        self._server = ApiServer(cluster, context, clock, self._is_closed.wait)
        self._look = Look(pace.watch_s)
        self._memory = Memory()
        self._thread: ThreadPoolExecutor | None = None
        self._next: Future[Snapshot] | None = None
        self._patient_until_s = 0.0  # by the monotonic clock
        self._following: Future[None] | None = None

    @property
    def name(self) -> str:
        """Return the name under which watermark and failures are kept."""
        return f"kubernetes:{self._cluster}"

    def begin(self) -> None:
        """Begin to look, without waiting for it; `collect` takes what it brings."""
        if self._next is not None:
            return
        if self._thread is None:
            self._is_closed.clear()
            self._thread = ThreadPoolExecutor(1, f"kubernetes-{self._cluster}")
        self._is_turn.set()
        self._patient_until_s = monotonic() + self._pace.patience_s
        self._next = self._thread.submit(self._look.take, self._server)

    def close(self) -> None:
        """End the thread and let go of the connections; a question that is under way may take seconds to end."""
        self._is_turn.set()
        self._is_closed.set()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread, self._next, self._following = None, None, None
        self._server.close()

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:  # noqa: ARG002 - the API tells of now only
        """Yield one batch of what the cluster is now and what ended since the last one that was stored.

        A kind that can't be read is told as a trouble and the rest goes on. Raises `SourceUnavailable` where there is
        no such context, and `SourceFailed` where the server does not answer, or not yet: what it answers later is
        told by the next turn.
        """
        self.begin()
        snapshot = self._wait()
        place = Place(self._cluster, self._context, snapshot.now, self.name)
        frames, unclear = frames_of(snapshot.view, self._known(), place, self._memory)
        yield Batch(self.name, frames, snapshot.now if snapshot.is_whole else None, (*snapshot.troubles, *unclear))
        self._memory.settle()
        self._look.settle(snapshot)
        self._go_on()

    def _wait(self) -> Snapshot:
        if self._next is None:
            message = f"cluster {self._cluster} was closed"
            raise SourceFailed(message)
        try:
            snapshot = self._next.result(max(0.0, self._patient_until_s - monotonic()))
        except NotYet as error:
            if self._next.done():
                raise
            message = f"cluster {self._cluster} has not answered within {self._pace.patience_s:g} s, and is waited for"
            raise SourceFailed(message) from error
        except SourceFailed:
            self._next = None
            self._go_on()
            raise
        self._next = None
        return snapshot

    def _go_on(self) -> None:
        """Follow the cluster until the next turn begins."""
        if self._following is not None and self._following.done():
            self._following.result()  # what is no `SourceFailed` is a fault of ours, and must not pass unseen
        if self._thread is not None:
            self._is_turn.clear()
            self._following = self._thread.submit(self._follow)

    def _follow(self) -> None:
        while not self._is_turn.wait(self._pace.between_s):
            try:
                self._look.take(self._server)
            except SourceFailed:
                continue  # the turn tells of it, if it is still so then
