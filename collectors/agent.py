"""The node agent: read the sources of this node at every tick, hand batches to the store, keep `/metrics` fresh.

Ticks are the multiples of the interval on the clock, so agents of all nodes read together, nothing drifts, and a
second agent on a node gives the same rows again.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import polars as pl

from collectors.exposition import Exposition, Holders
from collectors.nvml_rows import NodeMemory
from collectors.probe import ProbedSource, ProbePolicy
from collectors.source import Source
from fleet.batch import Batch, Trouble
from fleet.bounds import require_between, require_positive
from fleet.clock import Clock
from fleet.errors import BadInput, SourceFailed, StewardError

_SAMPLES = ("gpu_sample", "slice_sample")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Sink = Callable[[Batch], object]


@dataclass(frozen=True, slots=True)
class AgentPolicy:
    """How often to read, and how much to keep while the store can't be reached.

    A sample taken within `snap_s` of a tick bears the tick's time. `backlog_max` batches are kept for a store that
    does not take them; at one a tick of 10 s that is an hour.
    """

    interval_s: float = 10.0
    snap_s: float = 1.0
    backlog_max: int = 360

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        require_positive("interval_s", self.interval_s)
        require_between("snap_s", self.snap_s, 0.0, self.interval_s / 2)
        require_between("backlog_max", self.backlog_max, 1, 1_000_000)


def probed_node(
    clock: Clock,
    cluster: str,
    node: str,
    *,
    driver: str | None = None,
    driver_arguments: tuple[object, ...] = (),
    policy: ProbePolicy | None = None,
) -> ProbedSource[NodeMemory]:
    """Return the GPUs of this node as a source that reads in a child process.

    `driver` is the import path of a function that makes a driver of its arguments; None reads the real one.
    """
    arguments = (clock, cluster, node, driver, *driver_arguments)
    return ProbedSource(
        "nvml",
        "collectors.nvml:open_nvml",
        arguments,
        clock=clock,
        cluster=cluster,
        node=node,
        policy=ProbePolicy() if policy is None else policy,
    )


class Agent:
    """Reads `sources` at every tick; `sink` (the store, or a push to it) and `exposition` get what they gave.

    `wait` waits that many seconds and returns True where the agent is to stop (`threading.Event.wait`). `holders`
    says at every tick who has which device, for the labels of the exposition. `rest` is called when everything of
    a tick was handed over.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        clock: Clock,
        wait: Callable[[float], bool],
        sink: Sink | None = None,
        exposition: Exposition | None = None,
        holders: Callable[[], Holders] | None = None,
        rest: Callable[[], None] = lambda: None,
        policy: AgentPolicy = AgentPolicy(),
    ) -> None:
        self._sources, self._clock, self._wait, self._sink = tuple(sources), clock, wait, sink
        self._exposition, self._holders, self._rest, self._policy = exposition, holders, rest, policy
        self._since: dict[str, datetime] = {}
        self._backlog: deque[Batch] = deque()
        self._dropped = 0
        self._newest: datetime | None = None
        self.last_turn_at: datetime | None = None
        self.last_troubles: tuple[Trouble, ...] = ()

    @property
    def backlog_count(self) -> int:
        """Return the number of batches that wait for the store."""
        return len(self._backlog)

    def is_well(self) -> bool:
        """Return whether a turn ended not longer than three intervals ago; hung sources make a turn longer."""
        if self.last_turn_at is None:
            return False
        return self._clock.now() - self.last_turn_at <= 3 * timedelta(seconds=self._policy.interval_s)

    def run(self) -> None:
        """Turn at every tick until `wait` says to stop; a tick that a long turn ran over is left out."""
        while not self._wait(seconds_to_tick(self._clock.now(), self._policy.interval_s)):
            self.turn()

    def turn(self) -> None:
        """Read every source once, and hand over what was read now and what could not be handed over before."""
        self.last_troubles = ()
        for source in self._sources:
            for batch in self._read(source):
                self.last_troubles += batch.troubles
                if self._exposition is not None:
                    self._exposition.update(batch)
                if self._sink is not None:
                    self._keep(batch)
        if self._exposition is not None and self._holders is not None:
            self._exposition.hold(self._holders())
        if self._sink is not None:
            try:
                self._hand_over(self._sink)
            finally:
                self._rest()
        self.last_turn_at = self._clock.now()

    def _read(self, source: Source) -> Iterator[Batch]:
        try:
            for batch in source.collect(self._since.get(source.name), self._clock.now()):
                if batch.read_until is not None:
                    self._since[source.name] = batch.read_until
                yield self._on_tick(batch)
        except SourceFailed as error:
            yield Batch(source.name, troubles=(Trouble("failed", source.name, str(error)),))

    def _on_tick(self, batch: Batch) -> Batch:
        moved = snapped(batch, self._policy, self._newest)
        latest = [_latest(moved.frames[name]) for name in _SAMPLES if name in moved.frames]
        self._newest = max((moment for moment in (*latest, self._newest) if moment is not None), default=None)
        return moved

    def _keep(self, batch: Batch) -> None:
        self._backlog.append(batch)
        while len(self._backlog) > self._policy.backlog_max:
            self._backlog.popleft()
            self._dropped += 1

    def _hand_over(self, sink: Sink) -> None:
        if self._dropped:
            reason = "the store took nothing for too long; the oldest batches were dropped"
            self._backlog.append(Batch("agent", troubles=(Trouble("rejected", "backlog", reason, self._dropped),)))
            self._dropped = 0
        while self._backlog:
            try:
                sink(self._backlog[0])
            except BadInput as error:
                # It will be refused for ever; what comes after it must not wait for it.
                self._backlog.popleft()
                self._tell(Batch("agent", troubles=(Trouble("rejected", "store", str(error), 1),)))
            except StewardError as error:
                self._tell(Batch("agent", troubles=(Trouble("failed", "store", str(error)),)))
                return  # it stays in the backlog: the store takes a batch twice without harm
            else:
                self._backlog.popleft()

    def _tell(self, batch: Batch) -> None:
        if self._exposition is not None:
            self._exposition.update(batch)


