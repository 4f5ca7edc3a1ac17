"""Tell owners what is proposed for what is theirs: channels, tried again where they fail, never waited for by the turn.

Slow channels (a webhook, mail, the cluster) work in a thread of their own. What became of each piece of news is
collected by the next turn, which records it; a channel that failed is tried again then.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from fleet.errors import SourceFailed, StewardError
from fleet.move import Move

log = structlog.get_logger()
_TRIES, _FIRST_WAIT_S, _LONGEST_WAIT_S = 3, 0.5, 10.0
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class News:
    """What an owner is told of one move: the move, the digest of its content, its plan, and what happens next."""

    content: str
    plan_id: str
    move: Move
    outlook: str

    def text(self) -> str:
        """Return it as one line."""
        move = self.move
        return f"{move.kind.value} {move.target} in {move.cluster}: {move.reason}; {self.outlook} (id {move.move_id})"


class Channel(Protocol):
    """A way to tell people."""

    @property
    def name(self) -> str:
        """Return the channel's name, as it stands in the record."""
        ...

    def tell(self, news: Sequence[News]) -> str | None:
        """Tell the news of one workspace; return whom it did not reach where it reached others.

        Raises `SourceFailed` where it did not get through.
        """
        ...


class Herald(Protocol):
    """What tells a move's target in its cluster that it is meant; an event and an annotation in Kubernetes."""

    def announce(self, move: Move, text: str) -> None:
        """Write the news beside the target; raises `SourceFailed` or an `ActionError` where that can't be done."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """What became of news on one channel: `error` is None where it got through, `gap` whom it did not reach then."""

    channel: str
    news: tuple[News, ...]
    error: str | None = None
    gap: str | None = None


class LogChannel:
    """The plain channel: a line in the log, from level info on."""

    name = "log"

    def tell(self, news: Sequence[News]) -> None:
        """Log each piece of news."""
        for each in news:
            log.info("move proposed", plan=each.plan_id, workspace=each.move.workspace, text=each.text())


@dataclass(slots=True)
class Outbox:
    """Channels with what is on its way; `quick` ones are used at once, `slow` ones in a thread."""

    quick: tuple[Channel, ...] = field(default_factory=lambda: (LogChannel(),))
    slow: tuple[Channel, ...] = ()
    sleep: Callable[[float], None] = time.sleep
    _work: "SimpleQueue[tuple[Channel, tuple[News, ...]] | None]" = field(default_factory=SimpleQueue)
    _done: "SimpleQueue[Told]" = field(default_factory=SimpleQueue)
    _waiting: set[tuple[str, str]] = field(default_factory=set)
    _thread: threading.Thread | None = None

    def names(self) -> tuple[str, ...]:
        """Return the names of all channels."""
        return tuple(channel.name for channel in (*self.quick, *self.slow))

    def send(self, channel_name: str, news: Sequence[News]) -> None:
        """Hand news to one channel, a message a workspace; what is on its way there already is not sent twice."""
        fresh = [each for each in news if (channel_name, each.content) not in self._waiting]
        groups: dict[tuple[str, str], list[News]] = {}
        for each in fresh:
            groups.setdefault((each.move.cluster, each.move.workspace or ""), []).append(each)
        for group in groups.values():
            self._send(channel_name, tuple(group))

    def collect(self) -> list[Told]:
        """Return what became of the news since the last call, without waiting."""
        found: list[Told] = []
        while not self._done.empty():
            told = self._done.get()
            self._waiting -= {(told.channel, each.content) for each in told.news}
            found.append(told)
        return found

    def flush(self, timeout_s: float) -> None:
        """Wait until all is sent or has failed, `timeout_s` at most; for commands that end with one turn."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._work.put(None)
            thread.join(timeout_s)

    def _send(self, channel_name: str, news: tuple[News, ...]) -> None:
        for channel in self.quick:
            if channel.name == channel_name:
                self._done.put(_told(channel, news, self.sleep))
        for channel in self.slow:
            if channel.name == channel_name:
                self._waiting |= {(channel_name, each.content) for each in news}
                self._work.put((channel, news))
                self._start()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._deliver, name="steward-notify", daemon=True)
            self._thread.start()

    def _deliver(self) -> None:
        while (job := self._work.get()) is not None:
            told = Told(job[0].name, job[1], "it failed in a way that nobody foresaw; the log says more")
            try:
                told = _told(*job, self.sleep)
            finally:
                self._done.put(told)  # even then: what is on its way for ever would never be sent again


def message_of(news: Sequence[News]) -> tuple[str, str]:
    """Return a subject and a text for the news of one workspace."""
    first = news[0].move
    whose = f"workspace {first.workspace}" if first.workspace else f"cluster {first.cluster}"
    subject = f"GPU Steward: {len(news)} move{'s' if len(news) > 1 else ''} proposed for {whose}"
    lines = [f"- {each.text()}" for each in news[:_SHOWN]]
    more = [f"- and {len(news) - _SHOWN} more"] if len(news) > _SHOWN else []
    answer = "answer with: steward approve ID, or steward refuse ID --note WHY"
    return subject, "\n".join([subject, *lines, *more, answer])


def _told(channel: Channel, news: tuple[News, ...], sleep: Callable[[float], None]) -> Told:
    tries = Retrying(
        stop=stop_after_attempt(_TRIES),
        wait=wait_random_exponential(_FIRST_WAIT_S, _LONGEST_WAIT_S),
        retry=retry_if_exception_type(SourceFailed),
        sleep=sleep,
        reraise=True,
    )
    try:
        gap = tries(channel.tell, news)
    except StewardError as error:
        return Told(channel.name, news, str(error))
    return Told(channel.name, news, gap=gap)
