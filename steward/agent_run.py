"""The node agent's process: reads this node at every tick, stores what it read and serves it to Prometheus."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from api.client import Client
from collectors.agent import Agent, AgentPolicy, probed_node
from collectors.agent_http import parse_listen, serving_metrics
from collectors.clock_source import ClockSource
from collectors.exposition import Exposition
from collectors.kernel_log import KernelLogSource, devices_of
from collectors.node_holders import HolderSource
from collectors.pod_resources import PodResources
from fleet.batch import Batch
from fleet.clock import Clock, SystemClock
from fleet.errors import BadConfig, SourceFailed
from steward.config import AgentSection, Settings, store_path
from steward.front import settings_of
from steward.ingest_desk import RollingUp, pack
from steward.owner import Address, read_address
from store.store import Store

if TYPE_CHECKING:
    from collectors.source import Source

CAPTURE_DRIVER = "collectors.capture_driver:open_driver"
_SERVER_TIMEOUT_S = 10.0
_STALE_TURNS, _SNAP_S = 3, 1.0
_LASTING, _TELL_EVERY = frozenset({"cluster", "node", "gpu", "slice", "holder"}), timedelta(minutes=1)
Wait = Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What the command line says beside the settings; None leaves a setting as it is."""

    interval_s: float | None = None
    listen: str | None = None
    is_once: bool = False
    is_stored: bool = True
    capture: Path | None = None
    phase: str = "idle"


