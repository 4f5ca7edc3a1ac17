"""Samples of a Prometheus server, pulled or pushed, become rows: GPUs, MIG devices, samples, XIDs and holders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from collectors.holders import HolderMemory, Place, holder_rows
from collectors.metrics import FREE_COLUMN, INFO_COLUMN, XID_COLUMN, is_blank
from collectors.prometheus_wide import Samples, last_of_each, scaled, wide
from collectors.series_book import COLUMNS, NAMELESS, Device, Facts, SeriesBook
from collectors.twins import TIME_END_MS, Twins
from collectors.xid_gauge import XidMemory, changes
from fleet.batch import Trouble
from fleet.frames import UTC_MICROSECONDS, Table
from fleet.tables import TABLES

Labels = Mapping[str, str]
Frames = dict[str, pl.DataFrame]
_MEMORY_PARTS = ("memory_used_mib", "memory_reserved_mib", FREE_COLUMN)
SERIES_MAX = 1_000_000  # series that a book holds before it is begun anew
_STALE_BITS = 0x7FF0000000000002
_ANNOUNCE_MS = 60_000
_MIG_MS = 600_000  # a GPU whose MIG device was seen so lately has no utilization of its own
_XID, _INFO = COLUMNS.index(XID_COLUMN), COLUMNS.index(INFO_COLUMN)
_UTILIZATION = COLUMNS.index("utilization")
_OWN = {"series": pl.UInt32(), "ts": UTC_MICROSECONDS, "value": pl.Float64()}


@dataclass(frozen=True, slots=True)
class Readings:
    """Series by their labels (`__name__` among them), and their samples: frame of series (index), ts, value."""

    series: Sequence[Labels]
    samples: pl.DataFrame


@dataclass(slots=True)
class Memory:
    """What outlives a reading: what XID gauges show, who is believed, who holds what, where MIG devices were seen."""

    twins: Twins = field(default_factory=lambda: Twins(0.75))
    xids: XidMemory = field(default_factory=XidMemory)
    holders: HolderMemory = field(default_factory=HolderMemory)
    slices_seen: dict[int, int] = field(default_factory=dict)
    percent_nodes: dict[str, bool] = field(default_factory=dict)
    announced: dict[int, tuple[int, int]] = field(default_factory=dict)
    parts: dict[int, dict[str, tuple[datetime, float]]] = field(default_factory=dict)

    def by_name(self, twins: Twins) -> "Memory":
        """Return what holds for another series book too, whose numbers are others."""
        return Memory(twins, self.xids, self.holders, percent_nodes=self.percent_nodes)

    def copy(self) -> "Memory":
        """Return a copy to go back to where what was read could not be stored."""
        return Memory(
            self.twins,  # what it has seen twice it takes as once
            replace(self.xids, shown=dict(self.xids.shown)),
            replace(self.holders, seen=dict(self.holders.seen)),
            dict(self.slices_seen),
            dict(self.percent_nodes),
            dict(self.announced),
            self.parts,
        )


def no_samples() -> pl.DataFrame:
    """Return a frame of samples without a row."""
    return pl.DataFrame(schema=_OWN)


def frames_of(readings: Readings, cluster: str, source: str) -> tuple[Frames, tuple[Trouble, ...]]:
    """Return the frames of one reading that stands alone; see `rows_of`."""
    return Reader(cluster, source).frames_of(readings)


class Reader:
    """Turns readings of one source into frames, and remembers from one to the next."""

    def __init__(self, cluster: str, source: str, memory: Memory | None = None, series_max: int = SERIES_MAX) -> None:
        self.book, self.source, self._series_max = SeriesBook(cluster), source, series_max
        self.memory = Memory() if memory is None else memory
        self._numbers: dict[frozenset[tuple[str, str]], int] = {}

    def frames_of(self, readings: Readings) -> tuple[Frames, tuple[Trouble, ...]]:
        """Return the frames of our tables, in wire form, and what could not become a row."""
        if len(self.book) > self._series_max:
            self._begin_again()
        numbers = np.array([self._number(labels) for labels in readings.series] or [0], dtype=np.int64)
        series = numbers[readings.samples.get_column("series").to_numpy()]
        nameless = int((numbers == NAMELESS).sum()) if readings.series else 0
        ours = series >= 0
        moments = readings.samples.get_column("ts").dt.epoch("ms").to_numpy()
        values = readings.samples.get_column("value").to_numpy()
        samples = Samples(series[ours], moments[ours], values[ours])
        frames, troubles = rows_of(self.book, samples, self.source, self.memory)
        return frames, (*nameless_trouble(nameless), *troubles)

    def _begin_again(self) -> None:
        """Forget series that came and went; what is known by name stays."""
        self.book, self._numbers = SeriesBook(self.book.cluster), {}
        self.memory = self.memory.by_name(Twins(0.75))

    def _number(self, labels: Labels) -> int:
        key = frozenset(labels.items())
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self.book.add(labels)
        return number


def nameless_trouble(count: int) -> tuple[Trouble, ...]:
    """Return what is to be told of so many series that name no GPU or no node."""
    if count == 0:
        return ()
    return (Trouble("rejected", "series", "no label names its GPU (UUID) or its node (Hostname)", count),)


def rows_of(book: SeriesBook, samples: Samples, source: str, memory: Memory) -> tuple[Frames, tuple[Trouble, ...]]:
    """Return the frames of our tables, in wire form, and what could not become a row.

    A series of a MIG device belongs to the device alone; utilization of a GPU that has MIG devices is not measured.
    An XID is told when the gauge changes to it or first shows it: the gauge keeps its last value for ever.
    """
    facts = book.facts()
    troubles: list[Trouble] = []
    _forget_stale(samples, facts, memory)
    good = samples.where(
        ~np.isnan(samples.values) & ~is_blank(samples.values) & (samples.ts >= 0) & (samples.ts < TIME_END_MS)
    )
    good = scaled(good, book, memory.percent_nodes, troubles)
    kept = memory.twins.choose(
        facts.device[good.series], facts.column[good.series], facts.exporter[good.series], good.ts
    )
    good = good.where(kept)
    if not len(good.ts):
        return {}, tuple(troubles)
    devices, last_seen = last_of_each(facts.device[good.series], good.ts)
    good = _without_utilization_under_mig(good, facts, book, memory)
    frames = _sample_frames(good, facts, book)
    _learn(frames.pop("gpu_values"), book, memory)
    moments, changed = _news(book, devices, last_seen, memory)
    frames |= _dimensions(book, moments) | _places(book, changed)
    frames["event"] = _events(good, facts, book, source, memory.xids)
    if "holder" in TABLES:
        frames["holder"] = _holders(good, facts, book, source, memory.holders)
    return {name: fitted(frame, TABLES[name]) for name, frame in frames.items() if frame.height}, tuple(troubles)


def _forget_stale(samples: Samples, facts: Facts, memory: Memory) -> None:
    """A series that Prometheus marks as gone (it does so when pushing) leaves its place to another exporter at once."""
    stale = samples.series[samples.values.view(np.int64) == _STALE_BITS]
    if len(stale):
        memory.twins.forget(facts.device[stale], facts.column[stale], facts.exporter[stale])


def _without_utilization_under_mig(good: Samples, facts: Facts, book: SeriesBook, memory: Memory) -> Samples:
    device = facts.device[good.series]
    parents = book.device_facts().parent
    of_slices = parents[device] >= 0
    for parent, moment in zip(*last_of_each(parents[device[of_slices]], good.ts[of_slices]), strict=True):
        memory.slices_seen[int(parent)] = max(int(moment), memory.slices_seen.get(int(parent), 0))
    if not memory.slices_seen:
        return good
    seen = np.full(len(parents), -_MIG_MS, dtype=np.int64)
    seen[list(memory.slices_seen)] = list(memory.slices_seen.values())
    is_not_measured = (facts.column[good.series] == _UTILIZATION) & (good.ts < seen[device] + _MIG_MS)
    return good.where(~(is_not_measured & ~of_slices))


def _sample_frames(good: Samples, facts: Facts, book: SeriesBook) -> Frames:
    known = book.device_facts()
    uuids = {"gpu_sample": known.gpu_uuid, "slice_sample": known.slice_uuid}
    measured = good.where((facts.column[good.series] != _XID) & (facts.column[good.series] != _INFO))
    is_slice = known.parent[facts.device[measured.series]] >= 0
    whole = wide(measured.where(~is_slice), facts)
    frames = {"gpu_values": whole}
    for name, rows in (("gpu_sample", whole), ("slice_sample", wide(measured.where(is_slice), facts))):
        columns = [column for column in rows.columns if column in TABLES[name].schema("wire")]
        told = rows.filter(pl.any_horizontal(pl.col(columns).exclude("ts").is_not_null())) if len(columns) > 1 else None
        if told is not None:
            frames[name] = told.select(uuids[name][told.get_column("device")].alias(uuids[name].name), *columns)
    return frames


def _news(
    book: SeriesBook, devices: NDArray[np.int64], last_seen: NDArray[np.int64], memory: Memory
) -> tuple[dict[int, int], list[int]]:
    """Return the devices to be announced with when each was last seen, and those of them that are new or changed.

    They are announced when they are new or changed, and once a minute.

    Samples come many times a second when they are pushed, and what is known of a GPU is not rewritten each time.
    """
    moments = dict(zip(devices.tolist(), last_seen.tolist(), strict=True))
    for number in list(moments):
        parent = book.devices[number].parent
        if parent is not None:
            moments[parent] = max(moments.get(parent, 0), moments[number])
    news, changed = {}, []
    for number, moment in moments.items():
        version, before = memory.announced.get(number, (-1, 0))
        if version != book.devices[number].version or moment - before >= _ANNOUNCE_MS or moment < before:
            memory.announced[number] = (book.devices[number].version, max(moment, before))
            news[number] = moment
            if version != book.devices[number].version:
                changed.append(number)
    # A MIG device is announced with its GPU, without which the store would not know it.
    for number in list(news):
        parent = book.devices[number].parent
        if parent is not None:
            news.setdefault(parent, moments[parent])
    return news, changed


def _places(book: SeriesBook, changed: Sequence[int]) -> Frames:
    """Return the clusters and nodes of devices that are new or changed."""
    nodes = {
        (device.cluster, device.node): {
            "cluster": device.cluster,
            "node": device.node,
            "model": device.told.get("model"),
        }
        for device in (book.devices[number] for number in changed)
    }
    clusters = [{"cluster": name} for name in dict.fromkeys(cluster for cluster, _ in nodes)]
    rows = pl.DataFrame(list(nodes.values()), infer_schema_length=None)
    return {"cluster": pl.DataFrame(clusters), "node": rows}


def _dimensions(book: SeriesBook, moments: Mapping[int, int]) -> Frames:
    if not moments:
        return {}
    with_slices = {device.parent for device in book.devices if device.parent in moments}
    gpus, slices = [], []
    for number, moment in moments.items():
        device = book.devices[number]
        row = {"last_seen_at": moment, "gpu_uuid": device.gpu_uuid, **device.told}
        if device.slice_uuid is not None:
            slices.append({**row, "slice_uuid": device.slice_uuid, "uuid": device.slice_uuid})
            continue
        split = {"mig_enabled": 1} if number in with_slices else {}
        place = {"cluster": device.cluster, "node": device.node}
        gpus.append({**row, **place, "uuid": device.gpu_uuid, **split})
    return {
        "gpu": _timed(gpus, "last_seen_at"),
        "slice": _timed(slices, "last_seen_at"),
    }


def _learn(rows: pl.DataFrame, book: SeriesBook, memory: Memory) -> None:
    """Take what samples tell of a GPU itself into its device: its last values, and memory as the sum of its parts.

    The parts of one scrape may be pushed in several requests.
    """
    names = [name for name in rows.columns if name in TABLES["gpu"].schema("wire")]
    parts = [name for name in _MEMORY_PARTS if name in rows.columns]
    if not names and FREE_COLUMN not in parts and not memory.parts:
        return
    last = rows.group_by("device", maintain_order=True).agg(
        pl.col(names).drop_nulls().last(),
        *(pl.struct("ts", name).filter(pl.col(name).is_not_null()).last().alias(name) for name in parts),
    )
    for row in last.to_dicts():
        number = row.pop("device")
        known = memory.parts.setdefault(number, {})
        known.update({name: (row[name]["ts"], row[name][name]) for name in parts if row[name] is not None})
        values = {name: row[name] for name in names}
        is_whole = len(known) == len(_MEMORY_PARTS) and len({moment for moment, _ in known.values()}) == 1
        if is_whole and values.get("memory_mib") is None:
            values["memory_mib"] = sum(value for _, value in known.values())
        book.devices[number].learn({name: value for name, value in values.items() if value is not None})


def _events(good: Samples, facts: Facts, book: SeriesBook, source: str, memory: XidMemory) -> pl.DataFrame:
    gauges = good.where(facts.column[good.series] == _XID)
    devices = facts.device[gauges.series]
    names = {number: _name(book.devices[number]) for number in np.unique(devices).tolist()}
    rows = []
    for number, moment, code, words in changes(devices, gauges.ts, gauges.values.astype(np.int64), names, memory):
        device = book.devices[number]
        rows.append(
            {"ts": moment, "cluster": device.cluster, "node": device.node, "gpu_uuid": device.gpu_uuid,
             "slice_uuid": device.slice_uuid, "pci_bus_id": device.told.get("pci_bus_id"), "kind": "xid", "code": code,
             "message": words, "source": source}
        )  # fmt: skip
    return _timed(rows, "ts")


def _holders(good: Samples, facts: Facts, book: SeriesBook, source: str, memory: HolderMemory) -> pl.DataFrame:
    held = facts.holding[good.series]
    named = good.where(held >= 0)
    if not len(named.ts) and not memory.seen:
        return pl.DataFrame()
    pair = facts.device[named.series] * (len(book.holdings) + 1) + facts.holding[named.series]
    pairs, last = last_of_each(pair, named.ts)
    _, negative = last_of_each(pair, -named.ts)
    seen = [
        (
            _place(book.devices[each // (len(book.holdings) + 1)]),
            book.holdings[each % (len(book.holdings) + 1)],
            -one,
            end,
        )
        for each, one, end in zip(pairs.tolist(), negative.tolist(), last.tolist(), strict=True)
    ]
    measured = _moments(good, facts, book, {place for place, _ in memory.seen})
    return holder_rows(seen, measured, source, memory)


def _moments(good: Samples, facts: Facts, book: SeriesBook, wanted: set[Place]) -> dict[Place, NDArray[np.int64]]:
    """Return when each of the wanted devices was measured."""
    if not wanted:
        return {}
    device = facts.device[good.series]
    order = np.argsort(device, kind="stable")
    starts = np.flatnonzero(np.diff(device[order], prepend=-1))
    pieces = np.split(good.ts[order], starts[1:])
    places = [_place(book.devices[number]) for number in device[order[starts]].tolist()]
    return {place: piece for place, piece in zip(places, pieces, strict=True) if place in wanted}


def _name(device: Device) -> tuple[str, str | None]:
    return device.gpu_uuid, device.slice_uuid


def _place(device: Device) -> Place:
    return Place(device.cluster, device.node, device.gpu_uuid, device.slice_uuid)


def _timed(rows: Sequence[Mapping[str, object]], name: str) -> pl.DataFrame:
    if not rows:
        return pl.DataFrame()
    return pl.DataFrame(rows, infer_schema_length=None).with_columns((pl.col(name) * 1000).cast(UTC_MICROSECONDS))


def fitted(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Return the rows as the table has them, in wire form: numbers rounded where it holds whole ones, flags as such."""
    schema = table.schema("wire")
    present = [_cast(rows, name, dtype) for name, dtype in schema.items() if name in rows.columns]
    absent = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in rows.columns]
    return rows.select(*present, *absent).select(list(schema))


def _cast(rows: pl.DataFrame, name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Boolean():
        return (pl.col(name) != 0).alias(name)
    if dtype.is_integer() and rows.schema[name].is_float():
        return pl.col(name).round().cast(dtype)
    return pl.col(name).cast(dtype)
