"""Composition: the only place where real or fake is chosen and rooms are wired together."""

import socket
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import polars as pl

from actions.port import Cluster
from collectors.cluster_rows import Known
from collectors.price_nodes import read_node_prices
from collectors.prices import read_price_book
from collectors.source import Source
from fleet.batch import Batch, Trouble
from fleet.clock import Clock
from fleet.errors import BadInput
from fleet.move import Move, Stage
from simulator.cluster import SimulatorCluster
from simulator.late import LateWorld
from simulator.source import SimulatorSource
from simulator.spec import FleetSpec
from simulator.spec_file import spec_from
from simulator.step import advance, build
from simulator.world import World
from steward.config import SOURCES, Settings, SimulatorSection
from steward.notify import Outbox
from steward.notify_settings import NotifySettings
from steward.overseer import Overseer
from store.store import Store

if TYPE_CHECKING:
    from collectors.remote_write import RemoteWrite


@dataclass(frozen=True, slots=True)
class House:
    """Everything a turn needs, wired. `overseers` watch over clusters, by name; `outbox` carries news to owners."""

    settings: Settings
    store: Store
    clock: Clock
    sources: tuple[Source, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    overseers: Mapping[str, Overseer] = field(default_factory=dict)
    outbox: Outbox = field(default_factory=Outbox)


@contextmanager
def open_house(settings: Settings, database: Path | None, clock: Clock) -> Iterator[House]:
    """Open the store (None: in memory) and wire the configured sources and clusters; close it at the end."""
    with Store.open(database, clock=clock) as store:
        house = furnish(settings, store, clock)
        try:
            yield house
        finally:
            close_sources((*house.sources, *house.clusters, *house.overseers.values()))


def furnish(settings: Settings, store: Store, clock: Clock) -> House:
    """Wire the configured sources and clusters around an open store, and bring its prices up to date."""
    load_prices(settings, store)
    names = settings.collect.sources
    others = open_sources(settings, store, clock, [name for name in names if name != "simulator"])
    clusters, overseers = _open_clusters(settings, store, clock)
    outbox = outbox_of(settings, overseers)
    if "simulator" not in names:
        return House(settings, store, clock, tuple(others), clusters, overseers, outbox)
    spec = fleet_spec(settings.simulator)
    world = LateWorld(lambda: live_again(spec, store))  # most questions are for the store alone
    sources = (*others, SimulatorSource(world))
    return House(settings, store, clock, sources, (*clusters, SimulatorCluster(world)), overseers, outbox)


def _open_clusters(
    settings: Settings, store: Store, clock: Clock
) -> tuple[tuple[Cluster, ...], Mapping[str, Overseer]]:
    """Return the real clusters and what watches over the moves in each."""
    if "kubernetes" not in settings.collect.sources:
        return (), {}
    from steward.kube_house import open_clusters  # noqa: PLC0415 - few commands need the library

    return open_clusters(settings.collect, store, clock)


def outbox_of(settings: Settings, overseers: Mapping[str, Overseer]) -> Outbox:
    """Return the channels by which owners are told."""
    if settings.notify == NotifySettings():
        return Outbox()
    from steward.channels import open_outbox  # noqa: PLC0415 - where nothing but the log is told, none is needed

    heralds = {name: each.herald for name, each in overseers.items() if each.herald is not None}
    return open_outbox(settings.notify, heralds)


def load_prices(settings: Settings, store: Store) -> None:
    """Store the price book in force; a price that stands there already is not stored twice."""
    store.append(Batch("prices", {"price": read_price_book(settings.prices.book)}))
    troubles = load_node_prices(settings, store)
    if troubles:
        store.append(Batch("prices", troubles=troubles))


def load_node_prices(settings: Settings, store: Store) -> tuple[Trouble, ...]:
    """Store what a price list says of the machines that are known by now; return what of it is not used."""
    prices, troubles = read_node_prices(settings.prices.book, store.read("node"))
    if prices.height:
        store.append(Batch("prices", {"price": prices}))
    return tuple(troubles)


def live_again(spec: FleetSpec, store: Store) -> World:
    """Return the simulated fleet as the store last saw it: lived again from its beginning, moves included."""
    world = build(spec)
    outcomes = store.read("outcome").filter(~pl.col("is_dry_run"), pl.col("stage") == Stage.APPLIED.value)
    moves = store.read("move").select("move_id", "ordinal", "body").unique("move_id", keep="first", maintain_order=True)
    made = outcomes.join(moves, on="move_id").sort("ts", "ordinal")
    cluster = SimulatorCluster(world)
    for ts, body in made.select("ts", "body").iter_rows():
        advance(world, max(ts, world.now))
        # it was made, and what was planned with it on the same object had raised the version before
        cluster.make(replace(Move.from_json(body), resource_version=""))
    seen = store.watermark("simulator")
    if seen is not None and seen > world.now:
        advance(world, seen)
    return world


def fleet_spec(section: SimulatorSection) -> FleetSpec:
    """Return the fleet that the settings describe: a preset, with a file of changes over it where one is named."""
    mapping: dict[str, object] = {"preset": section.preset, "gpus": section.gpus, "days": section.days}
    mapping["seed"] = section.seed
    place = "[simulator]"
    if section.starts_at is not None:
        mapping["starts_at"] = section.starts_at
    if section.spec is not None:
        place = str(section.spec)
        mapping = {**_start_of(mapping), **_toml(section.spec)}
    return spec_from(mapping, place)


def _start_of(mapping: dict[str, object]) -> dict[str, object]:
    return {"starts_at": mapping["starts_at"]} if "starts_at" in mapping else {}


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        message = f"{path}: can't be read as a fleet: {error}"
        raise BadInput(message, place=str(path)) from error


def open_sources(settings: Settings, store: Store, clock: Clock, names: Iterable[str]) -> list[Source]:
    """Return the live sources of these names; `BadInput` where a setting one of them needs is missing."""
    return [source for name in names for source in _open_source(settings, store, clock, name)]


@runtime_checkable
class Closing(Protocol):
    """A source that holds on to something between readings."""

    def close(self) -> None:
        """Let go of it."""
        ...


@runtime_checkable
class Beginning(Protocol):
    """A source that can be told to begin reading before it is waited for."""

    def begin(self) -> None:
        """Begin to read, without waiting."""
        ...


def begin_sources(sources: Iterable[Source]) -> None:
    """Let every source that can begin at once do so: several are then read side by side."""
    for source in sources:
        if isinstance(source, Beginning):
            source.begin()


def close_sources(sources: Iterable[object]) -> None:
    """Let every source, and every cluster, go of what it holds."""
    for source in sources:
        if isinstance(source, Closing):
            source.close()


def open_capture_source(settings: Settings, clock: Clock, path: Path, phase: str) -> Source:
    """Return the NVML source over a capture, read through the real bindings."""
    from collectors.capture import open_capture  # noqa: PLC0415 - few commands need the driver's bindings
    from collectors.capture_driver import driver_for  # noqa: PLC0415 - likewise
    from collectors.nvml import NvmlSource  # noqa: PLC0415 - likewise

    driver = driver_for(open_capture(path, phase))
    return NvmlSource(clock, settings.collect.cluster, settings.collect.node or path.stem, driver)


def open_trace_sources(path: Path) -> list[Source]:
    """Return one source per recorded trace in a file or folder."""
    from collectors.replay import open_traces  # noqa: PLC0415 - few commands replay

    return list(open_traces(path))


def open_door(settings: Settings, store: Store) -> "RemoteWrite":
    """Return what takes remote-write requests into the store."""
    from collectors.remote_write import RemoteWrite  # noqa: PLC0415 - only a server pushes

    return RemoteWrite(store.append, settings.collect.cluster, told=partial(last_xids, store))


def last_xids(store: Store) -> dict[str, int]:
    """Return the code of the last XID that is stored of each GPU, by UUID."""
    is_told = pl.col("gpu_uuid").is_not_null() & pl.col("code").is_not_null()
    xids = store.read("event").filter(pl.col("kind") == "xid", is_told).sort("ts")
    return dict(xids.group_by("gpu_uuid").agg(pl.col("code").last()).iter_rows())


def known_of(store: Store, cluster: str) -> Known:
    """Return what the store has of a cluster that its source goes on from."""
    here = pl.col("cluster") == cluster
    demand = store.engine.table("demand_sample")
    workspaces = store.engine.run(demand.filter(demand.cluster == cluster).select("workspace").distinct())
    pods, jobs = store.engine.table("pod"), store.engine.table("job")
    return Known(
        store.read("workspace_member").filter(here),
        store.read("quota").filter(here),
        frozenset(workspaces.get_column("workspace")),
        store.engine.run(pods.filter(pods.cluster == cluster, pods.ends_at.isnull())),
        store.engine.run(jobs.filter(jobs.cluster == cluster, jobs.ended_at.isnull())),
        lambda: frozenset(
            store.engine.run(pods.filter(pods.cluster == cluster, pods.ends_at.notnull()).select("pod_uid")).get_column(
                "pod_uid"
            )
        ),
    )


def _open_source(settings: Settings, store: Store, clock: Clock, name: str) -> list[Source]:
    collect = settings.collect
    if name == "nvml":
        from collectors.agent import probed_node  # noqa: PLC0415 - few commands need the driver's bindings

        # In a child of its own: a driver that hangs must not hold whoever serves or collects.
        node = collect.node or socket.gethostname()
        return [probed_node(clock, collect.cluster, node, driver=settings.agent.driver)]
    if name == "kmsg":
        from steward.kernel_log import open_kernel_log  # noqa: PLC0415 - few commands need it

        return [open_kernel_log(settings, store, clock)]
    if name == "prometheus":
        from collectors.prometheus import PrometheusSource  # noqa: PLC0415 - few commands need the library

        return [PrometheusSource(collect.prometheus, clock, collect.cluster, told=partial(last_xids, store))]
    if name == "kubernetes":
        from collectors.cluster_source import ClusterSource  # noqa: PLC0415 - few commands need the library

        clusters: list[tuple[str, str | None]] = [(context, context) for context in collect.contexts] or [
            (collect.cluster, None)
        ]
        return [
            ClusterSource(clock, cluster, context, partial(known_of, store, cluster)) for cluster, context in clusters
        ]
    message = f"source {name}: there is no such source; the sources are {', '.join(SOURCES)}"
    raise BadInput(message, field="sources")