def seconds_to_tick(now: datetime, interval_s: float) -> float:
    """Return how long it is to the next multiple of the interval."""
    return interval_s - (now - _EPOCH).total_seconds() % interval_s


def snapped(batch: Batch, policy: AgentPolicy, newest: datetime | None = None) -> Batch:
    """Return the batch with samples near a tick moved onto it, so that two readers of one node give one row.

    A tick not after `newest` has its samples already, since the clock was set back: there they keep their own times,
    and neither reading takes the place of the other.
    """
    frames = {name: _snap(frame, policy, newest) if name in _SAMPLES else frame for name, frame in batch.frames.items()}
    return replace(batch, frames=frames)


def _snap(frame: pl.DataFrame, policy: AgentPolicy, newest: datetime | None) -> pl.DataFrame:
    interval_us, near_us = round(policy.interval_s * 1e6), round(policy.snap_s * 1e6)
    moment_us = pl.col("ts").dt.epoch("us")
    after_us = moment_us % interval_us
    tick_us = (
        pl.when(after_us * 2 < interval_us).then(moment_us - after_us).otherwise(moment_us - after_us + interval_us)
    )
    is_near = (tick_us - moment_us).abs() <= near_us
    is_free = True if newest is None else tick_us > round((newest - _EPOCH).total_seconds() * 1e6)
    return frame.with_columns(ts=pl.when(is_near & is_free).then(tick_us).otherwise(moment_us).cast(frame.schema["ts"]))


def _latest(frame: pl.DataFrame) -> datetime | None:
    moment = frame.select(pl.col("ts").max()).item()
    return moment if isinstance(moment, datetime) else None