class Known:
    """What the store was told of GPUs and nodes, so that the same is told once a minute and not with every sample."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[datetime, pl.DataFrame]] = {}

    def without(self, batch: Batch, now: datetime) -> Batch:
        """Return the batch without the frames that only say again what was told within a minute."""
        kept = {name: frame for name, frame in batch.frames.items() if not self._is_told(name, frame, now)}
        return replace(batch, frames=kept)

    def tell(self, batch: Batch, now: datetime) -> None:
        """Note what the store took."""
        self._told |= {name: (now, _lasting(frame)) for name, frame in batch.frames.items() if name in _LASTING}

    def forget(self) -> None:
        """Begin anew, for another store."""
        self._told.clear()

    def _is_told(self, name: str, frame: pl.DataFrame, now: datetime) -> bool:
        if name not in self._told:
            return False
        told_at, told = self._told[name]
        return abs(now - told_at) < _TELL_EVERY and _lasting(frame).equals(told)


def _lasting(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("last_seen_at", strict=False)


class StoreSink:
    """Hands batches to the store: to the server that `find_server` names, else straight into the file.

    The file is open from the first batch of a turn until `rest`, so that other commands find it free in between.
    """

    def __init__(
        self, database: Path, node: str, clock: Clock, find_server: Callable[[], Address | None] | None = None
    ) -> None:
        self._database, self._node, self._clock = database, node, clock
        self._find_server = partial(read_address, database) if find_server is None else find_server
        self._store: Store | None = None
        self._client: tuple[Address, Client] | None = None
        self._owner: Address | None = None
        self._rolling, self._known = RollingUp(), Known()

    def take(self, batch: Batch) -> None:
        """Store one batch, or raise the `StewardError` that says why it can't be stored now."""
        address = None if self._store is not None else self._find_server()
        if address != self._owner:
            self._known.forget()
            self._owner = address
        now = self._clock.now()
        news = self._known.without(batch, now)
        if address is not None:
            self._send(address, pack(news, self._node, now))
        else:
            if self._store is None:
                self._store = Store.open(self._database, clock=self._clock)
            self._store.append(news)
            self._rolling.after(self._store, news, now)
        self._known.tell(news, now)

    def _send(self, address: Address, parameters: dict[str, object]) -> None:
        try:
            self._client_of(address).operate("ingest", **parameters)
        except BadConfig as error:
            # It is the token that was refused and not the batch, which waits until the token is right.
            raise SourceFailed(str(error)) from error

    def rest(self) -> None:
        """Let go of the file until the next turn."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def close(self) -> None:
        """Let go of everything."""
        self.rest()
        if self._client is not None:
            self._client[1].close()
            self._client = None

    def _client_of(self, address: Address) -> Client:
        if self._client is None or self._client[0] != address:
            self.close()
            self._client = address, Client(address.url, address.token, timeout_s=_SERVER_TIMEOUT_S)
        return self._client[1]


def run_agent(config: Path | None, store: Path | None, options: AgentOptions) -> int:
    """Run until SIGTERM or SIGINT and return 0; with `is_once` turn once, print the metrics, 1 where that failed."""
    settings, _ = settings_of(config)
    listen = parse_listen(options.listen or settings.agent.listen)
    database = store_path(settings, store, os.environ)
    with ExitStack() as stack:
        wait = stack.enter_context(_signals_awaited())
        exposition = Exposition(SystemClock(), stale_after_s=_STALE_TURNS * _interval_s(settings, options))
        agent = stack.enter_context(_open_agent(settings, options, database, exposition, wait))
        if options.is_once:
            agent.turn()
            sys.stdout.write(exposition.render())
            sys.stderr.writelines(f"{each.place}: {each.reason}\n" for each in agent.last_troubles)
            return int(any(each.kind == "failed" and each.place == "nvml" for each in agent.last_troubles))
        port = stack.enter_context(serving_metrics(listen, exposition.render, agent.is_well))
        where = f"store {settings.agent.server or database}" if options.is_stored else "no store"
        sys.stderr.write(f"metrics at http://{listen[0]}:{port}/metrics ({where}); stop with Ctrl-C\n")
        sys.stderr.flush()
        agent.run()
    return 0


@contextmanager
def _open_agent(
    settings: Settings, options: AgentOptions, database: Path, exposition: Exposition, wait: Wait
) -> Iterator[Agent]:
    """Wire the sources of this node to the store and the exposition, and let go of them at the end."""
    section, clock = settings.agent, SystemClock()
    cluster, node = settings.collect.cluster, _node(settings, options)
    interval_s = _interval_s(settings, options)
    driver: str | None = section.driver
    arguments: tuple[str, ...] = ()
    if options.capture is not None:
        driver, arguments = CAPTURE_DRIVER, (str(options.capture), options.phase)
    gpus = probed_node(clock, cluster, node, driver=driver, driver_arguments=arguments)
    kubelet = PodResources(section.kubelet_socket)
    holders = HolderSource(cluster, node, lambda: gpus.memory, kubelet, proc=section.proc, logs=section.logs)
    sources: list[Source] = [ClockSource(clock, cluster, node), gpus, holders]
    kernel_log = settings.collect.kernel_log
    if options.capture is None and os.access(kernel_log, os.R_OK):
        # Read again from its beginning after a restart: an event within two seconds of itself is one.
        sources.append(KernelLogSource(clock, cluster, node, kernel_log, devices=lambda _node: devices_of(gpus.memory)))
    sink = StoreSink(database, node, clock, None if section.server is None else partial(server_of, section))
    try:
        yield Agent(
            sources,
            clock=clock,
            wait=wait,
            sink=sink.take if options.is_stored else None,
            rest=sink.rest,
            exposition=exposition,
            holders=lambda: holders.holders,
            policy=AgentPolicy(interval_s, min(_SNAP_S, interval_s / 10)),
        )
    finally:
        gpus.close()
        kubelet.close()
        sink.close()


def server_of(section: AgentSection) -> Address:
    """Return the server that the settings name, with the token as it stands in its file now."""
    try:
        token = "" if section.token_file is None else section.token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"[agent] token_file: {section.token_file} can't be read: {error}"
        raise SourceFailed(message) from error
    return Address(section.server or "", token, 0)


def _interval_s(settings: Settings, options: AgentOptions) -> float:
    return settings.agent.interval_s if options.interval_s is None else options.interval_s


def _node(settings: Settings, options: AgentOptions) -> str:
    if settings.collect.node is not None:
        return settings.collect.node
    return socket.gethostname() if options.capture is None else options.capture.stem


@contextmanager
def _signals_awaited() -> Iterator[Wait]:
    """Hold back SIGTERM and SIGINT, which only the wait between turns takes: a turn is never cut in the middle."""
    awaited = {signal.SIGTERM, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    try:
        yield lambda seconds: signal.sigtimedwait(awaited, seconds) is not None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
