"""What was read of one node becomes rows: GPUs and MIG devices, their samples, the node, and what happened."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

import polars as pl

from fleet.frames import Table
from fleet.tables import TABLES

Value = str | int | float | bool | datetime | None
Row = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Place:
    """Where and when the node was read."""

    cluster: str
    node: str
    now: datetime
    source: str


@dataclass(frozen=True, slots=True)
class SliceReading:
    """What was read of one MIG device, by column name."""

    uuid: str
    identity: Mapping[str, Value]
    sample: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class SlicePlace:
    """Which part of which GPU a MIG device is."""

    uuid: str
    gpu_uuid: str
    gpu_instance: Value
    compute_instance: Value


@dataclass(frozen=True, slots=True)
class GpuReading:
    """What was read of one GPU, by column name; `lost` is the driver's word where it has lost the GPU.

    `is_seen` is False where the identity is the last known one only, `is_listed` where the driver does not even
    count it: it may be in another node by now, so nothing is said of where it is.
    """

    index: int
    uuid: str | None
    identity: Mapping[str, Value]
    sample: Mapping[str, Value]
    slices: tuple[SliceReading, ...] = ()
    lost: str | None = None
    is_seen: bool = True
    is_listed: bool = True


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One process on a GPU or on a MIG device of it; `kind` joins compute, graphics and mps by plus signs.

    The pid is that of the machine's own process namespace; `memory_mib` is None where the driver does not tell.
    """

    gpu_uuid: str
    slice_uuid: str | None
    gpu_instance: int | None
    compute_instance: int | None
    pid: int
    kind: str
    memory_mib: int | None


@dataclass(slots=True)
class NodeMemory:
    """What a node's source remembers from one reading to the next; it can be handed to a source that starts anew.

    `known`: UUID and identity by GPU index. `lost`: GPUs told as lost, by UUID or by `index N`. `counters`: by
    UUID, the last values of what only a reset sets back, with their time. `told`: troubles told already.
    `processes` and `slices` are those of the last reading.
    """

    known: dict[int, tuple[str, dict[str, Value]]] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    counters: dict[str, Row] = field(default_factory=dict)
    told: frozenset[tuple[str, str]] = frozenset()
    processes: tuple[GpuProcess, ...] = ()
    slices: tuple[SlicePlace, ...] = ()


def frames_of(
    place: Place, gpus: Iterable[GpuReading], gpus_expected: int, events: Iterable[Row] = ()
) -> Mapping[str, pl.DataFrame]:
    """Return the frames of one reading of a node, in wire form.

    A lost GPU keeps its last known identity without being seen again. A sample in which nothing was measured is
    no sample.
    """
    readings = tuple(gpus)
    rows: dict[str, list[Row]] = {
        "cluster": [{"cluster": place.cluster, "last_seen_at": place.now}],
        "node": [_node_row(place, readings, gpus_expected)],
        "gpu": [_gpu_row(place, gpu) for gpu in readings if gpu.uuid is not None and gpu.is_listed],
        "gpu_sample": [_sample_row(place, "gpu_uuid", gpu.uuid, gpu.sample) for gpu in readings if gpu.uuid],
        "slice": [_slice_row(place, gpu, slice_) for gpu in readings if gpu.uuid for slice_ in gpu.slices],
        "slice_sample": [
            _sample_row(place, "slice_uuid", slice_.uuid, slice_.sample)
            for gpu in readings
            if gpu.uuid
            for slice_ in gpu.slices
        ],
        "event": list(events),
    }
    rows["gpu_sample"] = [row for row in rows["gpu_sample"] if _is_measured(row)]
    rows["slice_sample"] = [row for row in rows["slice_sample"] if _is_measured(row)]
    return MappingProxyType({name: _frame(table_rows, TABLES[name]) for name, table_rows in rows.items()})


def _frame(rows: list[Row], table: Table) -> pl.DataFrame:
    # Not strict: a number beyond the width of its column, from a broken driver, is null and not the end of it all.
    schema = table.schema("wire")
    return pl.DataFrame(
        [pl.Series(name, [row.get(name) for row in rows], dtype, strict=False) for name, dtype in schema.items()]
    )


def _is_measured(row: Row) -> bool:
    return any(value is not None for name, value in row.items() if name not in {"gpu_uuid", "slice_uuid", "ts"})


def _node_row(place: Place, gpus: tuple[GpuReading, ...], gpus_expected: int) -> Row:
    models = Counter(str(gpu.identity["model"]) for gpu in gpus if gpu.identity.get("model") is not None)
    return {
        "cluster": place.cluster,
        "node": place.node,
        "gpus": gpus_expected,
        "model": models.most_common(1)[0][0] if models else None,
        "last_seen_at": place.now,
    }


def _gpu_row(place: Place, gpu: GpuReading) -> Row:
    return {
        **gpu.identity,
        "gpu_uuid": gpu.uuid,
        "uuid": gpu.uuid,
        "cluster": place.cluster,
        "node": place.node,
        "gpu_index": gpu.index,
        "last_seen_at": place.now if gpu.is_seen else None,
    }


def _slice_row(place: Place, gpu: GpuReading, slice_: SliceReading) -> Row:
    return {
        **slice_.identity,
        "slice_uuid": slice_.uuid,
        "uuid": slice_.uuid,
        "gpu_uuid": gpu.uuid,
        "last_seen_at": place.now,
    }


def _sample_row(place: Place, column: str, uuid: str | None, sample: Mapping[str, Value]) -> Row:
    return {**sample, column: uuid, "ts": place.now}
