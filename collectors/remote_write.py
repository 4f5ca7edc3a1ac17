"""The push door's inside: remote-write requests become batches, stored before they are acknowledged.

Requests that wait while the store writes are stored together with the next commit, so many small ones cost little
more than one large one. Samples mean what they mean when they are pulled.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Lock
from time import perf_counter, sleep

import cramjam
import numpy as np

from collectors.prometheus_rows import SERIES_MAX, Memory, nameless_trouble, rows_of
from collectors.prometheus_wide import Samples
from collectors.remote_decode import BadWrite, Decoder, Write
from collectors.series_book import NAMELESS, SeriesBook
from collectors.twins import Twins
from collectors.xid_gauge import XidMemory, nothing_told
from fleet.batch import Batch, Trouble
from fleet.bounds import require_positive
from fleet.errors import Overloaded, StewardError, StoreError, TooLarge

SOURCE = "remote-write"
# A twin speaks at its own moments in requests of its own: the believed one may be late by a sample and a half.
_PATIENCE = 1.5
# How long a commit waits for more, of what the last one took, where several send at once.
_LINGER, _LINGER_MAX_S = 0.1, 0.02

Sink = Callable[[Batch], object]


@dataclass(frozen=True, slots=True)
class WritePolicy:
    """How much is taken: bytes of a request when unpacked, samples that wait, samples of one commit.

    After `series_max` series, those that came and went are forgotten.
    """

    message_bytes_max: int = 64 * 2**20
    waiting_samples_max: int = 2_000_000
    commit_samples_max: int = 500_000
    series_max: int = SERIES_MAX

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in ("message_bytes_max", "waiting_samples_max", "commit_samples_max", "series_max"):
            require_positive(name, getattr(self, name))


@dataclass(slots=True)
class _Ticket:
    """A request that waits for its commit."""

    write: Write
    is_leader: bool = False
    is_stored: bool = False
    error: StewardError | None = None
    turn: Event = field(default_factory=Event)


class RemoteWrite:
    """Takes requests from any number of threads; `sink` stores a batch (`Store.append`).

    `told` gives the last XID that is stored of each GPU, so that a restart tells none twice.
    """

    def __init__(
        self,
        sink: Sink,
        cluster: str,
        policy: WritePolicy = WritePolicy(),
        told: Callable[[], Mapping[str, int]] = nothing_told,
        wait: Callable[[float], None] = sleep,
    ) -> None:
        self._sink, self._cluster, self._policy = sink, cluster, policy
        self._memory = Memory(twins=Twins(_PATIENCE), xids=XidMemory(told))
        self._gate, self._is_busy = Lock(), False
        self._queue: deque[_Ticket] = deque()
        self._waiting = 0
        self._senders, self._commit_s, self._wait = 1, 0.0, wait
        self._first: datetime | None = None
        self.sample_count = 0
        self._begin()

    def receive(self, body: bytes) -> int:
        """Store one request's samples and return how many it held, those that are not ours included.

        Raises `BadWrite` where it can't be read, `TooLarge`, `Overloaded` where too much waits, and what the store
        raises; then nothing of it is stored, and the same request may be sent again.
        """
        message = unpack(body, self._policy.message_bytes_max)
        with self._gate:
            if self._waiting > self._policy.waiting_samples_max:
                text = f"{self._waiting} samples wait to be stored already; send again later"
                raise Overloaded(text)
            ticket = _Ticket(self._decoder.decode(message))
            self._queue.append(ticket)
            self._waiting += ticket.write.sample_count
            ticket.is_leader, self._is_busy = not self._is_busy, True
        if not ticket.is_leader:
            ticket.turn.wait()
        if ticket.is_leader:
            self._lead()
        if ticket.error is not None:
            raise ticket.error
        if not ticket.is_stored:
            reason = "the write request could not be stored; the server's log says more"
            raise StoreError(reason)
        return ticket.write.sample_count

    @property
    def waiting_count(self) -> int:
        """Return the number of samples that wait to be stored."""
        return self._waiting

    @property
    def series_count(self) -> int:
        """Return the number of series that are known now."""
        return len(self._book)

    def take_first(self) -> datetime | None:
        """Return the earliest moment stored since this was asked last, for the roll-up; None where nothing was."""
        with self._gate:
            first, self._first = self._first, None
        return first

    def _begin(self) -> None:
        self._book = SeriesBook(self._cluster)
        self._decoder = Decoder(self._book.add, NAMELESS)

    def _lead(self) -> None:
        """Store what waits, and hand the lead to whoever came meanwhile."""
        if self._senders > 1:
            # Senders that were just answered are about to be back: a moment's patience saves them a commit each.
            self._wait(min(_LINGER_MAX_S, _LINGER * self._commit_s))
        tickets = self._take()
        began = perf_counter()
        try:
            self._store(tickets)
        finally:
            with self._gate:
                self._commit_s, self._senders = perf_counter() - began, len(tickets) + len(self._queue)
                self._is_busy = bool(self._queue)
                if self._queue:
                    self._queue[0].is_leader = True
                    self._queue[0].turn.set()
            for ticket in tickets:
                ticket.turn.set()

    def _take(self) -> list[_Ticket]:
        taken: list[_Ticket] = []
        count = 0
        with self._gate:
            while self._queue and (not taken or count < self._policy.commit_samples_max):
                taken.append(self._queue.popleft())
                count += taken[-1].write.sample_count
            self._waiting -= count
        return taken

    def _store(self, tickets: list[_Ticket]) -> None:
        before = self._memory.copy()
        try:
            batch = self._batch([ticket.write for ticket in tickets])
            if batch.frames or batch.troubles:
                self._sink(batch)
        except StewardError as error:
            self._memory = before
            for ticket in tickets:
                ticket.error = error
            return
        for ticket in tickets:
            ticket.is_stored = True
            self.sample_count += ticket.write.sample_count
        self._renew()

    def _batch(self, writes: list[Write]) -> Batch:
        samples = Samples(
            np.concatenate([write.samples.series for write in writes]),
            np.concatenate([write.samples.ts for write in writes]),
            np.concatenate([write.samples.values for write in writes]),
        )
        frames, troubles = rows_of(self._book, samples, SOURCE, self._memory)
        histograms = sum(write.histogram_count for write in writes)
        more = (Trouble("rejected", "histograms", "native histograms are not kept", histograms),) if histograms else ()
        if "gpu_sample" in frames:
            first = datetime.fromtimestamp(int(samples.ts.min()) / 1000, UTC)
            self._first = first if self._first is None else min(first, self._first)
        nameless = nameless_trouble(sum(write.nameless_count for write in writes))
        return Batch(SOURCE, frames, None, (*troubles, *nameless, *more))

    def _renew(self) -> None:
        """Begin a new book where series that came and went have filled it."""
        with self._gate:
            if len(self._book) > self._policy.series_max and not self._queue:
                self._begin()
                self._memory = self._memory.by_name(Twins(_PATIENCE))


def unpack(body: bytes, bytes_max: int) -> bytes:
    """Return the message of a body in snappy's block format, or raise `BadWrite`; `TooLarge` before it is unpacked."""
    try:
        size = cramjam.snappy.decompress_raw_len(body)
        if size > bytes_max:
            message = f"the write request unpacks to {size} bytes; {bytes_max} are taken: send fewer samples at once"
            raise TooLarge(message, field="body")
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        message = f"the body is not snappy's block format: {error}"
        raise BadWrite(message, field="body") from error
