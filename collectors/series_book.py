"""The series book: what the labels of each series say, looked up once and kept as arrays by series number.

Pull and push read the same book, so a series means the same through either.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from collectors.holders import Holding, holding_of
from collectors.metrics import ALL, BY_NAME, RANKS, label

Labels = Mapping[str, str]
SMI_PREFIX = "nvidia_smi_"
NOT_OURS, NAMELESS = -1, -2
COLUMNS = tuple(dict.fromkeys(metric.column for metric in ALL))
_PLACES = {column: place for place, column in enumerate(COLUMNS)}
_DIGITS_MAX = 9
_NOWHERE = (NAMELESS, NAMELESS, NAMELESS)
_T = TypeVar("_T")


@dataclass(slots=True)
class Device:
    """A GPU, or a MIG device of it where `slice_uuid` is not None, with its identity as labels last told it."""

    gpu_uuid: str
    slice_uuid: str | None
    parent: int | None
    cluster: str
    node: str
    told: dict[str, str | float] = field(default_factory=dict)
    version: int = 0

    def learn(self, told: Mapping[str, str | float]) -> None:
        """Take in what is told of it; the version tells whether that was news."""
        if not told.items() <= self.told.items():
            self.told.update(told)
            self.version += 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of every series, by its number: arrays of one length."""

    device: NDArray[np.int64]
    column: NDArray[np.int64]
    divisor: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    rank: NDArray[np.int64]
    exporter: NDArray[np.int64]
    holding: NDArray[np.int64]
    is_doubtful: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What is known of every device, by its number; the parent of a GPU is -1."""

    parent: NDArray[np.int64]
    gpu_uuid: pl.Series
    slice_uuid: pl.Series


class SeriesBook:
    """Numbers for series, devices, exporters and holdings; what is no metric of ours gets no number."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self._rows: list[tuple[int, int, float, float, float, int, int, int, bool]] = []
        self._facts = _facts([])
        self._devices_known: DeviceFacts | None = None
        self._devices: dict[tuple[str, str | None], int] = {}
        self._exporters: dict[tuple[str | None, ...], int] = {}
        self._holdings: dict[Holding, int] = {}
        self._places: dict[tuple[frozenset[tuple[str, str]], bool], tuple[int, int, int]] = {}
        self.devices: list[Device] = []
        self.exporters: list[tuple[str | None, ...]] = []
        self.holdings: list[Holding] = []

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self._rows)

    def add(self, labels: Labels) -> int:
        """Return the number of a new series; `NOT_OURS` or `NAMELESS` (no GPU, no node) where it gets none."""
        name = labels.get("__name__", "")
        metric = BY_NAME.get(name)
        if metric is None:
            return NOT_OURS
        rest = frozenset(item for item in labels.items() if item[0] != "__name__")
        known = self._places.get((rest, name.startswith(SMI_PREFIX)))
        if known is None:
            known = self._places[rest, name.startswith(SMI_PREFIX)] = self._place(labels, name)
        if known is _NOWHERE:
            return NAMELESS
        device, exporter, holding = known
        self._rows.append(
            (
                device, _PLACES[metric.column], metric.divisor, metric.low, metric.high, RANKS[name], exporter, holding,
                metric.is_doubtful,
            )
        )  # fmt: skip
        return len(self._rows) - 1

    def _place(self, labels: Labels, name: str) -> tuple[int, int, int]:
        """Return the numbers of device, exporter and holding by what all series of one scrape have in common."""
        uuid, node = label(labels, "gpu_uuid"), label(labels, "node")
        if uuid is None or node is None:
            return _NOWHERE
        if name.startswith(SMI_PREFIX) and not uuid.startswith("GPU-"):
            uuid = f"GPU-{uuid}"  # that exporter cuts it off
        device = self._device(labels, uuid, label(labels, "cluster") or self.cluster, node)
        identity = (labels.get("job"), labels.get("instance"), labels.get("prometheus_replica"), labels.get("replica"))
        exporter = _number((node, *identity), self._exporters, self.exporters)
        return device, exporter, self._holding(labels)

    def facts(self) -> Facts:
        """Return what is known of every series so far."""
        known = len(self._facts.device)
        if known < len(self._rows):
            more = _facts(self._rows[known:])
            self._facts = Facts(
                *(np.concatenate([getattr(self._facts, each.name), getattr(more, each.name)]) for each in fields(Facts))
            )
        return self._facts

    def device_facts(self) -> DeviceFacts:
        """Return what is known of every device so far."""
        if self._devices_known is None or len(self._devices_known.parent) < len(self.devices):
            devices = list(self.devices)
            self._devices_known = DeviceFacts(
                np.array([-1 if device.parent is None else device.parent for device in devices], dtype=np.int64),
                pl.Series("gpu_uuid", [device.gpu_uuid for device in devices], dtype=pl.String()),
                pl.Series("slice_uuid", [device.slice_uuid for device in devices], dtype=pl.String()),
            )
        return self._devices_known

    def _holding(self, labels: Labels) -> int:
        holding = holding_of(labels)
        return -1 if holding is None else _number(holding, self._holdings, self.holdings)

    def _device(self, labels: Labels, uuid: str, cluster: str, node: str) -> int:
        instance = whole(label(labels, "gpu_instance"))
        if instance is None:
            return self._number(uuid, None, labels, cluster, node)
        parent = self._number(uuid, None, labels, cluster, node)
        part = label(labels, "compute_instance")
        own = f"{uuid}/gi{instance}" + ("" if part is None else f"/ci{part}")
        return self._number(uuid, label(labels, "slice_uuid") or own, labels, cluster, node, parent)

    def _number(  # noqa: PLR0917 - what the labels say, taken apart
        self, uuid: str, slice_uuid: str | None, labels: Labels, cluster: str, node: str, parent: int | None = None
    ) -> int:
        number = self._devices.setdefault((uuid, slice_uuid), len(self.devices))
        if number == len(self.devices):
            self.devices.append(Device(uuid, slice_uuid, parent, cluster, node))
        device = self.devices[number]
        if (cluster, node) != (device.cluster, device.node):
            device.cluster, device.node = cluster, node
            device.version += 1
        device.learn(_told(labels))
        return number


def whole(text: str | None) -> int | None:
    """Return a label's small whole number, None where it is none."""
    return int(text) if text is not None and text.isdecimal() and len(text) < _DIGITS_MAX else None


def _told(labels: Labels) -> dict[str, str | float]:
    texts = {name: label(labels, name) for name in ("pci_bus_id", "driver", "profile", "serial", "vbios")}
    texts["model"] = label(labels, "model") or (labels.get("name") if "nvidia_smi" in labels["__name__"] else None)
    numbers = {name: whole(label(labels, name)) for name in ("gpu_index", "gpu_instance", "compute_instance")}
    return {name: value for name, value in (*texts.items(), *numbers.items()) if value is not None}


def _number(value: _T, known: dict[_T, int], values: list[_T]) -> int:
    number = known.setdefault(value, len(values))
    if number == len(values):
        values.append(value)
    return number


def _facts(rows: list[tuple[int, int, float, float, float, int, int, int, bool]]) -> Facts:
    columns = list(zip(*rows, strict=True)) or [()] * 9
    whole_numbers, floats = np.int64, np.float64
    kinds = (
        whole_numbers,
        whole_numbers,
        floats,
        floats,
        floats,
        whole_numbers,
        whole_numbers,
        whole_numbers,
        np.bool_,
    )
    return Facts(*(np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=True)))
